"""Trusted sources: addresses of the peers, and of the former peers of calls in progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.call.bans import Known
from relay.call.peers import hosts_of
from relay.call.strangers import Strangers

if TYPE_CHECKING:
    from relay.call.core import Core


def known_sources(core: Core) -> Known:
    """Addresses that must not be banned, since requests or responses of calls come from there.

    Iterates over all calls.
    """
    peers = {id(peer): peer for peer in core.settings.peers}  # by identity: a peer's hash takes all its fields
    hosts = {place.flow.host for place in core.peers.places()}
    for call in core.attempts.values():
        if call.caller_peer is Strangers.PEER:
            continue
        peers[id(call.caller_peer)] = call.caller_peer
        hosts.add(call.caller_flow.host)
    for leg in core.legs.values():
        peers[id(leg.peer)] = leg.peer
        hosts.add(leg.flow.host)
    for peer in peers.values():
        hosts.update(hosts_of(peer))
    return Known([network for peer in peers.values() for network in peer.sources], hosts)
