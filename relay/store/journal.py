"""The journal of call records: makes commits durable in groups, in their order, and says when (DESIGN 4.1).

All that waits goes in one transaction, and the next starts when that is on disk. It owns the chain's end: one process
writes it, guarded by a lock file beside the store. It never drops a commit: while the store fails it acknowledges
nothing, tries again for ever, and reports the outage once.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections import deque
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import aiosqlite

from relay.call.actions import Commit
from relay.call.record import CallRecord
from relay.errors import StoreError
from relay.store.chain import UPDATE_HEAD, Head, head_row, next_link, read_head
from relay.store.database import BUSY_TIMEOUT_S, WRITER_PRAGMAS, connect_reader, store_errors, transaction
from relay.store.record_rows import SELECT, open_row, row_of, upsert
from relay.store.sealing import Sealer

Report = Callable[[str, dict[str, object]], None]
_Waiting = tuple[Commit, Callable[[int], None]]
_Row = tuple[Any, ...]
P = ParamSpec("P")
T = TypeVar("T")

MAX_BATCH = 200  # commits a transaction: a bound on how long preparing one holds the loop, some 2 ms
# Between the starts of two transactions. Each costs some 200 us of CPU with its hop and its sync, whatever is in it: at
# 1,000 calls a second a gap of 0 costs 220 us a call, 4 ms 95, 10 ms 80. A commit that finds it idle never waits.
MIN_GAP_S = 0.010
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0

_ENDED = "SELECT call_id FROM call_record WHERE ended_at IS NOT NULL AND call_id IN ({})"


class Journal:
    """Open it once per serving process. `report(event, fields)` is told of outages and their end."""

    def __init__(self, path: Path, sealer: Sealer, report: Report, *, min_gap_s: float = MIN_GAP_S) -> None:
        self._path = path
        self._sealer = sealer
        self._report = report
        self._min_gap_s = min_gap_s
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._lock: int | None = None
        self._connection: aiosqlite.Connection | None = None
        self._head = Head(0, b"")
        self._failing = False
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises StoreError where another process serves this store, or the chain's end was tampered with."""
        self._lock = _take_lock(self._path)
        try:
            with store_errors(self._path):
                await self._connect()
        except StoreError:
            await self._disconnect()
            self._release_lock()
            raise
        self._writer = asyncio.create_task(self._run(), name="journal")
        self._writer.add_done_callback(self._writer_ended)

    def append(self, commit: Commit, done: Callable[[int], None]) -> None:
        """Queues a commit and returns at once. `done(token)` is called from the loop when it is durable."""
        self._waiting.append((commit, done))
        if len(self._waiting) == 1:
            self._idle.clear()
            self._wake.set()

    @property
    def backlog(self) -> int:
        """Commits that are not durable yet."""
        return len(self._waiting)

    def live(self) -> list[tuple[CallRecord, bytes]]:
        """The calls that were up when the last process ended, with their dialogs. Altered ones are reported instead."""
        calls: list[tuple[CallRecord, bytes]] = []
        with store_errors(self._path), contextlib.closing(connect_reader(self._path)) as connection:
            for row in connection.execute(f"{SELECT} WHERE ended_at IS NULL ORDER BY id"):
                try:
                    stored = open_row(self._sealer, row)
                except StoreError as error:
                    self._report("journal.record_altered", {"call_id": row[0], "reason": str(error)})
                    continue
                calls.append((stored.record, stored.dialogs or b""))
        return calls

    async def close(self, patience_s: float = 10.0) -> None:
        """Writes all that waits and closes. Raises StoreError for what the store did not take within `patience_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), patience_s)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        await asyncio.sleep(0)  # the last acknowledgements are on their way
        await self._disconnect()
        self._release_lock()
        if self._waiting:
            raise StoreError(f"{len(self._waiting)} call records could not be written to {self._path}")

    # -- the writer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            started = loop.time()
            batch = list(islice(self._waiting, MAX_BATCH))
            await self._write([commit for commit, _ in batch])
            self._acknowledge(batch, loop)
            if (gap_s := started + self._min_gap_s - loop.time()) > 0:
                await asyncio.sleep(gap_s)

    def _acknowledge(self, batch: list[_Waiting], loop: asyncio.AbstractEventLoop) -> None:
        for commit, done in batch:
            self._waiting.popleft()
            if commit.token:
                loop.call_soon(done, commit.token)  # not called from here: a fault in it must not stop the writer
        if not self._waiting:
            self._wake.clear()
            self._idle.set()

    async def _write(self, commits: list[Commit]) -> None:
        """Returns when the commits are durable, however long that takes."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                if self._connection is None:
                    await self._connect()
                await self._commit(commits)
            except (sqlite3.Error, StoreError) as error:
                self._failed(error)
                await self._disconnect()
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
            else:
                self._recovered()
                return

    async def _commit(self, commits: list[Commit]) -> None:
        if await self._transact(commits):
            return
        # Some record is closed already, for ever: written by a transaction that seemed to fail, or ended twice.
        still_open = await self._still_open(commits)
        if still_open and not await self._transact(still_open):
            raise StoreError("call records were closed by another process")

    async def _transact(self, commits: list[Commit]) -> bool:
        """One transaction. False, and nothing is written, where a row of an ended call would have to change."""
        assert self._connection is not None  # _write opened it
        rows, head = self._rows(commits)
        moved = head_row(self._sealer, head) if head != self._head else None
        written = await _call(self._connection, _transact, rows, moved)
        if written:
            self._head = head
        return written

    def _rows(self, commits: list[Commit]) -> tuple[list[_Row], Head]:
        head = self._head
        rows: list[_Row] = []
        for _, record, dialogs in commits:
            link: tuple[int | None, bytes | None] = (None, None)
            if record.ended_at is not None:
                link = head = next_link(self._sealer, head, record)
            rows.append((*row_of(self._sealer, record, dialogs), *link))
        return rows, head

    async def _still_open(self, commits: list[Commit]) -> list[Commit]:
        assert self._connection is not None
        ids = [commit.record.call_id for commit in commits]
        found = await self._connection.execute_fetchall(_ENDED.format(", ".join("?" * len(ids))), ids)
        ended = {call_id for (call_id,) in found}
        still_open = []
        for commit in commits:
            if commit.record.call_id in ended:
                self._report("journal.record_closed_before", {"call_id": commit.record.call_id})
                continue
            still_open.append(commit)
            if commit.record.ended_at is not None:
                ended.add(commit.record.call_id)
        return still_open

    # -- the connection and its troubles

    async def _connect(self) -> None:
        self._connection = await aiosqlite.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        for pragma in WRITER_PRAGMAS:
            await self._connection.execute(pragma)
        # Read anew after an error: a COMMIT that failed may have been on disk all the same.
        self._head = await _call(self._connection, read_head, self._sealer)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                await connection.close()

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            self._report(
                "journal.write_failed",
                {"store": str(self._path), "reason": str(error), "effect": "calls wait unanswered; writing is retried"},
            )

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            self._report("journal.recovered", {"store": str(self._path), "backlog": self.backlog})

    def _writer_ended(self, writer: asyncio.Task[None]) -> None:
        if not writer.cancelled() and (error := writer.exception()) is not None:
            self._report("journal.stopped", {"store": str(self._path), "reason": repr(error)})

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


async def _call(
    connection: aiosqlite.Connection,
    function: Callable[Concatenate[sqlite3.Connection, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Runs `function(connection, ...)` in aiosqlite's thread.

    Its public methods take a hop into the thread for each statement, four for a transaction. One hop for all saves 50
    to 80 us of CPU a transaction, and half its latency while the loop is busy (measured, aiosqlite 0.22).
    """
    result: T = await connection._execute(function, connection._conn, *args, **kwargs)  # type: ignore[no-untyped-call]
    return result


def _transact(connection: sqlite3.Connection, rows: list[_Row], head: tuple[int, bytes, bytes] | None) -> bool:
    try:
        with transaction(connection):
            if upsert(connection, rows) != len(rows):
                raise _ClosedBeforeError
            if head is not None:
                connection.execute(UPDATE_HEAD, head)
    except _ClosedBeforeError:
        return False
    return True


class _ClosedBeforeError(Exception):
    """Rolls a transaction back."""


def _take_lock(path: Path) -> int:
    """Held until it is closed or the process ends, however that happens."""
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the lock file of {path} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise StoreError(f"another relay700 serves {path} (process {holder}): stop it, or use another store") from None
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
