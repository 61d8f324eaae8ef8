"""The state that all calls of an engine share, in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.defence.bans import Bans
from relay.defence.limits import PeerShares
from relay.defence.stateless import StatelessServer
from relay.model.actions import Outbox
from relay.model.settings import Settings
from relay.peers.limits import CallCounts
from relay.peers.peers import Peers
from relay.peers.requests import UserAgent
from relay.privacy.text_memory import TextMemory
from relay.sip.framing import marks
from relay.sip.timers import WallClock

if TYPE_CHECKING:
    from relay.call.call import Call
    from relay.call.leg import Leg
    from relay.call.text_message import TextMessage
    from relay.sip.message import Request


class Core:
    """Shared state of the calls of one engine."""

    def __init__(self, settings: Settings, token: Callable[[], str], clock_offset_s: float) -> None:
        self.settings = settings
        self.outbox = Outbox()
        self.peers = Peers(settings)
        self.ua = UserAgent(self.outbox, self.peers, settings.timings, token)
        self.token = token
        self.timers = self.ua.timers
        self.transactions = self.ua.transactions
        self.clock = WallClock(clock_offset_s)
        self.bans = Bans(settings.limits)
        self.shares = PeerShares(self.outbox, self.timers, self.transactions, settings.limits)
        self.stateless = StatelessServer(self.outbox, self.shares, self.peers.name_on, token())
        self.counts = CallCounts()
        self.legs: dict[tuple[str, str], Leg] = {}  # by our tag and the peer's
        self.attempts: dict[tuple[str, str | None], Call] = {}  # by the Call-ID and From tag of the caller's INVITE
        self.messages: dict[tuple[str, str | None, int], TextMessage] = {}  # by Call-ID, From tag and CSeq
        self.texts = TextMemory()
        # Our From tags of pending INVITEs and MESSAGEs: one that comes back reveals a loop.
        self.calling_tags: set[str] = set()

    def leg_of(self, request: Request) -> Leg | None:
        """The leg of the request's dialog (RFC 3261 12: Call-ID and both tags)."""
        leg = self.legs.get((request.to_tag or "", request.from_tag or ""))
        return leg if leg is not None and leg.dialog.call_id == request.call_id else None

    def may_belong(self, data: bytes) -> bool:
        """Whether the message may belong to an existing dialog or transaction, without a parse; True in doubt."""
        found = marks(data)
        if found is None:
            return True
        method, via, from_tag, to_tag = found
        hop, _, parameters = via.partition(";")
        branch = f";{parameters}".partition(";branch=")[2].partition(";")[0]
        if not branch:
            return True
        if data.startswith(b"SIP/2.0 "):
            return self.transactions.is_awaited(method, branch) or (from_tag, to_tag) in self.legs
        if method == "ACK":  # to a refusal
            method = "INVITE"
        return (to_tag, from_tag) in self.legs or self.transactions.is_serving(method, hop, branch)
