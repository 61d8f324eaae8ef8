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
