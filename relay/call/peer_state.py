"""How the peers look from here, for those who watch over them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.call.core import Core
    from relay.call.settings import Peer


class TargetState(NamedTuple):
    """One target of a peer."""

    target: str  # transport:address:port; of a name that is not looked up yet the name
    state: str  # up, down, or aside: it has asked for fewer calls, or does not answer and rests
    failures: int  # in a row
    aside_until: int | None  # Unix milliseconds


class PeerState(NamedTuple):
    """One peer. Without a target nothing can be sent to it: its name has no address, or it is not registered."""

    peer: str
    calls_in: int  # from it, that ring or are up
    calls_out: int  # to it
    registered: bool | None  # the peer here, or the relay there; None: neither is wanted
    targets: tuple[TargetState, ...]


def peer_states(core: Core, is_registered: Callable[[Peer, float], bool | None], now: float) -> list[PeerState]:
    """All of them, in the order of the configuration."""
    targets: dict[str, list[TargetState]] = {}
    for place in core.peers.places():
        aside_until = core.wall_ms(place.aside_until) if place.aside_until > now else None
        state = TargetState(place.name, place.state(now), place.failures, aside_until)
        targets.setdefault(place.peer.name, []).append(state)
    calls_in, calls_out = core.quotas_in.calls, core.quotas_out.calls
    return [
        PeerState(
            peer.name,
            calls_in.count(peer.name),
            calls_out.count(peer.name),
            is_registered(peer, now),
            tuple(targets.get(peer.name, ())),
        )
        for peer in core.settings.peers
    ]
