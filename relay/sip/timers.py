"""RFC 3261 timer values, and where all timers stand. It never reads a clock: `now` is an argument.

`now` and `when` are monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Final

SPANS_PER_S: Final = 16  # a power of two: when a span begins is exact
FAR_S: Final = 64.0  # ahead: beyond it is hardly a timer that comes to its end, as ring and maximum duration of calls
_NEVER: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds, RFC 3261 table 4. Only T1, T2 and T4 are chosen; the rest follows from them."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0

    @property
    def transaction_s(self) -> float:
        """64*T1: timers B, F, H, J, L, M, and how long a 2xx is sent again for."""
        return 64 * self.t1

    @property
    def timer_d(self) -> float:
        """At least 32 s, whatever our T1: it covers the far end's timer H (RFC 3261 17.1.1.2)."""
        return max(32.0, 64 * self.t1)


class Timer:
    """What the heap fires, at most once each time it is armed. Derive from it where one object needs no other callback
    than its own `fire`: that saves two allocations a timer."""

    __slots__ = ("among", "armed", "when")

    def __init__(self) -> None:
        self.armed = 0  # serial of the time it was armed, 0 while it is not
        self.when = 0.0
        self.among: set[Timer] | None = None  # the others that it waits with, until its time is near

    def fire(self, now: float) -> None:
        """Called at or after the time that the timer was armed for."""
        raise NotImplementedError

    def disarm(self) -> None:
        """Called by the heap when the timer is cancelled; its entry may stay there for a moment."""
        self.armed = 0


class Callback(Timer):
    """A timer that calls a function, for one use. Cancelled, it lets go of the function and all that hangs on it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[float], None]) -> None:
        super().__init__()
        self._function = function

    def fire(self, now: float) -> None:
        self._function(now)

    def disarm(self) -> None:
        self.armed = 0
        self._function = _nothing


def _nothing(_: float) -> None:
    """What a cancelled timer would call."""


_Timers = set[Timer]  # in the class below `set` is another thing


class TimerHeap:
    """Timers by time. Only those that are due in the span under way, a 16th of a second, stand in order, in a heap.

    Nearly all that are set are cancelled, or let go of what has long been over: those that are due later wait by span,
    in no order, and those that are far ahead all together. A heap of all had each call pay for its depth, of tens of
    thousands, at each end of a timer; and to rebuild it without the cancelled ones took a tenth of a second.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []  # due in spans up to `_near`; cancelled ones stay till then
        self._spans: dict[int, _Timers] = {}
        self._far: _Timers = set()
        self._near = -1
        self._first = _NEVER  # of the spans
        self._far_from = _NEVER  # the span that the far ones begin with
        self._look_at = -math.inf  # when some of the far ones may have come near
        self._serial = 0
        self._armed = 0

    def __len__(self) -> int:
        """How many timers will still fire."""
        return self._armed

    def set(self, when: float, fire: Callable[[float], None]) -> Timer:
        """Calls `fire` once, at or after `when`, unless the timer is cancelled first."""
        timer = Callback(fire)
        self.arm(timer, when)
        return timer

    def arm(self, timer: Timer, when: float) -> None:
        """Fires `timer` at or after `when`, and no longer at the time it was armed for before."""
        if timer.armed:
            self.cancel(timer)
        self._serial += 1
        timer.armed = self._serial
        timer.when = when
        self._armed += 1
        self._place(timer)

    def _place(self, timer: Timer) -> None:
        span = int(timer.when * SPANS_PER_S)
        if span <= self._near:
            timer.among = None
            heappush(self._heap, (timer.when, timer.armed, timer))
            return
        among = self._spans.get(span) if span < self._far_from else self._far
        if among is None:
            among = self._spans[span] = set()
            self._first = min(self._first, span)
        among.add(timer)
        timer.among = among

    def cancel(self, timer: Timer | None) -> None:
        """Idempotent; None and timers that have fired are passed over."""
        if timer is not None and timer.armed:
            if timer.among is not None:
                timer.among.discard(timer)
                timer.among = None
            self._armed -= 1
            timer.disarm()

    def next(self) -> float | None:
        """When the earliest timer is due; where that is later than the span under way, when it is time to look."""
        heap = self._heap
        while heap:
            when, serial, timer = heap[0]
            if timer.armed == serial:
                return when
            heappop(heap)
        if not self._armed:
            self._spans.clear()
            self._first = _NEVER
        first = self._first / SPANS_PER_S if self._spans else None
        if self._far:
            return self._look_at if first is None else min(first, self._look_at)
        return first

    def run(self, now: float) -> None:
        """Fires all that is due, earliest first; what they set that is due at once fires too."""
        if now >= self._look_at:
            self._draw_near(now)
        self._begin(int(now * SPANS_PER_S))
        while (when := self.next()) is not None and when <= now:
            timer = heappop(self._heap)[2]
            timer.armed = 0
            self._armed -= 1
            timer.fire(now)

    def _draw_near(self, now: float) -> None:
        self._far_from, self._look_at = int((now + FAR_S) * SPANS_PER_S), now + FAR_S / 2
        waiting = list(self._far)
        self._far = set()
        for span in [span for span in self._spans if span >= self._far_from]:  # set before the first run
            waiting += self._spans.pop(span)
        self._first = min(self._spans, default=_NEVER)
        for timer in waiting:
            self._place(timer)

    def _begin(self, span: int) -> None:
        """Puts into order what is due in this span, and in those before it."""
        self._near = max(self._near, span)
        if self._first > span:
            return
        while self._first <= span:
            for timer in self._drop(self._first):
                timer.among = None
                self._heap.append((timer.when, timer.armed, timer))
        heapify(self._heap)

    def _drop(self, first: int) -> _Timers:
        """Takes out the first of the spans."""
        timers = self._spans.pop(first)
        if not self._spans:
            first = _NEVER
        else:
            first += 1
            while first not in self._spans:  # mostly it is the next one
                first += 1
        self._first = first
        return timers
