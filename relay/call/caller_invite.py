"""The caller's initial INVITE: its server transaction, and the responses to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from relay.call.progress import write_progress
from relay.call.state_codec import head_of
from relay.errors import ParseError
from relay.model.outcomes import Outcome
from relay.privacy import masking
from relay.privacy.masking import Body
from relay.privacy.messages import Reply, contact_line, timestamp_line
from relay.privacy.sdp import SdpWriter, session_id
from relay.sip.dialog import Dialog
from relay.sip.headers import parse_number
from relay.sip.message import Flow, Request, Response
from relay.sip.uri import is_sips

if TYPE_CHECKING:
    from relay.call.leg import Leg
    from relay.peers.user_agent import UserAgent
    from relay.sip.transaction import ServerTransaction


class CallerInvite:
    """The INVITE of one caller; after a restart also a MESSAGE that waits for its response."""

    __slots__ = ("_reply", "_transaction", "_ua", "flow", "head", "is_trying", "request", "rseq", "secure", "tag")
    __deletable__ = ("_reply", "request")  # required by mypyc for `del` in release

    def __init__(self, ua: UserAgent, request: Request, reply: Reply, transaction: ServerTransaction) -> None:
        self._ua = ua
        self._reply = reply
        self._transaction = transaction
        self.request = request
        self.flow: Flow = reply.flow
        self.secure = is_sips(request.uri)  # TLS on every hop
        self.head = head_of(request)
        self.is_trying = False  # 100 was sent
        self.rseq = 0  # the highest RSeq of our responses
        self.tag = ""  # To tag of our last response, "" before the first

    @property
    def expires_s(self) -> float:
        """Seconds for which the invitation is valid (RFC 3261 13.2.1); infinity without a readable Expires."""
        value = self.request.get("expires")
        if value is None:
            return math.inf
        try:
            return parse_number(value, "expires", 2**32 - 1)
        except ParseError:
            return math.inf

    def open_dialog(self) -> Dialog:
        """A new early dialog towards the caller."""
        self.tag = self._ua.token()
        return Dialog.as_uas(self.request, self.tag)

    def choose_tag(self) -> str:
        """The To tag of the next response outside the early dialogs: that of the last one."""
        # RFC 3261 8.2.6.2: "The same tag MUST be used for all responses to that request".
        self.tag = self.tag or self._ua.token()
        return self.tag

    def respond(self, status: int, data: bytes, now: float) -> None:
        """Send a response."""
        self._transaction.respond(status, data, now)

    def respond_trying(self, now: float) -> None:
        self.is_trying = True
        # RFC 3261 8.2.6.1: "any Timestamp header field present in the request MUST be copied into this 100".
        self._transaction.respond(100, self._reply.write(100, extra=timestamp_line(self.request)), now)

    def progress(self, leg: Leg, status: int | None, response: Response, now: float) -> bytes | None:
        """The callee's 18x in the caller's early dialog `leg`; see `write_progress`."""
        data = write_progress(leg, self.request, self._reply, status, response, now)
        self.rseq = max(self.rseq, leg.rseq)
        return data

    def answer(self, leg: Leg, response: Response) -> bytes:
        """The 200 in the caller's dialog `leg` for the callee's 2xx. Raises Leak, ProtocolError and ParseError."""
        body = masking.mask_body(response, leg.writer) or leg.early_answer
        extra = leg.contact + masking.mask_response_headers(response)
        return leg.write(self._reply, 200, extra=extra, body=body)

    def refusal(self, outcome: Outcome, extra: str) -> bytes:
        """The final response for the outcome. `extra`: further header lines."""
        if outcome.q850_cause and outcome.status != 487:
            extra += f"Reason: Q.850;cause={outcome.q850_cause}\r\n"
        return self._reply.write(outcome.status, to_tag=self.choose_tag(), extra=extra)

    def announce(self, sdp: bytes, codecs: frozenset[str] | None, dialled: str, now: float) -> None:
        """Send a 183 with the announcement's SDP. Raises ProtocolError and ParseError if it cannot be written."""
        ua = self._ua
        writer = SdpWriter(session_id(ua.token()), anchored=True)
        writer.codecs = codecs
        contact = contact_line(ua.peers.listener(self.flow), dialled, secure=self.secure)
        body = Body("application/sdp", writer.write(sdp))
        data = self._reply.write(183, to_tag=self.choose_tag(), extra=contact, body=body)
        self._transaction.respond(183, data, now)

    def release(self) -> None:
        """Free what only further provisional responses need: late responses of callees keep the rest for 64*T1."""
        self._transaction.user = None  # a late CANCEL has no effect
        self.head = b""
        del self.request, self._reply
