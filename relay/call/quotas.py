"""What each peer has of calls, and whether one more is within its quota. It reads no clock.

Peers are counted by name: a call may be older than the configuration in force.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.call.counts import Tally
from relay.call.places import Place
from relay.call.rates import Rates
from relay.call.settings import Quota


class Quotas:
    """One way: calls from the peers of one relay, or calls to them."""

    __slots__ = ("calls", "rates")

    def __init__(self) -> None:
        self.calls = Tally()  # by the peer's name
        self.rates = Rates()  # of its INVITEs and MESSAGEs

    def admits_call(self, name: str, quota: Quota, now: float) -> bool:
        """Whether the named peer may have one more call; its INVITE is counted then."""
        if quota.max_calls and self.calls.everywhere(name) >= quota.max_calls:
            return False
        return self.admits_request(name, quota, now)

    def admits_request(self, name: str, quota: Quota, now: float) -> bool:
        """Whether its rate leaves room for one more INVITE or MESSAGE, which is counted then."""
        return not quota.max_cps or self.rates.admit(name, quota.max_cps, now)


def next_admitted(places: list[Place], admits: Callable[[str, Quota, float], bool], now: float) -> Place | None:
    """Takes places off the list up to the first whose peer may have one more, by a method of the `Quotas` towards
    peers; that one is the answer."""
    while places:
        place = places.pop(0)
        if admits(place.peer.name, place.peer.quota_out, now):
            return place
    return None
