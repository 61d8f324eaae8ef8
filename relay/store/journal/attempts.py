"""The file of attempts under way, beside the store. It survives `kill -9`, for the next start.

Each attempt has a sealed slot of one page, or several if it is long. A write is one system call into the page cache,
which survives the process but not a power failure. A page is written whole or not at all, so an attempt of one slot is
overwritten in place. A long one is written to fresh slots, its first part last; then the old slots are freed, first
part first. So parts without a first one are the remains of a write or a drop that was killed. Each write has a number,
its generation; the highest complete one counts.

The content of the file is not trusted: altered entries are reported and skipped.

The engine decides which attempts are kept and for how long. Calls block for as long as the disk does.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from relay.call.recovery import KeptAttempt
from relay.defence.limits import Tally, is_within_share
from relay.errors import Report, StoreError
from relay.model.call import CallRecord
from relay.store.connection import Connection, Place, select_rows
from relay.store.database import reading
from relay.store.files import open_beside
from relay.store.journal.rows import LiveCall, open_live
from relay.store.record_rows import COLUMNS, SELECT, StoredRecord, decode_record, encode_record, open_row
from relay.store.sealing.sealer import Sealer

SLOT: Final = 4096  # bytes; a page
FIRST_SLOTS: Final = 1024
MOST_SLOTS = 65_536  # 256 MiB
MOST_SLOTS_EACH: Final = 3  # of an attempt: its request is short (`MOST_HEAD`), its credentials may be long
SPARE_SLOTS: Final = 256  # reserved for attempts that are already looked up, or fail over to another target
TELL_S: Final = 60.0  # least interval between reports of a failed write
_HEAD: Final = struct.Struct(">4s32sQHHH")  # _MAGIC, attempt id, generation, part number, number of parts, length
_MAGIC: Final = b"r7a2"
_FREE: Final = bytes(len(_MAGIC))
_ROOM: Final = SLOT - _HEAD.size

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_UP: Final = "SELECT id, call_id, sealed FROM live_call WHERE call_id IN ({keys})"
# The index of calls is not used: nothing proves its rows, and a record that it lacked would be written again.
_ENDED: Final = f"{SELECT} WHERE call_id IN ({{keys}}) AND ended_at >= ?"
_CALL_ID: Final = COLUMNS.index("call_id")


class _Part(NamedTuple):
    """The content of one slot."""

    slot: int
    number: int
    of: int
    sealed: bytes


class AttemptFile:
    """The attempts of one process. `report(event, fields)` gets what cannot be written or read."""

    def __init__(self, path: Path, sealer: Sealer, report: Report) -> None:
        self._path = path
        self._sealer = sealer
        self._report = report
        self._descriptor = -1
        self._slots: dict[str, list[int]] = {}  # by attempt
        self._peers: dict[str, str] = {}  # the caller's, by attempt
        self._by_peer = Tally()
        self._free: list[int] = []
        self._count = 0  # slots allocated on disk
        self._generation = 0  # of the last write
        self._works = True  # whether the last write succeeded
        self._reported_at = -TELL_S  # time of the last report of a failed write

    def open(self) -> list[KeptAttempt]:
        """Return the attempts of an earlier process. They stay in the file until dropped. Raises StoreError."""
        is_new = not os.path.lexists(self._path)
        try:
            self._descriptor = open_beside(self._path, os.O_RDWR)
            self._measure(is_new)
            left = self._read()
        except OSError as error:
            raise StoreError(f"the attempts under way in {self._path} cannot be read: {error.strerror}") from None
        if not self._count:
            with suppress(OSError):  # a full disk is reported with the first attempt
                self._grow(FIRST_SLOTS)
        return left

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def keep(self, record: CallRecord, state: bytes) -> None:
        """Write the attempt over its earlier state. A failure is reported, and makes `is_ready` False."""
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
        if call_id not in self._peers:
            self._count_for(call_id, record.peer_in)

    def is_ready(self) -> bool:
        """Whether a new attempt can be kept. After a failed write, try again."""
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

    def has_room(self, peer: str) -> bool:
        """Whether the peer may have one more attempt: all share the slots, whatever their number of calls."""
        return is_within_share(self._by_peer.count(peer) + 1, len(self._peers) + 1, MOST_SLOTS // MOST_SLOTS_EACH)

    def drop(self, call_ids: Iterable[str]) -> None:
        """Remove attempts. Unknown ids are ignored."""
        for call_id in call_ids:
            slots = self._slots.pop(call_id, None)
            if slots is not None:
                self._clear(slots)
            peer = self._peers.pop(call_id, None)
            if peer is not None:
                self._by_peer.end(peer)

    def _count_for(self, call_id: str, peer: str) -> None:
        self._peers[call_id] = peer
        self._by_peer.begin(peer)

    # -- slots

    def _write(self, call_id: str, number: int, of: int, part: bytes, slot: int) -> None:
        head = _HEAD.pack(_MAGIC, call_id.encode(), self._generation, number, of, len(part))
        os.pwrite(self._descriptor, head + part, slot * SLOT)

    def _write_anew(self, call_id: str, sealed: bytes) -> None:
        """Write to fresh slots. The earlier state stays until this one is complete. Raises OSError."""
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
        """Take a free slot. Raises OSError if the file cannot grow."""
        if not self._free:
            self._grow(max(self._count, FIRST_SLOTS))
        return self._free.pop()

    def _grow(self, by: int) -> None:
        """Allocate slots ahead of need, so that a disk that fills up later does no harm. Raises OSError."""
        if self._count + by > MOST_SLOTS:
            raise OSError(errno.ENOSPC, f"all {self._count} slots are in use")
        os.posix_fallocate(self._descriptor, self._count * SLOT, by * SLOT)
        self._free += range(self._count + by - 1, self._count - 1, -1)
        self._count += by

    def _clear(self, slots: list[int]) -> None:
        for slot in slots:
            with suppress(OSError):  # the next start finds the attempt's record in the store
                os.pwrite(self._descriptor, _FREE, slot * SLOT)
        self._free += slots

    def _failed(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._reported_at >= TELL_S:
            self._reported_at = now
            effect = "new calls are refused: a crash would leave no record of them"
            self._report("attempts.cannot_keep", {"file": str(self._path), "reason": error.strerror, "effect": effect})
        self._works = False

    # -- reading what an earlier process left

    def _measure(self, is_new: bool) -> None:
        """Count the slots. Truncate what exceeds the limit or is not a whole slot. Raises OSError."""
        size = os.fstat(self._descriptor).st_size
        self._count = min(size // SLOT, MOST_SLOTS)
        if size > MOST_SLOTS * SLOT:
            self._altered(f"the file has {size} bytes, the limit is {MOST_SLOTS * SLOT}: it was truncated to that")
        elif size % SLOT:
            self._altered(f"the file has {size} bytes, not a multiple of {SLOT}: a part of it is missing")
        elif not (size or is_new):
            self._altered("the file is empty: it was truncated, or the disk was full when it was created")
        if size > self._count * SLOT:
            os.ftruncate(self._descriptor, self._count * SLOT)

    def _read(self) -> list[KeptAttempt]:
        """The highest complete generation of each attempt. All other slots are freed."""
        by_write = self._parts()
        left: list[KeptAttempt] = []
        for generation, call_id in sorted(by_write, reverse=True):
            parts = sorted(by_write[generation, call_id], key=lambda part: part.number)
            slots = [part.slot for part in parts]
            if call_id in self._slots or parts[0].number > 0:  # an older generation, or left incomplete by a kill
                self._clear(slots)
                continue
            try:
                kept = self._opened(call_id, generation, parts)
            except StoreError as error:
                self._report("attempts.altered", {"call_id": call_id, "reason": str(error)})
                self._clear(slots)
            else:
                left.append(kept)
                self._slots[call_id] = slots
                self._count_for(call_id, kept.record.peer_in)
                self._generation = max(self._generation, generation)
        return left

    def _parts(self) -> dict[tuple[int, str], list[_Part]]:
        """The parts found, by generation and attempt. All other slots are freed. Raises OSError."""
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
            self._altered(f"foreign bytes in {len(strange)} slots, the first at offset {strange[0] * SLOT}")
            self._clear(strange)
        return by_write

    def _altered(self, reason: str) -> None:
        self._report("attempts.altered", {"file": str(self._path), "reason": reason})

    def _opened(self, call_id: str, generation: int, parts: list[_Part]) -> KeptAttempt:
        """Open an attempt from its `parts`, in order. Raises StoreError."""
        if [part.number for part in parts] != list(range(parts[0].of)):
            raise StoreError("a part of the attempt is missing")
        sealed = b"".join([part.sealed for part in parts])
        try:
            encoded, state = _decode(self._sealer.open_(sealed, _context(call_id, generation)))
        except msgspec.DecodeError:
            raise StoreError("the attempt cannot be decoded") from None
        return KeptAttempt(decode_record(encoded), state)


def with_records(
    place: Place, sealer: Sealer, left: list[KeptAttempt], unwritten: Iterable[CallRecord]
) -> list[KeptAttempt]:
    """Return the attempts, each with its record if the last process committed one before it died.

    `unwritten`: records that are durable but not in the store yet, the latest of a call last. Raises StoreError.
    """
    if not left:
        return []
    wanted = {attempt.record.call_id: attempt.record for attempt in left}
    with reading(place) as connection:
        stored = _up(connection, sealer, wanted) | _ended(connection, sealer, wanted)
    stored |= {record.call_id: record for record in unwritten}
    return [attempt._replace(stored=stored.get(attempt.record.call_id)) for attempt in left]


def _up(connection: Connection, sealer: Sealer, wanted: Mapping[str, CallRecord]) -> dict[str, CallRecord]:
    """Calls that are up; on a server those of all nodes, since another one may have taken over a call of ours."""
    found = {}
    for row in select_rows(connection, _UP, list(wanted)):
        found[row[1]] = _record(wanted[row[1]], partial(open_live, sealer, row))
    return found


def _ended(connection: Connection, sealer: Sealer, wanted: Mapping[str, CallRecord]) -> dict[str, CallRecord]:
    """Records of calls that ended. An attempt never ends before it was received, by the clock of its record."""
    since = min(record.received_at for record in wanted.values())
    rows = select_rows(connection, _ENDED, list(wanted), since)
    return {row[_CALL_ID]: _record(wanted[row[_CALL_ID]], partial(open_row, sealer, row)) for row in rows}


def _record(kept: CallRecord, read: Callable[[], LiveCall | StoredRecord]) -> CallRecord:
    """The stored record. An altered one still counts as a record: `verify` reports it."""
    try:
        return read().record
    except StoreError:
        return kept._replace(ended_at=kept.received_at)


def _context(call_id: str, generation: int) -> bytes:
    return f"attempt {call_id} {generation}".encode()
