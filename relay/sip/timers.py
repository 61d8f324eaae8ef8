"""RFC 3261 timer values and the one heap that all timers stand in. It never reads a clock: `now` is an argument.

`now` and `when` are monotonic seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

FAR_S: Final = 64.0  # ahead: beyond it is hardly a timer that comes to its end, as ring and maximum duration of calls


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

    __slots__ = ("armed",)

    def __init__(self) -> None:
        self.armed = 0  # serial of the heap entry that stands for it, 0 for none

    def fire(self, now: float) -> None:
        """Called at or after the time that the timer was armed for."""
        raise NotImplementedError

    def disarm(self) -> None:
        """Called by the heap when the timer is cancelled; its entry may stay there, and hold the timer, for long."""
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


class TimerHeap:
    """Timers by time. A cancelled one leaves its entry in the heap until its time has come.

    So there are those of the next minute only, or all before the first `run`. The others wait beside it, in no order,
    and are gone at once: to rebuild a heap of a hundred thousand of them took a tenth of a second.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []  # what is due before `_far_from`
        self._far: dict[int, tuple[float, int, Timer]] = {}  # by serial
        self._far_from = math.inf
        self._look_at = -math.inf  # when some of the far ones may have come near
        self._serial = 0
        self._cancelled = 0

    def __len__(self) -> int:
        """How many timers will still fire."""
        return len(self._heap) - self._cancelled + len(self._far)

    def set(self, when: float, fire: Callable[[float], None]) -> Timer:
        """Calls `fire` once, at or after `when`, unless the timer is cancelled first."""
        timer = Callback(fire)
        self.arm(timer, when)
        return timer

    def arm(self, timer: Timer, when: float) -> None:
        """Fires `timer` at or after `when`, and no longer at the time it was armed for before."""
        if timer.armed:
            self.cancel(timer)
        self._serial = serial = self._serial + 1
        timer.armed = serial
        if when < self._far_from:
            heappush(self._heap, (when, serial, timer))
        else:
            self._far[serial] = (when, serial, timer)

    def cancel(self, timer: Timer | None) -> None:
        """Idempotent; None and timers that have fired are passed over."""
        if timer is not None and timer.armed:
            if self._far.pop(timer.armed, None) is None:
                self._cancelled += 1
            timer.disarm()

    def next(self) -> float | None:
        """When the earliest timer is due; where that is far ahead, when it is time to look at the far ones."""
        heap = self._heap
        while heap:
            when, serial, timer = heap[0]
            if timer.armed == serial:
                return min(when, self._look_at) if self._far else when
            heappop(heap)
            self._cancelled -= 1
        return self._look_at if self._far else None

    def run(self, now: float) -> None:
        """Fires all that is due, earliest first; what they set that is due at once fires too."""
        if now >= self._look_at:
            self._draw_near(now)
        while (when := self.next()) is not None and when <= now:
            timer = heappop(self._heap)[2]
            timer.armed = 0
            timer.fire(now)

    def _draw_near(self, now: float) -> None:
        self._far_from, self._look_at = now + FAR_S, now + FAR_S / 2
        for entry in [entry for entry in self._far.values() if entry[0] < self._far_from]:
            del self._far[entry[1]]
            heappush(self._heap, entry)
