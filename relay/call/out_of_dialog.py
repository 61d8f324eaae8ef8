"""Out-of-dialog requests: INVITE, MESSAGE, REGISTER, OPTIONS and others; each is accepted or answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from relay.call import admission
from relay.call.call import Call, Calls
from relay.call.invite_session import InviteSession
from relay.call.text_message import TextMessage, TextMessages
from relay.defence.limits import Strangers
from relay.defence.stateless import DRAINING
from relay.errors import ParseError, ProtocolError
from relay.privacy import masking
from relay.privacy.messages import Reply
from relay.sip.message import Request, check_request

if TYPE_CHECKING:
    from relay.call.admission import Admission
    from relay.call.dialogs import Dialogs
    from relay.defence.bans import Bans
    from relay.defence.shedding import Shedding
    from relay.defence.stateless import Options, StatelessServer
    from relay.model.call import Refusal
    from relay.model.settings import Peer, Settings
    from relay.peers.registrar import Registrar
    from relay.sip.message import Flow

# Methods known but not supported here.
KNOWN_ELSEWHERE: Final = frozenset({"REGISTER", "SUBSCRIBE", "NOTIFY", "PUBLISH", "MESSAGE", "REFER"})
BUSY: Final = "Retry-After: 5\r\n"
_IN_DIALOG_ONLY: Final = frozenset({"BYE", "UPDATE", "INFO", "PRACK"})


class OutOfDialog:
    """Out-of-dialog requests of one engine. `draining`: new calls, text messages and OPTIONS are answered 503."""

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
        self.follow(settings)

    def follow(self, settings: Settings) -> None:
        """Apply a new configuration."""
        self._settings = settings
        self.strangers = Strangers(settings.limits.stranger_answers_per_s)

    def receive(self, request: Request, flow: Flow, peer: Peer, now: float) -> None:
        """Handle a peer's request without a To tag. Raises ParseError if it cannot even be answered."""
        is_recorded = self._is_recorded(request)
        if is_recorded and self._shedding.turns_away(request, flow, peer, now):
            return
        reply = Reply(request, flow)
        try:
            check_request(request)
            if request.method == "INVITE":
                self._invite(request, reply, peer, now)
            elif request.method == "REGISTER" and peer.login is not None:
                self._registrar.register(request, reply, peer, flow, now)
            elif is_recorded:
                self._message(request, reply, peer, now)
            else:
                self._question(request, reply, now)
        except ProtocolError as error:
            if is_recorded:
                self._refuse(request, reply, peer, admission.unusable(error), now)
            else:
                self._stateless.answer(reply, error.status, now)

    def turn_away(self, request: Request, flow: Flow, now: float) -> None:
        """Answer 403 to an unknown source, within the limit of answers; drop the rest."""
        outbox = self._ua.outbox
        outbox.counters["strangers"] += 1
        self._bans.offend(flow.host, "stranger", now, proven=flow.reliable)
        if request.method in ("ACK", "CANCEL") or not self.strangers.admit(flow.host, now):
            return
        outbox.note("request.stranger", source=flow.host)
        reply = Reply(request, flow)
        if request.to_tag is None and self._is_recorded(request):
            self._refuse(request, reply, Strangers.PEER, admission.STRANGER, now)
        else:
            self._stateless.answer(reply, 403, now)

    def _is_recorded(self, request: Request) -> bool:
        """Whether the request leaves a call record."""
        return request.method == "INVITE" or (request.method == "MESSAGE" and self._settings.sms)

    def _refuse(self, request: Request, reply: Reply, peer: Peer, refusal: Refusal, now: float) -> None:
        if request.method == "INVITE":
            self._set_up(request, reply, peer, now).refuse(refusal, now)
        else:
            TextMessage(self._messages, peer, request, reply, now).refuse(refusal, now)

    def _invite(self, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        settings = self._settings
        setup = self._set_up(request, reply, peer, now)
        dialled = setup.call.dialled
        try:
            objection = self._admission.judge_invite(request, reply.flow, peer, now)
        except ParseError as error:
            objection = (admission.unusable(error), "")
        if (
            self._calls.by_invite[setup.call.invite_key] is not setup.call
        ):  # merged request: it arrived on two paths (RFC 3261 8.2.2.2)
            setup.refuse(admission.LOOP, now)
        elif self.draining:
            setup.refuse(admission.DRAINING, now)
        elif objection:
            setup.refuse(objection[0], now, objection[1])
        elif refusal := admission.judge_number(settings, dialled):
            setup.refuse(refusal, now)
        elif admission.is_ours(settings, dialled):
            setup.call.share.comes_from(peer.name)
            setup.look_up()
        elif not admission.may_forward_as(settings, peer, setup.call.caller_number):
            setup.refuse(admission.CALLER_NOT_OF_PEER, now)
        else:
            setup.call.share.comes_from(peer.name)
            setup.routed(admission.forwarded(dialled, setup.call.caller_number), now)

    def _set_up(self, request: Request, reply: Reply, peer: Peer, now: float) -> InviteSession:
        ua = self._ua
        invite_key = (
            request.call_id,
            request.from_tag,
        )  # read before the transaction begins: a ParseError leaves nothing to answer
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
        setup = call.setup = InviteSession(ua, self._dialogs, self._calls.counts, call, request, reply, transaction)
        setup.begin(now)
        transaction.user = setup
        return setup

    def _message(self, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        message = TextMessage(self._messages, peer, request, reply, now)
        if self.draining:
            message.refuse(admission.DRAINING, now)
        else:
            message.begin(now)

    def _question(self, request: Request, reply: Reply, now: float) -> None:
        stateless, method = self._stateless, request.method
        if method == "OPTIONS":  # also with Max-Forwards 0 (RFC 3261 11), as some peers ping their neighbour
            if unknown := masking.unknown_requirements(request):
                stateless.answer(reply, 420, now, f"Unsupported: {', '.join(unknown)}\r\n")
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
            stateless.answer(reply, 405 if method in KNOWN_ELSEWHERE else 501, now, allow)
