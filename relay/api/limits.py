"""Token buckets: the request rate of a key, and the rate of failed authentications of an address.

It knows no HTTP and reads no clock. Full buckets are forgotten.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

MOST_BUCKETS = 10_000


class Allowance(NamedTuple):
    """The answer of a bucket, in the terms of the RateLimit headers."""

    granted: bool
    limit: int  # requests at once
    remaining: int
    reset_s: int  # until the bucket is full
    retry_after_s: int  # until the next token; 0: now


class Buckets:
    """One bucket per name, refilled at `rate` tokens a second up to `burst`."""

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, last use; oldest use first

    def follow(self, rate: int, burst: int) -> None:
        """Apply a new rate and burst from now on."""
        self._rate, self._burst = rate, burst

    def take(self, name: str, now_s: float) -> Allowance:
        """Take one token if there is one."""
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
        """Drop the least recently used bucket if it is full or there are more than MOST_BUCKETS."""
        name, (tokens, at) = next(iter(self._buckets.items()))
        if tokens + (now_s - at) * self._rate >= self._burst or len(self._buckets) > MOST_BUCKETS:
            del self._buckets[name]
