"""SDP (RFC 4566) as a model without fields for names, e-mail addresses, phone numbers or keys.

Parsing keeps the parts of an offer or answer (RFC 3264) and checks each value against its grammar, so that the output
is valid SDP. `relay.privacy` decides what another party may see.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from relay.errors import ParseError

MAX_LINES: Final = 500
MAX_MEDIA: Final = 64

AddressType = Literal["IP4", "IP6"]
Attribute = tuple[str, str | None]
"""`a=name:value`, or `a=name` if the value is None."""


@dataclass(slots=True)
class Origin:
    """o=; the network type is IN."""

    username: str
    session_id: str  # digits
    version: str  # digits
    address_type: AddressType
    address: str  # a literal or a host name


@dataclass(slots=True)
class ConnectionData:
    """c=; the network type is IN."""

    address_type: AddressType
    address: str
    suffix: str = ""  # of a multicast address: "/127", "/127/3"


@dataclass(slots=True)
class MediaDescription:
    kind: str  # "audio", "video", "image", …
    port: int
    port_count: int | None  # of "m=audio 49170/2 …"
    protocol: str  # "RTP/AVP", "udptl", …
    formats: list[str]
    connections: list[ConnectionData]
    bandwidths: list[tuple[str, str]]
    attributes: list[Attribute]


@dataclass(slots=True)
class Sdp:
    origin: Origin
    connection: ConnectionData | None
    bandwidths: list[tuple[str, str]]  # ("AS", "64"); the value is digits
    timings: list[str]  # of each t= line
    attributes: list[Attribute]
    media: list[MediaDescription]

    def serialize(self) -> bytes:
        """SDP in the order of RFC 4566 5, session name "-". Raises ParseError for a line break or NUL in a value."""
        origin = self.origin
        lines = [
            "v=0",
            f"o={origin.username} {origin.session_id} {origin.version} IN {origin.address_type} {origin.address}",
            "s=-",
        ]
        if self.connection is not None:
            lines.append(_connection_line(self.connection))
        lines += [f"b={kind}:{value}" for kind, value in self.bandwidths]
        lines += [f"t={timing}" for timing in self.timings or ("0 0",)]
        _write_attributes(self.attributes, lines)
        for media in self.media:
            _write_media(media, lines)
        lines.append("")
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1 or "\0" in text:
            raise ParseError("line break or NUL in a value", "sdp")
        return text.encode("utf-8", "surrogateescape")


def _connection_line(connection: ConnectionData) -> str:
    return f"c=IN {connection.address_type} {connection.address}{connection.suffix}"


def _write_media(media: MediaDescription, lines: list[str]) -> None:
    count = "" if media.port_count is None else f"/{media.port_count}"
    lines.append(" ".join((f"m={media.kind} {media.port}{count} {media.protocol}", *media.formats)))
    lines += [_connection_line(connection) for connection in media.connections]
    lines += [f"b={kind}:{value}" for kind, value in media.bandwidths]
    _write_attributes(media.attributes, lines)


def _write_attributes(attributes: list[Attribute], lines: list[str]) -> None:
    lines += [f"a={name}" if value is None else f"a={name}:{value}" for name, value in attributes]


# RFC 4566 9. Addresses and host names are not distinguished here.
_TOKEN: Final = r"[!#-'*+\-.0-9A-Z^-~]++"
# Some write IPv6 in brackets, as in a URI.
_ADDRESS: Final = r"(?:IP4 ([A-Za-z0-9._-]{1,255}+)|IP6 \[?([A-Za-z0-9.:_-]{1,255}+)\]?)"
_match_origin: Final = re.compile(rf"(.{{1,255}}) ([0-9]{{1,32}}) ([0-9]{{1,32}}) IN {_ADDRESS}").fullmatch
_is_word: Final = re.compile(r"[!-~]++").fullmatch
_match_connection: Final = re.compile(rf"IN {_ADDRESS}((?:/[0-9]{{1,5}}){{0,2}})").fullmatch
_match_media: Final = re.compile(
    rf"({_TOKEN}) ([0-9]{{1,5}})(?:/([0-9]{{1,5}}))? ({_TOKEN}(?:/{_TOKEN})*+)((?: ++{_TOKEN})*+)"
).fullmatch
_match_timing: Final = re.compile(r"[0-9]{1,20}+ [0-9]{1,20}+").fullmatch
_match_bandwidth: Final = re.compile(rf"({_TOKEN}):([0-9]{{1,20}})").fullmatch
_match_attribute: Final = re.compile(rf"({_TOKEN})(?::(.*))?").fullmatch

# Accepted but dropped: they name people, programs and keys, or are not part of an offer.
_DROPPED: Final = frozenset("iuepkrzs")


def parse_sdp(body: bytes) -> Sdp:
    """Parse SDP. LF alone also ends a line, and lines may be in any order. Raises ParseError."""
    text = body.decode("utf-8", "surrogateescape").replace("\r\n", "\n")
    if "\r" in text or "\0" in text:
        raise ParseError("bare CR or NUL", "sdp")
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise ParseError("too many lines", "sdp")
    if lines[0].rstrip(" ") != "v=0":
        raise ParseError("does not begin with v=0", "sdp")
    reader = _SdpParser()
    for line in lines[1:]:
        if line:  # some peers end the body with empty lines
            reader.read(line)
    return reader.finish()


class _SdpParser:
    """Line-by-line parser; bandwidths, attributes and connections go to the session or to the current media."""

    __slots__ = ("attributes", "bandwidths", "connections", "media", "origin", "session", "timings")

    def __init__(self) -> None:
        self.origin: Origin | None = None
        self.timings: list[str] = []
        self.media: list[MediaDescription] = []
        self.connections: list[ConnectionData] = []
        self.bandwidths: list[tuple[str, str]] = []
        self.attributes: list[Attribute] = []
        self.session = (self.connections, self.bandwidths, self.attributes)

    def read(self, line: str) -> None:
        kind, value = line[0], line[2:].rstrip(" \t")  # blanks before the line end are common and meaningless
        if line[1:2] != "=":
            raise ParseError("not a line of SDP", "sdp")
        if kind == "a":
            self._read_attribute(value)
        elif kind not in _DROPPED:
            read = _READERS.get(kind)
            if read is None:
                raise ParseError("unknown type of line", "sdp")
            read(self, value)

    def finish(self) -> Sdp:
        if self.origin is None:
            raise ParseError("no origin", "sdp")
        connections, bandwidths, attributes = self.session
        if len(connections) > 1:
            raise ParseError("more than one connection of the session", "sdp")
        return Sdp(
            self.origin, connections[0] if connections else None, bandwidths, self.timings, attributes, self.media
        )

    def _read_origin(self, value: str) -> None:
        found = _match_origin(value)
        if found is None or self.origin is not None:
            raise ParseError("malformed origin", "sdp")
        username, session_id, version, ip4, ip6 = found.groups()
        # Some peers write a name with blanks, which is not needed.
        self.origin = Origin(
            username if _is_word(username) else "-", session_id, version, "IP4" if ip4 else "IP6", ip4 or ip6
        )

    def _begin_media(self, value: str) -> None:
        found = _match_media(value)
        if found is None or len(self.media) == MAX_MEDIA:
            raise ParseError("malformed media line", "sdp")
        kind, port, count, protocol, formats = found.groups()
        if (number := int(port)) > 65535:
            raise ParseError("port over 65535", "sdp")
        self.connections, self.bandwidths, self.attributes = [], [], []
        self.media.append(
            MediaDescription(
                kind,
                number,
                int(count) if count else None,
                protocol,
                formats.split(),
                self.connections,
                self.bandwidths,
                self.attributes,
            )
        )

    def _read_connection(self, value: str) -> None:
        found = _match_connection(value)
        if found is None:
            raise ParseError("malformed connection", "sdp")
        ip4, ip6, suffix = found.groups()
        self.connections.append(ConnectionData("IP4" if ip4 else "IP6", ip4 or ip6, suffix))

    def _read_attribute(self, value: str) -> None:
        if found := _match_attribute(value):  # RFC 4566 5.13: attributes not understood are ignored
            self.attributes.append((found[1], found[2]))

    def _read_timing(self, value: str) -> None:
        if not _match_timing(value):
            raise ParseError("malformed timing", "sdp")
        self.timings.append(value)

    def _read_bandwidth(self, value: str) -> None:
        # A malformed bandwidth is ignored: it is only a preference.
        if found := _match_bandwidth(value):
            self.bandwidths.append((found[1], found[2]))


_READERS: Final = {
    "o": _SdpParser._read_origin,
    "m": _SdpParser._begin_media,
    "c": _SdpParser._read_connection,
    "b": _SdpParser._read_bandwidth,
    "t": _SdpParser._read_timing,
}
