"""Rate limits over a sliding second. It reads no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple


class Elsewhere(NamedTuple):
    """Events granted by the other nodes of the store within their last second (`relay.call.shared_limits`)."""

    granted: int
    nodes: int  # number of nodes that granted any


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
        """Events granted within the last second, by name."""
        found = {name: sum(0 <= at_s - each < 1 for each in granted) for name, granted in self._granted.items()}
        return {name: count for name, count in found.items() if count}

    def _ours(self, name: str, most: int) -> int:
        """This node's part of the limit: what the other nodes leave, but at least an equal part.

        Within a second or two each busy node gets its equal part, and all nodes together at most `most`.
        """
        elsewhere = self.elsewhere.get(name)
        if elsewhere is None:
            return most
        return max(most - elsewhere.granted, -(-most // (elsewhere.nodes + 1)))
