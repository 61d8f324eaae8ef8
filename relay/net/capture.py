"""Hands SIP messages, steps and ends of calls to the backend for capture, by a ring in shared memory.

The relay never waits for the backend: a batch that finds no room in the ring is dropped and counted. The ring is
anonymous memory, in no file: it holds real numbers.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, final

import msgspec

from relay.model.call import CallRecord
from relay.model.capture import REGISTRATIONS, Side
from relay.net.held import HeldCalls, Item, own_call_id, sip_call_id
from relay.sip.message import Flow

RING_BYTES: Final = 16 * 1024 * 1024  # 1.5 s at 1,000 calls a second
_HEAD: Final = 64  # bytes before the ring: two positions, and what the reader wants
_WRITTEN: Final = 0
_READ: Final = 1
_WANTED: Final = 2
_FAILED_ONLY: Final = 1  # 0, all: until the reader has said what it wants
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
        self._positions = memoryview(memory)[:24].cast("Q")  # a position is written at once, not byte by byte
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

    def want(self, *, all_calls: bool) -> None:
        """Tell the writer whether calls that ended well are wanted, too."""
        self._positions[_WANTED] = 0 if all_calls else _FAILED_ONLY

    @property
    def wants_all(self) -> bool:
        return bool(self._positions[_WANTED] != _FAILED_ONLY)

    def look(self) -> None:
        """Let `take` read the frames that are written by now.

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
LINK: Final = 3  # DialogItem, Flow of the dialog's peer, None
ENDED: Final = 4  # EndItem, None, None


class DialogItem(NamedTuple):
    """A dialog of a call."""

    call_id: str
    sip_call_id: bytes
    side: Side
    peer: str


def ended_well(outcome: str | None, ended_by: str | None, end_reason: str | None) -> bool:
    """Answered, and ended by a party; or a text that was delivered."""
    return outcome == "delivered" or (
        outcome == "answered" and ended_by in ("caller", "callee") and end_reason == "bye"
    )


class EndItem(NamedTuple):
    """Fields of the closed record of a call or text message, named as in `CallRecord`."""

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
    """Collects items, and writes them to the ring every FLUSH_S. Needs a running loop.

    By default it writes all as they come. `hold` keeps those of calls under way until it is known whether they are
    wanted.
    """

    def __init__(self, ring: Ring, told: Callable[[], None] | None = None) -> None:
        """`told`: called for each frame in the ring."""
        self._told = told
        self.messages = 0  # received and sent
        self.dropped = 0  # of these, not written
        self._ring = ring
        self._calls: HeldCalls | None = None
        self._keeps_failed = True  # if calls are held
        self._given_up = 0  # messages, by calls that are held no more
        self._items: list[object] = []
        self._frame = bytearray()  # the memory of each frame: making it anew would cost more than to fill it
        self._bytes = 0
        self._in_frame = 0  # messages in `_items`
        self._timer: asyncio.TimerHandle | None = None

    def hold(self, *, keeps_failed: bool) -> None:
        """Hold calls until they are over. `keeps_failed`: failed calls are wanted; else only if all calls are."""
        self._keeps_failed = keeps_failed
        if self._calls is None:
            self._calls = HeldCalls(self._write)

    def pass_all(self) -> None:
        """Hold no calls from now on: write the held items, and all others as they come."""
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.give_all()
            self._given_up += calls.given_up

    def give(self, call_id: str) -> bool:
        """Write what is held of a call, and what follows. Returns whether it is held."""
        is_held = self._calls is not None and self._calls.give(call_id)
        self.flush()
        return is_held

    def received(self, data: bytes, flow: Flow, at: float, call_id: str) -> None:
        """`at`: Unix seconds. `call_id`: the SIP Call-ID, "" if it is not known."""
        key = call_id.encode("utf-8", "surrogateescape")
        if self._calls is None:
            self._in_frame += 1
            self._add(RECEIVED, at, flow, data, key, len(data) + len(key))
            return
        key = key or sip_call_id(data)
        self._calls.message((RECEIVED, at, flow, data, key), key)

    def sent(self, data: bytes, flow: Flow) -> None:
        if self._calls is None:
            self._in_frame += 1
            self._add(SENT, _clock(), flow, data, b"", len(data))
            return
        self._calls.message((SENT, _clock(), flow, data, b""), own_call_id(data))

    def mark(self, call_id: str, step: str) -> None:
        item = (MARK, _clock(), call_id, step, None)
        if self._calls is None:
            self._write(item)
        else:
            self._calls.step(item, call_id)

    def link(self, call_id: str, sip_call_id: str, side: Side, peer: str, flow: Flow) -> None:
        """Say which call a dialog belongs to."""
        # A peer's Call-ID may hold any byte, and a string with surrogate escapes is not encoded.
        key = sip_call_id.encode("utf-8", "surrogateescape")
        item = (LINK, _clock(), (call_id, key, side, peer), flow, None)
        if self._calls is None:
            self._write(item)
        elif call_id.startswith(REGISTRATIONS):
            self._calls.register(item, call_id, key, peer)
        else:
            self._calls.link(item, call_id, key, peer)

    def answered(self, call_id: str) -> None:
        """The call is up: its capture goes first if memory is short."""
        if self._calls is not None:
            self._calls.answered(call_id)

    def ended(self, record: CallRecord) -> None:
        calls = self._calls
        if calls is not None and not self._wants(record) and calls.forget(record.call_id):
            return
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
        item = (ENDED, _clock(), ended, None, None)
        if calls is None:
            self._write(item)
        else:
            calls.end(item, record.call_id)

    def _wants(self, record: CallRecord) -> bool:
        is_failed = not ended_well(record.outcome, record.ended_by, record.end_reason)
        return (is_failed and self._keeps_failed) or self._ring.wants_all

    def _write(self, item: Item) -> None:
        kind, at, first, second, third = item
        length = 0
        if kind <= SENT:
            self._in_frame += 1
            length = len(second) + len(third)
        self._add(kind, at, first, second, third, length)

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
        in_frame, self._in_frame, self._bytes = self._in_frame, 0, 0
        if not items:
            return
        try:
            _encode_into(items, self._frame)
            is_written = self._ring.write(self._frame)
        except ValueError:  # text that cannot be encoded
            is_written = False
        self.messages += in_frame
        if is_written and self._told is not None:
            self._told()
        if not is_written:
            self.dropped += in_frame

    def statistics(self) -> dict[str, int]:
        calls = self._calls
        return {
            "capture_messages": self.messages,
            "capture_dropped": self.dropped,
            "captures_held": 0 if calls is None else len(calls),
            "captures_held_bytes": 0 if calls is None else calls.bytes,
            "capture_held_given_up": self._given_up + (0 if calls is None else calls.given_up),
        }
