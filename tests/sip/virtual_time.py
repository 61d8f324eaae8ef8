"""A transaction layer in virtual time: a clock that moves only on request, and lists of messages sent and received."""

from __future__ import annotations

from collections.abc import Callable

from relay.sip.message import Flow, Request, Response, parse_message
from relay.sip.timers import TimerHeap, Timings
from relay.sip.transaction import ClientTransaction, ServerTransaction, TransactionLayer

UDP = Flow(0, "udp", "127.0.0.2", 5060)
TCP = Flow(1, "tcp", "127.0.0.2", 5060, 7)
BRANCH = "z9hG4bK776asdhds"


class Data(bytes):
    """A message whose deallocation is visible: its text is in `gone` then."""

    gone: list[str]

    def __new__(cls, text: bytes) -> Data:
        data = super().__new__(cls, text)
        data.gone = []
        return data

    def __del__(self) -> None:
        self.gone.append(self.decode())


class Call:
    """Stands for the objects that a callback refers to."""

    def receive(self, _: Response, __: float) -> None: ...

    def fail(self, _: str, __: float) -> None: ...

    def ack(self, _: Response) -> bytes:
        return b"ACK"


class World:
    """One layer, its heap and the time. Sent messages go to `sent`, and to `on_send` if set."""

    def __init__(self, timings: Timings | None = None, on_send: Callable[[bytes], None] | None = None) -> None:
        self._on_send = on_send
        self.now = 0.0
        self.timers = TimerHeap()
        self.layer = TransactionLayer(timings or Timings(), self.timers, self._send)
        self.sent: list[tuple[float, bytes, Flow]] = []
        self.heard: list[tuple[float, int | str]] = []  # statuses and reasons of failure, as the user gets them

    def _send(self, data: bytes, flow: Flow) -> None:
        self.sent.append((self.now, data, flow))
        if self._on_send is not None:
            self._on_send(data)

    def advance_to(self, when: float) -> None:
        """Advance the clock, firing each timer at its due time."""
        while (due := self.timers.next()) is not None and due <= when:
            self.now = max(self.now, due)
            self.timers.run(self.now)
        self.now = when

    def run_out(self) -> None:
        while (due := self.timers.next()) is not None:
            self.advance_to(max(due, self.now))

    def times_of(self, data: bytes) -> list[float]:
        """The times at which the message was sent."""
        return [when for when, sent, _ in self.sent if sent == data]

    @property
    def is_empty(self) -> bool:
        """Whether no transaction and no timer is left."""
        return len(self.layer) == 0 and len(self.timers) == 0

    # -- client side

    def request(self, method: str, flow: Flow = UDP, branch: str = BRANCH) -> ClientTransaction:
        """Send `method` as bytes; its ACK is "ACK" and the status, as bytes."""
        return self.layer.request(
            method,
            branch,
            method.encode(),
            flow,
            lambda response, now: self.heard.append((now, response.status)),
            lambda why, now: self.heard.append((now, why)),
            self.now,
            (lambda response: b"ACK %d" % response.status) if method == "INVITE" else None,
        )

    def take_up(self, flow: Flow = UDP) -> ClientTransaction:
        """Adopt an INVITE sent by an earlier process."""
        return self.layer.take_up(
            BRANCH,
            flow,
            lambda response, now: self.heard.append((now, response.status)),
            lambda why, now: self.heard.append((now, why)),
            lambda response: b"ACK %d" % response.status,
        )

    def answer(self, status: int, method: str = "INVITE", branch: str = BRANCH) -> bool:
        """Receive a response."""
        return self.layer.receive_response(response(status, method, branch), self.now)

    # -- server side

    def serve(self, method: str, flow: Flow = UDP) -> ServerTransaction:
        return self.layer.serve(request(method), flow)

    def receive(self, method: str) -> None:
        """Receive a retransmission, or the ACK to the response."""
        message = request(method)
        transaction = self.layer.find_server(message)
        assert transaction is not None
        transaction.receive(message, self.now)


def request(
    method: str,
    branch: str | None = BRANCH,
    *,
    uri: str = "sip:70010000001@relay.test",
    sent_by: str = "phone.test:5060",
    protocol: str = "SIP/2.0/UDP",
    call_id: str = "c1@phone.test",
    cseq: int = 1,
    from_tag: str = "caller",
    to_tag: str = "",
    more: str = "",
) -> Request:
    """`branch` None: no branch. `more`: further header lines, each with CRLF."""
    text = (
        f"{method} {uri} SIP/2.0\r\n"
        f"Via: {protocol} {sent_by}{'' if branch is None else f';branch={branch}'}\r\n"
        f"From: <sip:138@phone.test>;tag={from_tag}\r\n"
        f"To: <sip:70010000001@relay.test>{f';tag={to_tag}' if to_tag else ''}\r\n"
        f"Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )
    message = parse_message(text.encode())
    assert isinstance(message, Request)
    return message


def response(
    status: int, method: str = "INVITE", branch: str = BRANCH, *, to_tag: str = "callee", more: str = ""
) -> Response:
    text = (
        f"SIP/2.0 {status} Whatever\r\n"
        f"Via: SIP/2.0/UDP relay.test:5060;branch={branch};received=127.0.0.1\r\n"
        f"From: <sip:138@relay.test>;tag=ours\r\n"
        f"To: <sip:139@phone.test>{f';tag={to_tag}' if to_tag else ''}\r\n"
        f"Call-ID: c2\r\nCSeq: 1 {method}\r\n{more}Content-Length: 0\r\n\r\n"
    )
    message = parse_message(text.encode())
    assert isinstance(message, Response)
    return message
