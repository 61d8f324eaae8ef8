"""The file of attempts under way, beside the store: what `kill -9` leaves of them, for the next start (DESIGN 4.3).

Each has a slot of one page, sealed; a long one has several. A write is one system call into the system's memory, which
outlives the process. It does not outlive the machine: a loss of power takes what was not committed. A page is written
whole or not at all, whenever the process is killed: an attempt of one slot is written over in place. A long one goes to
fresh slots, its first part last, and what it replaces is freed after that, its first part first: parts without a first
one are what a kill left of a write or of a drop. Each write has a number, its generation; the highest that is whole
counts.

What is in the file is not trusted: what was altered is reported, and passed over.

Which attempts there are, and when they come and go, is the engine's business. It blocks for as long as the disk does.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from relay.call.lost import KeptAttempt
from relay.call.record import CallRecord
from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.database import connect_reader, store_errors
from relay.store.live_rows import LiveCall, open_live
from relay.store.outage import Report
from relay.store.permissions import open_beside
from relay.store.record_rows import SELECT, StoredRecord, decode_record, encode_record, open_row
from relay.store.sealing import Sealer
from relay.store.server import Place

SLOT: Final = 4096  # bytes; a page
FIRST_SLOTS: Final = 1024
MOST_SLOTS = 65_536  # 256 MiB
SPARE_SLOTS: Final = 256  # kept free for attempts that have been looked up, or go on to another target
TELL_S: Final = 60.0  # between two reports that an attempt could not be written
_HEAD: Final = struct.Struct(">4s32sQHHH")  # _MAGIC, the attempt's id, generation, which of how many parts, its bytes
_MAGIC: Final = b"r7a2"
_FREE: Final = bytes(len(_MAGIC))
_ROOM: Final = SLOT - _HEAD.size

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_ENDED_SINCE: Final = "SELECT call_id, chain_seq FROM call_record WHERE ended_at >= ?"
_UP: Final = "SELECT call_id FROM live_call"
_UP_ROW: Final = "SELECT id, call_id, sealed FROM live_call WHERE call_id = ?"


class _Part(NamedTuple):
    """What stands in a slot."""

    slot: int
    number: int
    of: int
    sealed: bytes


class AttemptFile:
    """Of one process. `report(event, fields)` is told of what cannot be written or read."""

    def __init__(self, path: Path, sealer: Sealer, report: Report) -> None:
        self._path = path
        self._sealer = sealer
        self._report = report
        self._descriptor = -1
        self._slots: dict[str, list[int]] = {}  # by attempt
        self._free: list[int] = []
        self._count = 0  # of the slots that there is room for
        self._generation = 0  # of the last write
        self._works = True  # the last attempt was written
        self._told_at = -TELL_S  # that one was not

    def open(self) -> list[KeptAttempt]:
        """What an earlier process has left. It stays there until it is dropped. Raises StoreError."""
        is_new = not os.path.lexists(self._path)
        try:
            self._descriptor = open_beside(self._path, os.O_RDWR)
            self._measure(is_new)
            left = self._read()
        except OSError as error:
            raise StoreError(f"the attempts under way in {self._path} cannot be read: {error.strerror}") from None
        if not self._count:
            with suppress(OSError):  # a full disk: it is told with the first attempt
                self._grow(FIRST_SLOTS)
        return left

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def keep(self, record: CallRecord, state: bytes) -> None:
        """Notes it, in place of what was noted before. That it cannot is reported, and `is_ready` tells."""
        call_id = record.call_id
        self._generation += 1
        sealed = self._sealer.seal(_encode((encode_record(record), state)), _context(call_id, self._generation))
        slots = self._slots.get(call_id)
        try:
            if len(sealed) > _ROOM or (slots is not None and len(slots) > 1):
                self._write_anew(call_id, sealed)
            else:
                if slots is None:
                    slots = self._slots[call_id] = [self._take()]
                self._write(call_id, 0, 1, sealed, slots[0])
        except OSError as error:
            self._failed(error)

    def is_ready(self) -> bool:
        """Whether a new attempt can be noted. Where one could not, it is tried again."""
        if self._works and len(self._free) >= SPARE_SLOTS:
            return True
        try:
            if len(self._free) < SPARE_SLOTS:
                self._grow(max(self._count, FIRST_SLOTS))
            os.pwrite(self._descriptor, _FREE, self._free[-1] * SLOT)
        except OSError as error:
            self._failed(error)
        else:
            self._works = True
        return self._works

    def drop(self, call_ids: Iterable[str]) -> None:
        """Forgets them. Those that are not there are passed over."""
        for call_id in call_ids:
            slots = self._slots.pop(call_id, None)
            if slots is not None:
                self._clear(slots)

    # -- slots

    def _write(self, call_id: str, number: int, of: int, part: bytes, slot: int) -> None:
        head = _HEAD.pack(_MAGIC, call_id.encode(), self._generation, number, of, len(part))
        os.pwrite(self._descriptor, head + part, slot * SLOT)

    def _write_anew(self, call_id: str, sealed: bytes) -> None:
        """To fresh slots. What was noted before stays until this is whole. Raises OSError."""
        parts = [sealed[start : start + _ROOM] for start in range(0, len(sealed), _ROOM)]
        fresh: list[int] = []
        try:
            for number in range(len(parts) - 1, -1, -1):
                fresh.append(self._take())
                self._write(call_id, number, len(parts), parts[number], fresh[-1])
        except OSError:
            self._clear(fresh)
            raise
        fresh.reverse()
        replaced = self._slots.get(call_id, [])
        self._slots[call_id] = fresh
        self._clear(replaced)

    def _take(self) -> int:
        """A free one. Raises OSError where there is no room for more."""
        if not self._free:
            self._grow(max(self._count, FIRST_SLOTS))
        return self._free.pop()

    def _grow(self, by: int) -> None:
        """Room that is there before it is needed: a full disk takes nothing from it. Raises OSError."""
        if self._count + by > MOST_SLOTS:
            raise OSError(errno.ENOSPC, f"{self._count} slots are taken")
        os.posix_fallocate(self._descriptor, self._count * SLOT, by * SLOT)
        self._free += range(self._count + by - 1, self._count - 1, -1)
        self._count += by

    def _clear(self, slots: list[int]) -> None:
        for slot in slots:
            with suppress(OSError):  # a start finds its record in the store
                os.pwrite(self._descriptor, _FREE, slot * SLOT)
        self._free += slots

    def _failed(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._told_at >= TELL_S:
            self._told_at = now
            effect = "new calls are refused: after a crash nobody would know of them"
            self._report("attempts.cannot_keep", {"file": str(self._path), "reason": error.strerror, "effect": effect})
        self._works = False

    # -- what was left

    def _measure(self, is_new: bool) -> None:
        """Counts its slots. What is too much of it, or no whole slot, is cut off. Raises OSError."""
        size = os.fstat(self._descriptor).st_size
        self._count = min(size // SLOT, MOST_SLOTS)
        if size > MOST_SLOTS * SLOT:
            self._altered(f"it has {size} bytes: {MOST_SLOTS * SLOT} at most are the relay's, the others are cut off")
        elif size % SLOT:
            self._altered(f"it has {size} bytes, no multiple of {SLOT}: a part of it is missing")
        elif not (size or is_new):
            self._altered("it is empty: it was emptied, or the disk was full when it was made")
        if size > self._count * SLOT:
            os.ftruncate(self._descriptor, self._count * SLOT)

    def _read(self) -> list[KeptAttempt]:
        """The highest whole generation of each attempt. The slots of the others are freed."""
        by_write = self._parts()
        left: list[KeptAttempt] = []
        for generation, call_id in sorted(by_write, reverse=True):
            parts = sorted(by_write[generation, call_id], key=lambda part: part.number)
            slots = [part.slot for part in parts]
            if call_id in self._slots or parts[0].number > 0:  # it was replaced, or a kill left a part of it
                self._clear(slots)
                continue
            try:
                left.append(self._opened(call_id, generation, parts))
            except StoreError as error:
                self._report("attempts.altered", {"call_id": call_id, "reason": str(error)})
                self._clear(slots)
            else:
                self._slots[call_id] = slots
                self._generation = max(self._generation, generation)
        return left

    def _parts(self) -> dict[tuple[int, str], list[_Part]]:
        """What stands in the slots, by generation and attempt. The other slots are free. Raises OSError."""
        by_write: dict[tuple[int, str], list[_Part]] = {}
        strange: list[int] = []
        for slot in range(self._count):
            data = os.pread(self._descriptor, SLOT, slot * SLOT)
            magic, call_id, generation, number, of, length = _HEAD.unpack_from(data)
            if magic == _MAGIC:
                part = _Part(slot, number, of, data[_HEAD.size : _HEAD.size + length])
                by_write.setdefault((generation, call_id.decode("ascii", "replace")), []).append(part)
            elif magic == _FREE:
                self._free.append(slot)
            else:
                strange.append(slot)
        if strange:
            self._altered(f"other bytes than the relay's in {len(strange)} slots, the first at {strange[0] * SLOT}")
            self._clear(strange)
        return by_write

    def _altered(self, reason: str) -> None:
        self._report("attempts.altered", {"file": str(self._path), "reason": reason})

    def _opened(self, call_id: str, generation: int, parts: list[_Part]) -> KeptAttempt:
        """`parts`: in order. Raises StoreError."""
        if [part.number for part in parts] != list(range(parts[0].of)):
            raise StoreError("a part of what was noted of an attempt is missing")
        sealed = b"".join([part.sealed for part in parts])
        try:
            encoded, state = _decode(self._sealer.open_(sealed, _context(call_id, generation)))
        except msgspec.DecodeError:
            raise StoreError("what was noted of an attempt cannot be read") from None
        return KeptAttempt(decode_record(encoded), state)


def with_records(
    place: Place, sealer: Sealer, left: list[KeptAttempt], unwritten: Iterable[CallRecord]
) -> list[KeptAttempt]:
    """The attempts, each with the record that there is of it all the same: its commit was the last that was done.

    `unwritten`: records that are durable and not in the store yet, the latest of a call last. Raises StoreError.
    """
    if not left:
        return []
    wanted = {attempt.record.call_id: attempt.record for attempt in left}
    with store_errors(place), closing(connect_reader(place)) as connection:
        stored = _up(connection, sealer, wanted) | _ended(connection, sealer, wanted)
    stored |= {record.call_id: record for record in unwritten}
    return [attempt._replace(stored=stored.get(attempt.record.call_id)) for attempt in left]


def _up(connection: Connection, sealer: Sealer, wanted: Mapping[str, CallRecord]) -> dict[str, CallRecord]:
    """On a server those of all nodes: one may have taken a call of ours over."""
    ids = [call_id for (call_id,) in connection.execute(_UP) if call_id in wanted]
    found = {}
    for call_id in ids:
        row = connection.execute(_UP_ROW, (call_id,)).fetchone()
        if row is not None:  # it has just ended on another node
            found[call_id] = _record(wanted[call_id], partial(open_live, sealer, row))
    return found


def _ended(connection: Connection, sealer: Sealer, wanted: Mapping[str, CallRecord]) -> dict[str, CallRecord]:
    """No attempt ends before it was received, by the clock that its record goes by."""
    since = min(record.received_at for record in wanted.values())
    places = [(call_id, seq) for call_id, seq in connection.execute(_ENDED_SINCE, (since,)) if call_id in wanted]
    found = {}
    for call_id, seq in places:
        row = connection.execute(f"{SELECT} WHERE chain_seq = ?", (seq,)).fetchone()
        found[call_id] = _record(wanted[call_id], partial(open_row, sealer, row))
    return found


def _record(kept: CallRecord, read: Callable[[], LiveCall | StoredRecord]) -> CallRecord:
    """One that was altered is a record all the same: `verify` tells of it."""
    try:
        return read().record
    except StoreError:
        return kept._replace(ended_at=kept.received_at)


def _context(call_id: str, generation: int) -> bytes:
    return f"attempt {call_id} {generation}".encode()
