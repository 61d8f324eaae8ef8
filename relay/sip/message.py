"""SIP messages from bytes: framed once into header lines, checked, or salvaged for an answer (RFC 3261 7, 16.3).

It owns the limits that hold before anything is parsed. How a header reads is `relay.sip.views`' business. It knows no
transaction, dialog or call.
"""

from __future__ import annotations

import re
from typing import Final

from relay.errors import ParseError, ProtocolError
from relay.sip.grammar import TOKEN, is_token
from relay.sip.names import canonical_name
from relay.sip.uri import OtherUri
from relay.sip.views import Headers, Message, Request, Response

__all__ = [
    "MAX_BODY",
    "MAX_HEAD",
    "MAX_LINES",
    "Message",
    "Request",
    "Response",
    "check_request",
    "parse_message",
    "salvage",
]

MAX_HEAD: Final = 16_384  # bytes, start line and headers
MAX_LINES: Final = 200  # header lines, continuation lines counted
MAX_BODY: Final = 65_536  # bytes


def parse_message(data: bytes) -> Request | Response:
    """One datagram, or one message that `StreamFramer` has cut from a stream. Raises ParseError.

    What follows the Content-Length is dropped; without Content-Length all that is left is the body (RFC 3261 18.3).
    """
    if data[:1] in (b"\r", b"\n"):  # RFC 3261 7.5: empty lines before the start line
        data = data.lstrip(b"\r\n")
    end = data.find(b"\r\n\r\n")
    if end < 0 or end > MAX_HEAD:
        raise ParseError("no end of the headers" if end < 0 else "headers over the limit")
    head = data[:end].decode("utf-8", "surrogateescape")
    lines = head.split("\r\n")
    joined = "".join(lines)
    if len(lines) > MAX_LINES + 1 or "\r" in joined or "\n" in joined or "\0" in joined:
        _refuse_lines(lines, joined)
    start = lines[0].split(" ", 2)
    del lines[0]
    kind = start[1] if start[0] == "SIP/2.0" and len(start) > 1 else start[0]
    try:
        headers, index = _cut_lines(kind, lines)
    except ParseError:
        headers, index = _cut_folded(kind, head)
    body = data[end + 4 :]
    length = index.get("content-length")
    if length is not None and length != str(len(body)):
        body = _cut_body(body, length)
    if len(body) > MAX_BODY:
        raise ParseError("body over the limit")
    return _make(start, headers, index, body)


def _make(start: list[str], headers: Headers, index: dict[str, str], body: bytes) -> Request | Response:
    """`start`: the start line, cut at its first two blanks."""
    if len(start) == 3:
        method, uri, version = start
        if method == "SIP/2.0" and uri in _STATUSES:
            return Response(int(uri), version, headers, body, index=index)
        if version == "SIP/2.0" and uri and (method.isalpha() or is_token(method)):
            return Request(method, uri, headers, body, index=index)
        if uri and is_token(method) and _match_version(version):
            return Request(method, uri, headers, body, index=index, version=version.upper())
    if found := _match_status_line(" ".join(start)):
        return Response(int(found[1]), found[2] or "", headers, body, index=index)
    raise ParseError("malformed start line")


_STATUSES: Final = frozenset(map(str, range(100, 700)))
# RFC 3261 7.2. The blank before an empty reason is left out by some.
_match_status_line: Final = re.compile(r"[Ss][Ii][Pp]/2\.0 ([1-6][0-9]{2})(?: (.*))?", re.DOTALL).fullmatch
_match_version: Final = re.compile(r"[Ss][Ii][Pp]/[0-9]++\.[0-9]++").fullmatch


# RFC 3261 7.3.1: not lists. Of two values, two readers of the message might go by different ones (RFC 4475 3.3.8-9).
_UNIQUE: Final = frozenset({"content-length", "from", "to", "call-id", "cseq", "max-forwards", "content-type"})


class _Start:
    """How a header line begins, up to its value, and how the line behind it began the last time.

    Peers write the headers of one kind of message in the same order again and again: a line that begins as it is
    expected to costs a third of what it does to cut it at its colon and to look its name up.
    """

    __slots__ = ("behind", "name", "size", "text")

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.size = len(text)
        self.name = name  # canonical
        self.behind = self  # until there is one


_starts: Final[dict[str, _Start]] = {}  # by method or status and, but for the one before the first line, text
_MAX_REMEMBERED: Final = 1024  # of up to 64 characters; a peer that makes up names must not fill memory


def _cut_lines(kind: str, lines: list[str]) -> tuple[Headers, dict[str, str]]:
    """`kind`: method or status. Raises ParseError for a line that is no header; a continuation line is none here."""
    headers: Headers = []
    index: dict[str, str] = {}
    last = _starts.get(kind)
    if last is None:
        last = _Start("", "")
        _remember(kind, last)
    for line in lines:
        start = last.behind
        if start is last or not line.startswith(start.text):
            start = _start_behind(last, kind, line)
        value = line[start.size :].strip(" \t")
        headers.append((start.name, value))
        index[start.name] = value
        last = start
    return headers, index if len(index) == len(headers) else _first_of_each(headers)


def _start_behind(last: _Start, kind: str, line: str) -> _Start:
    name, colon, value = line.partition(":")
    if not colon:
        raise ParseError("header line without a colon")
    text = f"{name}: " if value[:1] == " " else f"{name}:"
    key = f"{kind} {text}"
    start = _starts.get(key)
    if start is None:
        start = _Start(text, canonical_name(name))
        if not _remember(key, start):
            return start
    last.behind = start
    return start


def _remember(key: str, start: _Start) -> bool:
    if len(key) > 64:
        return False
    if len(_starts) >= _MAX_REMEMBERED:
        _starts.clear()
    _starts[key] = start
    return True


def _first_of_each(headers: Headers) -> dict[str, str]:
    """Raises ParseError where one that must be unique has two values."""
    index: dict[str, str] = {}
    for name, value in headers:
        if index.setdefault(name, value) != value and name in _UNIQUE:
            raise ParseError("contradictory", name)
    return index


def _cut_folded(kind: str, head: str) -> tuple[Headers, dict[str, str]]:
    """RFC 3261 7.3.1: a line that begins with a blank goes on with the one before."""
    return _cut_lines(kind, _folding.sub(" ", head).split("\r\n")[1:])


_folding: Final = re.compile(r"\r\n[ \t]++")


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
    if size > len(body):
        raise ParseError("more than the message holds", "content-length")
    return body if size == len(body) else body[:size]


def check_request(request: Request) -> None:
    """What a server looks at before it serves a new request (RFC 3261 8.2, 16.3).

    Raises ProtocolError with the status to answer; ParseError where Via, From, To or Call-ID is such that no answer
    could be written from the request as it is.
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
        raise ProtocolError(400, "cseq: another method than the request's")
    if isinstance(request.request_uri, OtherUri):  # RFC 3261 8.2.2.1
        raise ProtocolError(416, "request-uri: unknown scheme")
    request.max_forwards  # noqa: B018 - reading it is the check
    if request.to_tag is None or method in _REFRESHING:
        _check_addresses(request)


# RFC 3261 12.2: inside a dialog only the tags of From and To matter, and Contact where it may be a new target.
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


def salvage(data: bytes) -> Request | None:
    """A request with the lines that a 400 copies, out of bytes that `parse_message` or `check_request` refused.

    None where no answer is due or can be written: a response, an ACK, no usable Via, Call-ID or CSeq. A missing From
    or To gets a stand-in. What it returns serves for nothing but the answer to where the bytes came from.
    """
    head = data.lstrip(b"\r\n")[:MAX_HEAD].partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape")
    lines = _any_folding.sub(" ", head).split("\n")
    start = _request_start(lines[0])
    if start is None or start[1] == "ACK":
        return None
    headers = _copied_lines(lines[1 : MAX_LINES + 1])
    index = dict(reversed(headers))
    if not _COPIED - {"from", "to"} <= index.keys():
        return None
    for name in ("from", "to"):
        if name not in index:
            index[name] = _STAND_IN
            headers.append((name, _STAND_IN))
    request = Request(start[1], "", headers, index=index)
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
