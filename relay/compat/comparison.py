"""A provider's call records beside ours, for a time in which both carry the same calls.

Two records are of one call if their callers are the same, they began within a span of time, and the called parties are
the same or one is unknown. Nothing here reads a file or the store.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Final, Literal, NamedTuple

from relay.compat.providers import Outcome, ProviderCall
from relay.model.call import CallRecord
from relay.model.outcomes import ANSWERED, REFUSALS

Kind = Literal["missing_here", "missing_there", "outcome", "duration"]
KINDS: Final[tuple[Kind, ...]] = ("missing_here", "missing_there", "outcome", "duration")


class Difference(NamedTuple):
    """A call that only one side has, or has otherwise. None of a side that does not have it."""

    kind: Kind
    there: ProviderCall | None
    here: CallRecord | None


class Tolerance(NamedTuple):
    """Differences that still count as the same."""

    began_ms: int = 30_000
    duration_s: float = 2.0


class Comparison:
    """Give it our records in any order, then take what is left: `see` and `rest` yield differences."""

    def __init__(self, there: Iterable[ProviderCall], tolerance: Tolerance) -> None:
        self._tolerance = tolerance
        self._left: dict[str, list[ProviderCall]] = {}  # by caller, in the order of time
        for call in sorted(there, key=attrgetter("at_ms")):
            self._left.setdefault(call.caller, []).append(call)
        self.totals: Counter[str] = Counter(dict.fromkeys(("same", *KINDS), 0))

    @property
    def differs(self) -> bool:
        return any(self.totals[kind] for kind in KINDS)

    def see(self, here: CallRecord) -> Iterator[Difference]:
        """Set one of our ended calls beside its record there."""
        there = self._take(here)
        if there is None:
            yield self._counted("missing_there", None, here)
        elif outcome_of(here) != there.outcome:
            yield self._counted("outcome", there, here)
        elif abs(duration_s_of(here) - there.duration_s) > self._tolerance.duration_s:
            yield self._counted("duration", there, here)
        else:
            self.totals["same"] += 1

    def rest(self) -> Iterator[Difference]:
        """The records there that none of ours was set beside, once all of ours were seen."""
        left = sorted((call for calls in self._left.values() for call in calls), key=attrgetter("at_ms"))
        for call in left:
            yield self._counted("missing_here", call, None)

    def _counted(self, kind: Kind, there: ProviderCall | None, here: CallRecord | None) -> Difference:
        self.totals[kind] += 1
        return Difference(kind, there, here)

    def _take(self, here: CallRecord) -> ProviderCall | None:
        """The nearest record there, which no other call gets any more."""
        calls = self._left.get(here.caller, [])
        since, until = here.received_at - self._tolerance.began_ms, here.received_at + self._tolerance.began_ms
        first = bisect_left(calls, since, key=attrgetter("at_ms"))
        last = bisect_right(calls, until, lo=first, key=attrgetter("at_ms"))
        near = [
            (abs(call.at_ms - here.received_at), place)
            for place, call in enumerate(calls[first:last], first)
            if not call.callee or not here.callee or call.callee == here.callee
        ]
        return calls.pop(min(near)[1]) if near else None


def outcome_of(here: CallRecord) -> Outcome:
    """The outcome of our call in the words of both."""
    if here.outcome == ANSWERED:
        return "answered"
    return "refused" if here.outcome in REFUSALS and here.routed_at is None else "unanswered"


def duration_s_of(here: CallRecord) -> float:
    return (here.duration_ms or 0) / 1000
