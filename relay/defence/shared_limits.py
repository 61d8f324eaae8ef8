"""Limits over all nodes of a store: each node publishes its counts once a second.

A node knows its own counts exactly, and those of the others with a delay of one to two seconds. Concurrent calls may
exceed a limit by the calls begun within that time; in return a call costs no query and no write.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from relay.defence.limits import Elsewhere, Rates, Tally

Told = Mapping[str, Mapping[str, int]]  # counts by kind and by name
Clock = Callable[[], float]
_PAUSES: Final = "pauses"
_PAUSES_LEFT: Final = "pauses_left"


class Pauses(Protocol):
    """`relay.policy.call_policy.RefusedAttempts`."""

    def pauses(self, at_s: float) -> tuple[dict[str, int], dict[str, int]]: ...
    def hear(self, lengths: Mapping[str, int], left: Mapping[str, int], at_s: float) -> None: ...


class SharedLimits:
    """The shared limits of one node."""

    def __init__(
        self,
        tallies: Mapping[str, Tally],
        rates: Mapping[str, tuple[Rates, Clock]],
        pauses: Pauses,
        clock: Clock,
    ) -> None:
        """`tallies` and `rates` by kind, under keys common to all nodes. Each rate has its own clock; the pauses use
        `clock`."""
        self._tallies = tallies
        self._rates = rates
        self._pauses = pauses
        self._clock = clock

    def own(self) -> Told:
        """This node's counts, for the others."""
        told = {what: tally.counts() for what, tally in self._tallies.items()}
        told |= {what: rates.counts(clock()) for what, (rates, clock) in self._rates.items()}
        told[_PAUSES], told[_PAUSES_LEFT] = self._pauses.pauses(self._clock())
        return told

    def hear(self, others: Sequence[Told]) -> None:
        """Take the latest counts of the other nodes. A node that is missing does not count any more."""
        for what, tally in self._tallies.items():
            tally.elsewhere = {name: sum(counts) for name, counts in _by_name(others, what).items()}
        for what, (rates, _) in self._rates.items():
            counted = _by_name(others, what).items()
            rates.elsewhere = {name: Elsewhere(sum(counts), len(counts)) for name, counts in counted}
        for told in others:
            self._pauses.hear(told.get(_PAUSES, {}), told.get(_PAUSES_LEFT, {}), self._clock())


def _by_name(others: Sequence[Told], what: str) -> Mapping[str, list[int]]:
    """The counts of all nodes that have any, by name."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for told in others:
        for name, count in told.get(what, {}).items():
            found[name].append(count)
    return found
