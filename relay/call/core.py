"""The state that all calls of an engine share, in parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from relay.call.leg import Dialogs
from relay.defence.bans import Bans
from relay.defence.limits import PeerShares
from relay.defence.stateless import StatelessServer
from relay.model.actions import Outbox
from relay.model.settings import Settings
from relay.peers.limits import CallCounts
from relay.peers.peers import Peers
from relay.peers.user_agent import UserAgent
from relay.privacy.text_memory import TextMemory
from relay.sip.timers import WallClock

if TYPE_CHECKING:
    from relay.call.call import Call
    from relay.call.text_message import TextMessage


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
        self.dialogs = Dialogs(self.transactions)
        self.attempts: dict[tuple[str, str | None], Call] = {}  # by the Call-ID and From tag of the caller's INVITE
        self.messages: dict[tuple[str, str | None, int], TextMessage] = {}  # by Call-ID, From tag and CSeq
        self.texts = TextMemory()
