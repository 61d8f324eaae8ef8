"""A bound on how often something happens, with what was saved up for one second at the most. It reads no clock."""

from __future__ import annotations


class Bucket:
    """A token bucket of `per_s` a second."""

    __slots__ = ("_last", "_per_s", "_tokens")

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._tokens = float(per_s)
        self._last = 0.0

    def admit(self, now: float) -> bool:
        """Whether it may happen now; it is counted then."""
        self._tokens = min(float(self._per_s), self._tokens + (now - self._last) * self._per_s)
        self._last = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
