"""The calls of a trace as scripts: who sent what, in which order; and how a message is written for the replay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from relay.errors import ParseError
from relay.replay.trace import Event, Trace
from relay.sip.headers import NameAddr
from relay.sip.message import Message, Request, Response
from relay.sip.uri import SipUri, TelUri

SHORTEST_NUMBER = 5  # characters; shorter user parts are not replaced

# Headers generated for each message, and those that only served the traced hop.
_OWN = frozenset(
    {
        "authorization",
        "call-id",
        "contact",
        "content-length",
        "content-type",
        "cseq",
        "from",
        "max-forwards",
        "path",
        "proxy-authorization",
        "rack",
        "record-route",
        "route",
        "rseq",
        "to",
        "via",
    }
)


class Wording:
    """Replaces traced numbers by those of a binding, anywhere in a side's messages."""

    def __init__(self, numbers: Iterable[tuple[str, str]]) -> None:
        """`numbers`: pairs (traced, ours), replaced longest first: one may be part of another."""
        worth = {(traced, ours) for traced, ours in numbers if len(traced) >= SHORTEST_NUMBER}
        self._numbers = sorted(worth, key=lambda pair: -len(pair[0]))

    def headers(self, message: Message, *, without: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
        """The traced headers to keep."""
        return [
            (name, self._replace(value)) for name, value in message.headers if name not in _OWN and name not in without
        ]

    def body(self, message: Message) -> tuple[list[tuple[str, str]], bytes]:
        """The Content-Type header and the body."""
        if not message.body:
            return [], b""
        body = message.body.decode("utf-8", "surrogateescape")
        content_type = [("content-type", message.get("content-type") or "application/octet-stream")]
        return content_type, self._replace(body).encode("utf-8", "surrogateescape")

    def _replace(self, text: str) -> str:
        for traced, ours in self._numbers:
            text = text.replace(traced, ours)
        return text


# -- The calls of a trace as scripts


class Side(Enum):
    CALLER = "caller"
    CALLEE = "callee"

    @property
    def other(self) -> Side:
        return Side.CALLEE if self is Side.CALLER else Side.CALLER


class ExchangeKey(NamedTuple):
    """The identity of a request with its responses, and an INVITE's ACK and CANCEL."""

    origin: Side
    cseq: int
    method: str
    branch: str


class ScriptStep(NamedTuple):
    """One message sent by a side, without retransmissions."""

    side: Side
    time_s: float
    message: Request | Response
    exchange: ExchangeKey

    @property
    def name(self) -> str:
        """The name in reports: `INVITE`, or `180 to INVITE`."""
        if isinstance(self.message, Request):
            return self.message.method
        return f"{self.message.status} to {self.exchange.method}"


@dataclass
class Attempt:
    """An INVITE outside a dialog, and all messages that follow from it."""

    number: int  # in the trace, from 1
    hops: int  # number of hops in the trace
    caller_host: str
    callee_host: str
    steps: list[ScriptStep] = field(default_factory=list)

    @property
    def invite(self) -> Request:
        """The initial INVITE."""
        message = self.steps[0].message
        assert isinstance(message, Request)
        return message

    @property
    def caller(self) -> str:
        """The user part of From; "" without one."""
        return user_of(self.invite, "from")

    @property
    def callee(self) -> str:
        """The user part of the Request-URI."""
        try:
            return _user(self.invite.request_uri)
        except ParseError:
            return ""

    @property
    def start_s(self) -> float:
        return self.steps[0].time_s


@dataclass
class TraceCalls:
    attempts: list[Attempt]
    passed_over: dict[str, int]  # requests outside calls by method, without retransmissions
    without_invite: int  # calls whose INVITE is not in the trace


def user_of(message: Message, header: str) -> str:
    """The user part of From or To; "" if missing or malformed."""
    try:
        address: NameAddr = message.from_ if header == "from" else message.to
        return _user(address.uri)
    except ParseError:
        return ""


def _user(uri: object) -> str:
    if isinstance(uri, SipUri):
        return uri.user or ""
    return uri.number if isinstance(uri, TelUri) else ""


def find_calls(trace: Trace) -> TraceCalls:
    """All attempts of a trace, in the order of their INVITEs."""
    by_call: dict[str, list[Event]] = {}
    for event in trace.events:
        by_call.setdefault(event.message.call_id, []).append(event)
    attempts: list[Attempt] = []
    passed_over: Counter[str] = Counter()
    without_invite = 0
    for events in by_call.values():
        if any(_begins_call(event) for event in events):
            attempts += _best_hop(events)
        elif any(event.message.cseq.method == "INVITE" or _is_in_dialog(event) for event in events):
            without_invite += 1
        else:
            passed_over.update(_requests(events))
    attempts.sort(key=lambda attempt: attempt.start_s)
    for number, attempt in enumerate(attempts, 1):
        attempt.number = number
    return TraceCalls(attempts, dict(passed_over), without_invite)


def _begins_call(event: Event) -> bool:
    message = event.message
    return isinstance(message, Request) and message.method == "INVITE" and not _to_tag(message)


def _is_in_dialog(event: Event) -> bool:
    message = event.message
    return isinstance(message, Request) and bool(_to_tag(message)) and message.method != "NOTIFY"


def _to_tag(message: Message) -> str | None:
    try:
        return message.to_tag
    except ParseError:
        return None


def _requests(events: list[Event]) -> list[str]:
    """The methods of distinct requests."""
    found = {
        (event.message.method, event.message.cseq.number, event.message.branch)
        for event in events
        if isinstance(event.message, Request)
    }
    return [method for method, _, _ in found]


def _best_hop(events: list[Event]) -> list[Attempt]:
    """The attempts on the hop with most messages of the call; the first of equal ones."""
    hops: dict[frozenset[object], list[Event]] = {}
    for event in events:
        hops.setdefault(_hop(event), []).append(event)
    readings = [_attempts(hop_events, len(hops)) for hop_events in hops.values()]
    return max(readings, key=lambda attempts: sum(len(attempt.steps) for attempt in attempts))


def _hop(event: Event) -> frozenset[object]:
    """A hop's key: the two hosts, whatever their ports; on a single host, the two ports."""
    if event.source.host == event.destination.host:
        return frozenset((event.source, event.destination))
    return frozenset((event.source.host, event.destination.host))


def _attempts(events: list[Event], hops: int) -> list[Attempt]:
    attempts: list[Attempt] = []
    reader: _AttemptReader | None = None
    for event in events:
        if _begins_call(event) and (reader is None or reader.is_new(event)):
            reader = _AttemptReader(event, hops)
            attempts.append(reader.attempt)
        if reader is not None:
            reader.take(event)
    return attempts


class _AttemptReader:
    """Sorts the messages of one attempt into steps."""

    def __init__(self, event: Event, hops: int) -> None:
        self.attempt = Attempt(0, hops, event.source.host, event.destination.host)
        self._caller = event.source
        self._one_host = event.source.host == event.destination.host
        self._cseq = event.message.cseq.number
        self._seen: set[object] = set()

    def is_new(self, invite: Event) -> bool:
        """Whether an INVITE begins another attempt rather than being a retransmission."""
        return self._side(invite) is not Side.CALLER or invite.message.cseq.number != self._cseq

    def take(self, event: Event) -> None:
        side, message = self._side(event), event.message
        cseq = message.cseq
        if isinstance(message, Request):
            exchange = self._exchange_of_request(side, message)
            what: object = message.method
        else:
            exchange = ExchangeKey(side.other, cseq.number, cseq.method, message.branch)
            what = message.status, message.get("rseq"), _to_tag(message) if cseq.method == "INVITE" else None
        if (side, what, exchange) not in self._seen:
            self._seen.add((side, what, exchange))
            self.attempt.steps.append(ScriptStep(side, event.time_s, message, exchange))

    def _side(self, event: Event) -> Side:
        is_caller = event.source == self._caller if self._one_host else event.source.host == self.attempt.caller_host
        return Side.CALLER if is_caller else Side.CALLEE

    def _exchange_of_request(self, side: Side, request: Request) -> ExchangeKey:
        """The exchange of a request. An ACK or CANCEL joins the INVITE of the same CSeq (RFC 3261 9.1, 13.2.2.4)."""
        if request.method in ("ACK", "CANCEL"):
            for step in self.attempt.steps:
                key = step.exchange
                if key.origin is side and key.method == "INVITE" and key.cseq == request.cseq.number:
                    return key
        return ExchangeKey(side, request.cseq.number, request.method, request.branch)
