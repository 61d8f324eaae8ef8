"""The transaction layer: the table of transactions and the matching of messages (RFC 3261 17.1.3, 17.2.3, 9.2).

It parses only what matching needs, and sends only the bytes it was given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from relay.errors import ParseError
from relay.sip.flow import Flow
from relay.sip.message import Request, Response
from relay.sip.timers import TimerHeap, Timings
from relay.sip.transaction_client import ClientTransaction
from relay.sip.transaction_machine import Ground
from relay.sip.transaction_server import ACCEPTED, ServerTransaction

__all__ = ["ClientTransaction", "ServerTransaction", "TransactionLayer"]

MAGIC_COOKIE: Final = "z9hG4bK"  # RFC 3261 8.1.1.7
_INVITE_KEYS: Final = ("INVITE ", "INVITE\n")


class TransactionLayer:
    """All transactions of one engine. `send` gets bytes and their destination."""

    def __init__(self, timings: Timings, timers: TimerHeap, send: Callable[[bytes, Flow], None]) -> None:
        self._ground = Ground(timings, timers, send)
        self._servers: dict[str, ServerTransaction] = {}
        self._clients: dict[str, ClientTransaction] = {}
        self._awaiting: dict[Flow, set[ClientTransaction]] = {}
        self.served: dict[str, int] = {}  # live server transactions by owner

    def __len__(self) -> int:
        """Number of transactions not terminated yet, including completed ones."""
        return len(self._servers) + len(self._clients)

    def counts(self) -> dict[str, int]:
        """Transactions by kind, for statistics; iterates over all."""
        invite_servers = sum(key.startswith(_INVITE_KEYS) for key in self._servers)
        invite_clients = sum(key.startswith(_INVITE_KEYS) for key in self._clients)
        return {
            "invite_server": invite_servers,
            "non_invite_server": len(self._servers) - invite_servers,
            "invite_client": invite_clients,
            "non_invite_client": len(self._clients) - invite_clients,
        }

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
        `fail` gets "timeout" (timers B, F) or "transport", once and last. `ack`, for INVITE, builds the ACK to a
        non-2xx final response.
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

    def transport_failed(self, flow: Flow, now: float) -> None:
        """Sending on exactly that flow failed: its client transactions fail with "transport".

        Server transactions stay (RFC 6026 8.5).
        """
        for transaction in list(self._awaiting.get(flow, ())):
            transaction.transport_failed(now)


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
