"""What waits to be written, in order: commits, and fire-and-forget writes; and the overflow log.

The overflow log is a file beside the store that keeps commits durable while the store accepts none. Its entries are
acknowledged, so calls go on while the store is locked or its disk is full. The journal decides when it is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.model.actions import CallEvent, Commit
from relay.policy.rules import LastCaller
from relay.store.files import open_beside, sync_folder
from relay.store.record_rows import decode_record, encode_record
from relay.store.sealing.sealer import Sealer

MAX_BATCH: Final = 400  # items per transaction
# Least time between the starts of two transactions. Each costs about 200 us of CPU for its thread switch and sync,
# whatever it writes. At 300 calls/s a gap of 10 ms costs 115 us per call and one of 20 ms 90 us; at 1,000 calls/s 50
# and 38 us; the median wait goes from 6 to 12 ms. A commit that finds the journal idle never waits.
MIN_GAP_S: Final = 0.020
# Longest time to prepare a batch, or to answer its calls, before the sockets are read again: at 1,650 calls/s each of
# the two takes 1 ms or more, and an INVITE that arrives meanwhile would wait for all of it.
SLICE_S: Final = 0.0003
LONG_TURN_S: Final = 0.002  # of the event loop; a turn in which the driver works on its backlog takes 10 ms


def slice_end(now: float, since: float) -> float:
    """The end of a slice that starts now, in monotonic seconds; other callbacks have had the loop since `since`.

    Infinity if they had it for long: the process is behind, and answers should not wait for more such turns.
    """
    return now + SLICE_S if now - since < LONG_TURN_S else math.inf


Item = Commit | CallEvent | LastCaller
Waiting = tuple[Item, Callable[[int], None] | None]


class Acknowledgements:
    """Commit acknowledgements: calls `done(token)` for each durable commit, in order, in slices."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # monotonic seconds
        self._due: deque[tuple[Callable[[int], None], int]] = deque()
        self._goes_on = False
        self._others_since = 0.0

    def put(self, done: Callable[[int], None], token: int) -> None:
        """Queue a call of `done` by the event loop: an exception in it must not stop the journal."""
        self._due.append((done, token))
        if not self._goes_on:
            self._go_on()

    def _go_on(self) -> None:
        self._goes_on = bool(self._due)
        if self._goes_on:
            self._others_since = self._clock()
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        until = slice_end(self._clock(), self._others_since)
        try:
            while self._due and self._clock() < until:
                done, token = self._due.popleft()
                done(token)
        finally:
            self._go_on()

    async def all_told(self) -> None:
        """Return when all acknowledgements so far are delivered."""
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.put(told.set_result, 0)
        await told


class JournalQueue:
    """The queue of one writer, which takes a batch, writes it, and reports it as taken."""

    def __init__(self, min_gap_s: float) -> None:
        self.waiting: deque[Waiting] = deque()  # items not in the store yet
        self._min_gap_s = min_gap_s
        self._taken_at = float("-inf")
        self._acknowledgements = Acknowledgements()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def append(self, commit: Commit, done: Callable[[int], None]) -> None:
        """Queue a commit. The loop calls `done(token)` when it is durable."""
        self.put(commit, done)

    def emit(self, event: CallEvent) -> None:
        """Queue an event of a call under way for its business."""
        self.put(event, None)

    def remember(self, last: LastCaller) -> None:
        """Queue the last caller of a binding."""
        self.put(last, None)

    def put(self, item: Item, done: Callable[[int], None] | None) -> None:
        """Queue an item. The loop calls `done(token)` when it is durable."""
        self.waiting.append((item, done))
        if len(self.waiting) == 1:
            self._idle.clear()
            self._wake.set()

    def wake(self) -> None:
        """Give the writer a batch, even an empty one."""
        self._wake.set()

    @property
    def rest_s(self) -> float:
        """The rest of the gap before the next batch; 0 or less: none.

        There is no gap if a full batch waits: it would limit the throughput to 20,000 items a second.
        """
        if len(self.waiting) >= MAX_BATCH:
            return 0.0
        return self._taken_at + self._min_gap_s - asyncio.get_running_loop().time()

    async def batch(self) -> list[Waiting]:
        """The first items, once there are any and the gap since the last batch is over."""
        if (rest_s := self.rest_s) > 0:
            await asyncio.sleep(rest_s)
        await self._wake.wait()
        self._taken_at = asyncio.get_running_loop().time()
        return list(islice(self.waiting, MAX_BATCH))

    def took(self, batch: list[Waiting], told: int = 0) -> None:
        """Remove a durable batch from the queue. Its first `told` items were acknowledged before."""
        for place, (item, done) in enumerate(batch):
            self.waiting.popleft()
            if place >= told:
                self.acknowledge(item, done)
        if not self.waiting:
            self._wake.clear()
            self._idle.set()

    def acknowledge(self, item: Item, done: Callable[[int], None] | None) -> None:
        """Acknowledge a durable item."""
        if done is not None and isinstance(item, Commit) and item.token:
            self._acknowledgements.put(done, item.token)

    async def all_told(self) -> None:
        """Return when all acknowledgements so far are delivered."""
        await self._acknowledgements.all_told()

    @property
    def backlog(self) -> int:
        """The number of items not in the store yet."""
        return len(self.waiting)

    def unwritten(self) -> list[Commit]:
        """The commits not in the store yet, in order. Those in the overflow log are durable."""
        return [item for item, _ in self.waiting if isinstance(item, Commit)]

    async def emptied(self, patience_s: float) -> None:
        """Return when the queue is empty, or after `patience_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), patience_s)


# -- The overflow log
#
# Its space is allocated in advance, so a full disk does not matter. Each entry is sealed, and bound to its position and
# to the run of entries since the log was last empty.
#
# Each entry is written to the store once, and nothing later is written before the log is cleared: if a call is in both,
# the log is right. A process that starts meanwhile appends to the log, lays its entries over the calls that are up in
# the store, and counts its calls of the last 15 minutes against the caps; older ones count once they are in the store.
# Events of calls under way and last callers are not kept. A store on a server has no overflow log: other nodes would
# not see it.

BYTES = 16 * 1024 * 1024  # about 10,000 commits
_HEAD: Final = struct.Struct(">8s8sQ")  # _MAGIC, random binding of the entries, last record of the chain at the start
_MAGIC: Final = b"r7spill1"
_LENGTH: Final = struct.Struct(">I")  # before each entry; 0: end of the log

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes | None]).decode


class Overflowed(NamedTuple):
    """The content of an overflow log."""

    since_seq: int  # the last record of the chain in the store when the log began
    commits: list[Commit]  # in order, each with token 0
    is_whole: bool  # False: the rest is unreadable, being an unfinished write or altered


class Prepared(NamedTuple):
    """Encoded commits, ready to be written."""

    binding: bytes
    head: bytes  # b"" if the file has one already
    entries: bytes
    commits: int  # number of commits that fitted


class Overflow:
    """The overflow log of one store. All methods except `prepare` block and raise OSError."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._file: FileIO | None = None
        self._binding = b""
        self._end = 0  # offset behind the last entry
        self._count = 0  # entries
        self.is_empty = True

    def open(self) -> None:
        """Open the file, creating it if needed. Its entries stay."""
        descriptor = open_beside(self._path, os.O_RDWR)
        self._file = FileIO(descriptor, "r+")
        if os.fstat(descriptor).st_size < BYTES:
            os.posix_fallocate(descriptor, 0, BYTES)
            os.fsync(descriptor)
            sync_folder(self._path.parent)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self) -> Overflowed:
        """Read the entries of an earlier process. The next ones are appended to them."""
        assert self._file is not None
        data = os.pread(self._file.fileno(), BYTES, 0)
        magic, binding, since_seq = _HEAD.unpack_from(data)
        commits: list[Commit] = []
        place, is_whole = _HEAD.size, True
        (length,) = _LENGTH.unpack_from(data, place)
        self.is_empty = magic != _MAGIC
        while magic == _MAGIC and length:
            begin = place + _LENGTH.size
            try:
                commits.append(self._opened(data[begin : begin + length], _context(binding, len(commits))))
            except StoreError:
                is_whole = False
                break
            place = begin + length
            (length,) = _LENGTH.unpack_from(data, place)
        self._binding, self._end, self._count = binding, place, len(commits)
        return Overflowed(since_seq, commits, is_whole)

    def prepare(self, since_seq: int, commits: Sequence[Commit]) -> Prepared:
        """Encode as many of the commits, from the first, as fit. `since_seq`: as in `Overflowed`."""
        binding = self._binding if self._count else secrets.token_bytes(8)
        head = b"" if self._count else _HEAD.pack(_MAGIC, binding, since_seq)
        room = BYTES - (self._end or _HEAD.size) - _LENGTH.size
        entries = bytearray()
        count = 0
        for commit in commits:
            entry = self._sealed(commit, _context(binding, self._count + count))
            if len(entries) + _LENGTH.size + len(entry) > room:
                break
            entries += _LENGTH.pack(len(entry)) + entry
            count += 1
        return Prepared(binding, head, bytes(entries), count)

    def write(self, prepared: Prepared) -> None:
        """Write the latest prepared entries durably. After an error they can be prepared again."""
        assert self._file is not None
        begin = self._end or _HEAD.size
        descriptor = self._file.fileno()
        if prepared.head:
            os.pwrite(descriptor, prepared.head, 0)
        os.pwrite(descriptor, prepared.entries + _LENGTH.pack(0), begin)  # an end mark over older bytes
        os.fdatasync(descriptor)
        self._binding = prepared.binding
        self._end = begin + len(prepared.entries)
        self._count += prepared.commits
        self.is_empty = False

    def clear(self) -> None:
        """Delete all entries, once they are in the store."""
        assert self._file is not None
        os.pwrite(self._file.fileno(), bytes(BYTES), 0)
        os.fdatasync(self._file.fileno())
        self._end = self._count = 0
        self.is_empty = True

    def _sealed(self, commit: Commit, context: bytes) -> bytes:
        return self._sealer.seal(_encode((encode_record(commit.record), commit.dialogs)), context)

    def _opened(self, entry: bytes, context: bytes) -> Commit:
        try:
            encoded, dialogs = _decode(self._sealer.open_(entry, context))
        except msgspec.DecodeError:
            raise StoreError("an entry of the overflow log cannot be decoded") from None
        return Commit(0, decode_record(encoded), dialogs)


def _context(binding: bytes, number: int) -> bytes:
    return b"overflow %b %d" % (binding, number)
