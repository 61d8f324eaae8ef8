"""Authorisation of in-dialog requests: only the dialog's own peer, including a former one.

A source is a former peer's if the call is older than the configuration, or if the peer has no fixed address and is not
registered there any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.call.exchange import Exchange
from relay.call.peers import holds
from relay.call.setup import Setup

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.leg import Leg
    from relay.call.settings import Peer
    from relay.sip.flow import Flow
    from relay.sip.message import Request


def former_peer(core: Core, request: Request, flow: Flow) -> Peer | None:
    """The peer of a call in progress whose source this was, for a source without a current peer; else None.

    Raises ParseError.
    """
    if request.method == "CANCEL":
        return _canceller(core, request, flow)
    leg = core.leg_of(request)
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
    if isinstance(user, Setup):
        peer = user.call.caller_peer
    elif isinstance(user, Exchange):
        peer = user.origin.peer
    return peer if peer is not None and _is_heard(peer, invite.reply_to.host, flow) else None


def _is_heard(peer: Peer, last_heard: str, flow: Flow) -> bool:
    return holds(peer, flow.host) or (peer.login is not None and last_heard == flow.host)
