"""In-dialog requests, and the CANCEL of any INVITE: each is relayed, ends a call, or is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.call.dialogs import is_heard, may_speak
from relay.call.in_dialog_relay import InDialogRelay
from relay.call.invite_session import InviteSession
from relay.call.out_of_dialog import BUSY, KNOWN_ELSEWHERE
from relay.errors import ProtocolError
from relay.privacy import masking
from relay.privacy.messages import Reply
from relay.sip.message import Request, check_request

if TYPE_CHECKING:
    from relay.call.dialogs import Dialogs
    from relay.call.leg import Leg
    from relay.defence.limits import PeerShares
    from relay.defence.stateless import StatelessServer
    from relay.model.settings import Peer
    from relay.peers.user_agent import UserAgent
    from relay.sip.message import Flow

_RELAYED: Final = frozenset({"INVITE", "UPDATE", "INFO", "PRACK", "OPTIONS"})


class InDialog:
    """In-dialog requests of one engine."""

    def __init__(self, ua: UserAgent, dialogs: Dialogs, shares: PeerShares, stateless: StatelessServer) -> None:
        self._ua = ua
        self._dialogs = dialogs
        self._shares = shares
        self._stateless = stateless

    def former_peer(self, request: Request, flow: Flow) -> Peer | None:
        """The peer of a call in progress whose source this was, for a source without a current peer; else None.

        Raises ParseError.
        """
        if request.method == "CANCEL":
            return self._canceller(request, flow)
        leg = self._dialogs.leg_of(request)
        return leg.peer if leg is not None and is_heard(leg.peer, leg.flow.host, flow) else None

    def _canceller(self, request: Request, flow: Flow) -> Peer | None:
        """The peer of the INVITE that the CANCEL matches (RFC 3261 9.2)."""
        invite = self._ua.transactions.find_cancelled(request)
        if invite is None:
            return None
        user, peer = invite.user, None
        if isinstance(user, InviteSession):
            peer = user.call.caller_peer
        elif isinstance(user, InDialogRelay):
            peer = user.origin.peer
        return peer if peer is not None and is_heard(peer, invite.reply_to.host, flow) else None

    def acknowledge(self, request: Request, flow: Flow, peer: Peer, now: float) -> None:
        """Handle the ACK to a 2xx of ours."""
        leg = self._dialogs.leg_of(request)
        if leg is not None and may_speak(leg, peer, flow):
            leg.receive_ack(request, now)
        else:
            self._shares.admits_stray(peer.name, now)

    def cancel(self, request: Request, flow: Flow, peer: Peer, now: float) -> None:
        """Answer the CANCEL, then its INVITE, which must come from the same peer (RFC 3261 9.2)."""
        invite = self._ua.transactions.find_cancelled(request)
        reply = Reply(request, flow)
        if invite is None or (
            invite.reply_to.host != flow.host and self._ua.peers.by_source(invite.reply_to.host) is not peer
        ):
            self._stateless.answer(reply, 481, now)
            return
        self._stateless.answer(reply, 200, now)
        user = invite.user
        if isinstance(user, InviteSession):
            user.cancel(request, now)
        elif isinstance(user, InDialogRelay):
            user.cancel(now)

    def receive(self, request: Request, flow: Flow, peer: Peer, now: float) -> None:
        """Handle a peer's request with a To tag, except ACK and CANCEL. Raises ParseError if it cannot be answered."""
        reply = Reply(request, flow)
        try:
            check_request(request)
            self._take(request, reply, peer, now)
        except ProtocolError as error:
            self._stateless.answer(reply, error.status, now)

    def _take(self, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        stateless, leg = self._stateless, self._dialogs.leg_of(request)
        if leg is None or not may_speak(leg, peer, reply.flow):
            stateless.answer(reply, 481, now)
        elif request.max_forwards == 0:
            stateless.answer(reply, 483, now)
        elif (request.method != "BYE" or leg.call.ended) and not self._shares.has_room(peer.name, now):
            stateless.answer(reply, 503, now, BUSY)
        elif request.method == "BYE":
            leg.call.hung_up(leg, request, reply, peer.name, now)
        elif leg.call.ended or leg.bye_sent:
            stateless.answer(reply, 481, now)
        elif request.method not in _RELAYED:
            stateless.answer(reply, 405 if request.method in KNOWN_ELSEWHERE else 501, now, masking.ALLOW)
        elif unknown := masking.unknown_requirements(request):
            stateless.answer(reply, 420, now, f"Unsupported: {', '.join(unknown)}\r\n")
        else:
            self._relay(leg, request, reply, peer, now)

    def _relay(self, leg: Leg, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        leg.dialog.receive_cseq(request.cseq.number)
        transaction = self._ua.transactions.serve(request, reply.flow, peer.name)
        if request.method == "INVITE":
            transaction.respond(100, reply.write(100), now)
        relay = InDialogRelay(self._ua, leg, request, reply, transaction)
        transaction.user = relay
        relay.begin(now)
