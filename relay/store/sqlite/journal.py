"""The journal's writer to an SQLite file. Owns the head of the chain: one process writes it.

While a file of the store is displaced, or the store holds less than was written to it, it writes nothing: what is
durable must be found again.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

import aiosqlite

from relay.call.recovery import KeptAttempt
from relay.defence.limits import SharedLimits
from relay.errors import Report, StoreError
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
from relay.store.connection import WorkConnection, transaction
from relay.store.database import WRITER_PRAGMAS, store_errors, uri_of
from relay.store.files import Displaced, StoreFiles, holds_deleted_log
from relay.store.journal.journal import Batch, Journal
from relay.store.journal.overflow import Overflow
from relay.store.journal.queue import SLICE_S, slice_end
from relay.store.journal.rows import (
    INSERT_EVENTS,
    PUT,
    PUT_CALLERS,
    LiveCall,
    LiveRows,
    caller_row,
    delete_live,
    event_row,
    live_row,
)
from relay.store.record_rows import INSERT, Row, insert, row_of
from relay.store.sealing.keys import KeySwitch, key_in_use
from relay.store.sealing.sealer import Sealer

P = ParamSpec("P")
T = TypeVar("T")

BUSY_S: Final = 2.0  # longest wait for another writer; after that it counts as an outage
EFFECT: Final = "records go to the overflow log after one second, while it has room; writing is retried"
LOOK_S: Final = 1.0  # interval for checking that the store's files are in place


def sqlite_journal(path: Path, sealer: Sealer, report: Report, told: Callable[[], None] = lambda: None) -> Journal:
    """The journal of a store in a file, with an overflow log beside it. `told`: as for the writer."""
    overflow = Overflow(path.with_name(path.name + ".overflow"), sealer)
    writer = SqliteWriter(path, sealer, report, told)
    return Journal(path, sealer, writer, report, overflow)


class _TransactionRows(NamedTuple):
    """The rows of one transaction."""

    put: list[Row]  # for live_call
    deleted: list[int]  # rows of live_call
    ended: list[Row]  # for call_record
    head: HeadRow | None  # the new head, if it moves
    events: list[Row]  # for call_event
    callers: list[Row]  # for last_caller


class SqliteWriter:
    """As `relay.store.journal.journal.BatchWriter`."""

    def __init__(self, path: Path, sealer: Sealer, report: Report, told: Callable[[], None] = lambda: None) -> None:
        """`told`: called for each transaction that the follower has something to do with."""
        self._told = told
        self.effect: str = EFFECT
        self.faults: tuple[type[Exception], ...] = (sqlite3.Error, StoreError, OSError)
        self.is_taken_over = False  # a file has one node
        self._path = path
        self._sealer = sealer
        self._turning = KeySwitch(sealer, report)
        self._connection: aiosqlite.Connection | None = None
        self._work: WorkConnection | None = None  # its connection
        self._files: StoreFiles | None = None  # of the connection
        self._head = EMPTY
        self._tried: Head | None = None  # the new head of a COMMIT that failed, and may be on disk all the same
        self._written = EMPTY  # the last durable head
        self._audit = EMPTY  # the head of the audit log after the last transaction
        self._live_rows: LiveRows | None = None
        self._watcher: asyncio.Task[None] | None = None

    @property
    def seq(self) -> int:
        return self._written.seq

    async def open(self, wake: Callable[[], None]) -> None:
        with store_errors(self._path):
            await self._connect()
        self._written = self._head
        self._watcher = asyncio.create_task(self._watch(wake), name="journal's files")

    async def write(self, batch: Batch) -> None:
        if self._files is None or self._files.displaced():
            await self._reconnect()
        if self._tried is None or self._tried != self._head:  # else the COMMIT in doubt is on disk
            rows = await self._rows(batch)
            self._tried = self._head if rows.head is not None else None
            key_id, self._audit = await self._call(_transact, rows)
            self._turning.to(key_id)
        self._tried = None
        self._written = self._head
        if batch.ended or batch.events:
            self._told()

    async def failed(self, error: Exception) -> None:
        if not isinstance(error, Displaced):
            await self._disconnect()

    def watch(self, take: Callable[[list[LiveCall], list[KeptAttempt]], None], limits: SharedLimits) -> None:
        """A file has one node."""

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        await self._disconnect()

    async def _watch(self, wake: Callable[[], None]) -> None:
        """Detect displaced files while nothing is queued."""
        while True:
            await asyncio.sleep(LOOK_S)
            if self._files is not None and self._files.displaced():
                wake()

    async def _rows(self, batch: Batch) -> _TransactionRows:
        """Build the next transaction, moving head and rows on. If it fails, both are read again from the store.

        Runs in slices, which is safe: nothing else moves them.
        """
        sealer, head, live_rows = self._sealer, self._head, self._live_rows
        assert live_rows is not None  # _connect read them
        deleted: list[int] = []
        ended: list[Row] = []
        until = time.monotonic() + SLICE_S
        for commit in batch.ended:
            if time.monotonic() >= until:
                until = await _next_slice()
            if (row_id := live_rows.vacate(commit.record.call_id)) is not None:
                deleted.append(row_id)
            row, encoded = row_of(sealer, commit.record, None if ended else self._audit)
            head = next_link(sealer, head, encoded)
            ended.append((*row, *head))
        put: list[Row] = []
        for commit in batch.up:
            if time.monotonic() >= until:
                until = await _next_slice()
            row_id = live_rows.of(commit.record.call_id, deleted)
            put.append(live_row(sealer, row_id, commit.record, commit.dialogs or b""))
        live_rows.free(deleted)
        self._head = head
        new = head_row(sealer, RECORDS, head) if ended else None
        events = [event_row(sealer, event) for event in batch.events]
        callers = [caller_row(sealer, caller) for caller in batch.callers]
        return _TransactionRows(put, deleted, ended, new, events, callers)

    # -- the connection

    async def _reconnect(self) -> None:
        """Connect if there is no connection. Raises StoreError; Displaced while a file is not in place."""
        if self._files is not None and (displaced := self._files.displaced()):
            if displaced.is_log:
                await self._save(displaced)
            raise displaced
        if self._connection is None:
            await self._connect()

    async def _save(self, deleted: Displaced) -> None:
        """Move the content of a deleted write-ahead log into the store, and close it.

        Raises Displaced if a reader or a fault of the disk prevents that: what is not moved is in the open log alone.
        If another process has made a new log by then, that content is given up: mixed with the new it would harm more.
        """
        if deleted.file.exists():
            await self._disconnect()
            return
        blocked: object = None
        try:
            busy, *_ = await self._call(_checkpoint)
            if busy:
                blocked = "it is being read"
        except sqlite3.Error as error:
            blocked = error
        if blocked:
            why = f"is deleted, and its content cannot be moved into the store yet: {blocked}"
            raise Displaced(deleted.file, why, is_log=True)
        await self._disconnect()

    async def _connect(self) -> None:
        if holds_deleted_log(self._path):
            raise StoreError(f"the look-ups still have the deleted {self._path}-wal open")
        self._connection = await aiosqlite.Connection(self._opened, iter_chunk_size=64)
        await self._call(_prepare)
        # Read again after an error: a COMMIT that failed may still be on disk.
        self._head = await self._call(read_head, self._sealer, RECORDS)
        self._audit = await self._call(stored_head, AUDIT)
        self._live_rows = await self._call(LiveRows)
        if self._head.seq < self._written.seq or (self._head.seq == self._written.seq and self._head != self._written):
            raise StoreError(
                f"{self._path} holds less than was written to it, {self._head.seq} of {self._written.seq} call records:"
                " put the right one back, or restart the relay to go on with what is there"
            )
        self._files = StoreFiles(self._path)

    def _opened(self) -> sqlite3.Connection:
        self._work = sqlite3.connect(
            uri_of(self._path), uri=True, timeout=BUSY_S, isolation_level=None, factory=WorkConnection
        )
        return self._work

    async def _disconnect(self) -> None:
        connection, self._connection, self._files = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                await connection.close()

    async def _call(
        self, function: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function(connection, ...)` in aiosqlite's thread, with one switch to it.

        Its own methods switch for each statement, four times per transaction. One switch for all saves 50 to 80 us of
        CPU per transaction, and half its latency while the loop is busy (measured, aiosqlite 0.22).
        """
        assert self._connection is not None
        assert self._work is not None
        self._work.work = partial(function, self._work, *args, **kwargs)
        await self._connection.commit()
        result: T = self._work.result
        return result


async def _next_slice() -> float:
    """Yield to the event loop. Return the end of the next slice, in monotonic seconds."""
    since = time.monotonic()
    await asyncio.sleep(0)
    return slice_end(time.monotonic(), since)


def _prepare(connection: sqlite3.Connection) -> None:
    for pragma in WRITER_PRAGMAS:
        connection.execute(pragma)


def _checkpoint(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Return (1 if it was blocked, pages in the log, pages moved)."""
    found: tuple[int, int, int] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return found


def _transact(connection: sqlite3.Connection, rows: _TransactionRows) -> tuple[int, Head]:
    """Write the rows. Return the id of the key in use, and the head of the audit log."""
    with transaction(connection):
        if rows.deleted:
            delete_live(connection, rows.deleted)
        if rows.put:
            insert(connection, PUT, rows.put)
        if rows.head is not None:
            insert(connection, INSERT, rows.ended)
            write_head(connection, RECORDS, rows.head)
        if rows.events:
            insert(connection, INSERT_EVENTS, rows.events)
        if rows.callers:
            insert(connection, PUT_CALLERS, rows.callers)
        return key_in_use(connection), stored_head(connection, AUDIT)
