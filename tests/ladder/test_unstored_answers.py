"""Answers whose record the store does not take: they are withdrawn after a while, on a store that nodes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, answer_pending, call, hang_up, ring

WAIT_S = 10.0


@pytest.fixture
def waiting() -> Iterator[Ladder]:
    """A call that has been answered, and whose record waits."""
    ladder = Ladder(answer_wait_s=WAIT_S)
    ladder.hold_answers = True
    ring(ladder)
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.gets_nothing()
    yield ladder


def is_answered(ladder: Ladder) -> None:
    ladder.caller.is_answered()
    ladder.callee.get("ACK")


def is_refused(ladder: Ladder) -> None:
    assert ladder.caller.get_response(503).get("retry-after")
    ladder.caller.acks_refusal()


def forget_answer(ladder: Ladder) -> None:
    """The store takes the record of the end first, and then that of the answer no more."""
    for action in ladder._held:
        ladder.engine.committed(action.token, ladder.now)
    ladder._held.clear()
    ladder.perform()


def test_answer_that_is_stored_in_time_is_given(waiting: Ladder) -> None:
    waiting.run(WAIT_S - 0.1)
    waiting.release()
    is_answered(waiting)
    waiting.run(WAIT_S)
    hang_up(waiting)


def test_answer_that_is_not_stored_in_time_ends_the_call(waiting: Ladder) -> None:
    waiting.run(WAIT_S)
    waiting.callee.expects("ACK")
    waiting.callee.expects("BYE")
    is_refused(waiting)
    record = waiting.record
    assert (record.outcome, record.sip_status, record.q850_cause) == ("store_failed", 503, 41)
    assert (record.ended_by, record.end_reason) == ("relay", "store_failed")
    assert record.answered_at is record.duration_ms is None
    assert waiting.engine.refusals() == {"store_failed": 1}
    forget_answer(waiting)
    waiting.settle()


def test_answer_that_is_stored_too_late_is_not_given() -> None:
    ladder = Ladder(answer_wait_s=WAIT_S)
    ladder.hold_commits = True
    ring(ladder)
    ladder.callee.answers(200, body=ANSWER)
    ladder.run(WAIT_S)
    ladder.callee.expects("ACK")
    ladder.callee.expects("BYE")
    ladder.caller.gets_nothing()  # the record of the refusal waits, too
    ladder.release()
    is_refused(ladder)
    assert ladder.record.outcome == "store_failed"
    ladder.settle()


def test_answer_with_an_offer_is_withdrawn_likewise() -> None:
    ladder = Ladder(answer_wait_s=WAIT_S)
    ladder.hold_commits = True
    call(ladder, body=b"")
    ladder.callee.answers(200, body=OFFER)
    ladder.run(WAIT_S)
    ladder.callee.expects("ACK")
    ladder.callee.expects("BYE")
    ladder.release()
    is_refused(ladder)
    ladder.settle()


def test_call_whose_callee_has_hung_up_meanwhile_was_answered(waiting: Ladder) -> None:
    waiting.callee.sends("BYE")
    waiting.callee.get(200)
    waiting.run(WAIT_S)
    waiting.caller.is_answered()
    waiting.caller.expects("BYE")
    record = waiting.record
    assert (record.outcome, record.ended_by, record.end_reason) == ("answered", "callee", "bye")
    forget_answer(waiting)
    waiting.settle()


def test_restart_meanwhile_refuses_the_caller(waiting: Ladder) -> None:
    waiting.hold_answers = False
    waiting.restart()
    is_refused(waiting)
    assert waiting.record.end_reason == "lost_at_restart"


def test_a_store_in_a_file_has_no_limit() -> None:
    ladder = Ladder()
    ring(ladder)
    answer_pending(ladder)
    ladder.run(10 * WAIT_S)
    ladder.caller.gets_nothing()
    ladder.release()
    is_answered(ladder)
    hang_up(ladder)
