"""Reads a message's bytes before it is parsed: its end on a stream, its matching keys, the headers a response copies.

Framing (RFC 3261 18.3, with the keep-alives of RFC 5626 4.4.1) reads no header except Content-Length, and buffers at
most one unfinished message.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from relay.errors import ParseError
from relay.sip.message import MAX_BODY, MAX_HEAD, Request, parse_message


class Keepalive(Enum):
    PING = "ping"  # to be answered with CRLF
    PONG = "pong"


KEEPALIVE_PING: Final = Keepalive.PING
KEEPALIVE_PONG: Final = Keepalive.PONG

Frame = bytes | Keepalive
"""One whole message, or a keep-alive."""

MOST_SKIPPED: Final = 4 * 1024 * 1024  # bytes of a body over the limit; a longer one ends the stream

# The value may continue on folded lines. Lines end with CRLF only, as for `parse_message`.
_content_lengths: Final = re.compile(
    rb"\r\n(?:Content-Length|l)[ \t]*+:((?:[^\r]|\r\n[ \t]|\r(?!\n))*+)", re.IGNORECASE
).findall


class StreamFramer:
    """The framer of one connection. After a ParseError the stream is unusable: close the connection."""

    __slots__ = ("_buffer", "_error", "_max_body", "_max_head", "_pinging", "_scanned", "_size", "_skipped")

    def __init__(self, max_head: int = MAX_HEAD, max_body: int = MAX_BODY) -> None:
        self._max_head = max_head
        self._max_body = max_body
        self._buffer = bytearray()  # begins at a message or a keep-alive
        self._scanned = 0  # the end of the head is not before this offset
        self._size = 0  # of the current message; 0 until its head is complete
        self._skipped = 0  # bytes to come of a body over the limit
        self._pinging = False  # the last frame was the first CRLF of a ping, or a pong
        self._error: ParseError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order.

        A CRLF between messages gives a KEEPALIVE_PONG at once, and a second one right behind it a KEEPALIVE_PING, so
        that every split of the stream gives the same frames. A message with a body over the limit gives its head alone,
        which `parse_message` refuses for its Content-Length. Raises ParseError for a head over the limit, a body over
        MOST_SKIPPED and a missing or malformed Content-Length; frames before the error are returned first.
        """
        self.add(data)
        frames: list[Frame] = []
        try:
            while (frame := self.take()) is not None:
                frames.append(frame)
        except ParseError:
            if not frames:
                raise
        return frames

    def add(self, data: bytes) -> None:
        """Append `data`, for `take`."""
        if self._error is None:
            self._buffer += data

    def take(self) -> Frame | None:
        """The next frame; None until it is complete. Raises ParseError as `feed`."""
        if self._error is not None:
            raise self._error
        try:
            return self._next()
        except ParseError as error:
            self._error = error
            self._buffer.clear()
            raise

    @property
    def pending(self) -> bool:
        """Whether a frame is incomplete, or the stream has failed."""
        return bool(self._buffer) or self._skipped > 0 or self._error is not None

    def _next(self) -> Frame | None:
        buffer = self._buffer
        if self._skipped:
            count = min(self._skipped, len(buffer))
            del buffer[:count]
            self._skipped -= count
        if not self._size:
            if buffer[:1] == b"\r":
                return self._keepalive()
            self._find_size()
        if not self._size or len(buffer) < self._size:
            return None
        frame = bytes(buffer[: self._size])
        del buffer[: self._size]
        self._size = self._scanned = 0
        self._pinging = False
        return frame

    def _keepalive(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        if buffer[1] != 0x0A:
            raise ParseError("CR without LF before a message")
        del buffer[:2]
        self._pinging = not self._pinging
        return KEEPALIVE_PONG if self._pinging else KEEPALIVE_PING

    def _find_size(self) -> None:
        """Set `_size` once the head is complete."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", self._scanned)
        if (len(buffer) if end < 0 else end) > self._max_head:
            raise ParseError("headers over the limit")
        if end < 0:
            self._scanned = max(0, len(buffer) - 3)
            return
        length = _content_length(bytes(buffer[: end + 2]))
        if length > MOST_SKIPPED:
            raise ParseError("over the limit", "content-length")
        self._size = end + 4
        if length > self._max_body:
            self._skipped = length
        else:
            self._size += length


def _content_length(head: bytes) -> int:
    values = {b"".join(value.split(b"\r\n")).strip(b" \t") for value in _content_lengths(head)}
    if not values:
        raise ParseError("missing on a stream", "content-length")
    value = values.pop()
    if values or not (value.isdigit() and len(value) <= 10):
        raise ParseError("contradictory or not a number", "content-length")
    return int(value)


# -- Prescan: agrees with `parse_message` for well-formed messages, gives no result for unusual syntax

Copied = tuple[bytes, bytes, bytes, bytes, bytes, bytes]
"""The headers that a response copies (RFC 3261 8.2.6.2): the value of the topmost Via, the other Vias as lines with
their ends, and the values of From, To, Call-ID and CSeq."""

# First letters of the lines to copy, and of unusual lines: a Via in another spelling, or a folded line.
_V: Final = ord("V")
_F: Final = ord("F")
_T: Final = ord("T")
_C: Final = ord("C")
_ODD: Final = frozenset(b"v \t")


Marks = tuple[str, str, str, str]
"""Method (of a response: from its CSeq), topmost Via, From tag and To tag ("" for none)."""


def read_marks(data: bytes) -> Marks | None:
    """The keys that match a message to its transaction and dialog. None for unusual syntax or a malformed message."""
    via, from_, to, cseq = [_first(data, name) for name in (b"\r\nVia: ", b"\r\nFrom: ", b"\r\nTo: ", b"\r\nCSeq: ")]
    from_tag, to_tag = _tag(from_), _tag(to)
    if not (via and from_ and to and cseq) or from_tag is None or to_tag is None:
        return None
    method = cseq.rpartition(" ")[2] if data.startswith(b"SIP/2.0 ") else _text(data[: data.find(b" ")])
    return method, via, from_tag, to_tag


def _first(data: bytes, name: bytes) -> str:
    """The value of the first line with that name, "" if there is none or it has no end."""
    start = data.find(name)
    if start < 0:
        return ""
    start += len(name)
    end = data.find(b"\r\n", start)
    return _text(data[start:end]) if end >= 0 else ""


def _text(part: bytes) -> str:
    return part.decode("utf-8", "surrogateescape")


def _tag(address: str) -> str | None:
    """The tag, "" for none. None: there are parameters, perhaps with a tag in another spelling."""
    _, _, parameters = address.rpartition(">")[2].partition(";")
    _, equals, rest = f";{parameters}".partition(";tag=")
    return None if parameters and not equals else rest.partition(";")[0]


def is_untagged(data: bytes) -> bool:
    """Whether it is a request without a To tag (RFC 3261 8.1.1.2). Undefined for malformed messages."""
    start = data.find(b"\r\nTo:")
    end = data.find(b"\r\n", start + 5)
    if start < 0 or data[end + 2 : end + 3] in (b" ", b"\t") or start > data.find(b"\r\n\r\n"):
        return _is_untagged(data)
    rest = data[start + 5 : end].rpartition(b">")[2]
    if rest.find(b'"') >= 0:  # `in` costs twice as much
        return _is_untagged(data)
    _, tag, value = rest.partition(b";tag=")
    if tag and value[:1].isalnum():
        return False
    return _is_untagged(data) if rest.find(b";") >= 0 or data.startswith(b"SIP/2.0 ") else True


def _is_untagged(data: bytes) -> bool:
    try:
        message = parse_message(data)
        return isinstance(message, Request) and message.to_tag is None
    except ParseError:
        return False


def read_copied(data: bytes) -> Copied | None:
    """The headers to copy, of a request without a To tag. None: it has one, or unusual syntax. Undefined for malformed
    requests."""
    end = max(0, data.find(b"\r\n\r\n"))
    vias: list[bytes] = []
    from_ = to = call_id = cseq = b""
    for line in data[:end].split(b"\r\n"):
        first = line[0] if line else 0
        if first == _C:
            if line.startswith(b"Call-ID: "):
                call_id = line[9:]
            elif line.startswith(b"CSeq: "):
                cseq = line[6:]
        elif first == _F and line.startswith(b"From: "):
            from_ = line[6:]
        elif first == _T and line.startswith(b"To: "):
            to = line[4:]
        elif first == _V and line.startswith(b"Via: "):
            vias.append(line)
        elif first == _V or first in _ODD:
            return None
    if not (vias and from_ and to and call_id and cseq) or (to[-1:] != b">" and to.find(b";") >= 0):
        return None
    others = b"" if len(vias) == 1 else b"\r\n".join([*vias[1:], b""])
    return vias[0][5:], others, from_, to, call_id, cseq
