"""Where peers without a fixed address are: they register here (RFC 3261 10.3), and calls go where each has said last.

Registrations end with the process: no live call needs one, since its legs know where they were heard. The price is that
such a peer cannot be called after a restart until it has registered again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal, cast

from relay.call import masking
from relay.call.admission import number_of_uri
from relay.call.bans import Known
from relay.call.claims import may_call_as
from relay.call.compose import Reply
from relay.call.numbers import is_700
from relay.call.places import Place
from relay.call.settings import Target
from relay.errors import ParseError, ProtocolError
from relay.sip.headers import NameAddr, parse_name_addr, parse_number
from relay.sip.uri import SipUri

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.settings import Peer
    from relay.sip.flow import Flow
    from relay.sip.message import Request
    from relay.sip.timers import Timer

SHORTEST_S: Final = 60
LONGEST_S: Final = 3600
LONGEST_CONTACT: Final = 512  # characters


class Registration:
    """Where a peer is, until when."""

    __slots__ = ("contact", "expires_at", "flow", "peer", "timer")

    def __init__(self, peer: Peer, contact: str, flow: Flow, expires_at: float, timer: Timer) -> None:
        self.peer = peer
        self.contact = contact  # the URI, as it was written
        self.flow = flow
        self.expires_at = expires_at
        self.timer = timer


class Registrar:
    """Where the peers of one relay have registered. `relay.call.logins` has made sure who they are."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._registered: dict[str, Registration] = {}  # by the peer's name
        self._by_flow: dict[Flow, Registration] = {}

    def follow(self) -> None:
        """Goes by the configuration now in force: who logs in as before stays registered."""
        for name, registration in list(self._registered.items()):
            peer = self._core.peers.by_name(name)
            if peer is None or peer.login is None or peer.login != registration.peer.login:
                self._forget(registration, "reload")
            else:
                registration.peer = peer
                self._settle(registration)

    def count(self) -> int:
        """How many peers are registered."""
        return len(self._registered)

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

    def name_at(self, flow: Flow) -> str:
        """Of the peer there, by its address or since it has registered; "" for a stranger."""
        known = self._by_flow.get(flow) if self._by_flow else None
        return self._core.peers.name_at(flow.host) if known is None else known.peer.name

    def known(self) -> Known:
        """Where peers have registered."""
        return Known((), {flow.host for flow in self._by_flow})

    # -- REGISTER

    def register(self, request: Request, reply: Reply, peer: Peer, flow: Flow, now: float) -> None:
        """RFC 3261 10.3, of a peer that has proved who it is: one Contact, and the last one counts."""
        if unknown := masking.unknown_requirements(request):
            self._core.answer(reply, 420, now, f"Unsupported: {', '.join(unknown)}\r\n")
            return
        if not _is_own_address(request, peer):
            self._core.answer(reply, 403, now)  # RFC 3261 10.3, step 4
            return
        try:
            self._take(request, peer, flow, now)
        except ProtocolError as error:
            lines = f"Min-Expires: {SHORTEST_S}\r\n" if error.status == 423 else ""
            self._core.answer(reply, error.status, now, lines)
        except ParseError:
            self._core.answer(reply, 400, now)
        else:
            self._accept(request, reply, peer, now)

    def _accept(self, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        """200, in a transaction: its credentials are good once, and sent again it must have the same answer."""
        core, registration = self._core, self._registered.get(peer.name)
        lines = ""
        if registration is not None:
            lines = f"Contact: <{registration.contact}>;expires={int(registration.expires_at - now)}\r\n"
        data = reply.write(200, to_tag=core.token(), extra=lines)
        if core.has_room(peer.name, now):
            core.transactions.serve(request, reply.flow, peer.name).respond(200, data, now)
        else:
            core.send(data, reply.flow)

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
        before = self._registered.get(peer.name)
        if before is not None:
            self._remove(before)
        timer = self._core.timers.set(expires_at, partial(self._expire, peer.name))
        registration = Registration(peer, contact.uri_text, flow, expires_at, timer)
        self._registered[peer.name] = self._by_flow[flow] = registration
        self._core.bans.meet(flow.host)
        if before is None or (before.flow, before.contact) != (flow, contact.uri_text):
            self._settle(registration)
            self._core.note("login.registered", peer=peer.name, source=flow.host, expires_s=seconds)

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

    def lose(self, flow: Flow) -> None:
        """Nothing gets through to `flow`. A connection that is gone only its peer opens anew, and then it registers."""
        registration = self._by_flow.get(flow) if flow.reliable else None
        if registration is not None:
            self._end(registration, "connection")

    def _end(self, registration: Registration, why: str) -> None:
        self._core.peers.settle(registration.peer.name, None)
        self._forget(registration, why)

    def _forget(self, registration: Registration, why: str) -> None:
        self._remove(registration)
        self._core.note("login.ended", peer=registration.peer.name, reason=why)

    def _remove(self, registration: Registration) -> None:
        self._core.timers.cancel(registration.timer)
        del self._registered[registration.peer.name]
        if self._by_flow.get(registration.flow) is registration:
            del self._by_flow[registration.flow]


def _is_own_address(request: Request, peer: Peer) -> bool:
    """Whether the address-of-record is not somebody else's: the peer's user name, one of its numbers, or no party's."""
    uri = request.to.uri
    username = "" if peer.login is None else peer.login.username.partition("@")[0]
    if isinstance(uri, SipUri) and uri.user == username:
        return True
    number = number_of_uri(uri)
    return is_700(number) or may_call_as(peer.numbers, number)


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
