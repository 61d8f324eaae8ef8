"""A call: its record, two legs and timers, and the single path by which it ends (DESIGN 4.6)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay.call.announcement import BEGIN, ENDING, ENDING_S, Recorder
from relay.call.core import Core
from relay.call.leak_check import Side
from relay.call.leg import CallBase, Leg
from relay.call.media import Media
from relay.call.recovery_state import dump_call
from relay.call.saved_state import CallState
from relay.errors import ParseError, ProtocolError
from relay.model.actions import Continuation
from relay.model.call import CallRecord, Refusal, Route, record_id
from relay.peers.limits import UP, CallReservation
from relay.privacy import masking
from relay.privacy.masking import Verdict
from relay.sip.message import Request, Response, transport_address

if TYPE_CHECKING:
    from relay.call.invite_session import InviteSession
    from relay.model.settings import Peer
    from relay.privacy.messages import Reply
    from relay.sip.message import Flow
    from relay.sip.timers import Timer

NORMAL_CLEARING: Final = 16  # Q.850
TIMER_EXPIRY: Final = 102
NORMAL_UNSPECIFIED: Final = 31
_RELAY_CAUSES: Final = dict.fromkeys(("max_duration", "session_expired", "ack_timeout", "media_timeout"), TIMER_EXPIRY)


class Call(CallBase):
    """A call from its INVITE to its end. Most fields are columns of the call record."""

    __slots__ = (
        "_clock_offset_s",
        "_end_committed",
        "_greeted",
        "_max_call_s",
        "_max_timer",
        "_recorder",
        "_session_s",
        "_session_timer",
        "_waiting_for_end",
        "answered_at",
        "binding_id",
        "business",
        "callee",
        "callee_leg_call_id",
        "callee_number",
        "caller",
        "caller_flow",
        "caller_leg_call_id",
        "caller_number",
        "caller_peer",
        "core",
        "dialled",
        "direction",
        "end_reason",
        "ended_at",
        "ended_by",
        "given",
        "industrial_id",
        "invite_key",
        "kept",
        "legacy",
        "mode",
        "order_id",
        "outcome",
        "peer_out",
        "q850_cause",
        "qualification",
        "received_at",
        "recording",
        "ringing_at",
        "routed_at",
        "setup",
        "share",
        "shown",
        "sip_status",
        "source",
        "tells",
    )

    def __init__(
        self,
        core: Core,
        peer: Peer,
        flow: Flow,
        *,
        caller: str,
        dialled: str,
        invite_key: tuple[str, str | None],
        received_at: int,
    ) -> None:
        """`caller`: the caller's number in E.164, "" if anonymous; `invite_key`: Call-ID and From tag of its INVITE;
        `received_at` in Unix milliseconds."""
        self.core = core
        self.invite_key = invite_key
        core.attempts.setdefault(invite_key, self)
        self.call_id = record_id(received_at, core.token)
        self.caller_peer = peer
        self.caller_flow = flow
        self.source: str | None = transport_address(flow.transport, flow.host, flow.port)
        self.caller_number = caller
        self.dialled = dialled
        self.caller_leg_call_id = invite_key[0]
        self.received_at = received_at
        self._clock_offset_s = core.clock.offset_s  # fixed for the call: setting the clock must not skew its times
        self.binding_id: str | None = None
        self.mode: str | None = None
        self.business: str | None = None
        self.order_id: str | None = None
        self.qualification: int | None = None  # of the business
        self.industrial_id: str | None = None
        self.shown: str | None = None
        self.callee_number: str | None = None
        self.peer_out: str | None = None
        self.routed_at: int | None = None
        self.ringing_at: int | None = None
        self.answered_at: int | None = None
        self.ended_at: int | None = None
        self.sip_status: int | None = None
        self.q850_cause: int | None = None
        self.outcome: str | None = None
        self.ended_by: str | None = None
        self.end_reason: str | None = None
        self.callee_leg_call_id: str | None = None
        self.direction: str | None = None
        self.legacy = False
        self.media = None
        self.tells = False  # the business receives call events during the call
        self.recording: str | None = None  # recording reference, once recording has begun
        self._recorder: Recorder | None = None  # set when the call is to be recorded
        self.setup: InviteSession | None = None  # until the final response is chosen
        self.caller: Leg | None = None
        self.callee: Leg | None = None
        self.ended = False
        self.kept = False  # stored as an attempt under way
        self.given: tuple[int, bytes, int] | None = None  # fields of a GivenAnswer, until its ACK
        self.share = CallReservation(core.counts)
        self._end_committed = False
        self._waiting_for_end: list[Continuation] = []
        self._greeted = False  # the opening announcement was played, or is not due
        self._max_call_s = core.settings.max_call_s
        self._max_timer: Timer | None = None
        self._session_s = 0
        self._session_timer: Timer | None = None

    def _wall_ms(self, now: float) -> int:
        """Unix milliseconds of monotonic `now`, by the clock offset fixed at the call's arrival."""
        return int((now + self._clock_offset_s) * 1000)

    def record(self) -> CallRecord:
        duration_ms = max(self.ended_at - self.answered_at, 0) if self.ended_at and self.answered_at else None
        fields = (
            self.call_id,
            self.binding_id,
            self.mode,
            self.business,
            self.order_id,
            self.dialled,
            self.shown,
            self.caller_number,
            self.callee_number,
            self.caller_peer.name,
            self.peer_out,
            self.received_at,
            self.routed_at,
            self.ringing_at,
            self.answered_at,
            self.ended_at,
            duration_ms,
            self.sip_status,
            self.q850_cause,
            self.outcome,
            self.ended_by,
            self.end_reason,
            self.caller_leg_call_id,
            self.callee_leg_call_id,
            self.direction,
            self.legacy,
            None,
            None,
            None,
            None,
            None,
            None,  # six media counts, written below
            "call",
            None,  # text length
            self.recording,
            self.qualification,
            self.industrial_id,
            self.source,
        )
        record = CallRecord._make(fields)  # CallRecord(*fields) runs interpreted code, at twice the cost
        return record if self.media is None else self.media.write_counts(record)

    @property
    def hidden_caller(self) -> str:
        """The caller's number if it is kept from the callee, else "": a call without a binding hides nothing."""
        return self.caller_number if self.binding_id is not None else ""

    @property
    def hidden_callee(self) -> str:
        """The callee's number if it is kept from the caller, else ""."""
        return self.callee_number or "" if self.binding_id is not None else ""

    # -- reports from the setup

    def routed(self, route: Route, now: float) -> None:
        self.routed_at = self._wall_ms(now)
        # A forwarded call has no binding: its Route has "" in these fields.
        self.binding_id, self.mode = route.binding_id or None, route.mode or None
        self.business, self.order_id = route.business or None, route.order_id
        self.qualification = route.qualification
        self.industrial_id = route.industrial_id
        self.callee_number, self.shown = route.target, route.shown
        if route.max_call_s is not None:
            self._max_call_s = min(route.max_call_s, self._max_call_s)
        self.direction, self.legacy, self.tells = route.direction, route.legacy, route.tells
        self.share.falls_under(tuple([key for key, _, _ in route.caps]))
        if self.core.settings.anchored:
            media = self.media = Media(self.core.ua, self.core.settings.media_check_s, self.call_id)
            media.language = route.language
        if route.record:
            self._recorder = Recorder(self.core.ua, self.core.settings, self)
        if self.tells:
            self.core.outbox.tell("received", self.record())

    def ringing(self, now: float) -> None:
        if self.ringing_at is None:
            self.ringing_at = self._wall_ms(now)
            if self.tells:
                self.core.outbox.tell("ringing", self.record())

    def refused(self, refusal: Refusal) -> None:
        if refusal.binding_id is not None:
            self.binding_id, self.mode = refusal.binding_id, refusal.mode
            self.business, self.order_id = refusal.business, refusal.order_id
            self.qualification = refusal.qualification
            self.industrial_id = refusal.industrial_id

    def closed(self, verdict: Verdict, by: str, reason: str, then: Continuation, now: float) -> None:
        """The attempt failed: commit the record, then answer the caller."""
        self.setup = None
        self.ended = True
        self.ended_at = self._wall_ms(now)
        self.sip_status, self.q850_cause, self.outcome = verdict.status, verdict.q850_cause or None, verdict.outcome
        self.ended_by, self.end_reason = by, reason
        self.share.give_back()
        self._waiting_for_end.append(then)
        self._commit_end(now)
        if self.media is not None:
            self.media.end(None, now)

    def answered(self, caller: Leg, callee: Leg, response: Response, then: Continuation, now: float) -> None:
        """The callee answered: commit the record with both dialogs, then answer both sides."""
        core = self.core
        self.caller, self.callee = caller, callee
        self.setup = None
        self.answered_at = self._wall_ms(now)
        self.sip_status = 200
        core.counts.stages.begin(UP)
        self._limit(self._max_call_s, now)
        self._watch_session(response, now)
        if self.media is not None:
            self.media.watch(self._media_gone, now)
        record = self.record()
        core.outbox.commit(record, self.state(), then)
        if self.tells:
            core.outbox.tell("answered", record)

    def acknowledged(self, now: float) -> None:
        """From here on, announcements reach both parties."""
        self.drop(at_once=self.callee is None or self.callee.ack_due is None)
        if self._greeted or self.ended:
            return
        self._greeted = True
        if self._recorder is not None:
            self._recorder.begin(now)
        elif self.core.settings.announcements.begin and self.media is not None:
            self.media.play(BEGIN)

    def recorded(self) -> None:
        """The first report is committed."""
        if self.recording is None:
            self.recording = self.call_id
            self.core.outbox.counters["recordings_begun"] += 1
            if not self.ended:
                self.core.outbox.commit(self.record(), self.state(), None)

    # -- timers of an answered call

    def _limit(self, left_s: float, now: float) -> None:
        """End the call in `left_s` seconds, with an announcement ENDING_S before the end where configured."""
        timers = self.core.timers
        if self.core.settings.announcements.ending and self.media is not None and left_s > ENDING_S:
            self._max_timer = timers.set(now + left_s - ENDING_S, self._warn)
        else:
            self._max_timer = timers.set(now + left_s, self._too_long)

    def _warn(self, now: float) -> None:
        self._max_timer = self.core.timers.set(now + ENDING_S, self._too_long)
        if self.media is not None:
            self.media.play(ENDING)

    def _too_long(self, now: float) -> None:
        self.end("relay", "max_duration", now)

    def refreshed(self, response: Response, now: float) -> None:
        """Commit new targets and SDP, restart the session timer."""
        if self.ended or self.caller is None:
            return
        self._watch_session(response, now)
        self.core.outbox.commit(self.record(), self.state(), None)
        if self._recorder is not None and self.recording is not None:
            self._recorder.record(now)

    def _watch_session(self, response: Response, now: float) -> None:
        """RFC 4028 10: a session without a refresh ends after Session-Expires seconds."""
        try:
            timer = response.session_expires
        except ParseError:  # an unreadable one was not relayed either
            timer = None
        self._session_s = min(timer.seconds, masking.LONGEST_SESSION_S) if timer else 0
        self._restart_session_timer(now)

    def _restart_session_timer(self, now: float) -> None:
        timers = self.core.timers
        timers.cancel(self._session_timer)
        self._session_timer = timers.set(now + self._session_s, self._session_over) if self._session_s else None

    def _session_over(self, now: float) -> None:
        self.end("relay", "session_expired", now)

    def _media_gone(self, now: float) -> None:
        self.end("relay", "media_timeout", now)

    # -- the end

    def end(self, by: str, reason: str, now: float, *, from_leg: Leg | None = None, extra: str = "") -> None:
        """End the call: stop its timers, commit the record, send BYE to each leg except `from_leg`.

        `extra`: masked Reason line for the BYEs. A call still in setup is stopped instead.
        """
        if self.setup is not None:
            self.setup.stop(masking.LEAK if reason == "leak_check" else masking.NO_PROGRESS, reason, now)
            return
        if self.ended or self.caller is None or self.callee is None:
            return
        self.ended = True
        self.ended_at = self._wall_ms(now)
        self.outcome, self.ended_by, self.end_reason = "answered", by, reason
        self.q850_cause = NORMAL_CLEARING if by != "relay" else _RELAY_CAUSES.get(reason, NORMAL_UNSPECIFIED)
        self.core.counts.stages.end(UP)
        self.core.timers.cancel(self._max_timer)
        self.core.timers.cancel(self._session_timer)
        self._recorder = None
        self.share.give_back()
        if self.media is None:
            self._commit_end(now)
        legs = (self.caller, self.callee)
        for leg in legs:
            if leg.invited is not None:
                leg.invited.abort(now)
        if self.media is not None:
            self.media.end(self._commit_end, now)  # commits with the media counts
        for leg in legs:
            if leg is not from_leg:
                leg.hang_up(now, extra or f"Reason: Q.850;cause={self.q850_cause}\r\n")

    def _commit_end(self, _: float) -> None:
        self.core.outbox.commit(self.record(), None, self._ended)

    def when_end_committed(self, then: Continuation, now: float) -> None:
        """Call `then` once the closing record is durable: no BYE is answered before that (DESIGN 4.1)."""
        if self._end_committed:
            then(now)
        else:
            self._waiting_for_end.append(then)

    def _ended(self, now: float) -> None:
        self._end_committed = True
        if self.core.attempts.get(self.invite_key) is self:
            del self.core.attempts[self.invite_key]
        if self.answered_at is not None:
            self.drop()
        waiting, self._waiting_for_end = self._waiting_for_end, []
        for then in waiting:
            then(now)

    def drop(self, at_once: bool = False) -> None:
        """Drop the stored attempt: a restart need not end it. `at_once`: see `DropAttempt`."""
        self.given = None
        if self.kept:
            self.kept = False
            self.core.outbox.drop_attempt(self.call_id, at_once)

    def was_closed(self, now: float) -> None:
        """The closing record is already in the store."""
        self.setup, self.ended = None, True
        self._ended(now)

    def disconnect(self, reason: str, now: float) -> None:
        self.end("relay", reason, now)

    def hung_up(self, leg: Leg, request: Request, reply: Reply, served_for: str, now: float) -> None:
        """Answer the BYE once the closing record is durable (DESIGN 4.1). Crossing BYEs meet here."""
        if leg.bye_sent and leg is not self.callee and leg is not self.caller:
            leg.forget()
            raise ProtocolError(481, "BYE of a superfluous leg (late or forked answer) that crossed ours")
        early = self.setup
        if early is not None and leg.side == "callee":
            raise ProtocolError(481, "no BYE from the callee of an early dialog (RFC 3261 15)")
        leg.dialog.receive_cseq(request.cseq.number)  # not earlier: a retransmission must get the same 481
        transaction = self.core.transactions.serve(request, reply.flow, served_for)
        data = reply.write(200)
        if early is not None:
            early.cancel(request, now)
        else:
            self.end(leg.side, "bye", now, from_leg=leg, extra=masking.mask_reason(request))
        self.when_end_committed(partial(transaction.respond, 200, data), now)
        self.when_end_committed(lambda _: leg.forget(), now)

    def parted(self, leg: Leg) -> None:
        """Break the reference cycle, so that the call is freed without garbage collection."""
        if self.caller is leg or self.caller is leg.other:
            self.caller = self.callee = None

    def fail_closed(self, side: Side, now: float) -> None:
        self.core.outbox.counters["leak_check"] += 1
        self.core.outbox.note("leak_check", call_id=self.call_id, towards=side)
        self.end("relay", "leak_check", now)

    def goes_to(self, peer: str) -> None:
        """The call is being offered to `peer`."""
        self.peer_out = peer
        self.share.goes_to(peer)

    # -- restart

    def probe(self, now: float) -> None:
        """Ask both peers by OPTIONS whether their dialog still exists (RFC 3261 11); end the call if not.

        A peer that owes an ACK is not asked: the ACK proves its dialog.
        """
        for leg in (self.caller, self.callee):
            if leg is not None and leg.answer is None:
                leg.probe(now)

    def state(self) -> bytes:
        """The state that a restart needs beside the record (DESIGN 4.2)."""
        assert self.caller is not None
        assert self.callee is not None
        media = None if self.media is None else self.media.state
        records = self._recorder is not None
        return dump_call(
            self.caller, self.callee, self._max_call_s, self._session_s, self.share.keys, media, records, self.given
        )

    def follow_clock(self, now: float) -> None:
        """Fix the clock offset of a restored call such that no new time precedes its recorded ones."""
        since = self.answered_at or self.received_at
        self._clock_offset_s = max(self.core.clock.offset_s, since / 1000 - now)

    def resume(self, state: CallState, now: float) -> None:
        """Restart timers and limit counts from the committed state."""
        core = self.core
        self._max_call_s = state.max_call_s
        answered_at = self.answered_at or 0
        self.follow_clock(now)
        lasted_s = (self._wall_ms(now) - answered_at) / 1000
        self._greeted = True
        self._limit(max(state.max_call_s - lasted_s, 0), now)
        self._session_s = state.session_s
        if state.given is not None:
            self.given = (state.given.cseq, state.given.data, state.given.ack_cseq)
        self._restart_session_timer(now)
        if self.media is not None:
            self.media.watch(self._media_gone, now)
        if state.records:
            self._recorder = Recorder(self.core.ua, self.core.settings, self)
            if self.recording is None:  # the notice may not have been played to its end
                self._recorder.begin(now)
        core.counts.stages.begin(UP)
        self.share.comes_from(self.caller_peer.name)
        if self.peer_out is not None:
            self.share.goes_to(self.peer_out)
        self.share.falls_under(tuple(state.held))
