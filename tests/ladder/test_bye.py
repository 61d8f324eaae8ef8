"""The end of a call: BYE from either side in every state, and crossing messages (RFC 5407 3)."""

from __future__ import annotations

import pytest

from tests.ladder.descriptions import ANSWER, HOLD
from tests.ladder.ladder import (
    EITHER,
    Ladder,
    answer_pending,
    bye,
    call_without_offer,
    complete,
    connect,
    connected,
    hang_up,
    ring,
    sides,
)


@EITHER
def test_bye_ends_the_other_leg(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("BYE", headers='Reason: Q.850;cause=31;text="bob has gone"\r\n')
    bye = asked.expects("BYE")
    assert bye.get_all("reason") == ["Q.850;cause=31"]
    asking.get(200)
    assert (ladder.record.ended_by, ladder.record.end_reason, ladder.record.q850_cause) == (by, "bye", 16)
    ladder.settle()


@EITHER
def test_bye_is_answered_after_the_record_is_closed(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    ladder.hold_commits = True
    asking.sends("BYE")
    asked.expects("BYE")
    asking.sends_again("BYE")
    asking.gets_nothing()
    ladder.release()
    asking.get(200)
    asking.sends_again("BYE")
    asking.get(200)
    assert ladder.commits == 2
    ladder.settle()


def test_crossing_byes_are_both_answered(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends("BYE")
    ladder.callee.sends("BYE")
    ladder.caller.get(200)
    bye = ladder.callee.get_request("BYE")
    ladder.callee.get(200)
    ladder.callee.answers(200, bye)
    ladder.caller.gets_nothing()
    assert ladder.record.ended_by == "caller"
    ladder.settle()


def test_crossing_byes_are_answered_after_the_record_is_closed(ladder: Ladder) -> None:
    connect(ladder)
    ladder.hold_commits = True
    ladder.callee.sends("BYE")
    ladder.caller.sends("BYE")
    bye = ladder.caller.get_request("BYE")
    ladder.caller.answers(481, bye)
    ladder.caller.gets_nothing()
    ladder.callee.gets_nothing()
    ladder.release()
    ladder.caller.get(200)
    ladder.callee.get(200)
    assert ladder.record.ended_by == "callee"
    ladder.settle()


@EITHER
def test_bye_before_the_answer_is_committed(ladder: Ladder, by: str) -> None:
    ring(ladder)
    answer_pending(ladder)
    sides(ladder, by)[0].sends("BYE")
    ladder.caller.gets_nothing()
    if by == "caller":
        ladder.callee.get("ACK")
        ladder.callee.expects("BYE")
    ladder.callee.gets_nothing()
    ladder.release()
    assert ladder.caller.get_response(200).cseq.method == "INVITE"
    ladder.caller.acks()
    if by == "caller":
        assert ladder.caller.get_response(200).cseq.method == "BYE"
    else:
        ladder.caller.expects("BYE")
        ladder.callee.get("ACK")
        ladder.callee.get(200)
    assert (ladder.record.outcome, ladder.record.ended_by) == ("answered", by)
    ladder.caller.gets_nothing()
    ladder.settle()


def test_bye_of_the_caller_before_its_ack(ladder: Ladder) -> None:
    """RFC 5407 3.1.2: the BYE overtakes the ACK, or the ACK is lost."""
    connect(ladder, acknowledge=False)
    bye(ladder.caller, ladder.callee)
    ladder.run(1)
    ladder.caller.gets_nothing()  # no retransmission of the 2xx after its BYE
    ladder.caller.acks()
    ladder.callee.gets_nothing()
    ladder.settle()


def callee_hangs_up_before_the_ack(ladder: Ladder) -> None:
    connect(ladder, acknowledge=False)
    ladder.callee.sends("BYE")
    ladder.callee.get(200)


def test_bye_of_the_callee_before_the_callers_ack_is_held(ladder: Ladder) -> None:
    callee_hangs_up_before_the_ack(ladder)
    ladder.caller.gets_nothing()  # RFC 3261 15: no BYE of ours to the caller before its ACK
    ladder.run(0.5)
    ladder.caller.is_answered()
    ladder.caller.expects("BYE")
    ladder.settle()


def test_bye_of_the_callee_without_the_callers_ack(ladder: Ladder) -> None:
    callee_hangs_up_before_the_ack(ladder)
    ladder.run(33)
    ladder.caller.inbox = [entry for entry in ladder.caller.inbox if not entry[0].startswith(b"SIP")][:1]
    ladder.caller.expects("BYE")
    ladder.settle()


def test_byes_of_both_before_the_callers_ack(ladder: Ladder) -> None:
    callee_hangs_up_before_the_ack(ladder)
    ladder.caller.sends("BYE")
    ladder.caller.get(200)
    ladder.caller.gets_nothing()
    ladder.settle()


def test_bye_of_the_caller_with_a_late_offer_unanswered(ladder: Ladder) -> None:
    call_without_offer(ladder)
    ladder.caller.sends("BYE")
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.caller.get(200)
    ladder.settle()


def test_bye_of_the_caller_in_an_early_dialog_cancels_the_call(ladder: Ladder) -> None:
    """RFC 3261 15: it ends the dialog, and with its only dialog the INVITE."""
    ring(ladder)
    ladder.hold_commits = True
    ladder.caller.sends("BYE")
    ladder.callee.is_cancelled()
    ladder.caller.gets_nothing()
    ladder.release()
    ladder.caller.get(487)
    ladder.caller.get(200)
    assert (ladder.record.outcome, ladder.record.ended_by) == ("cancelled", "caller")
    ladder.settle()


def test_bye_of_the_callee_in_an_early_dialog_is_refused(ladder: Ladder) -> None:
    ring(ladder)
    ladder.callee.sends("BYE")
    ladder.callee.get(481)
    complete(ladder)


@EITHER
@pytest.mark.parametrize("answered", [False, True])
def test_bye_crossing_a_reinvite_of_the_other_side(ladder: Ladder, by: str, answered: bool) -> None:
    asking, asked = connected(ladder, by)
    asked.reinvites(HOLD)
    asking.sends("BYE")  # before it received the re-INVITE
    reinvite = asking.get_request("INVITE")
    asking.get(200)
    asked.is_refused(487)
    asked.expects("BYE")
    if answered:
        asking.accepts(reinvite, body=ANSWER)
        asking.accepts(reinvite, body=ANSWER)
    else:
        asking.refuses(487, reinvite)
    asking.gets_nothing()
    ladder.settle()


@EITHER
def test_bye_crossing_a_reinvite_without_a_final_response(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asked.reinvites(HOLD)
    asking.answers(100, asking.get_request("INVITE"))
    asking.sends("BYE")
    asking.expects("CANCEL")
    asking.get(200)
    asked.get(487)
    asked.expects("BYE")
    ladder.settle()


@EITHER
def test_bye_after_ones_own_pending_reinvite(ladder: Ladder, by: str) -> None:
    """The user hangs up while the phone's own re-INVITE is pending."""
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    asking.sends("BYE")
    asking.is_refused(487)
    asking.get(200)
    reinvite = asked.get_request("INVITE")
    asked.expects("BYE")
    asked.refuses(487, reinvite)
    ladder.settle()


@EITHER
def test_bye_without_a_response_is_given_up_at_timer_f(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("BYE")
    asking.get(200)
    ladder.settle()
    assert len(asked.inbox) == 11  # RFC 3261 17.1.2.2: timer E up to F


@EITHER
@pytest.mark.parametrize("status", [401, 481, 500])
def test_refused_bye_ends_the_call(ladder: Ladder, by: str, status: int) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("BYE")
    asking.get(200)
    asked.expects("BYE", status)
    ladder.run(0.1)
    assert ladder.engine.statistics()["legs"] == 0
    ladder.settle()


@EITHER
def test_bye_with_an_old_cseq_is_refused(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.sends("OPTIONS")
    asked.expects("OPTIONS")
    asking.get(200)
    asking.sends("BYE", cseq=asking.cseq)
    asking.get(500)
    asked.gets_nothing()
    hang_up(ladder, by)


def test_bye_after_the_call_is_481(ladder: Ladder) -> None:
    connect(ladder)
    hang_up(ladder)
    ladder.caller.sends("BYE")
    ladder.caller.get(481)
    ladder.callee.sends("BYE")
    ladder.callee.get(481)
    ladder.settle()
