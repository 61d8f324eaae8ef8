"""RFC 3261 timer values and the one heap that all timers stand in. It never reads a clock: `now` is an argument.

`now` and `when` are monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush


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
    """One entry of the heap. `fire` is called once, at or after `when`, unless the timer is cancelled first."""

    __slots__ = ("fire", "when")

    def __init__(self, when: float, fire: Callable[[float], None] | None) -> None:
        self.when = when
        self.fire = fire  # None once it is cancelled or has fired


class TimerHeap:
    """Timers by time. Cancelling marks an entry; the heap is rebuilt once most of it is marked."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._serial = 0
        self._cancelled = 0

    def __len__(self) -> int:
        """How many timers will still fire."""
        return len(self._heap) - self._cancelled

    def set(self, when: float, fire: Callable[[float], None]) -> Timer:
        timer = Timer(when, fire)
        self._serial += 1
        heappush(self._heap, (when, self._serial, timer))
        return timer

    def cancel(self, timer: Timer | None) -> None:
        """Idempotent; None and timers that have fired are passed over."""
        if timer is None or timer.fire is None:
            return
        timer.fire = None
        self._cancelled += 1
        if self._cancelled > 1000 and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].fire is not None]
            heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """When the earliest timer is due."""
        heap = self._heap
        while heap:
            if heap[0][2].fire is not None:
                return heap[0][0]
            heappop(heap)
            self._cancelled -= 1
        return None

    def run(self, now: float) -> None:
        """Fire all that is due, earliest first; what they set that is due at once fires too."""
        while (when := self.next()) is not None and when <= now:
            timer = heappop(self._heap)[2]
            fire, timer.fire = timer.fire, None
            if fire is not None:
                fire(now)
