"""Call events for a business; listing and hang-up of calls by an operator."""

from __future__ import annotations

from relay.model.actions import CallEvent
from relay.model.call import Refusal, Route
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, answer_pending, connect, hang_up, is_hung_up, restart, ring
from tests.ladder.settings import A, B, X

TELLING = Route("b1", "AXB", "firm", "order-1", B, X, direction="a_to_b", legacy=True, live_events=True)
BUSY = Refusal("business_busy", 503, 42, 5)


def kinds(ladder: Ladder) -> list[str]:
    return [told.kind for told in ladder.told]


def test_received_ringing_and_answered_are_emitted_once_each() -> None:
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


def test_answered_event_follows_its_commit() -> None:
    """The event follows the commit: a restart knows every state that was reported."""
    ladder = Ladder({(X, A): TELLING})
    ladder.caller.invites(X)
    ladder.callee.get("INVITE")
    answer_pending(ladder)
    assert kinds(ladder) == ["received", "answered"]
    assert ladder.told[-1].record.answered_at == ladder.told[-1].record.received_at


def test_no_events_unless_the_business_wants_them(ladder: Ladder) -> None:
    connect(ladder)
    hang_up(ladder)
    assert ladder.told == []


def test_no_events_of_a_call_over_a_cap() -> None:
    ladder = Ladder({(X, A): TELLING._replace(caps=(("business firm", 0, BUSY),))})
    ladder.caller.invites(X)
    assert ladder.told == []
    assert ladder.record.outcome == "business_busy"


def test_direction_and_legacy_of_the_record_survive_a_restart() -> None:
    ladder = Ladder({(X, A): TELLING})
    connect(ladder)
    assert (ladder.record.direction, ladder.record.legacy) == ("a_to_b", True)
    restart(ladder)
    hang_up(ladder)
    assert (ladder.record.direction, ladder.record.legacy) == ("a_to_b", True)
    assert [told for told in ladder.told if told == CallEvent("answered", ladder.told[-1].record)] == [ladder.told[-1]]


def test_legacy_number_is_looked_up() -> None:
    legacy = "8617000000001"
    ladder = Ladder({(legacy, A): TELLING._replace(shown=legacy)}, legacy=frozenset({legacy}))
    ladder.caller.calls("17000000001")
    assert ladder.callee.expects("INVITE", 486).from_.uri is not None
    ladder.caller.is_refused(486)
    assert ladder.record.number_dialled == legacy
    ladder.settle()


# -- live calls and hang-up


def test_live_calls_are_ringing_and_answered_ones(ladder: Ladder) -> None:
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
    assert ladder.engine.live() == []  # ended, though its record is not committed yet


def test_answered_call_is_hung_up_on_request(ladder: Ladder) -> None:
    connect(ladder)
    assert ladder.engine.hang_up(ladder.record.call_id, ladder.now)
    ladder.perform()
    is_hung_up(ladder, "hung_up")
    assert (ladder.record.outcome, ladder.record.ended_by, ladder.record.end_reason) == ("answered", "relay", "hung_up")
    assert not ladder.engine.hang_up(ladder.record.call_id, ladder.now)
    ladder.settle()


def test_ended_call_is_not_hung_up_during_its_commit(ladder: Ladder) -> None:
    connect(ladder)
    ladder.hold_commits = True
    ladder.caller.sends("BYE")
    assert not ladder.engine.hang_up(ladder.record.call_id, ladder.now)
    ladder.release()
    assert ladder.record.end_reason == "bye"


def test_ringing_call_is_hung_up_on_request(ladder: Ladder) -> None:
    ring(ladder)
    (live,) = ladder.engine.live()
    assert ladder.engine.hang_up(live.call_id, ladder.now)
    ladder.perform()
    ladder.callee.get("CANCEL")
    ladder.caller.is_refused(480)
    ladder.callee.refuses(487)
    assert ladder.record.end_reason == "hung_up"
    ladder.settle()


def test_unknown_call_is_not_hung_up(ladder: Ladder) -> None:
    connect(ladder)
    assert not ladder.engine.hang_up("0" * 32, ladder.now)
    hang_up(ladder)
