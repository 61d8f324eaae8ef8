"""Base of the four transaction state machines: the step through a table, and the single timer of each transaction.

It knows no message, and no state except the last one. It reads no clock: `now` (monotonic seconds) is an argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from relay.sip.message import Flow
from relay.sip.timers import Timer, TimerHeap, Timings

TERMINATED: Final = "terminated"

# Timer inputs; the tables name the RFC's timer at each row.
RESEND: Final = "resend"  # A, E, G
TIMEOUT: Final = "timeout"  # B, F, H, or the end of D, I, J, K, L, M
LINGER_OVER: Final = TIMEOUT

# An effect gets the transaction, `now` and the input's value (a response, bytes, or None).
Effect = Callable[[Any, float, Any], None]
# (state, input) -> (next state, effects). Other inputs are ignored.
Table = dict[tuple[str, str], tuple[str, tuple[Effect, ...]]]


class Ground:
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

    def __init__(self, ground: Ground, table: Table, state: str, key: str, known: dict[str, Any]) -> None:
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
