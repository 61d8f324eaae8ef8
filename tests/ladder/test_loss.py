"""What is lost on the way, and what comes twice."""

from __future__ import annotations

from relay.call.setup import TRYING_S
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, X, connect, hang_up


def test_lost_trying(ladder: Ladder) -> None:
    ladder.lose_next = 1
    ladder.caller.invites(X)
    ladder.caller.gets_nothing()
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(100)
    ladder.callee.expects("INVITE", 180)
    ladder.callee.gets_nothing()
    ladder.caller.get(180)
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(180)
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_lost_invite_is_sent_again(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.inbox.clear()
    for interval in (0.5, 1, 2, 4, 8, 16):  # timer A
        ladder.run(interval)
        ladder.callee.get("INVITE")
        ladder.callee.gets_nothing()
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_invite_is_not_sent_again_after_a_provisional_response(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 100)
    ladder.run(60)
    ladder.callee.gets_nothing()
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_invite_that_comes_again_while_the_look_up_is_pending(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    ladder.caller.sends_again("INVITE")
    ladder.caller.gets_nothing()
    ladder.run(TRYING_S)
    ladder.caller.get(100)
    for _ in range(3):
        ladder.caller.sends_again("INVITE")
        ladder.caller.get(100)
    assert ladder.engine.statistics()["pending_lookups"] == 1
    ladder.release()
    ladder.callee.expects("INVITE", 200, body=ANSWER)
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.caller.is_answered()
    hang_up(ladder)
    assert len(ladder.records) == 1


def test_invite_that_comes_again_while_the_answer_is_being_committed(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.hold_commits = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(100)
    ladder.release()
    ladder.callee.get("ACK")
    ladder.caller.is_answered()
    hang_up(ladder)


def test_invite_that_comes_again_after_the_answer(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends_again("INVITE")
    ladder.caller.gets_nothing()  # RFC 6026 7.1: absorbed; the answer is the user's to send again
    ladder.callee.gets_nothing()
    hang_up(ladder)
    assert len(ladder.records) == 1


def test_invite_that_comes_again_after_a_refusal(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 486)
    ladder.callee.get("ACK")
    ladder.caller.get(486)
    ladder.caller.sends_again("INVITE")
    ladder.caller.is_refused(486)
    ladder.caller.sends_again("INVITE")
    ladder.caller.gets_nothing()
    ladder.settle()
    assert len(ladder.records) == 1


def test_lost_ack_to_a_refusal(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 486)
    ladder.callee.get("ACK")
    ladder.caller.get(486)
    for interval in (0.5, 1, 2, 4, 4):  # timer G
        ladder.run(interval)
        ladder.caller.get(486)
        ladder.caller.gets_nothing()
    ladder.caller.acks_refusal()
    ladder.run(20)
    ladder.caller.gets_nothing()
    ladder.settle()


def test_lost_ack_to_a_cancelled_invite_never_comes(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 180)
    ladder.caller.get(180)
    ladder.caller.cancels()
    ladder.callee.expects("CANCEL")
    ladder.callee.refuses(487)
    ladder.settle()
    assert len(ladder.caller.inbox) == 12  # 200 to CANCEL, 487 eleven times until timer H


def test_callees_refusal_that_comes_again_is_acknowledged_again(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    invite = ladder.callee.expects("INVITE", 486)
    ack = ladder.callee.get_request("ACK")
    assert (ack.branch, ack.uri, ack.to_tag) == (invite.branch, invite.uri, ladder.callee.tag)
    ladder.callee.answers_again()
    assert ladder.callee.get("ACK").branch == invite.branch
    ladder.caller.is_refused(486)
    ladder.settle()


def test_lost_ack_to_the_callee(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.get("INVITE")
    ladder.hold_commits = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.lose_next = 2  # the 200 to the caller, the ACK to the callee
    ladder.release()
    ladder.callee.gets_nothing()
    ladder.callee.answers_again()
    ladder.callee.get("ACK")
    ladder.run(0.5)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_lost_answer_to_bye(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.inbox.clear()
    ladder.caller.sends_again("BYE")
    ladder.caller.get(200)
    ladder.settle()
