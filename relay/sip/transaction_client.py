"""Client transactions: our requests, sent until answered (RFC 3261 17.1, RFC 6026).

Requests are ready bytes; of a response only the status matters. It builds no messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay.sip.message import Flow, Response
from relay.sip.timers import LINGER_OVER, RESEND, TERMINATED, TIMEOUT, Table, Transaction, TransactionContext

CALLING: Final = "calling"
TRYING: Final = "trying"
PROCEEDING: Final = "proceeding"
COMPLETED: Final = "completed"
ACCEPTED: Final = "accepted"
_AWAITING: Final = (CALLING, TRYING, PROCEEDING)

PROVISIONAL: Final = "1xx"
SUCCESS: Final = "2xx"
REFUSAL: Final = "3xx-6xx"
TRANSPORT_ERROR: Final = "transport error"

Receive = Callable[[Response, float], None]
Fail = Callable[[str, float], None]  # "timeout" or "transport"; "lost": see `ClientTransaction._report_lost`


def _nobody(_: object, __: float) -> None:
    """Placeholder of a finished callback, so that a completed transaction does not keep its call alive."""


class ClientTransaction(Transaction):
    """A request of ours. Its user gets responses through `receive`, or one `fail` that ends it."""

    __slots__ = ("_ack", "_data", "_fail", "_flows", "_receive", "flow", "method", "proceeding")

    def __init__(
        self,
        ground: TransactionContext,
        key: str,
        known: dict[str, ClientTransaction],
        flows: dict[Flow, dict[ClientTransaction, None]],
        method: str,
        data: bytes,
        flow: Flow,
        receive: Receive,
        fail: Fail,
        ack: Callable[[Response], bytes] | None,
    ) -> None:
        """`flows`: the layer's index of unanswered transactions by flow. `ack`: INVITE only."""
        if method == "INVITE":
            Transaction.__init__(self, ground, INVITE_CLIENT, CALLING, key, known)
        else:
            Transaction.__init__(self, ground, NON_INVITE_CLIENT, TRYING, key, known)
        self._flows = flows
        self._data = data  # the request; after a refusal, the ACK
        self._receive = receive
        self._fail = fail
        self._ack = ack
        self.method = method
        self.flow = flow
        self.proceeding = False  # a provisional response came

    @property
    def done(self) -> bool:
        """Whether a final response came, or the transaction failed."""
        return self._state not in _AWAITING

    def start(self, now: float) -> None:
        """Send the request for the first time."""
        flow = self.flow
        self._await_answer(flow)
        self._arm(now, flow.transport != "udp")
        self._ground.send(self._data, flow)

    def take_up(self) -> None:
        """Adopt an INVITE sent before, as if a provisional response had come."""
        self._await_answer(self.flow)
        self._state = PROCEEDING
        self.proceeding = True

    def _await_answer(self, flow: Flow) -> None:
        self._known[self._key] = self
        awaiting = self._flows.get(flow)
        if awaiting is None:
            self._flows[flow] = {self: None}
        else:
            awaiting[self] = None

    def receive(self, response: Response, now: float) -> None:
        """Handle a response of this transaction."""
        status = response.status
        self._step(PROVISIONAL if status < 200 else SUCCESS if status < 300 else REFUSAL, now, response)

    def hand_over(self, receive: Receive) -> None:
        """Replace the callback for further responses."""
        self._receive = receive

    def abandon(self, now: float) -> None:
        """The INVITE was cancelled: fail with "timeout" unless a final response comes within 64*T1 (RFC 3261 9.1).

        Before a provisional response timer B applies already; after a final one there is no effect.
        """
        if self._state == PROCEEDING and not self.armed:
            self._linger(now, self._ground.transaction_s)

    def transport_failed(self, now: float) -> None:
        """Handle a send error on the transaction's flow."""
        self._step(TRANSPORT_ERROR, now)

    # -- effects

    def _report_response(self, now: float, response: Response) -> None:
        self._receive(response, now)

    def _report_last(self, now: float, response: Response) -> None:
        receive, self._receive = self._receive, _nobody
        receive(response, now)

    def _report_timeout(self, now: float, _: None) -> None:
        self._report_failure("timeout", now)

    def _report_transport(self, now: float, _: None) -> None:
        self._report_failure("transport", now)

    def _report_lost(self, now: float, _: None) -> None:
        """Report the lost connection of a proceeding INVITE, which goes on: it sends nothing any more, and its response
        may come on a new one (RFC 3261 18.2.2). Over UDP the error belongs to another message or is forged."""
        if self.flow.reliable:
            self._fail("lost", now)

    def _report_failure(self, why: str, now: float) -> None:
        fail = self._fail
        self._receive = _nobody
        self._settle(now, None)
        fail(why, now)

    def _progress(self, _: float, __: Response) -> None:
        self.proceeding = True

    def _settle(self, _: float, __: Response | None) -> None:
        """End the wait for an answer: drop the request and the failure callback."""
        self._data = b""
        self._ack = None
        self._fail = _nobody
        awaiting = self._flows[self.flow]
        del awaiting[self]
        if not awaiting:
            del self._flows[self.flow]

    def _settle_with_ack(self, now: float, response: Response) -> None:
        """Build and send the ACK (RFC 3261 17.1.1.3), and keep it for retransmissions of the response."""
        ack = b"" if self._ack is None else self._ack(response)
        self._settle(now, None)
        self._data = ack
        self._send_ack(now, response)

    def _send_ack(self, _: float, __: Response) -> None:
        if self._data:
            self._ground.send(self._data, self.flow)

    def _send_doubling(self, now: float, _: None) -> None:
        self._ground.send(self._data, self.flow)
        self._arm_again(now, 2 * self._interval)

    def _send_up_to_t2(self, now: float, _: None) -> None:
        self._ground.send(self._data, self.flow)
        self._arm_again(now, min(2 * self._interval, self._ground.t2))

    def _send_at_t2(self, now: float, _: None) -> None:
        self._ground.send(self._data, self.flow)
        self._arm_again(now, self._ground.t2)

    def _start_timer_d(self, now: float, _: Response) -> None:
        self._linger(now, 0.0 if self.flow.reliable else self._ground.timer_d)

    def _start_timer_k(self, now: float, _: Response) -> None:
        self._linger(now, 0.0 if self.flow.reliable else self._ground.t4)

    def _start_timer_m(self, now: float, _: Response) -> None:
        self._linger(now, self._ground.transaction_s)  # reliable flows too (RFC 6026 8.4)

    def _hang_up(self, _: float, __: None) -> None:
        self._receive = _nobody


_C = ClientTransaction
_FAIL_BY_TIME: Final = (TERMINATED, (_C._forget, _C._report_timeout))
_FAIL_BY_TRANSPORT: Final = (TERMINATED, (_C._forget, _C._report_transport))

# RFC 3261 figure 5 as amended by RFC 6026 (8.4, and the figure of the INVITE client transaction).
_SUCCEED: Final = (ACCEPTED, (_C._settle, _C._start_timer_m, _C._report_response))
_BE_REFUSED: Final = (COMPLETED, (_C._settle_with_ack, _C._start_timer_d, _C._report_last))
INVITE_CLIENT: Final[Table] = {
    (CALLING, RESEND): (CALLING, (_C._send_doubling,)),  # timer A
    (CALLING, TIMEOUT): _FAIL_BY_TIME,  # timer B
    (CALLING, TRANSPORT_ERROR): _FAIL_BY_TRANSPORT,
    (CALLING, PROVISIONAL): (PROCEEDING, (_C._stop_timer, _C._progress, _C._report_response)),
    (CALLING, SUCCESS): _SUCCEED,
    (CALLING, REFUSAL): _BE_REFUSED,
    (PROCEEDING, TIMEOUT): _FAIL_BY_TIME,  # only after `abandon`
    (PROCEEDING, TRANSPORT_ERROR): (PROCEEDING, (_C._report_lost,)),  # not in the figure
    (PROCEEDING, PROVISIONAL): (PROCEEDING, (_C._report_response,)),
    (PROCEEDING, SUCCESS): _SUCCEED,
    (PROCEEDING, REFUSAL): _BE_REFUSED,
    (COMPLETED, REFUSAL): (COMPLETED, (_C._send_ack,)),
    (COMPLETED, LINGER_OVER): (TERMINATED, (_C._forget,)),  # timer D
    (ACCEPTED, SUCCESS): (ACCEPTED, (_C._report_response,)),  # retransmitted, or of another fork
    (ACCEPTED, LINGER_OVER): (TERMINATED, (_C._forget, _C._hang_up)),  # timer M
}

# RFC 3261 figure 6: non-INVITE client transaction.
_BE_ANSWERED: Final = (COMPLETED, (_C._settle, _C._start_timer_k, _C._report_last))
NON_INVITE_CLIENT: Final[Table] = {
    (TRYING, RESEND): (TRYING, (_C._send_up_to_t2,)),  # timer E
    (TRYING, TIMEOUT): _FAIL_BY_TIME,  # timer F
    (TRYING, TRANSPORT_ERROR): _FAIL_BY_TRANSPORT,
    (TRYING, PROVISIONAL): (PROCEEDING, (_C._progress, _C._report_response)),
    (TRYING, SUCCESS): _BE_ANSWERED,
    (TRYING, REFUSAL): _BE_ANSWERED,
    (PROCEEDING, RESEND): (PROCEEDING, (_C._send_at_t2,)),  # timer E
    (PROCEEDING, TIMEOUT): _FAIL_BY_TIME,  # timer F
    (PROCEEDING, TRANSPORT_ERROR): _FAIL_BY_TRANSPORT,
    (PROCEEDING, PROVISIONAL): (PROCEEDING, (_C._report_response,)),
    (PROCEEDING, SUCCESS): _BE_ANSWERED,
    (PROCEEDING, REFUSAL): _BE_ANSWERED,
    (COMPLETED, LINGER_OVER): (TERMINATED, (_C._forget,)),  # timer K
}
