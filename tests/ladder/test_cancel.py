"""CANCEL at every moment between the INVITE and its final answer, and the answers that it crosses."""

from __future__ import annotations

import pytest

from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import SECOND_HOST, Ladder, X


def ring(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.callee.answers(180)
    ladder.caller.get(180)


def is_cancelled(ladder: Ladder) -> None:
    """The caller has its 487, and the record says why."""
    ladder.caller.is_refused(487)
    record = ladder.record
    assert (record.outcome, record.sip_status, record.ended_by, record.end_reason) == (
        "cancelled",
        487,
        "caller",
        "cancel",
    )


def test_while_ringing(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    cancel = ladder.callee.get_request("CANCEL")
    assert ladder.callee.invite is not None
    assert cancel.branch == ladder.callee.invite.branch
    assert cancel.uri == ladder.callee.invite.uri
    ladder.callee.answers(200, cancel)
    ladder.callee.refuses(487)
    ladder.settle()


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ('SIP;cause=200;text="Call completed elsewhere by bob"', "SIP;cause=200"),
        ("Q.850;cause=16", "Q.850;cause=16"),
        ("Preemption;cause=1", None),
    ],
)
def test_reason_crosses_without_text(ladder: Ladder, reason: str, shown: str | None) -> None:
    ring(ladder)
    ladder.caller.cancels(f"Reason: {reason}\r\n")
    ladder.caller.get(200)
    is_cancelled(ladder)
    cancel = ladder.callee.expects("CANCEL")
    assert cancel.get("reason") == shown
    ladder.callee.refuses(487)
    ladder.settle()


def test_before_a_provisional_response_is_held(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.callee.gets_nothing()  # RFC 3261 9.1
    ladder.callee.answers(100)
    ladder.callee.expects("CANCEL")
    ladder.callee.answers(180)
    ladder.callee.gets_nothing()
    ladder.callee.refuses(487)
    ladder.caller.gets_nothing()
    ladder.settle()


def test_before_a_provisional_response_that_never_comes(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.settle()
    assert all(data.startswith(b"INVITE") for data, _ in ladder.callee.inbox)


def test_crossing_the_answer(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.callee.expects("CANCEL", 481)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.settle()


def test_held_and_the_answer_comes_at_once(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.callee.accepts(body=ANSWER)
    ladder.callee.expects("BYE")
    ladder.callee.answers(200, body=ANSWER)  # repeated before our ACK was there
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.settle()


def test_answer_long_after_the_cancel(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.callee.expects("CANCEL")
    ladder.run(20)
    ladder.callee.accepts(body=ANSWER)
    ladder.callee.expects("BYE")
    ladder.settle()


def test_callee_that_never_gives_a_final_answer_is_given_up(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.callee.expects("CANCEL")
    ladder.settle()


def test_crossing_a_refusal(ladder: Ladder) -> None:
    ring(ladder)
    ladder.hold_commits = True
    ladder.callee.refuses(486)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.release()
    ladder.caller.is_refused(486)
    assert ladder.record.outcome == "busy"
    ladder.settle()


def test_while_the_look_up_is_pending(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.release()
    ladder.callee.gets_nothing()
    assert ladder.record.routed_at is None
    ladder.settle()


def test_while_the_answer_is_being_committed_comes_too_late(ladder: Ladder) -> None:
    ring(ladder)
    ladder.hold_commits = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.release()
    ladder.callee.get("ACK")
    assert ladder.caller.get_response(200).cseq.method == "INVITE"
    ladder.caller.acks()
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.get(200)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("answered", "bye")
    ladder.settle()


def test_after_the_answer_changes_nothing(ladder: Ladder) -> None:
    ring(ladder)
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.get(200)
    ladder.caller.cancels()
    ladder.caller.is_answered()
    ladder.callee.gets_nothing()
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.get(200)
    ladder.settle()


def test_of_nothing_that_is_known(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.sent["INVITE"] = ladder.caller.sent["INVITE"].replace(b"z9hG4bK", b"z9hG4bKother")
    ladder.caller.cancels()
    ladder.caller.get(481)
    ladder.callee.refuses(486)
    ladder.caller.get(486)
    ladder.settle()


def test_that_comes_again_is_answered_again(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.caller.sends_again("CANCEL")
    ladder.caller.get(200)
    ladder.callee.expects("CANCEL")
    ladder.callee.gets_nothing()
    ladder.callee.refuses(487)
    ladder.settle()


def test_between_two_peers_leaves_the_second_alone() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    ring(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    ladder.callee.expects("CANCEL")
    ladder.callee.refuses(503)
    second.gets_nothing()
    ladder.settle()


def test_of_the_second_peer_after_the_first_failed() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    ring(ladder)
    ladder.callee.refuses(503)
    second.get("INVITE")
    second.answers(180)
    ladder.caller.get(180)
    ladder.caller.cancels()
    ladder.caller.get(200)
    is_cancelled(ladder)
    second.expects("CANCEL")
    second.refuses(487)
    ladder.callee.gets_nothing()
    ladder.settle()


def test_lost_cancel_and_lost_answer_to_it(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.callee.inbox.clear()  # lost
    ladder.run(0.5)
    ladder.callee.expects("CANCEL")
    ladder.callee.refuses(487)
    ladder.caller.get(200)
    ladder.run(0.1)
    ladder.caller.inbox = ladder.caller.inbox[-1:]
    is_cancelled(ladder)
    ladder.settle()
