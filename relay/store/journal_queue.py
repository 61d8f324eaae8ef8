"""What waits for a journal to make it durable, in its order: commits, and what nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from relay.call.actions import Commit
from relay.call.record import CallRecord
from relay.policy.last_caller import LastCaller
from relay.store.journal_rows import Told

MAX_BATCH: Final = 400  # items a transaction
# Between the starts of two transactions. Each costs some 200 us of CPU with its hop and its sync, whatever is in it: at
# 300 calls a second 10 ms cost 115 us a call and 20 ms 90, at 1,000 it is 50 and 38; the median wait goes from 6 to 12
# ms. A commit that finds it idle never waits.
MIN_GAP_S: Final = 0.020
# For so long a batch is prepared, or its calls are answered, before the sockets are read again: at 1,650 calls
# a second each of the two takes a ms or more, and an INVITE that came meanwhile would wait for all of it.
SLICE_S: Final = 0.0003
LONG_TURN_S: Final = 0.002  # of the loop; one in which the driver works on its backlog takes 10 ms


def slice_end(now: float, since: float) -> float:
    """The end of a slice that starts now, in monotonic seconds; others have had the loop since `since`.

    Infinity where they had it for long: the process is behind, and no answer should wait for more such turns.
    """
    return now + SLICE_S if now - since < LONG_TURN_S else math.inf


Item = Commit | Told | LastCaller
Waiting = tuple[Item, Callable[[int], None] | None]


class Acknowledgements:
    """Tells those who wait that what they gave is durable: each by `done(token)`, in order, in slices."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock  # monotonic seconds
        self._due: deque[tuple[Callable[[int], None], int]] = deque()
        self._goes_on = False
        self._others_since = 0.0

    def put(self, done: Callable[[int], None], token: int) -> None:
        """To be called from the loop, and not from here: a fault in `done` must not stop who has made it durable."""
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
        """Returns when all of so far are told."""
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.put(told.set_result, 0)
        await told


class JournalQueue:
    """Of one writer, which takes a batch, writes it, and says so, for ever."""

    def __init__(self, min_gap_s: float) -> None:
        self.waiting: deque[Waiting] = deque()  # what is not durable yet
        self._min_gap_s = min_gap_s
        self._taken_at = float("-inf")
        self._acknowledgements = Acknowledgements()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def append(self, commit: Commit, done: Callable[[int], None]) -> None:
        """Queues a commit and returns at once. `done(token)` is called from the loop when it is durable."""
        self.put(commit, done)

    def tell(self, kind: str, record: CallRecord) -> None:
        """Queues an event of a call under way (received, ringing, answered) for its business."""
        self.put(Told(kind, record), None)

    def remember(self, last: LastCaller) -> None:
        """Queues who called a binding last."""
        self.put(last, None)

    def put(self, item: Item, done: Callable[[int], None] | None) -> None:
        """`done(token)` is called from the loop when it is durable."""
        self.waiting.append((item, done))
        if len(self.waiting) == 1:
            self._idle.clear()
            self._wake.set()

    def wake(self) -> None:
        """Gives the writer a batch at once, be it an empty one."""
        self._wake.set()

    @property
    def rest_s(self) -> float:
        """For how long the writer gets no batch, whatever comes; 0 or less: as soon as something waits.

        Where a whole batch waits there is no gap: else no more than 20,000 items a second would be written.
        """
        if len(self.waiting) >= MAX_BATCH:
            return 0.0
        return self._taken_at + self._min_gap_s - asyncio.get_running_loop().time()

    async def batch(self) -> list[Waiting]:
        """The first of what waits, as soon as there is any and the gap since the last batch is over."""
        if (rest_s := self.rest_s) > 0:
            await asyncio.sleep(rest_s)
        await self._wake.wait()
        self._taken_at = asyncio.get_running_loop().time()
        return list(islice(self.waiting, MAX_BATCH))

    def took(self, batch: list[Waiting], told: int = 0) -> None:
        """The batch is durable, and leaves the queue. The first `told` of it were acknowledged before."""
        for place, (item, done) in enumerate(batch):
            self.waiting.popleft()
            if place >= told:
                self.acknowledge(item, done)
        if not self.waiting:
            self._wake.clear()
            self._idle.set()

    def acknowledge(self, item: Item, done: Callable[[int], None] | None) -> None:
        """It is durable."""
        if done is not None and isinstance(item, Commit) and item.token:
            self._acknowledgements.put(done, item.token)

    async def all_told(self) -> None:
        """Returns when all that was acknowledged is known to those who wait for it."""
        await self._acknowledgements.all_told()

    @property
    def backlog(self) -> int:
        """What is not in the store yet: commits, and what is written beside them."""
        return len(self.waiting)

    def unwritten(self) -> list[Commit]:
        """The commits that are not in the store yet, in their order. Those in the spill are durable all the same."""
        return [item for item, _ in self.waiting if isinstance(item, Commit)]

    async def emptied(self, patience_s: float) -> None:
        """Returns when nothing waits, at the latest after `patience_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), patience_s)
