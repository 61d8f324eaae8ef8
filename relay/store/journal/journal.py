"""The journal of call records: group commit in order, with commit acknowledgements.

All that waits is written in one transaction; the next starts when that is on disk. Never drops a commit: while the
store fails it retries for ever, reports the outage once, and acknowledges only what the overflow log has made durable.
Fire-and-forget writes (events of calls under way, last callers) take their turn in the same queue, so that the events
of a call are never on disk later than its end.

Knows no SQL: a `BatchWriter` writes the transactions, that of `relay.store.sqlite.journal` or of
`relay.store.postgres.journal`. A lock file beside the store keeps a second process away.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeGuard

from relay.call.recovery import KeptAttempt
from relay.defence.limits import SharedLimits
from relay.errors import Report, StoreError
from relay.model.actions import CallEvent, Commit
from relay.policy.rules import LastCaller
from relay.store.connection import Place, PostgresServer, WriteOutage, local_path
from relay.store.files import open_lock, try_lock
from relay.store.journal.overflow import Overflow
from relay.store.journal.queue import MIN_GAP_S, Item, JournalQueue, Waiting
from relay.store.journal.rows import ClosedRecords, LiveCall, laid_over, not_ours, read_live
from relay.store.sealing.sealer import Sealer

FIRST_RETRY_S: Final = 0.05
LAST_RETRY_S: Final = 2.0
OVERFLOW_AFTER_S = 1.0  # longest time to write a batch to the store; after that the overflow log is used


class Batch(NamedTuple):
    """Commits, events and callers that one transaction writes."""

    up: list[Commit]  # the last state of each call that is up
    ended: list[Commit]  # in the order of the chain
    events: list[CallEvent]
    callers: list[LastCaller]  # one per binding, sorted: two nodes that lock the same rows cannot deadlock


class BatchWriter(Protocol):
    """A database as the journal writes to it."""

    effect: str  # of an outage, for the operator
    faults: tuple[type[Exception], ...]  # errors of `write` that may pass
    is_taken_over: bool  # another node has our calls: nothing is to be acknowledged any more

    @property
    def seq(self) -> int:
        """The last record in the chain, as far as this process knows."""

    async def open(self, wake: Callable[[], None]) -> None:
        """Connect, and check the head of the chain. Raises StoreError.

        From now on `wake` is called if what was written may be lost, so that the journal finds out by an empty batch.
        """

    async def write(self, batch: Batch) -> None:
        """Return when the batch is durable. After an error the same batch comes again, and is written once only."""

    async def failed(self, error: Exception) -> None:
        """Prepare for the next try after this error."""

    def watch(self, take: Callable[[list[LiveCall], list[KeptAttempt]], None], limits: SharedLimits) -> None:
        """Pass calls and attempts of failed nodes to `take` from now on, and exchange counts of `limits`.

        A store in a file has no other nodes.
        """

    async def close(self) -> None: ...


class Journal:
    """The journal of one serving process. `report(event, fields)` gets outages and recoveries."""

    def __init__(
        self,
        place: Place,
        sealer: Sealer,
        writer: BatchWriter,
        report: Report,
        overflow: Overflow,
    ) -> None:
        self.queue = JournalQueue(MIN_GAP_S)  # items to write; filled by the callers
        self.writer = writer
        self._place = place
        self._sealer = sealer
        self._report = report
        self._outage = WriteOutage(place, writer.effect, report)
        self._closed = ClosedRecords(report)
        self._lock: int | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._overflow = overflow
        self._only_ended = isinstance(place, PostgresServer)  # what the overflow log keeps
        self._overflow_fault: str | None = None  # the last one, as reported in this outage
        self._overflowing = asyncio.Lock()
        self._overflowed = 0  # number of items, at the front of the queue, that are in the overflow log
        self._taken = 0  # number of items that have ever left the queue
        self._begun_at: float | None = None  # start of the write under way

    async def open(self) -> None:
        """Raises StoreError if another process serves this store, or the head of the chain was altered."""
        self._lock = take_lock(local_path(self._place))
        try:
            await self.writer.open(self.queue.wake)
            await self._inherit()
        except StoreError:
            await self._release()
            raise
        for work, name in ((self._run(), "journal"), (self._overflow_when_stalled(), "journal's overflow")):
            self._tasks.append(asyncio.create_task(work, name=name))
            self._tasks[-1].add_done_callback(self._ended)
        if self._overflowed:  # so that the caller, who reads the store next, finds them there
            await self.queue.emptied(OVERFLOW_AFTER_S)

    def live(self) -> list[LiveCall]:
        """The calls that were up when the last process ended, with their dialogs. Altered ones are only reported."""
        return laid_over(read_live(self._place, self._sealer, self._report), self.queue.unwritten())

    async def close(self, patience_s: float = 10.0) -> None:
        """Write what is queued, then close. Raises StoreError if the store did not take it within `patience_s`."""
        await self.queue.emptied(patience_s)
        if self.queue.waiting:
            await self._overflow_waiting()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.queue.all_told()
        await self._release()
        if left := sum(
            isinstance(item, Commit) and (place >= self._overflowed or not self._is_kept(item))
            for place, (item, _) in enumerate(self.queue.waiting)
        ):
            raise StoreError(f"{left} call records could not be written to {self._place}")

    async def _release(self) -> None:
        await self.writer.close()
        self._overflow.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Exit at once if the task died of a bug. Nothing that waits was acknowledged: it is as after a kill."""
        if not task.cancelled() and (error := task.exception()) is not None:
            effect = "this relay ends: the next start takes up its calls"
            self._report("journal.stopped", {"store": str(self._place), "exc_info": error, "effect": effect})
            os._exit(1)

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
            self._overflowed -= min(self._overflowed, len(batch))
            self._taken += len(batch)
            self.queue.took(batch)
            async with self._overflowing:  # once no write to the overflow log is under way
                await self._clear_overflow()

    async def _write(self, items: list[Item]) -> None:
        """Return when the items are durable, however long that takes."""
        batch = self._batch(items)
        retry_s = FIRST_RETRY_S
        while True:
            try:
                await self.writer.write(batch)
            except self.writer.faults as error:
                if not self._outage.lasts:
                    self._overflow_fault = None
                self._outage.failed(error)
                await self.writer.failed(error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
            else:
                break
        self._outage.is_over(self.queue.backlog)

    def _batch(self, items: list[Item]) -> Batch:
        up: dict[str, Commit] = {}
        ended: list[Commit] = []
        for commit in self._closed.take([item for item in items if isinstance(item, Commit)]):
            if commit.record.ended_at is None:
                up[commit.record.call_id] = commit
            else:
                up.pop(commit.record.call_id, None)
                ended.append(commit)
        events = [item for item in items if isinstance(item, CallEvent)]
        callers = {item.binding_id: item for item in items if isinstance(item, LastCaller)}
        return Batch(list(up.values()), ended, events, [callers[binding] for binding in sorted(callers)])

    # -- the overflow log, while the store accepts no writes

    async def _inherit(self) -> None:
        """Queue the commits in the overflow log of an earlier process. They also stay there for now."""
        try:
            await asyncio.to_thread(self._overflow.open)
            overflowed = await asyncio.to_thread(self._overflow.read)
        except OSError as error:
            self._overflow.close()
            self._cannot_overflow(error)
            return
        if not overflowed.is_whole:
            self._report("journal.overflow_damaged", {"store": str(self._place), "readable": len(overflowed.commits)})
        if overflowed.commits:
            call_ids = [commit.record.call_id for commit in overflowed.commits]
            others = await asyncio.to_thread(not_ours, self._place, call_ids, overflowed.since_seq)
            for commit in overflowed.commits:
                if commit.record.call_id not in others:
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
                if self._overflow_fault is not None:
                    await asyncio.sleep(OVERFLOW_AFTER_S)  # the next try encodes all that waits again

    async def _overflow_waiting(self) -> None:
        """Write what is queued to the overflow log, in order, as far as there is room, and acknowledge it."""
        if self.writer.is_taken_over:
            return
        async with self._overflowing:
            try:
                if not self._overflow.is_open:
                    await asyncio.to_thread(self._overflow.reopen)
                first = self._taken + self._overflowed
                waiting = list(islice(self.queue.waiting, self._overflowed, None))
                commits = [item for item, _ in waiting if self._is_kept(item)]
                prepared = self._overflow.prepare(self.writer.seq, commits)
                await asyncio.to_thread(self._overflow.write, prepared)
            except OSError as error:
                self._cannot_overflow(error)
                return
            self._overflow_fault = None
            kept = self._up_to(waiting, prepared.commits)
            for place in range(max(first - self._taken, 0), first + kept - self._taken):  # those not in the store yet
                if self._is_kept(waiting[place + self._taken - first][0]):
                    self.queue.acknowledge_at(place)
            self._overflowed = max(first + kept - self._taken, self._overflowed)
            await self._clear_overflow()

    def _is_kept(self, item: Item) -> TypeGuard[Commit]:
        """Whether the overflow log keeps the item, and so makes it durable."""
        return isinstance(item, Commit) and (item.record.ended_at is not None or not self._only_ended)

    def _up_to(self, waiting: list[Waiting], commits: int) -> int:
        """The number of items up to and including that many commits that are kept, and those before the next one."""
        for index, (item, _) in enumerate(waiting):
            if self._is_kept(item):
                if not commits:
                    return index
                commits -= 1
        return len(waiting)

    async def _clear_overflow(self) -> None:
        """Clear the overflow log, if the store has all its entries."""
        if self._overflowed or self._overflow.is_empty:
            return
        try:
            await asyncio.to_thread(self._overflow.clear)
        except OSError as error:
            self._cannot_overflow(error)

    def _cannot_overflow(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self._overflow_fault:
            self._overflow_fault = reason
            effect = "while the store accepts no records, calls wait unanswered; it is tried again"
            self._report("journal.cannot_overflow", {"store": str(self._place), "reason": reason, "effect": effect})


def take_lock(path: Path) -> int:
    """Take the lock of the store. Raises StoreError if another process holds it."""
    lock = open_lock(path, ".lock")
    if not try_lock(lock):
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise StoreError(f"another relay700 serves {path} (process {holder}): stop it, or use another store")
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    return lock
