"""Registrar for peers without a fixed address (RFC 3261 10.3): calls go to the last registered Contact.

Registrations are not stored: calls in progress do not need them, since legs know their flows. After a restart such a
peer cannot be called until it registers again.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, cast

from relay.defence.bans import KnownAddresses
from relay.errors import ParseError, ProtocolError
from relay.model.capture import registrations_of
from relay.model.numbers import is_700
from relay.model.settings import Target, Transport, may_call_as
from relay.peers.peers import number_of_uri
from relay.peers.targets import TargetState
from relay.privacy import masking
from relay.privacy.messages import Reply, unsupported_line
from relay.sip.headers import NameAddr, parse_name_addr, parse_number
from relay.sip.uri import SipUri

if TYPE_CHECKING:
    from relay.defence.bans import Bans
    from relay.defence.limits import PeerShares
    from relay.defence.stateless import StatelessServer
    from relay.model.settings import Peer
    from relay.peers.user_agent import UserAgent
    from relay.sip.message import Flow, Request
    from relay.sip.timers import Timer

SHORTEST_S: Final = 60
LONGEST_S: Final = 3600
LONGEST_CONTACT: Final = 512  # characters
MOST_CONTACTS: Final = 8  # of a REGISTER


class PeerContact:
    """The registered contact of a peer."""

    __slots__ = ("call_id", "contact", "cseq", "expires_at", "flow", "peer", "timer")

    def __init__(
        self, peer: Peer, contact: str, flow: Flow, expires_at: float, timer: Timer, call_id: str, cseq: int
    ) -> None:
        """`call_id`, `cseq`: of its REGISTER."""
        self.peer = peer
        self.call_id = call_id
        self.cseq = cseq
        self.contact = contact  # the URI as written
        self.flow = flow
        self.expires_at = expires_at
        self.timer = timer


class Registrar:
    """The registrations at one engine. `relay.peers.auth` has authenticated the peers."""

    def __init__(self, ua: UserAgent, bans: Bans, shares: PeerShares, stateless: StatelessServer) -> None:
        self._ua = ua
        self._peers = ua.peers
        self._outbox = ua.outbox
        self._bans = bans
        self._shares = shares
        self._stateless = stateless
        self._registered: dict[str, PeerContact] = {}  # by the peer's name

    def apply_config(self) -> None:
        """Apply the configuration in force: peers with an unchanged login stay registered."""
        for name, registration in list(self._registered.items()):
            peer = self._peers.by_name(name)
            if peer is None or peer.login is None or peer.login != registration.peer.login:
                self._forget(registration, "reload")
            else:
                self._withdraw(registration)
                registration.peer = peer
                self._set_target(registration)
                self._settle(registration)

    def count(self) -> int:
        """Number of registered peers."""
        return len(self._registered)

    def holds(self, name: str) -> bool:
        """Whether the named peer is registered."""
        return name in self._registered

    def known(self) -> KnownAddresses:
        """Addresses of registered peers, exempt from bans."""
        return KnownAddresses((), {flow.host for flow in self._peers.registered})

    # -- REGISTER

    def register(self, request: Request, reply: Reply, peer: Peer, flow: Flow, now: float) -> None:
        """Handle a REGISTER of an authenticated peer (RFC 3261 10.3): one Contact, the last one counts."""
        self._outbox.link(registrations_of(peer.name), request.call_id, "caller", peer.name, flow)
        if unknown := masking.unknown_requirements(request):
            self._stateless.answer(reply, 420, now, unsupported_line(unknown))
            return
        if not _is_own_address(request, peer):
            self._stateless.answer(reply, 403, now)  # RFC 3261 10.3, step 4
            return
        try:
            self._take(request, peer, flow, now)
        except ProtocolError as error:
            lines = f"Min-Expires: {SHORTEST_S}\r\n" if error.status == 423 else ""
            self._stateless.answer(reply, error.status, now, lines)
        except ParseError:
            self._stateless.answer(reply, 400, now)
        else:
            self._accept(request, reply, peer, now)

    def _accept(self, request: Request, reply: Reply, peer: Peer, now: float) -> None:
        """Answer 200 in a transaction: credentials are valid once, and a retransmission must get the same answer."""
        ua, registration = self._ua, self._registered.get(peer.name)
        lines = ""
        if registration is not None:
            lines = f"Contact: <{registration.contact}>;expires={int(registration.expires_at - now)}\r\n"
        data = reply.write(200, to_tag=ua.token(), extra=lines)
        if self._shares.admits_transaction(peer.name, now):
            ua.transactions.serve(request, reply.flow, peer.name).respond(200, data, now)
        else:
            self._outbox.send(data, reply.flow)

    def _take(self, request: Request, peer: Peer, flow: Flow, now: float) -> None:
        """Raises ProtocolError and ParseError."""
        contacts = request.values("contact")
        if contacts == ["*"]:
            if _seconds(request.get("expires")) != 0:  # RFC 3261 10.2.2
                raise ProtocolError(400, "Contact: * without Expires: 0")
            self._check_order(request, peer)
            self._leave(peer, "")
        else:
            self._take_contacts([parse_name_addr(text, "contact") for text in contacts], request, peer, flow, now)

    def _take_contacts(self, contacts: list[NameAddr], request: Request, peer: Peer, flow: Flow, now: float) -> None:
        """All or none (RFC 3261 10.3, step 7)."""
        if contacts:
            self._check_order(request, peer)
        if len(contacts) > MOST_CONTACTS:  # each may be logged
            raise ProtocolError(400, f"a REGISTER has at most {MOST_CONTACTS} Contacts")
        wanted = [(contact, _seconds(contact.params.get("expires", request.get("expires")))) for contact in contacts]
        for contact, seconds in wanted:
            _check_contact(contact, seconds)
        for contact, seconds in wanted:
            if seconds:
                self._enter(peer, contact, request, flow, min(seconds, LONGEST_S), now)
            else:
                self._leave(peer, contact.uri_text)

    def _check_order(self, request: Request, peer: Peer) -> None:
        """Raise ProtocolError(500) for a REGISTER that a later one has overtaken."""
        # RFC 3261 10.3, step 7: with the same Call-ID, unless CSeq "is higher than that of the existing binding", the
        # update "MUST be aborted".
        known = self._registered.get(peer.name)
        if known is not None and known.call_id == request.call_id and request.cseq.number <= known.cseq:
            raise ProtocolError(500, "CSeq not above that of the registration")

    def _enter(self, peer: Peer, contact: NameAddr, request: Request, flow: Flow, seconds: int, now: float) -> None:
        expires_at = now + seconds
        before = self._registered.get(peer.name)
        if before is not None:
            self._remove(before)
        timer = self._ua.timers.set(expires_at, partial(self._expire, peer.name))
        call_id, cseq = request.call_id, request.cseq.number
        registration = PeerContact(peer, contact.uri_text, flow, expires_at, timer, call_id, cseq)
        self._registered[peer.name] = registration
        self._set_target(registration)
        self._bans.meet(flow.host)
        if before is None or (before.flow, before.contact) != (flow, contact.uri_text):
            self._settle(registration)
            self._outbox.note("login.registered", peer=peer.name, source=flow.host, expires_s=seconds)

    def _settle(self, registration: PeerContact) -> None:
        """Set the peer's target: the URI of the Contact, over the flow of the REGISTER."""
        flow = registration.flow
        uri = parse_name_addr(f"<{registration.contact}>").uri
        assert isinstance(uri, SipUri)
        params = {name: value for name, value in uri.params.items() if name != "method"}  # RFC 3261 19.1.1
        written = str(SipUri("sip", None, None, uri.host, uri.port, params, "")).removeprefix("sip:")
        target = Target(flow.host, flow.port, cast(Transport, flow.transport), written)
        self._peers.settle(registration.peer.name, TargetState(registration.peer, target, flow))

    def _leave(self, peer: Peer, contact: str) -> None:
        """Remove a registration. `contact`: its URI; "" for any."""
        registration = self._registered.get(peer.name)
        if registration is not None and contact in ("", registration.contact):
            self._end(registration, "left")

    def _expire(self, name: str, _: float) -> None:
        self._end(self._registered[name], "expired")

    def lose(self, flow: Flow) -> None:
        """End the registrations of a broken connection: only the far end can reopen it, and registers again then."""
        for peer in self._peers.registered.get(flow, ()) if flow.reliable else ():
            self._end(self._registered[peer.name], "connection")

    def _end(self, registration: PeerContact, why: str) -> None:
        self._peers.settle(registration.peer.name, None)
        self._forget(registration, why)

    def _forget(self, registration: PeerContact, why: str) -> None:
        self._remove(registration)
        self._outbox.note("login.ended", peer=registration.peer.name, reason=why)

    def _remove(self, registration: PeerContact) -> None:
        self._ua.timers.cancel(registration.timer)
        del self._registered[registration.peer.name]
        self._withdraw(registration)

    def _set_target(self, registration: PeerContact) -> None:
        """Enter the peer as one on that flow."""
        on_flow = self._peers.registered
        on_flow[registration.flow] = (*on_flow.get(registration.flow, ()), registration.peer)

    def _withdraw(self, registration: PeerContact) -> None:
        on_flow = self._peers.registered
        others = tuple([peer for peer in on_flow.pop(registration.flow) if peer is not registration.peer])
        if others:
            on_flow[registration.flow] = others


def _is_own_address(request: Request, peer: Peer) -> bool:
    """Whether the peer may register the address-of-record: its user name, one of its numbers, or a 700 number."""
    uri = request.to.uri
    username = "" if peer.login is None else peer.login.username.partition("@")[0]
    if isinstance(uri, SipUri) and uri.user == username:
        return True
    number = number_of_uri(uri)
    return is_700(number) or may_call_as(peer.numbers, number)


def _check_contact(contact: NameAddr, seconds: int) -> None:
    """Raise ProtocolError for a Contact that cannot be called, or for too short a time."""
    if not isinstance(contact.uri, SipUri) or len(contact.uri_text) > LONGEST_CONTACT:
        raise ProtocolError(400, "Contact is not a usable SIP URI")
    if 0 < seconds < SHORTEST_S:
        raise ProtocolError(423, "too brief")


def _seconds(text: str | None) -> int:
    """The seconds of an Expires; an hour if malformed or missing (RFC 3261 20.19)."""
    try:
        return LONGEST_S if text is None else parse_number(text, "expires", 2**32 - 1)
    except ParseError:
        return LONGEST_S
