"""The journal of call records: group commit in order, with commit acknowledgements (DESIGN 4.1).

All that waits is written in one transaction; the next starts when that is on disk. Owns the head of the chain: one
process writes it, guarded by a lock file beside the store. Never drops a commit: while the store fails it retries for
ever, reports the outage once, and acknowledges only what the overflow log has made durable. The same holds while a file
of the store is displaced, or the store holds less than was written to it: what is durable must be found again.
Fire-and-forget writes (events of calls under way, last callers) take their turn in the same queue, so that the events
of a call are never on disk later than its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

import aiosqlite

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.policy.recent import LastCaller
from relay.store.chain import (
    AUDIT,
    EMPTY,
    RECORDS,
    Head,
    HeadRow,
    head_row,
    next_link,
    read_head,
    stored_head,
    write_head,
)
from relay.store.connection import Report, WriteOutage
from relay.store.database import WRITER_PRAGMAS, store_errors, transaction, uri_of
from relay.store.files import Displaced, StoreFiles, holds_deleted_log, open_lock, takes
from relay.store.journal.overflow_log import Overflow
from relay.store.journal.queue import MIN_GAP_S, SLICE_S, Item, JournalQueue, Waiting, slice_end
from relay.store.journal.rows import (
    INSERT_EVENTS,
    PUT,
    PUT_CALLERS,
    Closed,
    LiveCall,
    Places,
    Told,
    caller_row,
    delete_live,
    event_row,
    laid_over,
    live_row,
    read_live,
)
from relay.store.record_rows import INSERT, Row, ended_since, insert, row_of
from relay.store.sealing.keys import Turning, key_in_use
from relay.store.sealing.sealer import Sealer

P = ParamSpec("P")
T = TypeVar("T")

BUSY_S: Final = 2.0  # longest wait for another writer; after that it counts as an outage
EFFECT: Final = "records go to the overflow log after one second, while it has room; writing is retried"
LOOK_S: Final = 1.0  # interval for checking that the store's files are in place
FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 2.0
OVERFLOW_AFTER_S = 1.0  # longest time to write a batch to the store; after that the overflow log is used


class _Batch(NamedTuple):
    """The rows of one transaction."""

    put: list[Row]  # for live_call
    deleted: list[int]  # rows of live_call
    ended: list[Row]  # for call_record
    head: HeadRow | None  # the new head, if it moves
    events: list[Row]  # for call_event
    callers: list[Row]  # for last_caller


class Journal:
    """The journal of one serving process. `report(event, fields)` gets outages and recoveries."""

    def __init__(self, path: Path, sealer: Sealer, report: Report, *, min_gap_s: float = MIN_GAP_S) -> None:
        self._path = path
        self._sealer = sealer
        self._turning = Turning(sealer, report)
        self._report = report
        self._outage = WriteOutage(path, EFFECT, report)
        self.queue = JournalQueue(min_gap_s)  # items to write; filled by the callers
        self._lock: int | None = None
        self._connection: aiosqlite.Connection | None = None
        self._files: StoreFiles | None = None  # of the connection
        self._head = EMPTY
        self._written = EMPTY  # the last durable head
        self._audit = EMPTY  # the head of the audit log after the last transaction
        self._places: Places | None = None
        self._closed = Closed(report)
        self._writer: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._overflower: asyncio.Task[None] | None = None
        self._overflow = Overflow(path.with_name(path.name + ".overflow"), sealer)
        self._overflowing = asyncio.Lock()
        self._overflow_works = True
        self._overflowed = 0  # number of items, at the front of the queue, that are in the overflow log
        self._taken = 0  # number of items that have ever left the queue
        self._begun_at: float | None = None  # start of the write under way

    async def open(self) -> None:
        """Raises StoreError if another process serves this store, or the head of the chain was altered."""
        self._lock = take_lock(self._path)
        try:
            with store_errors(self._path):
                await self._connect()
                self._written = self._head
                await self._inherit()
        except StoreError:
            await self._disconnect()
            self._overflow.close()
            self._release_lock()
            raise
        self._writer = asyncio.create_task(self._run(), name="journal")
        self._writer.add_done_callback(self._outage.writer_ended)
        self._watcher = asyncio.create_task(self._watch(), name="journal's files")
        self._overflower = asyncio.create_task(self._overflow_when_stalled(), name="journal's overflow")
        if self._overflowed:  # so that the caller, who reads the store next, finds them there
            await self.queue.emptied(OVERFLOW_AFTER_S)

    def live(self) -> list[LiveCall]:
        """The calls that were up when the last process ended, with their dialogs. Altered ones are only reported."""
        return laid_over(read_live(self._path, self._sealer, self._report), self.queue.unwritten())

    async def close(self, patience_s: float = 10.0) -> None:
        """Write what is queued, then close. Raises StoreError if the store did not take it within `patience_s`."""
        await self.queue.emptied(patience_s)
        if self.queue.waiting:
            await self._overflow_waiting()
        tasks = [task for task in (self._writer, self._watcher, self._overflower) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self.queue.all_told()
        await self._disconnect()
        self._overflow.close()
        self._release_lock()
        if left := sum(isinstance(item, Commit) for item, _ in islice(self.queue.waiting, self._overflowed, None)):
            raise StoreError(f"{left} call records could not be written to {self._path}")

    # -- the writer

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            # Items in the overflow log go in a separate batch: if a later state of a call reached the store before the
            # log is cleared, the next process would undo it.
            batch = (await self.queue.batch())[: self._overflowed or None]
            self._begun_at = clock()
            await self._write([item for item, _ in batch])
            self._begun_at = None
            told = min(self._overflowed, len(batch))
            self._overflowed -= told
            self._taken += len(batch)
            self.queue.took(batch, told)
            async with self._overflowing:  # once no write to the overflow log is under way
                await self._clear_overflow()

    # -- the overflow log, while the store accepts no writes

    async def _inherit(self) -> None:
        """Queue the commits in the overflow log of an earlier process. They also stay there for now."""
        try:
            await asyncio.to_thread(self._overflow.open)
            overflowed = await asyncio.to_thread(self._overflow.read)
        except OSError as error:
            self._cannot_overflow(error)
            return
        if not overflowed.is_whole:
            self._report("journal.overflow_damaged", {"store": str(self._path), "readable": len(overflowed.commits)})
        if overflowed.commits:
            assert self._connection is not None
            known = await _call(self._connection, ended_since, overflowed.since_seq)
            for commit in overflowed.commits:
                if commit.record.call_id not in known:
                    self.queue.put(commit, None)
        self._overflowed = len(self.queue.waiting)
        if self._overflowed:
            self._outage.began_before()
        await self._clear_overflow()

    async def _overflow_when_stalled(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(OVERFLOW_AFTER_S / 2)
            if self._begun_at is not None and clock() - self._begun_at > OVERFLOW_AFTER_S:
                await self._overflow_waiting()

    async def _overflow_waiting(self) -> None:
        """Write what is queued to the overflow log, in order, as far as there is room, and acknowledge it."""
        if not self._overflow_works:
            return
        async with self._overflowing:
            first = self._taken + self._overflowed
            waiting = list(islice(self.queue.waiting, self._overflowed, None))
            prepared = self._overflow.prepare(
                self._written.seq, [item for item, _ in waiting if isinstance(item, Commit)]
            )
            try:
                await asyncio.to_thread(self._overflow.write, prepared)
            except OSError as error:
                self._cannot_overflow(error)
                return
            kept = _up_to(waiting, prepared.commits)
            for item, done in kept[max(self._taken - first, 0) :]:  # the others have meanwhile reached the store
                self.queue.acknowledge(item, done)
            self._overflowed = max(first + len(kept) - self._taken, self._overflowed)
            await self._clear_overflow()

    async def _clear_overflow(self) -> None:
        """Clear the overflow log, if the store has all its entries."""
        if self._overflowed or self._overflow.is_empty:
            return
        try:
            await asyncio.to_thread(self._overflow.clear)
        except OSError as error:
            self._cannot_overflow(error)

    def _cannot_overflow(self, error: OSError) -> None:
        self._overflow_works = False
        effect = "while the store accepts no records, calls wait unanswered"
        self._report("journal.cannot_overflow", {"store": str(self._path), "reason": error.strerror, "effect": effect})

    async def _write(self, items: list[Item]) -> None:
        """Return when the items are durable, however long that takes."""
        commits = self._closed.take([item for item in items if isinstance(item, Commit)])
        batch: _Batch | None = None
        retry_s = FIRST_RETRY_S
        while True:
            try:
                connection = await self._ready()
                if batch is not None and batch.head is not None and batch.head[:2] == self._head:
                    break  # the COMMIT in doubt is on disk
                batch = await self._batch(commits, items)
                key_id, self._audit = await _call(connection, _transact, batch)
                self._turning.to(key_id)
            except (sqlite3.Error, StoreError) as error:
                self._outage.failed(error)
                if not isinstance(error, Displaced):
                    await self._disconnect()
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
            else:
                break
        self._written = self._head
        self._outage.is_over(self.queue.backlog)

    async def _batch(self, commits: list[Commit], items: list[Item]) -> _Batch:
        """Build the next transaction, moving head and places on. If it fails, both are read again from the store.

        Runs in slices, which is safe: nothing else moves them.
        """
        assert self._places is not None  # _connect read them
        up: dict[str, Commit] = {}
        deleted: list[int] = []
        ended: list[Row] = []
        until = time.monotonic() + SLICE_S
        for commit in commits:
            call_id = commit.record.call_id
            if commit.record.ended_at is None:
                up[call_id] = commit
                continue
            if time.monotonic() >= until:
                until = await _next_slice()
            up.pop(call_id, None)
            if (place := self._places.vacate(call_id)) is not None:
                deleted.append(place)
            row, encoded = row_of(self._sealer, commit.record, None if ended else self._audit)
            self._head = next_link(self._sealer, self._head, encoded)
            ended.append((*row, *self._head))
        put: list[Row] = []
        for call_id, commit in up.items():
            if time.monotonic() >= until:
                until = await _next_slice()
            place = self._places.of(call_id, deleted)
            put.append(live_row(self._sealer, place, commit.record, commit.dialogs or b""))
        self._places.free(deleted)
        head = head_row(self._sealer, RECORDS, self._head) if ended else None
        events = [event_row(self._sealer, item) for item in items if isinstance(item, Told)]
        callers = [caller_row(self._sealer, item) for item in items if isinstance(item, LastCaller)]
        return _Batch(put, deleted, ended, head, events, callers)

    # -- the connection

    async def _ready(self) -> aiosqlite.Connection:
        """A connection whose files are in place. Raises StoreError; Displaced if one is not."""
        if self._files is not None and self._connection is not None and (displaced := self._files.displaced()):
            if displaced.is_log:
                await self._save(self._connection)
            raise displaced
        if self._connection is None:
            await self._connect()
        assert self._connection is not None
        return self._connection

    async def _save(self, connection: aiosqlite.Connection) -> None:
        """Move the content of a deleted write-ahead log into the store, and close it.

        Raises StoreError if a reader blocks that.
        """
        busy, *_ = await _call(connection, _checkpoint)
        if busy:
            raise StoreError(f"the content of {self._path}-wal cannot be moved into the store: it is being read")
        await self._disconnect()

    async def _connect(self) -> None:
        if holds_deleted_log(self._path):
            raise StoreError(f"the look-ups still have the deleted {self._path}-wal open")
        self._connection = await aiosqlite.connect(uri_of(self._path), uri=True, timeout=BUSY_S, isolation_level=None)
        for pragma in WRITER_PRAGMAS:
            await self._connection.execute(pragma)
        # Read again after an error: a COMMIT that failed may still be on disk.
        self._head = await _call(self._connection, read_head, self._sealer, RECORDS)
        self._audit = await _call(self._connection, stored_head, AUDIT)
        self._places = await _call(self._connection, Places)
        if self._head.seq < self._written.seq or (self._head.seq == self._written.seq and self._head != self._written):
            raise StoreError(
                f"{self._path} holds less than was written to it, {self._head.seq} of {self._written.seq} call records:"
                " put the right one back, or restart the relay to go on with what is there"
            )
        self._files = StoreFiles(self._path)

    async def _watch(self) -> None:
        """Detect a displaced file also while nothing is queued: what was written may be lost."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._files is not None and not self._outage.lasts and self._files.displaced():
                self.queue.wake()

    async def _disconnect(self) -> None:
        connection, self._connection, self._files = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                await connection.close()

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _up_to(waiting: list[Waiting], commits: int) -> list[Waiting]:
    """The first items, up to and including `commits` commits, and the other items before the next one."""
    for index, (item, _) in enumerate(waiting):
        if isinstance(item, Commit):
            if not commits:
                return waiting[:index]
            commits -= 1
    return waiting


async def _next_slice() -> float:
    """Yield to the event loop. Return the end of the next slice, in monotonic seconds."""
    since = time.monotonic()
    await asyncio.sleep(0)
    return slice_end(time.monotonic(), since)


async def _call(
    connection: aiosqlite.Connection,
    function: Callable[Concatenate[sqlite3.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Run `function(connection, ...)` in aiosqlite's thread.

    Its public methods switch to the thread for each statement, four times per transaction. One switch for all saves 50
    to 80 us of CPU per transaction, and half its latency while the loop is busy (measured, aiosqlite 0.22).
    """
    result: T = await connection._execute(function, connection._conn, *args, **kwargs)  # type: ignore[no-untyped-call]
    return result


def _checkpoint(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Return (1 if it was blocked, pages in the log, pages moved)."""
    found: tuple[int, int, int] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return found


def _transact(connection: sqlite3.Connection, batch: _Batch) -> tuple[int, Head]:
    """Write a batch. Return the id of the key in use, and the head of the audit log."""
    with transaction(connection):
        if batch.deleted:
            delete_live(connection, batch.deleted)
        if batch.put:
            insert(connection, PUT, batch.put)
        if batch.head is not None:
            insert(connection, INSERT, batch.ended)
            write_head(connection, RECORDS, batch.head)
        if batch.events:
            insert(connection, INSERT_EVENTS, batch.events)
        if batch.callers:
            insert(connection, PUT_CALLERS, batch.callers)
        return key_in_use(connection), stored_head(connection, AUDIT)


def take_lock(path: Path) -> int:
    """Take the lock of the store. Raises StoreError if another process holds it."""
    lock = open_lock(path, ".lock")
    if not takes(lock):
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise StoreError(f"another relay700 serves {path} (process {holder}): stop it, or use another store")
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
