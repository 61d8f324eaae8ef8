"""Counts by key of the calls granted in the last quarter of an hour, and the last caller of a binding.

Entries expire; the counts are rebuilt at a start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import NamedTuple

from relay.policy.rules import MEMORY_S


class Recent:
    """Times are Unix seconds, keys 64-bit numbers.

    Nearly all keys have a single call in the period: its value is that call's time, and a list only from the second on.
    """

    def __init__(self) -> None:
        self._times: dict[int, float | list[float]] = {}
        self._order: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def count(self, key: int, since_s: float) -> int:
        """The number of calls of a key after `since_s`, which is at most `MEMORY_S` ago."""
        times = self._times.get(key)
        if times is None:
            return 0
        if isinstance(times, float):
            return 1 if times > since_s else 0
        return len(times) - bisect_right(times, since_s)

    def note(self, key: int, at_s: float) -> None:
        """Count a granted call. Times must not decrease; after a backward clock step, the latest time is used."""
        self._forget(at_s - MEMORY_S)
        if self._order and at_s < (latest := self._order[-1][0]):
            at_s = latest
        self._order.append((at_s, key))
        times = self._times.get(key)
        if times is None:
            self._times[key] = at_s
        elif isinstance(times, float):
            self._times[key] = [times, at_s]
        else:
            times.append(at_s)

    def shift(self, by_s: float) -> None:
        """Shift all times after a clock step."""
        self._order = deque((at_s + by_s, key) for at_s, key in self._order)
        self._times = {
            key: times + by_s if isinstance(times, float) else [at_s + by_s for at_s in times]
            for key, times in self._times.items()
        }

    def _forget(self, until_s: float) -> None:
        order = self._order
        while order and order[0][0] <= until_s:
            _, key = order.popleft()
            times = self._times[key]
            if isinstance(times, float) or len(times) == 1:
                del self._times[key]
            else:
                del times[0]


# -- The last caller of a party that many can call


class LastCaller(NamedTuple):
    """Noted for each granted call of a group's member, or of anybody to an AXN, if the caller may be a party."""

    binding_id: str
    number: str  # the 700 number dialled
    caller: str  # E.164 without "+"
    at_ms: int
