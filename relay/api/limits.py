"""Token buckets: how many requests a key may make, and how often an address may fail to show one.

It knows no HTTP and reads no clock. Buckets that are full again are forgotten.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

MOST_BUCKETS = 10_000


class Allowance(NamedTuple):
    """What a bucket answers, in the words of the RateLimit headers."""

    granted: bool
    limit: int  # requests at once
    remaining: int
    reset_s: int  # until the bucket is full again
    retry_after_s: int  # until one more is granted; 0 where it is now


class Buckets:
    """One bucket a name, each filled at `rate` tokens a second up to `burst`."""

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, at; in the order of their use

    def follow(self, rate: int, burst: int) -> None:
        """Fills them so from now on."""
        self._rate, self._burst = rate, burst

    def take(self, name: str, now_s: float) -> Allowance:
        """Takes one token where there is one."""
        tokens, at = self._buckets.pop(name, (float(self._burst), now_s))
        tokens = min(self._burst, tokens + max(0.0, now_s - at) * self._rate)
        granted = tokens >= 1
        if granted:
            tokens -= 1
        self._buckets[name] = (tokens, now_s)
        self._forget(now_s)
        return Allowance(
            granted,
            self._burst,
            int(tokens),
            math.ceil((self._burst - tokens) / self._rate),
            0 if tokens >= 1 else math.ceil((1 - tokens) / self._rate),
        )

    def _forget(self, now_s: float) -> None:
        """Drops the bucket that was used longest ago if it is full again, or if there are too many."""
        name, (tokens, at) = next(iter(self._buckets.items()))
        if tokens + (now_s - at) * self._rate >= self._burst or len(self._buckets) > MOST_BUCKETS:
            del self._buckets[name]
