"""Loss and retransmission."""

from __future__ import annotations

from relay.call.invite_session import TRYING_S
from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, answer_pending, call, complete, connect, hang_up, ring
from tests.ladder.settings import X


def test_lost_100_is_repeated(ladder: Ladder) -> None:
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
    complete(ladder)


def test_lost_invite_is_retransmitted(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.inbox.clear()
    for interval in (0.5, 1, 2, 4, 8, 16):  # timer A
        ladder.run(interval)
        ladder.callee.get("INVITE")
        ladder.callee.gets_nothing()
    complete(ladder)


def test_no_retransmission_after_a_provisional_response(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 100)
    ladder.run(60)
    ladder.callee.gets_nothing()
    complete(ladder)


def test_retransmitted_invite_during_the_look_up(ladder: Ladder) -> None:
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
    ladder.callee.agrees(ANSWER)
    ladder.callee.gets_nothing()
    ladder.caller.is_answered()
    hang_up(ladder)
    assert len(ladder.records) == 1


def test_retransmitted_invite_during_the_commit_of_the_answer(ladder: Ladder) -> None:
    call(ladder)
    answer_pending(ladder)
    ladder.caller.sends_again("INVITE")
    ladder.caller.get(100)
    ladder.release()
    ladder.callee.get("ACK")
    ladder.caller.is_answered()
    hang_up(ladder)


def test_retransmitted_invite_after_the_answer_is_absorbed(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends_again("INVITE")
    ladder.caller.gets_nothing()  # RFC 6026 7.1: absorbed; the answer is the user's to send again
    ladder.callee.gets_nothing()
    hang_up(ladder)
    assert len(ladder.records) == 1


def test_retransmitted_invite_after_a_refusal_gets_it_again(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.refuses(486)
    ladder.caller.get(486)
    ladder.caller.sends_again("INVITE")
    ladder.caller.is_refused(486)
    ladder.caller.sends_again("INVITE")
    ladder.caller.gets_nothing()
    ladder.settle()
    assert len(ladder.records) == 1


def test_refusal_is_retransmitted_until_its_ack(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.refuses(486)
    ladder.caller.get(486)
    for interval in (0.5, 1, 2, 4, 4):  # timer G
        ladder.run(interval)
        ladder.caller.get(486)
        ladder.caller.gets_nothing()
    ladder.caller.acks_refusal()
    ladder.run(20)
    ladder.caller.gets_nothing()
    ladder.settle()


def test_487_is_given_up_at_timer_h_without_an_ack(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.callee.is_cancelled()
    ladder.settle()
    assert len(ladder.caller.inbox) == 12  # 200 to CANCEL, 487 eleven times until timer H


def test_callees_retransmitted_refusal_gets_the_ack_again(ladder: Ladder) -> None:
    invite = call(ladder)
    ladder.callee.answers(486)
    ack = ladder.callee.get_request("ACK")
    assert (ack.branch, ack.uri, ack.to_tag) == (invite.branch, invite.uri, ladder.callee.tag)
    ladder.callee.answers_again()
    assert ladder.callee.get("ACK").branch == invite.branch
    ladder.caller.is_refused(486)
    ladder.settle()


def test_lost_ack_to_the_callee_is_repeated(ladder: Ladder) -> None:
    call(ladder)
    answer_pending(ladder)
    ladder.lose_next = 2  # the 200 to the caller, the ACK to the callee
    ladder.release()
    ladder.callee.gets_nothing()
    ladder.callee.answers_again()
    ladder.callee.get("ACK")
    ladder.run(0.5)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_lost_200_to_bye_is_repeated(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.caller.inbox.clear()
    ladder.caller.sends_again("BYE")
    ladder.caller.get(200)
    ladder.settle()
