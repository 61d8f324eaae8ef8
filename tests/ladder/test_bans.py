"""Bans for messages received by the engine, never of a source that takes part in a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from relay.defence.bans import MOST_UNPROVEN_PER_S
from relay.model.settings import Limits, Settings
from relay.sip.message import Flow
from tests.ladder.ladder import Ladder, connect, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, STRANGER_HOST, X, peer
from tests.ladder.test_logins import PBX, PHONE, PHONE_HOST, asks_to_register, challenged, credentials, registers

LIMITS = Limits(ban_after=20)
METHODS = (
    "INVITE ACK BYE CANCEL OPTIONS REGISTER MESSAGE SUBSCRIBE NOTIFY PUBLISH REFER INFO PRACK UPDATE DANCE".split()
)
STRANGER = Flow(0, "udp", STRANGER_HOST, 5060)


def request(method: str, number: int) -> bytes:
    return (
        f"{method} sip:{X}@127.0.0.10 SIP/2.0\r\nVia: SIP/2.0/UDP {STRANGER_HOST}:5060;branch=z9hG4bKs{number}\r\n"
        f"From: <sip:mallory@{STRANGER_HOST}>;tag=s{number}\r\nTo: <sip:{X}@127.0.0.10>\r\nCall-ID: s{number}\r\n"
        f"CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:a@{STRANGER_HOST}>\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def response(number: int) -> bytes:
    return (
        f"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 127.0.0.10:5060;branch=z9hG4bKs{number}\r\n"
        f"From: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: s{number}\r\nCSeq: 1 INVITE\r\n"
        "Content-Length: 0\r\n\r\n"
    ).encode()


def banned(ladder: Ladder) -> list[str]:
    return [ban.source for ban in ladder.engine.bans.in_force()]


@pytest.fixture
def open_house() -> Ladder:
    """A configuration without logins."""
    return Ladder(limits=LIMITS)


@pytest.fixture
def with_login() -> Ladder:
    return Ladder(callee_host=PHONE_HOST, peers=(PBX, PHONE), tried=("phone",), limits=LIMITS)


# -- offences


@pytest.mark.parametrize("method", METHODS)
def test_flooding_unknown_source_is_banned(method: str, open_house: Ladder) -> None:
    for number in range(20):
        assert not banned(open_house)
        open_house.deliver(request(method, number), STRANGER)
    assert banned(open_house) == [STRANGER_HOST]


@pytest.mark.parametrize(
    "make", [lambda _: b"\0" * 20, lambda _: b"INVITE\r\n\r\n", response], ids=["noise", "head", "response"]
)
def test_unknown_source_of_malformed_messages_is_banned(make: Callable[[int], bytes], open_house: Ladder) -> None:
    for number in range(20):
        open_house.deliver(make(number), STRANGER)
    assert banned(open_house) == [STRANGER_HOST]


def test_retransmissions_of_one_request_do_not_ban(open_house: Ladder) -> None:
    for _ in range(7):  # RFC 3261 17.1.2.2: of a request that is not answered, within 32 seconds
        open_house.deliver(request("OPTIONS", 1), STRANGER)
    assert not banned(open_house)


# -- known addresses


def test_peer_is_never_banned(open_house: Ladder) -> None:
    for number in range(200):
        open_house.deliver(b"\0" * 20, open_house.caller.flow)
        open_house.deliver(response(number), open_house.callee.flow)
    assert banned(open_house) == []
    connect(open_house)
    hang_up(open_house)


def test_target_outside_the_sources_is_never_banned() -> None:
    """Responses to our requests come from there, though no requests do."""
    carrier = replace(peer("carrier", CALLEE_HOST), sources=peer("", "127.0.0.99").sources)
    ladder = Ladder(peers=(peer("pbx", CALLER_HOST), carrier), limits=LIMITS)
    for number in range(100):
        ladder.deliver(request("OPTIONS", number), ladder.callee.flow)
    ladder.callee.inbox.clear()
    assert banned(ladder) == []


def test_former_peer_with_a_call_is_never_banned(open_house: Ladder) -> None:
    connect(open_house)
    settings: Settings = open_house.engine.settings
    others = tuple(each for each in settings.peers if each.name != "carrier")
    routes = tuple(replace(route, peers=("second",)) for route in settings.routes)
    open_house.engine.reload(replace(settings, peers=others, routes=routes), {}, open_house.now)
    for number in range(100):
        open_house.deliver(request("INFO", number), open_house.callee.flow)
    assert banned(open_house) == []
    open_house.callee.inbox.clear()
    hang_up(open_house)
    open_house.run(200)
    for number in range(100):
        open_house.deliver(request("INFO", number), open_house.callee.flow)
    assert banned(open_house) == [CALLEE_HOST]


def test_refused_call_does_not_make_a_source_known(open_house: Ladder) -> None:
    open_house.hold_commits = True
    for number in range(100):
        open_house.deliver(request("INVITE", number), STRANGER)
    assert open_house.engine.statistics()["attempts"] > 0
    assert banned(open_house) == [STRANGER_HOST]


def test_reload_that_makes_a_source_a_peer_lifts_its_ban(open_house: Ladder) -> None:
    for number in range(20):
        open_house.deliver(request("OPTIONS", number), STRANGER)
    settings: Settings = open_house.engine.settings
    peers = (*settings.peers, peer("new", STRANGER_HOST))
    open_house.engine.reload(replace(settings, peers=peers), {}, open_house.now)
    assert banned(open_house) == []


# -- peers that log in


def test_wrong_passwords_ban_over_udp(with_login: Ladder) -> None:
    guesser = with_login.side(STRANGER_HOST, "mallory")
    for number in range(2):
        asks_to_register(guesser)
        line = credentials(guesser, "REGISTER", challenged(guesser)["SHA-256"], password=f"guess{number}")
        asks_to_register(guesser, line)
        guesser.inbox.clear()
        with_login.run(1)
    assert banned(with_login) == [STRANGER_HOST]


def test_forged_source_does_not_ban_a_phone(with_login: Ladder) -> None:
    """The attacker does not see the nonce sent to the phone."""
    phone = with_login.callee
    for second in range(10):
        for number in range(MOST_UNPROVEN_PER_S * 2):
            with_login.deliver(request("REGISTER", 1000 * second + number), phone.flow)
        with_login.run(1)
        with_login.engine.bans.expire(with_login.now)
    phone.inbox.clear()
    assert banned(with_login) == []
    assert not with_login.engine.bans.holds(PHONE_HOST)
    registers(phone)
    assert with_login.engine.statistics()["logins"] == 1


def test_address_of_a_registered_peer_is_never_banned(with_login: Ladder) -> None:
    phone = with_login.callee
    registers(phone)
    tcp = Flow(1, "tcp", PHONE_HOST, 40_000, 7)
    for number in range(100):
        with_login.deliver(request("OPTIONS", number), tcp)
    phone.inbox.clear()
    assert banned(with_login) == []


def test_unknown_source_on_a_connection_is_banned_even_with_logins(with_login: Ladder) -> None:
    tcp = Flow(1, "tcp", STRANGER_HOST, 40_000, 7)
    for number in range(20):
        with_login.deliver(request("OPTIONS", number), tcp)
    assert banned(with_login) == [STRANGER_HOST]


def test_login_clears_a_phones_offences(with_login: Ladder) -> None:
    """A phone that calls without registering is an unknown source at each first request."""
    phone = with_login.callee
    for _ in range(50):
        registers(phone, expires="0")
        with_login.run(2)
    assert banned(with_login) == []
