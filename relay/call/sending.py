"""Sends the relay's own requests: transport by size, branch, credentials, CANCEL, and the ACK to a refusal."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from relay.call.compose import MOST_BY_UDP, PATH_MTU_LIMIT, OutgoingRequest
from relay.call.credentials import CHALLENGED, challenge_in, credentials_line
from relay.errors import ProtocolError
from relay.sip.flow import Flow
from relay.sip.message import Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.call.core import Core
    from relay.call.settings import Peer


MOST_CHALLENGES: Final = 2  # of one request that are answered: the second only where it says that our nonce was stale


class SentRequest:
    """A request of ours on its way. A large one goes by TCP where the peer allows it (RFC 3261 18.1.1), and by UDP
    after all if no connection comes about. One that the peer challenges goes again with our credentials (22.2): no
    nonce is kept from one request to the next, since all calls would have to share its count."""

    __slots__ = (
        "_branch",
        "_cancelled",
        "_challenges",
        "_core",
        "_fail",
        "_first_flow",
        "_flow",
        "_given_up",
        "_goes_out",
        "_peer",
        "_receive",
        "_renumber",
        "_request",
        "transaction",
    )

    def __init__(
        self,
        core: Core,
        request: OutgoingRequest,
        flow: Flow,
        peer: Peer,
        receive: Callable[[Response, float], None],
        fail: Callable[[str, float], None],
        now: float,
        renumber: Callable[[str, float], int],
        goes_out: Callable[[Flow, str], None] | None = None,
        branch: str = "",
    ) -> None:
        """Sends it. `receive` and `fail` as in `TransactionLayer.request`. Raises ProtocolError 513 where it is longer
        than a datagram may be and goes by UDP: then nothing was sent.

        `renumber` is told the lines of our credentials when the request is about to go again with them, and gives the
        CSeq that it has then. `goes_out` is told by which flow and with which branch an INVITE goes, each time before
        it does. `branch`: that of an INVITE that an earlier process has sent by this flow: it is not sent again.
        """
        self._core = core
        self._request = request
        self._first_flow = flow
        self._peer = peer
        self._receive = receive
        self._fail = fail
        self._renumber = renumber
        self._challenges = 0  # that were answered
        self._given_up = False  # it is or will be cancelled
        self._cancelled: str | None = None  # the Reason line of a CANCEL that waits for a provisional response
        self._goes_out = goes_out
        if branch:
            self._flow, self._branch = flow, branch
            self.transaction = core.transactions.take_up(branch, flow, self._receive_invite, fail, self._ack)
        else:
            self._send(now)

    def _send(self, now: float) -> None:
        flow = self._first_flow
        tcp = _tcp_for_large(self._core, self._request, flow, self._peer)
        if tcp is None:
            self._start(flow, self._fail, now)
        else:
            self._start(tcp, lambda why, at: self._fall_back(why, flow, at), now)

    def _start(self, flow: Flow, fail: Callable[[str, float], None], now: float) -> None:
        core = self._core
        method = self._request.method
        self._flow = flow
        self._branch = f"z9hG4bK{core.token()}"  # RFC 3261 8.1.1.7
        data = self._request.render(core.peers.listener(flow), self._branch)
        if len(data) > MOST_BY_UDP and flow.transport == "udp":
            raise ProtocolError(513, "longer than a datagram may be")
        if method == "INVITE":
            if self._goes_out is not None:
                self._goes_out(flow, self._branch)
            self.transaction = core.transactions.request(
                method, self._branch, data, flow, self._receive_invite, fail, now, self._ack
            )
        else:
            receive = self._receive if self._peer.account is None else self._receive_other
            self.transaction = core.transactions.request(method, self._branch, data, flow, receive, fail, now)

    def _fall_back(self, why: str, udp: Flow, now: float) -> None:
        if why == "transport" and not self.transaction.proceeding and self._cancelled is None:
            with suppress(ProtocolError):  # only TCP could have taken it
                self._start(udp, self._fail, now)
                return
        self._fail(why, now)

    def _ack(self, response: Response) -> bytes:
        return self._request.ack(response, self._core.peers.listener(self._flow), self._branch)

    def _receive_invite(self, response: Response, now: float) -> None:
        if self._cancelled is not None and response.status < 200:
            reason, self._cancelled = self._cancelled, None
            self._send_cancel(reason, now)
        if 200 <= response.status < 300:  # answers that are late or come again need nothing of this, for 64*T1
            self.transaction.hand_over(self._receive)
        if response.status not in CHALLENGED or not self._goes_again(response, now):
            self._receive(response, now)

    def _receive_other(self, response: Response, now: float) -> None:
        if response.status not in CHALLENGED or not self._goes_again(response, now):
            self._receive(response, now)

    def _goes_again(self, response: Response, now: float) -> bool:
        """Answers a challenge. False where there is nothing to answer it with, or our answer was not right."""
        account, request = self._peer.account, self._request
        if account is None or self._given_up or self._challenges == MOST_CHALLENGES:
            return False
        challenge = challenge_in(response, account)
        if challenge is None or (self._challenges and not challenge.stale):
            return False
        self._challenges += 1
        line = credentials_line(response.status, challenge, account, request.method, request.uri, self._core.token())
        self._request = request.with_credentials(self._renumber(line, now), line)
        try:
            self._send(now)
        except ProtocolError:
            return False
        return True

    def cancel(self, now: float, reason: str = "") -> None:
        """Cancels an INVITE, at the first provisional response if there was none yet (RFC 3261 9.1)."""
        if self.transaction.done:
            return
        self._given_up = True
        if self.transaction.proceeding:
            self._send_cancel(reason, now)
        else:
            self._cancelled = reason

    def _send_cancel(self, reason: str, now: float) -> None:
        core = self._core
        data = self._request.cancel(core.peers.listener(self._flow), self._branch, reason)
        core.transactions.request("CANCEL", self._branch, data, self._flow, _ignore, _ignore, now)
        self.transaction.abandon(now)


def _ignore(_: object, __: float) -> None:
    """The answer to a CANCEL changes nothing: what counts is that of the INVITE."""


def _tcp_for_large(core: Core, request: OutgoingRequest, flow: Flow, peer: Peer) -> Flow | None:
    if flow.transport != "udp" or not peer.tcp_allowed or request.size <= PATH_MTU_LIMIT:
        return None
    listener = core.peers.listener_for("tcp", flow.host)
    return None if listener is None else Flow(listener, "tcp", flow.host, flow.port)
