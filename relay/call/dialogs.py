"""The dialogs of one engine: which one a message belongs to, and who may speak in it.

Only the dialog's own peer may, including a former one: a peer that the configuration no longer has, or one without a
fixed address that is not registered any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.peers.peers import holds
from relay.sip.framing import read_marks

if TYPE_CHECKING:
    from relay.call.leg import Leg
    from relay.model.settings import Peer
    from relay.sip.message import Flow, Request
    from relay.sip.transaction import TransactionLayer


class Dialogs:
    """The dialogs of one engine: legs, and tags of dialogs that are being opened."""

    __slots__ = ("_transactions", "calling_tags", "legs")

    def __init__(self, transactions: TransactionLayer) -> None:
        self._transactions = transactions
        self.legs: dict[tuple[str, str], Leg] = {}  # by our tag and the peer's
        # Our From tags of pending INVITEs and MESSAGEs: one that comes back reveals a loop.
        self.calling_tags: set[str] = set()

    def leg_of(self, request: Request) -> Leg | None:
        """The leg of the request's dialog (RFC 3261 12: Call-ID and both tags)."""
        leg = self.legs.get((request.to_tag or "", request.from_tag or ""))
        return leg if leg is not None and leg.dialog.call_id == request.call_id else None

    def may_belong(self, data: bytes) -> bool:
        """Whether the message may belong to an existing dialog or transaction, without a parse; True in doubt."""
        found = read_marks(data)
        if found is None:
            return True
        method, via, from_tag, to_tag = found
        hop, _, parameters = via.partition(";")
        branch = f";{parameters}".partition(";branch=")[2].partition(";")[0]
        if not branch:
            return True
        if data.startswith(b"SIP/2.0 "):
            return self._transactions.is_awaited(method, branch) or (from_tag, to_tag) in self.legs
        if method == "ACK":  # to a refusal
            method = "INVITE"
        return (to_tag, from_tag) in self.legs or self._transactions.is_serving(method, hop, branch)


def may_speak(leg: Leg, peer: Peer, flow: Flow) -> bool:
    """Whether a request in the leg's dialog comes from its peer: another peer may only have read the tags."""
    return peer.name == leg.peer.name or is_heard(leg.peer, leg.flow.host, flow)


def is_heard(peer: Peer, last_heard: str, flow: Flow) -> bool:
    """Whether the flow belongs to the peer as configured when the dialog began; a peer with `login` also sends from
    the host where it was `last_heard`."""
    if peer.tls_only and flow.transport != "tls":
        return False
    return holds(peer, flow.host) or (peer.login is not None and last_heard == flow.host)
