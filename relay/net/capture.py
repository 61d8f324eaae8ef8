"""What the relay hands to the backend for capture: SIP messages, steps and ends of calls, by a ring in shared memory.

The relay never waits for the backend: what finds no room in the ring is dropped and counted. The ring is anonymous
memory, in no file: it holds real numbers.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, final

import msgspec

from relay.model.call import CallRecord
from relay.model.capture import Side
from relay.sip.message import Flow

RING_BYTES: Final = 16 * 1024 * 1024  # 1.5 s at 1,000 calls a second
_HEAD: Final = 64  # bytes before the ring: two positions
_WRITTEN: Final = 0
_READ: Final = 1
_LENGTH: Final = struct.Struct("=I")


def make_memory(size: int = RING_BYTES) -> int:
    """A descriptor of the memory of a ring, for `Ring` in both processes. Pages take memory once they are written."""
    descriptor = os.memfd_create("capture", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _HEAD + size)
    return descriptor


class Ring:
    """A queue of frames of bytes, with one writer and one reader, in different processes.

    Positions count bytes since the start and never wrap. Each is written by one side only, and always between frames,
    so a reader that is started again goes on where its predecessor was.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = memory = mmap.mmap(descriptor, 0)
        self._size = len(memory) - _HEAD
        self._positions = memoryview(memory)[:16].cast("Q")  # a position is written at once, not byte by byte
        self._end = self._positions[_WRITTEN]

    def write(self, frame: bytes | bytearray) -> bool:
        """Append a frame. False: there is no room."""
        at, read = self._positions[_WRITTEN], self._positions[_READ]
        size = _LENGTH.size + len(frame)
        if not 0 <= at - read <= self._size - size:
            return False
        self._put(at, _LENGTH.pack(len(frame)))
        self._put(at + _LENGTH.size, frame)
        self._positions[_WRITTEN] = at + size
        return True

    def look(self) -> None:
        """Let `take` go up to what is written by now.

        Call it some time before `take`: by then the frames are visible to this process, on any CPU.
        """
        self._end = self._positions[_WRITTEN]

    def take(self) -> bytes | None:
        """The next frame; None until there is one."""
        at = self._positions[_READ]
        if at >= self._end:
            return None
        (length,) = _LENGTH.unpack(self._get(at, _LENGTH.size))
        at += _LENGTH.size
        frame = self._get(at, length)
        self._positions[_READ] = at + length
        return frame

    def _put(self, at: int, data: bytes | bytearray) -> None:
        start = _HEAD + at % self._size
        room = len(self._memory) - start
        if len(data) <= room:
            self._memory[start : start + len(data)] = data
        else:
            self._memory[start:] = data[:room]
            self._memory[_HEAD : _HEAD + len(data) - room] = data[room:]

    def _get(self, at: int, length: int) -> bytes:
        start = _HEAD + at % self._size
        data = self._memory[start : start + length]
        return data + self._memory[_HEAD : _HEAD + length - len(data)] if len(data) < length else data


# -- Items, five values each in a frame: kind, Unix seconds, and three more

RECEIVED: Final = 0  # Flow, message, its SIP Call-ID; b"" if that is not known
SENT: Final = 1  # Flow, message, b""
MARK: Final = 2  # call id, step (as in `Mark`), None
LINK: Final = 3  # Linked, Flow of the dialog's peer, None
ENDED: Final = 4  # Ended, None, None

Item = tuple[int, float, Any, Any, Any]


class Linked(NamedTuple):
    """A dialog of a call."""

    call_id: str
    sip_call_id: bytes
    side: Side
    peer: str


class Ended(NamedTuple):
    """Of the closed record of a call or text message. Names as in `CallRecord`."""

    call_id: str
    outcome: str | None
    ended_by: str | None
    end_reason: str | None
    business: str | None
    caller: str
    callee: str | None
    number_dialled: str
    number_shown: str | None
    caller_packets: int | None
    caller_lost: int | None
    caller_jitter_ms: int | None
    callee_packets: int | None
    callee_lost: int | None
    callee_jitter_ms: int | None


def read_items(frame: bytes) -> tuple[int, Iterator[Item]]:
    """The number of messages dropped so far, and the items of a frame. Raises msgspec.MsgspecError."""
    dropped, *values = msgspec.msgpack.decode(frame, type=list[Any])
    each = iter(values)
    return dropped, zip(each, each, each, each, each, strict=True)


# -- The writing side

FLUSH_S: Final = 0.02  # so long items are collected for one frame
MOST_BYTES: Final = 32 * 1024  # of messages in a frame: some 40, which are still in the CPU's cache
_ITEM_BYTES: Final = 100  # of an item beside the message, about

_clock: Final = time.time
_encode_into: Final = msgspec.msgpack.Encoder().encode_into


@final
class Capture:
    """Collects items, and writes them to the ring every FLUSH_S. Needs a running loop."""

    def __init__(self, ring: Ring) -> None:
        self.messages = 0  # received and sent
        self.dropped = 0  # of these, not written
        self._ring = ring
        self._items: list[object] = []
        self._frame = bytearray()  # the memory of each frame: making it anew would cost more than to fill it
        self._bytes = 0
        self._held = 0  # messages in `_items`
        self._timer: asyncio.TimerHandle | None = None

    def received(self, data: bytes, flow: Flow, at: float, sip_call_id: str) -> None:
        """`at`: Unix seconds. `sip_call_id`: "" if it is not known."""
        self._held += 1
        key = sip_call_id.encode("utf-8", "surrogateescape")
        self._add(RECEIVED, at, flow, data, key, len(data) + len(key))

    def sent(self, data: bytes, flow: Flow) -> None:
        self._held += 1
        self._add(SENT, _clock(), flow, data, b"", len(data))

    def mark(self, call_id: str, step: str) -> None:
        self._add(MARK, _clock(), call_id, step, None, 0)

    def link(self, call_id: str, sip_call_id: str, side: Side, peer: str, flow: Flow) -> None:
        """Say which call a dialog belongs to."""
        # A peer's Call-ID may hold any byte, and a string with surrogate escapes is not encoded.
        linked = (call_id, sip_call_id.encode("utf-8", "surrogateescape"), side, peer)
        self._add(LINK, _clock(), linked, flow, None, 0)

    def ended(self, record: CallRecord) -> None:
        ended = (
            record.call_id,
            record.outcome,
            record.ended_by,
            record.end_reason,
            record.business,
            record.caller,
            record.callee,
            record.number_dialled,
            record.number_shown,
            record.caller_packets,
            record.caller_lost,
            record.caller_jitter_ms,
            record.callee_packets,
            record.callee_lost,
            record.callee_jitter_ms,
        )
        self._add(ENDED, _clock(), ended, None, None, 0)

    def _add(self, kind: int, at: float, first: object, second: object, third: object, length: int) -> None:
        items = self._items
        if not items:
            items.append(self.dropped)
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._flush_in_time)
        items.append(kind)
        items.append(at)
        items.append(first)
        items.append(second)
        items.append(third)
        self._bytes += length + _ITEM_BYTES
        if self._bytes >= MOST_BYTES:
            self.flush()

    def _flush_in_time(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Write what is collected."""
        items, self._items = self._items, []
        held, self._held, self._bytes = self._held, 0, 0
        if not items:
            return
        try:
            _encode_into(items, self._frame)
            is_written = self._ring.write(self._frame)
        except ValueError:  # text that cannot be encoded
            is_written = False
        self.messages += held
        if not is_written:
            self.dropped += held

    def statistics(self) -> dict[str, int]:
        return {"capture_messages": self.messages, "capture_dropped": self.dropped}
