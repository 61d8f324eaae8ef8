"""Dispatches each request of a peer, within a call or outside: accepts it, relays it, ends the call or answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.call import admission
from relay.call.call import Call, Calls
from relay.call.caller_invite import CallerInvite
from relay.call.dialogs import Dialogs, is_heard, may_speak
from relay.call.in_dialog_relay import InDialogRelay
from relay.call.invite_session import InviteSession
from relay.call.state_codec import MOST_HEAD, head_of
from relay.call.text_message import TextMessage, TextMessages
from relay.defence.limits import PeerShares, Strangers
from relay.defence.stateless import DRAINING, Options, StatelessServer
from relay.errors import ParseError, ProtocolError
from relay.model import outcomes
from relay.privacy import masking
from relay.privacy.messages import Reply, timestamp_line, unsupported_line
from relay.sip.message import Flow, Request, check_request

if TYPE_CHECKING:
    from relay.call.admission import Admission
    from relay.call.leg import Leg
    from relay.defence.bans import Bans
    from relay.defence.shedding import Shedding
    from relay.model.call import Refusal
    from relay.model.settings import Peer, Settings
    from relay.peers.registrar import Registrar
    from relay.peers.user_agent import UserAgent

# Methods known but not supported here.
_KNOWN_ELSEWHERE: Final = frozenset({"REGISTER", "SUBSCRIBE", "NOTIFY", "PUBLISH", "MESSAGE", "REFER"})
_RETRY_SOON: Final = "Retry-After: 5\r\n"
_RELAYED: Final = frozenset({"INVITE", "UPDATE", "INFO", "PRACK", "OPTIONS"})
_IN_DIALOG_ONLY: Final = frozenset({"BYE", "UPDATE", "INFO", "PRACK"})


class OutOfDialog:
    """Out-of-dialog requests of one engine. `draining`: new calls, text messages and OPTIONS are answered 503.

    `closed`: new calls and text messages get no answer, since nothing writes their records any more.
    """

    def __init__(
        self,
        settings: Settings,
        calls: Calls,
        messages: TextMessages,
        dialogs: Dialogs,
        admission: Admission,
        registrar: Registrar,
        options: Options,
        shedding: Shedding,
        stateless: StatelessServer,
        bans: Bans,
    ) -> None:
        self.draining = False
        self.closed = False
        self._calls = calls
        self._messages = messages
        self._dialogs = dialogs
        self._admission = admission
        self._registrar = registrar
        self._options = options
        self._shedding = shedding
        self._stateless = stateless
        self._bans = bans
        self._ua = calls.ua
        self.apply_config(settings)

    def apply_config(self, settings: Settings) -> None:
        """Apply a new configuration."""
        self._settings = settings
        self.strangers = Strangers(settings.limits.stranger_answers_per_s)

    def receive(self, request: Request, flow: Flow, peer: Peer, now: float) -> None:
        """Handle a peer's request without a To tag. Raises ParseError if it cannot even be answered."""
        is_recorded = self._is_recorded(request)
        if is_recorded and (self.closed or self._shedding.sheds_request(request, flow, peer, now)):
            return
        reply = Reply(request, flow)
        try:
            check_request(request)
            if is_recorded and self._is_merged(request):
                self._ua.outbox.counters["requests_merged"] += 1
                self._stateless.answer(reply, 482, now)
            elif request.method == "INVITE":
                self._invite(request, reply, peer, now)
            elif request.method == "REGISTER" and peer.login is not None:
                self._registrar.register(request, reply, peer, flow, now)
            elif is_recorded:
                self._message(request, reply, peer, now)
            else:
                self._question(request, reply, now)
        except ProtocolError as error:
            if is_recorded:
                self._refuse(request, reply, peer, admission.refusal_of_error(error), now)
            else:
                self._stateless.answer(reply, error.status, now)

    def refuse_stranger(self, request: Request, flow: Flow, now: float) -> None:
        """Answer 403 to an unknown source, within the limit of answers; drop the rest."""
        outbox = self._ua.outbox
        outbox.counters["strangers"] += 1
        self._bans.offend(flow.host, "stranger", now, proven=flow.reliable)
        if request.method in ("ACK", "CANCEL") or not self.strangers.admit(flow.host, now):
            return
        outbox.note("request.stranger", source=flow.host)
        reply = Reply(request, flow)
        if request.to_tag is not None or not self._is_recorded(request):
            self._stateless.answer(reply, 403, now)
        elif not self.closed:
            self._refuse(request, reply, Strangers.PEER, outcomes.STRANGER, now)

    def _is_recorded(self, request: Request) -> bool:
        """Whether the request leaves a call record."""
        return request.method == "INVITE" or (request.method == "MESSAGE" and self._settings.sms)

    def _is_merged(self, request: Request) -> bool:
        """Whether the request is a copy of one under way, to the same number, that came by another path. It belongs to
        the same attempt and record; a copy to another number is an attempt of its own."""
        # RFC 3261 8.2.2.2: "If the From tag, Call-ID, and CSeq exactly match those associated with an ongoing
        # transaction, but the request does not match that transaction", it is answered 482.
        key = (request.call_id, request.from_tag, request.cseq.number)
        is_call = request.method == "INVITE"
        known: Call | TextMessage | None = (self._calls.by_invite if is_call else self._messages.by_key).get(key)
        return known is not None and known.dialled == admission.number_dialled(request)

    def _refuse(self, request: Request, reply: Reply, peer: Peer, refusal: Refusal, now: float) -> None:
        if request.method == "INVITE":
            self._set_up(request, reply, peer, now)[0].refuse(refusal, now)
        else:
            TextMessage(self._messages, peer, request, reply, now).refuse(refusal, now)

    def _invite(self, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        settings = self._settings
        session, invite = self._set_up(request, reply, peer, now)
        dialled = session.call.dialled
        try:
            objection = self._admission.check_invite(request, reply.flow, peer, now)
        except ParseError as error:
            objection = (admission.refusal_of_error(error), "")
        # A merged request to another number (RFC 3261 8.2.2.2).
        if self._calls.by_invite[session.call.invite_key] is not session.call:
            session.refuse(outcomes.LOOP, now)
        elif self.draining:
            session.refuse(outcomes.DRAINING, now)
        elif objection:
            session.refuse(objection[0], now, objection[1])
        elif len(invite.head) > MOST_HEAD:
            session.refuse(outcomes.TOO_LONG, now)
        elif refusal := admission.refusal_of_number(settings, dialled):
            session.refuse(refusal, now)
        elif admission.is_ours(settings, dialled):
            session.call.reservation.comes_from(peer.name)
            session.look_up()
        elif not admission.may_forward_as(settings, peer, session.call.caller_number):
            session.refuse(outcomes.CALLER_NOT_OF_PEER, now)
        else:
            session.call.reservation.comes_from(peer.name)
            shown = "" if masking.asks_for_privacy(request) else session.call.caller_number
            session.routed(admission.forwarding_route(dialled, shown), now)

    def _set_up(self, request: Request, reply: Reply, peer: Peer, now: float) -> tuple[InviteSession, CallerInvite]:
        ua = self._ua
        # Read before the transaction begins: a ParseError leaves nothing to answer.
        invite_key = (request.call_id, request.from_tag, request.cseq.number)
        transaction = ua.transactions.serve(request, reply.flow, peer.name)
        call = Call(
            self._calls,
            peer,
            reply.flow,
            caller=admission.number_of_caller(request, peer),
            dialled=admission.number_dialled(request),
            invite_key=invite_key,
            received_at=self._calls.clock.ms(now),
        )
        invite = CallerInvite(ua, request, reply, transaction)
        session = call.session = InviteSession(ua, self._dialogs, self._calls.counts, call, invite)
        session.begin(now)
        transaction.user = session
        return session, invite

    def _message(self, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        message = TextMessage(self._messages, peer, request, reply, now)
        if self.draining:
            message.refuse(outcomes.DRAINING, now)
        elif len(head_of(request)) > MOST_HEAD:
            message.refuse(outcomes.TOO_LONG, now)
        else:
            message.begin(now)

    def _question(self, request: Request, reply: Reply, now: float) -> None:
        stateless, method = self._stateless, request.method
        if method == "OPTIONS":  # also with Max-Forwards 0 (RFC 3261 11), as some peers ping their neighbour
            if unknown := masking.unknown_requirements(request):
                stateless.answer(reply, 420, now, unsupported_line(unknown))
            elif self.draining:
                stateless.answer(reply, 503, now, DRAINING)
            else:
                stateless.answer(reply, 200, now, self._options.capabilities)
        elif request.max_forwards == 0:
            stateless.answer(reply, 483, now)
        elif method in _IN_DIALOG_ONLY:
            stateless.answer(reply, 481, now)
        else:
            allow = masking.ALLOW_WITH_MESSAGE if self._settings.sms else masking.ALLOW
            stateless.answer(reply, _status_for(method), now, allow)


def _status_for(method: str) -> int:
    """The status for a method that is not supported."""
    return 405 if method in _KNOWN_ELSEWHERE else 501


class InDialog:
    """In-dialog requests of one engine."""

    def __init__(self, ua: UserAgent, dialogs: Dialogs, shares: PeerShares, stateless: StatelessServer) -> None:
        self._ua = ua
        self._dialogs = dialogs
        self._shares = shares
        self._stateless = stateless

    def former_peer(self, request: Request, flow: Flow) -> Peer | None:
        """The peer of a call in progress that used this source, if the source has no current peer; else None.

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
            self._shares.count_stray(peer.name, now)

    def cancel(self, request: Request, flow: Flow, peer: Peer, now: float) -> None:
        """Answer the CANCEL, then its INVITE, which must come from the same peer (RFC 3261 9.2)."""
        invite = self._ua.transactions.find_cancelled(request)
        reply = Reply(request, flow)
        if invite is None or (
            invite.reply_to.host != flow.host and self._ua.peers.by_source(invite.reply_to.host) is not peer
        ):
            self._stateless.answer(reply, 481, now)
            return
        user = invite.user
        # RFC 3261 9.2: the To tag of this response and of those to the INVITE SHOULD be the same.
        tag = user.choose_tag() if isinstance(user, InviteSession) else ""
        self._stateless.answer(reply, 200, now, tag=tag)
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
        elif (request.method != "BYE" or leg.call.is_over) and not self._shares.admits_transaction(peer.name, now):
            stateless.answer(reply, 503, now, _RETRY_SOON)
        elif request.method == "BYE":
            leg.call.hung_up(leg, request, reply, peer.name, now)
        elif leg.call.is_over or leg.bye_sent:
            stateless.answer(reply, 481, now)
        elif request.method not in _RELAYED:
            stateless.answer(reply, _status_for(request.method), now, masking.ALLOW)
        elif unknown := masking.unknown_requirements(request):
            stateless.answer(reply, 420, now, unsupported_line(unknown))
        else:
            self._relay(leg, request, reply, peer, now)

    def _relay(self, leg: Leg, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        leg.dialog.receive_cseq(request.cseq.number)
        transaction = self._ua.transactions.serve(request, reply.flow, peer.name)
        if request.method == "INVITE":
            transaction.respond(100, reply.write(100, extra=timestamp_line(request)), now)
        relay = InDialogRelay(self._ua, leg, request, reply, transaction)
        transaction.user = relay
        relay.begin(now)
