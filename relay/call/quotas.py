"""Concurrent calls and call rate per peer, checked against its quota. It reads no clock.

Peers are counted by name, since a call may be older than the configuration in force.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.call.counts import Tally
from relay.call.places import Place
from relay.call.rates import Rates
from relay.call.settings import Quota


class Quotas:
    """The counts of one direction: calls from the peers, or calls to them."""

    __slots__ = ("calls", "rates")

    def __init__(self) -> None:
        self.calls = Tally()  # by peer name
        self.rates = Rates()  # of INVITEs and MESSAGEs

    def admits_call(self, name: str, quota: Quota, now: float) -> bool:
        """Whether the peer may have one more call; counts its INVITE if so."""
        if quota.max_calls and self.calls.everywhere(name) >= quota.max_calls:
            return False
        return self.admits_request(name, quota, now)

    def admits_request(self, name: str, quota: Quota, now: float) -> bool:
        """Whether the rate allows one more INVITE or MESSAGE; counts it if so."""
        return not quota.max_cps or self.rates.admit(name, quota.max_cps, now)


def next_admitted(places: list[Place], admits: Callable[[str, Quota, float], bool], now: float) -> Place | None:
    """Remove and return the first place whose peer has quota left, dropping those before it. `admits`: a method of the
    outbound `Quotas`."""
    while places:
        place = places.pop(0)
        if admits(place.peer.name, place.peer.quota_out, now):
            return place
    return None
