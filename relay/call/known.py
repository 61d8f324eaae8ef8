"""Who has a part in the relay's calls, by address: the peers, and who was a peer when a call that is up was made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.call.bans import Known
from relay.call.peers import hosts_of
from relay.call.strangers import Strangers

if TYPE_CHECKING:
    from relay.call.core import Core


def known_sources(core: Core) -> Known:
    """Whom no ban may touch: from there come requests, or answers to ours, that must be heard.

    Looks through all calls.
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
