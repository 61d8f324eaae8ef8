"""In-dialog relay: one request within a call, passed to the other leg, and its response back.

Transactions are relayed one to one, so hold, codec changes, PRACK, DTMF and session timers work end to end. BYE is not
relayed; it ends the call (see `relay.call.call`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay.call.leg import Leg, PendingRequest
from relay.call.progress import write_progress
from relay.errors import ParseError, ProtocolError
from relay.peers.user_agent import ClientRequest
from relay.privacy import masking
from relay.privacy.leak_check import Leak
from relay.privacy.messages import Reply
from relay.sip.message import Request, Response

if TYPE_CHECKING:
    from relay.call.media import Kind, Media
    from relay.peers.user_agent import UserAgent
    from relay.sip.timers import Timer
    from relay.sip.transaction import ServerTransaction

REFRESHING: Final = frozenset({"INVITE", "UPDATE"})  # target and session-timer refresh requests
_DESCRIBING: Final = REFRESHING | {"PRACK"}  # may carry an offer or an answer
TIMER_C_S: Final = 181.0  # RFC 3261 16.6: more than three minutes; for an INVITE without a final response
_GONE: Final = frozenset({408, 481})  # RFC 3261 12.2.1.2: the dialog no longer exists


class InDialogRelay(PendingRequest):
    """One request relayed from the leg `origin` to the leg `target`. An INVITE's lasts until its final response."""

    __slots__ = (
        "_cseq",
        "_done",
        "_proposes",
        "_request",
        "_sent",
        "_timer_c",
        "_transaction",
        "_ua",
        "method",
        "reply",
        "target",
    )

    def __init__(
        self, ua: UserAgent, origin: Leg, request: Request, reply: Reply, transaction: ServerTransaction
    ) -> None:
        self._ua = ua
        self._request = request
        self._transaction = transaction
        self._sent: ClientRequest | None = None
        self._timer_c: Timer | None = None
        self._done = False
        self._proposes = False  # rtpengine holds the request's offer
        self.method = request.method
        self.origin = origin
        self.target = origin.other
        self.reply = reply

    # -- the request

    def begin(self, now: float) -> None:
        """Relay or refuse the request, queued where media are anchored. Raises Leak after refusing it."""
        media = self.origin.call.media
        if media is None or not media.take(partial(self._anchor, media), now):
            self._relay(now)

    def _anchor(self, media: Media, now: float) -> None:
        """Pass the SDP through rtpengine, unless the request will be refused."""
        request, origin = self._request, self.origin
        if self._is_too_late(now):
            return
        if not masking.brings_sdp(request) or origin.busy_with(self.method, offers=self._offers()):
            self._relay(now)
            return
        self._proposes = not (self.method == "PRACK" and media.offered == self.target.side)
        kind: Kind = "offer" if self._proposes else "answer"
        media.anchor(kind, origin.sender, request, origin.call.fail_closed, self._anchored, now)

    def _anchored(self, now: float) -> None:
        if self._is_too_late(now):
            self._withdraw(now)
        else:
            self._relay(now)

    def _withdraw(self, now: float) -> None:
        """Withdraw the request's offer at rtpengine."""
        media = self.origin.call.media
        if self._proposes and media is not None:
            self._proposes = False
            media.withdraw(now)

    def _is_too_late(self, now: float) -> bool:
        """Whether the request was cancelled, or its dialog ended, while it was queued; it is answered then."""
        origin = self.origin
        if not self._done and (origin.call.is_over or origin.bye_sent or origin.forgotten):
            self._turn_down(487 if self.method == "INVITE" else 481, now)
        return self._done

    def _relay(self, now: float) -> None:
        try:
            self._start(now)
        except ProtocolError as error:
            status = error.status
            self._turn_down(status, now, error.lines or ("Retry-After: 2\r\n" if status in (500, 503) else ""))
        except ParseError:
            self._turn_down(400, now)
        except Leak:
            self._turn_down(500, now)
            raise

    def _turn_down(self, status: int, now: float, extra: str = "") -> None:
        """Refuse a request that was not sent to the target."""
        self._settle()
        self._transaction.respond(status, self.origin.write(self.reply, status, extra=extra), now)
        self._withdraw(now)

    def _offers(self) -> bool:
        """Whether the request takes part in an offer/answer exchange."""
        return self.method == "INVITE" or masking.has_sdp(self._request)

    def _start(self, now: float) -> None:
        """Send the request to the target. Raises ProtocolError or ParseError if it must be refused, Leak if the leak
        check fails; nothing was sent then."""
        request, target = self._request, self.target
        offers = self._offers()
        if busy := self.origin.busy_with(self.method, offers=offers):
            raise ProtocolError(*busy)
        extra = masking.mask_request_headers(request)
        if self.method == "PRACK":
            extra += self._rack()
        written = target.writer.written
        body = masking.mask_body(request, target.writer)
        cseq = self._cseq = target.dialog.next_cseq()
        outgoing = target.request(self.method, cseq, extra=extra, body=body)
        try:
            self._sent = ClientRequest(
                self._ua,
                outgoing,
                target.destination(),
                target.peer,
                self._receive,
                self._fail,
                now,
                self._renumber,
            )
        except ProtocolError:
            target.writer.take_back(written)
            raise
        self._occupy(self if offers else None)
        if self.method == "INVITE":
            target.invite_again(cseq)
            self._start_timer_c(now)

    def _start_timer_c(self, now: float) -> None:
        timers = self._ua.timers
        timers.cancel(self._timer_c)
        self._timer_c = timers.set(now + TIMER_C_S, self.cancel)

    def _renumber(self, credentials: str, _: float) -> int:
        """The CSeq of the request when it is repeated after a challenge."""
        cseq = self._cseq = self.target.dialog.next_cseq()
        if self.method == "INVITE":
            self.target.invite_again(cseq, credentials)
        return cseq

    def _rack(self) -> str:
        """The RAck towards the callee (RFC 3262 7.2): the callee's RSeq and the CSeq of our INVITE."""
        reliable = self.origin.reliable
        if reliable is None:
            raise ProtocolError(481, "no reliable provisional response was sent")
        return f"RAck: {reliable.acknowledged_by(self._request.rack)} {self.target.invite_cseq} INVITE\r\n"

    def _occupy(self, exchange: InDialogRelay | None) -> None:
        """Mark both legs as having an offer under way, or free them of it."""
        if self.method == "INVITE":
            self.target.inviting = self.origin.invited = exchange
        elif exchange is not None or self.origin.updating is self:
            self.target.updating = self.origin.updating = exchange

    # -- the response

    def _receive(self, response: Response, now: float) -> None:
        media = self.origin.call.media
        if media is None or not media.take(partial(self._anchor_answer, media, response), now):
            self._take(response, now)

    def _anchor_answer(self, media: Media, response: Response, now: float) -> None:
        if self._done or response.status >= 300 or not (self._expects_sdp() and masking.brings_sdp(response)):
            self._take(response, now)
            return
        kind: Kind = "answer"
        if not masking.brings_sdp(self._request):
            kind, self._proposes = "offer", True
        fail_closed = self.origin.call.fail_closed
        media.anchor(kind, self.target.sender, response, fail_closed, partial(self._take, response), now)

    def _expects_sdp(self) -> bool:
        """Whether the response may carry SDP: to an INVITE, else only as an answer to SDP (RFC 6337 2.1)."""
        return self.method == "INVITE" or masking.brings_sdp(self._request)

    def _take(self, response: Response, now: float) -> None:
        status = response.status
        if self._done:
            if self.method == "INVITE" and 200 <= status < 300:
                self._answered_again()
            return
        try:
            if status < 200:
                self._progress(response, now)
            elif status < 300:
                self._succeed(response, now)
            else:
                self._refuse(response, now)
        except masking.OfferUnanswered:
            self.cancel(now)
        except (ProtocolError, ParseError):
            self._unusable(status, now)
        except Leak:
            self._unusable(status, now)
            raise

    def _unusable(self, status: int, now: float) -> None:
        """The response cannot be relayed: 500 to the origin, whose session stays as it was; ACK to the target."""
        self._ua.outbox.counters["answers_unusable"] += 1
        if status >= 200:
            self._finish_with(500, now)
            if self.method == "INVITE" and status < 300:
                self._answered_again()

    def _progress(self, response: Response, now: float) -> None:
        if self.method != "INVITE":
            return
        if response.status > 100:  # RFC 3261 16.7, step 2
            self._start_timer_c(now)
        status = masking.mask_provisional(response.status)
        data = write_progress(self.origin, self._request, self.reply, status, response, now)
        if data is not None and status is not None:
            self._transaction.respond(status, data, now)

    def _succeed(self, response: Response, now: float) -> None:
        origin, target, request = self.origin, self.target, self._request
        body = masking.mask_body(response, origin.writer) if self._expects_sdp() else None
        if body is None and self.method == "INVITE":
            body = origin.early_answer
        refreshing = self.method in REFRESHING
        extra = (origin.contact if refreshing else "") + masking.mask_response_headers(response)
        data = origin.write(self.reply, 200, extra=extra, body=body)
        if origin.call.media is not None and self.method in _DESCRIBING:
            origin.call.media.settle()
        self._settle()
        self._occupy(None)
        if refreshing:
            origin.retarget(request, self.reply.flow)
            target.retarget(response)
        if self.method == "INVITE":
            self._await_ack(data, now)
        self._transaction.respond(200, data, now)
        if refreshing:
            origin.call.refreshed(origin, response, now)

    def _await_ack(self, data: bytes, now: float) -> None:
        origin, target = self.origin, self.target
        target.ack_due = self._cseq
        origin.give_answer(self._request.cseq.number, data, self.reply.flow, now)
        if masking.has_sdp(self._request):
            target.acknowledge_due()

    def _answered_again(self) -> None:
        """Acknowledge a repeated 2xx of the target, unless its ACK waits for the origin's."""
        target = self.target
        if target.ack_due is None and not target.acknowledge_again():
            target.acknowledge(self._cseq)

    def _refuse(self, response: Response, now: float) -> None:
        status = masking.mask_in_dialog(response.status)
        extra = ""
        if status == 422:
            extra = masking.mask_response_headers(response)
        elif status == 415:
            extra = masking.mask_accept(response)
        self._finish_with(status, now, extra)
        if response.status in _GONE and self.method != "PRACK":
            self.origin.call.lost(self.origin, now)

    def _fail(self, why: str, now: float) -> None:
        if self._done or why == "lost":  # the INVITE goes on
            return
        self._finish_with(408 if why == "timeout" else 500, now)
        if why == "timeout":
            self.origin.call.lost(self.origin, now)

    def _finish_with(self, status: int, now: float, extra: str = "") -> None:
        self._settle()
        self._occupy(None)
        self._transaction.respond(status, self.origin.write(self.reply, status, extra=extra), now)
        self._withdraw(now)

    def _settle(self) -> None:
        """The final response is chosen: CANCEL has no effect, and reference cycles are broken."""
        self._done = True
        self._transaction.user = self._sent = None
        self._ua.timers.cancel(self._timer_c)

    # -- cancellation

    def cancel(self, now: float) -> None:
        """CANCEL of a re-INVITE, or timer C: relayed to the target, whose 487 comes back; answered here if nothing was
        sent yet."""
        if self._sent is not None:
            self._sent.cancel(now)
        elif not self._done:
            self._turn_down(487, now)

    def abort(self, now: float) -> None:
        """The call ends: answer a pending request 487 (RFC 3261 15.1.2) and cancel it at the target."""
        if not self._done:
            sent = self._sent
            self._finish_with(487, now)
            if sent is not None:
                sent.cancel(now)
