"""Rate limits over a sliding second. It reads no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple


class Elsewhere(NamedTuple):
    """What other nodes of the store have granted within their last second (`relay.call.shared_limits`)."""

    granted: int
    nodes: int  # that have granted any


class Rates:
    """A sliding window of one second per name (a business, a peer)."""

    def __init__(self) -> None:
        self._granted: dict[str, deque[float]] = {}
        self.elsewhere: Mapping[str, Elsewhere] = {}

    def admit(self, name: str, most: int | None, at_s: float) -> bool:
        """Whether one more event is within `most` per second; counts it if so. None: no limit.

        The clock may be set back, and `most` may change between calls.
        """
        if most is None:
            return True
        granted = self._granted.get(name)
        if granted is None:
            granted = self._granted[name] = deque()
        while granted and not 0 <= at_s - granted[0] < 1:
            granted.popleft()
        if len(granted) >= self._ours(name, most):
            return False
        granted.append(at_s)
        return True

    def counts(self, at_s: float) -> dict[str, int]:
        """How often what has been granted within the last second has, by name."""
        found = {name: sum(0 <= at_s - each < 1 for each in granted) for name, granted in self._granted.items()}
        return {name: count for name, count in found.items() if count}

    def _ours(self, name: str, most: int) -> int:
        """What of a bound is this node's: what others leave, and never less than its part.

        So each that wants more than its part gets it within a second or two, and all together no more than `most`.
        """
        elsewhere = self.elsewhere.get(name)
        if elsewhere is None:
            return most
        return max(most - elsewhere.granted, -(-most // (elsewhere.nodes + 1)))
