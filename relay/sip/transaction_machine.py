"""What the four transaction machines share: how a table is stepped through, and the one timer of each transaction.

It knows no message and no state by name but the last one. It reads no clock: `now` (monotonic seconds) is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from relay.sip.flow import Flow
from relay.sip.timers import Timer, TimerHeap, Timings

TERMINATED: Final = "terminated"

# Inputs that the timer brings; the tables say at each place which of RFC 3261's letters it is.
RESEND: Final = "resend"  # A, E, G
TIMEOUT: Final = "timeout"  # B, F, H fire, or D, I, J, K, L, M let go
LINGER_OVER: Final = TIMEOUT

# An effect gets the transaction, `now` and what came in with the input (a response, bytes, or nothing).
Effect = Callable[[Any, float, Any], None]
# (state, input) -> (next state, effects). What a table does not name is absorbed: no step, no effect.
Table = dict[tuple[str, str], tuple[str, tuple[Effect, ...]]]


class Ground:
    """What all transactions of a layer stand on: the way out, the heap, and the timer values in seconds."""

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
    """A state and its table. It is itself the timer that stands for the pair "send again" and "give up" (A with B,
    E with F, G with H), due at whichever comes first: one entry in the heap, not two, and no object beside it."""

    __slots__ = ("_deadline", "_ground", "_interval", "_key", "_known", "_state", "_table")

    def __init__(self, ground: Ground, table: Table, state: str, key: str, known: dict[str, Any]) -> None:
        """`known`: the layer's dictionary that holds the transaction under `key` until it terminates."""
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
        """Lower-case name of the state in the RFC's figure."""
        return self._state

    def _step(self, event: str, now: float, what: Any = None) -> None:
        row = self._table.get((self._state, event))
        if row is not None:
            self._state, effects = row
            for effect in effects:
                effect(self, now, what)

    # -- the timer

    def _arm(self, now: float, reliable: bool) -> None:
        """Starts sending again after T1 (not on a reliable flow), to give up after 64*T1."""
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
        """Absorbs what still comes for so long; 0, as on reliable flows, is at once."""
        if seconds > 0:
            self._deadline = now + seconds
            self._ground.timers.arm(self, self._deadline)
        else:
            self._step(LINGER_OVER, now)

    def _forget(self, _: float, __: object) -> None:
        """Terminated: leaves the layer and the heap."""
        self._ground.timers.cancel(self)
        self._known.pop(self._key, None)
