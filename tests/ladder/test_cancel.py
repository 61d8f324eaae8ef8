"""CANCEL in every state between the INVITE and its final response, and crossing responses."""

from __future__ import annotations

import pytest

from tests.ladder.descriptions import ANSWER
from tests.ladder.ladder import Ladder, answer_pending, bye, call, hang_up, ring
from tests.ladder.settings import SECOND_HOST, X


def is_cancelled(ladder: Ladder) -> None:
    """The caller gets 200 and 487, and the record has the reason."""
    ladder.caller.get(200)
    ladder.caller.is_refused(487)
    record = ladder.record
    assert (record.outcome, record.sip_status) == ("cancelled", 487)
    assert (record.ended_by, record.end_reason) == ("caller", "cancel")


def cancel(ladder: Ladder, headers: str = "") -> None:
    ladder.caller.cancels(headers)
    is_cancelled(ladder)


def cancel_while_ringing(ladder: Ladder) -> None:
    ring(ladder)
    cancel(ladder)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("", None),
        ('Reason: SIP;cause=200;text="Call completed elsewhere by bob"\r\n', "SIP;cause=200"),
        ("Reason: Q.850;cause=16\r\n", "Q.850;cause=16"),
        ("Reason: Preemption;cause=1\r\n", None),
    ],
    ids=["none", "text is dropped", "Q.850", "unknown protocol"],
)
def test_cancel_while_ringing_is_relayed_with_its_reason(ladder: Ladder, reason: str, shown: str | None) -> None:
    invite = ring(ladder)
    cancel(ladder, reason)
    received = ladder.callee.is_cancelled()
    assert (received.branch, received.uri, received.get("reason")) == (invite.branch, invite.uri, shown)
    ladder.settle()


@pytest.mark.parametrize("rings", [False, True])
def test_cancel_and_its_invite_are_answered_with_one_tag(ladder: Ladder, rings: bool) -> None:
    """RFC 3261 8.2.6.2, 9.2."""
    call(ladder)
    tags = {ladder.callee.proceeds(180).to_tag} if rings else set()
    ladder.caller.cancels()
    tags |= {ladder.caller.get_response(status).to_tag for status in (200, 487)}
    assert len(tags) == 1
    ladder.caller.acks_refusal()
    if not rings:
        ladder.callee.answers(180)
    ladder.callee.is_cancelled()
    ladder.settle()


def test_require_in_a_cancel_and_an_ack_is_ignored(ladder: Ladder) -> None:
    """RFC 3261 8.2.2.3."""
    ring(ladder)
    ladder.caller.cancels("Require: telepathy\r\nProxy-Require: telepathy\r\n")
    ladder.caller.get(200)
    ladder.caller.is_refused(487)
    ladder.callee.is_cancelled()
    ring(ladder)
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.get(200)
    ladder.caller.sends("ACK", headers="Require: telepathy\r\n")
    ladder.run(40)
    ladder.caller.gets_nothing()
    hang_up(ladder)


def test_cancel_is_held_until_a_provisional_response(ladder: Ladder) -> None:
    call(ladder)
    cancel(ladder)
    ladder.callee.gets_nothing()  # RFC 3261 9.1
    ladder.callee.answers(100)
    ladder.callee.expects("CANCEL")
    ladder.callee.answers(180)
    ladder.callee.gets_nothing()
    ladder.callee.refuses(487)
    ladder.caller.gets_nothing()
    ladder.settle()


def test_cancel_without_any_provisional_response(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    cancel(ladder)
    ladder.settle()
    assert {data[:7] for data, _ in ladder.callee.inbox} == {b"INVITE "}


def test_cancel_crossing_the_answer(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.callee.answers(200, body=ANSWER)
    is_cancelled(ladder)
    ladder.callee.expects("CANCEL", 481)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.settle()


def test_held_cancel_and_an_immediate_answer(ladder: Ladder) -> None:
    call(ladder)
    cancel(ladder)
    ladder.callee.accepts(body=ANSWER)
    ladder.callee.expects("BYE")
    ladder.callee.answers(200, body=ANSWER)  # retransmitted before our ACK arrived
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.settle()


def test_late_answer_after_the_cancel_is_hung_up(ladder: Ladder) -> None:
    cancel_while_ringing(ladder)
    ladder.callee.expects("CANCEL")
    ladder.run(20)
    ladder.callee.accepts(body=ANSWER)
    ladder.callee.expects("BYE")
    ladder.settle()


def test_callee_without_a_final_response_is_given_up(ladder: Ladder) -> None:
    cancel_while_ringing(ladder)
    ladder.callee.expects("CANCEL")
    ladder.settle()


def test_cancel_crossing_a_refusal(ladder: Ladder) -> None:
    ring(ladder)
    ladder.hold_commits = True
    ladder.callee.refuses(486)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.release()
    ladder.caller.is_refused(486)
    assert ladder.record.outcome == "busy"
    ladder.settle()


def test_cancel_while_the_look_up_is_pending(ladder: Ladder) -> None:
    ladder.hold_look_ups = True
    ladder.caller.calls(X)
    cancel(ladder)
    ladder.release()
    ladder.callee.gets_nothing()
    assert ladder.record.routed_at is None
    ladder.settle()


def test_cancel_during_the_commit_of_the_answer_is_too_late(ladder: Ladder) -> None:
    ring(ladder)
    answer_pending(ladder)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.release()
    ladder.callee.get("ACK")
    assert ladder.caller.get_response(200).cseq.method == "INVITE"
    ladder.caller.acks()
    bye(ladder.caller, ladder.callee)
    assert (ladder.record.outcome, ladder.record.end_reason) == ("answered", "bye")
    ladder.settle()


def test_cancel_after_the_answer_has_no_effect(ladder: Ladder) -> None:
    ring(ladder)
    ladder.callee.accepts(body=ANSWER)
    ladder.caller.get(200)
    ladder.caller.cancels()
    ladder.caller.is_answered()
    ladder.callee.gets_nothing()
    hang_up(ladder)


def test_cancel_without_an_invite_is_481(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.sent["INVITE"] = ladder.caller.sent["INVITE"].replace(b"z9hG4bK", b"z9hG4bKother")
    ladder.caller.cancels()
    ladder.caller.get(481)
    ladder.callee.refuses(486)
    ladder.caller.get(486)
    ladder.settle()


def test_retransmitted_cancel_is_answered_again(ladder: Ladder) -> None:
    cancel_while_ringing(ladder)
    ladder.caller.sends_again("CANCEL")
    ladder.caller.get(200)
    ladder.callee.expects("CANCEL")
    ladder.callee.gets_nothing()
    ladder.callee.refuses(487)
    ladder.settle()


def test_cancel_between_two_peers_does_not_try_the_second() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    cancel_while_ringing(ladder)
    ladder.callee.expects("CANCEL")
    ladder.callee.refuses(503)
    second.gets_nothing()
    ladder.settle()


def test_cancel_while_the_second_peer_rings() -> None:
    ladder = Ladder(tried=("carrier", "second"))
    second = ladder.side(SECOND_HOST, "carol")
    ring(ladder)
    ladder.callee.refuses(503)
    second.rings()
    cancel(ladder)
    second.is_cancelled()
    ladder.callee.gets_nothing()
    ladder.settle()


def test_lost_cancel_and_lost_200_are_retransmitted(ladder: Ladder) -> None:
    ring(ladder)
    ladder.caller.cancels()
    ladder.callee.inbox.clear()  # lost
    ladder.run(0.5)
    ladder.callee.is_cancelled()
    ladder.run(0.1)
    del ladder.caller.inbox[1:-1]
    is_cancelled(ladder)
    ladder.settle()
