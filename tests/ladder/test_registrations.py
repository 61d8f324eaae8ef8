"""Our registrations at a trunk: made, refreshed, retried, removed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network

import pytest

from relay.model.settings import Account, Peer, Target
from relay.sip.digest import parse_credentials
from relay.sip.message import Request
from tests.ladder.ladder import Ladder, connect, hang_up
from tests.ladder.settings import CALLEE_HOST, CALLER_HOST, RELAY, SECOND_HOST, peer
from tests.ladder.side import Side

ACCOUNT = Account("4001", "secret")
CHALLENGE = 'WWW-Authenticate: Digest realm="carrier.example",nonce="n1",qop="auth",algorithm=SHA-256\r\n'
CONTACT = f"<sip:4001@{RELAY}:5060>"
PBX = peer("pbx", CALLER_HOST)


def trunk(**changes: object) -> Peer:
    return peer("carrier", CALLEE_HOST, **{"account": ACCOUNT, "registers": True, **changes})


def begun(*peers: Peer) -> Ladder:
    ladder = Ladder(peers=(PBX, *(peers or (trunk(),))))
    ladder.engine.locate({}, ladder.now)
    ladder.perform()
    return ladder


@pytest.fixture
def ladder() -> Ladder:
    return begun()


def grants(side: Side, seconds: int = 100, request: Request | None = None) -> Request:
    request = request or side.get_request("REGISTER")
    side.answers(200, request, headers=f"Contact: <sip:4001@192.0.2.99>;expires=9, {CONTACT};expires={seconds}\r\n")
    return request


def events(ladder: Ladder) -> list[tuple[str, object]]:
    return [(note.event, note.fields.get("reason")) for note in ladder.notes]


def is_registered(ladder: Ladder) -> bool | None:
    return {state.peer: state.registered for state in ladder.engine.peers(ladder.now)}["carrier"]


def test_challenged_register_is_repeated_with_credentials(ladder: Ladder) -> None:
    first = ladder.callee.get_request("REGISTER")
    assert first.uri == f"sip:{CALLEE_HOST}"
    assert first.to.uri_text == first.from_.uri_text == f"sip:4001@{CALLEE_HOST}"
    assert (first.get("contact"), first.get("expires"), first.to_tag) == (CONTACT, "3600", None)
    ladder.callee.answers(401, first, headers=CHALLENGE)
    again = ladder.callee.get_request("REGISTER")
    assert (again.call_id, again.from_tag, again.cseq.number) == (first.call_id, first.from_tag, 2)
    credentials = parse_credentials(again.get("authorization") or "")
    assert credentials is not None
    assert credentials.is_proved_by("secret", "REGISTER")
    assert is_registered(ladder) is False
    grants(ladder.callee, request=again)
    assert is_registered(ladder) is True
    assert events(ladder) == [("registration.up", None)]


def test_registration_is_refreshed_at_half_the_granted_time(ladder: Ladder) -> None:
    first = grants(ladder.callee, 100)
    ladder.run(49.9)
    ladder.callee.gets_nothing()
    ladder.run(0.1)
    second = grants(ladder.callee, 20)
    assert (second.call_id, second.cseq.number) == (first.call_id, 2)
    ladder.run(10)
    ladder.callee.get("REGISTER")
    assert events(ladder) == [("registration.up", None)]


@pytest.mark.parametrize(
    ("lines", "refresh_s"),
    [
        ("Expires: 60\r\n", 30),
        (f"Contact: {CONTACT}\r\nExpires: 60\r\n", 30),
        (f"Contact: <sip:4001@{RELAY}:5062>;expires=10\r\nExpires: 60\r\n", 30),
        ("", 1800),
        ("Expires: soon\r\n", 1800),
    ],
)
def test_granted_time_falls_back_to_expires(ladder: Ladder, lines: str, refresh_s: int) -> None:
    ladder.callee.answers(200, ladder.callee.get_request("REGISTER"), headers=lines)
    ladder.run(refresh_s - 1)
    ladder.callee.gets_nothing()
    ladder.run(1)
    ladder.callee.get("REGISTER")


def test_423_repeats_the_register_with_min_expires(ladder: Ladder) -> None:
    ladder.callee.answers(423, ladder.callee.get_request("REGISTER"), headers="Min-Expires: 7200\r\n")
    asked = ladder.callee.get_request("REGISTER")
    assert (asked.get("expires"), asked.cseq.number) == ("7200", 2)
    grants(ladder.callee, 7200, asked)
    assert is_registered(ladder)


def test_second_423_counts_as_a_failure(ladder: Ladder) -> None:
    for seconds in (7200, 7201):
        ladder.callee.answers(423, ladder.callee.get_request("REGISTER"), headers=f"Min-Expires: {seconds}\r\n")
    ladder.callee.gets_nothing()
    assert events(ladder) == [("registration.failed", "sip_423")]
    assert waits(ladder, ladder.callee) >= 15
    assert ladder.callee.get_request("REGISTER").get("expires") == "7201"


@pytest.mark.parametrize("line", ["", "Min-Expires: 10\r\n", "Min-Expires: 99999999\r\n", "Min-Expires: x\r\n"])
def test_423_without_a_longer_time_is_a_failure(ladder: Ladder, line: str) -> None:
    ladder.callee.answers(423, ladder.callee.get_request("REGISTER"), headers=line)
    ladder.callee.gets_nothing()
    assert events(ladder) == [("registration.failed", "sip_423")]


def waits(ladder: Ladder, side: Side) -> float:
    """Seconds until the next REGISTER."""
    began = ladder.now
    while not side.inbox:
        ladder.run(0.5)
    return ladder.now - began


def test_failures_back_off_exponentially(ladder: Ladder) -> None:
    for most in (30, 60, 120, 240, 480, 960, 1800, 1800):
        ladder.callee.answers(403, ladder.callee.get_request("REGISTER"))
        assert most / 2 <= waits(ladder, ladder.callee) <= most + 0.5
    grants(ladder.callee)
    assert events(ladder) == [("registration.failed", "sip_403")] * 8 + [("registration.up", None)]
    waits(ladder, ladder.callee)
    ladder.callee.answers(403, ladder.callee.get_request("REGISTER"))
    assert waits(ladder, ladder.callee) <= 30.5


def test_rejected_credentials_back_off(ladder: Ladder) -> None:
    ladder.callee.answers(401, ladder.callee.get_request("REGISTER"), headers=CHALLENGE)
    ladder.callee.answers(401, ladder.callee.get_request("REGISTER"), headers=CHALLENGE)
    assert waits(ladder, ladder.callee) >= 15
    assert "secret" not in repr(ladder.notes)


def test_retry_after_is_honoured(ladder: Ladder) -> None:
    ladder.callee.answers(503, ladder.callee.get_request("REGISTER"), headers="Retry-After: 300\r\n")
    assert waits(ladder, ladder.callee) == 300


def test_silence_is_a_failure_and_the_granted_time_continues(ladder: Ladder) -> None:
    grants(ladder.callee, 100)
    ladder.lose_next = 1000
    ladder.run(50 + 32)
    assert events(ladder)[1:] == [("registration.failed", "timeout")]
    assert is_registered(ladder) is True
    ladder.run(18)
    assert is_registered(ladder) is False


def test_next_target_is_tried_after_a_failure() -> None:
    hosts = (CALLEE_HOST, SECOND_HOST)
    targets = tuple(Target(host, 5060, "udp", host, priority) for priority, host in enumerate(hosts))
    ladder = begun(trunk(targets=targets, sources=tuple(ip_network(host) for host in hosts)))
    second = ladder.side(SECOND_HOST, "carol")
    ladder.callee.answers(500, ladder.callee.get_request("REGISTER"))
    waits(ladder, second)
    assert second.inbox[0][0].startswith(f"REGISTER sip:{SECOND_HOST} ".encode())
    grants(second)
    ladder.run(50)
    second.get("REGISTER")
    ladder.callee.gets_nothing()


def test_registration_is_removed_at_shutdown(ladder: Ladder) -> None:
    granted = grants(ladder.callee)
    ladder.engine.unregister(ladder.now)
    ladder.perform()
    request = ladder.callee.get_request("REGISTER")
    assert (request.get("expires"), request.get("contact"), request.call_id) == ("0", CONTACT, granted.call_id)
    ladder.callee.answers(401, request, headers=CHALLENGE)
    assert ladder.engine.leaving == 1
    ladder.callee.answers(200, ladder.callee.get_request("REGISTER"))
    assert (ladder.engine.leaving, is_registered(ladder)) == (0, False)
    ladder.settle(4000)
    ladder.callee.gets_nothing()


def test_no_registration_after_shutdown_began(ladder: Ladder) -> None:
    grants(ladder.callee)
    ladder.engine.unregister(ladder.now)
    ladder.perform()
    ladder.callee.answers(200, ladder.callee.get_request("REGISTER"))
    ladder.engine.locate({}, ladder.now)
    ladder.engine.reload(ladder.settings, {}, ladder.now)
    ladder.perform()
    ladder.callee.gets_nothing()
    ladder.settle()


def test_no_removal_without_a_registration(ladder: Ladder) -> None:
    request = ladder.callee.get_request("REGISTER")
    ladder.engine.unregister(ladder.now)
    ladder.perform()
    assert ladder.engine.leaving == 0
    grants(ladder.callee, request=request)
    ladder.settle(4000)
    ladder.callee.gets_nothing()


def test_silent_trunk_does_not_delay_shutdown(ladder: Ladder) -> None:
    grants(ladder.callee)
    ladder.engine.unregister(ladder.now)
    ladder.run(32)
    assert ladder.engine.leaving == 0


def test_reload_keeps_unchanged_registrations(ladder: Ladder) -> None:
    granted = grants(ladder.callee)
    ladder.engine.reload(ladder.settings, {}, ladder.now)
    ladder.perform()
    ladder.callee.gets_nothing()
    changed = trunk(account=Account("4002", "word"))
    ladder.engine.reload(replace(ladder.settings, peers=(PBX, changed)), {}, ladder.now)
    ladder.perform()
    gone = ladder.callee.get_request("REGISTER")
    assert (gone.call_id, gone.get("expires")) == (granted.call_id, "0")
    begins = ladder.callee.get_request("REGISTER")
    assert begins.from_.uri_text == f"sip:4002@{CALLEE_HOST}"
    ladder.callee.answers(200, gone)
    ladder.engine.reload(replace(ladder.settings, peers=(PBX, trunk(registers=False))), {}, ladder.now)
    ladder.perform()
    ladder.callee.gets_nothing()
    assert is_registered(ladder) is None


def test_registration_starts_when_the_name_is_resolved() -> None:
    unknown = Target("trunk.example", 5060, "tls", "trunk.example", search="srv")  # no listener speaks it
    ladder = begun(trunk(targets=(unknown,)))
    assert events(ladder) == [("registration.failed", "no_address")]
    found = Target(CALLEE_HOST, 5060, "udp", "trunk.example")
    ladder.engine.locate({"carrier": (found,)}, ladder.now)
    ladder.perform()
    request = grants(ladder.callee)
    assert request.uri == "sip:trunk.example"
    ladder.run(49)  # beyond the next retry
    ladder.callee.gets_nothing()


def moves_by_reload(ladder: Ladder) -> None:
    ladder.engine.reload(replace(ladder.settings, peers=(PBX, replace(trunk(), targets=(MOVED,)))), {}, ladder.now)


def moves_by_dns(ladder: Ladder) -> None:
    ladder.engine.locate({"carrier": (MOVED,)}, ladder.now)


MOVED = Target(SECOND_HOST, 5060, "udp", SECOND_HOST)
MOVES = pytest.mark.parametrize("moves", [moves_by_reload, moves_by_dns])


@MOVES
def test_trunk_that_moves_is_registered_at_anew(ladder: Ladder, moves: Callable[[Ladder], None]) -> None:
    second = ladder.side(SECOND_HOST, "carol")
    grants(ladder.callee, 3600)
    ladder.run(10)
    moves(ladder)
    ladder.perform()
    request = second.get_request("REGISTER")
    assert request.uri == f"sip:{SECOND_HOST}"
    assert is_registered(ladder) is False
    grants(second, 100, request)
    assert is_registered(ladder) is True
    ladder.run(50)
    second.get("REGISTER")
    ladder.callee.gets_nothing()


@MOVES
def test_answer_of_a_trunk_that_has_moved_is_ignored(ladder: Ladder, moves: Callable[[Ladder], None]) -> None:
    second = ladder.side(SECOND_HOST, "carol")
    moves(ladder)
    ladder.perform()
    grants(ladder.callee, 20)
    assert is_registered(ladder) is False
    grants(second, 100)
    ladder.run(49)  # beyond the refresh of the first
    second.gets_nothing()
    ladder.callee.gets_nothing()


def test_name_without_an_address_for_a_while_keeps_the_registration(ladder: Ladder) -> None:
    grants(ladder.callee)
    ladder.engine.locate({"carrier": ()}, ladder.now)
    ladder.engine.locate({"carrier": ladder.settings.peers[1].targets}, ladder.now)
    ladder.perform()
    assert is_registered(ladder) is True
    ladder.callee.gets_nothing()


def test_calls_work_beside_registrations(ladder: Ladder) -> None:
    grants(ladder.callee)
    connect(ladder)
    ladder.engine.unregister(ladder.now)
    ladder.perform()
    ladder.callee.expects("REGISTER")
    hang_up(ladder)
