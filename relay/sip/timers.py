"""Timer values of RFC 3261, the timer queue, and the base of the four transactions: a timer with a state and its table.

It never reads a clock: `now` is an argument.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Final

from relay.sip.message import Flow

SPANS_PER_S: Final = 16  # a power of two, so that the begin of a span is exact
FAR_S: Final = 64.0  # horizon: timers beyond it (ring timeout, maximum duration) rarely fire
_NEVER: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Timings:
    """Timer values in seconds (RFC 3261 table 4). T1, T2 and T4 are settings; the others derive from them."""

    t1: float = 0.5
    t2: float = 4.0
    t4: float = 5.0

    @property
    def transaction_s(self) -> float:
        """64*T1: timers B, F, H, J, L, M, and the retransmission time of a 2xx."""
        return 64 * self.t1

    @property
    def timer_d(self) -> float:
        """At least 32 s for any T1, to cover the remote timer H (RFC 3261 17.1.1.2)."""
        return max(32.0, 64 * self.t1)


class WallClock:
    """Unix time of monotonic `now`. `offset_s`: wall clock minus monotonic clock; changes when the clock is set."""

    __slots__ = ("offset_s",)

    def __init__(self, offset_s: float) -> None:
        self.offset_s = offset_s

    def ms(self, now: float) -> int:
        """Unix milliseconds."""
        return int((now + self.offset_s) * 1000)


class Timer:
    """A timer of the heap; it fires at most once per arming. A subclass with its own `fire` saves the two allocations
    of a `Callback`."""

    __slots__ = ("among", "armed", "when")

    def __init__(self) -> None:
        self.armed = 0  # serial number of the arming, 0 while not armed
        self.when = 0.0
        self.among: set[Timer] | None = None  # its span's set, until it moves to the heap

    def fire(self, now: float) -> None:
        """Called at or after the armed time."""
        raise NotImplementedError

    def disarm(self) -> None:
        """Called by the heap on cancellation; the entry may remain in the heap for a while."""
        self.armed = 0


class Callback(Timer):
    """A single-use timer that calls a function. It drops the reference to the function when it fires or is cancelled:
    the function's owner often holds the timer, and both would be a cycle."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[float], None]) -> None:
        super().__init__()
        self._function = function

    def fire(self, now: float) -> None:
        function, self._function = self._function, _nothing
        function(now)

    def disarm(self) -> None:
        self.armed = 0
        self._function = _nothing


def _nothing(_: float) -> None:
    """Placeholder of the function of a timer that is over."""


MOST_DUE: Final = 1_000_000_000  # no limit on the timers of one run

_Timers = set[Timer]  # in the class below `set` is a method


class TimerHeap:
    """Timer queue. Only timers due in the current span of 1/16 s are ordered, in a heap.

    Nearly all timers are cancelled before they fire: later ones are kept unordered by span, those beyond FAR_S in one
    set. A single heap of tens of thousands would make each operation pay for its depth, and rebuilding it without the
    cancelled ones would take a tenth of a second.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []  # due in spans up to `_near`, including cancelled ones
        self._spans: dict[int, _Timers] = {}
        self._far: _Timers = set()
        self._near = -1
        self._first = _NEVER  # first of `_spans`
        self._far_from = _NEVER  # first span of `_far`
        self._look_at = -math.inf  # when to move timers from `_far` to spans
        self._serial = 0
        self._armed = 0

    def __len__(self) -> int:
        """Number of armed timers."""
        return self._armed

    def set(self, when: float, fire: Callable[[float], None]) -> Timer:
        """Call `fire` once, at or after `when`, unless cancelled."""
        timer = Callback(fire)
        self.arm(timer, when)
        return timer

    def arm(self, timer: Timer, when: float) -> None:
        """Arm or re-arm `timer` for `when`."""
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
        """Cancel a timer. Idempotent; None and fired timers are ignored."""
        if timer is not None and timer.armed:
            if timer.among is not None:
                timer.among.discard(timer)
                timer.among = None
            self._armed -= 1
            timer.disarm()

    def next(self) -> float | None:
        """When to call `run` next: the earliest due time in the heap, else the begin of the next span; None without
        timers."""
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

    def run(self, now: float, most: int = MOST_DUE) -> None:
        """Fire due timers, earliest first, including those set due by other timers; at most `most` of them."""
        if now >= self._look_at:
            self._draw_near(now)
        self._begin(int(now * SPANS_PER_S))
        while most and (when := self.next()) is not None and when <= now:
            most -= 1
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
        """Move timers of spans up to this one into the heap."""
        self._near = max(self._near, span)
        if self._first > span:
            return
        while self._first <= span:
            for timer in self._drop(self._first):
                timer.among = None
                self._heap.append((timer.when, timer.armed, timer))
        heapify(self._heap)

    def _drop(self, first: int) -> _Timers:
        """Remove the first span."""
        timers = self._spans.pop(first)
        if not self._spans:
            first = _NEVER
        else:
            first += 1
            while first not in self._spans:  # usually the next one
                first += 1
        self._first = first
        return timers


# -- Base of the four transactions. It knows no message, and no state except the last one

TERMINATED: Final = "terminated"

# Timer inputs; the tables name the RFC's timer at each row.
RESEND: Final = "resend"  # A, E, G
TIMEOUT: Final = "timeout"  # B, F, H, or the end of D, I, J, K, L, M
LINGER_OVER: Final = TIMEOUT

# An effect gets the transaction, `now` and the input's value (a response, bytes, or None).
Effect = Callable[[Any, float, Any], None]
# (state, input) -> (next state, effects). Other inputs are ignored.
Table = dict[tuple[str, str], tuple[str, tuple[Effect, ...]]]


class TransactionContext:
    """Context shared by all transactions of a layer: send function, timer heap, and timer values in seconds."""

    __slots__ = ("send", "t1", "t2", "t4", "timer_d", "timers", "transaction_s")

    def __init__(self, timings: Timings, timers: TimerHeap, send: Callable[[bytes, Flow], None]) -> None:
        self.send = send
        self.timers = timers
        self.t1 = timings.t1
        self.t2 = timings.t2
        self.t4 = timings.t4
        self.timer_d = timings.timer_d
        self.transaction_s = timings.transaction_s


class Transaction(Timer):
    """A state and its table. It is itself the timer for both retransmission and timeout (A with B, E with F, G with H),
    armed for the earlier of the two: one heap entry and no further object."""

    __slots__ = ("_deadline", "_ground", "_interval", "_key", "_known", "_state", "_table")

    def __init__(self, ground: TransactionContext, table: Table, state: str, key: str, known: dict[str, Any]) -> None:
        """`known`: the layer's table of transactions, left at termination."""
        self._ground = ground
        self._table = table
        self._state = state
        self._key = key
        self._known = known
        self.armed = 0
        self.when = 0.0
        self.among = None
        self._interval = 0.0
        self._deadline = 0.0

    @property
    def state(self) -> str:
        """The state, as in the RFC's figure, in lower case."""
        return self._state

    def _step(self, event: str, now: float, what: Any = None) -> None:
        row = self._table.get((self._state, event))
        if row is not None:
            self._state, effects = row
            for effect in effects:
                effect(self, now, what)

    # -- the timer

    def _arm(self, now: float, reliable: bool) -> None:
        """Start retransmission after T1 (not on a reliable flow) and timeout after 64*T1."""
        ground = self._ground
        self._deadline = now + ground.transaction_s
        self._interval = ground.t1
        ground.timers.arm(self, self._deadline if reliable else now + ground.t1)

    def _arm_again(self, now: float, interval: float) -> None:
        self._interval = interval
        self._ground.timers.arm(self, min(now + interval, self._deadline))

    def fire(self, now: float) -> None:
        self._step(TIMEOUT if now >= self._deadline else RESEND, now)

    def _stop_timer(self, _: float, __: object) -> None:
        self._ground.timers.cancel(self)

    def _linger(self, now: float, seconds: float) -> None:
        """Absorb further messages for `seconds`; 0, as on reliable flows, ends at once."""
        if seconds > 0:
            self._deadline = now + seconds
            self._ground.timers.arm(self, self._deadline)
        else:
            self._step(LINGER_OVER, now)

    def _forget(self, _: float, __: object) -> None:
        """Remove the terminated transaction from the layer and the heap."""
        self._ground.timers.cancel(self)
        self._known.pop(self._key, None)
