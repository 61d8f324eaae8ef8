"""Requests of the relay's own: transport by size, branch, CANCEL, failure."""

from __future__ import annotations

import pytest

from relay.call.actions import Send
from relay.call.compose import PATH_MTU_LIMIT, OutgoingRequest
from relay.call.core import Core
from relay.call.sending import SentRequest
from relay.sip.flow import Flow
from relay.sip.message import Request, Response, parse_message
from tests.call.support import core, peer

HEAD = "From: <sip:x@192.0.2.10>;tag=a\r\nTo: <sip:b@192.0.2.22>\r\nCall-ID: c\r\n"
UDP_FLOW = Flow(0, "udp", "192.0.2.22", 5060)
TCP_FLOW = Flow(1, "tcp", "192.0.2.22", 5060)


class Sent:
    """A request on its way, and what its sender heard."""

    def __init__(self, method: str = "INVITE", *, size: int = 0, tcp_allowed: bool = True) -> None:
        self.core: Core = core()
        self.heard: list[int] = []
        self.failures: list[str] = []
        rest = f"Max-Forwards: 70\r\nX-Fill: {'x' * size}\r\n"
        request = OutgoingRequest(method, "sip:b@192.0.2.22", HEAD, 1, rest)
        self.sent = SentRequest(
            self.core,
            request,
            UDP_FLOW,
            peer("carrier", "192.0.2.22", tcp_allowed=tcp_allowed),
            lambda response, _: self.heard.append(response.status),
            lambda why, _: self.failures.append(why),
            0.0,
        )

    def take(self) -> list[tuple[Request, Flow]]:
        taken = []
        for action in self.core.take_actions():
            assert isinstance(action, Send)
            message = parse_message(action.data)
            assert isinstance(message, Request)
            taken.append((message, action.flow))
        return taken

    def answer(self, request: Request, status: int) -> None:
        text = (
            f"SIP/2.0 {status} x\r\nVia: {request.get('via')}\r\nFrom: {request.get('from')}\r\n"
            f"To: {request.get('to')};tag=b\r\nCall-ID: c\r\nCSeq: {request.get('cseq')}\r\n\r\n"
        )
        response = parse_message(text.encode())
        assert isinstance(response, Response)
        assert self.core.transactions.receive_response(response, 1.0)


@pytest.mark.parametrize(
    ("tcp_allowed", "over", "flow"), [(True, 1, TCP_FLOW), (True, -300, UDP_FLOW), (False, 1, UDP_FLOW)]
)
def test_transport_by_size(tcp_allowed: bool, over: int, flow: Flow) -> None:
    ((request, went),) = Sent(size=PATH_MTU_LIMIT + over, tcp_allowed=tcp_allowed).take()
    assert went == flow
    assert request.via.transport.lower() == flow.transport


def test_what_is_sent_by_udp_fits_the_path() -> None:
    """RFC 3261 18.1.1, at every size."""
    for size in range(900, 1300):
        request = OutgoingRequest("INVITE", "sip:b@192.0.2.22", HEAD, 1, f"X-Fill: {'x' * size}\r\n")
        data = request.render(core().peers.listener(UDP_FLOW), "z9hG4bK0123456789abcdef")
        assert request.size > PATH_MTU_LIMIT or len(data) <= PATH_MTU_LIMIT + 100


def test_udp_after_all_with_a_branch_of_its_own() -> None:
    sent = Sent(size=PATH_MTU_LIMIT)
    ((by_tcp, _),) = sent.take()
    sent.core.transactions.transport_failed(TCP_FLOW, 0.5)
    ((by_udp, flow),) = sent.take()
    assert flow == UDP_FLOW
    assert by_udp.branch != by_tcp.branch
    sent.core.transactions.transport_failed(UDP_FLOW, 0.6)
    assert sent.failures == ["transport"]


def test_no_udp_after_the_other_side_was_heard() -> None:
    sent = Sent(size=PATH_MTU_LIMIT)
    ((by_tcp, _),) = sent.take()
    sent.answer(by_tcp, 180)
    sent.core.transactions.transport_failed(TCP_FLOW, 0.5)
    assert sent.take() == []
    assert (sent.heard, sent.failures) == ([180], ["transport"])


def test_no_udp_after_it_was_cancelled() -> None:
    sent = Sent(size=PATH_MTU_LIMIT)
    sent.take()
    sent.sent.cancel(0.1)
    sent.core.transactions.transport_failed(TCP_FLOW, 0.5)
    assert sent.take() == []
    assert sent.failures == ["transport"]


def test_no_udp_after_a_timeout() -> None:
    sent = Sent(size=PATH_MTU_LIMIT)
    sent.take()
    sent.core.timers.run(33.0)
    assert (sent.take(), sent.failures) == ([], ["timeout"])


def test_cancel_waits_for_a_provisional_response() -> None:
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.sent.cancel(0.1, "Reason: SIP;cause=200\r\n")
    assert sent.take() == []
    sent.answer(invite, 100)
    ((cancel, flow),) = sent.take()
    assert (cancel.method, cancel.branch, cancel.cseq, flow) == ("CANCEL", invite.branch, (1, "CANCEL"), UDP_FLOW)
    assert cancel.get("reason") == "SIP;cause=200"
    sent.answer(invite, 180)
    assert sent.take() == []
    sent.answer(cancel, 481)
    assert sent.heard == [100, 180]


def test_cancel_after_the_final_response_is_none() -> None:
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 200)
    sent.sent.cancel(0.1)
    assert sent.take() == []


def test_cancelled_and_never_answered_fails() -> None:
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 180)
    sent.sent.cancel(1.0)
    sent.core.timers.run(100.0)
    assert sent.failures == ["timeout"]
    sent.core.timers.run(200.0)
    assert len(sent.core.transactions) == 0


def test_refusal_is_acknowledged() -> None:
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 486)
    ((ack, _),) = sent.take()
    assert (ack.method, ack.branch, ack.get("to")) == ("ACK", invite.branch, "<sip:b@192.0.2.22>;tag=b")
    assert sent.heard == [486]


def test_other_requests_are_not_acknowledged() -> None:
    sent = Sent("INFO")
    ((info, _),) = sent.take()
    sent.answer(info, 486)
    assert (sent.take(), sent.heard) == ([], [486])
