"""Calls by peer: concurrent ones and their rate, checked against its quota; what one call holds of all limits; results.

Peers are counted by name, since a call may be older than the configuration in force. It reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from relay.defence.limits import Rates, Tally
from relay.model.call import Refusal, Route, refusal_on_route
from relay.model.histogram import CALL_BOUNDS_S, Form, Histogram
from relay.model.settings import Quota
from relay.peers.targets import TargetState

# Names in `CallCounts.stages`.
SETTING_UP: Final = "setting_up"  # calls not answered yet
UP: Final = "up"  # answered calls
ANNOUNCING: Final = "announcing"  # part of SETTING_UP: refused callers who hear an announcement


class PeerQuotas:
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

    def has_room(self, name: str, quota: Quota, now: float) -> bool:
        """Whether `admits_call` would admit one more call. Counts nothing."""
        if quota.max_calls and self.calls.everywhere(name) >= quota.max_calls:
            return False
        return self.has_rate(name, quota, now)

    def has_rate(self, name: str, quota: Quota, now: float) -> bool:
        """Whether `admits_request` would admit one more request. Counts nothing."""
        return not quota.max_cps or self.rates.has_room(name, quota.max_cps, now)


def next_admitted(
    targets: list[TargetState], admits: Callable[[str, Quota, float], bool], now: float
) -> TargetState | None:
    """Remove and return the first target whose peer has quota left, dropping those before it. `admits`: a method of the
    outbound `PeerQuotas`."""
    while targets:
        target = targets.pop(0)
        if admits(target.peer.name, target.peer.quota_out, now):
            return target
    return None


def is_one_admitted(targets: list[TargetState], has_room: Callable[[str, Quota, float], bool], now: float) -> bool:
    """Whether `next_admitted` would find a target. `has_room`: a method of the outbound `PeerQuotas`, counting none."""
    return any([has_room(target.peer.name, target.peer.quota_out, now) for target in targets])


class CallResults:
    """The calls of one engine that have got their final response, since its start. Keys are peers and outcomes."""

    __slots__ = ("_post_dial_delay", "_received", "_sent", "_setup")

    def __init__(self) -> None:
        self._received: dict[tuple[str, str], int] = {}
        self._sent: dict[tuple[str, str], int] = {}
        self._post_dial_delay = Histogram(CALL_BOUNDS_S)
        self._setup = Histogram(CALL_BOUNDS_S)

    def add(
        self,
        outcome: str,
        peer_in: str,
        peer_out: str | None,
        received_at: int,
        ringing_at: int | None,
        answered_at: int | None,
    ) -> None:
        """Count one call: 0.5 us interpreted. Times are Unix milliseconds."""
        key = (peer_in, outcome)
        self._received[key] = self._received.get(key, 0) + 1
        if peer_out is None:
            return
        key = (peer_out, outcome)
        self._sent[key] = self._sent.get(key, 0) + 1
        if answered_at is not None:
            self._setup.add(peer_out, answered_at - received_at)
        first_at = answered_at if ringing_at is None else ringing_at
        if first_at is not None:
            self._post_dial_delay.add(peer_out, first_at - received_at)

    def statistics(self) -> dict[str, Mapping[str, int] | Form]:
        """By name of the metric."""
        return {
            "calls_in": {f"{peer} {outcome}": count for (peer, outcome), count in self._received.items()},
            "calls_out": {f"{peer} {outcome}": count for (peer, outcome), count in self._sent.items()},
            "call_setup_seconds": self._setup.statistics(),
            "call_post_dial_delay_seconds": self._post_dial_delay.statistics(),
        }


class CallCounts:
    """The calls of one engine, counted by stage, by peer, by cap and by outcome."""

    __slots__ = ("calls_by_key", "quotas_in", "quotas_out", "results", "stages")

    def __init__(self) -> None:
        self.stages = Tally()
        self.quotas_in = PeerQuotas()  # of calls from peers
        self.quotas_out = PeerQuotas()  # of calls to peers
        self.calls_by_key = Tally()  # counted against the caps of routes
        self.results = CallResults()

    def over_concurrency_cap(self, route: Route) -> Refusal | None:
        """A refusal if a business or a number of the route has its maximum of concurrent calls."""
        for key, most, refusal in route.caps:
            if self.calls_by_key.everywhere(key) >= most:
                return refusal_on_route(refusal, route)
        return None


# -- The call's reservation in concurrency limits


class CallReservation:
    """The reservation of one call."""

    __slots__ = ("_counts", "_source", "_target", "keys")

    def __init__(self, counts: CallCounts) -> None:
        self._counts = counts
        self._source: str | None = None  # inbound peer
        self._target: str | None = None  # outbound peer
        self.keys: tuple[str, ...] = ()  # of its route's caps

    def comes_from(self, peer: str) -> None:
        self._source = peer
        self._counts.quotas_in.calls.begin(peer)

    def goes_to(self, peer: str) -> None:
        """Move the outbound reservation to `peer`."""
        self._leave()
        self._target = peer
        self._counts.quotas_out.calls.begin(peer)

    def _leave(self) -> None:
        if self._target is not None:
            self._counts.quotas_out.calls.end(self._target)
            self._target = None

    def falls_under(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        for key in keys:
            self._counts.calls_by_key.begin(key)

    def give_back(self) -> None:
        """Release everything. Idempotent."""
        self._leave()
        if self._source is not None:
            self._counts.quotas_in.calls.end(self._source)
            self._source = None
        for key in self.keys:
            self._counts.calls_by_key.end(key)
        self.keys = ()
