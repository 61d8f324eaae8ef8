"""What each peer has of calls, and whether one more is within its quota. It reads no clock.

Peers are counted by name: a call may be older than the configuration in force.
"""

from __future__ import annotations

from collections import Counter

from relay.call.bucket import Bucket
from relay.call.settings import Peer


class Quotas:
    """Of all peers of one relay."""

    def __init__(self) -> None:
        self.calls_in: Counter[str] = Counter()  # from each peer, by its name
        self.calls_out: Counter[str] = Counter()  # to each
        self._rates_in: dict[str, Bucket] = {}
        self._rates_out: dict[str, Bucket] = {}

    def admits_from(self, peer: Peer, now: float) -> bool:
        """Whether one more call may come from the peer; its INVITE is counted then."""
        quota = peer.quota
        if quota.max_calls_in and self.calls_in[peer.name] >= quota.max_calls_in:
            return False
        return self.is_within_rate_from(peer, now)

    def is_within_rate_from(self, peer: Peer, now: float) -> bool:
        """Whether the peer's rate leaves room for one more INVITE or MESSAGE from it, which is counted then."""
        rate = peer.quota.max_cps_in
        return not rate or _admit(self._rates_in, peer.name, rate, now)

    def admits_to(self, peer: Peer, now: float) -> bool:
        """Whether one more call may go to the peer; its INVITE is counted then."""
        quota = peer.quota
        if quota.max_calls_out and self.calls_out[peer.name] >= quota.max_calls_out:
            return False
        return self.is_within_rate_to(peer, now)

    def is_within_rate_to(self, peer: Peer, now: float) -> bool:
        """Likewise for one more to it."""
        rate = peer.quota.max_cps_out
        return not rate or _admit(self._rates_out, peer.name, rate, now)

    def forget_rates(self) -> None:
        """They may be other ones from now on."""
        self._rates_in.clear()
        self._rates_out.clear()


def _admit(rates: dict[str, Bucket], name: str, per_s: int, now: float) -> bool:
    rate = rates.get(name)
    if rate is None:
        rate = rates[name] = Bucket(per_s)
    return rate.admit(now)
