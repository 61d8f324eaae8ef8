"""Answers to sources that are no peer's: some, so that a wrong configuration shows, and never a flood."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final

from relay.call.rates import Rates
from relay.call.settings import Peer

SHARE: Final = 4  # one source gets so small a part: one alone leaves the others theirs


class Strangers:
    """`per_s` answers a second to all of them together, and a part of them to each. It reads no clock."""

    # Stands in the record of a refused stranger.
    PEER: ClassVar[Peer] = Peer("", (), tcp_allowed=False, sources=())

    def __init__(self, per_s: int) -> None:
        self._per_s = per_s
        self._rates = Rates()
        self._answered: Counter[str] = Counter()  # by source, in a second; no more of them than answers
        self._second = 0

    def admit(self, source: str, now: float) -> bool:
        """Whether one more from that address is answered; it is counted then."""
        if int(now) != self._second:
            self._second = int(now)
            self._answered.clear()
        if self._answered[source] * SHARE >= self._per_s or not self._rates.admit("", self._per_s, now):
            return False
        self._answered[source] += 1
        return True
