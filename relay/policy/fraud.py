"""Signs of fraud in ended calls: callers that try many numbers, numbers tried by many callers. It only reports.

It keeps the last twenty minutes in memory and reads no clock: time is that of the calls, in the order of the records.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Final, NamedTuple

from relay.model.call import PROBE_BUSINESS, CallRecord
from relay.model.numbers import is_700
from relay.model.outcomes import CALLER_NOT_OF_PEER, REFUSED_TOO_OFTEN

WINDOW_MS: Final = 600_000
_KEPT_MS: Final = 2 * WINDOW_MS  # a caller or number: records are in the order of calls' ends, at_ms is their start
MOST_KEYS = 50_000  # callers or numbers kept per signal; the oldest are dropped first
MOST_KEPT: Final = 1_000  # calls kept per caller or number; above any sensible threshold
_GUESSES: Final = REFUSED_TOO_OFTEN.end_reason  # calls refused without a look-up during a pause of their peer
_UNPROVEN: Final = CALLER_NOT_OF_PEER.outcome  # calls whose caller number may be forged
# Outcomes of callers without a binding on the number. A bound foreign caller can get the second one, if rules changed.
_OF_STRANGERS: Final = ("no_binding", "caller_international")


class Signal(NamedTuple):
    """The thresholds of one signal, events in ten minutes. 0: never."""

    warn: int
    lock: int


class Signals(NamedTuple):
    """The operator's thresholds. Sequential dialling: each number is one above or below the previous one."""

    strangers: Signal = Signal(20, 0)  # distinct callers of one number without a binding on it
    short_calls: Signal = Signal(10, 0)  # answered calls of one caller that lasted less than `short_s`
    sequential: Signal = Signal(10, 0)  # numbers that one caller dialled in sequence
    short_s: int = 6


class FraudSign(NamedTuple):
    """A reached threshold, reported once until the count falls below it again."""

    signal: str  # strangers, short_calls, sequential, guesses
    number: str  # the 700 number of the call that reached it
    reached: int
    lock: bool
    peer: str = ""  # of guesses: the peer whose calls to the number are paused


class Watch:
    """The counters of all signals. `see` takes every record, in their order."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._strangers = _EventTally()
        self._short_calls = _EventTally()
        self._guesses = _EventTally()  # by peer and number
        self._sequences: OrderedDict[bytes, _Sequence] = OrderedDict()

    def apply_config(self, signals: Signals) -> None:
        """Apply new thresholds. Counts are kept."""
        self._signals = signals

    def see(self, record: CallRecord, caller_hash: bytes) -> list[FraudSign]:
        """Count an ended call or message. Returns the thresholds that it reached.

        Only those of a caller with a number to a 700 number count, and not the probe's.
        """
        number, outcome, at_ms = record.number_dialled, record.outcome, record.received_at
        if record.business == PROBE_BUSINESS or not record.caller or not is_700(number):
            return []
        if outcome is None or outcome == _UNPROVEN:
            return []
        if record.end_reason == _GUESSES:
            return self._count_guess(record)
        signals = self._signals
        findings: list[FraudSign | None] = []
        if outcome in _OF_STRANGERS:
            count = self._strangers.count(number.encode(), caller_hash, at_ms)
            findings.append(_finding("strangers", signals.strangers, number, count))
        duration_ms = None if record.answered_at is None else record.duration_ms
        if duration_ms is not None and duration_ms < 1000 * signals.short_s:
            count = self._short_calls.count(caller_hash, None, at_ms)
            findings.append(_finding("short_calls", signals.short_calls, number, count))
        count = self._extend_sequence(caller_hash, int(number), at_ms)
        findings.append(_finding("sequential", signals.sequential, number, count))
        return [finding for finding in findings if finding is not None]

    def _count_guess(self, record: CallRecord) -> list[FraudSign]:
        """Report the peer's pause (`relay.policy.call_policy`), once in ten minutes."""
        peer, number = record.peer_in, record.number_dialled
        before, count = self._guesses.count(f"{peer} {number}".encode(), None, record.received_at)
        return [] if before else [FraudSign("guesses", number, count, False, peer)]

    def _extend_sequence(self, caller_hash: bytes, number: int, at_ms: int) -> tuple[int, int]:
        """The length of the caller's sequence before this call, and with it."""
        sequences = self._sequences
        sequence = sequences.pop(caller_hash, None)
        before = 0 if sequence is None else sequence.length
        if sequence is None:
            sequence = _Sequence(number, at_ms)
        else:
            sequence.extend(number, at_ms)
        sequences[caller_hash] = sequence
        while len(sequences) > MOST_KEYS or next(iter(sequences.values())).at_ms < at_ms - _KEPT_MS:
            sequences.popitem(last=False)
        return min(before, sequence.length), sequence.length


class _Sequence:
    """A sequence of adjacent numbers dialled by one caller, upwards or downwards."""

    __slots__ = ("at_ms", "length", "number", "step")

    def __init__(self, number: int, at_ms: int) -> None:
        self.number = number  # the last one
        self.step = 0  # 1 or -1; 0 for a single number
        self.length = 1
        self.at_ms = at_ms

    def extend(self, number: int, at_ms: int) -> None:
        """Go on with a number, or begin anew with it."""
        step = number - self.number
        if at_ms - self.at_ms > WINDOW_MS or step not in (-1, 0, 1):
            self.step, self.length = 0, 1
        elif step:  # redialling neither extends nor ends the sequence
            self.length = self.length + 1 if self.step in (0, step) else 2
            self.step = step
        self.number, self.at_ms = number, at_ms


class _EventTally:
    """Events per key in the last ten minutes; with values, the number of distinct ones."""

    def __init__(self) -> None:
        self._times: OrderedDict[bytes, deque[tuple[int, bytes | None]]] = OrderedDict()

    def count(self, key: bytes, value: bytes | None, at_ms: int) -> tuple[int, int]:
        """Add an event. Returns the counts before and with it."""
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
        while len(self._times) > MOST_KEYS or next(iter(self._times.values()))[-1][0] < at_ms - _KEPT_MS:
            self._times.popitem(last=False)
        return before, self._size(times, value)

    @staticmethod
    def _size(times: deque[tuple[int, bytes | None]], value: bytes | None) -> int:
        return len(times) if value is None else len({each for _, each in times})


def _finding(name: str, signal: Signal, number: str, counts: tuple[int, int]) -> FraudSign | None:
    """A finding if the count has just reached a threshold. `counts`: before and now."""
    before, count = counts
    if signal.lock and before < signal.lock <= count:
        return FraudSign(name, number, count, True)
    if signal.warn and before < signal.warn <= count:
        return FraudSign(name, number, count, False)
    return None
