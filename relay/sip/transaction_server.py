"""Server transactions: requests of peers, with retransmission of the response (RFC 3261 17.2, RFC 6026).

Responses are ready bytes. It sends nothing by itself, not even 100.
"""

from __future__ import annotations

from typing import Final

from relay.sip.flow import Flow
from relay.sip.message import Request
from relay.sip.transaction_machine import LINGER_OVER, RESEND, TERMINATED, TIMEOUT, Ground, Table, Transaction

TRYING: Final = "trying"
PROCEEDING: Final = "proceeding"
COMPLETED: Final = "completed"
CONFIRMED: Final = "confirmed"
ACCEPTED: Final = "accepted"

REQUEST: Final = "request"  # retransmitted
ACK: Final = "ACK"
GIVE_PROVISIONAL: Final = "give 1xx"
GIVE_SUCCESS: Final = "give 2xx"
GIVE_REFUSAL: Final = "give 3xx-6xx"


class ServerTransaction(Transaction):
    """A request of a peer. Its user answers with `respond`.

    Send errors are not reported: the state does not change (RFC 6026 8.5), and the user could not react.
    """

    __slots__ = ("_last", "_owner", "_served", "answered", "reply_to", "request", "user")

    def __init__(
        self,
        ground: Ground,
        key: str,
        known: dict[str, ServerTransaction],
        request: Request,
        flow: Flow,
        owner: str,
        served: dict[str, int],
    ) -> None:
        """`served`: number of live server transactions by owner."""
        if request.method == "INVITE":
            Transaction.__init__(self, ground, INVITE_SERVER, PROCEEDING, key, known)
        else:
            Transaction.__init__(self, ground, NON_INVITE_SERVER, TRYING, key, known)
        self._owner = owner
        self._served = served
        served[owner] = served.get(owner, 0) + 1
        self._last = b""  # response for retransmitted requests
        self.answered = False  # a final response was given
        self.request: Request | None = request  # until answered
        self.reply_to = flow
        self.user: object | None = None  # set by the user; cleared at termination

    def receive(self, request: Request, now: float) -> None:
        """Handle a retransmission of the request, or an ACK matched by `TransactionLayer.find_server`."""
        self._step(ACK if request.method == "ACK" else REQUEST, now)

    def respond(self, status: int, data: bytes, now: float) -> None:
        """Send a response, given as bytes, and keep it for retransmissions of the request.

        After a final response it is ignored, except a further 2xx to INVITE: the user retransmits those until the ACK
        (RFC 3261 13.3.1.4, RFC 6026 7.1).
        """
        self._step(GIVE_PROVISIONAL if status < 200 else GIVE_SUCCESS if status < 300 else GIVE_REFUSAL, now, data)

    # -- effects

    def _send(self, _: float, data: bytes) -> None:
        self._ground.send(data, self.reply_to)

    def _send_and_keep(self, _: float, data: bytes) -> None:
        self._last = data
        self._ground.send(data, self.reply_to)

    def _send_last(self, _: float, __: None) -> None:
        if self._last:
            self._ground.send(self._last, self.reply_to)

    def _send_doubling(self, now: float, _: None) -> None:
        self._ground.send(self._last, self.reply_to)
        self._arm_again(now, min(2 * self._interval, self._ground.t2))

    def _settle(self, _: float, __: bytes) -> None:
        self.answered = True
        self.request = None

    def _drop_last(self, _: float, __: object) -> None:
        self._last = b""

    def _release(self, _: float, __: None) -> None:
        self.user = None
        self._served[self._owner] -= 1

    def _start_timers_g_h(self, now: float, _: bytes) -> None:
        self._arm(now, self.reply_to.reliable)

    def _start_timer_i(self, now: float, _: None) -> None:
        self._linger(now, 0.0 if self.reply_to.reliable else self._ground.t4)

    def _start_timer_j(self, now: float, _: bytes) -> None:
        self._linger(now, 0.0 if self.reply_to.reliable else self._ground.transaction_s)

    def _start_timer_l(self, now: float, _: bytes) -> None:
        self._linger(now, self._ground.transaction_s)  # reliable flows too (RFC 6026 8.7)


_S = ServerTransaction
_END: Final = (TERMINATED, (_S._forget, _S._drop_last, _S._release))

# RFC 3261 figure 7 as amended by RFC 6026 (7.1, 8.5, and the figure of the INVITE server transaction).
INVITE_SERVER: Final[Table] = {
    (PROCEEDING, REQUEST): (PROCEEDING, (_S._send_last,)),
    (PROCEEDING, GIVE_PROVISIONAL): (PROCEEDING, (_S._send_and_keep,)),
    (PROCEEDING, GIVE_SUCCESS): (ACCEPTED, (_S._settle, _S._drop_last, _S._start_timer_l, _S._send)),
    (PROCEEDING, GIVE_REFUSAL): (COMPLETED, (_S._settle, _S._start_timers_g_h, _S._send_and_keep)),
    (COMPLETED, REQUEST): (COMPLETED, (_S._send_last,)),
    (COMPLETED, RESEND): (COMPLETED, (_S._send_doubling,)),  # timer G
    (COMPLETED, ACK): (CONFIRMED, (_S._drop_last, _S._start_timer_i)),
    (COMPLETED, TIMEOUT): _END,  # timer H
    (CONFIRMED, LINGER_OVER): _END,  # timer I
    (ACCEPTED, GIVE_SUCCESS): (ACCEPTED, (_S._send,)),
    (ACCEPTED, LINGER_OVER): _END,  # timer L
}

# RFC 3261 figure 8: non-INVITE server transaction.
_ANSWER: Final = (COMPLETED, (_S._settle, _S._send_and_keep, _S._start_timer_j))
NON_INVITE_SERVER: Final[Table] = {
    (TRYING, GIVE_PROVISIONAL): (PROCEEDING, (_S._send_and_keep,)),
    (TRYING, GIVE_SUCCESS): _ANSWER,
    (TRYING, GIVE_REFUSAL): _ANSWER,
    (PROCEEDING, REQUEST): (PROCEEDING, (_S._send_last,)),
    (PROCEEDING, GIVE_PROVISIONAL): (PROCEEDING, (_S._send_and_keep,)),
    (PROCEEDING, GIVE_SUCCESS): _ANSWER,
    (PROCEEDING, GIVE_REFUSAL): _ANSWER,
    (COMPLETED, REQUEST): (COMPLETED, (_S._send_last,)),
    (COMPLETED, LINGER_OVER): _END,  # timer J
}
