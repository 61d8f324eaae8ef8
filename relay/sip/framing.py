"""Framing of SIP messages on a stream by Content-Length (RFC 3261 18.3), with keep-alives (RFC 5626 4.4.1).

It buffers at most one unfinished message. It touches no socket, and reads no header except Content-Length.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from relay.errors import ParseError
from relay.sip.message import MAX_BODY, MAX_HEAD


class Keepalive(Enum):
    PING = "ping"  # to be answered with CRLF
    PONG = "pong"


KEEPALIVE_PING: Final = Keepalive.PING
KEEPALIVE_PONG: Final = Keepalive.PONG

Frame = bytes | Keepalive
"""One whole message, or a keep-alive."""

# The value may continue on folded lines. Lines end with CRLF only, as for `parse_message`.
_content_lengths: Final = re.compile(
    rb"\r\n(?:Content-Length|l)[ \t]*+:((?:[^\r]|\r\n[ \t]|\r(?!\n))*+)", re.IGNORECASE
).findall


class StreamFramer:
    """The framer of one connection. After a ParseError the stream is unusable: close the connection."""

    __slots__ = ("_buffer", "_error", "_max_body", "_max_head", "_pinging", "_scanned", "_size")

    def __init__(self, max_head: int = MAX_HEAD, max_body: int = MAX_BODY) -> None:
        self._max_head = max_head
        self._max_body = max_body
        self._buffer = bytearray()  # begins at a message or a keep-alive
        self._scanned = 0  # the end of the head is not before this offset
        self._size = 0  # of the current message; 0 until its head is complete
        self._pinging = False  # the last frame was the first CRLF of a ping, or a pong
        self._error: ParseError | None = None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order.

        A CRLF between messages gives a KEEPALIVE_PONG at once, and a second one right behind it a KEEPALIVE_PING, so
        that every split of the stream gives the same frames. Raises ParseError for a head or body over the limits and
        for a missing or malformed Content-Length; frames before the error are returned first.
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
        return bool(self._buffer) or self._error is not None

    def _next(self) -> Frame | None:
        buffer = self._buffer
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
        if length > self._max_body:
            raise ParseError("over the limit", "content-length")
        self._size = end + 4 + length


def _content_length(head: bytes) -> int:
    values = {b"".join(value.split(b"\r\n")).strip(b" \t") for value in _content_lengths(head)}
    if not values:
        raise ParseError("missing on a stream", "content-length")
    value = values.pop()
    if values or not (value.isdigit() and len(value) <= 10):
        raise ParseError("contradictory or not a number", "content-length")
    return int(value)
