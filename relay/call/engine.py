"""The SIP engine: messages, look-up answers, commits and time go in, actions come out, in the order of execution.

It never sends, waits, logs, or reads a clock or a random source; each method is atomic. It dispatches messages to
`OutOfDialog` (out of dialog), `InviteSession` (initial INVITE), `InDialogRelay` (requests within a call) and `Call`
(its end).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from relay.call.access import former_peer, known_sources, may_speak
from relay.call.call import Call
from relay.call.core import Core
from relay.call.in_dialog_relay import InDialogRelay
from relay.call.invite_session import InviteSession
from relay.call.leak_check import Leak
from relay.call.leg import Leg
from relay.call.out_of_dialog import BUSY, KNOWN_ELSEWHERE, OutOfDialog
from relay.call.recovery import KeptAttempt, ask, end_attempt, restore, take_up_answer
from relay.defence.bans import Bans
from relay.defence.limits import Rates, Tally
from relay.defence.shedding import Rank, Shedding
from relay.defence.stateless import Options
from relay.errors import ParseError, ProtocolError
from relay.model.actions import Action, Mediated
from relay.model.call import CallRecord, Refusal, Route
from relay.model.settings import Peer, Settings, Target
from relay.peers.auth import Logins
from relay.peers.limits import ANNOUNCING, SETTING_UP, UP
from relay.peers.pings import Pings
from relay.peers.registrar import Registrar
from relay.peers.registrations import Registrations
from relay.peers.state import PeerState, peer_states
from relay.privacy import masking
from relay.privacy.messages import Reply
from relay.sip.framing import is_untagged
from relay.sip.message import Flow, Request, Response, check_request, parse_message, salvage

_RELAYED: Final = frozenset({"INVITE", "UPDATE", "INFO", "PRACK", "OPTIONS"})


class Engine:
    """The back-to-back user agent of DESIGN 2. `now` is in monotonic seconds everywhere."""

    def __init__(self, settings: Settings, token: Callable[[], str], clock_offset_s: float) -> None:
        """`token` returns 16 random hexadecimal digits; `clock_offset_s` is wall clock minus monotonic clock."""
        core = self._core = Core(settings, token, clock_offset_s)
        tag = core.stateless.tag
        self._pings = Pings(core.ua)
        self._registrar = Registrar(core.ua, core.bans, core.shares, core.stateless)
        self._logins = Logins(settings, core.outbox, core.bans, core.peers, token)
        self._options = Options(settings, core.outbox, core.shares, core.peers.by_source, tag)
        self._shedding = Shedding(
            core.outbox, core.timers, core.transactions, core.shares, core.bans, core.peers.at, tag
        )
        self._reception = OutOfDialog(self._core, self._registrar, self._options, self._shedding)
        self._registrations = Registrations(core.ua)
        self.bans.spare(partial(known_sources, self._core))
        self.bans.spare(self._registrar.known)
        self.bans.follow(settings.limits, 0.0, believes=not self._logins.are_configured)

    # -- interface of the driver

    @property
    def settings(self) -> Settings:
        return self._core.settings

    @property
    def bans(self) -> Bans:
        """Temporary bans of source addresses, enforced at the sockets."""
        return self._core.bans

    @property
    def clock_offset_s(self) -> float:
        return self._core.clock.offset_s

    @clock_offset_s.setter
    def clock_offset_s(self, offset_s: float) -> None:
        self._core.clock.offset_s = offset_s

    def receive(self, data: bytes, flow: Flow, now: float) -> None:
        """Handle one datagram, or one message of a stream. A malformed one is counted, and answered 400 if possible."""
        if data.startswith(b"OPTIONS ") and self._options.take(data, flow, now, is_behind=False):
            return
        if self._core.shares.flooders and self._is_flood(data, flow, now):
            return
        try:
            message = parse_message(data)
        except ParseError as error:
            self._malformed(data, error, flow, now)
            return
        try:
            if isinstance(message, Response):
                self._response(message, flow, now)
            else:
                self._request(message, flow, now)
        except Leak as leak:
            leak.end_call(now)
        except ParseError as error:  # a header parsed for the first time
            self._malformed(data, error, flow, now)

    def sort(self, data: bytes, flow: Flow, wait_s: float, now: float, *, lasts: bool) -> Rank | None:
        """The queue for a message under overload, or None if it is already handled.

        `wait_s`: the expected wait of a new call. `lasts`: see `receive_new`.
        """
        if data.startswith(b"OPTIONS ") and self._options.take(data, flow, now, is_behind=True):
            return None
        if self._core.shares.flooders and self._is_flood(data, flow, now):
            return None
        return self._shedding.sort(data, flow, wait_s, now, lasts=lasts)

    def _is_flood(self, data: bytes, flow: Flow, now: float) -> bool:
        """Whether the message is stray and its peer is over the limit of stray messages; counts it then."""
        core = self._core
        name = core.peers.name_on(flow)
        if not core.shares.has_strayed(name, now) or core.dialogs.may_belong(data) or is_untagged(data):
            return False
        core.shares.admits_stray(name, now)
        return True

    def name_at(self, flow: Flow) -> str:
        """The name under which the source's work is limited: its peer, or "" for all unknown sources together."""
        return self._core.peers.name_on(flow)

    def exceed_work(self, name: str, now: float) -> None:
        """A message was dropped: `name` has too many waiting."""
        self._core.shares.exceed(name, "work", now)

    def receive_new(self, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool:
        """As `receive`, for a message that has waited and is not `Rank.INSIDE`. False: it was shed.

        `lasts`: the overload is longer than a burst.
        """
        if self._shedding.takes(data, flow, waited_s, now, lasts=lasts):
            return False
        self.receive(data, flow, now)
        return True

    def routed(self, token: int, answer: Route | Refusal, now: float) -> None:
        """The answer to a `LookUp`."""
        try:
            self._core.outbox.routed(token, answer, now)
        except Leak as leak:
            leak.end_call(now)

    def mediated(self, token: int, answer: Mediated | None, now: float) -> None:
        """rtpengine's answer to a `Mediate`; None: no answer."""
        try:
            self._core.outbox.mediated(token, answer, now)
        except Leak as leak:
            leak.end_call(now)

    def committed(self, token: int, now: float) -> None:
        """The record of a `Commit` is durable."""
        self._core.outbox.committed(token, now)

    def transport_failed(self, flow: Flow, now: float) -> None:
        """Sending on `flow` failed: so do its client transactions (RFC 3261 17.1.4)."""
        self._core.transactions.transport_failed(flow, now)
        self._registrar.lose(flow)

    def expire(self, now: float) -> None:
        self._core.timers.run(now)

    def next_timeout(self) -> float | None:
        return self._core.timers.next()

    def take_actions(self) -> list[Action]:
        return self._core.outbox.take_actions()

    def locate(self, located: Mapping[str, tuple[Target, ...]], now: float) -> None:
        """Take the DNS results for the targets of the named peers; start pings and registrations."""
        self._core.peers.locate(located)
        self.bans.forget_known(now)
        self._pings.follow(self.settings, now)
        self._registrations.follow(now)

    def reload(self, settings: Settings, located: Mapping[str, tuple[Target, ...]], now: float) -> None:
        """Take a new configuration and the DNS results for its peers; listeners and timers must be unchanged.

        Existing calls keep the settings of their peers, except quotas.
        """
        core = self._core
        core.settings = settings
        core.peers.follow(settings, located)
        core.shares.limits = settings.limits
        self._logins.follow(settings)
        self._registrar.follow()
        self._options.follow(settings)
        self._reception.follow(settings)
        self.bans.follow(settings.limits, now, believes=not self._logins.are_configured)
        self._pings.follow(settings, now)
        self._registrations.follow(now)

    def unregister(self, now: float) -> None:
        """Remove our registrations at trunks, for shutdown; done when `leaving` is 0."""
        self._registrations.give_up(now)

    @property
    def leaving(self) -> int:
        """Number of removed registrations that trunks have not confirmed yet."""
        return self._registrations.leaving

    def peers(self, now: float) -> list[PeerState]:
        """State of the peers and their targets."""
        core = self._core
        return peer_states(core.peers, core.counts, core.clock, self._is_registered, now)

    def _is_registered(self, peer: Peer, now: float) -> bool | None:
        """Whether the peer is registered here, or we at the peer; None if neither is configured."""
        if peer.login is not None:
            return self._registrar.holds(peer.name)
        return self._registrations.holds(peer.name, now) if peer.registers else None

    def drain(self) -> None:
        """Answer new calls and OPTIONS with 503 from now on; calls in progress go on."""
        self._reception.draining = self._options.draining = True

    def live(self) -> list[CallRecord]:
        """Records so far of the calls in setup or answered."""
        return [call.record() for call in self._core.attempts.values() if not call.ended]

    def is_live(self, call_id: str, business: str | None = None) -> bool:
        """Whether the call is in setup or answered, and belongs to the business."""
        return self._find_live(call_id, business) is not None

    def hang_up(self, call_id: str, now: float, business: str | None = None) -> bool:
        """End one call in any state. False: no such live call, or not of the business."""
        call = self._find_live(call_id, business)
        if call is None:
            return False
        call.end("relay", "hung_up", now)
        return True

    def _find_live(self, call_id: str, business: str | None) -> Call | None:
        for call in self._core.attempts.values():
            if call.call_id == call_id and not call.ended and business in (None, call.business):
                return call
        return None

    def hang_up_all(self, now: float) -> None:
        """End every call, for shutdown."""
        for call in list(self._core.attempts.values()):
            call.end("relay", "shutdown", now)
        for message in list(self._core.messages.values()):
            message.stop(now)

    @property
    def is_idle(self) -> bool:
        """No call, and nothing pending from ended ones."""
        return not (
            len(self._core.transactions) or self._core.dialogs.legs or self._core.counts.stages.count(SETTING_UP)
        )

    def refusals(self) -> dict[str, int]:
        """Number of calls refused by the relay itself, by outcome."""
        return dict(self._core.outbox.refusals)

    def shed(self) -> dict[str, int]:
        """Number of calls and text messages shed under overload, by peer."""
        return dict(self._shedding.counts)

    def over_share(self) -> dict[str, int]:
        """Number of calls and messages over a peer's limits, by peer."""
        return dict(self._core.shares.counts)

    def limited(self) -> tuple[dict[str, Tally], dict[str, Rates]]:
        """The concurrent counts and rates of quotas and caps, by kind, for `SharedLimits`."""
        core = self._core
        return (
            {
                "calls": core.counts.calls_by_key,
                "calls_in": core.counts.quotas_in.calls,
                "calls_out": core.counts.quotas_out.calls,
            },
            {"rate_in": core.counts.quotas_in.rates, "rate_out": core.counts.quotas_out.rates},
        )

    def statistics(self) -> dict[str, int]:
        core = self._core
        return {
            "calls_up": core.counts.stages.count(UP),
            "calls_setting_up": core.counts.stages.count(SETTING_UP),
            "announcing": core.counts.stages.count(ANNOUNCING),
            "attempts": len(core.attempts),
            "messages": len(core.messages),
            "legs": len(core.dialogs.legs),
            "transactions": len(core.transactions),
            "timers": len(core.timers),
            "pending_lookups": len(core.outbox.pending_lookups),
            "pending_media": len(core.outbox.pending_media),
            "pending_commits": core.outbox.pending_commits,
            "calling_tags": len(core.dialogs.calling_tags),
            "logins": self._registrar.count(),
            **self.bans.statistics(),
            **core.outbox.counters,
        }

    def restore(self, record: CallRecord, dialogs: bytes, now: float, kept: KeptAttempt | None = None) -> None:
        """Resume a live call of the journal after a restart, and probe both peers.

        `kept`: its stored attempt, if the caller had not acknowledged the answer.
        """
        core = self._core
        call = restore(core, record, dialogs, now)
        if call is not None:
            if kept is None:
                call.given = None  # the ACK came
            else:
                take_up_answer(core, call, kept, now)
            ask(core, call, now)
        elif kept is not None:
            end_attempt(core, kept, now)

    def end_attempt(self, kept: KeptAttempt, now: float) -> None:
        """End an attempt that a crash cut short (DESIGN 4.3)."""
        end_attempt(self._core, kept, now)

    # -- dispatch

    def _malformed(self, data: bytes, error: ParseError, flow: Flow, now: float) -> None:
        """Answer 400 if the Via is usable, else count and drop (DESIGN 4.5)."""
        core = self._core
        core.outbox.counters["malformed"] += 1
        core.shares.admits_stray(core.peers.name_on(flow), now)
        self.bans.offend(flow.host, "malformed", now, proven=flow.reliable)
        known = core.peers.by_source(flow.host) is not None or flow in core.peers.registered
        # Garbage from unknown sources must not fill the disk with log lines.
        if known or self._reception.strangers.admit(flow.host, now):
            core.outbox.note("message.malformed", source=flow.host, header=error.header, reason=error.reason)
        request = salvage(data) if known else None
        if request is None or request.method == "ACK":
            return
        try:
            reply = Reply(request, flow)
        except ParseError:
            return
        core.outbox.send(reply.write(400, to_tag=core.token()), reply.flow)

    def _response(self, response: Response, flow: Flow, now: float) -> None:
        core = self._core
        if core.transactions.receive_response(response, now):
            return
        core.outbox.counters["responses_stray"] += 1
        core.shares.admits_stray(core.peers.name_on(flow), now)
        if core.peers.by_source(flow.host) is None:
            self.bans.offend(flow.host, "stray response", now, proven=flow.reliable)
        leg = core.dialogs.legs.get((response.from_tag or "", response.to_tag or ""))
        if leg is None or leg.ack_due is not None:  # our ACK needs the SDP of the caller's
            return
        if 200 <= response.status < 300 and response.cseq.method == "INVITE":
            # After a restart the callee may still repeat the 2xx of a committed answer.
            leg.acknowledge(response.cseq.number)

    def _request(self, request: Request, flow: Flow, now: float) -> None:
        core = self._core
        transaction = core.transactions.find_server(request)
        if transaction is not None:
            transaction.receive(request, now)
            return
        peer = core.peers.by_source(flow.host) or former_peer(core, request, flow)
        if peer is None and self._logins.are_configured:
            peer = self._logins.admit(request, flow, now)
            if peer is None:  # it was challenged
                self.bans.offend(flow.host, "no login", now, proven=flow.reliable)
                return
        if peer is None:
            self._reception.turn_away(request, flow, now)
        elif request.method == "ACK":
            leg = self._core.dialogs.leg_of(request)
            if leg is not None and may_speak(leg, peer, flow):
                leg.receive_ack(request, now)
            else:
                core.shares.admits_stray(peer.name, now)
        elif request.method == "CANCEL":
            self._cancel(request, flow, peer, now)
        elif request.to_tag is None:
            self._reception.receive(request, flow, peer, now)
        else:
            self._inside(request, flow, peer, now)

    def _cancel(self, request: Request, flow: Flow, peer: Peer, now: float) -> None:
        """Answer the CANCEL, then its INVITE, which must come from the same peer (RFC 3261 9.2)."""
        core = self._core
        invite = core.transactions.find_cancelled(request)
        reply = Reply(request, flow)
        if invite is None or (
            invite.reply_to.host != flow.host and core.peers.by_source(invite.reply_to.host) is not peer
        ):
            core.stateless.answer(reply, 481, now)
            return
        core.stateless.answer(reply, 200, now)
        user = invite.user
        if isinstance(user, InviteSession):
            user.cancel(request, now)
        elif isinstance(user, InDialogRelay):
            user.cancel(now)

    # -- within a call

    def _inside(self, request: Request, flow: Flow, peer: Peer, now: float) -> None:
        reply = Reply(request, flow)
        try:
            check_request(request)
            self._take(request, reply, peer, now)
        except ProtocolError as error:
            self._core.stateless.answer(reply, error.status, now)

    def _take(self, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        core, leg = self._core, self._core.dialogs.leg_of(request)
        if leg is None or not may_speak(leg, peer, reply.flow):
            core.stateless.answer(reply, 481, now)
        elif request.max_forwards == 0:
            core.stateless.answer(reply, 483, now)
        elif (request.method != "BYE" or leg.call.ended) and not core.shares.has_room(peer.name, now):
            core.stateless.answer(reply, 503, now, BUSY)
        elif request.method == "BYE":
            leg.call.hung_up(leg, request, reply, peer.name, now)
        elif leg.call.ended or leg.bye_sent:
            core.stateless.answer(reply, 481, now)
        elif request.method not in _RELAYED:
            core.stateless.answer(reply, 405 if request.method in KNOWN_ELSEWHERE else 501, now, masking.ALLOW)
        elif unknown := masking.unknown_requirements(request):
            core.stateless.answer(reply, 420, now, f"Unsupported: {', '.join(unknown)}\r\n")
        else:
            self._relay(leg, request, reply, peer, now)

    def _relay(self, leg: Leg, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        leg.dialog.receive_cseq(request.cseq.number)
        core = self._core
        transaction = core.transactions.serve(request, reply.flow, peer.name)
        if request.method == "INVITE":
            transaction.respond(100, reply.write(100), now)
        exchange = InDialogRelay(core.ua, leg, request, reply, transaction)
        transaction.user = exchange
        exchange.begin(now)
