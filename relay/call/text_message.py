"""A text message to a 700 number: a MESSAGE outside a dialog (RFC 3428), from its arrival to its response.

One transaction is relayed to another, with only the text of the sender in it. It is processed like an INVITE
(admission, look-up, targets in turn, record, response), but makes no dialog and cannot be cancelled.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay.call import admission
from relay.call.state_codec import dump_attempt, head_of
from relay.errors import ParseError, ProtocolError
from relay.model import outcomes
from relay.model.call import CallRecord, Refusal, Route, record_id, refusal_on_route
from relay.model.numbers import is_700
from relay.model.outcomes import DELIVERED, Outcome
from relay.peers.limits import is_one_admitted, next_admitted
from relay.peers.peers import party_uri, user_for
from relay.peers.targets import is_tried_elsewhere, mark_responded, mark_unreachable, select_secure, who_ended
from relay.peers.user_agent import ClientRequest, UserAgent
from relay.privacy import masking
from relay.privacy.leak_check import LeakCheck, leak_check_towards_callee
from relay.privacy.messages import OutgoingRequest, Reply
from relay.privacy.text_memory import TextMemory, mask_across, tails_after
from relay.privacy.texts import MOST_PASSES, mask_within, read_text, text_body
from relay.sip.message import Request, Response, transport_address
from relay.sip.uri import is_sips

if TYPE_CHECKING:
    from relay.call.admission import Admission
    from relay.call.dialogs import Dialogs
    from relay.model.actions import LookUp
    from relay.model.settings import Peer, Settings
    from relay.peers.limits import CallCounts
    from relay.peers.targets import TargetState
    from relay.privacy.masking import Body
    from relay.sip.message import Flow
    from relay.sip.timers import Timer, WallClock
    from relay.sip.transaction import ServerTransaction

PATIENCE: Final = 0.9  # fraction of the sender's timer F, after which a response is useless (RFC 4320 3)


MessageKey = tuple[str, str | None, int]  # Call-ID, From tag and CSeq


class TextMessages:
    """The text messages of one engine that are not answered yet, and what each of them needs."""

    __slots__ = ("admission", "by_key", "clock", "counts", "dialogs", "settings", "texts", "ua")

    def __init__(
        self,
        ua: UserAgent,
        dialogs: Dialogs,
        counts: CallCounts,
        admission: Admission,
        clock: WallClock,
        settings: Settings,
    ) -> None:
        self.by_key: dict[MessageKey, TextMessage] = {}
        self.texts = TextMemory()
        self.ua = ua
        self.dialogs = dialogs
        self.counts = counts
        self.admission = admission
        self.clock = clock
        self.settings = settings  # for new text messages


class TextMessage:
    """One MESSAGE of a sender. `_decided`: the response is chosen and cannot change any more."""

    __slots__ = (
        "_all",
        "_body",
        "_clock_offset_s",
        "_deadline",
        "_decided",
        "_delivery",
        "_key",
        "_peer",
        "_pending_look_up",
        "_record",
        "_reply",
        "_request",
        "_route",
        "_settings",
        "_targets",
        "_text",
        "_timer",
        "_transaction",
        "_ua",
    )

    def __init__(self, messages: TextMessages, peer: Peer, request: Request, reply: Reply, now: float) -> None:
        """Raises ParseError if Call-ID, From tag or CSeq is malformed; no transaction has begun then."""
        self._key = (request.call_id, request.from_tag, request.cseq.number)
        ua = self._ua = messages.ua
        received_at = messages.clock.ms(now)
        self._all = messages
        self._settings = messages.settings
        self._clock_offset_s = messages.clock.offset_s
        self._peer = peer
        self._request = request
        self._reply = reply
        self._transaction: ServerTransaction = ua.transactions.serve(request, reply.flow, peer.name)
        self._record = _record(record_id(received_at, ua.token), peer, request, reply.flow, received_at)
        self._deadline = now + PATIENCE * ua.timings.transaction_s
        self._decided = False
        self._pending_look_up: LookUp | None = None
        self._route: Route | None = None
        self._text = ""
        self._body: Body | None = None
        self._targets: list[TargetState] = []  # not tried yet
        self._delivery: Delivery | None = None
        self._timer: Timer | None = None
        messages.by_key.setdefault(self._key, self)
        ua.outbox.link(self.call_id, request.call_id, "caller", peer.name, reply.flow)
        ua.outbox.keep_attempt(self._record, dump_attempt(reply.flow, head_of(request)))

    @property
    def call_id(self) -> str:
        """The call id of the record."""
        return self._record.call_id

    @property
    def dialled(self) -> str:
        return self._record.number_dialled

    # -- the look-up

    def begin(self, now: float) -> None:
        """Look up the route, or refuse the message."""
        settings, record = self._settings, self._record
        try:
            objection = self._all.admission.check_message(self._request, self._reply.flow, self._peer, now)
            self._text = read_text(self._request)
        except (ProtocolError, ParseError) as error:
            self.refuse(admission.refusal_of_error(error), now, admission.lines_for(error))
            return
        if self._all.by_key[self._key] is not self:  # merged, to another number (RFC 3261 8.2.2.2)
            self.refuse(outcomes.LOOP, now)
        elif objection is not None:
            self.refuse(objection[0], now, objection[1])
        elif not admission.is_ours(settings, record.number_dialled):
            self.refuse(admission.refusal_of_number(settings, record.number_dialled) or outcomes.NUMBER_UNKNOWN, now)
        else:
            self._pending_look_up = self._ua.outbox.look_up(
                record.number_dialled, record.caller, self._routed, "message", self._peer, self.call_id
            )

    def _routed(self, answer: Route | Refusal, now: float) -> None:
        texts = self._all.texts
        if self._decided:  # stopped while the look-up was pending
            return
        if isinstance(answer, Refusal):
            self.refuse(answer, now)
            return
        sender = self._record.caller
        before = texts.before(sender, answer.binding_id, now)
        passes = 1 if self._settings.sms_numbers == "refuse" else MOST_PASSES
        text = mask_within(passes, self._text, sender)
        if text is not None:
            text = mask_across(passes, text, sender, before)
        if text is None:
            # It is not given up, and so counts towards caps on frequency: trying the filter is not free.
            look_up, self._pending_look_up = self._pending_look_up, None
            if look_up is not None:
                look_up.last_caller = None
            self._record = self._record._replace(number_shown=answer.shown)  # also after a restart: `granted_since`
            self.refuse(refusal_on_route(outcomes.NUMBER_IN_TEXT, answer), now)
            return
        targets = self._ua.peers.candidates(answer.callee, now, self._ua.token)
        if is_sips(self._request.uri) and not (targets := select_secure(targets)):
            self.refuse(refusal_on_route(outcomes.NOT_SECURE, answer), now)
            return
        texts.remember(sender, answer.binding_id, tails_after(before, text), now)
        self._pending_look_up = None
        self._route = answer
        self._body = text_body(text)
        self._record = self._record._replace(
            binding_id=answer.binding_id,
            mode=answer.mode,
            business=answer.business,
            order_id=answer.order_id,
            industrial_id=answer.industrial_id,
            number_shown=answer.shown,
            callee=answer.callee,
            routed_at=self._wall_ms(now),
            direction=answer.direction,
            legacy=answer.legacy,
            qualification=answer.qualification,
            decided_by=answer.decided_by or None,
        )
        self._targets = targets
        self._try_next(outcomes.NO_PEER, "no_peer", now)

    # -- the targets

    def _try_next(self, outcome: Outcome, reason: str, now: float) -> None:
        """Try the next target; without one, refuse with `outcome`."""
        outbox = self._ua.outbox
        was_none = not self._targets
        target = next_admitted(self._targets, self._all.counts.quotas_out.admits_request, now)
        if target is None:
            if self._record.peer_out is None and not was_none:  # every peer is at its limit
                self.refuse(outcomes.OVER_LIMIT, now)
            else:
                self._close(outcome, who_ended(reason), reason, now)
            return
        assert self._route is not None
        assert self._body is not None
        delivery = Delivery(self._ua, self._all.dialogs, self, target)
        if not delivery.start(self._request, self._route, self._body, self._leak_check(target), now):
            outbox.counters["leak_check"] += 1
            outbox.note("leak_check", call_id=self._record.call_id, towards="callee")
            self._close(outcomes.LEAK, "relay", "leak_check", now)
            return
        self._delivery = delivery
        self._record = self._record._replace(peer_out=target.peer.name, callee_leg_call_id=delivery.call_id)
        self._watch(now)

    def _leak_check(self, target: TargetState) -> LeakCheck:
        caller = self._record.caller
        hidden = "" if is_700(caller) else caller  # a 700 number may occur in a text
        return leak_check_towards_callee(
            hidden, self._peer, self._reply.flow.host, target.peer, target.flow.host, self._ua.peers.hosts
        )

    def _watch(self, now: float) -> None:
        """Set the single timer: for failover, if there is another target, and for the sender's deadline."""
        timers = self._ua.timers
        timers.cancel(self._timer)
        when = min(self._deadline, now + self._settings.no_progress_s) if self._targets else self._deadline
        self._timer = timers.set(when, self._wake)

    def _wake(self, now: float) -> None:
        self._timer = None
        delivery, is_over = self._delivery, now >= self._deadline
        gives_up = delivery is not None and delivery.is_silent and (is_over or self._has_other(now))
        if delivery is not None and gives_up:
            mark_unreachable(self._ua.outbox, delivery.target, now)
        if is_over:
            self._close(outcomes.NO_PROGRESS, "relay", "no_response", now)
        elif gives_up:
            self._try_next(outcomes.NO_PROGRESS, "no_response", now)
        else:
            self._watch(now)

    def _has_other(self, now: float) -> bool:
        """Whether another target would take the text."""
        return is_one_admitted(self._targets, self._all.counts.quotas_out.has_rate, now)

    # -- results of targets

    def answered(self, delivery: Delivery, status: int, now: float) -> None:
        """A target's final response. A late 2xx of an earlier target counts too: the text was delivered."""
        if self._decided:
            return
        if status < 300:
            self._record = self._record._replace(
                peer_out=delivery.target.peer.name, callee_leg_call_id=delivery.call_id
            )
            self._close(DELIVERED, "callee", f"sip_{status}", now)
        elif delivery is self._delivery:
            self._failed(status, masking.mask_final(status, rang=False), now)

    def not_answered(self, delivery: Delivery, why: str, now: float) -> None:
        """The target did not respond, or the transport failed."""
        if delivery is self._delivery and not self._decided:
            mark_unreachable(self._ua.outbox, delivery.target, now)
            self._failed(None, outcomes.NO_PROGRESS if why == "timeout" else outcomes.NO_CONNECTION, now)

    def _failed(self, status: int | None, outcome: Outcome, now: float) -> None:
        self._delivery = None
        reason = "no_response" if status is None else f"sip_{status}"
        if is_tried_elsewhere(status):
            self._try_next(outcome, reason, now)
        else:
            self._close(outcome, who_ended(reason), reason, now)

    # -- the response

    def refuse(self, refusal: Refusal, now: float, extra: str = "") -> None:
        """Refuse the message for the relay's own reasons. `extra`: further header lines of the response."""
        self._ua.outbox.refusals[refusal.outcome] += 1
        if refusal.business is not None:
            self._record = self._record._replace(
                binding_id=refusal.binding_id,
                mode=refusal.mode,
                business=refusal.business,
                order_id=refusal.order_id,
                qualification=refusal.qualification,
                industrial_id=refusal.industrial_id,
                decided_by=refusal.decided_by or self._record.decided_by,
            )
        if refusal.retry_after_s is not None:
            extra += f"Retry-After: {refusal.retry_after_s}\r\n"
        outcome = Outcome(refusal.outcome, refusal.status, refusal.q850_cause or 0)
        self._close(outcome, "relay", refusal.end_reason or refusal.outcome, now, extra)

    def stop(self, now: float) -> None:
        """Answer the message at shutdown."""
        if not self._decided:
            self._close(outcomes.STOPPED, "relay", "shutdown", now)

    def _close(self, outcome: Outcome, by: str, reason: str, now: float, extra: str = "") -> None:
        """Commit the record, then answer the sender."""
        ua = self._ua
        self._decided = True
        if self._pending_look_up is not None:
            self._pending_look_up.given_up = True
        self._delivery = None
        ua.timers.cancel(self._timer)
        if outcome.q850_cause:
            extra += f"Reason: Q.850;cause={outcome.q850_cause}\r\n"
        data = self._reply.write(outcome.status, to_tag=ua.token(), extra=extra)
        self._record = self._record._replace(
            ended_at=self._wall_ms(now),
            sip_status=outcome.status,
            q850_cause=outcome.q850_cause or None,
            outcome=outcome.name,
            ended_by=by,
            end_reason=reason,
        )
        ua.outbox.commit(self._record, None, partial(self._answer, outcome.status, data))

    def _wall_ms(self, now: float) -> int:
        return int((now + self._clock_offset_s) * 1000)

    def _answer(self, status: int, data: bytes, now: float) -> None:
        if self._all.by_key.get(self._key) is self:
            del self._all.by_key[self._key]
        self._transaction.respond(status, data, now)
        self._ua.outbox.drop_attempt(self._record.call_id)


class Delivery:
    """The MESSAGE to one target of a peer."""

    __slots__ = ("_calling_tags", "_cseq", "_local_tag", "_message", "_ua", "call_id", "is_silent", "target")

    def __init__(self, ua: UserAgent, dialogs: Dialogs, message: TextMessage, target: TargetState) -> None:
        self._ua = ua
        self._calling_tags = dialogs.calling_tags
        self._message = message
        self._local_tag = ua.token()
        self._cseq = 1
        self.call_id = ua.token()
        self.target = target
        self.is_silent = True  # no response yet, not even a provisional one

    def start(self, request: Request, route: Route, body: Body, leak_check: LeakCheck, now: float) -> bool:
        """Send the text. False if the leak check failed: nothing was sent. `request`: the sender's."""
        ua, target = self._ua, self.target
        user = user_for(target.peer, route.callee)
        uri = party_uri(target.peer, user, target.configured.written, secure=is_sips(request.uri))
        shown = f"<sip:{route.shown}@{ua.peers.listener(target.flow).advertised}>"
        constants = f"From: {shown};tag={self._local_tag}\r\nTo: <{uri}>\r\nCall-ID: {self.call_id}\r\n"
        rest = f"P-Asserted-Identity: {shown}\r\n" if target.peer.send_pai else ""
        own = (route.callee, user, route.shown) if is_700(route.shown) else (route.callee, user)
        # To of a registered peer holds its own Contact.
        searched = constants if target.peer.login is None else f"From: {shown}\r\n"
        if leak_check.hit(searched + rest, body.data, own=own):
            return False
        rest += f"Max-Forwards: {masking.mask_hops(request.max_forwards)}\r\n"
        self._calling_tags.add(self._local_tag)
        ua.outbox.link(self._message.call_id, self.call_id, "callee", target.peer.name, target.flow)
        outgoing = OutgoingRequest("MESSAGE", uri, constants, self._cseq, rest, body)
        ClientRequest(ua, outgoing, target.flow, target.peer, self._receive, self._fail, now, self._renumber)
        return True

    def _renumber(self, _: str, __: float) -> int:
        """The CSeq of the request when it is repeated after a challenge."""
        self._cseq += 1
        return self._cseq

    def _receive(self, response: Response, now: float) -> None:
        target, status = self.target, response.status
        mark_responded(self._ua.outbox, target, response, now)
        self.is_silent = False
        if status < 200:
            return
        self._calling_tags.discard(self._local_tag)
        self._message.answered(self, status, now)

    def _fail(self, why: str, now: float) -> None:
        self._calling_tags.discard(self._local_tag)
        self._message.not_answered(self, why, now)


def _record(call_id: str, peer: Peer, request: Request, flow: Flow, received_at: int) -> CallRecord:
    """The record at the arrival of the message."""
    return CallRecord(
        call_id=call_id,
        binding_id=None,
        mode=None,
        business=None,
        order_id=None,
        number_dialled=admission.number_dialled(request),
        number_shown=None,
        caller=admission.number_of_caller(request, peer),
        callee=None,
        peer_in=peer.name,
        peer_out=None,
        received_at=received_at,
        routed_at=None,
        ringing_at=None,
        answered_at=None,
        ended_at=None,
        duration_ms=None,
        sip_status=None,
        q850_cause=None,
        outcome=None,
        ended_by=None,
        end_reason=None,
        caller_leg_call_id=request.call_id,
        callee_leg_call_id=None,
        kind="message",
        text_bytes=len(request.body),
        source=transport_address(flow.transport, flow.host, flow.port),
    )
