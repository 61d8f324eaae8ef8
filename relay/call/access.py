"""Authorisation of in-dialog requests, and the sources that are known: peers, and sides of calls in progress.

Only the dialog's own peer may speak in it, including a former one: a peer that the configuration no longer has, or
one without a fixed address that is not registered any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.call.in_dialog_relay import InDialogRelay
from relay.call.invite_session import InviteSession
from relay.defence.bans import Known
from relay.defence.limits import Strangers
from relay.peers.peers import holds, hosts_of

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.leg import Leg
    from relay.model.settings import Peer
    from relay.sip.message import Flow, Request


def former_peer(core: Core, request: Request, flow: Flow) -> Peer | None:
    """The peer of a call in progress whose source this was, for a source without a current peer; else None.

    Raises ParseError.
    """
    if request.method == "CANCEL":
        return _canceller(core, request, flow)
    leg = core.dialogs.leg_of(request)
    return leg.peer if leg is not None and _is_heard(leg.peer, leg.flow.host, flow) else None


def may_speak(leg: Leg, peer: Peer, flow: Flow) -> bool:
    """Whether a request in the leg's dialog comes from its peer: another peer may only have read the tags."""
    return peer.name == leg.peer.name or _is_heard(leg.peer, leg.flow.host, flow)


def _canceller(core: Core, request: Request, flow: Flow) -> Peer | None:
    """The peer of the INVITE that the CANCEL matches (RFC 3261 9.2)."""
    invite = core.transactions.find_cancelled(request)
    if invite is None:
        return None
    user, peer = invite.user, None
    if isinstance(user, InviteSession):
        peer = user.call.caller_peer
    elif isinstance(user, InDialogRelay):
        peer = user.origin.peer
    return peer if peer is not None and _is_heard(peer, invite.reply_to.host, flow) else None


def _is_heard(peer: Peer, last_heard: str, flow: Flow) -> bool:
    return holds(peer, flow.host) or (peer.login is not None and last_heard == flow.host)


# -- Trusted sources


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
    for leg in core.dialogs.legs.values():
        peers[id(leg.peer)] = leg.peer
        hosts.add(leg.flow.host)
    for peer in peers.values():
        hosts.update(hosts_of(peer))
    return Known([network for peer in peers.values() for network in peer.sources], hosts)
