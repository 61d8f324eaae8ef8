"""Signs of fraud in ended calls: who tries many numbers, and whom many try. It finds; what follows others decide.

It keeps the last ten minutes in memory and reads no clock: time is that of the calls it is shown, in their order.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from relay.call.admission import CALLER_NOT_OF_PEER, REFUSED_TOO_OFTEN

WINDOW_MS: Final = 600_000
MOST_KEYS = 50_000  # callers or numbers that each signal keeps; the oldest are forgotten first
MOST_KEPT: Final = 1_000  # of one caller or number; more than any sensible threshold
_GUESSES: Final = REFUSED_TOO_OFTEN.end_reason  # of calls that were not looked up, since their peer had to wait
_UNPROVEN: Final = CALLER_NOT_OF_PEER.outcome  # of calls in the name of somebody who may know nothing of them
# Who is bound on the number gets neither, unless he is foreign and may not be bound any more.
_OF_STRANGERS: Final = ("no_binding", "caller_international")


class Signal(NamedTuple):
    """From how many in ten minutes on. 0: never."""

    warn: int
    lock: int


class Signals(NamedTuple):
    """What the operator sets. A caller dials in sequence where each number is the next or the previous one."""

    strangers: Signal = Signal(20, 0)  # different callers of one number that have no binding on it
    short_calls: Signal = Signal(10, 0)  # answered calls of one caller that were over in `short_s`
    sequential: Signal = Signal(10, 0)  # numbers that one caller dialled, each next to the one before
    short_s: int = 6


class Seen(NamedTuple):
    """One ended call."""

    number: str  # the 700 number dialled
    caller_hash: bytes
    outcome: str
    duration_ms: int | None  # None: not answered
    at_ms: int  # when it came
    peer: str = ""  # that it came from
    end_reason: str | None = None


class Finding(NamedTuple):
    """A threshold that was reached, told once until the count has fallen below it."""

    signal: str  # strangers, short_calls, sequential, guesses
    number: str  # the 700 number of the call that reached it
    reached: int
    lock: bool
    peer: str = ""  # of guesses: whose way to the number is closed for a while; nobody else's is


class Watch:
    """Shown every ended call, in the order of the records."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._strangers = _Tally()
        self._short_calls = _Tally()
        self._guesses = _Tally()  # by peer and number
        self._rows: OrderedDict[bytes, _Row] = OrderedDict()

    def follow(self, signals: Signals) -> None:
        """Judges by these from now on. What was counted before stays counted."""
        self._signals = signals

    def see(self, seen: Seen) -> list[Finding]:
        """What this call makes sure of."""
        if seen.outcome == _UNPROVEN:
            return []
        if seen.end_reason == _GUESSES:
            return self._see_guess(seen)
        signals = self._signals
        findings: list[Finding | None] = []
        if seen.outcome in _OF_STRANGERS:
            count = self._strangers.count(seen.number.encode(), seen.caller_hash, seen.at_ms)
            findings.append(_judge("strangers", signals.strangers, seen, *count))
        if seen.duration_ms is not None and seen.duration_ms < 1000 * signals.short_s:
            count = self._short_calls.count(seen.caller_hash, None, seen.at_ms)
            findings.append(_judge("short_calls", signals.short_calls, seen, *count))
        findings.append(_judge("sequential", signals.sequential, seen, *self._sequence(seen)))
        return [finding for finding in findings if finding is not None]

    def _see_guess(self, seen: Seen) -> list[Finding]:
        """The peer waits already (`relay.policy.refused_attempts`): this is told, once in ten minutes."""
        before, count = self._guesses.count(f"{seen.peer} {seen.number}".encode(), None, seen.at_ms)
        return [] if before else [Finding("guesses", seen.number, count, False, seen.peer)]

    def _sequence(self, seen: Seen) -> tuple[int, int]:
        """How many numbers the caller has dialled in a row before this call, and with it."""
        last = self._rows.pop(seen.caller_hash, None)
        self._rows[seen.caller_hash] = row = _next_row(last, int(seen.number), seen.at_ms)
        if len(self._rows) > MOST_KEYS:
            self._rows.popitem(last=False)
        return min(0 if last is None else last.length, row.length), row.length


class _Row(NamedTuple):
    """Numbers that one caller dialled, each next to the one before, upwards or downwards."""

    number: int  # the last one
    step: int  # 1 or -1; 0 while there is one number only
    length: int
    at_ms: int


def _next_row(last: _Row | None, number: int, at_ms: int) -> _Row:
    if last is None or at_ms - last.at_ms > WINDOW_MS:
        return _Row(number, 0, 1, at_ms)
    step = number - last.number
    if step == 0:  # the same number again is neither a step nor the end of the row
        return last._replace(at_ms=at_ms)
    if step not in (1, -1):
        return _Row(number, 0, 1, at_ms)
    return _Row(number, step, last.length + 1 if last.step in (0, step) else 2, at_ms)


class _Tally:
    """How often each key came in the last ten minutes; with a value, how many different ones."""

    def __init__(self) -> None:
        self._times: OrderedDict[bytes, deque[tuple[int, bytes | None]]] = OrderedDict()

    def count(self, key: bytes, value: bytes | None, at_ms: int) -> tuple[int, int]:
        """The counts before this one and with it."""
        times = self._times.pop(key, None)
        if times is None:
            times = deque(maxlen=MOST_KEPT)
        while times and times[0][0] <= at_ms - WINDOW_MS:
            times.popleft()
        while times and times[-1][0] > at_ms + WINDOW_MS:  # from before the clock was set back
            times.pop()
        before = self._size(times, value)
        times.append((at_ms, value))
        self._times[key] = times
        if len(self._times) > MOST_KEYS:
            self._times.popitem(last=False)
        return before, self._size(times, value)

    @staticmethod
    def _size(times: deque[tuple[int, bytes | None]], value: bytes | None) -> int:
        return len(times) if value is None else len({each for _, each in times})


def _judge(name: str, signal: Signal, seen: Seen, before: int, count: int) -> Finding | None:
    """A finding where this call reached a threshold."""
    for most, lock in ((signal.lock, True), (signal.warn, False)):
        if most and before < most <= count:
            return Finding(name, seen.number, count, lock)
    return None
