"""Peers without a fixed address: they prove who they are (RFC 3261 22.2), and register where they are reached (10.3).

Requests from where a peer has registered are the peer's, others from an unknown source are challenged. What a stranger
can make us do is bounded: a challenge keeps nothing, and there are so many a second, of which one source gets few.

Of several workers the first one takes all REGISTERs, and tells the others where each peer is; it answers once they
know, and it alone counts and logs them. Uses of a nonce are counted by each worker alone: credentials are good for one
method and URI, and those always come to the same worker.

Registrations end with the process: no live call needs one, since its legs know where they were heard. The price is that
such a peer cannot be called after a restart until it has registered again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal, cast

from relay.call import masking
from relay.call.actions import Registered
from relay.call.bans import GRAVE, Known
from relay.call.compose import Reply
from relay.call.nonces import Nonces
from relay.call.places import Place
from relay.call.settings import Target
from relay.call.strangers import Strangers
from relay.errors import ParseError, ProtocolError
from relay.sip.digest import Challenge, Credentials, parse_credentials
from relay.sip.headers import NameAddr, parse_name_addr, parse_number
from relay.sip.uri import SipUri

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.settings import Account, Peer, Settings
    from relay.sip.flow import Flow
    from relay.sip.message import Request
    from relay.sip.timers import Timer

REALM: Final = "relay700"
SHORTEST_S: Final = 60
LONGEST_S: Final = 3600
LONGEST_CONTACT: Final = 512  # characters
MOST_FAILURES: Final = 10  # of one source address in FAILURES_S; what comes beyond is not looked at
FAILURES_S: Final = 60.0
_NOT_CHALLENGED: Final = frozenset({"ACK", "CANCEL"})  # RFC 3261 22.1


class Registration:
    """Where a peer is, until when."""

    __slots__ = ("contact", "expires_at", "flow", "peer", "timer")

    def __init__(self, peer: Peer, contact: str, flow: Flow, expires_at: float, timer: Timer) -> None:
        self.peer = peer
        self.contact = contact  # the URI, as it was written
        self.flow = flow
        self.expires_at = expires_at
        self.timer = timer

    def told(self) -> Registered:
        """What the mates are to hear of it."""
        return Registered(self.peer.name, self.contact, self.flow, self.expires_at)

    def gone(self) -> Registered:
        """What they are to hear once it is over before its time."""
        return Registered(self.peer.name, self.contact, self.flow, None)


class Logins:
    """Of one relay."""

    def __init__(self, core: Core, secret: bytes) -> None:
        """`secret`: what nonces are made with, the same for all workers; at least 16 random bytes."""
        self._core = core
        self._is_first = core.counts.index == 0
        self._nonces = Nonces(secret)
        self._by_username: dict[str, Peer] = {}
        self._registered: dict[str, Registration] = {}  # by the peer's name
        self._by_flow: dict[Flow, Registration] = {}
        self._failures = core.counts.failures
        self._failures_end_at = 0.0
        self.follow(core.settings)

    def follow(self, settings: Settings) -> None:
        """Goes by this configuration from now on: who logs in as before stays registered."""
        self._strangers = Strangers(settings.limits.stranger_answers_per_s)
        self._by_username = {peer.login.username: peer for peer in settings.peers if peer.login is not None}
        for name, registration in list(self._registered.items()):
            peer = self._core.peers.by_name(name)
            if peer is None or peer.login is None or peer.login != registration.peer.login:
                self._forget(registration, "reload")
            else:
                registration.peer = peer
                self._settle(registration)

    @property
    def are_configured(self) -> bool:
        return bool(self._by_username)

    def count(self) -> int:
        """How many peers are registered, as the first worker counts them."""
        return len(self._registered) if self._is_first else 0

    def holds(self, name: str) -> bool:
        """Whether the named peer is registered."""
        return name in self._registered

    def knows(self, flow: Flow) -> bool:
        """Whether a peer has registered from there."""
        return flow in self._by_flow

    def peer_at(self, flow: Flow) -> Peer | None:
        """The peer that has registered from there."""
        known = self._by_flow.get(flow)
        return None if known is None else known.peer

    def known(self) -> Known:
        """Where peers have registered."""
        return Known((), {flow.host for flow in self._by_flow})

    # -- who a request is from

    def admit(self, request: Request, flow: Flow, now: float) -> Peer | None:
        """The peer that has sent it. None: it was challenged, or there were too many to answer. Raises ParseError."""
        if request.method != "REGISTER":  # a forged source must not move a peer to somewhere else
            known = self._by_flow.get(flow)
            if known is not None:
                return known.peer
        if request.method in _NOT_CHALLENGED:
            return None
        credentials = _credentials(request)
        if credentials is None:
            self._challenge(request, flow, now, stale=False)
            return None
        # Not looked at with a nonce of somebody else's making: so no guess costs less than a challenge.
        if not self._nonces.is_fresh(credentials.nonce, flow.host, now):
            self._challenge(request, flow, now, stale=True)
            return None
        peer = self._proved(request, credentials, flow, now)
        if peer is None:
            self._fail(request, flow, now)
        elif not self._nonces.count(credentials.nonce, int(credentials.nc, 16)):
            self._challenge(request, flow, now, stale=True)
            return None
        if peer is not None:
            self._core.bans.forgive(flow.host)
        return peer

    def _proved(self, request: Request, credentials: Credentials, flow: Flow, now: float) -> Peer | None:
        if now >= self._failures_end_at:
            self._failures.clear()
            self._failures_end_at = now + FAILURES_S
        peer = self._by_username.get(credentials.username)
        login: Account | None = None if peer is None else peer.login
        if login is None or self._failures.count(flow.host) >= MOST_FAILURES:
            return None
        if credentials.qop != "auth" or credentials.algorithm not in self._core.settings.login_algorithms:
            return None
        if credentials.uri != request.uri:  # RFC 7616 3.4.6
            return None
        return peer if credentials.is_proved_by(login.password, request.method) else None

    def _fail(self, request: Request, flow: Flow, now: float) -> None:
        self._failures.begin(flow.host)
        self._core.counters["logins_failed"] += 1
        # A nonce of ours for that address came back from there: this source is not forged.
        self._core.bans.offend(flow.host, "wrong password", now, proven=True, weight=GRAVE)
        if self._challenge(request, flow, now, stale=False):
            self._core.note("login.failed", source=flow.host, method=request.method)

    def _challenge(self, request: Request, flow: Flow, now: float, *, stale: bool) -> bool:
        """RFC 3261 8.2.7: keeps nothing, also no transaction; sent again it is answered with the same tag."""
        core = self._core
        if not self._strangers.admit(flow.host, now):
            return False
        reply = Reply(request, flow)
        nonce = self._nonces.make(flow.host, core.token(), now)
        lines = "".join(
            [
                f"WWW-Authenticate: {Challenge(REALM, nonce, algorithm, True, None, stale)}\r\n"
                for algorithm in core.settings.login_algorithms
            ]
        )
        tag = self._nonces.mac(request.branch, request.call_id)[:16]
        core.counters["challenges"] += 1
        core.send(reply.write(401, to_tag=tag, extra=lines), reply.flow)
        return True

    # -- REGISTER

    def register(self, request: Request, reply: Reply, peer: Peer, flow: Flow, now: float) -> None:
        """RFC 3261 10.3, of a peer that has proved who it is: one Contact, and the last one counts."""
        if unknown := masking.unknown_requirements(request):
            self._core.answer(request, reply, 420, now, f"Unsupported: {', '.join(unknown)}\r\n")
            return
        before = self._registered.get(peer.name)
        try:
            self._take(request, peer, flow, now)
        except ProtocolError as error:
            lines = f"Min-Expires: {SHORTEST_S}\r\n" if error.status == 423 else ""
            self._core.answer(request, reply, error.status, now, lines)
        except ParseError:
            self._core.answer(request, reply, 400, now)
        else:
            self._accept(request, reply, peer, before, now)

    def _accept(self, request: Request, reply: Reply, peer: Peer, before: Registration | None, now: float) -> None:
        """200, once the mates know where the peer is: from then on it may be called."""
        registration = self._registered.get(peer.name)
        lines = ""
        if registration is not None:
            lines = f"Contact: <{registration.contact}>;expires={int(registration.expires_at - now)}\r\n"
        answer = self._core.answer_later(request, reply, 200, lines)
        if registration is before:
            answer(now)
        elif registration is not None:
            self._core.registered(registration.told(), now, answer)
        elif before is not None:
            self._core.registered(before.gone(), now, answer)

    def _take(self, request: Request, peer: Peer, flow: Flow, now: float) -> None:
        """Raises ProtocolError and ParseError."""
        contacts = request.values("contact")
        if contacts == ["*"]:
            if _seconds(request.get("expires")) != 0:  # RFC 3261 10.2.2
                raise ProtocolError(400, "Contact: * without Expires: 0")
            self._leave(peer, "")
        else:
            self._take_contacts([parse_name_addr(text, "contact") for text in contacts], request, peer, flow, now)

    def _take_contacts(self, contacts: list[NameAddr], request: Request, peer: Peer, flow: Flow, now: float) -> None:
        """All or none (RFC 3261 10.3, step 7)."""
        wanted = [(contact, _seconds(contact.params.get("expires", request.get("expires")))) for contact in contacts]
        for contact, seconds in wanted:
            _check_contact(contact, seconds)
        for contact, seconds in wanted:
            if seconds:
                self._enter(peer, contact, flow, min(seconds, LONGEST_S), now)
            else:
                self._leave(peer, contact.uri_text)

    def _enter(self, peer: Peer, contact: NameAddr, flow: Flow, seconds: int, now: float) -> None:
        expires_at = now + seconds
        if self._hold(peer, contact.uri_text, flow, expires_at):
            self._core.note("login.registered", peer=peer.name, source=flow.host, expires_s=seconds)

    def _hold(self, peer: Peer, contact: str, flow: Flow, expires_at: float) -> bool:
        """Whether it was not there before."""
        before = self._registered.get(peer.name)
        if before is not None:
            self._remove(before)
        timer = self._core.timers.set(expires_at, partial(self._expire, peer.name))
        registration = Registration(peer, contact, flow, expires_at, timer)
        self._registered[peer.name] = self._by_flow[flow] = registration
        self._core.bans.meet(flow.host)
        if before is not None and (before.flow, before.contact) == (flow, contact):
            return False
        self._settle(registration)
        return True

    def registered(self, told: Registered, now: float) -> None:
        """A mate says where a peer is, or is no more."""
        peer, expires_at = self._core.peers.by_name(told.peer), told.expires_at
        if peer is None or peer.login is None:  # the mate goes by another configuration yet, or already
            return
        if expires_at is None:
            registration = self._registered.get(told.peer)
            if registration is not None and (registration.flow, registration.contact) == (told.flow, told.contact):
                self._end(registration, "connection")
        elif expires_at > now:
            self._hold(peer, told.contact, told.flow, expires_at)

    def _settle(self, registration: Registration) -> None:
        """Calls go to where the Contact says, by the way that its REGISTER came."""
        flow = registration.flow
        uri = parse_name_addr(f"<{registration.contact}>").uri
        assert isinstance(uri, SipUri)
        params = {name: value for name, value in uri.params.items() if name != "method"}  # RFC 3261 19.1.1
        written = str(SipUri("sip", None, None, uri.host, uri.port, params, "")).removeprefix("sip:")
        target = Target(flow.host, flow.port, cast(Literal["udp", "tcp", "tls"], flow.transport), written)
        self._core.peers.settle(registration.peer.name, Place(registration.peer, target, flow))

    def _leave(self, peer: Peer, contact: str) -> None:
        """`contact`: the URI that is given up; "": whichever there is."""
        registration = self._registered.get(peer.name)
        if registration is not None and contact in ("", registration.contact):
            self._end(registration, "left")

    def _expire(self, name: str, _: float) -> None:
        self._end(self._registered[name], "expired")

    def lose(self, flow: Flow, now: float) -> None:
        """Nothing gets through to `flow`: a connection that is gone is opened by its peer alone, who registers anew."""
        registration = self._by_flow.get(flow) if flow.reliable else None
        if registration is not None:
            self._core.registered(registration.gone(), now)
            self._end(registration, "connection")

    def _end(self, registration: Registration, why: str) -> None:
        self._core.peers.settle(registration.peer.name, None)
        self._forget(registration, why)

    def _forget(self, registration: Registration, why: str) -> None:
        self._remove(registration)
        if self._is_first:
            self._core.note("login.ended", peer=registration.peer.name, reason=why)

    def _remove(self, registration: Registration) -> None:
        self._core.timers.cancel(registration.timer)
        del self._registered[registration.peer.name]
        if self._by_flow.get(registration.flow) is registration:
            del self._by_flow[registration.flow]


def _credentials(request: Request) -> Credentials | None:
    """Those for our realm, where they can be read."""
    for text in request.get_all("authorization"):
        try:
            credentials = parse_credentials(text, "authorization")
        except ParseError:
            continue
        if credentials is not None and credentials.realm == REALM and credentials.nc:
            return credentials
    return None


def _check_contact(contact: NameAddr, seconds: int) -> None:
    """Raises ProtocolError for one that cannot be called, or for too short a time."""
    if not isinstance(contact.uri, SipUri) or len(contact.uri_text) > LONGEST_CONTACT:
        raise ProtocolError(400, "no Contact that can be called")
    if 0 < seconds < SHORTEST_S:
        raise ProtocolError(423, "too brief")


def _seconds(text: str | None) -> int:
    """RFC 3261 20.19: what is malformed, or missing, is an hour."""
    try:
        return LONGEST_S if text is None else parse_number(text, "expires", 2**32 - 1)
    except ParseError:
        return LONGEST_S
