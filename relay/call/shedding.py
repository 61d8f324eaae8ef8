"""New calls and text messages that are turned away while the relay is behind, before any work is done on them.

They get a 503 made of their own lines, of which nothing is kept but that it was given (RFC 3261 8.2.7): no transaction,
no look-up, no record. They are counted by peer, and the log says how many there were. DESIGN 4.3 wants a record of
every attempt, but a record is most of what a refusal costs: with it the relay would do less under overload instead of
going on at its rate.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from relay.call.compose import Reply
from relay.errors import ParseError
from relay.sip.glance import copied, is_untagged
from relay.sip.headers import parse_via
from relay.sip.message import Request, parse_message
from relay.sip.transaction import MAGIC_COOKIE

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.registrar import Registrar
    from relay.call.settings import Peer
    from relay.sip.flow import Flow

# Short: RFC 3261 21.5.4 has a proxy send us nothing at all meanwhile, and we are behind by tenths of a second.
RETRY_AFTER: Final = "Retry-After: 1\r\n"
BURST_LAG_S: Final = 0.4  # that what comes in a burst may wait: RFC 3261 17.1.1.2 has it sent again after 0.5
TOLD_EVERY_S: Final = 5.0
MOST_REMEMBERED: Final = 50_000  # twice as many at the most
REMEMBERED_S: Final = 16.0  # at least, where there are not too many

_NEW: Final = (b"INVITE ", b"MESSAGE ", b"CANCEL ")
_COOKIE: Final = MAGIC_COOKIE.encode()
_START: Final = b"SIP/2.0 503 Service Unavailable\r\nVia: "
_CALL_ID: Final = b"\r\nCall-ID: "
_END: Final = f"{RETRY_AFTER}Content-Length: 0\r\n\r\n".encode()


class Rank(Enum):
    """In which order messages are served while the relay is behind."""

    INSIDE = "inside"  # of a call, an answer to us, or a question that a peer goes by
    NEW = "new"  # a peer's new call or text message; a CANCEL, which must not overtake its INVITE
    STRANGER = "stranger"  # what begins something and is no peer's


class Refusal:
    """A 503 for a request that nothing is known of yet."""

    __slots__ = ("data", "flow", "key")

    def __init__(self, key: int, data: bytes, flow: Flow) -> None:
        self.key = key  # the same each time that the request comes
        self.data = data
        self.flow = flow


class Shedding:
    """Of one relay."""

    def __init__(self, core: Core, registrar: Registrar) -> None:
        self.counts: Counter[str] = Counter()  # by the peer's name
        self._core = core
        self._registrar = registrar
        self._digit = core.token()[0]  # a worker's tags begin with its own
        self._shed: set[int] = set()
        self._shed_before: set[int] = set()
        self._turn_at = 0.0
        self._told: Counter[str] = Counter()  # what of `counts` the log has
        self._is_telling = False

    def sort(self, data: bytes, flow: Flow, wait_s: float, now: float, *, lasts: bool) -> Rank | None:
        """Where a message is to wait; None: it need not, since it is shed at once, or the ACK to what was shed.

        `wait_s`: how long it will wait if it is new. `lasts`: whether that is more than a burst.
        """
        if data.startswith(b"ACK "):
            return None if self._is_ours(data) else Rank.INSIDE
        data = data.lstrip(b"\r\n")  # RFC 3261 7.5
        if data.startswith(b"SIP/2.0 ") or not is_untagged(data):
            return Rank.INSIDE
        peer = self._peer_at(flow)
        if peer is not None and not data.startswith(_NEW):
            return Rank.INSIDE
        if self._is_late(wait_s, lasts=lasts) and self._sheds(data, flow, peer, now, is_late=True):
            return None
        return Rank.STRANGER if peer is None else Rank.NEW

    def takes(self, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool:
        """Whether one that is not `Rank.INSIDE` is shed, now that it has waited: too long, or it was shed before."""
        is_late = self._is_late(waited_s, lasts=lasts)
        if not (is_late or self._shed or self._shed_before):
            return False
        return self._sheds(data, flow, self._peer_at(flow), now, is_late=is_late)

    def _is_late(self, waited_s: float, *, lasts: bool) -> bool:
        limit_ms = self._core.settings.limits.shed_lag_ms
        return waited_s * 1000 > limit_ms > 0 and (lasts or waited_s > BURST_LAG_S)

    def _peer_at(self, flow: Flow) -> Peer | None:
        return self._core.peers.by_source(flow.host) or self._registrar.peer_at(flow)

    def _is_ours(self, ack: bytes) -> bool:
        start = ack.find(_CALL_ID) + len(_CALL_ID)
        end = ack.find(b"\r\n", start)
        return end > start and self._tag(ack[start:end]) + b"\r\n" in ack

    def _sheds(self, data: bytes, flow: Flow, peer: Peer | None, now: float, *, is_late: bool) -> bool:
        """Answers a peer's, drops a stranger's. What is served already, or cannot be read, is not shed.

        What comes again has the answer that it had, late or not: its sender may have gone by that.
        """
        if data.startswith(b"CANCEL "):
            return False
        if peer is None:
            if is_late:
                self._core.counters["strangers"] += 1
                self._core.bans.offend(flow.host, "stranger", now, proven=flow.reliable)
            return is_late
        refusal = self._usual(data, flow) or self._any(data, flow)
        if refusal is None or not (is_late or refusal.key in self._shed or refusal.key in self._shed_before):
            return False
        self._remember(refusal.key, now)
        self.counts[peer.name] += 1
        self._tell_later(now)
        self._core.send(refusal.data, refusal.flow)
        return True

    def _usual(self, data: bytes, flow: Flow) -> Refusal | None:
        """Out of the bytes alone. None: it is written unusually, or being served."""
        lines = copied(data)
        if lines is None:
            return None
        hop, params, vias, from_, to, call_id, cseq = lines
        before, _, after = params.partition(b";branch=")
        branch, _, after = after.partition(b";")
        wants_port = before == b";rport" or after == b"rport"  # RFC 3581
        if wants_port:
            params = params.replace(b";rport", b";rport=%d" % flow.port, 1)
            before, after = before.removeprefix(b";rport"), after.removeprefix(b"rport")
        if before or not branch.startswith(_COOKIE) or b"r" in after.lower():  # "received", say
            return None
        way = _way(hop, flow, wants_port)
        method = data.partition(b" ")[0]
        if way is None or self._core.transactions.is_serving(_text(method), _text(hop), _text(branch)):
            return None
        end = b"\r\nCall-ID: %b\r\nCSeq: %b\r\n" % (call_id, cseq) + _END
        data = b"".join((_START, hop, params, way[0], vias, b"From: ", from_, b"\r\nTo: ", to, self._tag(call_id), end))
        return Refusal(hash((call_id, cseq)), data, way[1])

    def _any(self, data: bytes, flow: Flow) -> Refusal | None:
        """Likewise by a full look. None: it cannot be read, or is being served."""
        try:
            request = parse_message(data)
            if not isinstance(request, Request) or self._core.transactions.find_server(request) is not None:
                return None
            reply = Reply(request, flow)
            call_id = request.call_id.encode()
            tag = self._tag(call_id).decode().removeprefix(";tag=")
            cseq = request.index["cseq"].encode("utf-8", "surrogateescape")
            return Refusal(hash((call_id, cseq)), reply.write(503, to_tag=tag, extra=RETRY_AFTER), reply.flow)
        except ParseError:
            return None

    def _tag(self, call_id: bytes) -> bytes:
        """RFC 3261 8.2.7: the same each time that the request comes. It looks like all of our tags."""
        return b";tag=%b%015x" % (self._digit.encode(), hash(call_id) & 0xFFF_FFFF_FFFF_FFFF)

    # -- what is kept of them

    def _remember(self, key: int, now: float) -> None:
        if now >= self._turn_at or len(self._shed) >= MOST_REMEMBERED:
            self._shed_before, self._shed = self._shed, set()
            self._turn_at = now + REMEMBERED_S
        self._shed.add(key)

    def _tell_later(self, now: float) -> None:
        if not self._is_telling:
            self._is_telling = True
            self._core.timers.set(now + TOLD_EVERY_S, self._tell)

    def _tell(self, _: float) -> None:
        since = self.counts - self._told
        self._told = self.counts.copy()
        self._is_telling = False
        self._core.note("overload.shed", count=since.total(), peers=dict(since), within_s=TOLD_EVERY_S)


def _text(part: bytes) -> str:
    return part.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=1024)  # the same in all requests of a peer
def _way(hop: bytes, flow: Flow, wants_port: bool) -> tuple[bytes, Flow] | None:
    """How the topmost Via ends in the response, and where that goes (RFC 3261 18.2.2, RFC 3581). None: unreadable."""
    try:
        via = parse_via(_text(hop))
    except ParseError:
        return None
    port = flow.port if wants_port else via.port or 5060
    received = f";received={flow.host}" if wants_port or via.host != flow.host else ""
    return f"{received}\r\n".encode(), flow if flow.reliable or port == flow.port else flow._replace(port=port)
