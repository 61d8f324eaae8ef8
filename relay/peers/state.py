"""State of the peers for the operator: calls, registration, targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.model.settings import Peer
    from relay.peers.limits import CallCounts
    from relay.peers.peers import Peers
    from relay.sip.timers import WallClock


class TargetState(NamedTuple):
    """One target of a peer."""

    target: str  # transport:address:port; the name until it is resolved
    state: str  # up, down, or aside (Retry-After, or a pause after failures)
    failures: int  # consecutive
    aside_until: int | None  # Unix milliseconds


class PeerState(NamedTuple):
    """One peer. Without targets it is unreachable: its name has no address, or it is not registered."""

    peer: str
    calls_in: int  # from it, in setup or answered
    calls_out: int  # to it
    registered: bool | None  # the peer here, or the relay there; None: neither is configured
    targets: tuple[TargetState, ...]


def peer_states(
    peers: Peers,
    counts: CallCounts,
    clock: WallClock,
    is_registered: Callable[[Peer, float], bool | None],
    now: float,
) -> list[PeerState]:
    """All peers, in the order of the configuration."""
    targets: dict[str, list[TargetState]] = {}
    for place in peers.places():
        aside_until = clock.ms(place.aside_until) if place.aside_until > now else None
        state = TargetState(place.name, place.state(now), place.failures, aside_until)
        targets.setdefault(place.peer.name, []).append(state)
    calls_in, calls_out = counts.quotas_in.calls, counts.quotas_out.calls
    return [
        PeerState(
            peer.name,
            calls_in.count(peer.name),
            calls_out.count(peer.name),
            is_registered(peer, now),
            tuple(targets.get(peer.name, ())),
        )
        for peer in peers.all()
    ]
