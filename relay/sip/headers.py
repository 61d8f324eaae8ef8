"""Headers as values: Via, name-addr, CSeq, RAck, Session-Expires and others.

Each `parse_` function takes one element of a header (unfolded, one value) and raises ParseError. It knows no message.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from relay.errors import ParseError
from relay.sip.grammar import (
    HOST,
    LWS,
    PARAMS,
    QUOTED,
    TOKEN,
    Params,
    cut_params,
    cut_plain_params,
    format_params,
    is_plain_params,
    is_plain_uri,
    quote,
    unquote,
)
from relay.sip.uri import Uri, bare_ipv6, check_port, known_uri, parse_uri, uri_host

_MAX_CSEQ: Final = 2**31  # RFC 3261 8.1.1.5: below
_MAX_SECONDS: Final = 2**32  # delta-seconds, RFC 3261 20.19: below

_match_via: Final = re.compile(
    rf"{TOKEN}{LWS}/{LWS}{TOKEN}{LWS}/{LWS}({TOKEN})[ \t]++({HOST})(?:{LWS}:{LWS}([0-9]{{1,5}}))?+({PARAMS})"
).fullmatch
_match_branch: Final = re.compile(r"branch=([A-Za-z0-9\-._]++)").fullmatch  # often the only parameter
_match_name_addr: Final = re.compile(
    rf'{LWS}(?:({QUOTED}){LWS}|((?:\\"|[^"<>\x00-\x08\x0a-\x1f\x7f])*+))<([^\x00-\x20\x7f"<>]++)>({PARAMS})'
).fullmatch
_match_addr_spec: Final = re.compile(rf'{LWS}([^\x00-\x20\x7f"<>;,?]++)({PARAMS})').fullmatch
_match_cseq: Final = re.compile(rf"([0-9]{{1,10}})[ \t]++({TOKEN})").fullmatch
_match_rack: Final = re.compile(rf"([0-9]{{1,10}})[ \t]++([0-9]{{1,10}})[ \t]++({TOKEN})").fullmatch
_match_number: Final = re.compile(rf"([0-9]{{1,10}}){LWS}({PARAMS})").fullmatch
_match_type: Final = re.compile(rf"({TOKEN}){LWS}/{LWS}({TOKEN})({PARAMS})").fullmatch
_match_reason: Final = re.compile(rf"({TOKEN})({PARAMS})").fullmatch


class Via:
    """One hop (RFC 3261 20.42). Immutable."""

    __slots__ = ("branch", "host", "params", "port", "transport")

    def __init__(self, transport: str, host: str, port: int | None, params: Params) -> None:
        self.transport = transport  # upper-case: "UDP", "TCP", "TLS" or another
        self.host = host  # sent-by; IPv6 without brackets
        self.port = port
        self.branch = params.get("branch") or ""  # "" for none (RFC 2543)
        self.params = params

    def without(self, name: str) -> Via:
        """A copy without the named parameter."""
        params = {other: value for other, value in self.params.items() if other != name}
        return Via(self.transport, self.host, self.port, params)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Via):
            return NotImplemented
        mine = (self.transport, self.host, self.port, self.params)
        return mine == (other.transport, other.host, other.port, other.params)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Via({str(self)!r})"

    def __str__(self) -> str:
        port = "" if self.port is None else f":{self.port}"
        return f"SIP/2.0/{self.transport} {uri_host(self.host)}{port}{format_params(self.params)}"


# Protocol and sent-by are the same in all requests of a peer: they are parsed once.
_hops: Final[dict[str, tuple[str, str, int | None]]] = {}
_MAX_REMEMBERED: Final = 1024  # hops of up to 128 characters, or CSeqs; a hostile peer must not fill memory


def parse_via(text: str) -> Via:
    hop, _, rest = text.partition(";")
    known = _hops.get(hop)
    if known is not None:
        transport, host, port = known  # not *known: a call with a tuple costs ten times as much
        if found := _match_branch(rest):
            return Via(transport, host, port, {"branch": found[1]})
        if is_plain_params(rest):
            return Via(transport, host, port, cut_plain_params(rest))
    via = _parse_via(text)
    if len(hop) <= 128:
        if len(_hops) >= _MAX_REMEMBERED:
            _hops.clear()
        _hops[hop] = (via.transport, via.host, via.port)
    return via


def _parse_via(text: str) -> Via:
    found = _match_via(text)
    if found is None:
        raise ParseError("malformed", "via")
    transport, host, port, rest = found.groups()
    if host[0] == "[":
        host = bare_ipv6(host, "via")
    return Via(transport.upper(), host, check_port(port, "via") if port else None, cut_params(rest))


class NameAddr:
    """name-addr or addr-spec with the header's parameters: From, To, Contact, Route, P-Asserted-Identity (20.10)."""

    __slots__ = ("_uri", "display", "params", "uri_text")

    def __init__(self, display: str, uri_text: str, params: Params, uri: Uri | None = None) -> None:
        self.display = display  # without quotes and escapes, "" for none
        self.uri_text = uri_text  # as written, without <>
        self.params = params  # the header's, not the URI's
        self._uri = uri

    @property
    def uri(self) -> Uri:
        """The parsed URI. Raises ParseError."""
        if self._uri is None:
            self._uri = parse_uri(self.uri_text)
        return self._uri

    @property
    def tag(self) -> str | None:
        return self.params.get("tag") or None

    def __str__(self) -> str:
        display = f"{quote(self.display)} " if self.display else ""
        return f"{display}<{self.uri_text}>{format_params(self.params)}"

    def __repr__(self) -> str:
        return f"NameAddr({self.display!r}, {self.uri_text!r}, {self.params!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NameAddr):
            return NotImplemented
        return (self.display, self.uri_text, self.params) == (other.display, other.uri_text, other.params)

    __hash__ = None  # type: ignore[assignment]


def parse_name_addr(text: str, header: str = "") -> NameAddr:
    """A display name without quotes may be more than tokens: peers send commas, parentheses, UTF-8 and \\" there."""
    display, opened, rest = text.partition("<")
    name = _plain_name(display) if display else ""
    if opened and name is not None:  # fast path for <uri>;tag=…
        uri_text, closed, rest = rest.partition(">")
        uri = known_uri(uri_text)
        if closed and (uri is not None or is_plain_uri(uri_text)):
            if not rest:
                return NameAddr(name, uri_text, {}, uri)
            if rest.startswith(";tag=") and (tag := rest[5:]).isalnum() and tag.isascii():
                return NameAddr(name, uri_text, {"tag": tag}, uri)
            params = rest[1:]
            if rest[0] == ";" and is_plain_params(params):
                return NameAddr(name, uri_text, cut_plain_params(params), uri)
    return _parse_name_addr(text, header)


def _plain_name(display: str) -> str | None:
    """A display name of letters, digits and blanks, with or without quotes; None for any other."""
    name = display.strip(" ")
    if len(name) > 1 and name[0] == '"' and name[-1] == '"':
        name = name[1:-1]
    return name if (name.isalnum() or name.replace(" ", "").isalnum()) and name.isascii() else None


def _parse_name_addr(text: str, header: str) -> NameAddr:
    found = _match_name_addr(text)
    if found is not None:
        quoted, bare, uri_text, rest = found.groups()
        display = unquote(quoted) if quoted else bare.strip(" \t")
        return NameAddr(display, uri_text, cut_params(rest) if rest else {})
    found = _match_addr_spec(text)
    if found is None:
        raise ParseError("malformed address", header)
    # RFC 3261 20.10: without <>, parameters belong to the header; "?" and "," are not allowed.
    return NameAddr("", found[1], cut_params(found[2]))


class CSeq(NamedTuple):
    number: int
    method: str


_cseqs: Final[dict[str, CSeq]] = {}  # most user agents count from 1


def parse_cseq(text: str) -> CSeq:
    cseq = _cseqs.get(text)
    if cseq is None:
        cseq = _parse_cseq(text)
        if len(text) <= 64:
            if len(_cseqs) >= _MAX_REMEMBERED:
                _cseqs.clear()
            _cseqs[text] = cseq
    return cseq


def _parse_cseq(text: str) -> CSeq:
    found = _match_cseq(text)
    if found is None or (number := int(found[1])) >= _MAX_CSEQ:
        raise ParseError("malformed", "cseq")
    return CSeq(number, found[2])


class RAck(NamedTuple):
    """The reliable provisional response that a PRACK acknowledges (RFC 3262 7.2)."""

    number: int
    cseq: int
    method: str


def parse_rack(text: str) -> RAck:
    found = _match_rack(text)
    if found is None or (number := int(found[1])) >= _MAX_SECONDS or (cseq := int(found[2])) >= _MAX_CSEQ:
        raise ParseError("malformed", "rack")
    return RAck(number, cseq, found[3])


class SessionExpires(NamedTuple):
    """RFC 4028 4."""

    seconds: int
    refresher: Literal["uac", "uas"] | None


def parse_session_expires(text: str) -> SessionExpires:
    seconds, params = _parse_seconds(text, "session-expires")
    match (params.get("refresher") or "").lower():
        case "uac":
            return SessionExpires(seconds, "uac")
        case "uas":
            return SessionExpires(seconds, "uas")
        case _:
            return SessionExpires(seconds, None)


def parse_min_se(text: str) -> int:
    """Seconds (RFC 4028 5)."""
    return _parse_seconds(text, "min-se")[0]


def _parse_seconds(text: str, header: str) -> tuple[int, Params]:
    found = _match_number(text)
    if found is None or (seconds := int(found[1])) >= _MAX_SECONDS:
        raise ParseError("malformed", header)
    return seconds, cut_params(found[2])


_SMALL: Final = {str(number): number for number in range(256)}  # fast path


def parse_number(text: str, header: str, maximum: int) -> int:
    """A number of digits only, 0 to `maximum`."""
    small = _SMALL.get(text)
    if small is not None and small <= maximum:
        return small
    if not (text.isascii() and text.isdecimal() and len(text) <= 10) or (number := int(text)) > maximum:
        raise ParseError(f"not a number from 0 to {maximum}", header)
    return number


class ContentType(NamedTuple):
    type: str  # "application/sdp", lower-case
    params: Params


@lru_cache(maxsize=256)  # few different values in practice
def parse_content_type(text: str) -> ContentType:
    found = _match_type(text)
    if found is None:
        raise ParseError("malformed", "content-type")
    return ContentType(f"{found[1]}/{found[2]}".lower(), cut_params(found[3]))


class Reason(NamedTuple):
    """RFC 3326."""

    protocol: str  # as written: "Q.850", "SIP" or another
    cause: int | None


def parse_reason(text: str) -> Reason:
    found = _match_reason(text)
    if found is None:
        raise ParseError("malformed", "reason")
    cause = cut_params(found[2]).get("cause")
    return Reason(found[1], None if cause is None else parse_number(cause, "reason", 999_999))


def parse_call_id(text: str) -> str:
    """One word of printable ASCII (RFC 3261 20.8), safe for records and logs."""
    if not text or " " in text or not (text.isascii() and text.isprintable()):
        raise ParseError("malformed", "call-id")
    return text
