"""A call: its record, two legs and timers, and the single path by which it ends."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay.call.announcement import BEGIN, ENDING, ENDING_S, Recorder
from relay.call.leg import Leg
from relay.call.media import Media
from relay.call.open_record import OpenRecord
from relay.call.saved_state import CallState
from relay.call.state_codec import dump_call
from relay.call.states import ANSWER, CALL_LIFE, COMMITTED, END, ENDED, OVER, REFRESH, REFUSE, RESUME, step
from relay.errors import ParseError, ProtocolError
from relay.model import outcomes
from relay.model.actions import Continuation
from relay.model.call import PROBE_BUSINESS, Route, record_id
from relay.model.capture import Side
from relay.model.outcomes import Outcome
from relay.peers.limits import SETTING_UP, UP, CallReservation
from relay.privacy import masking
from relay.sip.message import Request, Response

if TYPE_CHECKING:
    from relay.call.outbound_attempt import SessionBase
    from relay.model.settings import Peer, Settings
    from relay.peers.limits import CallCounts
    from relay.peers.user_agent import UserAgent
    from relay.privacy.messages import Reply
    from relay.sip.message import Flow
    from relay.sip.timers import Timer, WallClock

NORMAL_CLEARING: Final = 16  # Q.850
TIMER_EXPIRY: Final = 102
NORMAL_UNSPECIFIED: Final = 31
_RELAY_CAUSES: Final = dict.fromkeys(("max_duration", "session_expired", "ack_timeout", "media_timeout"), TIMER_EXPIRY)


InviteKey = tuple[str, str | None, int]  # Call-ID, From tag and CSeq of the caller's INVITE (RFC 3261 8.2.2.2)


class Calls:
    """The calls of one engine until their end is committed, and what each of them needs."""

    __slots__ = ("by_invite", "clock", "counts", "settings", "ua")

    def __init__(self, ua: UserAgent, counts: CallCounts, clock: WallClock, settings: Settings) -> None:
        self.by_invite: dict[InviteKey, Call] = {}
        self.ua = ua
        self.counts = counts
        self.clock = clock
        self.settings = settings  # for new calls

    def live(self) -> list[Call]:
        """The calls in setup or answered."""
        return [call for call in self.by_invite.values() if not call.is_over]

    def find_live(self, call_id: str, business: str | None) -> Call | None:
        """The call in setup or answered with that id, and of the business unless None."""
        for call in self.by_invite.values():
            if call.call_id == call_id and not call.is_over and business in (None, call.business):
                return call
        return None


class Call(OpenRecord):
    """A call from its INVITE to its end."""

    __slots__ = (
        "_calls",
        "_counts",
        "_greeted",
        "_is_saving",
        "_is_stale",
        "_max_call_s",
        "_max_timer",
        "_recorder",
        "_session_s",
        "_session_timer",
        "_ua",
        "_waiting_for_end",
        "callee",
        "caller",
        "invite_key",
        "kept",
        "live_events",
        "rang_at",
        "reservation",
        "session",
        "settings",
    )

    def __init__(
        self,
        calls: Calls,
        peer: Peer,
        flow: Flow,
        *,
        caller: str,
        dialled: str,
        invite_key: InviteKey,
        received_at: int,
    ) -> None:
        """`caller`: the caller's number in E.164, "" if anonymous; `received_at` in Unix milliseconds."""
        call_id = record_id(received_at, calls.ua.token)
        OpenRecord.__init__(
            self, call_id, peer, flow, caller, dialled, invite_key[0], received_at, calls.clock.offset_s
        )
        self._ua = calls.ua
        self._counts = calls.counts
        self._calls = calls.by_invite
        self.settings = calls.settings  # in force at its arrival
        self.invite_key = invite_key
        self._calls.setdefault(invite_key, self)
        self.rang_at: int | None = None  # when the last target called rang; `ringing_at` is the first to ring
        self.live_events = False  # the business receives call events during the call
        self._recorder: Recorder | None = None  # set when the call is to be recorded
        self.session: SessionBase | None = None  # until the final response is chosen
        self.caller: Leg | None = None
        self.callee: Leg | None = None
        self.state = SETTING_UP
        calls.counts.stages.begin(SETTING_UP)
        self.kept = False  # stored as an attempt under way
        self.unacked_answer = None
        self.reservation = CallReservation(calls.counts)
        self._waiting_for_end: list[Continuation] = []
        self._greeted = False  # the opening announcement was played, or is not due
        self._is_stale = False  # the store lacks the last refresh
        self._is_saving = False  # the commit of a refresh is under way
        self._max_call_s = self.settings.max_call_s
        self._max_timer: Timer | None = None
        self._session_s = 0
        self._session_timer: Timer | None = None

    def _enter(self, event: str) -> None:
        """Take the event; calls are counted by state until their end."""
        before, stages = self.state, self._counts.stages
        after = self.state = step(CALL_LIFE, before, event, self._ua.outbox, self.call_id)
        if before != after:
            if before not in OVER:
                stages.end(before)
            if after not in OVER:
                stages.begin(after)

    # -- reports of the INVITE session

    def routed(self, route: Route, now: float) -> None:
        self.take_route(route, now)
        if route.max_call_s is not None:
            self._max_call_s = min(route.max_call_s, self._max_call_s)
        self.live_events = route.live_events
        self.reservation.falls_under(tuple([key for key, _, _ in route.caps]))
        if self.settings.anchored:
            media = self.media = Media(self._ua, self.settings.media_check_s, self.call_id)
            media.language = route.language
        if route.record:
            self._recorder = Recorder(self._ua, self.settings, self)
        if self.live_events:
            self._ua.outbox.emit("received", self.record())

    def ringing(self, now: float) -> None:
        if self.rang_at is None:
            self.rang_at = self.wall_ms(now)
        if self.ringing_at is None:
            self.ringing_at = self.rang_at
            if self.live_events:
                self._ua.outbox.emit("ringing", self.record())

    def closed(self, outcome: Outcome, by: str, reason: str, then: Continuation, now: float) -> None:
        """The attempt failed: commit the record, then answer the caller."""
        self.session = self._recorder = None
        self._enter(REFUSE)
        self.ended_at = self.wall_ms(now)
        self.sip_status, self.q850_cause, self.outcome = outcome.status, outcome.q850_cause or None, outcome.name
        self.ended_by, self.end_reason = by, reason
        self._count(outcome.name)
        self.reservation.give_back()
        self._waiting_for_end.append(then)
        self._commit_end(now)
        if self.media is not None:
            self.media.end(None, now)

    def answered(self, caller: Leg, callee: Leg, response: Response, then: Continuation, now: float) -> None:
        """The callee answered: commit the record with both dialogs, then answer both sides."""
        self.caller, self.callee = caller, callee
        self.session = None
        self.answered_at = self.wall_ms(now)
        self.sip_status = 200
        self._enter(ANSWER)
        self._count("answered")
        self._limit(self._max_call_s, now)
        self._watch_session(response, now)
        if self.media is not None:
            self.media.watch(self._media_gone, now)
        record = self.record()
        self._ua.outbox.commit(record, self.dump(), then)
        if self.live_events:
            self._ua.outbox.emit("answered", record)

    def withdraw(self, outcome: Outcome, then: Continuation, now: float) -> None:
        """Withdraw the answer of a call: commit its end, hang up the callee, then refuse the caller."""
        self._enter(END)
        self.answered_at, self.ended_at = None, self.wall_ms(now)
        self.sip_status, self.q850_cause, self.outcome = outcome.status, outcome.q850_cause, outcome.name
        self.ended_by, self.end_reason = "relay", outcome.name
        self._stop()
        self._waiting_for_end.append(then)
        self._commit_end(now)
        if self.media is not None:
            self.media.end(None, now)
        if self.callee is not None:
            self.callee.hang_up(now, f"Reason: Q.850;cause={self.q850_cause}\r\n")

    def _stop(self) -> None:
        """Stop the timers, and free what is limited."""
        self._ua.timers.cancel(self._max_timer)
        self._ua.timers.cancel(self._session_timer)
        self._recorder = None
        self.reservation.give_back()

    def _count(self, outcome: str) -> None:
        """Count the call's final response: the call may go on for hours, and its record ends with it."""
        if self.business == PROBE_BUSINESS:
            return
        peer_in, times = self.caller_peer.name, (self.received_at, self.rang_at, self.answered_at)
        self._counts.results.add(outcome, peer_in, self.peer_out, *times)

    def acknowledged(self, now: float) -> None:
        """From here on, announcements reach both parties."""
        self.drop(at_once=self.callee is None or self.callee.ack_due is None)
        if self._greeted or self.is_over:
            return
        self._greeted = True
        if self._recorder is not None:
            self._recorder.begin(now)
        elif self.settings.announcements.begin and self.media is not None:
            self.media.play(BEGIN)

    def recorded(self) -> None:
        """Recording has begun: enter it in the record."""
        if self.recording is None:
            self.recording = self.call_id
            self._ua.outbox.counters["recordings_begun"] += 1
            if not self.is_over:
                self._ua.outbox.commit(self.record(), self.dump(), None)

    # -- timers of an answered call

    def _limit(self, left_s: float, now: float) -> None:
        """End the call in `left_s` seconds, with an announcement ENDING_S before the end where configured."""
        timers = self._ua.timers
        if self.settings.announcements.ending and self.media is not None and left_s > ENDING_S:
            self._max_timer = timers.set(now + left_s - ENDING_S, self._warn)
        else:
            self._max_timer = timers.set(now + left_s, self._too_long)

    def _warn(self, now: float) -> None:
        self._max_timer = self._ua.timers.set(now + ENDING_S, self._too_long)
        if self.media is not None:
            self.media.play(ENDING)

    def _too_long(self, now: float) -> None:
        self.end("relay", "max_duration", now)

    def refreshed(self, leg: Leg, response: Response, now: float) -> None:
        """Commit new targets and SDP, restart the session timer."""
        if self.state != UP or not self._was_answered_on(leg):
            return
        self._enter(REFRESH)
        self._watch_session(response, now)
        self._is_stale = True
        self._save()
        if self._recorder is not None and self.recording is not None:
            self._recorder.record(now)

    def _save(self) -> None:
        """Commit the new state, one commit at a time: a peer may refresh faster than the store takes it."""
        if self._is_stale and not self._is_saving:
            self._is_stale, self._is_saving = False, True
            self._ua.outbox.commit(self.record(), self.dump(), self._saved)

    def _saved(self, _: float) -> None:
        self._is_saving = False
        if self.state == UP:
            self._save()

    def _watch_session(self, response: Response, now: float) -> None:
        """RFC 4028 10: a session without a refresh ends after Session-Expires seconds."""
        try:
            timer = response.session_expires
        except ParseError:  # an unreadable one was not relayed either
            timer = None
        self._session_s = min(timer.seconds, masking.LONGEST_SESSION_S) if timer else 0
        self._restart_session_timer(now)

    def _restart_session_timer(self, now: float) -> None:
        timers = self._ua.timers
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
        if self.session is not None:
            self.session.stop(outcomes.LEAK if reason == "leak_check" else outcomes.STOPPED, reason, now)
            return
        if self.state != UP or self.caller is None or self.callee is None:
            return
        self._enter(END)
        # A call that is resumed after its time ended when its time was over, not now.
        self.ended_at = min(self.wall_ms(now), (self.answered_at or 0) + int(1000 * self._max_call_s))
        self.outcome, self.ended_by, self.end_reason = "answered", by, reason
        self.q850_cause = NORMAL_CLEARING if by != "relay" else _RELAY_CAUSES.get(reason, NORMAL_UNSPECIFIED)
        self._stop()
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
        self._ua.outbox.commit(self.record(), None, self._ended)

    def when_end_committed(self, then: Continuation, now: float) -> None:
        """Call `then` once the closing record is durable: no BYE is answered before that."""
        if self.state == ENDED:
            then(now)
        else:
            self._waiting_for_end.append(then)

    def _ended(self, now: float) -> None:
        self._enter(COMMITTED)
        if self._calls.get(self.invite_key) is self:
            del self._calls[self.invite_key]
        if self.answered_at is not None:
            self.drop()
        waiting, self._waiting_for_end = self._waiting_for_end, []
        for then in waiting:
            then(now)

    def drop(self, at_once: bool = False) -> None:
        """Drop the stored attempt: a restart need not end it. `at_once`: see `DropAttempt`."""
        self.unacked_answer = None
        if self.kept:
            self.kept = False
            self._ua.outbox.drop_attempt(self.call_id, at_once)

    def was_closed(self, now: float) -> None:
        """The closing record is already in the store."""
        self.session = None
        self._enter(REFUSE)
        self._ended(now)

    def disconnect(self, reason: str, now: float) -> None:
        self.end("relay", reason, now)

    def lost(self, leg: Leg, now: float) -> None:
        """End the call if it was answered on that dialog. While dialogs are early, another may still answer."""
        if self._was_answered_on(leg):
            self.disconnect("peer_gone", now)

    def _was_answered_on(self, leg: Leg) -> bool:
        return leg is self.caller or leg is self.callee

    def hung_up(self, leg: Leg, request: Request, reply: Reply, served_for: str, now: float) -> None:
        """Answer the BYE once the closing record is durable. Crossing BYEs meet here."""
        if leg.bye_sent and leg is not self.callee and leg is not self.caller:
            leg.forget()
            raise ProtocolError(481, "BYE of a superfluous leg (late or forked answer) that crossed ours")
        early = self.session
        if early is not None and leg.side == "callee":
            raise ProtocolError(481, "no BYE from the callee of an early dialog (RFC 3261 15)")
        leg.dialog.receive_cseq(request.cseq.number)  # not earlier: a retransmission must get the same 481
        transaction = self._ua.transactions.serve(request, reply.flow, served_for)
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
        self._ua.outbox.counters["leak_check"] += 1
        self._ua.outbox.note("leak_check", call_id=self.call_id, towards=side)
        self.end("relay", "leak_check", now)

    # -- restart

    def probe(self, now: float) -> None:
        """Ask both peers by OPTIONS whether their dialog still exists (RFC 3261 11); end the call if not.

        A peer that owes an ACK is not asked: the ACK proves its dialog. The CSeqs now in use are committed:
        a restart after the clock was set back could otherwise continue below them.
        """
        self._is_stale = True
        self._save()
        for leg in (self.caller, self.callee):
            if leg is not None and leg.answer is None:
                leg.probe(now)

    def dump(self) -> bytes:
        """The state that a restart needs beside the record."""
        assert self.caller is not None
        assert self.callee is not None
        media = None if self.media is None else self.media.state
        settled = None if self.media is None else self.media.settled
        held, records, unacked = self.reservation.keys, self._recorder is not None, self.unacked_answer
        return dump_call(
            self.caller,
            self.callee,
            self._max_call_s,
            self._session_s,
            held,
            media,
            records,
            unacked,
            settled,
            self.invite_key[2],
        )

    def resume(self, state: CallState, now: float) -> None:
        """Restart timers and limit counts from the committed state."""
        self._max_call_s = state.max_call_s
        answered_at = self.answered_at or 0
        self.follow_clock(now)
        lasted_s = (self.wall_ms(now) - answered_at) / 1000
        self._limit(max(state.max_call_s - lasted_s, 0), now)
        self._session_s = state.session_s
        if state.unacked_answer is not None:
            self.unacked_answer = (state.unacked_answer.cseq, state.unacked_answer.data, state.unacked_answer.ack_cseq)
        self._restart_session_timer(now)
        if self.media is not None:
            self.media.watch(self._media_gone, now)
        if state.records:
            self._recorder = Recorder(self._ua, self.settings, self)
        self._enter(RESUME)
        self.reservation.comes_from(self.caller_peer.name)
        if self.peer_out is not None:
            self.reservation.goes_to(self.peer_out)
        self.reservation.falls_under(tuple(state.held))

    def greet_again(self, now: float) -> None:
        """After a restart: play the notice of a recording that has not begun, once the caller has acknowledged."""
        self._greeted = self.unacked_answer is None or self.recording is not None
        if self._greeted and self._recorder is not None and self.recording is None:
            self._recorder.begin(now)
