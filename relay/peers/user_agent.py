"""The relay as a SIP user agent: its requests (transport by size, branch, credentials, CANCEL, ACK to a refusal), and
its 2xx to an INVITE until the ACK comes."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from relay.errors import ProtocolError
from relay.peers.auth import CHALLENGED, ChallengeAnswers
from relay.peers.peers import host_of
from relay.privacy.messages import MOST_BY_UDP, PATH_MTU_LIMIT, OutgoingRequest
from relay.sip.message import Flow, Response
from relay.sip.timers import TimerHeap, Timings
from relay.sip.transaction import TransactionLayer

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.model.actions import Outbox
    from relay.model.settings import Listener, Peer
    from relay.peers.peers import Peers
    from relay.sip.timers import Timer

NO_TCP_S: Final = 300.0  # for which a host that took no connection gets large requests by UDP
MOST_NO_TCP: Final = 1000  # such hosts remembered, and hosts that took one


class UserAgent:
    """The relay as a SIP user agent: the parts that all dialogs and requests share."""

    __slots__ = ("no_tcp", "outbox", "peers", "takes_tcp", "timers", "timings", "token", "transactions")

    def __init__(self, outbox: Outbox, peers: Peers, timings: Timings, token: Callable[[], str]) -> None:
        """`token` returns 16 random hexadecimal digits."""
        self.outbox = outbox
        self.peers = peers
        self.timings = timings
        self.token = token
        self.timers = TimerHeap()
        self.transactions = TransactionLayer(timings, self.timers, outbox.send)
        self.no_tcp: dict[Flow, float] = {}  # flows that could not be opened for a large request, and until when
        self.takes_tcp: set[Flow] = set()  # flows that brought the response to one

    def fraction(self) -> float:
        """A random number, 0 <= n < 1, to spread events that begin together."""
        return int(self.token()[-4:], 16) / 0x10000


class ClientRequest:
    """A request of ours under way. A large one goes by TCP if the peer allows it (RFC 3261 18.1.1), and falls back to
    UDP if no connection can be opened. A challenged one is repeated with our credentials (22.2), for each realm that
    asked for them (22.3). No nonce is reused for the next request, since all calls would have to share its count."""

    __slots__ = (
        "_answers",
        "_branch",
        "_cancelled",
        "_fail",
        "_first_flow",
        "_flow",
        "_given_up",
        "_goes_out",
        "_listener",
        "_peer",
        "_receive",
        "_renumber",
        "_request",
        "_ua",
        "transaction",
    )

    def __init__(
        self,
        ua: UserAgent,
        request: OutgoingRequest,
        flow: Flow,
        peer: Peer,
        receive: Callable[[Response, float], None],
        fail: Callable[[str, float], None],
        now: float,
        renumber: Callable[[str, float], int],
        goes_out: Callable[[Flow, str], None] | None = None,
        branch: str = "",
        listener: Listener | None = None,
    ) -> None:
        """Send the request. `receive` and `fail`: see `TransactionLayer.request`. Raises ProtocolError 513 if it
        exceeds the UDP limit; then nothing was sent.

        `renumber` gets our authorization lines before the request is repeated with them, and returns its new CSeq.
        `goes_out` gets flow and branch before each sending of an INVITE. `branch`: of an INVITE that an earlier process
        sent on this flow, and that is only adopted; `listener`: from which, if it was another node's.
        """
        self._ua = ua
        self._request = request
        self._first_flow = flow
        self._peer = peer
        self._receive = receive
        self._fail = fail
        self._renumber = renumber
        self._answers: ChallengeAnswers | None = None  # to challenges
        self._given_up = False  # cancelled, or to be cancelled
        self._cancelled: str | None = None  # the Reason line of a CANCEL that waits for a provisional response
        self._goes_out = goes_out
        self._listener = listener
        if branch:
            self._flow, self._branch = flow, branch
            self.transaction = ua.transactions.take_up(branch, flow, self._receive_invite, fail, self._ack)
        else:
            self._send(now)

    def _send(self, now: float) -> None:
        flow = self._first_flow
        tcp = _tcp_for_large(self._ua, self._request, flow, self._peer, now)
        if tcp is None:
            self._start(flow, self._fail, now)
        else:
            self._start(tcp, lambda why, at: self._fall_back(why, flow, at), now)

    def _start(self, flow: Flow, fail: Callable[[str, float], None], now: float) -> None:
        ua = self._ua
        method = self._request.method
        self._flow = flow
        self._branch = f"z9hG4bK{ua.token()}"  # RFC 3261 8.1.1.7
        data = self._request.render(ua.peers.listener(flow), self._branch)
        if len(data) > MOST_BY_UDP and flow.transport == "udp":
            raise ProtocolError(513, "request exceeds the UDP limit")
        if method == "INVITE":
            if self._goes_out is not None:
                self._goes_out(flow, self._branch)
            self.transaction = ua.transactions.request(
                method, self._branch, data, flow, self._receive_invite, fail, now, self._ack
            )
        else:
            is_plain = self._peer.account is None and flow is self._first_flow
            receive = self._receive if is_plain else self._receive_other
            self.transaction = ua.transactions.request(method, self._branch, data, flow, receive, fail, now)

    def _fall_back(self, why: str, udp: Flow, now: float) -> None:
        if why == "transport" and not self.transaction.proceeding:
            if self._flow not in self._ua.takes_tcp:  # else an open connection broke
                _note_no_tcp(self._ua, self._flow, now)
            if self._cancelled is None:
                with suppress(ProtocolError):  # too large for UDP
                    self._start(udp, self._fail, now)
                    return
        self._fail(why, now)

    def _ack(self, response: Response) -> bytes:
        return self._request.ack(response, self._listener or self._ua.peers.listener(self._flow), self._branch)

    def _receive_invite(self, response: Response, now: float) -> None:
        if self._flow is not self._first_flow:
            _note_tcp(self._ua, self._flow)
        if self._cancelled is not None and response.status < 200:
            reason, self._cancelled = self._cancelled, None
            self._send_cancel(reason, now)
        if 200 <= response.status < 300:  # repeated and forked 2xx (for 64*T1) do not need this object
            self.transaction.hand_over(self._receive)
        if response.status not in CHALLENGED or not self._goes_again(response, now):
            self._receive(response, now)

    def _receive_other(self, response: Response, now: float) -> None:
        if self._flow is not self._first_flow:
            _note_tcp(self._ua, self._flow)
        if response.status not in CHALLENGED or not self._goes_again(response, now):
            self._receive(response, now)

    def _goes_again(self, response: Response, now: float) -> bool:
        """Repeat the request with credentials. False without an account, or if they were rejected."""
        account, answers, request = self._peer.account, self._answers, self._request
        if account is None or self._given_up:
            return False
        if answers is None:
            answers = self._answers = ChallengeAnswers(account)
        if not answers.take(response):
            return False
        lines = answers.lines(request.method, request.uri, self._ua.token)
        self._request = request.with_credentials(self._renumber(lines, now), lines)
        try:
            self._send(now)
        except ProtocolError:
            return False
        return True

    def cancel(self, now: float, reason: str = "") -> None:
        """Cancel an INVITE, but not before its first provisional response (RFC 3261 9.1)."""
        if self._given_up or self.transaction.done:
            return
        self._given_up = True
        if self.transaction.proceeding:
            self._send_cancel(reason, now)
        else:
            self._cancelled = reason

    def _send_cancel(self, reason: str, now: float) -> None:
        ua, flow, request = self._ua, self._flow, self._request
        data = request.cancel(self._listener or ua.peers.listener(flow), self._branch, reason)
        fail = partial(self._cancel_failed, reason)
        if self._peer.login is not None:  # a phone may have registered again since
            flow = ua.peers.way_to(self._peer, host_of(request.uri.rpartition("@")[2]), flow)
        ua.transactions.request("CANCEL", self._branch, data, flow, _ignore, fail, now)
        self.transaction.abandon(now)

    def _cancel_failed(self, reason: str, why: str, now: float) -> None:
        """Repeat CANCEL every T2 (as timer E does) while the transport fails and the callee may ring."""
        if why == "transport":
            self._ua.timers.set(now + self._ua.timings.t2, partial(self._cancel_again, reason))

    def _cancel_again(self, reason: str, now: float) -> None:
        if not self.transaction.done:  # 64*T1 after the first CANCEL at the latest
            self._send_cancel(reason, now)


def _ignore(_: Response, __: float) -> None:
    """Ignore the response to a CANCEL: the INVITE's own response counts."""


def _tcp_for_large(ua: UserAgent, request: OutgoingRequest, flow: Flow, peer: Peer, now: float) -> Flow | None:
    if flow.transport != "udp" or not peer.tcp_allowed or request.size <= PATH_MTU_LIMIT:
        return None
    listener = ua.peers.listener_for("tcp", flow.host)
    if listener is None:
        return None
    tcp = Flow(listener, "tcp", flow.host, flow.port)
    return None if now < ua.no_tcp.get(tcp, 0.0) else tcp


def _note_tcp(ua: UserAgent, tcp: Flow) -> None:
    """Remember that the host took a connection: if it breaks, the next large request opens another one."""
    if len(ua.takes_tcp) >= MOST_NO_TCP:
        ua.takes_tcp.clear()
    ua.takes_tcp.add(tcp)


def _note_no_tcp(ua: UserAgent, tcp: Flow, now: float) -> None:
    """Spare the next large requests the wait for a connection: a firewall may drop it without an answer."""
    if len(ua.no_tcp) >= MOST_NO_TCP:  # a peer chooses them, by its Contacts
        ua.no_tcp.clear()
    ua.no_tcp[tcp] = now + NO_TCP_S


class UnacknowledgedAnswer:
    """Our 2xx to an INVITE, repeated until its ACK (RFC 3261 13.3.1.4)."""

    __slots__ = ("_data", "_deadline", "_flow", "_give_up", "_interval", "_timer", "_ua", "cseq")

    def __init__(
        self, ua: UserAgent, cseq: int, data: bytes, flow: Flow, give_up: Callable[[float], None], now: float
    ) -> None:
        """`give_up` is called after 64*T1 without an ACK."""
        timings = ua.timings
        self.cseq = cseq
        self._ua = ua
        self._data = data
        self._flow = flow
        self._give_up = give_up
        self._interval = timings.t1
        self._deadline = now + timings.transaction_s
        self._timer: Timer | None = ua.timers.set(now + timings.t1, self._again)

    def _again(self, now: float) -> None:
        ua = self._ua
        if now >= self._deadline:
            self._give_up(now)
            return
        ua.outbox.send(self._data, self._flow)
        self._interval = min(2 * self._interval, ua.timings.t2)
        self._timer = ua.timers.set(min(now + self._interval, self._deadline), self._again)

    def stop(self) -> None:
        self._ua.timers.cancel(self._timer)
