"""Our own requests to peers: registrations at trunks that require them (RFC 3261 10.2), and OPTIONS pings.

A registration is refreshed at half the granted time, and made anew at once when its target is gone. A failed one is
retried with backoff, at the peer's next target if it has several.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay.errors import ParseError
from relay.model.capture import registrations_of
from relay.peers.peers import host_port
from relay.peers.targets import TargetState, honour_retry_after, mark_reachable, mark_unreachable, retry_after_s
from relay.peers.user_agent import ClientRequest, UserAgent
from relay.privacy.messages import OutgoingRequest, contact_line
from relay.sip.headers import parse_name_addr, parse_number
from relay.sip.message import Response
from relay.sip.timers import Timer
from relay.sip.uri import SipUri

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.model.settings import Account, Peer, Settings

ASKED_S: Final = 3600
LONGEST_S: Final = 86_400  # cap of Min-Expires and of the granted time
FIRST_WAIT_S: Final = 30.0  # RFC 5626 4.5; doubled after each further failure
LONGEST_WAIT_S: Final = 1800.0
_DOWN: Final = frozenset({408, 503})  # answers to a ping of a target that takes no calls; any other shows that it is up


class Registrations:
    """The registrations of one engine."""

    def __init__(self, ua: UserAgent) -> None:
        self._ua = ua
        self._by_peer: dict[str, Registration] = {}
        self._leaving: set[Registration] = set()
        self._is_over = False  # shutdown has begun

    def apply_config(self, now: float) -> None:
        """Keep a registration at each peer with `registers`, and remove the others."""
        if self._is_over:  # a reload or DNS result after the shutdown began must not attract calls
            return
        wanted = {peer.name: peer for peer in self._ua.peers.all() if peer.registers}
        for name, registration in list(self._by_peer.items()):
            peer = wanted.get(name)
            if peer is None or peer.account != registration.peer.account:
                del self._by_peer[name]
                self._give_up(registration, now)
        for name, peer in wanted.items():
            known = self._by_peer.get(name)
            if known is None:
                known = self._by_peer[name] = Registration(self._ua, peer)
            known.apply_config(peer, now)

    def give_up(self, now: float) -> None:
        """Remove all registrations, for shutdown."""
        self._is_over = True
        for registration in self._by_peer.values():
            self._give_up(registration, now)
        self._by_peer = {}

    def _give_up(self, registration: Registration, now: float) -> None:
        self._leaving.add(registration)
        registration.give_up(partial(self._leaving.discard, registration), now)

    @property
    def leaving(self) -> int:
        """Number of removals not confirmed yet."""
        return len(self._leaving)

    def holds(self, name: str, now: float) -> bool:
        """Whether the relay is registered at the named peer."""
        registration = self._by_peer.get(name)
        return registration is not None and registration.ends_at > now


class Registration:
    """Our registration at one peer."""

    __slots__ = (
        "_account",
        "_asked_s",
        "_call_id",
        "_cseq",
        "_failures",
        "_given_up",
        "_tag",
        "_target",
        "_timer",
        "_tried",
        "_ua",
        "ends_at",
        "peer",
    )

    def __init__(self, ua: UserAgent, peer: Peer) -> None:
        assert peer.account is not None
        self.peer = peer
        self.ends_at = 0.0  # monotonic seconds; end of the last granted time
        self._ua = ua
        self._account: Account = peer.account
        self._call_id, self._tag = ua.token(), ua.token()  # RFC 3261 10.2: the same in all its REGISTERs
        self._cseq = 0
        self._asked_s = ASKED_S
        self._failures = 0  # consecutive
        self._tried = 0  # index of the next target, ever increasing
        self._target: TargetState | None = None  # target of the last REGISTER
        self._timer: Timer | None = None
        self._given_up = False

    def apply_config(self, peer: Peer, now: float) -> None:
        """Apply a configuration or DNS results; register at once if no target was known before, or it is gone."""
        self.peer = peer
        target, targets = self._target, self._ua.peers.targets_of(peer.name)
        if target is None or (targets and target.flow not in [each.flow for each in targets]):
            self._ua.timers.cancel(self._timer)
            self.ends_at = 0.0  # the peer's calls come by the new target
            self._ask(now)

    def give_up(self, done: Callable[[], None], now: float) -> None:
        """Remove the registration. `done` is called on the response or on failure."""
        self._ua.timers.cancel(self._timer)
        self._timer, self._given_up = None, True
        target = self._target
        if target is None or self.ends_at <= now:
            done()
            return
        self.ends_at = 0.0
        self._send(target, 0, partial(_left, done), lambda _, __: done(), now)

    # -- REGISTER

    def _ask(self, now: float) -> None:
        self._timer = None
        targets = self._ua.peers.targets_of(self.peer.name)
        if not targets:
            self._fail("no_address", 0, now)
            return
        target = self._target = targets[self._tried % len(targets)]
        self._send(target, self._asked_s, partial(self._answered, target), partial(self._unanswered, target), now)

    def _send(
        self,
        target: TargetState,
        seconds: int,
        receive: Callable[[Response, float], None],
        fail: Callable[[str, float], None],
        now: float,
    ) -> None:
        ua, flow, registrar = self._ua, target.flow, f"sip:{target.configured.written}"
        user = self._account.username
        address = f"sip:{user}@{target.configured.written}"
        constants = f"From: <{address}>;tag={self._tag}\r\nTo: <{address}>\r\nCall-ID: {self._call_id}\r\n"
        rest = f"{contact_line(ua.peers.listener(flow), user)}Max-Forwards: 70\r\nExpires: {seconds}\r\n"
        ua.outbox.link(registrations_of(self.peer.name), self._call_id, "callee", self.peer.name, flow)
        self._cseq += 1
        request = OutgoingRequest("REGISTER", registrar, constants, self._cseq, rest)
        ClientRequest(ua, request, flow, self.peer, receive, fail, now, self._renumber)

    def _renumber(self, _: str, __: float) -> int:
        self._cseq += 1
        return self._cseq

    # -- results

    def _answered(self, target: TargetState, response: Response, now: float) -> None:
        status = response.status
        if status < 200 or self._given_up or target is not self._target:
            return
        wanted_s = _min_expires(response) if status == 423 else 0  # RFC 3261 10.2.8
        if wanted_s > self._asked_s:
            was_asked_s, self._asked_s = self._asked_s, wanted_s
            if was_asked_s == ASKED_S:  # a second increase counts as a failure, with its wait
                self._ask(now)
                return
        if status < 300 and (granted_s := self._granted_s(response)):
            self._succeed(granted_s, now)
        else:
            self._fail(f"sip_{status}", retry_after_s(response.get("retry-after")), now)

    def _unanswered(self, target: TargetState, why: str, now: float) -> None:
        if not self._given_up and target is self._target:
            self._fail(why, 0, now)

    def _succeed(self, granted_s: int, now: float) -> None:
        was_registered, self._failures = self.ends_at > now, 0
        self.ends_at = now + granted_s
        self._timer = self._ua.timers.set(now + max(granted_s / 2, 1.0), self._ask)
        if not was_registered:
            target = "" if self._target is None else self._target.name
            self._ua.outbox.note("registration.up", peer=self.peer.name, target=target, granted_s=granted_s)

    def _fail(self, why: str, retry_after_s: int, now: float) -> None:
        """Retry later, with exponential backoff and jitter (RFC 5626 4.5)."""
        wait_s = min(FIRST_WAIT_S * 2.0 ** min(self._failures, 10), LONGEST_WAIT_S)
        wait_s *= 0.5 + self._ua.fraction() / 2
        wait_s = max(wait_s, min(float(retry_after_s), LONGEST_WAIT_S))
        target = "" if self._target is None else self._target.name
        self._failures += 1
        self._tried += 1
        self._timer = self._ua.timers.set(now + wait_s, self._ask)
        self._ua.outbox.note(
            "registration.failed", peer=self.peer.name, target=target, reason=why, again_in_s=round(wait_s)
        )

    def _granted_s(self, response: Response) -> int:
        """The granted seconds: of our Contact, else of Expires (RFC 3261 10.2.4), else as requested."""
        texts = [response.get("expires")]
        try:
            for contact in [parse_name_addr(text, "contact") for text in response.values("contact")]:
                uri = contact.uri
                if isinstance(uri, SipUri) and uri.user == self._account.username and self._is_ours(uri):
                    texts.insert(0, contact.params.get("expires"))
            for text in texts:
                if text is not None:
                    return min(parse_number(text, "expires", 2**32 - 1), LONGEST_S)
        except ParseError:
            pass
        return self._asked_s

    def _is_ours(self, uri: SipUri) -> bool:
        if self._target is None:
            return False
        listener = self._ua.peers.listener(self._target.flow)
        return host_port(uri.host, uri.port or 5060) == host_port(listener.advertised.strip("[]"), listener.port)


def _left(done: Callable[[], None], response: Response, _: float) -> None:
    if response.status >= 200:
        done()


def _min_expires(response: Response) -> int:
    """The seconds of Min-Expires; 0 if missing, malformed or over LONGEST_S."""
    try:
        seconds = parse_number(response.get("min-expires") or "0", "min-expires", 2**32 - 1)
    except ParseError:
        return 0
    return seconds if seconds <= LONGEST_S else 0


# -- OPTIONS pings to targets of peers with `ping_s`, to detect failure and recovery before a call does
#
# Any response except 408 and 503 counts as alive. A target with a pending ping is not pinged again: over UDP the
# request is retransmitted every T2, so recovery is noticed at once.

SPREAD_S: Final = 1.0  # the first pings of the peers are spread over this time


class Pings:
    """The pings of one engine."""

    def __init__(self, ua: UserAgent) -> None:
        self._ua = ua
        self._settings: Settings | None = None  # in force for the timers
        self._timers: dict[str, Timer] = {}  # by peer name

    def apply_config(self, settings: Settings, now: float) -> None:
        """Restart the pings if the configuration is new."""
        if self._settings is settings:
            return
        self._settings = settings
        for timer in self._timers.values():
            self._ua.timers.cancel(timer)
        self._timers = {}
        for peer in settings.peers:
            if peer.health.ping_s:
                self._ask_at(peer, now + self._ua.fraction() * min(peer.health.ping_s, SPREAD_S))

    def _ask_at(self, peer: Peer, when: float) -> None:
        self._timers[peer.name] = self._ua.timers.set(when, partial(self._ask, peer))

    def _ask(self, peer: Peer, now: float) -> None:
        for target in self._ua.peers.targets_of(peer.name):
            if target.pinging:  # the last ping is unanswered
                mark_unreachable(self._ua.outbox, target, now)
            else:
                target.pinging = True
                self._send(target, now)
        self._ask_at(peer, now + peer.health.ping_s)

    def _send(self, target: TargetState, now: float) -> None:
        ua, flow = self._ua, target.flow
        listener = ua.peers.listener(flow)
        uri = f"sip:{target.configured.written}"
        constants = f"From: <sip:{listener.sent_by}>;tag={ua.token()}\r\nTo: <{uri}>\r\nCall-ID: {ua.token()}\r\n"
        request = OutgoingRequest("OPTIONS", uri, constants, 1, f"{contact_line(listener, '')}Max-Forwards: 70\r\n")
        branch = f"z9hG4bK{ua.token()}"
        data = request.render(listener, branch)
        ua.transactions.request(
            "OPTIONS", branch, data, flow, partial(self._answered, target), partial(self._failed, target), now
        )

    def _answered(self, target: TargetState, response: Response, now: float) -> None:
        status = response.status
        if status < 200:
            return
        target.pinging = False
        honour_retry_after(self._ua.outbox, target, response, now)
        if status in _DOWN:
            mark_unreachable(self._ua.outbox, target, now)
        else:
            mark_reachable(self._ua.outbox, target)

    def _failed(self, target: TargetState, why: str, now: float) -> None:
        target.pinging = False
        # A timeout is counted here only if the ping interval is longer: else `_ask` has counted the silence.
        if why == "transport" or target.peer.health.ping_s >= self._ua.timings.transaction_s:
            mark_unreachable(self._ua.outbox, target, now)
