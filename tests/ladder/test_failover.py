"""Mapping of a callee's refusal, and failover to the next peer after 408, 5xx and silence, in a new dialog."""

from __future__ import annotations

from typing import Any

import pytest

from relay.sip.message import Request, parse_message
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, call, complete, hang_up
from tests.ladder.settings import SECOND_HOST, X
from tests.ladder.side import Side


@pytest.fixture
def ladder() -> Ladder:
    ladder = Ladder(tried=("carrier", "second"))
    ladder.side(SECOND_HOST, "carol")
    return ladder


def second(ladder: Ladder) -> Side:
    return ladder.sides[SECOND_HOST]


def answered_by_second(ladder: Ladder) -> None:
    """The second peer answers the call."""
    side = second(ladder)
    side.get("INVITE")
    side.accepts(body=ANSWER)
    ladder.caller.is_answered()
    assert ladder.record.peer_out == "second"
    assert ladder.record.callee_leg_call_id == side.call_id
    first, ladder.callee = ladder.callee, side
    hang_up(ladder)
    first.gets_nothing()


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 580])
def test_next_peer_after(ladder: Ladder, status: int) -> None:
    first = call(ladder)
    ladder.callee.refuses(status)
    invite = parse_second(ladder)
    assert invite.call_id != first.call_id
    assert invite.from_tag != first.from_tag
    assert invite.branch != first.branch
    assert invite.body.split(b"\r\n")[1] != first.body.split(b"\r\n")[1]  # o=
    assert invite.uri == "sip:13900000002@127.0.0.23"
    answered_by_second(ladder)


def parse_second(ladder: Ladder) -> Request:
    """The second peer's INVITE, without taking it."""
    side = second(ladder)
    entry = side.inbox[0]
    invite = side.get_request("INVITE")
    side.inbox.insert(0, entry)
    return invite


def test_next_peer_after_an_icmp_error_that_quotes_the_invite_alone(ladder: Ladder) -> None:
    invite = call(ladder)
    written = ladder.callee.received[-1]
    ladder.transport_fails(ladder.callee.flow, written.replace(invite.branch.encode(), b"z9hG4bKguessed"))
    second(ladder).gets_nothing()
    ladder.transport_fails(ladder.callee.flow, written[:200])
    answered_by_second(ladder)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 407, 420, 480, 484, 486, 487, 488, 600, 603, 604])
def test_no_next_peer_after(ladder: Ladder, status: int) -> None:
    call(ladder)
    ladder.callee.refuses(status)
    second(ladder).gets_nothing()
    assert (ladder.record.sip_status or 0) >= 400
    assert ladder.record.end_reason == f"sip_{status}"
    ladder.caller.get(ladder.record.sip_status or 0)
    ladder.caller.acks_refusal()
    ladder.settle()


def test_extension_that_the_caller_requires_and_the_callee_lacks_is_420(ladder: Ladder) -> None:
    """RFC 3261 8.1.3.5: the caller tries again without it."""
    call(ladder, headers="Require: 100rel\r\nSupported: timer\r\n")
    ladder.callee.refuses(420, headers="Unsupported: timer, 100REL, bob\r\n")
    second(ladder).gets_nothing()
    assert ladder.caller.get_response(420).get("unsupported") == "100rel"
    ladder.caller.acks_refusal()
    assert (ladder.record.sip_status, ladder.record.outcome, ladder.record.q850_cause) == (420, "failed", 111)
    ladder.settle()


@pytest.mark.parametrize(
    ("required", "unsupported"), [("", "Unsupported: 100rel\r\n"), ("Require: timer\r\n", "Unsupported: 100rel\r\n")]
)
def test_420_that_the_caller_cannot_act_on_is_not_shown(ladder: Ladder, required: str, unsupported: str) -> None:
    call(ladder, headers=required)
    ladder.callee.refuses(420, headers=unsupported)
    assert ladder.caller.get_response(480).get("unsupported") is None
    ladder.caller.acks_refusal()
    ladder.settle()


def test_next_peer_after_silence(ladder: Ladder) -> None:
    call(ladder)
    ladder.run(5.9)
    second(ladder).gets_nothing()
    ladder.run(0.2)
    second(ladder).expects("INVITE", 200, body=ANSWER)
    second(ladder).get("ACK")
    ladder.caller.is_answered()
    assert ladder.record.peer_out == "second"
    ladder.run(32)
    assert {parse_message(data).cseq.method for data, _ in ladder.callee.inbox} == {"INVITE"}  # RFC 3261 9.1: no CANCEL
    ladder.callee = second(ladder)
    hang_up(ladder)


def test_next_peer_after_a_transport_error(ladder: Ladder) -> None:
    ladder.unreachable.add(("udp", ladder.callee.host))
    ladder.caller.calls(X)
    answered_by_second(ladder)


def test_next_peer_after_the_first_had_rung(ladder: Ladder) -> None:
    call(ladder)
    ringing = ladder.callee.proceeds(180)
    ladder.callee.refuses(503)
    second(ladder).get("INVITE")
    second(ladder).answers(180)
    assert ladder.caller.get_response(180).to_tag != ringing.to_tag
    second(ladder).refuses(486)
    ladder.caller.is_refused(486)
    ladder.settle()


def test_no_next_peer_after_408_once_it_rang(ladder: Ladder) -> None:
    """The next one would ring the same phone again."""
    call(ladder)
    ladder.callee.proceeds(180)
    ladder.callee.refuses(408)
    second(ladder).gets_nothing()
    ladder.caller.is_refused(480)
    assert (ladder.record.q850_cause, ladder.record.outcome, ladder.record.end_reason) == (19, "no_answer", "sip_408")
    ladder.settle()


@pytest.mark.parametrize("status", [408, 480])
def test_ringing_of_the_first_peer_is_not_that_of_the_second(ladder: Ladder, status: int) -> None:
    call(ladder)
    ladder.callee.proceeds(180)
    ladder.callee.refuses(503)
    second(ladder).expects("INVITE", status)
    assert ladder.caller.get_response(480).get("reason") == "Q.850;cause=18"
    ladder.caller.acks_refusal()
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", f"sip_{status}")
    assert ladder.engine.results()["call_post_dial_delay_seconds"]["rows"] == {}
    ladder.settle()


def test_third_peer_is_tried_after_408_of_a_second_that_did_not_ring() -> None:
    ladder = Ladder(tried=("carrier", "second", "carrier"))
    ladder.side(SECOND_HOST, "carol")
    call(ladder)
    ladder.callee.proceeds(180)
    ladder.callee.refuses(503)
    second(ladder).expects("INVITE", 408)
    ladder.callee.get("INVITE")
    complete(ladder)


def test_post_dial_delay_of_a_peer_ends_with_its_own_ringing(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.proceeds(180)
    ladder.run(0.25)
    ladder.callee.refuses(503)
    second(ladder).rings()
    second(ladder).refuses(486)
    ladder.caller.is_refused(486)
    rows: Any = ladder.engine.results()["call_post_dial_delay_seconds"]
    assert rows["rows"]["second"][-1] == 0.25
    assert ladder.record.ringing_at == ladder.record.received_at  # when the caller first heard it
    ladder.settle()


def test_stray_2xx_of_the_first_peer_is_ignored(ladder: Ladder) -> None:
    """Its transaction has terminated: the stray 2xx matches no dialog and is ignored."""
    call(ladder)
    ladder.run(6.1)
    second(ladder).rings()
    ladder.run(26.1)
    ladder.callee.inbox.clear()
    ladder.callee.answers(200, body=ANSWER)
    ladder.callee.gets_nothing()
    up_with_second(ladder)
    hang_up(ladder)


def moved_on(ladder: Ladder) -> Side:
    """The first peer was silent too long and may answer late; the second one is tried."""
    call(ladder)
    ladder.run(6.1)
    second(ladder).get("INVITE")
    ladder.callee.inbox.clear()
    return ladder.callee


def up_with_second(ladder: Ladder) -> None:
    second(ladder).accepts(body=ANSWER)
    ladder.caller.is_answered()
    ladder.callee = second(ladder)


def test_late_provisional_response_of_the_first_peer_triggers_its_cancel(ladder: Ladder) -> None:
    first = moved_on(ladder)
    first.answers(180)
    cancel = first.get_request("CANCEL")
    assert cancel.get("reason") == "SIP;cause=408"
    first.answers(200, cancel)
    first.refuses(487)
    ladder.caller.gets_nothing()
    up_with_second(ladder)
    hang_up(ladder)
    first.gets_nothing()


@pytest.mark.parametrize("crossing", [False, True], ids=["BYE is answered", "BYEs cross"])
@pytest.mark.parametrize("second_first", [True, False])
def test_late_answer_of_the_first_peer_gets_ack_and_bye(ladder: Ladder, second_first: bool, crossing: bool) -> None:
    """The call goes on with the second peer."""
    first = moved_on(ladder)
    if second_first:
        up_with_second(ladder)
    first.accepts(body=ANSWER)
    bye = first.get_request("BYE")
    if crossing:
        first.updates()
        first.get(481)
        first.sends("BYE")
        first.get(481)
    first.answers(481 if crossing else 200, bye)
    ladder.caller.gets_nothing()
    if not second_first:
        up_with_second(ladder)
    assert ladder.record.ended_at is None
    hang_up(ladder)
    first.gets_nothing()


def test_no_failover_from_the_only_peer() -> None:
    ladder = Ladder()
    call(ladder)
    ladder.run(20)
    ladder.caller.gets_nothing()
    ladder.callee.inbox.clear()
    complete(ladder)


def test_any_provisional_response_stops_failover(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.answers(100)
    ladder.run(60)
    second(ladder).gets_nothing()
    ladder.callee.refuses(503)
    second(ladder).get("INVITE")
    ladder.run(29)  # there is no third peer
    second(ladder).inbox.clear()
    second(ladder).proceeds(180)
    ladder.run(1.1)
    second(ladder).is_cancelled()
    ladder.caller.is_refused(480)
    assert ladder.record.end_reason == "ring_timeout"
    ladder.settle()


def test_last_peers_refusal_is_relayed(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.refuses(503)
    second(ladder).expects("INVITE", 408)
    answer = ladder.caller.get_response(480)
    assert answer.get("reason") == "Q.850;cause=18"
    ladder.caller.acks_refusal()
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", "sip_408")
    assert ladder.record.ended_by == "callee"
    ladder.settle()


@pytest.mark.parametrize(("unreachable", "cause", "outcome"), [(False, 102, "unreachable"), (True, 38, "unreachable")])
def test_silence_of_all_peers_is_480(ladder: Ladder, unreachable: bool, cause: int, outcome: str) -> None:
    if unreachable:
        ladder.unreachable = {("udp", ladder.callee.host), ("udp", SECOND_HOST)}
    ladder.caller.calls(X)
    ladder.run(64.2)
    assert ladder.caller.get_response(480).get("reason") == f"Q.850;cause={cause}"
    ladder.caller.acks_refusal()
    assert (ladder.record.outcome, ladder.record.end_reason) == (outcome, "no_response")
    assert ladder.record.ended_by == "relay"  # no callee responded
    ladder.settle()


def test_number_without_a_route_is_480() -> None:
    ladder = Ladder(tried=())
    ladder.caller.calls(X)
    assert ladder.caller.get_response(480).get("reason") == "Q.850;cause=3"
    ladder.caller.acks_refusal()
    assert (ladder.record.end_reason, ladder.record.ended_by) == ("no_peer", "relay")
    ladder.settle()


def test_ring_timeout_covers_all_peers(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.proceeds(180)
    ladder.run(80)
    ladder.callee.refuses(503)
    second(ladder).rings()
    ladder.run(10.1)
    second(ladder).is_cancelled()
    ladder.caller.is_refused(480)
    ladder.settle()


@pytest.mark.parametrize(
    ("status", "shown", "cause", "outcome"),
    [
        (300, 480, 20, "unreachable"),
        (302, 480, 20, "unreachable"),
        (401, 480, 21, "failed"),
        (403, 480, 21, "rejected"),
        (404, 404, 1, "unreachable"),
        (407, 480, 21, "failed"),
        (480, 480, 18, "unreachable"),
        (486, 486, 17, "busy"),
        (488, 488, 88, "failed"),
        (503, 480, 34, "unreachable"),
        (599, 480, 41, "failed"),
        (600, 486, 17, "busy"),
        (603, 603, 21, "rejected"),
        (666, 486, 17, "busy"),
    ],
)
def test_callees_refusal_is_mapped_for_the_caller(status: int, shown: int, cause: int, outcome: str) -> None:
    ladder = Ladder()
    call(ladder)
    headers = (
        'Contact: <sip:13900000009@127.0.0.99>\r\nWWW-Authenticate: Digest realm="bob"\r\nRetry-After: 5\r\n'
        'Warning: 399 bob "13900000002"\r\nReason: Q.850;cause=1;text="bob"\r\nError-Info: <sip:bob@127.0.0.22>\r\n'
    )
    ladder.callee.refuses(status, headers=headers, reason="bob is out")
    answer = ladder.caller.get_response(shown)
    assert answer.get_all("reason") == [f"Q.850;cause={cause}"]
    for name in ("contact", "www-authenticate", "retry-after", "warning", "error-info"):
        assert answer.get(name) is None
    ladder.caller.acks_refusal()
    record = ladder.record
    assert (record.sip_status, record.q850_cause, record.outcome, record.ended_by) == (shown, cause, outcome, "callee")
    ladder.settle()


@pytest.mark.parametrize("status", [408, 480])
def test_480_after_ringing_is_no_answer(status: int) -> None:
    ladder = Ladder()
    call(ladder)
    ladder.callee.proceeds(180)
    ladder.callee.refuses(status)
    assert ladder.caller.get_response(480).get("reason") == "Q.850;cause=19"
    ladder.caller.acks_refusal()
    assert ladder.record.outcome == "no_answer"
    ladder.settle()
