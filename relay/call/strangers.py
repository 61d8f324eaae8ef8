"""Rate limit of responses to unknown sources: enough to reveal a misconfigured peer, never a flood."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final

from relay.call.rates import Rates
from relay.call.settings import Peer

SHARE: Final = 4  # one source gets at most 1/SHARE of the limit


class Strangers:
    """At most `per_s` responses per second to all unknown sources, and a part of it to each. It reads no clock."""

    # Placeholder in the record of a refused request.
    PEER: ClassVar[Peer] = Peer("", (), tcp_allowed=False, sources=())

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._rates = Rates()
        self._answered: Counter[str] = Counter()  # by source, in the current second; bounded by `per_s`
        self._second = 0

    def admit(self, source: str, now: float) -> bool:
        """Whether to answer one more request from that address; counts it if so."""
        if int(now) != self._second:
            self._second = int(now)
            self._answered.clear()
        if self._answered[source] * SHARE >= self._per_s or not self._rates.admit("", self._per_s, now):
            return False
        self._answered[source] += 1
        return True
