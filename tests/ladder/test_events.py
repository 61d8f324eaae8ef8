"""What a business hears of a call while it goes on, and what an operator sees of it and does to it."""

from __future__ import annotations

from relay.call.actions import Tell
from relay.call.routing import Refusal, Route
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import A, B, Ladder, X, connect, hang_up

TELLING = Route("b1", "AXB", "firm", "order-1", B, X, direction="a_to_b", legacy=True, tells=True)
BUSY = Refusal("business_busy", 503, 42, 5)


def kinds(ladder: Ladder) -> list[str]:
    return [told.kind for told in ladder.told]


def test_received_ringing_and_answered_are_told_once_each() -> None:
    ladder = Ladder({(X, A): TELLING})
    ladder.caller.invites(X)
    assert kinds(ladder) == ["received"]
    ladder.callee.get("INVITE")
    for _ in range(2):
        ladder.callee.answers(180)
    assert kinds(ladder) == ["received", "ringing"]
    ladder.callee.answers(200, body=ANSWER)
    assert kinds(ladder) == ["received", "ringing", "answered"]
    received, ringing, answered = (told.record for told in ladder.told)
    assert (received.routed_at, received.ringing_at) == (received.received_at, None)
    assert (ringing.ringing_at, ringing.answered_at) == (received.received_at, None)
    assert answered == ladder.record
    assert {record.call_id for record in (received, ringing, answered)} == {ladder.record.call_id}


def test_what_is_told_is_in_the_order_of_the_record() -> None:
    """The answer is told after its commit: no event is of what a restart would not know."""
    ladder = Ladder({(X, A): TELLING})
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    ladder.hold_commits = True
    ladder.callee.answers(200, body=ANSWER)
    assert kinds(ladder) == ["received", "answered"]
    assert ladder.told[-1].record.answered_at == ladder.told[-1].record.received_at


def test_nothing_is_told_of_a_call_whose_business_does_not_want_it(ladder: Ladder) -> None:
    connect(ladder)
    hang_up(ladder)
    assert ladder.told == []


def test_nothing_is_told_of_a_call_over_a_cap() -> None:
    ladder = Ladder({(X, A): TELLING._replace(caps=(("business firm", 0, BUSY),))})
    ladder.caller.invites(X)
    assert ladder.told == []
    assert ladder.record.outcome == "business_busy"


def test_the_record_says_which_way_it_went_and_by_an_old_number_also_after_a_restart() -> None:
    ladder = Ladder({(X, A): TELLING})
    connect(ladder)
    assert (ladder.record.direction, ladder.record.legacy) == ("a_to_b", True)
    ladder.restart()
    for side in (ladder.caller, ladder.callee):
        side.expects("OPTIONS")
    hang_up(ladder)
    assert (ladder.record.direction, ladder.record.legacy) == ("a_to_b", True)
    assert [told for told in ladder.told if told == Tell("answered", ladder.told[-1].record)] == [ladder.told[-1]]


def test_a_legacy_number_is_looked_up() -> None:
    legacy = "8617000000001"
    ladder = Ladder({(legacy, A): TELLING._replace(shown=legacy)}, legacy=frozenset({legacy}))
    ladder.caller.calls("17000000001")
    assert ladder.callee.expects("INVITE", 486).from_.uri is not None
    ladder.callee.get("ACK")
    ladder.caller.is_refused(486)
    assert ladder.record.number_dialled == legacy
    ladder.settle()


# -- live calls, and the end that an operator makes


def test_live_calls_are_those_that_ring_or_are_up(ladder: Ladder) -> None:
    assert ladder.engine.live() == []
    ladder.caller.invites(X)
    (ringing,) = ladder.engine.live()
    assert (ringing.caller, ringing.callee, ringing.answered_at) == (A, B, None)
    ladder.callee.get("INVITE")
    ladder.callee.answers(200, body=ANSWER)
    (up,) = ladder.engine.live()
    assert (up.call_id, up.answered_at) == (ringing.call_id, ladder.record.answered_at)
    ladder.hold_commits = True
    ladder.callee.get("ACK")
    ladder.callee.sends("BYE")
    assert ladder.engine.live() == []  # it has ended, if its record is not safe yet


def test_a_call_that_is_up_is_hung_up(ladder: Ladder) -> None:
    connect(ladder)
    assert ladder.engine.hang_up(ladder.record.call_id, ladder.now)
    ladder.perform()
    ladder.caller.expects("BYE")
    ladder.callee.expects("BYE")
    assert (ladder.record.outcome, ladder.record.ended_by, ladder.record.end_reason) == ("answered", "relay", "hung_up")
    assert not ladder.engine.hang_up(ladder.record.call_id, ladder.now)
    ladder.settle()


def test_a_call_that_has_ended_cannot_be_hung_up_while_its_record_is_not_safe(ladder: Ladder) -> None:
    connect(ladder)
    ladder.hold_commits = True
    ladder.caller.sends("BYE")
    assert not ladder.engine.hang_up(ladder.record.call_id, ladder.now)
    ladder.release()
    assert ladder.record.end_reason == "bye"


def test_a_call_that_rings_is_hung_up(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 180)
    ladder.caller.get(180)
    (live,) = ladder.engine.live()
    assert ladder.engine.hang_up(live.call_id, ladder.now)
    ladder.perform()
    ladder.callee.get("CANCEL")
    ladder.caller.is_refused(480)
    ladder.callee.refuses(487)
    assert ladder.record.end_reason == "hung_up"
    ladder.settle()


def test_a_call_that_there_is_not_cannot_be_hung_up(ladder: Ladder) -> None:
    connect(ladder)
    assert not ladder.engine.hang_up("0" * 32, ladder.now)
    hang_up(ladder)
