from __future__ import annotations

import pytest

from relay.replay.comparison import DesignedRefusal, Secrets, ShownResponse, refusal_of, shown_of
from relay.sip.message import Request, Response
from tests.replay.messages import SDP, event


def request(line: str, extra: str = "") -> Request:
    message = event(line, extra=extra).message
    assert isinstance(message, Request)
    return message


def response(line: str, extra: str = "") -> Response:
    message = event(line, extra=extra).message
    assert isinstance(message, Response)
    return message


@pytest.mark.parametrize("line", ["> INVITE 1 sdp", "> INVITE 1", "> OPTIONS 1", "> PRACK 1", "> INFO 1"])
def test_relayed_requests_are_not_refused(line: str) -> None:
    assert refusal_of(request(line)) is None


def test_methods_that_are_not_relayed_are_refused() -> None:
    assert refusal_of(request("> REFER 1")) == DesignedRefusal((405, 501), "REFER is not relayed")


def test_unknown_options_are_refused() -> None:
    found = refusal_of(request("> INVITE 1 sdp", "Require: 100rel, replaces"))
    assert found == DesignedRefusal((420,), "option replaces is not supported")


def test_disallowed_bodies_are_refused() -> None:
    info = Request.of("INFO", "sip:b@c", [("content-type", "application/isup")], b"\x01")
    assert refusal_of(info) == DesignedRefusal((415,), "its body is not allowed")


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("< 180 1 INVITE", ShownResponse(180)),
        ("< 181 1 INVITE", ShownResponse(182, "181 is shown as 182")),
        ("< 199 1 INVITE", ShownResponse(None, "199 is shown as nothing")),
        ("< 200 1 INVITE sdp", ShownResponse(200)),
        ("< 302 1 INVITE", ShownResponse(480, "302 is shown as 480")),
        ("< 407 1 INVITE", ShownResponse(480, "407 is shown as 480")),
        ("< 486 1 INVITE", ShownResponse(486)),
    ],
)
def test_responses_to_the_initial_invite(line: str, shown: ShownResponse) -> None:
    assert shown_of(response(line), request("> INVITE 1 sdp"), rang=False, cancelled=False) == shown


def test_420_is_shown_to_a_caller_who_requires_the_extension() -> None:
    invite, refusal = request("> INVITE 1 sdp", "Require: 100rel"), response("< 420 1 INVITE", "Unsupported: 100rel")
    assert shown_of(refusal, invite, rang=False, cancelled=False) == ShownResponse(420)


def test_responses_after_cancel() -> None:
    invite, late = request("> INVITE 1 sdp"), response("< 408 1 INVITE")
    assert shown_of(late, invite, rang=True, cancelled=True) == ShownResponse(487, "408 after CANCEL is shown as 487")
    assert shown_of(response("< 487 1 INVITE"), invite, rang=True, cancelled=True) == ShownResponse(487)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("< 488 2 INVITE", ShownResponse(488)),
        ("< 202 2 INFO", ShownResponse(200, "202 is shown as 200")),
        ("< 503 2 INFO", ShownResponse(500, "503 is shown as 500")),
    ],
)
def test_in_dialog_responses(line: str, shown: ShownResponse) -> None:
    assert shown_of(response(line), None, rang=False, cancelled=False) == shown


# -- Leaks


@pytest.fixture
def secrets() -> Secrets:
    secrets = Secrets()
    secrets.add("the caller's number", "13800000001")
    secrets.add_host("the caller's address", "127.0.0.1")
    secrets.add_host("the caller's other address", "fd00::1")
    headers = [("user-agent", "Courier/3.1"), ("subject", "short"), ("supported", "100rel, timer")]
    secrets.add_message(Request.of("INVITE", "sip:x@y", headers, SDP.format(who="caller").encode()))
    return secrets


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"INVITE sip:b@c SIP/2.0\r\nSubject: tel:+8613800000001\r\n\r\n", "the caller's number"),
        (b"INVITE sip:b@c SIP/2.0\r\n\r\nv=0\r\ns=13800000001\r\n", "the caller's number"),
        (b"INVITE sip:b@c SIP/2.0\r\nContact: <sip:x@127.0.0.1:5060>\r\n\r\n", "the caller's address"),
        (b"INVITE sip:b@c SIP/2.0\r\nContact: <sip:127.0.0.1>\r\n\r\n", "the caller's address"),
        (b"INVITE sip:b@c SIP/2.0\r\nContact: <sip:x@[fd00::1]:5060>\r\n\r\n", "the caller's other address"),
        (b"INVITE sip:b@c SIP/2.0\r\nServer: Courier/3.1\r\n\r\n", "the value of user-agent"),
        (
            b"INVITE sip:b@c SIP/2.0\r\n\r\nv=0\r\no=device-caller 1 1 IN IP4 10.9.9.9\r\n",
            "a line of SDP that names its sender",
        ),
    ],
)
def test_leaks_are_found(secrets: Secrets, data: bytes, what: str) -> None:
    assert secrets.find(data) == [what]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"INVITE sip:b@c SIP/2.0\r\nContact: <sip:x@127.0.0.10>\r\n\r\n", id="longer address"),
        pytest.param(b"INVITE sip:b@c SIP/2.0\r\nContact: <sip:x@2127.0.0.1>\r\n\r\n", id="address with more before"),
        pytest.param(b"INVITE sip:b@c SIP/2.0\r\nContact: <sip:x@[1:fd00::1]>\r\n\r\n", id="longer IPv6 address"),
        pytest.param(b"INVITE sip:b@c SIP/2.0\r\n\r\nc=IN IP4 127.0.0.1\r\n", id="media address"),
        pytest.param(b"INVITE sip:b@c SIP/2.0\r\nSupported: 100rel, timer\r\n\r\n", id="what the relay writes itself"),
        pytest.param(b"INVITE sip:b@c SIP/2.0\r\nSubject: short\r\n\r\n", id="short values"),
    ],
)
def test_harmless_data_is_not_a_leak(secrets: Secrets, data: bytes) -> None:
    assert secrets.find(data) == []
