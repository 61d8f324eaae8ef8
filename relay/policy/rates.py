"""How many calls a second each business has been granted."""

from __future__ import annotations

from collections import deque


class Rates:
    """A sliding second a business. Times are Unix seconds."""

    def __init__(self) -> None:
        self._granted: dict[str, deque[float]] = {}

    def admit(self, business: str, most: int | None, at_s: float) -> bool:
        """Whether one more call is within `most` a second; it is counted then. None: no limit."""
        if most is None:
            return True
        granted = self._granted.get(business)
        if granted is None:
            granted = self._granted[business] = deque()
        while granted and not 0 <= at_s - granted[0] < 1:  # also where the clock was set back
            granted.popleft()
        if len(granted) >= most:
            return False
        granted.append(at_s)
        return True
