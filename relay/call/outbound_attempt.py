"""An outbound attempt at one target of a peer: the INVITE to the callee, its early dialogs and late responses."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from relay.call.dialogs import Dialogs
from relay.call.leg import CallBase, Leg
from relay.call.media import Sender, mask_for_rtpengine
from relay.call.states import DECIDED
from relay.errors import ParseError, ProtocolError
from relay.model.numbers import is_700
from relay.peers.peers import party_uri, user_for
from relay.peers.targets import mark_responded, mark_unreachable
from relay.peers.user_agent import ClientRequest, UserAgent
from relay.privacy import masking
from relay.privacy.leak_check import Leak, LeakCheck
from relay.privacy.messages import OutgoingRequest, contact_line, encode
from relay.privacy.sdp import SdpWriter, session_id
from relay.sip.dialog import Dialog
from relay.sip.message import Request, Response

if TYPE_CHECKING:
    from relay.call.media import Kind, Media
    from relay.call.saved_state import SentInvite
    from relay.model.call import Route
    from relay.model.outcomes import Outcome
    from relay.model.settings import Listener
    from relay.peers.targets import TargetState
    from relay.sip.message import Flow

MOST_FORKS: Final = 8  # early dialogs of one INVITE; further ones are ignored
_WAY: Final = frozenset({"contact", "record-route"})
ANONYMOUS: Final = "sip:anonymous@anonymous.invalid"  # RFC 3323 4.1.1.3
TIMED_OUT: Final = "Reason: SIP;cause=408\r\n"  # of a CANCEL
_SDP: Final = ("content-type", "application/sdp")


class SessionBase:
    """The INVITE session as its attempts and its call know it: the events that attempts emit, and two commands."""

    __slots__ = ("state",)

    state: str  # in the table `SESSION`

    @property
    def decided(self) -> bool:
        """The final response is chosen, and cannot change any more."""
        return self.state in DECIDED

    def going_out(self, attempt: OutboundAttempt) -> None:
        """The attempt's INVITE is about to be sent."""
        raise NotImplementedError

    def opened(self, leg: Leg) -> None:
        """The callee opened a dialog: `leg`, which is not paired with one of the caller yet."""
        raise NotImplementedError

    def progress(self, leg: Leg, response: Response, now: float) -> None:
        """A callee's provisional response."""
        raise NotImplementedError

    def answered(self, leg: Leg, response: Response, now: float) -> None:
        """The callee's first 2xx."""
        raise NotImplementedError

    def refused(self, response: Response, now: float) -> None:
        """The target refused."""
        raise NotImplementedError

    def failed(self, why: str, now: float) -> None:
        """No response ("timeout"), or no way to the target ("transport")."""
        raise NotImplementedError

    def disconnected(self, attempt: OutboundAttempt, now: float) -> None:
        """The connection to a target that has sent no more than 100 is lost: it has perhaps lost the call as well."""
        raise NotImplementedError

    def unusable(self, error: ProtocolError | ParseError, now: float) -> None:
        """The callee's final response cannot be relayed, or its early offer not be answered."""
        raise NotImplementedError

    def over(self, attempt: OutboundAttempt) -> None:
        """The attempt is settled: no CANCEL and no ACK is due for its INVITE."""
        raise NotImplementedError

    def cancel(self, request: Request, now: float) -> None:
        """The caller gave up, by CANCEL or by BYE in an early dialog."""
        raise NotImplementedError

    def stop(self, outcome: Outcome, reason: str, now: float) -> None:
        """End the session for the relay's own reasons: a leak, the shutdown."""
        raise NotImplementedError


class OutboundAttempt:
    """The callee's side of an INVITE session at one target. After `cancel` it only settles late responses."""

    __slots__ = (
        "_branch",
        "_call",
        "_credentials",
        "_cseq",
        "_dialogs",
        "_flow",
        "_given_up",
        "_leak_check",
        "_legs",
        "_local_tag",
        "_local_uri",
        "_noted",
        "_own",
        "_peer",
        "_reached",
        "_remote_uri",
        "_secure",
        "_sent",
        "_sent_by",
        "_session",
        "_shown",
        "_ua",
        "_with_offer",
        "_won",
        "_writer",
        "call_id",
        "started_at",
        "target",
    )

    def __init__(
        self,
        ua: UserAgent,
        dialogs: Dialogs,
        session: SessionBase,
        call: CallBase,
        target: TargetState,
        route: Route,
        codecs: frozenset[str] | None,
        leak_check: LeakCheck,
        *,
        secure: bool,
    ) -> None:
        """`codecs`: those that both peers may use; `leak_check`: towards the callee; `secure`: TLS on every hop."""
        peer = target.peer
        listener = ua.peers.listener(target.flow)
        self._ua = ua
        self._dialogs = dialogs
        self._session = session
        self._call = call
        self._shown = route.shown
        self._secure = secure
        self._with_offer = True  # the caller's INVITE brings SDP, as far as rtpengine has to know
        self.target = target
        self._peer = peer
        self._flow = target.flow
        self.started_at = 0.0  # monotonic seconds
        self.call_id = ua.token()
        self._local_tag = ua.token()
        self._cseq = 1
        self._reached = 1  # highest CSeq used in an ended early dialog; its 2xx may still come
        self._credentials = ""  # authorization header lines of the INVITE
        self._local_uri = f"sip:{route.shown}@{listener.advertised}" if route.shown else ANONYMOUS
        user = user_for(peer, route.callee)
        self._remote_uri = party_uri(peer, user, target.configured.written, secure=secure)
        # Only a 700 number is exempt from the leak check: any other number shown could be the caller's own.
        shown = (route.shown,) if is_700(route.shown) else ()
        self._own: tuple[str, ...] = (route.callee, user, *shown)
        self._writer = SdpWriter(session_id(ua.token()), anchored=call.media is not None)
        self._writer.codecs = codecs
        self._leak_check = leak_check
        self._legs: dict[str, Leg] = {}  # by the callee's tag
        self._given_up = False
        self._noted = False  # an unusable response; the log has only the first
        self._won: Leg | None = None
        self._sent: ClientRequest | None = None  # until its final response
        self._sent_by, self._branch = target.flow, ""  # of the latest INVITE

    # -- sending

    def start(self, request: Request, now: float) -> None:
        """Send the INVITE. `request`: the caller's. Raises ProtocolError if it cannot be relayed, Leak if the leak
        check fails."""
        self.started_at = now
        self._with_offer = self._call.media is None or masking.brings_sdp(request)
        body = masking.mask_body(request, self._writer)
        constants = self._constants()
        rest = self._identity_lines() + masking.mask_request_headers(request)
        # To of a registered peer holds its own Contact.
        searched = constants if self._peer.login is None else f"From: <{self._local_uri}>\r\n"
        self._guard(searched + rest, body)
        rest += f"Max-Forwards: {masking.mask_hops(request.max_forwards)}\r\n"
        outgoing = OutgoingRequest("INVITE", self._remote_uri, constants, self._cseq, rest, body)
        self._send(outgoing, "", now)

    def _constants(self) -> str:
        from_line = f"From: <{self._local_uri}>;tag={self._local_tag}\r\n"
        return f"{from_line}To: <{self._remote_uri}>\r\nCall-ID: {self.call_id}\r\n"

    def _send(self, outgoing: OutgoingRequest, branch: str, now: float, listener: Listener | None = None) -> None:
        """`branch` and `listener`: see ClientRequest."""
        self._ua.outbox.link(self._call.call_id, self.call_id, "callee", self._peer.name, self._flow)
        self._sent = ClientRequest(
            self._ua,
            outgoing,
            self._sent_by,
            self._peer,
            self._receive,
            self._fail,
            now,
            self._renumber,
            self._goes_out,
            branch,
            listener,
        )
        self._dialogs.calling_tags.add(self._local_tag)

    def _goes_out(self, flow: Flow, branch: str) -> None:
        self._sent_by, self._branch = flow, branch
        self._session.going_out(self)

    def state(self) -> tuple[object, ...]:
        """The fields of a SentInvite, in their order."""
        return (
            self._peer.name,
            self._sent_by[:4],
            self._local_uri,
            self._local_tag,
            encode(self._remote_uri),
            self.call_id,
            self._cseq,
            self._branch,
            encode(self._credentials),
        )

    def take_up(self, sent: SentInvite, flow: Flow, listener: Listener | None, now: float) -> None:
        """Adopt an INVITE sent by an earlier process, in order to cancel it. `listener`: that of another node."""
        self._local_uri, self._local_tag = sent.local_uri, sent.local_tag
        self._remote_uri = sent.remote_uri.decode("utf-8", "surrogateescape")
        self.call_id, self._cseq, self._reached = sent.call_id, sent.cseq, sent.cseq
        self._flow = self._sent_by = flow
        self._branch = sent.branch
        self._credentials = sent.credentials.decode("utf-8", "surrogateescape")
        outgoing = OutgoingRequest("INVITE", self._remote_uri, self._constants(), self._cseq, "")
        if self._credentials:
            outgoing = outgoing.with_credentials(self._cseq, self._credentials)
        self._send(outgoing, sent.branch, now, listener)

    def _renumber(self, credentials: str, now: float) -> int:
        """The CSeq for the INVITE after a challenge; its early dialogs end, and their CSeqs are used up."""
        self._cseq = max([self._cseq, *[leg.dialog.local_cseq for leg in self._legs.values()]]) + 1
        self._forget_legs(None)
        self._credentials, self.started_at = credentials, now
        return self._cseq

    def _identity_lines(self) -> str:
        lines = contact_line(self._ua.peers.listener(self._flow), self._shown, secure=self._secure)
        if self._peer.send_pai and self._shown:
            lines += f"P-Asserted-Identity: <{self._local_uri}>\r\n"
        return lines

    def _guard(self, text: str, body: masking.Body | None) -> None:
        if self._leak_check.hit(text, body.data if body else b"", own=self._own):
            raise Leak(self._call.fail_closed, "callee")

    @property
    def is_silent(self) -> bool:
        """Whether the INVITE is out and has no response, not even a provisional one."""
        return self._sent is not None and not self._sent.transaction.proceeding

    def cancel(self, now: float, reason: str) -> None:
        """Give up the attempt: CANCEL, or BYE if its 2xx came and cannot be relayed."""
        self._given_up = True
        self._forget_legs(self._won)
        if self._won is not None:
            self._end_superfluous(self._won, now)
            self._session.over(self)
        elif self._sent is not None:
            self._sent.cancel(now, reason)

    # -- receiving

    def _receive(self, response: Response, now: float) -> None:
        media = self._call.media
        if media is None or not media.take(partial(self._anchor, media, response), now):
            self._take(response, now)

    def _anchor(self, media: Media, response: Response, now: float) -> None:
        """Pass the SDP through rtpengine, unless it will not be relayed."""
        shown = response.status < 300 and not self._is_over()
        described = self._description(media, response) if shown else None
        if described is None:
            self._take(response, now)
            return
        kind: Kind = "answer" if self._with_offer else "offer"
        sender = Sender("callee", self._peer, self._flow.host)
        media.anchor(kind, sender, described, self._call.fail_closed, partial(self._take, response), now)

    def _description(self, media: Media, response: Response) -> Response | None:
        """The response whose SDP rtpengine is to use from now on; None if it already does.

        rtpengine knows one callee: the fork whose SDP it got last. If another fork answers without SDP, the SDP of its
        provisional response is used.
        """
        try:
            fork = f"{self.call_id} {response.to_tag or ''}"
        except ParseError:  # refused in `_take`
            return None
        if masking.brings_sdp(response):
            media.fork = fork
            if len(media.forks) < MOST_FORKS and response.status < 200:
                media.forks[fork] = mask_for_rtpengine(response)
            return response
        described = media.forks.pop(fork, b"") if response.status >= 200 and fork != media.fork else b""
        if not described:
            return None
        cseq = [header for header in response.headers if header[0] == "cseq"]
        return Response.of(response.status, response.reason, [*cseq, _SDP], described)

    def _take(self, response: Response, now: float) -> None:
        status = response.status
        mark_responded(self._ua.outbox, self.target, response, now)
        try:
            if status >= 300:
                self._refused(response, now)
            elif status >= 200:
                self._answered(response, now)
            elif status > 100 and not self._is_over() and not self._is_fork_too_many(response):
                self._session.progress(self._leg(response), response, now)
        except masking.OfferUnanswered as unanswered:  # another name: mypyc gives a name one type
            self.cancel(now, "")
            self._session.unusable(unanswered, now)
        except (ProtocolError, ParseError) as error:
            self._unusable(response, error, now)

    def _is_over(self) -> bool:
        return self._given_up or self._won is not None

    def _is_fork_too_many(self, response: Response) -> bool:
        if len(self._legs) < MOST_FORKS or (response.to_tag or "") in self._legs:
            return False
        self._ua.outbox.counters["forks_over_limit"] += 1
        return True

    def _refused(self, response: Response, now: float) -> None:
        self._close()
        if not self._given_up:
            self._session.refused(response, now)

    def _answered(self, response: Response, now: float) -> None:
        self._sent = None
        self._dialogs.calling_tags.discard(self._local_tag)
        leg = self._legs.get(response.to_tag or "")
        if leg is not None and leg is self._won:
            leg.acknowledge_again()
        elif not self._is_over():
            leg = leg or self._leg(response)
            leg.establish(response)
            self._check_way(leg.dialog)
            self._won = leg
            self._close()
            self._session.answered(leg, response, now)
        elif not self._is_fork_too_many(response):
            leg = leg or self._leg(response)
            leg.establish(response)
            self._end_superfluous(leg, now)
            if self._won is None:
                self._session.over(self)

    def _end_superfluous(self, leg: Leg, now: float) -> None:
        """ACK, then BYE for a superfluous 2xx: it crossed our CANCEL, or another fork was faster."""
        if leg.bye_sent:
            leg.acknowledge_again()
            return
        leg.ack_due = self._cseq
        if leg.other is not leg:
            leg.other.forget()
        leg.hang_up(now)

    def _unusable(self, response: Response, error: ProtocolError | ParseError, now: float) -> None:
        """A response that cannot be relayed. A provisional one is ignored; a 2xx gets ACK and BYE."""
        session, outbox = self._session, self._ua.outbox
        outbox.counters["answers_unusable"] += 1
        if not self._noted:
            self._noted = True
            outbox.note("answer.unusable", call_id=self._call.call_id, status=response.status, reason=error.reason)
        if 200 <= response.status < 300:
            self._take_down(response, now)
            if self._given_up:
                session.over(self)
        if response.status < 200 or self._given_up or session.decided:  # another fork's does not harm an answered call
            return
        self._won, self._given_up = None, True
        self._close()
        session.unusable(error, now)

    def _take_down(self, response: Response, now: float) -> None:
        """ACK and BYE for a 2xx that cannot be relayed; by the INVITE's way if its own route set is unusable."""
        try:
            leg = self._legs.get(response.to_tag or "")
        except ParseError:  # its dialog is unknown
            return
        if leg is None:
            headers = [header for header in response.headers if header[0] not in _WAY]
            leg = self._leg(Response.of(response.status, response.reason, headers))
        self._end_superfluous(leg, now)

    def _fail(self, why: str, now: float) -> None:
        if why == "lost":  # the INVITE goes on
            if not (self._legs or self._is_over()):
                self._session.disconnected(self, now)
            return
        self._close()
        if not self._given_up:
            self._given_up = True  # an early dialog whose SDP is still at rtpengine must not open any more
            mark_unreachable(self._ua.outbox, self.target, now)
            self._session.failed(why, now)

    def _close(self) -> None:
        """The final response has come, or will not."""
        self._sent = None
        self._dialogs.calling_tags.discard(self._local_tag)
        self._forget_legs(self._won)
        if self._won is None:
            self._session.over(self)

    def _forget_legs(self, winner: Leg | None) -> None:
        """End the early dialogs, except the winner's, at the final response to the INVITE."""
        for tag, leg in list(self._legs.items()):
            if leg is not winner and not leg.bye_sent:
                self._reached = max(self._reached, leg.dialog.local_cseq)
                leg.other.forget()
                leg.forget()
                del self._legs[tag]

    # -- early dialogs

    def _leg(self, response: Response) -> Leg:
        tag = response.to_tag or ""
        leg = self._legs.get(tag)
        if leg is None:
            leg = self._callee_leg(response)
            self._session.opened(leg)
            self._legs[tag] = leg
        return leg

    def _callee_leg(self, response: Response) -> Leg:
        """The callee's early dialog opened by the response."""
        ua = self._ua
        dialog = Dialog.as_uac(
            call_id=self.call_id,
            local_tag=self._local_tag,
            local_uri=self._local_uri,
            remote_uri=self._remote_uri,
            local_cseq=self._cseq,
            response=response,
        )
        self._check_way(dialog)
        callee = Leg(
            ua, self._dialogs.legs, self._call, "callee", dialog, self._peer, self._flow, self._shown, self._writer
        )
        dialog.local_cseq = max(dialog.local_cseq, self._reached)
        callee.leak_check = self._leak_check
        callee.own = self._own
        callee.credentials = self._credentials
        return callee

    def _check_way(self, dialog: Dialog) -> None:
        """Raise ProtocolError if requests in the dialog need TLS and there is none."""
        if not self._ua.peers.may_go(self._peer, dialog.next_hop, self._flow):
            raise ProtocolError(480, "sips: Contact or Record-Route, but no TLS listener for it")
