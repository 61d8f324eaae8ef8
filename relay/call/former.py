"""Peers of calls that are older than the configuration: what they send in their calls is still taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.call.exchange import Exchange
from relay.call.peers import holds
from relay.call.setup import Setup

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.settings import Peer
    from relay.sip.flow import Flow
    from relay.sip.message import Request


def former_peer(core: Core, request: Request, flow: Flow) -> Peer | None:
    """Whose request it is, where its source is no peer's now but was that of a call that is up; else None.

    Raises ParseError.
    """
    peer = _canceller(core, request) if request.method == "CANCEL" else _dialog_peer(core, request)
    return peer if peer is not None and holds(peer, flow.host) else None


def _dialog_peer(core: Core, request: Request) -> Peer | None:
    leg = core.leg_of(request)
    return None if leg is None else leg.peer


def _canceller(core: Core, request: Request) -> Peer | None:
    """Whose INVITE the CANCEL names (RFC 3261 9.2)."""
    invite = core.transactions.find_cancelled(request)
    user = None if invite is None else invite.user
    if isinstance(user, Setup):
        return user.call.caller_peer
    return user.origin.peer if isinstance(user, Exchange) else None
