"""The relay between two sides, in virtual time: a test reads like the ladder diagram that an RFC would draw.

`ladder.caller` and `ladder.callee` are two user agents that do only what the test says. What the relay sends to a side
waits in its inbox until the test has it `get` it; `ladder.run(seconds)` lets time pass. When the test is over, `settle`
checks what must hold of every call: nothing left behind, one record, and no byte of one side in what the other got.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

from relay.call.actions import Commit, LookUp, Note, Send
from relay.call.engine import Engine
from relay.call.record import CallRecord
from relay.call.routing import Refusal, Route
from relay.call.settings import Listener, Peer, PeerRoute, Settings
from relay.sip.flow import Flow
from relay.sip.message import Request, Response, parse_message

A, B = "8613800000001", "8613900000002"
X, Y = "700100000010001", "700100000010002"
RELAY, CALLER_HOST, CALLEE_HOST = "127.0.0.10", "127.0.0.11", "127.0.0.22"
NO_BINDING = Refusal("no_binding", 403, 21)

OFFER = (
    b"v=0\r\no=alice 1 1 IN IP4 127.0.0.11\r\ns=call\r\nc=IN IP4 127.0.0.31\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 8 0\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n"
)
ANSWER = (
    b"v=0\r\no=bob 2 2 IN IP4 127.0.0.22\r\ns=call\r\nc=IN IP4 127.0.0.32\r\nt=0 0\r\n"
    b"m=audio 5000 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\na=sendrecv\r\n"
)
HOLD = OFFER.replace(b"sendrecv", b"sendonly")
HELD = ANSWER.replace(b"sendrecv", b"recvonly")


def settings_for(**changes: object) -> Settings:
    """One UDP and one TCP listener; the caller's side and the callee's are a peer each, a second callee peer waits."""
    values: dict[str, object] = {
        "listeners": (
            Listener("udp", RELAY, 5060, RELAY),
            Listener("tcp", RELAY, 5060, RELAY),
        ),
        "peers": (
            _peer("pbx", CALLER_HOST),
            _peer("carrier", CALLEE_HOST),
            _peer("second", "127.0.0.23"),
        ),
        "routes": (PeerRoute("", ("carrier",)), PeerRoute("86138", ("pbx",))),
        "prefixes": (X[:11],),
    }
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


def _peer(name: str, host: str, **changes: object) -> Peer:
    values: dict[str, object] = {
        "name": name,
        "host": host,
        "port": 5060,
        "transport": "udp",
        "tcp_allowed": False,
        "sources": (ip_network(f"{host}/32"),),
        **changes,
    }
    return Peer(**values)  # type: ignore[arg-type]


AXB = {
    (X, A): Route("b1", "AXB", "default", "order-1", B, X),
    (X, B): Route("b1", "AXB", "default", "order-1", A, X),
}


class Ladder:
    """The engine and what stands around it. `hold_commits` and `hold_look_ups` keep the store from answering."""

    def __init__(self, routes: dict[tuple[str, str], Route | Refusal] | None = None, **settings: object) -> None:
        self.now = 1000.0
        self.settings = settings_for(**settings)
        self.routes = dict(AXB if routes is None else routes)
        self._tokens = self._make_tokens()
        self.records: dict[str, tuple[CallRecord, bytes | None]] = {}
        self.notes: list[Note] = []
        self.hold_commits = self.hold_look_ups = False
        self._held: list[Commit | LookUp] = []
        self.lose_next = 0  # how many of the relay's next datagrams are lost
        self.caller = Side(self, CALLER_HOST, "alice")
        self.callee = Side(self, CALLEE_HOST, "bob")
        self.sides = {CALLER_HOST: self.caller, CALLEE_HOST: self.callee}
        self.engine = self._start()

    @staticmethod
    def _make_tokens() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield f"{number:06x}" + "fedcba9876"

    def _start(self) -> Engine:
        return Engine(self.settings, lambda: next(self._tokens), clock_offset_s=1_800_000_000.0)

    def side(self, host: str, name: str) -> Side:
        """A further user agent, at an address of its own."""
        side = self.sides[host] = Side(self, host, name)
        return side

    # -- events

    def deliver(self, data: bytes, flow: Flow) -> None:
        self.engine.receive(data, flow, self.now)
        self._perform()

    def run(self, seconds: float) -> None:
        """Lets time pass; timers fire when they are due."""
        end = self.now + seconds
        while (due := self.engine.next_timeout()) is not None and due <= end:
            self.now = max(self.now, due)
            self.engine.expire(self.now)
            self._perform()
        self.now = end

    def transport_fails(self, flow: Flow) -> None:
        self.engine.transport_failed(flow, self.now)
        self._perform()

    def release(self) -> None:
        """The store answers what it was asked meanwhile."""
        self.hold_commits = self.hold_look_ups = False
        held, self._held = self._held, []
        for action in held:
            self._answer_store(action)
        self._perform()

    def restart(self) -> None:
        """`kill -9` and a new start: only what was committed is left."""
        self._held.clear()
        self.engine = self._start()
        for record, dialogs in list(self.records.values()):
            if record.ended_at is None:
                assert dialogs is not None
                self.engine.restore(record, dialogs, self.now)
        self._perform()

    def _perform(self) -> None:
        while actions := self.engine.take_actions():
            for action in actions:
                match action:
                    case Send(data, flow):
                        self._send(data, flow)
                    case LookUp() | Commit():
                        held = self.hold_commits if isinstance(action, Commit) else self.hold_look_ups
                        if held:
                            self._held.append(action)
                        else:
                            self._answer_store(action)
                    case Note():
                        self.notes.append(action)

    def _send(self, data: bytes, flow: Flow) -> None:
        if self.lose_next:
            self.lose_next -= 1
            return
        if flow.host in self.sides:
            self.sides[flow.host].inbox.append((data, flow))

    def _answer_store(self, action: Commit | LookUp) -> None:
        if isinstance(action, LookUp):
            answer = self.routes.get((action.number, action.caller), NO_BINDING)
            self.engine.routed(action.token, answer, self.now)
            return
        known = self.records.get(action.record.call_id)
        assert known is None or known[0].ended_at is None, "a record was changed after it was closed"
        self.records[action.record.call_id] = (action.record, action.dialogs)
        if action.token:
            self.engine.committed(action.token, self.now)

    # -- what must hold

    @property
    def record(self) -> CallRecord:
        """The only record there is."""
        assert len(self.records) == 1, f"{len(self.records)} records"
        return next(iter(self.records.values()))[0]

    def settle(self) -> None:
        """All timers run out: nothing is left, every record is closed, and nothing crossed."""
        self.run(200.0)
        left = {name: count for name, count in self.engine.statistics().items() if name in LEFT_BEHIND and count}
        assert not left, f"left behind: {left}"
        assert all(record.ended_at is not None for record, _ in self.records.values()), "a record is open"
        self.check_privacy()

    def check_privacy(self) -> None:
        for side, foreign in ((self.caller, (B[2:], "127.0.0.22", "bob")), (self.callee, (A[2:], "127.0.0.11", "alice"))):
            for data in side.received:
                for mark in foreign:
                    assert mark.encode() not in data, f"{mark} reached {side.name}:\n{data.decode()}"


LEFT_BEHIND = (
    "calls_up",
    "calls_setting_up",
    "legs",
    "transactions",
    "timers",
    "pending_lookups",
    "pending_commits",
)


class Side:
    """A user agent that does what it is told. Its last INVITE, dialog and CSeq are remembered for the next step."""

    def __init__(self, ladder: Ladder, host: str, name: str) -> None:
        self.ladder = ladder
        self.host = host
        self.name = name
        self.inbox: list[tuple[bytes, Flow]] = []
        self.received: list[bytes] = []
        self.flow = Flow(0, "udp", host, 5060)
        self.call_id = f"{name}-call"
        self.tag = f"{name}-tag"
        self.cseq = 0
        self.remote_tag = ""
        self.from_uri = self.to_uri = self.target = ""
        self.via_count = 0
        self.invite: Request | None = None  # the INVITE last received
        self.sent: dict[str, bytes] = {}  # the last request sent, by method
        self.contact = f"<sip:{name}@{host}:5060>"

    # -- what the relay sent

    def get(self, what: str | int) -> Request | Response:
        """The next message in the inbox, which must be that method or status."""
        assert self.inbox, f"{self.name} got nothing, not {what}"
        data, _ = self.inbox.pop(0)
        self.received.append(data)
        message = parse_message(data)
        kind = message.method if isinstance(message, Request) else message.status
        assert kind == what, f"{self.name} got {kind}, not {what}:\n{data.decode()}"
        if isinstance(message, Request):
            if message.method == "INVITE" and message.to_tag is None:
                self._be_called(message)
        elif message.cseq.method == "INVITE" and message.status > 100 and message.to_tag:
            self._learn(message)
        return message

    def get_request(self, method: str) -> Request:
        message = self.get(method)
        assert isinstance(message, Request)
        return message

    def get_response(self, status: int) -> Response:
        message = self.get(status)
        assert isinstance(message, Response)
        return message

    def gets_nothing(self) -> None:
        assert not self.inbox, f"{self.name} got more:\n" + "\n".join(data.decode() for data, _ in self.inbox)

    def _be_called(self, invite: Request) -> None:
        self.invite = invite
        self.call_id = invite.call_id
        self.remote_tag = invite.from_tag or ""
        self.from_uri, self.to_uri = invite.to.uri_text, invite.from_.uri_text
        assert invite.contact is not None
        self.target = invite.contact.uri_text

    def _learn(self, response: Response) -> None:
        self.remote_tag = response.to_tag or ""
        if response.contact is not None:
            self.target = response.contact.uri_text

    # -- requests

    def invites(self, number: str, *, caller: str = "13800000001", body: bytes = OFFER, headers: str = "") -> None:
        self.from_uri, self.to_uri = f"sip:{caller}@{self.host}", f"sip:{number}@{RELAY}"
        self.target = f"sip:{number}@{RELAY}:5060"
        self.remote_tag = ""
        self.sends("INVITE", body=body, headers=f"Contact: {self.contact}\r\n{headers}")

    def sends(
        self, method: str, *, body: bytes = b"", headers: str = "", cseq: int | None = None, content_type: str = ""
    ) -> None:
        """A request in the dialog (or that opens it). ACK and CANCEL take the CSeq of the last INVITE."""
        if cseq is None:
            if method not in ("ACK", "CANCEL"):
                self.cseq += 1
            cseq = self.cseq
        if method != "CANCEL":
            self.via_count += 1
        to_tag = f";tag={self.remote_tag}" if self.remote_tag and method != "CANCEL" else ""
        if body:
            headers += f"Content-Type: {content_type or 'application/sdp'}\r\n"
        text = (
            f"{method} {self.target} SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {self.host}:5060;branch=z9hG4bK{self.name}{self.via_count};rport\r\n"
            f"From: <{self.from_uri}>;tag={self.tag}\r\nTo: <{self.to_uri}>{to_tag}\r\n"
            f"Call-ID: {self.call_id}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n"
            f"{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        self.sent[method] = text.encode() + body
        self.ladder.deliver(self.sent[method], self.flow)

    def acks(self, body: bytes = b"", cseq: int | None = None) -> None:
        """The ACK to a 2xx."""
        self.sends("ACK", body=body, cseq=cseq)

    def cancels(self, headers: str = "") -> None:
        """CANCEL of the INVITE just sent."""
        target, self.target = self.target, self.sent["INVITE"].split(b" ")[1].decode()
        self.sends("CANCEL", headers=headers)
        self.target = target

    def sends_again(self, method: str) -> None:
        """A retransmission of the last such request."""
        self.ladder.deliver(self.sent[method], self.flow)

    # -- responses

    def answers(
        self,
        status: int,
        request: Request | None = None,
        *,
        body: bytes = b"",
        headers: str = "",
        tag: str | None = None,
        contact: str | None = None,
        reason: str = "whatever",
    ) -> None:
        """A response to `request`, else to the INVITE last received."""
        request = request or self.invite
        assert request is not None
        tag = self.tag if tag is None else tag
        to_tag = f";tag={tag}" if request.to_tag is None and status > 100 and tag else ""
        if request.method in ("INVITE", "UPDATE") and 100 < status < 300:
            headers += f"Contact: {contact or self.contact}\r\n"
        if body:
            headers += "Content-Type: application/sdp\r\n"
        vias = "".join(f"Via: {value}\r\n" for value in request.get_all("via"))
        text = (
            f"SIP/2.0 {status} {reason}\r\n{vias}From: {request.get('from')}\r\nTo: {request.get('to')}{to_tag}\r\n"
            f"Call-ID: {request.call_id}\r\nCSeq: {request.get('cseq')}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        )
        self.ladder.deliver(text.encode() + body, self.flow)

    def expects(self, method: str, status: int = 200, **answer: object) -> Request:
        """Gets the request and answers it."""
        request = self.get_request(method)
        self.answers(status, request, **answer)  # type: ignore[arg-type]
        return request


def connect(ladder: Ladder, **invite: object) -> None:
    """A call that is up: a calls X, b answers."""
    ladder.caller.invites(X, **invite)  # type: ignore[arg-type]
    ladder.caller.get(100)
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    ladder.caller.get(180)
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.caller.get(200)
    ladder.caller.acks()


Scene = Callable[[Ladder], None]
