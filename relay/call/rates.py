"""Rate limits over a sliding second. It reads no clock."""

from __future__ import annotations

from collections import deque


class Rates:
    """A sliding window of one second per name (a business, a peer)."""

    def __init__(self) -> None:
        self._granted: dict[str, deque[float]] = {}

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
        if len(granted) >= most:
            return False
        granted.append(at_s)
        return True
