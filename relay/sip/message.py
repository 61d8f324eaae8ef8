"""Parsing of SIP messages from bytes, validation, and salvage of malformed ones for a response (RFC 3261 7, 16.3).

It owns the size limits, applied before parsing. Lines are split by `relay.sip.grammar`, headers are parsed by
`relay.sip.views`. It knows no transaction, dialog or call. A `Flow` is where a message comes from or goes to.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from relay.errors import ParseError, ProtocolError
from relay.sip.grammar import TOKEN, Headers, Layout, canonical_name, cut_lines, is_token, unfold
from relay.sip.uri import OtherUri, uri_host
from relay.sip.views import Message, Request, Response

__all__ = [
    "MAX_BODY",
    "MAX_HEAD",
    "MAX_LINES",
    "Message",
    "Request",
    "Response",
    "check_request",
    "parse_message",
    "salvage_request",
]

MAX_HEAD: Final = 16_384  # bytes, start line and headers
MAX_LINES: Final = 200  # header lines, continuation lines counted
MAX_BODY: Final = 65_536  # bytes


def parse_message(data: bytes) -> Request | Response:
    """Parse one datagram, or one message framed by `StreamFramer`. Raises ParseError.

    Bytes beyond Content-Length are dropped; without Content-Length the body extends to the end (RFC 3261 18.3).
    """
    if data[:1] in (b"\r", b"\n"):  # RFC 3261 7.5: empty lines before the start line
        data = data.lstrip(b"\r\n")
    if data[-4:] == b"\r\n\r\n":
        try:
            return _parse(data, len(data) - 4)
        except ParseError:  # the blank line at the end may be part of a body
            pass
    return _parse(data, data.find(b"\r\n\r\n"))


def _parse(data: bytes, end: int) -> Request | Response:
    """`end`: offset of the end of the headers."""
    if end < 0 or end > MAX_HEAD:
        raise ParseError("no end of the headers" if end < 0 else "headers over the limit")
    head = data[:end].decode("utf-8", "surrogateescape")
    lines = head.split("\r\n")
    joined = "".join(lines)
    if len(lines) > MAX_LINES + 1 or "\r" in joined or "\n" in joined or "\0" in joined:
        _refuse_lines(lines, joined)
    start = lines[0].split(" ", 2)
    kind = start[1] if start[0] == "SIP/2.0" and len(start) > 1 else start[0]
    try:
        layout = cut_lines(kind, lines)
    except ParseError:
        lines = unfold(head)
        layout = cut_lines(kind, lines)
    body = data[end + 4 :]
    place = layout.places.get("content-length")
    if place is not None and lines[place] != str(len(body)):
        body = _cut_body(body, lines[place])
    if len(body) > MAX_BODY:
        raise ParseError("body over the limit")
    return _make(start, layout, lines, body)


def _make(start: list[str], layout: Layout, lines: list[str], body: bytes) -> Request | Response:
    """`start`: the start line, split at its first two blanks."""
    if len(start) == 3:
        method, uri, version = start
        status = _STATUSES.get(uri) if method == "SIP/2.0" else None
        if status is not None:
            return Response(status, version, layout, lines, body)
        if version == "SIP/2.0" and uri and (method.isalpha() or is_token(method)):
            return Request(method, uri, layout, lines, body)
        if uri and is_token(method) and _match_version(version):
            return Request(method, uri, layout, lines, body, version.upper())
    if found := _match_status_line(" ".join(start)):
        return Response(int(found[1]), found[2] or "", layout, lines, body)
    raise ParseError("malformed start line")


_STATUSES: Final = {str(status): status for status in range(100, 700)}
# RFC 3261 7.2. Some omit the blank before an empty reason.
_match_status_line: Final = re.compile(r"[Ss][Ii][Pp]/2\.0 ([1-6][0-9]{2})(?: (.*))?", re.DOTALL).fullmatch
_match_version: Final = re.compile(r"[Ss][Ii][Pp]/[0-9]++\.[0-9]++").fullmatch


def _refuse_lines(lines: list[str], joined: str) -> None:
    if len(lines) > MAX_LINES + 1:
        raise ParseError("too many header lines")
    if "\r" in joined or "\n" in joined:
        raise ParseError("line break other than CRLF")
    if _bare_nul(joined):
        raise ParseError("NUL in the headers")


# Only a quoted-pair may carry NUL (RFC 3261 25.1).
_bare_nul: Final = re.compile(r"(?<!\\)\0").search


def _cut_body(body: bytes, length: str) -> bytes:
    if not (length.isascii() and length.isdecimal() and len(length) <= 10):
        raise ParseError("not a number", "content-length")
    size = int(length)
    if size > MAX_BODY:
        raise ParseError("over the limit", "content-length")
    if size > len(body):
        raise ParseError("more than the message holds", "content-length")
    return body if size == len(body) else body[:size]


def check_request(request: Request) -> None:
    """Validate a new request (RFC 3261 8.2, 16.3).

    Raises ProtocolError with the status to answer; ParseError if Via, From, To or Call-ID is malformed, such that no
    response could be built from the request.
    """
    request.via, request.call_id, request.to_tag, request.from_tag  # noqa: B018 - reading them is the check
    if request.version != "SIP/2.0":
        raise ProtocolError(505, "not SIP/2.0")
    try:
        _check_parts(request)
    except ParseError as error:
        raise ProtocolError(400, str(error)) from error


def _check_parts(request: Request) -> None:
    method = request.method
    if request.cseq.method != method:  # RFC 3261 8.1.1.5
        raise ProtocolError(400, "cseq: method differs from the request's")
    if isinstance(request.request_uri, OtherUri):  # RFC 3261 8.2.2.1
        raise ProtocolError(416, "request-uri: unknown scheme")
    request.max_forwards  # noqa: B018 - reading it is the check
    if request.to_tag is None or method in _REFRESHING:
        _check_addresses(request)


# RFC 3261 12.2: within a dialog only the tags of From and To matter, and Contact if it may be a new target.
_REFRESHING: Final = frozenset({"INVITE", "UPDATE"})


def _check_addresses(request: Request) -> None:
    request.from_.uri, request.to.uri  # noqa: B018
    if request.contact is not None:
        request.contact.uri  # noqa: B018


_STAND_IN: Final = "<sip:unknown.invalid>"
_COPIED: Final = frozenset({"via", "from", "to", "call-id", "cseq"})  # RFC 3261 8.2.6.2
_request_start: Final = re.compile(rf"({TOKEN})[ \t]").match
_control: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_any_folding: Final = re.compile(r"\r?\n[ \t]++")


def salvage_request(data: bytes) -> Request | None:
    """A request with the lines that a 400 copies, from bytes refused by `parse_message` or `check_request`.

    None if no response is due or possible: a response, an ACK, no usable Via, Call-ID or CSeq. A missing From or To is
    replaced. The result is only for a response to the source of the bytes.
    """
    head = data.lstrip(b"\r\n")[:MAX_HEAD].partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    lines = _any_folding.sub(" ", head).split("\n")
    start = _request_start(lines[0])
    if start is None or start[1] == "ACK":
        return None
    headers = _copied_lines(lines[1 : MAX_LINES + 1])
    missing = _COPIED - {name for name, _ in headers}
    if missing - {"from", "to"}:
        return None
    headers += [(name, _STAND_IN) for name in ("from", "to") if name in missing]
    request = Request.of(start[1], "", headers)
    try:
        request.via, request.call_id, request.to_tag  # noqa: B018
    except ParseError:
        return None
    return request


def _copied_lines(lines: list[str]) -> Headers:
    headers = []
    for line in lines:
        spelled, _, value = line.rstrip("\r").partition(":")
        try:
            name = canonical_name(spelled)
        except ParseError:
            continue
        if name in _COPIED and not _control(value):
            headers.append((name, value.strip(" \t")))
    return headers


# Reason phrases (RFC 3261 21, and the RFCs of their methods).
PHRASES: Final = {
    100: "Trying",
    180: "Ringing",
    181: "Call Is Being Forwarded",
    182: "Queued",
    183: "Session Progress",
    199: "Early Dialog Terminated",
    200: "OK",
    202: "Accepted",
    300: "Multiple Choices",
    301: "Moved Permanently",
    302: "Moved Temporarily",
    305: "Use Proxy",
    380: "Alternative Service",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    410: "Gone",
    412: "Conditional Request Failed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    421: "Extension Required",
    422: "Session Interval Too Small",
    423: "Interval Too Brief",
    428: "Use Identity Header",
    433: "Anonymity Disallowed",
    436: "Bad Identity Info",
    437: "Unsupported Credential",
    438: "Invalid Identity Header",
    469: "Bad Info Package",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Loop Detected",
    483: "Too Many Hops",
    484: "Address Incomplete",
    485: "Ambiguous",
    486: "Busy Here",
    487: "Request Terminated",
    488: "Not Acceptable Here",
    489: "Bad Event",
    491: "Request Pending",
    493: "Undecipherable",
    494: "Security Agreement Required",
    500: "Server Internal Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Server Time-out",
    505: "Version Not Supported",
    513: "Message Too Large",
    580: "Precondition Failure",
    600: "Busy Everywhere",
    603: "Decline",
    604: "Does Not Exist Anywhere",
    606: "Not Acceptable",
    607: "Unwanted",
    608: "Rejected",
}


# -- Source and destination of a message


class Flow(NamedTuple):
    """A listener of ours and a remote transport address (the "flow" of RFC 5626).

    As a source it identifies the connection of the message. As a destination, `connection` 0 means any connection to
    that address: the driver reuses one or opens it.
    """

    listener: int  # index in Settings.listeners: the local socket
    transport: str  # "udp", "tcp" or "tls"
    host: str  # address literal without brackets; as a destination also a host name
    port: int
    connection: int = 0  # of a stream: the driver's number for the open connection, from 1

    @property
    def reliable(self) -> bool:
        return self.transport != "udp"


def transport_address(transport: str, host: str, port: int) -> str:
    """`udp:[2001:db8::1]:5060`, as the configuration writes a listener, and logs and metrics a target."""
    return f"{transport}:{uri_host(host)}:{port}"
