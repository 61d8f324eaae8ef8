"""New calls and text messages that are turned away while the relay is behind, before any work is done on them.

They get a 503 made of their own lines, of which nothing is kept but that it was given (RFC 3261 8.2.7): no transaction,
no look-up, no record. They are counted by peer, and the log says how many there were. DESIGN 4.3 wants a record of
every attempt, but a record is most of what a refusal costs: with it the relay would do less under overload instead of
going on at its rate.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from relay.call.compose import Reply, encode
from relay.errors import ParseError
from relay.sip.glance import copied, is_untagged
from relay.sip.headers import parse_via
from relay.sip.message import Request, parse_message

if TYPE_CHECKING:
    from relay.call.core import Core
    from relay.call.registrar import Registrar
    from relay.call.settings import Peer
    from relay.sip.flow import Flow

# Short: RFC 3261 21.5.4 has a proxy send us nothing at all meanwhile, and we are behind by tenths of a second.
RETRY_AFTER: Final = "Retry-After: 1\r\n"
BURST_LAG_S: Final = 0.4  # that what comes in a burst may wait: RFC 3261 17.1.1.2 has it sent again after 0.5
TOLD_EVERY_S: Final = 5.0
MOST_REMEMBERED: Final = 20_000  # twice as many at the most; that they stay in the cache
REMEMBERED_S: Final = 16.0  # at least, where there are not too many

_NEW: Final = (b"INVITE ", b"MESSAGE ", b"CANCEL ")
_START: Final = b"SIP/2.0 503 Service Unavailable\r\nVia: "
_BRANCH: Final = b";branch="
_match_branch: Final = re.compile(rb'z9hG4bK[^,;"\s]*+').fullmatch
# The rest of a Via that is alone in its line, with a blank for the branch. A parameter that begins with an "r" may be
# "received", which is none of the sender's to say (RFC 3261 18.1.2), or rport with a value (RFC 3581 3).
_match_way: Final = re.compile(
    rb'(SIP/2\.0/[A-Z]++ [^;,"\s]++)(;rport)?+ (;rport)?+((?:;[^rR;,"\s][^;,"\s]*+)*+)'
).fullmatch
_END: Final = f"\r\n{RETRY_AFTER}Content-Length: 0\r\n\r\n".encode()


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
        self.counts: dict[str, int] = {}  # by the peer's name
        self._core = core
        self._registrar = registrar
        # One for all 503s: they make no dialog, and the same request must have the same each time (RFC 3261 8.2.7).
        self._tag = core.token()
        self._end_of_to = f";tag={self._tag}\r\n".encode()
        self._shed: set[int] = set()
        self._shed_before: set[int] = set()
        self._turn_at = 0.0
        self._way: _Way | None = None  # of the last one: a peer sends many
        self._shed_late_at = -math.inf  # when one was shed that had waited
        self._told: dict[str, int] = {}  # what of `counts` the log has
        self._is_telling = False

    def sort(self, data: bytes, flow: Flow, wait_s: float, now: float, *, lasts: bool) -> Rank | None:
        """Where a message is to wait; None: it need not, since it is shed at once, or the ACK to what was shed.

        `wait_s`: how long it will wait if it is new. `lasts`: whether that is more than a burst.
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
            if not (is_late or self._has_shed(refusal)):
                return Rank.NEW
            self._refuse(refusal, peer, now)
            return None
        if not is_untagged(data) or (peer is not None and not data.startswith(_NEW)):
            return Rank.INSIDE
        if may_shed and self._sheds(data, flow, peer, now, is_late=is_late):
            return None
        return Rank.STRANGER if peer is None else Rank.NEW

    def takes(self, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool:
        """Whether one that is not `Rank.INSIDE` is shed, now that it has waited: too long, or it was shed meanwhile."""
        is_late = self._is_late(waited_s, lasts=lasts)
        if not is_late and now - waited_s > self._shed_late_at:  # what was shed before it came, `sort` has seen to
            return False
        if not self._sheds(data, flow, self._peer_at(flow), now, is_late=is_late):
            return False
        self._shed_late_at = now
        return True

    def _is_late(self, waited_s: float, *, lasts: bool) -> bool:
        limit_ms = self._core.settings.limits.shed_lag_ms
        return waited_s * 1000 > limit_ms > 0 and (lasts or waited_s > BURST_LAG_S)

    def _peer_at(self, flow: Flow) -> Peer | None:
        return self._core.peers.by_source(flow.host) or self._registrar.peer_at(flow)

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
        if refusal is None or not (is_late or self._has_shed(refusal)):
            return False
        self._refuse(refusal, peer, now)
        return True

    def _has_shed(self, refusal: Refusal) -> bool:
        return refusal.key in self._shed or refusal.key in self._shed_before

    def _refuse(self, refusal: Refusal, peer: Peer, now: float) -> None:
        self._remember(refusal.key, now)
        self.counts[peer.name] = self.counts.get(peer.name, 0) + 1
        self._tell_later(now)
        self._core.send_in_any_order(refusal.data, refusal.flow)

    def _usual(self, data: bytes, flow: Flow) -> Refusal | None:
        """Of a new call or text message, out of the bytes alone. None: it is written unusually, or being served."""
        method = "INVITE" if data.startswith(b"INVITE ") else "MESSAGE"
        lines = copied(data) if method == "INVITE" or data.startswith(b"MESSAGE ") else None
        if lines is None:
            return None
        via, others, from_, to, call_id, cseq = lines
        way = self._way_of(via, flow)
        if way is None:
            return None
        branch = via[len(way.before) : len(via) - len(way.behind)]
        if not _match_branch(branch) or self._core.transactions.is_serving(method, way.hop, _text(branch)):
            return None
        data = b"%b%b%b%bFrom: %b\r\nTo: %b%bCall-ID: %b\r\nCSeq: %b%b" % (
            way.start, branch, way.end, others, from_, to, self._end_of_to, call_id, cseq, _END,
        )  # fmt: skip
        return Refusal(hash((call_id, cseq)), data, way.flow)

    def _way_of(self, via: bytes, flow: Flow) -> _Way | None:
        """None: it is written unusually."""
        way = self._way
        if way is None or way.came_by != flow or not way.is_around(via):
            before, equals, behind = via.partition(_BRANCH)
            way = _way(before, b"".join(behind.partition(b";")[1:]), flow) if equals else None
            self._way = way
        return way

    def _any(self, data: bytes, flow: Flow) -> Refusal | None:
        """Likewise by a full look. None: it cannot be read, or is being served."""
        try:
            request = parse_message(data)
            if not isinstance(request, Request) or self._core.transactions.find_server(request) is not None:
                return None
            reply = Reply(request, flow)
            key = hash((encode(request.call_id), encode(request.demand("cseq"))))
            return Refusal(key, reply.write(503, to_tag=self._tag, extra=RETRY_AFTER), reply.flow)
        except ParseError:
            return None

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
        since = Counter(self.counts) - Counter(self._told)
        self._told = dict(self.counts)
        self._is_telling = False
        self._core.note("overload.shed", count=since.total(), peers=dict(since), within_s=TOLD_EVERY_S)


def _text(part: bytes) -> str:
    return part.decode("utf-8", "surrogateescape")


class _Way:
    """A Via around its branch, as a response copies it, and where that goes (RFC 3261 18.2.2, RFC 3581)."""

    __slots__ = ("before", "behind", "came_by", "end", "flow", "hop", "start")

    def __init__(
        self, came_by: Flow, before: bytes, behind: bytes, hop: str, start: bytes, end: bytes, flow: Flow
    ) -> None:
        self.came_by = came_by
        self.before = before  # as it came, to "branch="
        self.behind = behind
        self.hop = hop
        self.start = start  # as it goes, from the status line to "branch="
        self.end = end  # with the line's end
        self.flow = flow

    def is_around(self, via: bytes) -> bool:
        """Whether that has the same around its branch."""
        is_long = len(via) >= len(self.before) + len(self.behind)
        return is_long and via.startswith(self.before) and via.endswith(self.behind)


@lru_cache(maxsize=1024)  # the same for all requests of a peer
def _way(before: bytes, behind: bytes, flow: Flow) -> _Way | None:
    """`before` and `behind`: the parameter branch. None: it is written unusually."""
    found = _match_way(before + b" " + behind)
    if found is None:
        return None
    hop, first, later, others = found.groups(b"")
    try:
        via = parse_via(_text(hop))
    except ParseError:
        return None
    wants_port = bool(first or later)
    port = flow.port if wants_port else via.port or 5060
    rport = b";rport=%d" % flow.port
    received = b";received=" + flow.host.encode() if wants_port or via.host != flow.host else b""
    return _Way(
        came_by=flow,
        before=before + _BRANCH,
        behind=behind,
        hop=_text(hop),
        start=_START + hop + (rport if first else b"") + _BRANCH,
        end=(rport if later else b"") + others + received + b"\r\n",
        flow=flow if flow.reliable or port == flow.port else flow._replace(port=port),
    )
