"""Overload shedding: new calls and text messages refused before any work is done on them.

Also shed are requests over the limit of transactions, in total or for their peer.

They get a stateless 503 built from their own lines (RFC 3261 8.2.7): no transaction, no look-up, no record. They are
counted by peer and logged in sums. Every other attempt has a record, but a record is most of the cost of a refusal:
with it, throughput would fall under overload instead of holding.
"""

from __future__ import annotations

import math
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Final

from relay.defence.stateless import Prescan, StatelessResponse
from relay.errors import ParseError
from relay.privacy.messages import Reply, encode
from relay.sip.framing import is_untagged
from relay.sip.message import Request, parse_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.defence.bans import Bans
    from relay.defence.limits import PeerShares
    from relay.model.actions import Outbox
    from relay.model.settings import Peer
    from relay.sip.message import Flow
    from relay.sip.timers import TimerHeap
    from relay.sip.transaction import TransactionLayer

# Short: by RFC 3261 21.5.4 a proxy sends nothing at all meanwhile, and we lag by tenths of a second.
RETRY_AFTER: Final = "Retry-After: 1\r\n"
BURST_LAG_S: Final = 0.4  # allowed wait in a burst: retransmission comes after 0.5 s (RFC 3261 17.1.1.2)
TOLD_EVERY_S: Final = 5.0
MOST_REMEMBERED: Final = 20_000  # keys per generation, of two; a limit that fits the CPU cache
REMEMBERED_S: Final = 16.0  # minimum, unless the generation is full

_NEW: Final = (b"INVITE ", b"MESSAGE ", b"CANCEL ")
_START: Final = b"SIP/2.0 503 Service Unavailable\r\n"
_END: Final = f"\r\n{RETRY_AFTER}Content-Length: 0\r\n\r\n".encode()


class Rank(Enum):
    """Priority class of a message under overload."""

    INSIDE = "inside"  # in-dialog, a response, or a peer's keepalive
    NEW = "new"  # a peer's new call or text message; a CANCEL, which must not overtake its INVITE
    STRANGER = "stranger"  # a new request of an unknown source


class Shedding:
    """The shedding of one engine."""

    def __init__(
        self,
        outbox: Outbox,
        timers: TimerHeap,
        transactions: TransactionLayer,
        shares: PeerShares,
        bans: Bans,
        peer_at: Callable[[Flow], Peer | None],
        tag: str,
    ) -> None:
        """`peer_at` returns the peer at the source of a message; `tag`: of the `StatelessServer`."""
        self.counts: dict[str, int] = {}  # by peer name
        self._outbox = outbox
        self._timers = timers
        self._transactions = transactions
        self._shares = shares
        self._bans = bans
        self._peer_at = peer_at
        self._tag = tag
        self._end_of_to = f";tag={tag}\r\n".encode()
        self._shed: set[int] = set()
        self._shed_before: set[int] = set()
        self._turn_at = 0.0
        self._prescan = Prescan()
        self._shed_late_at = -math.inf  # when a waiting message was last shed
        self._told: dict[str, int] = {}  # `counts` as last logged
        self._is_telling = False

    def sort(self, data: bytes, flow: Flow, wait_s: float, now: float, *, lasts: bool) -> Rank | None:
        """The priority class of a message; None if it is done: shed at once, or the ACK to a shed INVITE.

        `wait_s`: expected wait of a new request. `lasts`: the overload is longer than a burst.
        """
        if data.startswith(b"ACK "):
            return None if data.find(self._end_of_to) >= 0 else Rank.INSIDE
        data = data.lstrip(b"\r\n")  # RFC 3261 7.5
        if data.startswith(b"SIP/2.0 "):
            return Rank.INSIDE
        peer = self._peer_at(flow)
        is_late = self._is_late(wait_s, lasts=lasts)
        may_shed = is_late or bool(self._shed or self._shed_before)
        if may_shed and peer is not None and (refusal := self._usual(data, flow)):
            if not (is_late or self._has_shed(refusal.key)):
                return Rank.NEW
            self._refuse(refusal, peer, now)
            return None
        if not is_untagged(data) or (peer is not None and not data.startswith(_NEW)):
            return Rank.INSIDE
        if may_shed and self._sheds(data, flow, peer, now, is_late=is_late):
            return None
        return Rank.STRANGER if peer is None else Rank.NEW

    def sheds(self, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool:
        """Shed a message that waited too long, or was shed before; not of `Rank.INSIDE`. False: not shed."""
        is_late = self._is_late(waited_s, lasts=lasts)
        if not is_late and now - waited_s > self._shed_late_at:  # earlier ones were handled by `sort`
            return False
        if not self._sheds(data, flow, self._peer_at(flow), now, is_late=is_late):
            return False
        self._shed_late_at = now
        return True

    def sheds_request(self, request: Request, flow: Flow, peer: Peer, now: float) -> bool:
        """Shed a parsed request of a peer: no room for its transaction, or shed before. False: not shed.
        Raises ParseError if it cannot be answered."""
        has_room = self._shares.admits_transaction(peer.name, now)
        if has_room and (now > self._turn_at + REMEMBERED_S or not self._has_shed(_key(request))):
            return False
        self._refuse(self._refusal(request, flow), peer, now)
        return True

    def _is_late(self, waited_s: float, *, lasts: bool) -> bool:
        limit_ms = self._shares.limits.shed_lag_ms
        return waited_s * 1000 > limit_ms > 0 and (lasts or waited_s > BURST_LAG_S)

    def _sheds(self, data: bytes, flow: Flow, peer: Peer | None, now: float, *, is_late: bool) -> bool:
        """Answer a peer's request, drop an unknown source's. Requests being served or malformed are not shed.

        A retransmission gets the same response as before, late or not: its sender may have acted on it.
        """
        if data.startswith(b"CANCEL "):
            return False
        if peer is None:
            if is_late:
                self._outbox.counters["strangers"] += 1
                self._bans.offend(flow.host, "stranger", now, proven=flow.reliable)
            return is_late
        refusal = self._usual(data, flow) or self._any(data, flow)
        if refusal is None or not (is_late or self._has_shed(refusal.key)):
            return False
        self._refuse(refusal, peer, now)
        return True

    def _has_shed(self, key: int) -> bool:
        return key in self._shed or key in self._shed_before

    def _refuse(self, refusal: StatelessResponse, peer: Peer, now: float) -> None:
        self._remember(refusal.key, now)
        self.counts[peer.name] = self.counts.get(peer.name, 0) + 1
        self._tell_later(now)
        self._outbox.send_in_any_order(refusal.data, refusal.flow)

    def _usual(self, data: bytes, flow: Flow) -> StatelessResponse | None:
        """The refusal of a new call or text message, from its bytes. None: unusual syntax, or being served."""
        method = "INVITE" if data.startswith(b"INVITE ") else "MESSAGE"
        if method == "MESSAGE" and not data.startswith(b"MESSAGE "):
            return None
        glimpse = self._prescan.read(data, flow)
        if glimpse is None or self._transactions.is_serving(method, glimpse.hop, glimpse.branch):
            return None
        return glimpse.answer(_START, self._end_of_to, _END)

    def _any(self, data: bytes, flow: Flow) -> StatelessResponse | None:
        """As `_usual`, by a full parse. None: malformed, or being served."""
        try:
            request = parse_message(data)
            if not isinstance(request, Request) or self._transactions.find_server(request) is not None:
                return None
            return self._refusal(request, flow)
        except ParseError:
            return None

    def _refusal(self, request: Request, flow: Flow) -> StatelessResponse:
        reply = Reply(request, flow)
        return StatelessResponse(_key(request), reply.write(503, to_tag=self._tag, extra=RETRY_AFTER), reply.flow)

    # -- memory

    def _remember(self, key: int, now: float) -> None:
        if now >= self._turn_at or len(self._shed) >= MOST_REMEMBERED:
            self._shed_before, self._shed = self._shed, set()
            self._turn_at = now + REMEMBERED_S
        self._shed.add(key)

    def _tell_later(self, now: float) -> None:
        if not self._is_telling:
            self._is_telling = True
            self._timers.set(now + TOLD_EVERY_S, self._tell)

    def _tell(self, _: float) -> None:
        since = Counter(self.counts) - Counter(self._told)
        self._told = dict(self.counts)
        self._is_telling = False
        self._outbox.note("overload.shed", count=since.total(), peers=dict(since), within_s=TOLD_EVERY_S)


def _key(request: Request) -> int:
    """Equal to the key of an `StatelessResponse` made from the bytes."""
    return hash((encode(request.call_id), encode(request.demand("cseq"))))
