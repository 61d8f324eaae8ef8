"""A leg: one SIP dialog of a call with a peer.

It holds only what its own peer may see; content of the other leg reaches it as masked lines and bodies.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from relay.call.media import Sender
from relay.call.states import OVER
from relay.errors import ParseError, ProtocolError
from relay.model.capture import Side
from relay.peers.user_agent import ClientRequest, UnacknowledgedAnswer
from relay.privacy import masking
from relay.privacy.leak_check import Leak, LeakCheck
from relay.privacy.masking import Body
from relay.privacy.messages import OutgoingRequest, Reply, contact_line
from relay.sip.dialog import Dialog
from relay.sip.message import Flow, Request, Response
from relay.sip.uri import SipUri, is_sips

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.call.media import Media
    from relay.call.reliable import ReliableResponses
    from relay.model.settings import Peer
    from relay.peers.user_agent import UserAgent
    from relay.privacy.sdp import SdpWriter
    from relay.sip.headers import NameAddr
    from relay.sip.transaction_client import Fail, Receive


class CallBase:
    """A call as its parts know it: what legs and recorder read, and the events that they emit."""

    __slots__ = ("call_id", "media", "recording", "state", "unacked_answer")

    call_id: str
    unacked_answer: tuple[int, bytes, int] | None  # 2xx to the caller's INVITE: the fields of an UnackedAnswer
    state: str  # in the table `CALL_LIFE`
    media: Media | None  # set when media go through rtpengine
    recording: str | None  # recording reference, once recording has begun

    @property
    def is_over(self) -> bool:
        """Its end is decided, committed or not."""
        return self.state in OVER

    def acknowledged(self, now: float) -> None:
        """The ACK to our 2xx came."""
        raise NotImplementedError

    def refreshed(self, leg: Leg, response: Response, now: float) -> None:
        """A re-INVITE or UPDATE in the dialog was answered 2xx."""
        raise NotImplementedError

    def lost(self, leg: Leg, now: float) -> None:
        """A request in the dialog was answered 408 or 481, or not at all (RFC 3261 12.2.1.2)."""
        raise NotImplementedError

    def hung_up(self, leg: Leg, request: Request, reply: Reply, served_for: str, now: float) -> None:
        """The leg's peer sent BYE; `served_for`: name of the peer. Raises ProtocolError if the BYE is refused."""
        raise NotImplementedError

    def disconnect(self, reason: str, now: float) -> None:
        """The dialog cannot go on: `reason` is the record's `end_reason`."""
        raise NotImplementedError

    def fail_closed(self, side: Side, now: float) -> None:
        """A message towards that side failed the leak check, and was not sent."""
        raise NotImplementedError

    def recorded(self) -> None:
        """Recording has begun."""
        raise NotImplementedError

    def parted(self, leg: Leg) -> None:
        """The leg and its other leg are done."""
        raise NotImplementedError


class PendingRequest:
    """A request of one leg's peer under way to the other leg, as the legs know it."""

    __slots__ = ("origin",)

    origin: Leg

    def abort(self, now: float) -> None:
        """The call ends."""
        raise NotImplementedError


class Leg:
    """One dialog of a call with its peer. Legs come in pairs: `other` is the leg on the far side."""

    __slots__ = (
        "_ack",
        "_destination",
        "_key",
        "_legs",
        "_ua",
        "ack_due",
        "answer",
        "answer_due",
        "bye_due",
        "bye_sent",
        "call",
        "contact",
        "credentials",
        "dialog",
        "flow",
        "forgotten",
        "invite_cseq",
        "invited",
        "inviting",
        "leak_check",
        "other",
        "own",
        "peer",
        "reliable",
        "rseq",
        "shown",
        "side",
        "updating",
        "writer",
    )
    __deletable__ = ("other",)  # required by mypyc for `del` in _part

    other: Leg

    def __init__(
        self,
        ua: UserAgent,
        legs: dict[tuple[str, str], Leg],
        call: CallBase,
        side: Side,
        dialog: Dialog,
        peer: Peer,
        flow: Flow,
        shown: str,
        writer: SdpWriter,
    ) -> None:
        """`legs`: of the engine, by our tag and the peer's; it enters itself, and `forget` removes it."""
        self._ua = ua
        self._legs = legs
        self.other = self  # until it is paired
        self.call = call
        self.side: Side = side
        self.dialog = dialog
        self.peer = peer
        self.flow = flow  # source of the peer's last message in this dialog
        self.shown = shown  # the number in our Contact: the 700 number this side knows
        self.writer = writer
        self.contact = contact_line(ua.peers.listener(flow), shown, secure=dialog.secure)
        self.own: tuple[str, ...] = ()
        self.leak_check = LeakCheck((), ())
        self.invite_cseq = dialog.local_cseq  # CSeq of our last INVITE on this leg
        self.credentials = ""  # authorization header lines of that INVITE
        self.inviting: PendingRequest | None = None  # our INVITE to the peer, unanswered
        self.invited: PendingRequest | None = None  # the peer's INVITE to us, unanswered
        self.updating: PendingRequest | None = None  # an UPDATE or PRACK with SDP in either direction, unanswered
        self.answer: UnacknowledgedAnswer | None = None  # our 2xx, without its ACK yet
        self.answer_due = False  # our 2xx waits for the commit of the record
        self.ack_due: int | None = None  # CSeq of the peer's 2xx that still lacks our ACK
        self.bye_due = False  # send BYE once the 2xx is acknowledged or given up
        self.bye_sent = False
        self.forgotten = False
        self.reliable: ReliableResponses | None = None  # those to the peer's INVITE in this dialog
        self.rseq = 0  # our last RSeq on this leg; at first the highest of the INVITE's earlier dialogs
        self._ack: tuple[bytes, Flow] | None = None  # our ACK to the last 2xx, for its retransmissions
        self._destination: Flow | None = None
        self._key = (dialog.local_tag, dialog.remote_tag)
        self._legs[self._key] = self

    @property
    def sender(self) -> Sender:
        """The peer as a source of SDP."""
        return Sender(self.side, self.peer, self.flow.host)

    # -- requests

    def destination(self) -> Flow:
        """The next hop of requests in this dialog, from its route set (RFC 3261 12.2.1.1, 8.1.2).

        The default transport is that of the leg, to the leg's host on the same connection while it is open, or on that
        of a phone's registration. A name, or an address that is not the peer's, would see the party's real number: see
        `Peers.way_to`. By UDP a phone gets them at its Contact: the latest registration may be another phone's.
        """
        if self._destination is None:
            hop, flow, peers = self.dialog.next_hop, self.flow, self._ua.peers
            is_elsewhere = hop.host != flow.host
            if is_elsewhere and not peers.may_be_sent_to(self.peer, hop.host):
                way = peers.way_to(self.peer, hop.host, flow, secure=hop.scheme == "sips")
                if self.peer.login is None:  # a phone may register again during the call
                    self._destination = way
                return way
            secure = self.dialog.secure or hop.scheme == "sips"
            transport = "tls" if secure else (hop.params.get("transport") or flow.transport).lower()
            port = hop.port or (5061 if transport == "tls" else 5060)
            if is_elsewhere or transport != flow.transport:
                listener = peers.listener_for(transport, hop.host, flow.listener)
                if listener is None:
                    return flow
                self._destination = Flow(listener, transport, hop.host, port)
            else:
                here = Flow(flow.listener, transport, flow.host, port, flow.connection)
                if self.peer.login is not None and transport != "udp":  # a phone may connect again during the call
                    return peers.way_to(self.peer, hop.host, here)
                self._destination = here
        return self._destination

    def retarget(self, message: Request | Response, flow: Flow | None = None) -> None:
        """Take the peer's new Contact (target refresh, RFC 3261 12.2) and source."""
        if self._may_go_to(message.contact):
            self.dialog.refresh_target(message.contact)
        self._destination = None
        if flow is not None and flow.transport == self.flow.transport:
            self.flow = flow

    def _may_go_to(self, contact: NameAddr | None) -> bool:
        """Whether the Contact is usable as a target: a sips: URI must be reachable by TLS."""
        if contact is None or not is_sips(contact.uri_text) or self.dialog.route_set:
            return True
        try:
            uri = contact.uri
        except ParseError:  # ignored as a target as well
            return True
        return not isinstance(uri, SipUri) or self._ua.peers.may_go(self.peer, uri, self.flow)

    def request(self, method: str, cseq: int, *, extra: str = "", body: Body | None = None) -> OutgoingRequest:
        """A request in this dialog. `extra`: masked header lines. Raises Leak."""
        if extra or body:
            self.guard(extra, body)
        dialog = self.dialog
        contact = self.contact if method in ("INVITE", "UPDATE") else ""
        rest = f"{contact}Max-Forwards: 70\r\n{extra}"
        return OutgoingRequest(method, dialog.request_uri, dialog.request_head, cseq, rest, body)

    def guard(self, text: str, body: Body | None) -> None:
        """Run the leak check over header lines and body of an outgoing message. Raises Leak."""
        if self.leak_check.hit(text, body.data if body else b"", own=self.own):
            raise Leak(self.call.fail_closed, self.side)

    def write(self, reply: Reply, status: int, *, extra: str = "", body: Body | None = None) -> bytes:
        """A response to a request of this leg's peer. Raises Leak."""
        if extra or body:
            self.guard(extra, body)
        return reply.write(status, to_tag=self.dialog.local_tag, extra=extra, body=body)

    def count(self, what: str) -> None:
        """Add one to a counter of the metrics."""
        self._ua.outbox.counters[what] += 1

    # -- provisional responses

    def acknowledge_progress(self, rseq: int, now: float) -> None:
        """Send our own PRACK for a reliable provisional response of the peer (RFC 3262 4). Raises Leak."""
        rack = f"RAck: {rseq} {self.invite_cseq} INVITE\r\n"
        request = self.request("PRACK", self.dialog.next_cseq(), extra=rack)
        self._ask(request, _ignore, _ignore_failure, now)

    @property
    def early_answer(self) -> Body | None:
        """The SDP of plain provisional responses, which a 2xx without SDP still has to bring (RFC 3261 13.2.1)."""
        return None if self.reliable is None else self.reliable.answer

    # -- 2xx and ACK

    def give_answer(self, cseq: int, data: bytes, flow: Flow, now: float) -> None:
        """Our 2xx to the peer's INVITE goes out: repeat it until `receive_ack` gets the ACK."""
        self.answer_due = False
        self.answer = UnacknowledgedAnswer(self._ua, cseq, data, flow, self._give_up_answer, now)

    def receive_ack(self, ack: Request, now: float) -> None:
        media = self.call.media
        if media is None or not media.take(partial(self._anchor_ack, media, ack), now):
            self._take_ack(ack, now)

    def _anchor_ack(self, media: Media, ack: Request, now: float) -> None:
        awaited = self.answer is not None and ack.cseq.number == self.answer.cseq and self.other.ack_due is not None
        if awaited and masking.brings_sdp(ack):
            media.anchor("answer", self.sender, ack, self.call.fail_closed, partial(self._take_ack, ack), now)
        else:
            self._take_ack(ack, now)

    def _take_ack(self, ack: Request, now: float) -> None:
        """Take the ACK to our 2xx; late or unknown ones are ignored.

        If the other leg still waits for its ACK (offer in the 2xx), this one brings the SDP for it.
        """
        answer = self.answer
        if answer is None or ack.cseq.number != answer.cseq:
            return
        self.answer = None
        answer.stop()
        self.call.acknowledged(now)
        if self.other.ack_due is not None:
            body = masking.mask_ack_body(ack, self.other.writer)
            self.other.acknowledge_due(body)
            if self.call.media is not None:
                self.call.media.settle()
            if self.other.writer.anchored and body is None and masking.brings_sdp(ack):
                self.call.disconnect("media_failed", now)  # the callee's offer would remain without an answer
        self._bye_if_due(now)

    def _give_up_answer(self, now: float) -> None:
        """No ACK within 64*T1: end the session (RFC 3261 13.3.1.4)."""
        self.answer = None
        self.call.disconnect("ack_timeout", now)
        self._bye_if_due(now)

    def acknowledge_due(self, body: Body | None = None) -> None:
        """Send the ACK that the peer's 2xx still lacks, if any."""
        if self.ack_due is not None:
            self.acknowledge(self.ack_due, body)

    def acknowledge(self, cseq: int, body: Body | None = None) -> None:
        """Send the ACK to the peer's 2xx (RFC 3261 13.2.2.4) and keep it for retransmissions of the 2xx."""
        flow = self.destination()
        branch = f"z9hG4bK{self._ua.token()}"
        request = self.request("ACK", cseq, body=body)
        if self.credentials:  # RFC 3261 22.1: same credentials as the INVITE
            request = request.with_credentials(cseq, self.credentials)
        data = request.render(self._ua.peers.listener(flow), branch)
        self.ack_due = None
        self._ack = (data, flow)
        self._ua.outbox.send(data, flow)

    def acknowledge_again(self) -> bool:
        """Repeat our ACK for a retransmitted 2xx. False if none was sent yet."""
        if self._ack is None:
            return False
        data, flow = self._ack
        if self.peer.login is not None:  # a phone may have registered again since
            flow = self.destination()
        self._ua.outbox.send(data, flow)
        return True

    def invite_again(self, cseq: int, credentials: str = "") -> None:
        """Our next INVITE goes out on this leg: reset the state of ACK and RSeq, which is per INVITE."""
        self.invite_cseq = cseq
        self.credentials = credentials
        self._ack = None
        self.other.rseq = 0
        self.other.reliable = None

    def establish(self, response: Response) -> None:
        """Confirm the dialog by the peer's 2xx to our INVITE, with its route set and target."""
        self.dialog.update_from_2xx(response)
        self._destination = None

    # -- the end

    def hang_up(self, now: float, extra: str = "") -> None:
        """Send BYE; if our 2xx lacks its ACK, only once that is settled (RFC 3261 15)."""
        if self.answer is not None or self.answer_due:
            self.bye_due = True
            return
        self.acknowledge_due()
        self.bye_sent = True
        self._send_bye(extra, now + self._ua.timings.transaction_s, now)

    def _send_bye(self, extra: str, deadline: float, now: float) -> None:
        cseq = self.dialog.next_cseq()
        try:
            request = self.request("BYE", cseq, extra=extra)
        except Leak:
            request = self.request("BYE", cseq)
        self._ask(request, self._bye_answered, partial(self._bye_failed, extra, deadline), now)

    def _ask(self, request: OutgoingRequest, receive: Receive, fail: Fail, now: float) -> None:
        """Send a request of the relay itself. One that exceeds the UDP limit fails at once."""
        try:
            ClientRequest(self._ua, request, self.destination(), self.peer, receive, fail, now, self._renumber)
        except ProtocolError:
            fail("too long", now)

    def _renumber(self, _: str, __: float) -> int:
        """The CSeq of our request when it is repeated after a challenge."""
        return self.dialog.next_cseq()

    def probe(self, now: float) -> None:
        """Ask the peer whether the dialog still exists; 481, 408 or silence end the call."""
        self._send_probe(now + self._ua.timings.transaction_s, now)

    def _send_probe(self, deadline: float, now: float) -> None:
        if not self.call.is_over:
            request = self.request("OPTIONS", self.dialog.next_cseq())
            self._ask(request, self._probe_answered, partial(self._probe_failed, deadline), now)

    def _probe_answered(self, response: Response, now: float) -> None:
        if response.status in (408, 481):
            self.call.disconnect("lost_at_restart", now)

    def _probe_failed(self, deadline: float, why: str, now: float) -> None:
        if not self._goes_again(partial(self._send_probe, deadline), deadline, why, now):
            self.call.disconnect("lost_at_restart", now)

    def _goes_again(self, send: Callable[[float], None], deadline: float, why: str, now: float) -> bool:
        """Repeat a request every T2 (as timer E does) until `deadline` while the transport fails: the peer restarts, or
        a connection broke, which perhaps only the peer can open."""
        timings = self._ua.timings
        if why != "transport" or now + timings.t2 >= deadline:
            return False
        self._ua.timers.set(now + timings.t2, send)
        return True

    def _bye_answered(self, response: Response, _: float) -> None:
        if response.status >= 200:
            self.forget()

    def _bye_failed(self, extra: str, deadline: float, why: str, now: float) -> None:
        """The peer's side would stay up."""
        if not self._goes_again(partial(self._send_bye_again, extra, deadline), deadline, why, now):
            self.forget()

    def _send_bye_again(self, extra: str, deadline: float, now: float) -> None:
        if not self.forgotten:  # unless the peer hung up meanwhile
            self._send_bye(extra, deadline, now)

    def _bye_if_due(self, now: float) -> None:
        if self.bye_due and self.answer is None:
            self.bye_due = False
            self.hang_up(now)

    def forget(self) -> None:
        """Drop the dialog: no further message is expected. Idempotent."""
        if self.forgotten:
            return
        self.forgotten = True
        self._legs.pop(self._key, None)
        if self.other.forgotten:
            self._part()
        if self.answer is not None:
            self.answer.stop()
            self.answer = None

    def _part(self) -> None:
        """Break the reference cycles once both legs are done, so that the call is freed without garbage collection."""
        other = self.other
        self.call.parted(self)
        del self.other
        if other is not self:
            del other.other

    def busy_with(self, method: str, *, offers: bool) -> tuple[int, str] | None:
        """Status and reason if a request of the peer cannot be relayed now (RFC 3261 14, RFC 3311 5.2, RFC 5407)."""
        other = self.other
        if method == "INVITE" and not self.dialog.confirmed:
            return (500 if self.side == "caller" else 491, "the first INVITE is not answered yet")
        # The other side may not know the dialog before its first ACK; later only an offer has to wait for one.
        if other.answer_due or (other.answer and (offers or self.call.unacked_answer)):
            return (491, "the other side has not acknowledged our answer yet")
        if method == "PRACK":  # part of the INVITE's offer and answer, or a new offer after them
            return (500, "another offer is not answered yet") if offers and self.updating else None
        if offers and (self.invited or (self.updating and self.updating.origin is self)):
            return (500, "an offer of this side is not answered yet")
        if offers and (self.inviting or self.updating or self.answer):
            return (491, "an offer of the other side is under way")
        return None


def _ignore(_: Response, __: float) -> None:
    """Ignore the response to our PRACK: the INVITE's own final response counts."""


def _ignore_failure(_: str, __: float) -> None:
    """Ignore a PRACK of ours without a response, likewise."""
