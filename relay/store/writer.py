"""The writers of the store beside the journal: units of work in transactions, with a gap between transactions.

`Writer`, for commands, runs one unit of work per transaction; `GroupWriter`, for the backend, runs all that wait in
one. SQLite has one writer at a time, and one that takes the lock again at once starves the others. So code that writes
in a loop must use these writers: their gap is longer than the pause of those that wait between two tries. Business
users, operators' keys and the relay itself have turns: one that asks for much keeps neither the follower nor the others
from the store. Writers know no tables.
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
from typing import Any, NamedTuple, Protocol, TypeVar

from relay.defence.limits import FairQueue, is_within_share
from relay.errors import Refused, StoreError
from relay.store.connection import BEGIN_BESIDE, Connection, Place, PostgresBusy, WritingConnection
from relay.store.database import connect, store_errors
from relay.store.files import Displaced, StoreFiles
from relay.store.ledger import ledger_transaction
from relay.store.sealing.keys import follow_key
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Actor, UnitOfWork

T = TypeVar("T")
ClockMs = Callable[[], int]

GAP_S = 0.003  # longest gap from the end of a transaction to the begin of the next; others try each millisecond
MOST_UNITS = 100  # units of work per transaction
LONGEST_S = 0.015  # of work per transaction; later units of work go into the next one
LONGEST_BESIDE_S = 0.050  # as LONGEST_S, on a server, where it keeps fewer from writing
WRITERS = 5  # threads of a node that write to a server: while one waits for it, another works,
WORTH_ANOTHER = 8  # if that many units of work wait: what a transaction costs by itself is that of some three
LONGEST_TRY_S = 5.0
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
        self._is_needed = isinstance(path, Path)  # a server's locks are fair
        self._began_s = self._until_s = 0.0

    def wait(self) -> None:
        """Wait for its end."""
        if (left_s := self._until_s - time.monotonic()) > 0:
            time.sleep(left_s)
        self.hold()

    def hold(self) -> None:
        """Note that the next transaction has the store: its wait for others does not count as its time."""
        self._began_s = time.monotonic()

    def begin(self) -> None:
        """The transaction has ended."""
        now_s = time.monotonic()
        took_s = now_s - self._began_s
        if self._is_needed:
            self._until_s = now_s + min(GAP_S, 2 * took_s)


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


class _QueuedUnit(NamedTuple):
    """A queued unit of work, and the future of its result."""

    actor: Actor
    do: Callable[[UnitOfWork], Any]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]
    until_s: float  # it is tried again while another node has its rows locked; monotonic


class _UnitResult(NamedTuple):
    """The outcome of a unit of work."""

    waiting: _QueuedUnit
    answer: Any
    error: Exception | None


class _Queue:
    """The waiting units of work: the event loop's thread queues them, the writers' threads take them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: FairQueue[_QueuedUnit] = FairQueue()
        self._running = 0  # groups
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, waiting: _QueuedUnit) -> None:
        with self._changed:
            self._waiting.put(_name_of(waiting.actor), waiting)
            self._changed.notify()

    def take(self) -> _QueuedUnit | None:
        """The next one; None if there is none."""
        with self._changed:
            return self._waiting.take()[1] if self._waiting else None

    def begin(self) -> bool:
        """Wait until a group is worth beginning. False: the queue is closed and empty."""
        with self._changed:
            self._changed.wait_for(self._is_worth)
            self._running += 1
            return bool(self._waiting)

    def end(self) -> None:
        """A group has ended."""
        with self._changed:
            self._running -= 1
            self._changed.notify()

    def _is_worth(self) -> bool:
        return self._closed or len(self._waiting) >= (WORTH_ANOTHER if self._running else 1)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class GroupWriter:
    """Runs units of work in threads, all that wait in one transaction; one thread for a file, which has one writer at a
    time. Start and close it in the same event loop.
    """

    def __init__(self, path: Place, sealer: Sealer, *, clock_ms: ClockMs = now_ms) -> None:
        self._path = path
        self._queue = _Queue()
        self._awaited: Counter[str] = Counter()  # awaited units of work by `_name_of` their actor
        self._closed = False
        self._ended: Future[None] = Future()
        self._ended.set_running_or_notify_cancel()  # so that cancelling an await does not cancel it
        count = 1 if isinstance(path, Path) else WRITERS
        self._threads = [_Thread(path, sealer, clock_ms, self._queue, self._ended) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    async def run(self, actor: Actor, do: Callable[[UnitOfWork], T]) -> T:
        """Run `do` in a writer's thread, and return its result once it is durable.

        An exception of `do` rolls back this unit of work alone and propagates. A cancelled await does not stop `do`.
        """
        if self._closed:
            raise StoreError(f"the store {self._path} is being closed")
        name = _name_of(actor)
        if not is_within_share(self._awaited[name] + 1, self.backlog + 1, MOST_WAITING):
            raise Refused("store_busy", "", "the write queue of the store is full: try again in a second")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._queue.put(_QueuedUnit(actor, do, loop, done, time.monotonic() + LONGEST_TRY_S))
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
        return len(self._queue)

    async def ended(self) -> None:
        """Wait for the end of the threads. Raises the error that killed one: units of work could wait for ever."""
        await asyncio.wrap_future(self._ended)

    async def close(self) -> None:
        """Run what is queued, and end the threads."""
        self._closed = True
        self._queue.close()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        if not self._ended.done():
            self._ended.set_result(None)


class _Thread(threading.Thread):
    """A thread that writes, with its connection."""

    def __init__(self, path: Place, sealer: Sealer, clock_ms: ClockMs, queue: _Queue, ended: Future[None]) -> None:
        super().__init__(name="writer", daemon=True)
        self._path = path
        self._sealer = sealer
        self._clock_ms = clock_ms
        self._queue = queue
        self._failed = ended
        self._gap = _Gap(path)
        self._connection: WritingConnection | None = None
        self._files: StoreFiles | None = None  # of the connection

    def run(self) -> None:
        """Run groups until the queue is closed and empty."""
        try:
            while self._queue.begin():
                self._gap.wait()
                if made := self._group():
                    made[0].waiting.loop.call_soon_threadsafe(_wake, made)
                self._queue.end()
                self._gap.begin()
            self._disconnect()
        except BaseException as error:  # a bug: errors of units of work and of the store go to their callers
            if not self._failed.done():
                self._failed.set_exception(error)

    def _group(self) -> list[_UnitResult]:
        """Run units of work until none waits or a limit is reached. If the transaction fails, all of them fail."""
        made: list[_UnitResult] = []
        try:
            with store_errors(self._path):
                if self._connection is None:
                    self._connection = connect(self._path)
                if self._files is not None and (displaced := self._files.displaced()):
                    raise displaced  # a write to this file would be lost
                with ledger_transaction(self._connection, self._sealer, self._clock_ms(), BEGIN_BESIDE):
                    self._gap.hold()
                    follow_key(self._connection, self._sealer)
                    self._run_waiting(self._connection, made)
                if self._files is None:
                    self._files = StoreFiles(self._path)
        except StoreError as error:
            if not isinstance(error, Displaced):
                self._disconnect()
            return [
                _UnitResult(waiting, None, error) for waiting in [one.waiting for one in made] or self._all_waiting()
            ]
        return made

    def _all_waiting(self) -> list[_QueuedUnit]:
        return [waiting for _ in range(len(self._queue)) if (waiting := self._queue.take()) is not None]

    def _run_waiting(self, connection: Connection, made: list[_UnitResult]) -> None:
        """Run at least one: on a busy machine the time may be over before the first begins."""
        until_s = time.monotonic() + (LONGEST_S if isinstance(self._path, Path) else LONGEST_BESIDE_S)
        for _ in range(min(len(self._queue), MOST_UNITS)):
            if (made and time.monotonic() >= until_s) or (waiting := self._queue.take()) is None:
                return
            # If the transaction fails now, this caller gets the error too.
            made.append(_UnitResult(waiting, None, None))
            made[-1] = self._run_one(connection, waiting)
            if not connection.in_transaction:  # SQLite has rolled back all of it, as on a full disk
                raise StoreError(f"the store {self._path} failed: {made[-1].error}")
            if _is_held_up(made[-1]) and time.monotonic() < waiting.until_s:
                self._queue.put(made.pop().waiting)
                return  # what others wait for is released

    def _run_one(self, connection: Connection, waiting: _QueuedUnit) -> _UnitResult:
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
            return _UnitResult(waiting, None, error)
        connection.execute("RELEASE unit")
        return _UnitResult(waiting, answer, None)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._files = None


def _is_held_up(made: _UnitResult) -> bool:
    """Whether another unit of work had its rows locked."""
    return isinstance(made.error, StoreError) and isinstance(made.error.__cause__, PostgresBusy)


def _name_of(actor: Actor) -> str:
    """The name that takes turns: a business user with all its keys, an operator's key, a local user, the relay."""
    return actor.name if actor.business is None else f"business:{actor.business}"


def _wake(made: list[_UnitResult]) -> None:
    for waiting, answer, error in made:
        if waiting.done.done():  # cancelled
            continue
        if error is None:
            waiting.done.set_result(answer)
        else:
            waiting.done.set_exception(error)
