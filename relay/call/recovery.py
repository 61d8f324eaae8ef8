"""Recovery after a restart: answered calls are taken up, attempts under way are ended.

Each lost attempt gets its one record, its caller a final answer, and each callee that may ring a CANCEL. If a call was
just answered, the caller may not know it yet: he gets the 200, and the call goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from relay.call.admission import RETRY
from relay.call.call import NORMAL_UNSPECIFIED, Call, Calls
from relay.call.caller_invite import CallerInvite
from relay.call.dialogs import Dialogs
from relay.call.invite_session import LOST_AT_RESTART, InviteSession
from relay.call.media import Media
from relay.call.outbound_attempt import OutboundAttempt
from relay.call.saved_state import CallState, flow_by
from relay.call.state_codec import load_attempt, load_call, load_leg
from relay.errors import ParseError, StoreError
from relay.model.actions import Mediate
from relay.model.call import Route
from relay.model.capture import Side
from relay.model.outcomes import LOST, Outcome
from relay.model.settings import Listener, Peer, Target
from relay.peers.peers import host_port
from relay.peers.targets import TargetState
from relay.privacy.codecs import common_codecs
from relay.privacy.leak_check import leak_check_towards_callee, leak_check_towards_caller
from relay.privacy.messages import Reply
from relay.sip.message import Flow, Request, parse_message

if TYPE_CHECKING:
    from relay.call.saved_state import AttemptState, SentInvite
    from relay.model.call import CallRecord

_NOT_RESTORABLE: Final = "not_restorable"


class KeptAttempt(NamedTuple):
    """A stored attempt, and its call record if there is one."""

    record: CallRecord
    state: bytes
    stored: CallRecord | None = None  # closed, or of an answered call
    sent_by: tuple[str, ...] = ()  # sent-by of each listener of the node that had it, if that was another one


class Recovery:
    """The recovery of one engine."""

    def __init__(self, calls: Calls, dialogs: Dialogs) -> None:
        self._calls = calls
        self._dialogs = dialogs
        self._ua = calls.ua
        self._peers = calls.ua.peers
        self._outbox = calls.ua.outbox

    # -- answered calls

    def restore(self, record: CallRecord, dialogs: bytes, now: float, kept: KeptAttempt | None = None) -> None:
        """Resume a live call of the journal, and probe both peers.

        `kept`: its stored attempt, if the caller had not acknowledged the answer.
        """
        call = self._resume_or_close(record, dialogs, now)
        if call is not None:
            if kept is None:
                call.unacked_answer = None  # the ACK came
            else:
                self._take_up_answer(call, kept, now)
            call.greet_again(now)
            self._probe_or_end(call, now)
        elif kept is not None:
            self.end_attempt(kept, now)

    def _resume_or_close(self, record: CallRecord, dialogs: bytes, now: float) -> Call | None:
        """Resume the call. None if its state is unreadable or a listener is gone: then its record is closed."""
        state: CallState | None = None
        try:
            state = load_call(dialogs)
            call = self._rebuild_call(record, state, now)
        except StoreError as error:
            self._outbox.note("restore.failed", call_id=record.call_id, reason=str(error))
            longest_s = self._calls.settings.max_call_s if state is None else state.max_call_s
            self._close_answered(record, longest_s, now)
            if state is not None and state.media is not None:
                self._outbox.mediate(Mediate(0, "delete", record.call_id, state.media[0]))
            return None
        return call

    def _probe_or_end(self, call: Call, now: float) -> None:
        """Probe both peers of a restored call; end it if one of them is no longer configured."""
        legs = (call.caller, call.callee)
        if all([leg is not None and self._peers.by_name(leg.peer.name) for leg in legs]):
            call.probe(now)
        else:
            call.end("relay", _NOT_RESTORABLE, now)

    def _close_answered(self, record: CallRecord, longest_s: float, now: float) -> None:
        """Close the record of an answered call that is not resumed. It lasted at most `longest_s`."""
        answered_at = record.answered_at or record.received_at
        # max: the clock may have been set back
        ended_at = max(min(self._calls.clock.ms(now), answered_at + int(1000 * longest_s)), answered_at)
        closed = record._replace(
            ended_at=ended_at,
            duration_ms=ended_at - answered_at,
            outcome="answered",
            q850_cause=NORMAL_UNSPECIFIED,
            ended_by="relay",
            end_reason=_NOT_RESTORABLE,
        )
        self._outbox.commit(closed, None)

    def _rebuild_call(self, record: CallRecord, state: CallState, now: float) -> Call:
        """The call as committed. Raises StoreError if one of its listeners is no longer configured."""
        caller_peer, callee_peer = self._peer_of(state.caller.peer), self._peer_of(state.callee.peer)
        to_caller = flow_by(state.caller.flow, self._peers)
        to_callee = flow_by(state.callee.flow, self._peers)
        call = Call(
            self._calls,
            caller_peer,
            to_caller,
            caller=record.caller,
            dialled=record.number_dialled,
            invite_key=(record.caller_leg_call_id, state.caller.dialog.remote_tag, state.invite_cseq),
            received_at=record.received_at,
        )
        call.take_over(record)
        if state.media is not None:
            check_s = self._calls.settings.media_check_s
            peers: dict[Side, Peer] = {"caller": caller_peer, "callee": callee_peer}
            call.media = Media(self._ua, check_s, call.call_id, state.media, state.settled, peers)
        ua, legs, age_ms = self._ua, self._dialogs.legs, self._calls.clock.ms(now) - call.received_at
        call.caller = load_leg(ua, legs, call, "caller", state.caller, caller_peer, to_caller, age_ms)
        call.callee = load_leg(ua, legs, call, "callee", state.callee, callee_peer, to_callee, age_ms)
        call.caller.other, call.callee.other = call.callee, call.caller
        call.caller.writer.codecs = call.callee.writer.codecs = common_codecs(caller_peer, callee_peer)
        host, ours = call.callee.flow.host, self._peers.hosts
        call.caller.leak_check = leak_check_towards_caller(
            call.hidden_callee, callee_peer, host, call.callee.dialog.next_hop.host, caller_peer, to_caller.host, ours
        )
        call.callee.leak_check = leak_check_towards_callee(
            call.hidden_caller, caller_peer, to_caller.host, callee_peer, host, ours
        )
        link = self._outbox.link
        link(call.call_id, record.caller_leg_call_id, "caller", caller_peer.name, to_caller)
        link(call.call_id, call.callee.dialog.call_id, "callee", callee_peer.name, to_callee)
        call.resume(state, now)
        return call

    def _peer_of(self, name: str) -> Peer:
        """The configured peer, or a placeholder of that name, enough to send it a BYE in its dialog."""
        return self._peers.by_name(name) or Peer(name, targets=(), tcp_allowed=False, sources=())

    # -- Recovery of attempts that a crash cut short

    def end_attempt(self, kept: KeptAttempt, now: float) -> None:
        """End the attempt. If the store has its record, none is written, and the response follows that record."""
        record, stored = kept.record, kept.stored
        self._outbox.counters["attempts_lost"] += stored is None
        try:
            state = load_attempt(kept.state)
            invite = self._stored_request(state)
        except (StoreError, ParseError) as error:
            self._outbox.note("attempt.not_readable", call_id=record.call_id, reason=str(error))
            if stored is None:
                self._outbox.commit(
                    self._lost_record(record, now), None, lambda _: self._outbox.drop_attempt(record.call_id)
                )
            else:
                self._outbox.drop_attempt(record.call_id)
            return
        if record.kind == "message":
            self._end_message(kept, invite, now)
        else:
            self._end_call(kept, state, invite, now)

    def _end_message(self, kept: KeptAttempt, invite: CallerInvite, now: float) -> None:
        record, stored = kept.record, kept.stored
        self._outbox.link(record.call_id, record.caller_leg_call_id, "caller", record.peer_in, invite.flow)
        status = LOST.status if stored is None else stored.sip_status or LOST.status
        outcome = LOST if status == LOST.status else Outcome("", status, 0)
        data = invite.refusal(outcome, RETRY if outcome is LOST else "")

        def answer(at: float) -> None:
            invite.respond(status, data, at)
            self._outbox.drop_attempt(record.call_id)

        if stored is None:
            self._outbox.commit(self._lost_record(record, now), None, answer)
        else:
            answer(now)

    def _end_call(self, kept: KeptAttempt, state: AttemptState, invite: CallerInvite, now: float) -> None:
        record, stored = kept.record, kept.stored
        session = self._session(record, invite, now)
        answered = stored is not None and stored.answered_at is not None
        winner = stored.callee_leg_call_id if stored is not None and answered else None
        closed: Outcome | None = None
        if answered:
            closed = LOST
        elif stored is not None:
            closed = Outcome("", stored.sip_status or LOST.status, stored.q850_cause or 0)
        session.lose(self._attempts(session, kept, state, winner, now), closed, now)
        if state.media:
            self._outbox.mediate(Mediate(0, "delete", record.call_id, state.media))

    def _take_up_answer(self, call: Call, kept: KeptAttempt, now: float) -> None:
        """Send the 2xx of an answered call whose caller has not acknowledged it."""
        caller, callee = call.caller, call.callee
        assert caller is not None
        assert callee is not None
        call.kept = True
        try:
            state = load_attempt(kept.state)
            invite = self._stored_request(state)
        except (StoreError, ParseError) as error:
            self._outbox.note("attempt.not_readable", call_id=call.call_id, reason=str(error))
            call.drop()
            return
        if call.unacked_answer is None:
            call.drop()
            return
        cseq, data, ack_cseq = call.unacked_answer
        callee.ack_due = ack_cseq or None
        caller.give_answer(cseq, data, invite.flow, now)
        invite.respond(200, data, now)
        others = self._session(kept.record, invite, now)  # targets given up earlier, which may still ring
        others.call.kept = False
        attempts = self._attempts(others, kept, state, call.callee_leg_call_id, now)
        others.lose(attempts, LOST, now)  # the caller has his answer

    def _stored_request(self, state: AttemptState) -> CallerInvite:
        """The request of a stored attempt. Raises StoreError without a listener to answer on, or ParseError."""
        if not state.head:
            raise StoreError("request was refused as too long")
        request = parse_message(state.head)
        if not isinstance(request, Request):
            raise StoreError("stored attempt is not a request")
        reply = Reply(request, flow_by(state.flow, self._peers))
        return CallerInvite(self._ua, request, reply, self._ua.transactions.serve(request, reply.flow))

    def _session(self, record: CallRecord, invite: CallerInvite, now: float) -> InviteSession:
        """The session as it was, without further targets to try."""
        call = Call(
            self._calls,
            self._peer_of(record.peer_in),
            invite.flow,
            caller=record.caller,
            dialled=record.number_dialled,
            invite_key=(record.caller_leg_call_id, invite.request.from_tag, invite.request.cseq.number),
            received_at=record.received_at,
        )
        call.take_over(record)
        self._outbox.link(call.call_id, record.caller_leg_call_id, "caller", record.peer_in, invite.flow)
        call.kept = True
        call.follow_clock(now)
        session = call.session = InviteSession(self._ua, self._dialogs, self._calls.counts, call, invite)
        session.route = Route(
            record.binding_id or "",
            record.mode or "",
            record.business or "",
            record.order_id,
            callee=record.callee or "",
            shown=record.number_shown or "",
        )
        return session

    def _attempts(
        self, session: InviteSession, kept: KeptAttempt, state: AttemptState, winner: str | None, now: float
    ) -> list[OutboundAttempt]:
        """The attempts whose INVITE must be cancelled. `winner`: Call-ID of the answered one."""
        attempts = []
        for sent in state.invites:
            if sent.call_id == winner:
                continue
            try:
                flow = flow_by(sent.flow, self._peers)
            except StoreError as error:
                self._outbox.note("attempt.not_readable", call_id=session.call.call_id, reason=str(error))
                continue
            attempt = session.attempt_at(self._target(sent.peer, flow))
            attempt.take_up(sent, flow, self._listener_of(sent, kept), now)
            attempts.append(attempt)
        return attempts

    def _listener_of(self, sent: SentInvite, kept: KeptAttempt) -> Listener | None:
        """The listener of another node that sent the INVITE: its CANCEL has the same sent-by (RFC 3261 9.1)."""
        number, transport = sent.flow[:2]
        if number >= len(kept.sent_by):
            return None
        host, _, port = kept.sent_by[number].rpartition(":")
        return Listener("tls" if transport == "tls" else "tcp" if transport == "tcp" else "udp", "", int(port), host)

    def _target(self, name: str, flow: Flow) -> TargetState:
        """The target of the flow, configured or not."""
        peer = self._peers.by_name(name)
        for target in self._peers.targets_of(name) if peer is not None else ():
            if target.flow == flow:
                return target
        written = host_port(flow.host, flow.port)
        return TargetState(
            self._peer_of(name), Target(flow.host, flow.port, "udp", written), flow
        )  # placeholder: the flow has the transport

    def _lost_record(self, record: CallRecord, now: float) -> CallRecord:
        """The record of an attempt that the restart ends."""
        return record._replace(
            ended_at=max(self._calls.clock.ms(now), record.received_at),  # the clock may have been set back
            sip_status=LOST.status,
            q850_cause=LOST.q850_cause,
            outcome=LOST.name,
            ended_by="relay",
            end_reason=LOST_AT_RESTART,
        )
