"""The SIP engine: messages, look-up answers, commits and time go in, actions come out, in the order of execution.

It never sends, waits, logs, or reads a clock or a random source; each method is atomic. It makes the parts
of an engine, gives each those that it uses, and dispatches requests to `OutOfDialog` and `InDialog`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from relay.call.admission import Admission, LimitUse
from relay.call.call import Calls
from relay.call.dialogs import Dialogs
from relay.call.dispatch import InDialog, OutOfDialog
from relay.call.recovery import KeptAttempt, Recovery
from relay.call.text_message import TextMessages
from relay.defence.bans import Bans, KnownAddresses
from relay.defence.limits import PeerShares, Rates, Strangers, Tally
from relay.defence.shedding import Rank, Shedding
from relay.defence.stateless import Options, StatelessServer
from relay.errors import ParseError
from relay.model.actions import Action, MediaReply, Outbox
from relay.model.call import CallRecord, Refusal, Route
from relay.model.histogram import Form
from relay.model.settings import Peer, Settings, Target, hosts_of
from relay.peers.auth import Logins
from relay.peers.limits import ANNOUNCING, SETTING_UP, UP, CallCounts
from relay.peers.peers import PeerReport, Peers, peer_reports
from relay.peers.registrar import Registrar
from relay.peers.registrations import Pings, Registrations
from relay.peers.targets import TargetChoice
from relay.peers.user_agent import UserAgent
from relay.privacy.leak_check import Leak
from relay.privacy.messages import Reply
from relay.sip.framing import is_untagged
from relay.sip.message import Flow, Request, Response, parse_message, salvage_request
from relay.sip.timers import MOST_DUE, WallClock

LONGEST_CALL_ID: Final = 256  # of a new request, in characters
MALFORMED_PER_S: Final = 10  # log lines about malformed messages of one peer


class Engine:
    """The back-to-back user agent. `now` is in monotonic seconds everywhere."""

    def __init__(
        self, settings: Settings, token: Callable[[], str], clock_offset_s: float, *, nonce_key: bytes = b""
    ) -> None:
        """`token` returns 16 random hexadecimal digits; `clock_offset_s` is wall clock minus monotonic clock.
        `nonce_key`: of the store (`Sealer.nonce_key`), empty without one."""
        self._settings = settings
        self._clock = WallClock(clock_offset_s)
        self._outbox = Outbox()
        self._peers = Peers(settings)
        ua = self._ua = UserAgent(self._outbox, self._peers, settings.timings, token)
        self.bans = Bans(settings.limits)  # temporary bans of source addresses, enforced at the sockets
        self._make_defence(settings)
        self._make_peers(settings, nonce_key)
        self._dialogs = Dialogs(ua.transactions)
        self._counts = CallCounts()
        self._calls = Calls(ua, self._counts, self._clock, settings)
        admission = self._admission = Admission(self._peers, self._dialogs, self._counts, self._shares)
        self._messages = TextMessages(ua, self._dialogs, self._counts, admission, self._clock, settings)
        self._in_dialog = InDialog(ua, self._dialogs, self._shares, self._stateless)
        self._out_of_dialog = OutOfDialog(
            settings,
            self._calls,
            self._messages,
            self._dialogs,
            admission,
            self._registrar,
            self._options,
            self._shedding,
            self._stateless,
            self.bans,
        )
        self._recovery = Recovery(self._calls, self._dialogs)
        self.bans.spare(self._known_sources)
        self.bans.spare(self._registrar.known)
        self.bans.apply_config(settings.limits, 0.0, believes=not self._logins.are_configured)

    def _make_defence(self, settings: Settings) -> None:
        ua, outbox, peers = self._ua, self._outbox, self._peers
        self._shares = PeerShares(outbox, ua.timers, ua.transactions, settings.limits)
        self._malformed_notes = Rates()
        self._malformed_unsaid: Counter[str] = Counter()  # by peer, since its last log line about one
        tag = ua.token()
        self._stateless = StatelessServer(outbox, self._shares, peers.name_on, tag)
        self._options = Options(settings, outbox, self._shares, peers.sending, tag)
        self._shedding = Shedding(outbox, ua.timers, ua.transactions, self._shares, self.bans, peers.at, tag)

    def _make_peers(self, settings: Settings, nonce_key: bytes) -> None:
        ua = self._ua
        self._pings = Pings(ua)
        self._registrar = Registrar(ua, self.bans, self._shares, self._stateless)
        self._logins = Logins(settings, self._outbox, self.bans, self._peers, ua.token, nonce_key)
        self._registrations = Registrations(ua)

    # -- interface of the driver

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def clock_offset_s(self) -> float:
        return self._clock.offset_s

    @clock_offset_s.setter
    def clock_offset_s(self, offset_s: float) -> None:
        self._clock.offset_s = offset_s

    @property
    def links(self) -> bool:
        """Whether dialogs are told to the driver (`CaptureLink`), for capture."""
        return self._outbox.links

    @links.setter
    def links(self, wanted: bool) -> None:
        self._outbox.links = wanted

    def receive(self, data: bytes, flow: Flow, now: float) -> str:
        """Handle one datagram, or one message of a stream. A malformed one is counted, and answered 400 if possible.

        Returns its SIP Call-ID, "" if it was not parsed.
        """
        if data.startswith(b"OPTIONS ") and self._options.take(data, flow, now, is_behind=False):
            return ""
        if self._shares.flooders and self._is_flood(data, flow, now):
            return ""
        try:
            message = parse_message(data)
        except ParseError as error:
            self._malformed(data, error, flow, now)
            return ""
        try:
            if isinstance(message, Response):
                self._response(message, flow, now)
            else:
                self._request(message, flow, now)
        except Leak as leak:
            leak.end_call(now)
        except ParseError as error:  # a header parsed for the first time
            self._malformed(data, error, flow, now)
        return message.get("call-id") or ""

    def sort(self, data: bytes, flow: Flow, wait_s: float, now: float, *, lasts: bool) -> Rank | None:
        """The queue for a message under overload, or None if it is already handled.

        `wait_s`: the expected wait of a new call. `lasts`: see `sheds`.
        """
        if data.startswith(b"OPTIONS ") and self._options.take(data, flow, now, is_behind=True):
            return None
        if self._shares.flooders and self._is_flood(data, flow, now):
            return None
        return self._shedding.sort(data, flow, wait_s, now, lasts=lasts)

    def _is_flood(self, data: bytes, flow: Flow, now: float) -> bool:
        """Whether the message is stray and its peer is over the limit of stray messages; counts it then."""
        shares = self._shares
        name = self._peers.name_on(flow)
        if not shares.is_flooding(name, now) or self._dialogs.may_belong(data) or is_untagged(data):
            return False
        shares.count_stray(name, now)
        return True

    def name_on(self, flow: Flow) -> str:
        """The name under which the source's work is limited: its peer, or "" for all unknown sources together."""
        return self._peers.name_on(flow)

    def exceed_work(self, name: str, now: float) -> None:
        """A message was dropped: `name` has too many waiting."""
        self._shares.exceed(name, "work", now)

    def sheds(self, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool:
        """Whether a message that has waited, and is not `Rank.INSIDE`, is shed; if not, it is to be received.

        `lasts`: the overload is longer than a burst.
        """
        return self._shedding.sheds(data, flow, waited_s, now, lasts=lasts)

    def routed(self, token: int, answer: Route | Refusal, now: float) -> None:
        """The answer to a `LookUp`."""
        try:
            self._outbox.routed(token, answer, now)
        except Leak as leak:
            leak.end_call(now)

    def mediated(self, token: int, answer: MediaReply | None, now: float) -> None:
        """rtpengine's answer to a `Mediate`; None: no answer."""
        try:
            self._outbox.mediated(token, answer, now)
        except Leak as leak:
            leak.end_call(now)

    def committed(self, token: int, now: float) -> None:
        """The record of a `Commit` is durable."""
        self._outbox.committed(token, now)

    def transport_failed(self, flow: Flow, now: float, quote: bytes | None = None) -> None:
        """Sending on `flow` failed: so do its client transactions (RFC 3261 17.1.4), or that of an ICMP `quote`."""
        self._ua.transactions.transport_failed(flow, now, quote)
        self._registrar.lose(flow)

    def expire(self, now: float, most: int = MOST_DUE) -> None:
        """Fire the timers that are due, at most `most` of them."""
        self._ua.timers.run(now, most)

    def next_timeout(self) -> float | None:
        return self._ua.timers.next()

    def take_actions(self) -> list[Action]:
        return self._outbox.take_actions()

    def locate(self, located: Mapping[str, tuple[Target, ...]], now: float) -> None:
        """Take the DNS results for the targets of the named peers; start pings and registrations."""
        self._peers.locate(located)
        self.bans.forget_known(now)
        self._pings.apply_config(self.settings, now)
        self._registrations.apply_config(now)

    def reload(self, settings: Settings, located: Mapping[str, tuple[Target, ...]], now: float) -> None:
        """Take a new configuration and the DNS results for its peers; listeners and timers must be unchanged.

        Existing calls keep the settings in force at their arrival, except quotas.
        """
        self._settings = self._calls.settings = self._messages.settings = settings
        self._peers.apply_config(settings, located)
        self._shares.limits = settings.limits
        self._logins.apply_config(settings)
        self._registrar.apply_config()
        self._options.apply_config(settings)
        self._out_of_dialog.apply_config(settings)
        self.bans.apply_config(settings.limits, now, believes=not self._logins.are_configured)
        self._pings.apply_config(settings, now)
        self._registrations.apply_config(now)

    def unregister(self, now: float) -> None:
        """Remove our registrations at trunks, for shutdown; done when `leaving` is 0."""
        self._registrations.give_up(now)

    @property
    def leaving(self) -> int:
        """Number of removed registrations that trunks have not confirmed yet."""
        return self._registrations.leaving

    def peers(self, now: float) -> list[PeerReport]:
        """State of the peers and their targets."""
        return peer_reports(self._peers, self._counts, self._clock, self._is_registered, now)

    def limits(self, peer: Peer, now: float) -> list[LimitUse]:
        """The limits that apply to one more call of a peer. It counts none."""
        return self._admission.limits(peer, now)

    def calls_under(self, key: str) -> int:
        """Calls counted under the key of a concurrency cap, over all nodes."""
        return self._counts.calls_by_key.everywhere(key)

    def targets(self, party: str, now: float) -> list[TargetChoice]:
        """The targets for a call to a party, in an order that the call could try them in. It counts no call."""
        quotas = self._counts.quotas_out
        return [
            TargetChoice.of(
                target, target.state(now), is_full=not quotas.has_room(target.peer.name, target.peer.quota_out, now)
            )
            for target in self._peers.candidates(party, now, lambda: "0")
        ]

    @property
    def is_draining(self) -> bool:
        return self._out_of_dialog.draining

    def _is_registered(self, peer: Peer, now: float) -> bool | None:
        """Whether the peer is registered here, or we at the peer; None if neither is configured."""
        if peer.login is not None:
            return self._registrar.holds(peer.name)
        return self._registrations.holds(peer.name, now) if peer.registers else None

    def drain(self) -> None:
        """Answer new calls and OPTIONS with 503 from now on; calls in progress go on."""
        self._out_of_dialog.draining = self._options.draining = True

    def close(self) -> None:
        """Leave new calls and text messages unanswered from now on: they are sent again, or go to another node."""
        self._out_of_dialog.closed = True

    def live(self) -> list[CallRecord]:
        """Records so far of the calls in setup or answered."""
        return [call.record() for call in self._calls.live()]

    def is_live(self, call_id: str, business: str | None = None) -> bool:
        """Whether the call is in setup or answered, and belongs to the business."""
        return self._calls.find_live(call_id, business) is not None

    def hang_up(self, call_id: str, now: float, business: str | None = None) -> bool:
        """End one call in any state. False: no such live call, or not of the business."""
        call = self._calls.find_live(call_id, business)
        if call is None:
            return False
        call.end("relay", "hung_up", now)
        return True

    def hang_up_all(self, now: float) -> None:
        """End every call, for shutdown."""
        for call in list(self._calls.by_invite.values()):
            call.end("relay", "shutdown", now)
        for message in list(self._messages.by_key.values()):
            message.stop(now)

    @property
    def is_idle(self) -> bool:
        """No call, and nothing pending from ended ones."""
        return not (len(self._ua.transactions) or self._dialogs.legs or self._counts.stages.count(SETTING_UP))

    def refusals(self) -> dict[str, int]:
        """Number of calls refused by the relay itself, by outcome."""
        return dict(self._outbox.refusals)

    def shed(self) -> dict[str, int]:
        """Number of calls and text messages shed under overload, by peer."""
        return dict(self._shedding.counts)

    def over_share(self) -> dict[str, int]:
        """Number of calls and messages over a peer's limits, by peer."""
        return dict(self._shares.counts)

    def results(self) -> dict[str, Mapping[str, int] | Form]:
        """Calls since the start by peer and outcome, and how long their set-up took."""
        return self._counts.results.statistics()

    def limited(self) -> tuple[dict[str, Tally], dict[str, Rates]]:
        """The concurrent counts and rates of quotas and caps, by kind, for `SharedLimits`."""
        counts = self._counts
        return (
            {
                "calls": counts.calls_by_key,
                "calls_in": counts.quotas_in.calls,
                "calls_out": counts.quotas_out.calls,
            },
            {"rate_in": counts.quotas_in.rates, "rate_out": counts.quotas_out.rates},
        )

    def statistics(self) -> dict[str, int]:
        counts, outbox = self._counts, self._outbox
        return {
            "calls_up": counts.stages.count(UP),
            "calls_setting_up": counts.stages.count(SETTING_UP),
            "announcing": counts.stages.count(ANNOUNCING),
            "attempts": len(self._calls.by_invite),
            "messages": len(self._messages.by_key),
            "legs": len(self._dialogs.legs),
            "transactions": len(self._ua.transactions),
            "timers": len(self._ua.timers),
            "pending_lookups": len(outbox.pending_lookups),
            "pending_media": len(outbox.pending_media),
            "pending_commits": outbox.pending_commits,
            "calling_tags": len(self._dialogs.calling_tags),
            "logins": self._registrar.count(),
            **self.bans.statistics(),
            **outbox.counters,
        }

    def restore(self, record: CallRecord, dialogs: bytes, now: float, kept: KeptAttempt | None = None) -> None:
        """Resume a live call of the journal after a restart, and probe both peers.

        `kept`: its stored attempt, if the caller had not acknowledged the answer.
        """
        self._recovery.restore(record, dialogs, now, kept)

    def end_attempt(self, kept: KeptAttempt, now: float) -> None:
        """End an attempt that a crash cut short."""
        self._recovery.end_attempt(kept, now)

    def _known_sources(self) -> KnownAddresses:
        """Addresses that must not be banned, since requests or responses of calls come from there.

        Iterates over all calls.
        """
        peers = {id(peer): peer for peer in self._settings.peers}  # by identity: a peer's hash takes all its fields
        hosts = {target.flow.host for target in self._peers.targets()}
        for call in self._calls.by_invite.values():
            if call.caller_peer is Strangers.PEER:
                continue
            peers[id(call.caller_peer)] = call.caller_peer
            hosts.add(call.caller_flow.host)
        for leg in self._dialogs.legs.values():
            peers[id(leg.peer)] = leg.peer
            hosts.add(leg.flow.host)
        for peer in peers.values():
            hosts.update(hosts_of(peer))
        return KnownAddresses([network for peer in peers.values() for network in peer.sources], hosts)

    # -- dispatch

    def _malformed(self, data: bytes, error: ParseError, flow: Flow, now: float) -> None:
        """Answer 400 if the Via is usable, else count and drop."""
        outbox = self._outbox
        outbox.counters["malformed"] += 1
        name = self._peers.name_on(flow)
        self._shares.count_stray(name, now)
        self.bans.offend(flow.host, "malformed", now, proven=flow.reliable)
        known = self._peers.sending(flow) is not None or flow in self._peers.registered
        # Garbage must not fill the disk with log lines.
        strangers, notes = self._out_of_dialog.strangers, self._malformed_notes
        if notes.admit(name, MALFORMED_PER_S, now) if known else strangers.admit(flow.host, now):
            unsaid, reason = self._malformed_unsaid.pop(name, 0), error.reason
            outbox.note("message.malformed", source=flow.host, header=error.header, reason=reason, left_out=unsaid)
        else:
            self._malformed_unsaid[name] += 1
        request = salvage_request(data) if known else None
        if request is None or request.method == "ACK":
            return
        try:
            reply = Reply(request, flow)
        except ParseError:
            return
        outbox.send(reply.write(400, to_tag=self._ua.token()), reply.flow)

    def _response(self, response: Response, flow: Flow, now: float) -> None:
        if self._ua.transactions.receive_response(response, now):
            return
        self._outbox.counters["responses_stray"] += 1
        self._shares.count_stray(self._peers.name_on(flow), now)
        if self._peers.sending(flow) is None:
            self.bans.offend(flow.host, "stray response", now, proven=flow.reliable)
        leg = self._dialogs.legs.get((response.from_tag or "", response.to_tag or ""))
        if leg is None or leg.ack_due is not None:  # our ACK needs the SDP of the caller's
            return
        if 200 <= response.status < 300 and response.cseq.method == "INVITE":
            # After a restart the callee may still repeat the 2xx of a committed answer.
            leg.acknowledge(response.cseq.number)

    def _request(self, request: Request, flow: Flow, now: float) -> None:
        transaction = self._ua.transactions.find_server(request)
        if transaction is not None:
            transaction.receive(request, now)
            return
        if len(request.call_id) > LONGEST_CALL_ID and request.to_tag is None:  # a record would keep it for months
            raise ParseError(f"longer than {LONGEST_CALL_ID} characters", "call-id")
        peer = self._peers.sending(flow) or self._in_dialog.former_peer(request, flow)
        if peer is None and self._logins.are_configured:
            peer = self._logins.admit(request, flow, now)
            if peer is None:  # it was challenged
                self.bans.offend(flow.host, "no login", now, proven=flow.reliable)
                return
        if peer is None:
            self._out_of_dialog.refuse_stranger(request, flow, now)
        elif request.method == "ACK":
            self._in_dialog.acknowledge(request, flow, peer, now)
        elif request.method == "CANCEL":
            self._in_dialog.cancel(request, flow, peer, now)
        elif request.to_tag is None:
            self._out_of_dialog.receive(request, flow, peer, now)
        else:
            self._in_dialog.receive(request, flow, peer, now)
