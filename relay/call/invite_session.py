"""The initial INVITE of a call, from its arrival until its final response is settled.

It owns the caller's INVITE transaction and the outbound attempts. Each attempt has its own dialog set (Call-ID, tags,
CSeq). Each early dialog of a forking callee is one leg, paired with an early dialog towards the caller, so that PRACK,
UPDATE and their offers never mix.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final

from relay.call import admission, states
from relay.call.announcement import OF_REFUSAL, Announcement, may_announce
from relay.call.dialogs import Dialogs
from relay.call.leg import Leg
from relay.call.media import Sender, fault_in, mask_for_rtpengine
from relay.call.outbound_attempt import TIMED_OUT, OutboundAttempt, SessionBase
from relay.call.state_codec import dump_attempt
from relay.errors import ParseError, ProtocolError
from relay.model import outcomes
from relay.model.call import Refusal, Route, refusal_on_route
from relay.model.outcomes import Outcome
from relay.peers.limits import ANNOUNCING, is_one_admitted, next_admitted
from relay.peers.targets import is_tried_elsewhere, mark_unreachable, select_secure, who_ended
from relay.privacy import masking
from relay.privacy.codecs import common_codecs
from relay.privacy.leak_check import Leak, leak_check_towards_callee, leak_check_towards_caller
from relay.privacy.sdp import SdpWriter, session_id
from relay.sip.message import Request, Response

if TYPE_CHECKING:
    from relay.call.call import Call
    from relay.call.caller_invite import CallerInvite
    from relay.call.media import Media
    from relay.model.actions import Continuation, LookUp
    from relay.peers.limits import CallCounts
    from relay.peers.targets import TargetState
    from relay.peers.user_agent import UserAgent
    from relay.sip.timers import Timer

TRYING_S: Final = 0.1  # latest time of the caller's 100, when no INVITE has gone out by then (RFC 3261 17.2.1: 0.2 s)
INVITE_EXPIRED: Final = "invite_expired"  # end_reason once the time in the INVITE's Expires is over
LOST_AT_RESTART: Final = "lost_at_restart"  # end_reason of an attempt that a crash cut short


class InviteSession(SessionBase):
    """The INVITE session of one call."""

    __slots__ = (
        "_announcement",
        "_attempt",
        "_counts",
        "_dialogs",
        "_expires_at",
        "_had_early_media",
        "_invite",
        "_language",
        "_offer",
        "_outstanding",
        "_pending_look_up",
        "_ring_ends_at",
        "_settings",
        "_sound",
        "_targets",
        "_timer",
        "_ua",
        "_wake_at",
        "call",
        "route",
    )

    def __init__(
        self,
        ua: UserAgent,
        dialogs: Dialogs,
        counts: CallCounts,
        call: Call,
        invite: CallerInvite,
    ) -> None:
        self._ua = ua
        self._dialogs = dialogs
        self._counts = counts
        self._settings = call.settings
        self.call = call
        self._invite = invite
        self.state = states.LOOKING_UP
        self._pending_look_up: LookUp | None = None
        self.route: Route | None = None
        self._targets: list[TargetState] = []  # not tried yet
        self._attempt: OutboundAttempt | None = None
        self._outstanding: list[OutboundAttempt] = []  # INVITE sent, final response not settled
        self._had_early_media = False  # the callee's network has played its own announcement
        self._announcement: Announcement | None = None
        self._language = ""  # of the announcement
        self._sound = ""  # of a hook's refusal; "": that of the outcome
        # b"": no announcement. Read now: rtpengine's SDP will replace it in the request.
        self._offer = self._neutral_offer() if self._settings.announcements.refused else b""
        self._expires_at = math.inf  # of the invitation
        self._ring_ends_at = math.inf
        self._timer: Timer | None = None
        self._wake_at = 0.0  # when the timer fires

    @property
    def _sender(self) -> Sender:
        return Sender("caller", self.call.caller_peer, self._invite.flow.host)

    def _neutral_offer(self) -> bytes:
        """The caller's SDP for an announcement; b"" if no media may be sent to its address."""
        offer = mask_for_rtpengine(self._invite.request)
        return b"" if offer and fault_in(offer, self._sender, self._ua) else offer

    def _enter(self, event: str) -> None:
        self.state = states.step(states.SESSION, self.state, event, self._ua.outbox, self.call.call_id)

    # -- the stored attempt, for a restart after a crash

    def _keep(self) -> None:
        """Store the progress of the attempt."""
        call = self.call
        media = "" if call.media is None else call.media.instance
        invites = [attempt.state() for attempt in self._outstanding]
        call.kept = True
        self._ua.outbox.keep_attempt(call.record(), dump_attempt(self._invite.flow, self._invite.head, media, invites))

    def _keep_once(self) -> None:
        """Store the attempt unless it is stored."""
        if not self.call.kept:
            self._keep()

    def going_out(self, attempt: OutboundAttempt) -> None:
        """Store the attempt before it is sent."""
        call = self.call
        call.peer_out, call.callee_leg_call_id, call.rang_at = attempt.target.peer.name, attempt.call_id, None
        if attempt not in self._outstanding:
            self._outstanding.append(attempt)
        self._keep()
        self._give_trying(attempt.started_at)

    def _give_trying(self, now: float) -> None:
        """Send 100. It ends the caller's retransmissions, so the attempt must be stored first for a restart."""
        if not self._invite.is_trying:
            self._keep_once()
            self._invite.respond_trying(now)

    def over(self, attempt: OutboundAttempt) -> None:
        if attempt in self._outstanding:
            self._outstanding.remove(attempt)
            self._drop_if_over()

    def _drop_if_over(self) -> None:
        if self.state == states.REFUSED and not self._outstanding:
            self.call.drop()

    # -- the look-up and the attempts

    def begin(self, now: float) -> None:
        """Start the timer of the 100."""
        call = self.call
        self._expires_at = now + self._invite.expires_s
        self._ua.outbox.link(call.call_id, call.caller_leg_call_id, "caller", call.caller_peer.name, call.caller_flow)
        self._wake_at = now + TRYING_S
        self._timer = self._ua.timers.set(self._wake_at, self._wake)

    def look_up(self) -> None:
        call = self.call
        self._pending_look_up = self._ua.outbox.look_up(
            call.dialled, call.caller_number, self.routed, peer=call.caller_peer, call_id=call.call_id
        )

    def routed(self, answer: Route | Refusal, now: float) -> None:
        if self.decided:  # cancelled while the look-up was pending
            return
        self._language = answer.language
        if isinstance(answer, Refusal):
            self.refuse(answer, now)
            return
        if refusal := self._counts.over_concurrency_cap(answer):
            self.refuse(refusal, now)
            return
        targets = self._ua.peers.candidates(answer.callee, now, self._ua.token)
        if self._invite.secure and not (targets := select_secure(targets)):
            self.refuse(refusal_on_route(outcomes.NOT_SECURE, answer), now)
            return
        self._enter(states.ROUTE)
        self._pending_look_up = None
        self.route = answer
        self.call.routed(answer, now)
        self._targets = targets
        self._ring_ends_at = min(now + (answer.ring_timeout_s or self._settings.ring_timeout_s), self._expires_at)
        if now >= self._ring_ends_at:  # it expired during the look-up
            self._not_answered(now)
            return
        media = self.call.media
        if media is None:
            self._begin(now)
        else:
            self._anchor(media, now)

    def _anchor(self, media: Media, now: float) -> None:
        media.caller_host = self._invite.flow.host
        media.callee_host = self._targets[0].flow.host if self._targets else ""
        if masking.brings_sdp(self._invite.request):
            media.anchor("offer", self._sender, self._invite.request, self.call.fail_closed, self._begin, now)
        else:
            media.reserve(partial(self._reserved, media))

    def _reserved(self, media: Media, now: float) -> None:
        """Refuse before anything rings if no rtpengine is available: a callee's offer would find out too late."""
        if media.reserved or self.decided:
            self._begin(now)
        else:
            self.refuse(outcomes.MEDIA_FAILED, now)

    def _begin(self, now: float) -> None:
        self._try_next(outcomes.NO_PEER, "no_peer", now)

    def _try_next(self, outcome: Outcome, reason: str, now: float, admitted: TargetState | None = None) -> None:
        """Try `admitted`, then the next targets; without one, refuse with `outcome`."""
        if self.decided:  # cancelled while rtpengine was working
            return
        unusable: tuple[Refusal, str] | None = None
        was_none = not self._targets
        media = self.call.media
        while target := admitted or next_admitted(self._targets, self._counts.quotas_out.admits_call, now):
            admitted = None
            self.call.reservation.goes_to(target.peer.name)
            if media is not None and not media.suits(target.flow.host):
                then = partial(self._try_next, outcome, reason, admitted=target)
                media.anchor_again(target.flow.host, self._invite.request, self.call.fail_closed, then, now)
                return
            attempt = self.attempt_at(target)
            try:
                attempt.start(self._invite.request, now)
            except (ProtocolError, ParseError) as error:  # another peer may allow other codecs
                unusable = admission.refusal_of_error(error), admission.lines_for(error)
            except Leak as leak:  # caught here, since a timer may have started this attempt
                leak.end_call(now)
                return
            else:
                self._enter(states.CALL)
                self._attempt = attempt
                self._watch(now)
                return
        if unusable is not None:
            self.refuse(unusable[0], now, unusable[1])
        elif self.call.peer_out is None and not was_none:  # every peer is at its limit
            self.refuse(outcomes.OVER_LIMIT, now)
        else:
            self._close(outcome, who_ended(reason), reason, now)

    def attempt_at(self, target: TargetState) -> OutboundAttempt:
        """A new attempt at the target, not sent yet."""
        assert self.route is not None
        call, ua, callee = self.call, self._ua, target.peer
        leak_check = leak_check_towards_callee(
            call.hidden_caller, call.caller_peer, self._invite.flow.host, callee, target.flow.host, ua.peers.hosts
        )
        codecs = common_codecs(call.caller_peer, callee)
        return OutboundAttempt(
            ua, self._dialogs, self, call, target, self.route, codecs, leak_check, secure=self._invite.secure
        )

    def _watch(self, now: float) -> None:
        """Set the single timer of the session. It is never moved later: most calls are answered before it fires."""
        silence_ends_at = self._silence_ends_at()
        if silence_ends_at <= now:  # the other targets have no room yet
            silence_ends_at = now + self._settings.no_progress_s
        when = min(self._ring_ends_at, silence_ends_at)
        if self._timer is None or when < self._wake_at:
            self._ua.timers.cancel(self._timer)
            self._wake_at = when
            self._timer = self._ua.timers.set(when, self._wake)

    def _silence_ends_at(self) -> float:
        """The time to fail over from the current target; infinity once it has responded, or if it is the last."""
        attempt = self._attempt
        if not self._targets or attempt is None or not attempt.is_silent:
            return math.inf
        return attempt.started_at + self._settings.no_progress_s

    def _wake(self, now: float) -> None:
        self._timer = None
        self._give_trying(now)
        attempt = self._attempt
        if now >= self._ring_ends_at:
            self._not_answered(now)
        elif attempt is not None and now >= self._silence_ends_at() and self._has_other(now):
            self._pass_over(attempt, outcomes.NO_PROGRESS, now)
        elif self.route is not None:
            self._watch(now)

    def _has_other(self, now: float) -> bool:
        """Whether another target would take the call."""
        return is_one_admitted(self._targets, self._counts.quotas_out.has_room, now)

    def _pass_over(self, attempt: OutboundAttempt, outcome: Outcome, now: float) -> None:
        """Cancel the attempt at a target that seems gone, and try the next one."""
        mark_unreachable(self._ua.outbox, attempt.target, now)
        self._abandon_attempt(now, TIMED_OUT)
        self._try_next(outcome, "no_response", now)

    def disconnected(self, attempt: OutboundAttempt, now: float) -> None:
        self._pass_over(attempt, outcomes.NO_CONNECTION, now)

    def refused(self, response: Response, now: float) -> None:
        rang = self.call.rang_at is not None
        outcome, extra = masking.mask_refusal(response, self._invite.request, rang=rang)
        self._failed(response.status, outcome, now, extra)

    def failed(self, why: str, now: float) -> None:
        self._failed(None, outcomes.NO_PROGRESS if why == "timeout" else outcomes.NO_CONNECTION, now)

    def unusable(self, error: ProtocolError | ParseError, now: float) -> None:
        self._attempt = None
        if isinstance(error, masking.NotAnchored):
            self.refuse(outcomes.MEDIA_FAILED, now)
        else:
            self._close(masking.mask_final(488, rang=False), "relay", "failed", now)

    def _failed(self, status: int | None, outcome: Outcome, now: float, extra: str = "") -> None:
        """The attempt failed, with `status` None for no response. 5xx and silence try the next target, and 408 does
        before it rings: afterwards it would ring again."""
        self._attempt = None
        if self.decided:
            return
        reason = "no_response" if status is None else f"sip_{status}"
        if is_tried_elsewhere(status) and outcome is not outcomes.NO_ANSWER:
            self._try_next(outcome, reason, now)
        else:
            self._close(outcome, who_ended(reason), reason, now, extra)

    # -- responses to the caller

    def opened(self, leg: Leg) -> None:
        """Open the caller's early dialog that mirrors the callee's, unless its responses will not be relayed."""
        if self.decided:
            return
        call, ua = self.call, self._ua
        writer = SdpWriter(session_id(ua.token()), anchored=call.media is not None)
        writer.codecs = leg.writer.codecs
        dialog, flow = self._invite.open_dialog(), self._invite.flow
        caller = Leg(ua, self._dialogs.legs, call, "caller", dialog, call.caller_peer, flow, call.dialled, writer)
        host, next_hop = leg.flow.host, leg.dialog.next_hop.host
        caller.leak_check = leak_check_towards_caller(
            call.hidden_callee, leg.peer, host, next_hop, call.caller_peer, flow.host, ua.peers.hosts
        )
        caller.own = (call.caller_number, call.dialled)
        caller.rseq = self._invite.rseq  # RFC 3262 4: a caller that counts by INVITE expects the next one
        caller.other, leg.other = leg, caller

    def progress(self, leg: Leg, response: Response, now: float) -> None:
        """Relay a callee's 18x in the caller's early dialog paired with it."""
        if self.decided:
            return
        status = masking.mask_provisional(response.status)
        data = self._invite.progress(leg.other, status, response, now)
        if data is None or status is None:
            return
        self._enter(states.PROGRESS)
        if status == 180:
            self.call.ringing(now)
        if self._offer and masking.brings_sdp(response):
            self._had_early_media = True
        self._invite.respond(status, data, now)

    def answered(self, leg: Leg, response: Response, now: float) -> None:
        """The callee's 2xx: commit the record, then answer both sides."""
        caller = leg.other
        data = self._invite.answer(caller, response)
        if self.call.media is not None:
            self.call.media.settle()
        caller.dialog.confirmed = True
        late_offer = not masking.has_sdp(self._invite.request)
        cseq = self._invite.request.cseq.number
        self.call.unacked_answer = (cseq, data, leg.invite_cseq if late_offer else 0)
        self._outstanding.clear()  # the call keeps the stored attempt until the caller's ACK
        self._decide(states.ANSWER)

        def give(at: float) -> None:
            self._give_answer(caller, cseq, data, late_offer=late_offer, now=at)

        self._attempt = None
        leg.ack_due, caller.answer_due = leg.invite_cseq, True
        if self._settings.answer_wait_s == math.inf:
            self._invite.release()
        else:
            withdraw = partial(self._withdraw_answer, caller, give)
            self._timer = self._ua.timers.set(now + self._settings.answer_wait_s, withdraw)
        self.call.answered(caller, leg, response, give, now)

    def _give_answer(self, caller: Leg, cseq: int, data: bytes, *, late_offer: bool, now: float) -> None:
        """The record is durable: 200 to the caller; ACK to the callee unless the caller's ACK brings its SDP."""
        if self.state != states.ANSWERING:  # too late: it was withdrawn
            return
        if self._settings.answer_wait_s != math.inf:
            self._ua.timers.cancel(self._timer)
            self._invite.release()
        caller.give_answer(cseq, data, self._invite.flow, now)
        if not late_offer:
            caller.other.acknowledge_due()
        self._invite.respond(200, data, now)
        self._enter(states.COMMITTED)

    def _withdraw_answer(self, caller: Leg, give: Continuation, now: float) -> None:
        """The store does not take the record of the answer: refuse the caller, and hang up the callee.

        If the callee has hung up meanwhile, its record says that the call was answered, and the caller is told so.
        """
        self._timer = None
        if self.call.is_over:
            self.call.when_end_committed(give, now)
            return
        self._enter(states.STOP)
        outcome = outcomes.NOT_STORED
        self._ua.outbox.refusals[outcome.name] += 1
        data = self._invite.refusal(outcome, admission.RETRY)
        self._invite.release()
        caller.answer_due = caller.bye_due = False
        self.call.withdraw(outcome, partial(self._send_final, outcome.status, data), now)
        caller.forget()

    # -- failure

    def refuse(self, refusal: Refusal, now: float, extra: str = "") -> None:
        """Refuse the call for the relay's own reasons. `extra`: further header lines of the response."""
        self.call.refused(refusal)
        self._sound = refusal.announce
        self._ua.outbox.refusals[refusal.outcome] += 1
        if refusal.retry_after_s is not None:
            extra += f"Retry-After: {refusal.retry_after_s}\r\n"
        outcome = Outcome(refusal.outcome, refusal.status, refusal.q850_cause or 0)
        self._close(outcome, "relay", refusal.end_reason or refusal.outcome, now, extra)

    def choose_tag(self) -> str:
        """The To tag for the response to a CANCEL."""
        return self._invite.choose_tag()

    def cancel(self, request: Request, now: float) -> None:
        """No effect once decided."""
        if self._announcement is not None:
            self._announcement.end(now)
        if self.decided:
            return
        self._abandon_attempt(now, masking.mask_reason(request))
        self._decide(states.CANCEL)
        self._finish(outcomes.CANCELLED, "caller", "cancel", "", now)

    def _not_answered(self, now: float) -> None:
        """The time to ring is over, or that of the invitation."""
        attempt, outcome, reason = self._attempt, outcomes.NO_ANSWER, "ring_timeout"
        if attempt is not None and attempt.is_silent:
            outcome, reason = outcomes.NO_PROGRESS, "no_response"
            if now >= attempt.started_at + self._settings.no_progress_s:  # a later target may have had less time
                mark_unreachable(self._ua.outbox, attempt.target, now)
        self._abandon_attempt(now, TIMED_OUT)
        # RFC 3261 13.3.1: "If the invitation expires before the UAS has generated a final response, a 487 (Request
        # Terminated) response SHOULD be generated."
        if now >= self._expires_at:
            self._decide(states.REFUSE)
            self._finish(outcome._replace(status=487), "relay", INVITE_EXPIRED, "", now)
        else:
            self._close(outcome, "relay", reason, now)

    def stop(self, outcome: Outcome, reason: str, now: float) -> None:
        if self._announcement is not None:
            self._announcement.end(now)
        if not self.decided:
            self._abandon_attempt(now, "")
            self._decide(states.STOP)
            self._finish(outcome, "relay", reason, "", now)

    def lose(self, attempts: list[OutboundAttempt], closed: Outcome | None, now: float) -> None:
        """Close a session that a crash cut short: cancel its INVITEs, commit the record, refuse the caller.

        `closed`: the outcome in the store, if the record was closed before the crash.
        """
        for attempt in attempts:
            self._outstanding.append(attempt)
            attempt.cancel(now, "")
        self._decide(states.LOSE)
        if closed is None:
            self._finish(outcomes.LOST, "relay", LOST_AT_RESTART, admission.RETRY, now)
            return
        data = self._invite.refusal(closed, admission.RETRY if closed.status == outcomes.LOST.status else "")
        self._invite.release()
        self.call.was_closed(now)
        self._send_final(closed.status, data, now)

    def _abandon_attempt(self, now: float, reason: str) -> None:
        if self._attempt is not None:
            self._attempt.cancel(now, reason)
            self._attempt = None

    def _close(self, outcome: Outcome, by: str, reason: str, now: float, extra: str = "") -> None:
        """Choose the final response; send it at once, or after an announcement."""
        if self._can_hear(outcome.name):
            self._decide(states.ANNOUNCE)
            self._give_trying(now)
            finish = partial(self._announced, outcome, by, reason, extra)
            sound = self._sound or OF_REFUSAL[outcome.name]
            self._announcement = Announcement(
                self._ua,
                self._counts.stages,
                self.call.call_id,
                sound,
                self._language,
                self._show,
                finish,
                learned=self.call.caller_peer.media_source == "learned",
            )
            self._announcement.begin(self._offer)
        else:
            self._decide(states.REFUSE)
            self._finish(outcome, by, reason, extra, now)

    def _can_hear(self, outcome: str) -> bool:
        """Whether the caller can hear an announcement, and has not heard the callee's network."""
        return (
            may_announce(outcome, self._offer)
            and not self._had_early_media
            and self._counts.stages.count(ANNOUNCING) < self._settings.announcements.max_at_once
            # A reliable 183 needs a PRACK, and a callee to relay it to.
            and not masking.requires(self._invite.request, "100rel")
        )

    def _show(self, sdp: bytes, now: float) -> None:
        self._invite.announce(sdp, self.call.caller_peer.codecs, self.call.dialled, now)

    def _announced(self, outcome: Outcome, by: str, reason: str, extra: str, now: float) -> None:
        self._announcement = None
        self._enter(states.REFUSE)
        self._finish(outcome, by, reason, extra, now)

    def _finish(self, outcome: Outcome, by: str, reason: str, extra: str, now: float) -> None:
        self._keep_once()  # else a restart would take a retransmitted INVITE for a new call
        data = self._invite.refusal(outcome, extra)
        self._invite.release()
        self.call.closed(outcome, by, reason, partial(self._send_final, outcome.status, data), now)

    def _send_final(self, status: int, data: bytes, now: float) -> None:
        """The record is durable: send the caller his final response."""
        self._invite.respond(status, data, now)
        self._enter(states.COMMITTED)
        self._drop_if_over()

    def _decide(self, event: str) -> None:
        self._enter(event)
        if self._pending_look_up is not None:
            self._pending_look_up.given_up = True
        self._ua.timers.cancel(self._timer)
