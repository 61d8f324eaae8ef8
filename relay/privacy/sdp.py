"""SDP masking: session descriptions as the other side may see them.

Everything that identifies a person, a device or a program is dropped: origin, names, keys in clear, candidates, unknown
attributes, codecs and formats. Addresses of active streams pass unchanged (`[media] mode = "direct"`) or have already
been replaced by rtpengine's; other addresses and host names do not pass.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from relay.errors import ParseError
from relay.privacy.codecs import keep_codecs, mask_attribute, put_in_order
from relay.sip.sdp import Attribute, ConnectionData, MediaDescription, Origin, Sdp, parse_sdp

# No fax (T.38), whose packets hold the sender's number, and no real-time text (T.140), in which one can be typed:
# rtpengine passes both on unread.
_RELAYED_KINDS: Final = frozenset({"audio", "video"})
_RELAYED_PROTOCOLS: Final = frozenset({"RTP/AVP", "RTP/SAVP", "RTP/AVPF", "RTP/SAVPF"})
# A refused stream keeps its media type and transport if registered: RFC 3264 6 wants the answer's m= line to match the
# offer's, and some stacks end the call otherwise.
KINDS: Final = _RELAYED_KINDS | {"text", "image", "application", "message"}
PROTOCOLS: Final = _RELAYED_PROTOCOLS | frozenset(
    "UDP/TLS/RTP/SAVP UDP/TLS/RTP/SAVPF TCP/RTP/AVP TCP/MSRP TCP/TLS/MSRP UDP/BFCP TCP/BFCP TCP/TLS/BFCP UDP/TLS/BFCP"
    " DTLS/SCTP UDP/DTLS/SCTP TCP/DTLS/SCTP udptl UDPTL udp UDP TCP".split()
)
BANDWIDTHS: Final = {
    "AS": 6,
    "CT": 6,
    "TIAS": 8,
    "RS": 6,
    "RR": 6,
}  # maximum of digits: AS and CT in kbit/s, TIAS, RS and RR in bit/s
LONGEST: Final = 16_384  # bytes of a masked SDP: each early dialog keeps one, and a command to rtpengine is a datagram
MOST_FORMATS: Final = 64  # of an RTP stream
_MOST_PORTS: Final = 16
_MOST_OF_A_KIND: Final = 2  # FreeSWITCH offers SRTP in one, and RTP in another
_STATIC_PAYLOADS: Final = frozenset(map(str, range(35)))  # RFC 3551 6

# Shorter than a mobile number, so that none contains one by chance.
SESSION_IDS: Final = 2**31


class SdpWriter:
    """Writer of one leg's SDP under the relay's origin (RFC 3264 8: same session id, version +1 per change)."""

    __slots__ = ("_last", "anchored", "codecs", "session_id", "version")

    def __init__(self, session_id: int, version: int = 0, *, anchored: bool = False) -> None:
        self.session_id = session_id  # 1 to 2**31: too short to hold a party's number
        self.version = version  # of the last SDP written; 0: none yet
        self.anchored = anchored  # only SDP from rtpengine may be written
        self.codecs: frozenset[str] | None = None  # allowed for both sides; None: all
        self._last = 0  # hash of the last SDP written

    def write(self, body: bytes) -> bytes:
        """The masked SDP for the leg's peer.

        Raises ParseError if nothing usable is left, ProtocolError 488 if no codec is allowed for both sides.
        """
        content, address = mask_description(body, in_order=self.anchored)
        if self.codecs is not None:
            content, address = _serialize(keep_codecs(parse_sdp(_ORIGIN + b"s=-\r\n" + content), self.codecs))
        if (written := hash(content)) != self._last:
            self._last = written
            self.version += 1
        # The origin has the media address (RFC 4566 5.2 requires one, and in direct mode there is none of ours).
        return f"v=0\r\no=- {self.session_id} {self.version} IN ".encode() + address + b"\r\ns=-\r\n" + content

    @property
    def written(self) -> tuple[int, int]:
        """The state after the last SDP written, for `take_back`."""
        return self.version, self._last

    def take_back(self, written: tuple[int, int]) -> None:
        """Undo `write`: the SDP was not sent."""
        self.version, self._last = written


def shows_way(before: bytes, after: bytes) -> bool:
    """Whether rtpengine's SDP `after` still holds a media address of the original SDP `before`.

    Both may be on one host, so a common address counts only if rtpengine has no port there. Refused streams are
    ignored: their addresses are never written. Raises ParseError.
    """
    theirs, ours = parse_sdp(before), parse_sdp(after)
    known, shown = _ways(theirs), _ways(ours)
    own = {address for address, port in shown - known if port}
    return bool(known & shown) or bool(_addresses(ours) & _addresses(theirs) - own)


def session_id(token: str) -> int:
    """An SDP session id from a random token: 1 to SESSION_IDS."""
    return int(token[-12:], 16) % SESSION_IDS + 1


def refuse_all(body: bytes) -> bytes | None:
    """The SDP without addresses if all its streams are refused, which rtpengine would not accept; else None. Raises
    ParseError."""
    sdp = parse_sdp(body)
    if any(media.port for media in sdp.media):
        return None
    sdp.connection = ConnectionData("IP4", "0.0.0.0")
    for media in sdp.media:
        media.connections = []
    return sdp.serialize()


def few_of_each_kind(body: bytes) -> bytes:
    """The masked SDP with at most _MOST_OF_A_KIND active streams of each kind, each on one port; the others are
    refused. Raises ParseError."""
    sdp = parse_sdp(body)
    kinds: list[str] = []
    for place, media in enumerate(sdp.media):
        media.port_count = None
        if media.port and kinds.count(media.kind) == _MOST_OF_A_KIND:
            sdp.media[place] = _refuse(media, media.connections)
        elif media.port:
            kinds.append(media.kind)
    return sdp.serialize()


def _ways(sdp: Sdp) -> set[tuple[str, int]]:
    """Address and port of each active stream."""
    ways: set[tuple[str, int]] = set()
    for media in sdp.media:
        connection = media.connections[0] if media.connections else sdp.connection
        if media.port and connection is not None and connection.address not in _UNSPECIFIED:
            ways.add((_spelled(connection), media.port))
    return ways


def _addresses(sdp: Sdp) -> set[str]:
    connections = [connection for media in sdp.media if media.port for connection in media.connections]
    if sdp.connection is not None:
        connections.append(sdp.connection)
    return {_spelled(connection) for connection in connections} - _UNSPECIFIED


def _spelled(connection: ConnectionData) -> str:
    """The address in canonical spelling: rtpengine writes IPv6 in another one."""
    address = connection.address
    if connection.address_type == "IP4" or not _is_literal("IP6", address):
        return address
    found = IPv6Address(address)
    return str(found.ipv4_mapped or found)


_UNSPECIFIED: Final = frozenset({"0.0.0.0", "::"})  # RFC 3264 8.4: old form of hold


def mask_description(body: bytes, *, in_order: bool = False) -> tuple[bytes, bytes]:
    """The masked SDP behind v=, o= and s=, and the address for the origin. Raises ParseError.

    `in_order`: put codecs and attributes into an order that is the same for all phones.

    A peer's SDPs with one stream nearly always differ only in origin and port: the rest is masked once and cached.
    """
    found = _match_one_stream(body) if len(body) <= _LONGEST_REMEMBERED else None
    if found is None:
        return _mask(parse_sdp(body), in_order)
    before, port, behind = found.groups()
    remembered = _masked_in_order if in_order else _masked
    masked = remembered.get(before + behind)
    if masked is None:
        if not _can_be_remembered(before, behind):
            return _mask(parse_sdp(body), in_order)
        masked = _masked_but_for_port(before, behind, in_order)
        if len(remembered) >= _MAX_REMEMBERED:
            remembered.clear()
        remembered[before + behind] = masked
    before, behind, address = masked
    return before + port + behind, address


# An origin that parse_sdp accepts, the lines up to the first port, a valid port, and the rest.
_match_one_stream: Final = re.compile(
    rb"v=0\r\no=[!-~]{1,255}+ [0-9]{1,32}+ [0-9]{1,32}+ IN IP4 [0-9.]{7,15}+\r\n"
    rb"((?:[^m\n][^\n]*+\n)*+(?<=\r\n)m=[A-Za-z]++ )([1-9][0-9]{0,3}+|[1-5][0-9]{4})( .*+)(?<=\r\n)",
    re.DOTALL,
).fullmatch
_ORIGIN: Final = b"v=0\r\no=- 0 0 IN IP4 0.0.0.0\r\n"
_SOME_PORT: Final = b"59999"
_LONGEST_REMEMBERED: Final = 2048  # bytes of an SDP
_MAX_REMEMBERED: Final = 2048  # SDPs; a hostile peer must not fill memory
# By the text before and behind the port.
_masked: Final[dict[bytes, tuple[bytes, bytes, bytes]]] = {}
_masked_in_order: Final[dict[bytes, tuple[bytes, bytes, bytes]]] = {}


def _can_be_remembered(before: bytes, behind: bytes) -> bool:
    """Only SDP with one stream, and without keys, which must not be cached."""
    lines = before + behind
    return lines.find(b"\rm=") < 0 and behind.find(b"\nm") < 0 and lines.find(b"inline:") < 0


def _masked_but_for_port(before: bytes, behind: bytes, in_order: bool) -> tuple[bytes, bytes, bytes]:
    """The masked content before and behind the port, and the address."""
    content, address = _mask(parse_sdp(_ORIGIN + before + _SOME_PORT + behind), in_order)
    start = before[before.rfind(b"m=") :]
    head, _, rest = content.partition(start + _SOME_PORT)
    return head + start, rest, address


def _mask(sdp: Sdp, in_order: bool) -> tuple[bytes, bytes]:
    masked = Sdp(
        origin=_NOBODY,
        connection=None if sdp.connection is None else _mask_connection(sdp.connection),
        bandwidths=_mask_bandwidths(sdp.bandwidths),
        timings=["0 0"],
        attributes=_mask_attributes(sdp.attributes),
        media=[_mask_media(media) for media in sdp.media],
    )
    if all(map(_is_refused, masked.media)) and not all(map(_is_refused, sdp.media)):
        raise ParseError("no stream that is relayed", "m")  # a gateway that asks for T.38 alone goes back to G.711
    if in_order:
        put_in_order(masked)
    content, address = _serialize(masked)
    if len(content) > LONGEST:
        raise ParseError("too long", "sdp")
    return content, address


def _serialize(sdp: Sdp) -> tuple[bytes, bytes]:
    """The content behind s= and the address for the origin, without addresses that no active stream uses.

    A session's address is replaced, not removed: refused streams may need one (RFC 4566 5.7). Raises ParseError if
    there is none.
    """
    used = [media.connections[0] if media.connections else sdp.connection for media in sdp.media if media.port]
    first = next((connection for connection in used if connection is not None), _NOWHERE)
    if sdp.connection is not None and sdp.connection not in used:
        sdp.connection = first
    for media in sdp.media:
        if media.connections and not media.port:
            media.connections = [_NOWHERE]
    if sdp.connection is None and not any([media.connections for media in sdp.media]):
        raise ParseError("no connection address", "c")
    return sdp.serialize().partition(b"s=-\r\n")[2], f"{first.address_type} {first.address}".encode()


_NOBODY: Final = Origin("-", "0", "0", "IP4", "0.0.0.0")
_NOWHERE: Final = ConnectionData("IP4", "0.0.0.0")


def _is_refused(media: MediaDescription) -> bool:
    return media.port == 0


def _mask_connection(connection: ConnectionData) -> ConnectionData:
    """The address only. Raises ParseError for a host name, which may reveal its owner."""
    if not _is_literal(connection.address_type, connection.address):
        raise ParseError("not an address literal", "c")
    return ConnectionData(connection.address_type, connection.address) if connection.suffix else connection


@lru_cache(maxsize=1024)
def _is_literal(address_type: str, address: str) -> bool:
    try:
        IPv4Address(address) if address_type == "IP4" else IPv6Address(address)
    except ValueError:
        return False
    return True


def _mask_bandwidths(lines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(kind, value) for kind, value in lines if len(value) <= BANDWIDTHS.get(kind, 0)]


def _mask_attributes(attributes: list[Attribute]) -> list[Attribute]:
    return [kept for name, value in attributes if (kept := mask_attribute(name, value))]


def _mask_media(media: MediaDescription) -> MediaDescription:
    connections = [_mask_connection(connection) for connection in media.connections[:1]]
    if media.kind not in _RELAYED_KINDS or media.protocol not in _RELAYED_PROTOCOLS:
        return _refuse(media, connections)
    attributes = _mask_attributes(media.attributes)
    formats = _mask_formats(media, attributes)
    if not formats:
        return _refuse(media, connections)
    count = media.port_count if media.port_count and media.port_count <= _MOST_PORTS else None
    bandwidths = _mask_bandwidths(media.bandwidths)
    return MediaDescription(media.kind, media.port, count, media.protocol, formats, connections, bandwidths, attributes)


def _refuse(media: MediaDescription, connections: list[ConnectionData]) -> MediaDescription:
    """The stream in its place with port 0 (RFC 3264 6) and without its address."""
    kind = media.kind if media.kind in KINDS else "audio"
    protocol = media.protocol if media.protocol in PROTOCOLS else "RTP/AVP"
    return MediaDescription(
        kind, 0, None, protocol, ["0" if "RTP/" in protocol else "*"], [_NOWHERE] if connections else [], [], []
    )


def _mask_formats(media: MediaDescription, attributes: list[Attribute]) -> list[str]:
    """The payload types to keep, each once: static ones, and dynamic ones with a known codec.

    Raises ParseError for more than MOST_FORMATS: each attribute is compared with each of them.
    """
    formats = dict.fromkeys(media.formats)
    if len(formats) > MOST_FORMATS:
        raise ParseError("too many formats", "m")
    mapped = {value.partition(" ")[0] for name, value in attributes if name == "rtpmap" and value}
    return [payload for payload in formats if payload in mapped or payload in _STATIC_PAYLOADS]
