"""The queue of writes, in order: commits, and writes without acknowledgement. It knows no store and no table."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from relay.model.actions import CallEvent, Commit
from relay.policy.rules import LastCaller

MAX_BATCH: Final = 400  # items per transaction
# Least time between the starts of two transactions. Each costs about 200 us of CPU for its thread switch and sync,
# whatever it writes. At 300 calls/s a gap of 10 ms costs 115 us per call and one of 20 ms 90 us; at 1,000 calls/s 50
# and 38 us; the median wait goes from 6 to 12 ms. A commit that finds the journal idle never waits.
MIN_GAP_S: Final = 0.020
# Longest time to prepare a batch, or to answer its calls, before the sockets are read again: at 1,650 calls/s each of
# the two takes 1 ms or more, and an INVITE that arrives meanwhile would wait for all of it.
SLICE_S: Final = 0.0003
LONG_TURN_S: Final = 0.002  # of the event loop; a turn in which the driver works on its backlog takes 3 ms and more
# The same where turns are long: as long as the driver's own. Shorter, and answers fall behind the calls that are
# served; without an end, the 400 records of a batch keep the loop for 15 ms.
BEHIND_SLICE_S: Final = 0.003


def slice_end(now: float, since: float) -> float:
    """The end of a slice that starts now, in monotonic seconds; other callbacks have had the loop since `since`.

    It is longer if they had it for long: the process is behind, and answers should wait for few such turns.
    """
    return now + (SLICE_S if now - since < LONG_TURN_S else BEHIND_SLICE_S)


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

    def took(self, batch: list[Waiting]) -> None:
        """Remove a durable batch from the queue."""
        waiting = self.waiting
        for _ in batch:
            item, done = waiting.popleft()
            self.acknowledge(item, done)
        if not self.waiting:
            self._wake.clear()
            self._idle.set()

    def acknowledge(self, item: Item, done: Callable[[int], None] | None) -> None:
        """Acknowledge a durable item."""
        if done is not None and isinstance(item, Commit) and item.token:
            self._acknowledgements.put(done, item.token)

    def acknowledge_at(self, place: int) -> None:
        """Acknowledge the item at that place of the queue, which is durable, but not in the store yet."""
        item, done = self.waiting[place]
        self.acknowledge(item, done)
        self.waiting[place] = (item, None)

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
