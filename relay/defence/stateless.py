"""Stateless responses to new requests built from raw bytes, without a parse (RFC 3261 8.2.7), and OPTIONS.

Used for floods. Requests in unusual syntax are left to the full parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from relay.errors import ParseError
from relay.privacy import masking
from relay.sip.framing import read_copied
from relay.sip.headers import parse_via

if TYPE_CHECKING:
    from relay.defence.limits import PeerShares
    from relay.model.actions import Outbox
    from relay.model.settings import Peer, Settings
    from relay.privacy.messages import Reply
    from relay.sip.message import Flow

_BRANCH: Final = b";branch="
_match_branch: Final = re.compile(rb'z9hG4bK[^,;"\s]*+').fullmatch
# The rest of a Via that is alone in its line, with a blank for the branch. Parameters that begin with "r" are left to
# the parser: "received" must not come from the sender (RFC 3261 18.1.2), nor rport with a value (RFC 3581 3).
_match_way: Final = re.compile(
    rb'(SIP/2\.0/[A-Z]++ [^;,"\s]++)(;rport)?+ (;rport)?+((?:;[^rR;,"\s][^;,"\s]*+)*+)'
).fullmatch


class StatelessServer:
    """Final responses of one engine to requests outside calls, without a transaction (RFC 3261 8.2.7)."""

    __slots__ = ("_name_on", "_outbox", "_shares", "tag")

    def __init__(self, outbox: Outbox, shares: PeerShares, name_on: Callable[[Flow], str], tag: str) -> None:
        """`tag`: To tag of all of them. They open no dialog, and a repeated request must get the same one."""
        self._outbox = outbox
        self._shares = shares
        self._name_on = name_on
        self.tag = tag

    def answer(self, reply: Reply, status: int, now: float, extra: str = "", tag: str = "") -> None:
        """Send a response, and count the request as stray. `extra`: further header lines; `tag`: another To tag."""
        self._shares.count_stray(self._name_on(reply.flow), now)
        self._outbox.send(reply.write(status, to_tag=tag or self.tag, extra=extra), reply.flow)


class StatelessResponse:
    """A stateless response, written from raw bytes."""

    __slots__ = ("data", "flow", "key")

    def __init__(self, key: int, data: bytes, flow: Flow) -> None:
        self.key = key  # the same for each retransmission of the request
        self.data = data
        self.flow = flow


class RequestParts:
    """The parts of a request that a response copies, and the response's destination."""

    __slots__ = ("_branch", "_call_id", "_cseq", "_from", "_others", "_to", "_way")

    def __init__(
        self, way: _Way, branch: bytes, others: bytes, from_: bytes, to: bytes, call_id: bytes, cseq: bytes
    ) -> None:
        self._way = way
        self._branch = branch
        self._others = others
        self._from = from_
        self._to = to
        self._call_id = call_id
        self._cseq = cseq

    @property
    def hop(self) -> str:
        """The topmost Via up to its parameters."""
        return self._way.hop

    @property
    def branch(self) -> str:
        return _text(self._branch)

    def is_of(self, method: bytes) -> bool:
        """Whether the CSeq has that method."""
        return self._cseq.endswith(b" " + method)

    def answer(self, status_line: bytes, end_of_to: bytes, rest: bytes) -> StatelessResponse:
        """The response. `end_of_to`: tag and line end; `rest`: everything behind the CSeq value."""
        way = self._way
        data = b"%b%b%b%b%bFrom: %b\r\nTo: %b%bCall-ID: %b\r\nCSeq: %b%b" % (
            status_line, way.start, self._branch, way.end, self._others, self._from, self._to, end_of_to, self._call_id,
            self._cseq, rest,
        )  # fmt: skip
        return StatelessResponse(hash((self._call_id, self._cseq)), data, way.flow)


class Prescan:
    """Prescan of requests. It caches the last Via, since a peer sends many with the same."""

    def __init__(self) -> None:
        self._way: _Way | None = None

    def read(self, data: bytes, flow: Flow) -> RequestParts | None:
        """Prescan a request without a To tag. None: it has one, or unusual syntax."""
        lines = read_copied(data)
        if lines is None:
            return None
        via, others, from_, to, call_id, cseq = lines
        way = self._way_of(via, flow)
        if way is None:
            return None
        branch = via[len(way.before) : len(via) - len(way.behind)]
        return RequestParts(way, branch, others, from_, to, call_id, cseq) if _match_branch(branch) else None

    def _way_of(self, via: bytes, flow: Flow) -> _Way | None:
        """None for unusual syntax."""
        way = self._way
        if way is None or way.came_by != flow or not way.is_around(via):
            before, equals, behind = via.partition(_BRANCH)
            way = _way(before, b"".join(behind.partition(b";")[1:]), flow) if equals else None
            self._way = way
        return way


def _text(part: bytes) -> str:
    return part.decode("utf-8", "surrogateescape")


class _Way:
    """A Via except its branch, as a response copies it, and the response's destination (RFC 3261 18.2.2, RFC 3581)."""

    __slots__ = ("before", "behind", "came_by", "end", "flow", "hop", "start")

    def __init__(
        self, came_by: Flow, before: bytes, behind: bytes, hop: str, start: bytes, end: bytes, flow: Flow
    ) -> None:
        self.came_by = came_by
        self.before = before  # as received, up to "branch="
        self.behind = behind
        self.hop = hop
        self.start = start  # as sent, up to "branch="
        self.end = end  # with line end
        self.flow = flow

    def is_around(self, via: bytes) -> bool:
        """Whether `via` is the same except for its branch."""
        is_long = len(via) >= len(self.before) + len(self.behind)
        return is_long and via.startswith(self.before) and via.endswith(self.behind)


@lru_cache(maxsize=1024)  # the same for all requests of a peer
def _way(before: bytes, behind: bytes, flow: Flow) -> _Way | None:
    """The Via with `before` and `behind` around its branch. None for unusual syntax."""
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
        start=b"Via: " + hop + (rport if first else b"") + _BRANCH,
        end=(rport if later else b"") + others + received + b"\r\n",
        flow=flow if flow.reliable or port == flow.port else flow._replace(port=port),
    )


# -- Fast path for OPTIONS of peers outside dialogs (RFC 3261 11)

MOST_BYTES: Final = 4096  # longer ones are parsed
DRAINING: Final = "Retry-After: 30\r\n"

_OK: Final = b"SIP/2.0 200 OK\r\n"
_UNAVAILABLE: Final = b"SIP/2.0 503 Service Unavailable\r\n"


class Options:
    """The fast path of one engine. `draining`: answer 503."""

    def __init__(
        self,
        settings: Settings,
        outbox: Outbox,
        shares: PeerShares,
        sending: Callable[[Flow], Peer | None],
        tag: str,
    ) -> None:
        """`sending`: of `Peers`; `tag`: of the `StatelessServer`."""
        self.draining = False
        self._outbox = outbox
        self._shares = shares
        self._sending = sending
        self._prescan = Prescan()
        self._end_of_to = f";tag={tag}\r\n".encode()
        self.apply_config(settings)

    def apply_config(self, settings: Settings) -> None:
        """Apply the capabilities of a new configuration."""
        self.capabilities = masking.CAPABILITIES_WITH_MESSAGE if settings.sms else masking.CAPABILITIES
        self._rest = _end(self.capabilities)

    def take(self, data: bytes, flow: Flow, now: float, *, is_behind: bool) -> bool:
        """Answer the OPTIONS, or drop it if we are behind and its peer is over its limit.

        False: to be parsed, since there is no load, or it is not a plain OPTIONS of a known peer.
        """
        outbox, shares = self._outbox, self._shares
        peer = self._sending(flow)
        if peer is None or not (is_behind or shares.is_flooding(peer.name, now)) or not _is_usual(data):
            return False
        glimpse = self._prescan.read(data, flow)
        if glimpse is None or not glimpse.is_of(b"OPTIONS"):
            return False
        if not shares.count_stray(peer.name, now) and is_behind:
            return True
        if self.draining:
            answer = glimpse.answer(_UNAVAILABLE, self._end_of_to, _END_OF_DRAINING)
        else:
            answer = glimpse.answer(_OK, self._end_of_to, self._rest)
        if is_behind:
            outbox.send_in_any_order(answer.data, answer.flow)
        else:
            outbox.send(answer.data, answer.flow)
        return True


def _is_usual(data: bytes) -> bool:
    """Whether it can be answered without a parse: short, and without Require, which may need 420 (RFC 3261 8.2.2.3)."""
    start = data.find(b"\r\n")
    return len(data) <= MOST_BYTES and data.endswith(b" SIP/2.0", 0, start) and data.lower().find(b"require") < 0


def _end(extra: str) -> bytes:
    return f"\r\n{extra}Content-Length: 0\r\n\r\n".encode()


_END_OF_DRAINING: Final = _end(DRAINING)
