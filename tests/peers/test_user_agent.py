"""Client requests: transport by size, branch, credentials, CANCEL, failure."""

from __future__ import annotations

import pytest

from relay.model.actions import Send
from relay.model.settings import Account
from relay.peers.auth import MOST_REALMS
from relay.peers.user_agent import MOST_NO_TCP, NO_TCP_S, ClientRequest
from relay.privacy.messages import PATH_MTU_LIMIT, OutgoingRequest
from relay.sip.digest import parse_credentials
from relay.sip.message import Flow, Request, Response, parse_message
from tests.call.support import Parts, peer

HEAD = "From: <sip:x@192.0.2.10>;tag=a\r\nTo: <sip:b@192.0.2.22>\r\nCall-ID: c\r\n"
UDP_FLOW = Flow(0, "udp", "192.0.2.22", 5060)
TCP_FLOW = Flow(1, "tcp", "192.0.2.22", 5060)


class Sent:
    """A request under way, and the callbacks received."""

    def __init__(
        self,
        method: str = "INVITE",
        *,
        size: int = 0,
        tcp_allowed: bool = True,
        account: Account | None = None,
        parts: Parts | None = None,
        now: float = 0.0,
        host: str = "192.0.2.22",
    ) -> None:
        self.parts: Parts = parts or Parts()
        self.heard: list[int] = []
        self.failures: list[str] = []
        self.credentials: list[str] = []
        rest = f"Max-Forwards: 70\r\nX-Fill: {'x' * size}\r\n"
        request = OutgoingRequest(method, "sip:b@192.0.2.22", HEAD, 1, rest)
        self.sent = ClientRequest(
            self.parts.ua,
            request,
            UDP_FLOW._replace(host=host),
            peer("carrier", host, tcp_allowed=tcp_allowed, account=account),
            lambda response, _: self.heard.append(response.status),
            lambda why, _: self.failures.append(why),
            now,
            self.renumber,
        )

    def renumber(self, credentials: str, _: float) -> int:
        self.credentials.append(credentials)
        return 1 + len(self.credentials)

    def take(self) -> list[tuple[Request, Flow]]:
        taken = []
        for action in self.parts.outbox.take_actions():
            assert isinstance(action, Send)
            message = parse_message(action.data)
            assert isinstance(message, Request)
            taken.append((message, action.flow))
        return taken

    def answer(self, request: Request, status: int, more: str = "") -> None:
        text = (
            f"SIP/2.0 {status} x\r\nVia: {request.get('via')}\r\nFrom: {request.get('from')}\r\n"
            f"To: {request.get('to')};tag=b\r\nCall-ID: c\r\nCSeq: {request.get('cseq')}\r\n{more}\r\n"
        )
        response = parse_message(text.encode())
        assert isinstance(response, Response)
        assert self.parts.transactions.receive_response(response, 1.0)


@pytest.mark.parametrize(
    ("tcp_allowed", "over", "flow"), [(True, 1, TCP_FLOW), (True, -300, UDP_FLOW), (False, 1, UDP_FLOW)]
)
def test_large_request_goes_by_tcp_if_allowed(tcp_allowed: bool, over: int, flow: Flow) -> None:
    ((request, went),) = Sent(size=PATH_MTU_LIMIT + over, tcp_allowed=tcp_allowed).take()
    assert went == flow
    assert request.via.transport.lower() == flow.transport


def test_request_by_udp_fits_the_path_mtu() -> None:
    """RFC 3261 18.1.1, at every size."""
    for size in range(900, 1300):
        request = OutgoingRequest("INVITE", "sip:b@192.0.2.22", HEAD, 1, f"X-Fill: {'x' * size}\r\n")
        data = request.render(Parts().peers.listener(UDP_FLOW), "z9hG4bK0123456789abcdef")
        assert request.size > PATH_MTU_LIMIT or len(data) <= PATH_MTU_LIMIT + 100


def test_failed_tcp_falls_back_to_udp_with_a_new_branch() -> None:
    sent = Sent(size=PATH_MTU_LIMIT)
    ((by_tcp, _),) = sent.take()
    sent.parts.transactions.transport_failed(TCP_FLOW, 0.5)
    ((by_udp, flow),) = sent.take()
    assert flow == UDP_FLOW
    assert by_udp.branch != by_tcp.branch
    sent.parts.transactions.transport_failed(UDP_FLOW, 0.6)
    assert sent.failures == ["transport"]


def test_no_fallback_after_a_provisional_response() -> None:
    sent = Sent("INFO", size=PATH_MTU_LIMIT)
    ((by_tcp, _),) = sent.take()
    sent.answer(by_tcp, 180)
    sent.parts.transactions.transport_failed(TCP_FLOW, 0.5)
    assert sent.take() == []
    assert (sent.heard, sent.failures) == ([180], ["transport"])


def test_no_fallback_after_a_cancel() -> None:
    sent = Sent(size=PATH_MTU_LIMIT)
    sent.take()
    sent.sent.cancel(0.1)
    sent.parts.transactions.transport_failed(TCP_FLOW, 0.5)
    assert sent.take() == []
    assert sent.failures == ["transport"]


def test_no_fallback_after_a_timeout() -> None:
    sent = Sent(size=PATH_MTU_LIMIT)
    sent.take()
    sent.parts.timers.run(33.0)
    assert (sent.take(), sent.failures) == ([], ["timeout"])


def flows_of_large(parts: Parts, *, at: float, host: str = "192.0.2.22") -> list[Flow]:
    return [flow for _, flow in Sent(size=PATH_MTU_LIMIT, parts=parts, now=at, host=host).take()]


def test_host_that_took_no_connection_gets_large_requests_by_udp_for_a_while() -> None:
    parts = Parts()
    assert flows_of_large(parts, at=0.0) == [TCP_FLOW]
    parts.transactions.transport_failed(TCP_FLOW, 5.0)
    parts.outbox.take_actions()
    assert flows_of_large(parts, at=5.0 + NO_TCP_S - 0.1) == [UDP_FLOW]
    assert flows_of_large(parts, at=5.0, host="192.0.2.23") == [TCP_FLOW._replace(host="192.0.2.23")]
    assert flows_of_large(parts, at=5.0 + NO_TCP_S) == [TCP_FLOW]


@pytest.mark.parametrize("method", ["INVITE", "INFO"])
def test_large_requests_go_by_tcp_again_after_an_open_connection_broke(method: str) -> None:
    parts = Parts()
    first = Sent(method, size=PATH_MTU_LIMIT, parts=parts)
    first.answer(first.take()[0][0], 486)
    second = Sent(size=PATH_MTU_LIMIT, parts=parts)
    second.take()
    parts.transactions.transport_failed(TCP_FLOW, 5.0)
    assert [flow for _, flow in second.take()] == [UDP_FLOW]
    assert flows_of_large(parts, at=5.0) == [TCP_FLOW]


def test_hosts_that_took_a_connection_are_remembered_up_to_a_limit() -> None:
    parts = Parts()
    parts.ua.takes_tcp.update([TCP_FLOW._replace(port=port) for port in range(MOST_NO_TCP)])
    sent = Sent(size=PATH_MTU_LIMIT, parts=parts)
    sent.answer(sent.take()[0][0], 100)
    assert TCP_FLOW in parts.ua.takes_tcp
    assert len(parts.ua.takes_tcp) <= MOST_NO_TCP


def test_hosts_that_took_no_connection_are_remembered_up_to_a_limit() -> None:
    """A peer's Contacts choose them."""
    parts = Parts()
    parts.ua.no_tcp.update({TCP_FLOW._replace(port=port): 300.0 for port in range(MOST_NO_TCP)})
    flows_of_large(parts, at=0.0)
    parts.transactions.transport_failed(TCP_FLOW, 1.0)
    assert TCP_FLOW in parts.ua.no_tcp
    assert len(parts.ua.no_tcp) <= MOST_NO_TCP


def test_cancel_is_repeated_while_its_transport_fails() -> None:
    """The connection is lost while the callee rings."""
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 180)
    sent.sent.cancel(1.0, "Reason: SIP;cause=200\r\n")
    times = []
    for now in range(1, 60):
        sent.parts.timers.run(float(now))
        for request, _ in sent.take():
            assert (request.method, request.branch, request.get("reason")) == ("CANCEL", invite.branch, "SIP;cause=200")
            times.append(now)
        sent.parts.transactions.transport_failed(UDP_FLOW, float(now))
    assert times == [1, 5, 9, 13, 17, 21, 25, 29]
    assert sent.failures == ["timeout"]


def test_second_cancel_has_no_effect() -> None:
    """Timer C and the origin may both cancel a re-INVITE."""
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 180)
    sent.sent.cancel(1.0)
    ((cancel, _),) = sent.take()
    sent.sent.cancel(2.0)
    assert sent.take() == []
    sent.answer(cancel, 200)
    sent.answer(invite, 487)


def test_cancel_is_not_repeated_after_the_final_response() -> None:
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 180)
    sent.sent.cancel(1.0)
    sent.parts.transactions.transport_failed(UDP_FLOW, 1.0)
    sent.answer(invite, 487)
    assert [request.method for request, _ in sent.take()] == ["CANCEL", "ACK"]
    sent.parts.timers.run(60.0)
    assert sent.take() == []


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


def test_no_cancel_after_the_final_response() -> None:
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 200)
    sent.sent.cancel(0.1)
    assert sent.take() == []


def test_cancelled_invite_without_a_response_fails() -> None:
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 180)
    sent.sent.cancel(1.0)
    sent.parts.timers.run(100.0)
    assert sent.failures == ["timeout"]
    sent.parts.timers.run(200.0)
    assert len(sent.parts.transactions) == 0


def test_refusal_is_acknowledged() -> None:
    sent = Sent()
    ((invite, _),) = sent.take()
    sent.answer(invite, 486)
    ((ack, _),) = sent.take()
    assert (ack.method, ack.branch, ack.get("to")) == ("ACK", invite.branch, "<sip:b@192.0.2.22>;tag=b")
    assert sent.heard == [486]


def test_non_invite_is_not_acknowledged() -> None:
    sent = Sent("INFO")
    ((info, _),) = sent.take()
    sent.answer(info, 486)
    assert (sent.take(), sent.heard) == ([], [486])


ACCOUNT = Account("trunk", "secret", "carrier.example")
CHALLENGE = 'WWW-Authenticate: Digest realm="carrier.example",nonce="n1",qop="auth"\r\n'


@pytest.mark.parametrize("method", ["INVITE", "INFO"])
def test_challenge_is_answered_and_not_reported(method: str) -> None:
    """RFC 3261 22.2: the same request except CSeq, branch and credentials."""
    sent = Sent(method, account=ACCOUNT)
    ((first, _),) = sent.take()
    sent.answer(first, 401, CHALLENGE)
    again, flow = sent.take()[-1]
    assert (again.method, again.cseq, flow) == (method, (2, method), UDP_FLOW)
    assert again.branch != first.branch
    assert (again.get("to"), again.get("from"), again.call_id) == (first.get("to"), first.get("from"), first.call_id)
    credentials = parse_credentials(again.get("authorization") or "")
    assert credentials is not None
    assert (credentials.username, credentials.uri) == ("trunk", again.uri)
    assert credentials.is_proved_by("secret", method)
    assert sent.credentials == [f"Authorization: {credentials}\r\n"]
    sent.answer(again, 200)
    assert sent.heard == [200]


@pytest.mark.parametrize("method", ["INVITE", "INFO"])
def test_second_challenge_is_reported_unless_stale(method: str) -> None:
    stale = CHALLENGE.replace("n1", "n2").replace("\r\n", ",stale=true\r\n")
    for seconds, expected in (([CHALLENGE], 1), ([stale], 2), ([stale, stale], 2)):
        sent = Sent(method, account=ACCOUNT)
        sent.answer(sent.take()[-1][0], 401, CHALLENGE)
        for second in seconds:
            assert sent.heard == []
            sent.answer(sent.take()[-1][0], 401, second)
        assert len(sent.credentials) == expected
        assert len(sent.heard) == (0 if seconds == [stale] else 1)


def test_proxy_and_server_are_answered_together() -> None:
    """RFC 3261 22.3: credentials for all realms that have challenged the request, and RFC 7616 3.4: a nonce that is
    used again counts its uses."""
    of_proxy = 'Proxy-Authenticate: Digest realm="proxy",nonce="n0",qop="auth"\r\n'
    sent = Sent(account=Account("trunk", "secret"))
    sent.answer(sent.take()[-1][0], 407, of_proxy)
    second = sent.take()[-1][0]
    sent.answer(second, 401, CHALLENGE)
    third = sent.take()[-1][0]
    assert (second.has("proxy-authorization"), second.has("authorization")) == (True, False)
    for header, realm, nc in (("proxy-authorization", "proxy", 2), ("authorization", "carrier.example", 1)):
        credentials = parse_credentials(third.get(header) or "")
        assert credentials is not None
        assert (credentials.realm, int(credentials.nc, 16)) == (realm, nc)
        assert credentials.is_proved_by("secret", "INVITE")
    assert sent.credentials[-1].lower() == "".join(
        [f"{name}: {third.get(name)}\r\n".lower() for name in ("proxy-authorization", "authorization")]
    )
    sent.answer(third, 407, of_proxy)
    assert sent.heard == [407]


def test_answered_realms_are_limited() -> None:
    sent = Sent(account=Account("trunk", "secret"))
    for number in range(MOST_REALMS + 1):
        assert sent.heard == []
        sent.answer(sent.take()[-1][0], 401, CHALLENGE.replace("carrier", f"r{number}"))
    assert (sent.heard, len(sent.credentials)) == ([401], MOST_REALMS)


@pytest.mark.parametrize(
    "challenge",
    [
        "",
        CHALLENGE.replace("carrier.example", "other.example"),
        CHALLENGE.replace("WWW", "Proxy"),
        CHALLENGE.replace("Digest", "Basic"),
        CHALLENGE.replace('nonce="n1"', "nonce"),
    ],
)
def test_unanswerable_challenge_is_reported(challenge: str) -> None:
    sent = Sent(account=ACCOUNT)
    ((invite, _),) = sent.take()
    sent.answer(invite, 401, challenge)
    assert sent.heard == [401]
    assert [request.method for request, _ in sent.take()] == ["ACK"]


def test_challenge_is_not_answered_after_a_cancel() -> None:
    for proceeding in (True, False):
        sent = Sent(account=ACCOUNT)
        ((invite, _),) = sent.take()
        if proceeding:
            sent.answer(invite, 100)
        sent.sent.cancel(0.1)
        sent.answer(invite, 401, CHALLENGE)
        assert sent.heard[-1:] == [401]
        assert [request.method for request, _ in sent.take()][-1:] == ["ACK"]


def test_request_made_large_by_credentials_goes_by_tcp() -> None:
    sent = Sent(size=PATH_MTU_LIMIT - 450, account=ACCOUNT)
    ((invite, first_flow),) = sent.take()
    sent.answer(invite, 401, CHALLENGE.replace("n1", "n" * 200))
    again, flow = sent.take()[-1]
    assert (first_flow, flow, again.via.transport) == (UDP_FLOW, TCP_FLOW, "TCP")
