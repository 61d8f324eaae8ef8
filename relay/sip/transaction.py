"""The transaction layer, and server transactions (RFC 3261 17.1.3, 17.2, 9.2, RFC 6026).

Client transactions are in `relay.sip.transaction_client`. It parses only what matching needs, and sends only the bytes
it was given; not even 100 by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from relay.errors import ParseError
from relay.sip.message import Flow, Request, Response
from relay.sip.timers import (
    LINGER_OVER,
    RESEND,
    TERMINATED,
    TIMEOUT,
    Table,
    TimerHeap,
    Timings,
    Transaction,
    TransactionContext,
)
from relay.sip.transaction_client import ClientTransaction

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
        ground: TransactionContext,
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


# -- The table of transactions, and the matching of messages

__all__ = ["ClientTransaction", "ServerTransaction", "TransactionLayer"]

MAGIC_COOKIE: Final = "z9hG4bK"  # RFC 3261 8.1.1.7
# The method and the branch of a request as we write it.
_match_quote: Final = re.compile(rb"([A-Z]++) [^\r\n]*+\r\nVia: [^;\r\n]*+;branch=([0-9A-Za-z.-]++)[;\r]").match


class TransactionLayer:
    """All transactions of one engine. `send` gets bytes and their destination."""

    def __init__(self, timings: Timings, timers: TimerHeap, send: Callable[[bytes, Flow], None]) -> None:
        self._ground = TransactionContext(timings, timers, send)
        self._servers: dict[str, ServerTransaction] = {}
        self._clients: dict[str, ClientTransaction] = {}
        self._awaiting: dict[Flow, dict[ClientTransaction, None]] = {}  # in the order of the requests
        self.served: dict[str, int] = {}  # live server transactions by owner

    def __len__(self) -> int:
        """Number of transactions not terminated yet, including completed ones."""
        return len(self._servers) + len(self._clients)

    # -- server side

    def find_server(self, request: Request) -> ServerTransaction | None:
        """The transaction of a retransmitted request, or of the INVITE for an ACK (RFC 3261 17.2.3).

        The ACK to a 2xx belongs to the dialog and matches none, even with the branch of its INVITE, as many phones send
        it. Raises ParseError if a header needed for matching is missing or malformed.
        """
        if request.method != "ACK":
            request.transaction = _server_key(request, request.method)
            return self._servers.get(request.transaction)
        found = self._servers.get(_server_key(request, "INVITE"))
        if found is None and not request.branch.startswith(MAGIC_COOKIE):
            # The first INVITE of a dialog has no To tag, its ACK has that of the response.
            found = self._servers.get(_rfc2543_key(request, "INVITE", None))
        return None if found is None or found.state == ACCEPTED else found

    def is_serving(self, method: str, hop: str, branch: str) -> bool:
        """Whether a server transaction has that method and Via: `hop` is the Via up to its parameters, `branch` has the
        magic cookie."""
        return f"{method} {branch} {_sent_by(hop)}" in self._servers

    def is_awaited(self, method: str, branch: str) -> bool:
        """Whether a response with that CSeq method and branch would match a client transaction."""
        return f"{method} {branch}" in self._clients

    def find_cancelled(self, cancel: Request) -> ServerTransaction | None:
        """The INVITE transaction that a CANCEL matches (RFC 3261 9.2), answered or not. Raises ParseError."""
        return self._servers.get(_server_key(cancel, "INVITE"))

    def serve(self, request: Request, reply_to: Flow, owner: str = "") -> ServerTransaction:
        """A new transaction, for a request that `find_server` does not match. Responses go to `reply_to`.

        It lives until its user gives a final response. `owner`: its key in `served`.
        """
        key = request.transaction or _server_key(request, request.method)
        transaction = ServerTransaction(self._ground, key, self._servers, request, reply_to, owner, self.served)
        self._servers[key] = transaction
        return transaction

    # -- client side

    def request(
        self,
        method: str,
        branch: str,
        data: bytes,
        flow: Flow,
        receive: Callable[[Response, float], None],
        fail: Callable[[str, float], None],
        now: float,
        ack: Callable[[Response], bytes] | None = None,
    ) -> ClientTransaction:
        """Send `data`, a request with topmost branch `branch`, and wait for its responses.

        `receive` gets every provisional response and the final one; for INVITE every 2xx, including retransmissions.
        `fail` gets "timeout" (timers B, F) or "transport", once and last; before it "lost" whenever the connection of
        an INVITE breaks after a provisional response. `ack`, for INVITE, builds the ACK to a non-2xx final response.
        """
        key = f"{method} {branch}"
        transaction = ClientTransaction(
            self._ground, key, self._clients, self._awaiting, method, data, flow, receive, fail, ack
        )
        transaction.start(now)
        return transaction

    def take_up(
        self,
        branch: str,
        flow: Flow,
        receive: Callable[[Response, float], None],
        fail: Callable[[str, float], None],
        ack: Callable[[Response], bytes],
    ) -> ClientTransaction:
        """Adopt an INVITE sent by an earlier process, as if it had a provisional response. Nothing is sent."""
        key = f"INVITE {branch}"
        transaction = ClientTransaction(
            self._ground, key, self._clients, self._awaiting, "INVITE", b"", flow, receive, fail, ack
        )
        transaction.take_up()
        return transaction

    def receive_response(self, response: Response, now: float) -> bool:
        """Pass a response to its transaction (RFC 3261 17.1.3: topmost branch, CSeq method). False: stray."""
        try:
            key = f"{response.cseq.method} {response.branch}"
        except ParseError:
            return False
        transaction = self._clients.get(key)
        if transaction is None:
            return False
        transaction.receive(response, now)
        return True

    def transport_failed(self, flow: Flow, now: float, quote: bytes | None = None) -> None:
        """Sending on exactly that flow failed: its client transactions fail with "transport", or report "lost".

        `quote`: the beginning of our message, as an ICMP error quotes it; only the transaction of that message fails
        then. Any host can send such an error with our address and a peer's, but none can guess a branch. Where a router
        quotes too little to hold it (8 bytes, RFC 792), the request is sent again until it times out.

        Server transactions stay (RFC 6026 8.5).
        """
        awaiting = self._awaiting.get(flow, {})
        if quote is None:
            for transaction in list(awaiting):
                transaction.transport_failed(now)
            return
        found = _match_quote(quote)
        quoted = self._clients.get(f"{found[1].decode()} {found[2].decode()}") if found else None
        if quoted is not None and quoted in awaiting:
            quoted.transport_failed(now)


def _server_key(request: Request, method: str) -> str:
    """The key common to all requests of one transaction (RFC 3261 17.2.3). `method`: INVITE for its ACK and CANCEL."""
    branch = request.branch
    if branch.startswith(MAGIC_COOKIE):
        return f"{method} {branch} {_sent_by(request.demand('via').partition(';')[0])}"
    return _rfc2543_key(request, method, request.to_tag)


_sent_bys: Final[dict[str, str]] = {}  # the same in all requests of a peer
_MAX_REMEMBERED: Final = 1024  # of up to 128 characters; a hostile peer must not fill memory


def _sent_by(hop: str) -> str:
    """The sent-by of a Via up to its parameters, lower-case and without blanks; no full parse."""
    known = _sent_bys.get(hop)
    if known is not None:
        return known
    sent_by = "".join(hop.rpartition("/")[2].split()[1:]).lower()  # also of "SIP / 2.0 / UDP host : 5060"
    if len(hop) <= 128:
        if len(_sent_bys) >= _MAX_REMEMBERED:
            _sent_bys.clear()
        _sent_bys[hop] = sent_by
    return sent_by


def _rfc2543_key(request: Request, method: str, to_tag: str | None) -> str:
    """The key for a branch without the magic cookie: headers that RFC 2543 clients keep unchanged (RFC 3261 17.2.3)."""
    number = (request.get("cseq") or "").partition(" ")[0]
    vias = request.values("via")
    if not vias:
        raise ParseError("missing", "via")
    return "\n".join((method, request.uri, request.from_tag or "", to_tag or "", request.call_id, number, vias[0]))
