from __future__ import annotations

import pytest

from relay.replay.comparison import Secrets
from relay.sip.message import Request
from tests.replay.messages import SDP


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
