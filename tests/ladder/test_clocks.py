"""Ring timeout and maximum duration."""

from __future__ import annotations

import pytest

from relay.model.call import Route
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, answer_pending, connect, hang_up, ring
from tests.ladder.settings import A, B, X


def with_route(**changes: float) -> Ladder:
    return Ladder({(X, A): Route("b1", "AXB", "default", "order-1", B, X)._replace(**changes)})


def test_ring_timeout_cancels_the_callee(ladder: Ladder) -> None:
    ring(ladder)
    ladder.run(89.9)
    ladder.callee.gets_nothing()
    ladder.run(0.2)
    cancel = ladder.callee.expects("CANCEL")
    assert cancel.get("reason") == "SIP;cause=408"
    ladder.callee.refuses(487)
    assert ladder.caller.get_response(480).get("reason") == "Q.850;cause=19"
    ladder.caller.acks_refusal()
    record = ladder.record
    assert (record.outcome, record.ended_by, record.end_reason) == ("no_answer", "relay", "ring_timeout")
    ladder.settle()


def test_ring_timeout_of_the_route_applies() -> None:
    ladder = with_route(ring_timeout_s=20.0)
    ring(ladder)
    ladder.run(20.1)
    ladder.callee.expects("CANCEL")
    ladder.caller.get(480)
    ladder.callee.answers(200, body=ANSWER)  # crosses the CANCEL
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.settle()


def test_invite_expires_as_the_caller_asks(ladder: Ladder) -> None:
    """RFC 3261 13.3.1: 487 once the time of its Expires is over without a final response."""
    ring(ladder, headers="Expires: 20\r\n")
    ladder.run(19.9)
    ladder.callee.gets_nothing()
    ladder.run(0.2)
    assert ladder.callee.is_cancelled().get("reason") == "SIP;cause=408"
    assert not ladder.caller.get_response(487).has("reason")
    ladder.caller.acks_refusal()
    record = ladder.record
    assert (record.outcome, record.ended_by, record.end_reason) == ("no_answer", "relay", "invite_expired")
    assert (record.sip_status, record.q850_cause) == (487, 19)
    ladder.settle()


def test_invite_expires_while_its_target_is_silent(ladder: Ladder) -> None:
    ladder.caller.calls(X, headers="Expires: 5\r\n")
    ladder.run(5.1)
    ladder.caller.is_refused(487)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", "invite_expired")
    ladder.settle()


def test_invite_expires_while_it_is_looked_up(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X, headers="Expires: 1\r\n")
    ladder.run(2)
    ladder.caller.get(100)
    ladder.release()
    ladder.callee.gets_nothing()
    ladder.caller.is_refused(487)
    assert (ladder.record.binding_id, ladder.record.peer_out) == ("b1", None)
    ladder.settle()


def test_invite_that_expires_at_once_rings_nobody(ladder: Ladder) -> None:
    ladder.caller.calls(X, headers="Expires: 0\r\n")
    ladder.callee.gets_nothing()
    ladder.caller.is_refused(487)
    ladder.settle()


@pytest.mark.parametrize("expires", ["91", "4294967295", "soon"])
def test_ring_timeout_applies_to_an_invite_that_expires_later(ladder: Ladder, expires: str) -> None:
    """A malformed Expires is ignored (RFC 3261 8.2.2)."""
    ring(ladder, headers=f"Expires: {expires}\r\n")
    ladder.run(90.1)
    ladder.callee.is_cancelled()
    ladder.caller.is_refused(480)
    assert ladder.record.end_reason == "ring_timeout"
    ladder.settle()


def test_answered_invite_does_not_expire(ladder: Ladder) -> None:
    connect(ladder, headers="Expires: 20\r\n")
    ladder.run(30)
    ladder.callee.gets_nothing()
    hang_up(ladder)


def test_target_that_is_silent_until_the_ring_timeout_is_unreachable() -> None:
    ladder = with_route(ring_timeout_s=20.0)
    ladder.caller.calls(X)
    ladder.run(20.1)
    assert ladder.caller.get_response(480).get("reason") == "Q.850;cause=102"
    ladder.caller.acks_refusal()
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", "no_response")
    (target,) = ladder.engine._peers.targets_of("carrier")
    assert target.failures == 1
    ladder.settle()


def test_target_that_is_silent_for_a_moment_before_the_ring_timeout_has_not_failed() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    ring(ladder)
    ladder.run(88)
    ladder.callee.refuses(503)
    ladder.run(2.1)
    ladder.caller.is_refused(480)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("unreachable", "no_response")
    (target,) = ladder.engine._peers.targets_of("second")
    assert target.failures == 0
    ladder.settle()


def test_answer_just_before_the_ring_timeout_connects() -> None:
    ladder = with_route(ring_timeout_s=20.0)
    ring(ladder)
    ladder.run(19.9)
    answer_pending(ladder)
    ladder.run(1)
    ladder.release()
    ladder.callee.get("ACK")
    ladder.caller.is_answered()
    hang_up(ladder)


@pytest.mark.parametrize(
    ("of_route", "of_settings", "lasts"), [(None, 600.0, 600), (60.0, 600.0, 60), (900.0, 600.0, 600)]
)
def test_call_ends_at_its_maximum_duration(of_route: float | None, of_settings: float, lasts: int) -> None:
    route = Route("b1", "AXB", "default", "order-1", B, X, of_route)
    ladder = Ladder({(X, A): route}, max_call_s=of_settings)
    connect(ladder)
    ladder.run(lasts - 0.1)
    ladder.caller.gets_nothing()
    ladder.run(0.2)
    for side in (ladder.caller, ladder.callee):
        assert side.expects("BYE").get("reason") == "Q.850;cause=102"
    record = ladder.record
    assert (record.outcome, record.ended_by, record.end_reason) == ("answered", "relay", "max_duration")
    assert record.duration_ms == lasts * 1000
    ladder.settle()


def test_maximum_duration_crossing_a_bye() -> None:
    ladder = Ladder(max_call_s=60.0)
    connect(ladder)
    ladder.hold_commits = True
    ladder.run(60.1)
    ladder.caller.sends("BYE")
    ladder.caller.expects("BYE", 481)
    ladder.callee.expects("BYE")
    ladder.caller.gets_nothing()
    ladder.release()
    ladder.caller.get(200)
    assert ladder.record.ended_by == "relay"
    ladder.settle()


def test_shutdown_ends_answered_and_ringing_calls() -> None:
    ladder = Ladder()
    connect(ladder)
    for host, answer in (("127.0.0.11", False), ("127.0.0.11", True)):
        again = ladder.side(host, "alice")
        again.call_id, again.via_count = f"alice-{answer}", 100 + answer
        ladder.caller = again
        ladder.hold_look_ups = answer
        again.calls(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    ladder.caller.inbox.clear()
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    reasons = [(record.outcome, record.end_reason) for record, _ in ladder.records.values()]
    assert sorted(reasons, key=str) == [
        ("answered", "shutdown"),
        ("failed", "shutdown"),
        ("failed", "shutdown"),
    ]
    ladder.release()
    ladder.settle()


def test_ringing_call_that_an_operator_hangs_up_is_not_unreachable(ladder: Ladder) -> None:
    ring(ladder)
    (call,) = ladder.engine.live()
    assert ladder.engine.hang_up(call.call_id, ladder.now)
    ladder.perform()
    ladder.callee.is_cancelled()
    assert ladder.caller.get_response(480).get("reason") == "Q.850;cause=31"
    ladder.caller.acks_refusal()
    assert (ladder.record.outcome, ladder.record.ended_by, ladder.record.end_reason) == ("failed", "relay", "hung_up")
    ladder.settle()


def test_answered_call_has_one_timer(ladder: Ladder) -> None:
    connect(ladder)
    ladder.run(33)
    assert (ladder.engine.statistics()["timers"], ladder.engine.statistics()["transactions"]) == (1, 0)
    hang_up(ladder)
