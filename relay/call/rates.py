"""How often things happened within the last second, and whether once more is within a bound. It reads no clock."""

from __future__ import annotations

from collections import deque


class Rates:
    """A sliding second a name: of a business, of a peer."""

    def __init__(self) -> None:
        self._granted: dict[str, deque[float]] = {}

    def admit(self, name: str, most: int | None, at_s: float) -> bool:
        """Whether once more is within `most` a second; it is counted then. None: no limit.

        The clock may be set back, and `most` may be another one each time.
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
