"""A leg: one SIP dialog of a call, and how the relay speaks in it.

A leg knows what its own peer may see. What the other leg brings reaches it only as masked lines and bodies.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from relay.call import masking
from relay.call.answer import Answer
from relay.call.compose import OutgoingRequest, Reply, contact_line
from relay.call.masking import Body
from relay.call.sending import SentRequest
from relay.call.tripwire import Tripwire
from relay.errors import ParseError, ProtocolError, RelayError
from relay.sip.dialog import Dialog
from relay.sip.flow import Flow
from relay.sip.message import Request, Response
from relay.sip.uri import SipUri, is_sips

if TYPE_CHECKING:
    from relay.call.call import Call
    from relay.call.core import Core
    from relay.call.exchange import Exchange
    from relay.call.media import Media
    from relay.call.sdp_masking import SdpWriter
    from relay.call.settings import Peer
    from relay.sip.headers import NameAddr
    from relay.sip.transaction_client import Fail, Receive

Side = Literal["caller", "callee"]
MOST_RELIABLE: Final = 64  # reliable provisional responses to one INVITE; what comes beyond is passed over (DESIGN 4.5)


class Leak(RelayError):
    """The tripwire found the other party in what was about to go out; nothing was sent."""

    def __init__(self, call: Call, side: Side) -> None:
        super().__init__(f"tripwire towards the {side}")
        self.call = call
        self.side = side


class Leg:
    """One dialog of a call with its peer. Legs come in pairs: `other` is the one that this one is relayed to."""

    __slots__ = (
        "_ack",
        "_core",
        "_destination",
        "_key",
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
        "last_reliable",
        "other",
        "own",
        "peer",
        "reliable",
        "shown",
        "side",
        "tripwire",
        "updating",
        "writer",
    )
    __deletable__ = ("other",)  # asked for by mypyc: see _part

    other: Leg

    def __init__(
        self, core: Core, call: Call, side: Side, dialog: Dialog, peer: Peer, flow: Flow, shown: str, writer: SdpWriter
    ) -> None:
        self._core = core
        self.other = self  # until it is paired
        self.call = call
        self.side: Side = side
        self.dialog = dialog
        self.peer = peer
        self.flow = flow  # where the peer was last heard in this dialog
        self.shown = shown  # the number in our Contact: the 700 number this side knows
        self.writer = writer
        self.contact = contact_line(core.peers.listener(flow), shown, secure=dialog.secure)
        self.own: tuple[str, ...] = ()
        self.tripwire = Tripwire((), ())
        self.invite_cseq = dialog.local_cseq  # of our last INVITE on this leg
        self.credentials = ""  # its header lines of them
        self.inviting: Exchange | None = None  # an INVITE of ours that this leg has not answered
        self.invited: Exchange | None = None  # an INVITE of this leg's that is not answered
        self.updating: Exchange | None = None  # an UPDATE or PRACK with a description, either way, that is not answered
        self.answer: Answer | None = None  # a 2xx of ours that this leg has not acknowledged
        self.answer_due = False  # the peer's INVITE will be answered 2xx as soon as the record is committed
        self.ack_due: int | None = None  # the CSeq of a 2xx of the peer's that has no ACK yet
        self.bye_due = False  # send BYE once the answer is acknowledged or given up
        self.bye_sent = False
        self.forgotten = False
        self.reliable: dict[int, int] = {}  # our RSeq towards this leg -> the other leg's
        self.last_reliable: tuple[int, bytes] | None = None  # the other leg's RSeq, what we sent for it
        self._ack: tuple[bytes, Flow] | None = None  # our ACK to the last 2xx, for its retransmissions
        self._destination: Flow | None = None
        self._key = (dialog.local_tag, dialog.remote_tag)
        core.legs[self._key] = self

    # -- requests

    def destination(self) -> Flow:
        """Where requests in this dialog go: the next hop of its route set (RFC 3261 12.2.1.1, 8.1.2).

        A URI without a transport is reached by that of the leg; a stream's own connection is used while it is open.
        A hop that is not the peer's would see the party's real number: the request goes where the peer was heard.
        """
        if self._destination is None:
            hop = self.dialog.next_hop
            if hop.host != self.flow.host and not self._core.peers.may_be_sent_to(self.peer, hop.host):
                return self.flow
            secure = self.dialog.secure or hop.scheme == "sips"
            transport = "tls" if secure else (hop.params.get("transport") or self.flow.transport).lower()
            port = hop.port or (5061 if transport == "tls" else 5060)
            listener: int | None = self.flow.listener
            if transport != self.flow.transport:
                listener = self._core.peers.listener_for(transport, hop.host)
            if listener is None:
                return self.flow
            connection = self.flow.connection if transport == self.flow.transport else 0
            self._destination = Flow(listener, transport, hop.host, port, connection)
        return self._destination

    def retarget(self, message: Request | Response, flow: Flow | None = None) -> None:
        """Takes the peer's new Contact (target refresh, RFC 3261 12.2) and where it was heard."""
        if self._may_go_to(message.contact):
            self.dialog.refresh_target(message.contact)
        self._destination = None
        if flow is not None and flow.transport == self.flow.transport:
            self.flow = flow

    def _may_go_to(self, contact: NameAddr | None) -> bool:
        """A sips: target to which no TLS leads is none."""
        if contact is None or not is_sips(contact.uri_text) or self.dialog.route_set:
            return True
        try:
            uri = contact.uri
        except ParseError:  # it is no target either
            return True
        return not isinstance(uri, SipUri) or self._core.peers.may_go(self.peer, uri, self.flow)

    def request(self, method: str, cseq: int, *, extra: str = "", body: Body | None = None) -> OutgoingRequest:
        """A request in this dialog. `extra`: masked header lines. Raises Leak."""
        if extra or body:
            self.guard(extra, body)
        dialog = self.dialog
        contact = self.contact if method in ("INVITE", "UPDATE") else ""
        rest = f"{contact}Max-Forwards: 70\r\n{extra}"
        return OutgoingRequest(method, dialog.request_uri, dialog.request_head, cseq, rest, body)

    def guard(self, text: str, body: Body | None) -> None:
        """The tripwire, over what the relay or the other side brought into a message. Raises Leak."""
        if self.tripwire.hit(text, body.data if body else b"", own=self.own):
            raise Leak(self.call, self.side)

    def write(self, reply: Reply, status: int, *, extra: str = "", body: Body | None = None) -> bytes:
        """A response to a request of this leg's peer. Raises Leak."""
        if extra or body:
            self.guard(extra, body)
        return reply.write(status, to_tag=self.dialog.local_tag, extra=extra, body=body)

    # -- provisional responses

    def write_progress(self, reply: Reply, status: int, response: Response) -> bytes | None:
        """The other leg's 18x for this leg's peer; None for a reliable one that a later one has overtaken.

        Reliable ones get an RSeq of ours (RFC 3262 3): from 1, one more each time; sent again they are as they were.
        Raises Leak, and ProtocolError and ParseError for what cannot be shown.
        """
        theirs = response.rseq
        if theirs is not None and theirs in self.reliable.values():
            last = self.last_reliable
            return last[1] if last is not None and last[0] == theirs else None
        if theirs is not None and len(self.reliable) >= MOST_RELIABLE:
            self._core.counters["reliable_over_limit"] += 1
            return None
        body = masking.mask_body(response, self.writer)
        extra = self.contact + masking.mask_response_headers(response)
        if theirs is None:
            return self.write(reply, status, extra=extra, body=body)
        ours = len(self.reliable) + 1
        data = self.write(reply, status, extra=f"{extra}RSeq: {ours}\r\n", body=body)
        self.reliable[ours] = theirs
        self.last_reliable = (theirs, data)
        return data

    # -- 2xx and ACK

    def give_answer(self, cseq: int, data: bytes, flow: Flow, now: float) -> None:
        """A 2xx of ours to the peer's INVITE goes out: repeat it until its ACK, which `receive_ack` takes."""
        self.answer_due = False
        self.answer = Answer(self._core, cseq, data, flow, self._give_up_answer, now)

    def receive_ack(self, ack: Request, now: float) -> None:
        media = self.call.media
        if media is None or not media.take(partial(self._anchor_ack, media, ack), now):
            self._take_ack(ack, now)

    def _anchor_ack(self, media: Media, ack: Request, now: float) -> None:
        awaited = self.answer is not None and ack.cseq.number == self.answer.cseq and self.other.ack_due is not None
        if awaited and masking.brings_sdp(ack):
            media.anchor(self.call, "answer", self.side, ack, partial(self._take_ack, ack), now)
        else:
            self._take_ack(ack, now)

    def _take_ack(self, ack: Request, now: float) -> None:
        """An ACK to a 2xx of ours; others (late, or to what never was) are passed over.

        Where the other leg still waits for its ACK, this one brings the SDP for it (offer in the 2xx).
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
                self.call.end("relay", "media_failed", now)  # an offer that stays without its answer
        self._bye_if_due(now)

    def _give_up_answer(self, now: float) -> None:
        """No ACK came in 64*T1 (RFC 3261 13.3.1.4: end the session)."""
        self.answer = None
        self.call.end("relay", "ack_timeout", now)
        self._bye_if_due(now)

    def acknowledge_due(self, body: Body | None = None) -> None:
        """Sends the ACK that the peer's 2xx still waits for, if any."""
        if self.ack_due is not None:
            self.acknowledge(self.ack_due, body)

    def acknowledge(self, cseq: int, body: Body | None = None) -> None:
        """Sends the ACK to the peer's 2xx (RFC 3261 13.2.2.4) and keeps it for retransmissions of the 2xx."""
        flow = self.destination()
        branch = f"z9hG4bK{self._core.token()}"
        request = self.request("ACK", cseq, body=body)
        if self.credentials:  # RFC 3261 22.1: those of the INVITE
            request = request.with_credentials(cseq, self.credentials)
        data = request.render(self._core.peers.listener(flow), branch)
        self.ack_due = None
        self._ack = (data, flow)
        self._core.send(data, flow)

    def acknowledge_again(self) -> bool:
        """The peer sent its 2xx again: so does our ACK go. False where none was sent yet."""
        if self._ack is None:
            return False
        self._core.send(*self._ack)
        return True

    def invite_again(self, cseq: int, credentials: str = "") -> None:
        """A further INVITE of ours goes out on this leg: its 2xx wants an ACK, its 18x are numbered, on their own."""
        self.invite_cseq = cseq
        self.credentials = credentials
        self._ack = None
        self.other.reliable.clear()
        self.other.last_reliable = None

    def establish(self, response: Response) -> None:
        """The peer's 2xx to our INVITE: the dialog is confirmed, with the 2xx's route set and target."""
        self.dialog.update_from_2xx(response)
        self._destination = None

    # -- the end

    def hang_up(self, now: float, extra: str = "") -> None:
        """Sends BYE; on a 2xx of ours without its ACK only once that is settled (RFC 3261 15)."""
        if self.answer is not None or self.answer_due:
            self.bye_due = True
            return
        self.acknowledge_due()
        self.bye_sent = True
        self._send_bye(extra, now + self._core.settings.timings.transaction_s, now)

    def _send_bye(self, extra: str, deadline: float, now: float) -> None:
        cseq = self.dialog.next_cseq()
        try:
            request = self.request("BYE", cseq, extra=extra)
        except Leak:
            request = self.request("BYE", cseq)
        self._ask(request, self._bye_answered, partial(self._bye_failed, extra, deadline), now)

    def _ask(self, request: OutgoingRequest, receive: Receive, fail: Fail, now: float) -> None:
        """Sends a request of the relay's own. One that no datagram has room for, by its route set, fails at once."""
        try:
            SentRequest(self._core, request, self.destination(), self.peer, receive, fail, now, self._renumber)
        except ProtocolError:
            fail("too long", now)

    def _renumber(self, _: str, __: float) -> int:
        """A request of ours was challenged and goes again."""
        return self.dialog.next_cseq()

    def probe(self, now: float) -> None:
        """Asks the peer whether it still knows the dialog; 481, 408 or silence end the call."""
        request = self.request("OPTIONS", self.dialog.next_cseq())
        self._ask(request, self._probe_answered, self._probe_failed, now)

    def _probe_answered(self, response: Response, now: float) -> None:
        if response.status in (408, 481):
            self.call.end("relay", "lost_at_restart", now)

    def _probe_failed(self, _: str, now: float) -> None:
        self.call.end("relay", "lost_at_restart", now)

    def _bye_answered(self, response: Response, _: float) -> None:
        if response.status >= 200:
            self.forget()

    def _bye_failed(self, extra: str, deadline: float, why: str, now: float) -> None:
        """Nothing gets through: the peer starts anew, or a connection broke. Its side would stay up, so BYE goes again,
        every T2 (as timer E does) until `deadline`."""
        timings = self._core.settings.timings
        if why == "transport" and now + timings.t2 < deadline:
            self._core.timers.set(now + timings.t2, partial(self._send_bye_again, extra, deadline))
        else:
            self.forget()

    def _send_bye_again(self, extra: str, deadline: float, now: float) -> None:
        if not self.forgotten:  # the peer did not hang up meanwhile
            self._send_bye(extra, deadline, now)

    def _bye_if_due(self, now: float) -> None:
        if self.bye_due and self.answer is None:
            self.bye_due = False
            self.hang_up(now)

    def forget(self) -> None:
        """No message of this dialog is expected any more. Idempotent."""
        if self.forgotten:
            return
        self.forgotten = True
        self._core.legs.pop(self._key, None)
        if self.other.forgotten:
            self._part()
        if self.answer is not None:
            self.answer.stop()
            self.answer = None

    def _part(self) -> None:
        """Both legs are done: nothing refers to itself from here on, so the call goes without a garbage collection."""
        call, other = self.call, self.other
        if call.caller is self or call.caller is other:
            call.caller = call.callee = None
        del self.other
        if other is not self:
            del other.other

    def busy_with(self, method: str, *, offers: bool) -> ProtocolError | None:
        """Why a request of this leg's peer cannot be relayed now (RFC 3261 14, RFC 3311 5.2, RFC 5407), or None."""
        other = self.other
        if method == "INVITE" and not self.dialog.confirmed:
            return ProtocolError(500 if self.side == "caller" else 491, "the first INVITE is not answered yet")
        if other.answer or other.answer_due:  # the other side may not even know the dialog yet
            return ProtocolError(491, "the other side has not acknowledged our answer yet")
        if method == "PRACK":  # of the INVITE's own offer and answer, or with a new offer after them
            return ProtocolError(500, "another offer is not answered yet") if offers and self.updating else None
        if offers and (self.invited or (self.updating and self.updating.origin is self)):
            return ProtocolError(500, "an offer of this side is not answered yet")
        if offers and (self.inviting or self.updating or self.answer):
            return ProtocolError(491, "an offer of the other side is under way")
        return None
