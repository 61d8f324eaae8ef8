"""A callee behind a forking proxy: several early dialogs, mirrored one to one, and more than one answer."""

from __future__ import annotations

import pytest

from relay.call.outbound_attempt import MOST_FORKS
from tests.ladder.descriptions import ANSWER, HELD, HOLD
from tests.ladder.ladder import Ladder, call, hang_up

BACKEND = "<sip:bob-backend@127.0.0.22:5060>"
MOBILE = "<sip:bob-mobile@127.0.0.22:5070>"


def start(ladder: Ladder) -> None:
    call(ladder, headers="Supported: 100rel\r\n")


def both_ring(ladder: Ladder) -> None:
    start(ladder)
    for tag in ("bob-backend", "bob-mobile"):
        ladder.callee.proceeds(180, tag=tag)


def mobile_answers(ladder: Ladder) -> None:
    ladder.callee.accepts(tag="bob-mobile", contact=MOBILE, body=ANSWER)
    ladder.caller.is_answered()


def hang_up_mobile(ladder: Ladder) -> None:
    ladder.callee.tag = "bob-mobile"
    hang_up(ladder)


def test_second_fork_answers_the_call(ladder: Ladder) -> None:
    start(ladder)
    backend = ladder.callee.proceeds(183, tag="bob-backend", contact=BACKEND, body=HELD)
    mobile = ladder.callee.proceeds(183, tag="bob-mobile", contact=MOBILE, body=ANSWER)
    assert backend.to_tag != mobile.to_tag
    ladder.callee.answers(200, tag="bob-mobile", contact=MOBILE, body=ANSWER)
    ack = ladder.callee.get_request("ACK")
    assert (ack.uri, ack.to_tag) == ("sip:bob-mobile@127.0.0.22:5070", "bob-mobile")
    assert ladder.caller.get_response(200).to_tag == mobile.to_tag
    ladder.caller.acks()
    assert ladder.engine.statistics()["legs"] == 2
    hang_up_mobile(ladder)


def test_requests_stay_in_their_early_dialog(ladder: Ladder) -> None:
    start(ladder)
    tags = []
    for ours, tag, contact in ((1, "bob-backend", BACKEND), (2, "bob-mobile", MOBILE)):
        headers = "Require: 100rel\r\nRSeq: 9\r\n"
        progress = ladder.callee.proceeds(183, tag=tag, contact=contact, headers=headers, body=ANSWER)
        assert progress.rseq == ours  # counted by INVITE
        tags.append(progress.to_tag or "")
    for ours, tag, theirs in zip((1, 2), tags, ("bob-backend", "bob-mobile"), strict=True):
        ladder.caller.remote_tag = tag
        ladder.caller.sends("PRACK", headers=f"RAck: {ours} 1 INVITE\r\n")
        prack = ladder.callee.expects("PRACK")
        assert (prack.to_tag, prack.rack) == (theirs, (9, 1, "INVITE"))
        assert prack.uri == (BACKEND if theirs == "bob-backend" else MOBILE)[1:-1]
        ladder.caller.get(200)
    ladder.callee.tag = "bob-backend"
    ladder.caller.remote_tag = tags[0]
    ladder.caller.updates(HOLD)
    assert ladder.callee.expects("UPDATE", body=HELD).to_tag == "bob-backend"
    ladder.caller.get(200)
    ladder.callee.accepts(tag="bob-backend", contact=BACKEND)
    assert ladder.caller.get_response(200).to_tag == tags[0]
    ladder.caller.acks()
    hang_up(ladder)


def test_losing_early_dialog_ends(ladder: Ladder) -> None:
    start(ladder)
    ladder.callee.answers(183, tag="bob-backend", contact=BACKEND)
    lost = ladder.caller.get_response(183).to_tag or ""
    ladder.callee.accepts(tag="bob-mobile", contact=MOBILE, body=ANSWER)
    won = ladder.caller.get_response(200).to_tag or ""
    ladder.caller.acks()
    ladder.caller.remote_tag = lost
    ladder.caller.sends("BYE")
    ladder.caller.get(481)
    ladder.callee.gets_nothing()
    ladder.caller.remote_tag = won
    hang_up_mobile(ladder)


def test_second_answer_gets_ack_and_bye(ladder: Ladder) -> None:
    """RFC 3261 13.2.2.4: each is acknowledged, the second is hung up."""
    start(ladder)
    ladder.callee.proceeds(180, tag="bob-backend", contact=BACKEND)
    mobile_answers(ladder)
    for _ in range(2):  # retransmitted before our ACK arrives
        ladder.callee.answers(200, tag="bob-backend", contact=BACKEND, body=ANSWER)
        assert ladder.callee.get("ACK").to_tag == "bob-backend"
        if ladder.callee.inbox:
            bye = ladder.callee.expects("BYE")
            assert (bye.to_tag, bye.uri) == ("bob-backend", "sip:bob-backend@127.0.0.22:5060")
    ladder.callee.gets_nothing()
    ladder.caller.gets_nothing()
    ladder.callee.answers(200, tag="bob-mobile", contact=MOBILE, body=ANSWER)
    assert ladder.callee.get("ACK").to_tag == "bob-mobile"
    hang_up_mobile(ladder)


def test_second_answer_before_the_first_is_committed(ladder: Ladder) -> None:
    start(ladder)
    ladder.hold_commits = True
    ladder.callee.answers(200, tag="bob-mobile", contact=MOBILE, body=ANSWER)
    ladder.callee.answers(200, tag="bob-backend", contact=BACKEND, body=ANSWER)
    assert ladder.callee.get("ACK").to_tag == "bob-backend"
    assert ladder.callee.expects("BYE").to_tag == "bob-backend"
    ladder.release()
    assert ladder.callee.get("ACK").to_tag == "bob-mobile"
    ladder.caller.is_answered()
    hang_up_mobile(ladder)


def test_unusable_second_answer_does_not_affect_the_call(ladder: Ladder) -> None:
    start(ladder)
    mobile_answers(ladder)
    ladder.callee.accepts(tag="bob-backend", contact="<tel:110>", body=ANSWER)
    assert ladder.callee.expects("BYE").to_tag == "bob-backend"
    hang_up_mobile(ladder)


def test_late_ringing_of_another_fork_is_ignored(ladder: Ladder) -> None:
    start(ladder)
    mobile_answers(ladder)
    ladder.callee.answers(180, tag="bob-backend", contact=BACKEND)
    ladder.caller.gets_nothing()
    assert ladder.engine.statistics()["legs"] == 2
    hang_up_mobile(ladder)


def test_refusal_of_all_forks_is_relayed(ladder: Ladder) -> None:
    both_ring(ladder)
    ladder.callee.refuses(486, tag="bob-mobile")
    ladder.caller.is_refused(486)
    assert ladder.engine.statistics()["legs"] == 0
    ladder.settle()


def test_cancel_crossing_two_answers(ladder: Ladder) -> None:
    both_ring(ladder)
    ladder.caller.gives_up()
    ladder.callee.expects("CANCEL", 200)
    for tag in ("bob-backend", "bob-mobile"):
        ladder.callee.answers(200, tag=tag, body=ANSWER)
        assert ladder.callee.get("ACK").to_tag == tag
        assert ladder.callee.expects("BYE").to_tag == tag
    ladder.settle()


def test_forks_over_the_limit_are_ignored_but_not_the_answer(ladder: Ladder) -> None:
    start(ladder)
    for number in range(40):
        ladder.callee.answers(180, tag=f"bob-{number}")
    assert len(ladder.caller.inbox) == MOST_FORKS
    ladder.caller.inbox.clear()
    ladder.callee.answers(200, tag="bob-mobile", contact=MOBILE, body=ANSWER)
    assert ladder.callee.get("ACK").to_tag == "bob-mobile"
    ladder.caller.is_answered()
    for number in range(40):
        ladder.callee.answers(200, tag=f"bob-{number}", body=ANSWER)
    assert len(ladder.callee.inbox) == 2 * (MOST_FORKS - 1)  # ACK and BYE each
    for _ in range(MOST_FORKS - 1):
        ladder.callee.get("ACK")
        ladder.callee.expects("BYE")
    hang_up_mobile(ladder)


def test_cancel_then_ringing_of_one_fork_and_answer_of_another(ladder: Ladder) -> None:
    start(ladder)
    ladder.callee.answers(100)
    ladder.caller.gives_up()
    ladder.callee.expects("CANCEL", 200)
    ladder.callee.answers(180, tag="bob-backend")
    assert ladder.engine.statistics()["legs"] == 0
    ladder.callee.accepts(tag="bob-mobile", body=ANSWER)
    ladder.callee.expects("BYE")
    ladder.settle()


def test_losing_dialog_that_is_gone_does_not_end_the_answered_call(ladder: Ladder) -> None:
    start(ladder)
    backend = ladder.callee.proceeds(183, tag="bob-backend", contact=BACKEND, body=HELD)
    ladder.caller.remote_tag = backend.to_tag
    ladder.caller.sends("INFO", body=b"1", content_type="application/dtmf")
    info = ladder.callee.get_request("INFO")
    mobile_answers(ladder)
    ladder.callee.answers(481, info)
    assert ladder.caller.get_response(481).cseq.method == "INFO"
    ladder.callee.gets_nothing()
    hang_up_mobile(ladder)


@pytest.mark.parametrize("method", ["UPDATE", "INFO"])
@pytest.mark.parametrize("status", [408, 481])
def test_early_dialog_that_is_gone_leaves_the_call_to_the_other(ladder: Ladder, method: str, status: int) -> None:
    start(ladder)
    backend = ladder.callee.proceeds(183, tag="bob-backend", contact=BACKEND, body=ANSWER)
    ladder.callee.proceeds(180, tag="bob-mobile")
    ladder.caller.remote_tag = backend.to_tag
    ladder.caller.sends(method)
    ladder.callee.expects(method, status)
    ladder.caller.get(status)
    mobile_answers(ladder)
    hang_up_mobile(ladder)


def test_prack_without_a_response_in_a_losing_dialog_does_not_end_the_call(ladder: Ladder) -> None:
    start(ladder)
    headers = "Require: 100rel\r\nRSeq: 1\r\n"
    backend = ladder.callee.proceeds(183, tag="bob-backend", contact=BACKEND, headers=headers, body=HELD)
    ladder.caller.remote_tag = backend.to_tag
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
    ladder.callee.get("PRACK")
    mobile_answers(ladder)
    ladder.run(33)
    assert ladder.caller.get_response(408).cseq.method == "PRACK"
    ladder.callee.inbox.clear()  # repetitions of PRACK
    hang_up_mobile(ladder)


def test_refresh_of_a_losing_dialog_leaves_the_session_timer(ladder: Ladder) -> None:
    start(ladder)
    backend = ladder.callee.proceeds(183, tag="bob-backend", contact=BACKEND, body=ANSWER)
    ladder.caller.remote_tag = backend.to_tag
    ladder.caller.sends("UPDATE")
    update = ladder.callee.get_request("UPDATE")
    mobile_answers(ladder)
    ladder.callee.answers(200, update, headers="Session-Expires: 2\r\n")
    ladder.caller.get(200)
    ladder.run(5)
    hang_up_mobile(ladder)
