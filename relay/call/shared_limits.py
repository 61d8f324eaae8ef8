"""Limits that hold over all nodes of a store: what each has of them it tells the others, once a second.

A node knows of itself what it has now, and of the others what they had a second ago or two. So calls at once are over
a limit by what all begin within that time at the most, and nothing is asked or written for a call.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from relay.call.counts import Tally
from relay.call.rates import Elsewhere, Rates

Told = Mapping[str, Mapping[str, int]]  # how many: by what is counted, and by name
Clock = Callable[[], float]
_PAUSES: Final = "pauses"
_PAUSES_LEFT: Final = "pauses_left"


class Pauses(Protocol):
    """`relay.policy.refused_attempts.RefusedAttempts`."""

    def pauses(self, at_s: float) -> tuple[dict[str, int], dict[str, int]]: ...
    def hear(self, lengths: Mapping[str, int], left: Mapping[str, int], at_s: float) -> None: ...


class SharedLimits:
    """Of one node."""

    def __init__(
        self,
        tallies: Mapping[str, Tally],
        rates: Mapping[str, tuple[Rates, Clock]],
        pauses: Pauses,
        clock: Clock,
    ) -> None:
        """By what is counted, under names that all nodes use. Rates and pauses go by the clocks that come with them."""
        self._tallies = tallies
        self._rates = rates
        self._pauses = pauses
        self._clock = clock

    def own(self) -> Told:
        """For the others."""
        told = {what: tally.counts() for what, tally in self._tallies.items()}
        told |= {what: rates.counts(clock()) for what, (rates, clock) in self._rates.items()}
        told[_PAUSES], told[_PAUSES_LEFT] = self._pauses.pauses(self._clock())
        return told

    def hear(self, others: Sequence[Told]) -> None:
        """What each of them has told last. Of one that is not among them nothing counts any more."""
        for what, tally in self._tallies.items():
            tally.elsewhere = {name: sum(counts) for name, counts in _by_name(others, what).items()}
        for what, (rates, _) in self._rates.items():
            counted = _by_name(others, what).items()
            rates.elsewhere = {name: Elsewhere(sum(counts), len(counts)) for name, counts in counted}
        for told in others:
            self._pauses.hear(told.get(_PAUSES, {}), told.get(_PAUSES_LEFT, {}), self._clock())


def _by_name(others: Sequence[Told], what: str) -> Mapping[str, list[int]]:
    """What each node that has any has told."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for told in others:
        for name, count in told.get(what, {}).items():
            found[name].append(count)
    return found
