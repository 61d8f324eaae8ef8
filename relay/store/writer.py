"""The writers of the store beside the journal: units of work in transactions, with a gap between transactions.

`Writer`, for commands, runs one unit of work per transaction; `GroupWriter`, for the backend, runs all that wait in
one. SQLite has one writer at a time, and one that takes the lock again at once starves the others: beside 600 bindings
a second, the p90 of the journal's transactions was 79 ms without a gap; with it the p99 was 3.3 ms. So code that writes
in a loop must use these writers. The gap is twice what the transaction took: the store is free for two thirds of the
time, and a client that sends one request after the other waits no longer than that. After a slow transaction the gap
exceeds SQLite's longest retry sleep, so that a waiting journal gets its turn: without that, beside transactions of
150 ms, a fifth of the journal's found the store locked for two seconds. Business users, operators' keys and the relay
itself have turns: one that asks for much keeps neither the follower nor the others from the store. Writers know no
tables.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol, TypeVar

from relay.defence.limits import FairQueue, is_within_share
from relay.errors import Refused, StoreError
from relay.store.connection import Connection, Place, WritingConnection
from relay.store.database import connect, store_errors
from relay.store.files import Displaced, StoreFiles
from relay.store.ledger import ledger_transaction
from relay.store.sealing.keys import follow_key
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Actor, UnitOfWork

T = TypeVar("T")
ClockMs = Callable[[], int]

GAP_S = 0.010  # longest gap from the end of a transaction to the begin of the next
SLOW_S = 0.050  # after a transaction that took longer, the gap is
SLOW_GAP_S = 0.110  # longer than SQLite's longest pause between two tries of a waiting writer, 100 ms
MOST_UNITS = 100  # units of work per transaction
LONGEST_S = 0.015  # of work per transaction; later units of work go into the next one
MOST_WAITING = 2_000  # queued units of work, shared fairly; more are refused at once


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Run(Protocol):
    """Run a unit of work and return its result once it is durable."""

    def __call__(self, do: Callable[[UnitOfWork], T]) -> T: ...


class _Gap:
    """The pause between two transactions of one writer."""

    def __init__(self, path: Place) -> None:
        self._after_slow_s = SLOW_GAP_S if isinstance(path, Path) else GAP_S  # a server's locks are fair
        self._began_s = self._until_s = 0.0

    def wait(self) -> None:
        """Wait for its end."""
        if (left_s := self._until_s - time.monotonic()) > 0:
            time.sleep(left_s)
        self.hold()

    def hold(self) -> None:
        """The next transaction has the store: the wait for others was not its time."""
        self._began_s = time.monotonic()

    def begin(self) -> None:
        """The transaction has ended."""
        now_s = time.monotonic()
        took_s = now_s - self._began_s
        self._until_s = now_s + (self._after_slow_s if took_s > SLOW_S else min(GAP_S, 2 * took_s))


class Writer:
    """Runs each unit of work in one transaction, in the caller's thread. Errors of the store are StoreErrors."""

    def __init__(self, path: Place, sealer: Sealer, *, clock_ms: ClockMs = now_ms) -> None:
        self._path = path
        self._sealer = sealer
        self._clock_ms = clock_ms
        self._gap = _Gap(path)
        self.has_written = False
        with store_errors(path):
            self._connection = connect(path)

    def run(self, actor: Actor, do: Callable[[UnitOfWork], T]) -> T:
        """Run `do` and return its result once it is durable. An exception of `do` rolls back and propagates.

        If it is a Refused with an attempt, the attempt is in the audit log first.
        """
        try:
            return self._run(actor, do)
        except Refused as refused:
            if refused.attempt is not None:
                self._run(actor, partial(UnitOfWork.audit_refusals, refusals=[refused]))
            raise

    def _run(self, actor: Actor, do: Callable[[UnitOfWork], T]) -> T:
        self._gap.wait()
        try:
            now_ms = self._clock_ms()
            with store_errors(self._path), ledger_transaction(self._connection, self._sealer, now_ms):
                self._gap.hold()
                follow_key(self._connection, self._sealer)
                self.has_written = True
                return do(UnitOfWork(self._connection, self._sealer, actor, now_ms))
        finally:
            self._gap.begin()

    def close(self) -> None:
        self._connection.close()


class _Waiting(NamedTuple):
    """A queued unit of work, and the future of its result."""

    actor: Actor
    do: Callable[[UnitOfWork], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]


class _Made(NamedTuple):
    """The outcome of a unit of work."""

    waiting: _Waiting
    answer: Any
    error: Exception | None


class GroupWriter:
    """Runs units of work in a thread, all that wait in one transaction. Start and close it in the same event loop."""

    def __init__(self, path: Place, sealer: Sealer, *, clock_ms: ClockMs = now_ms) -> None:
        self._path = path
        self._sealer = sealer
        self._clock_ms = clock_ms
        self._gap = _Gap(path)
        self._arriving: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._awaited: Counter[str] = Counter()  # awaited units of work by `_name_of` their actor
        self._connection: WritingConnection | None = None
        self._files: StoreFiles | None = None  # of the connection
        self._closed = False
        self._ended: Future[None] = Future()
        self._ended.set_running_or_notify_cancel()  # so that cancelling an await does not cancel it
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    async def run(self, actor: Actor, do: Callable[[UnitOfWork], T]) -> T:
        """Run `do` in the writer's thread, and return its result once it is durable.

        An exception of `do` rolls back this unit of work alone and propagates. A cancelled await does not stop `do`.
        """
        if self._closed:
            raise StoreError(f"the store {self._path} is being closed")
        name = _name_of(actor)
        if not is_within_share(self._awaited[name] + 1, self.backlog + 1, MOST_WAITING):
            raise Refused("store_busy", "", "the write queue of the store is full: try again in a second")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._arriving.put(_Waiting(actor, do, loop, done))
        self._awaited[name] += 1
        try:
            return await done
        finally:
            self._awaited[name] -= 1
            if not self._awaited[name]:
                del self._awaited[name]

    @property
    def backlog(self) -> int:
        """The number of queued units of work."""
        return self._arriving.qsize() + len(self._waiting)

    async def ended(self) -> None:
        """Wait for the end of the thread. Raises the error that killed it: units of work would then wait for ever."""
        await asyncio.wrap_future(self._ended)

    async def close(self) -> None:
        """Run what is queued, and end the thread."""
        self._closed = True
        self._arriving.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- the thread

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # a bug: errors of units of work and of the store go to their callers
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    def _work(self) -> None:
        going_on = True
        while going_on or self._waiting:
            if going_on and not self._waiting:
                going_on = self._take(self._arriving.get())
            self._gap.wait()
            going_on = self._take_all() and going_on
            if self._waiting:
                self._settle(self._group())
                self._gap.begin()
        self._disconnect()

    def _take(self, arrived: _Waiting | None) -> bool:
        if arrived is not None:
            self._waiting.put(_name_of(arrived.actor), arrived)
        return arrived is not None

    def _take_all(self) -> bool:
        while True:
            try:
                if not self._take(self._arriving.get_nowait()):
                    return False
            except Empty:
                return True

    def _group(self) -> list[_Made]:
        """Run units of work until none waits or a limit is reached. If the transaction fails, all of them fail."""
        made: list[_Made] = []
        try:
            with store_errors(self._path):
                if self._connection is None:
                    self._connection = connect(self._path)
                if self._files is not None and (displaced := self._files.displaced()):
                    raise displaced  # a write to this file would be lost
                with ledger_transaction(self._connection, self._sealer, self._clock_ms()):
                    self._gap.hold()
                    follow_key(self._connection, self._sealer)
                    self._run_waiting(self._connection, made)
                if self._files is None:
                    self._files = StoreFiles(self._path)
        except StoreError as error:
            if not isinstance(error, Displaced):
                self._disconnect()
            failed = [one.waiting for one in made] or [self._waiting.take()[1] for _ in range(len(self._waiting))]
            return [_Made(waiting, None, error) for waiting in failed]
        return made

    def _run_waiting(self, connection: Connection, made: list[_Made]) -> None:
        """Run at least one: on a busy machine the time may be over before the first begins."""
        until_s = time.monotonic() + LONGEST_S
        while self._waiting and len(made) < MOST_UNITS and (not made or time.monotonic() < until_s):
            _, waiting = self._waiting.take()
            made.append(_Made(waiting, None, None))  # if the transaction fails now, this caller gets the error too
            made[-1] = self._run_one(connection, waiting)
            if not connection.in_transaction:  # SQLite has rolled back all of it, as on a full disk
                raise StoreError(f"the store {self._path} failed: {made[-1].error}")

    def _run_one(self, connection: Connection, waiting: _Waiting) -> _Made:
        connection.execute("SAVEPOINT unit")
        unit = UnitOfWork(connection, self._sealer, waiting.actor, self._clock_ms())
        try:
            with store_errors(self._path):
                answer = waiting.do(unit)
        except Exception as error:  # goes to its caller only; the other units of work go on
            if connection.in_transaction:
                connection.execute("ROLLBACK TO unit")
                if isinstance(error, Refused):
                    unit.audit_refusals([error])
                connection.execute("RELEASE unit")
            return _Made(waiting, None, error)
        connection.execute("RELEASE unit")
        return _Made(waiting, answer, None)

    def _settle(self, made: list[_Made]) -> None:
        made[0].waiting.loop.call_soon_threadsafe(_wake, made)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._files = None


def _name_of(actor: Actor) -> str:
    """Who has a turn: a business user with all its keys, an operator's key, a user of the machine, the relay."""
    return actor.name if actor.business is None else f"business:{actor.business}"


def _wake(made: list[_Made]) -> None:
    for waiting, answer, error in made:
        if waiting.done.done():  # cancelled
            continue
        if error is None:
            waiting.done.set_result(answer)
        else:
            waiting.done.set_exception(error)
