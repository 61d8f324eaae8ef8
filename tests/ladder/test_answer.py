"""From INVITE to ACK: early and late offers, ringing, answer, ACK, loss."""

from __future__ import annotations

import pytest

from relay.call.invite_session import TRYING_S
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import Ladder, answer, answer_pending, call, call_without_offer, complete, connect, hang_up
from tests.ladder.settings import X


def test_100_is_sent_first(ladder: Ladder) -> None:
    ladder.hold_look_ups = ladder.hold_commits = True
    ladder.caller.invites(X)
    ladder.run(TRYING_S)
    trying = ladder.caller.get_response(100)
    assert trying.to_tag is None
    ladder.release()
    ladder.callee.expects("INVITE", 486)
    ladder.caller.is_refused(486)
    ladder.settle()


@pytest.mark.parametrize(
    ("given", "copied"),
    [("54.21", "54.21"), ("54 0.3", "54 0.3"), ("5" * 40, None), ("Alice", None), ("1.2 3 4", None)],
)
def test_100_has_the_timestamp_of_its_request(ladder: Ladder, given: str, copied: str | None) -> None:
    """RFC 3261 8.2.6.1. A malformed one is not copied."""
    ladder.caller.invites(X, headers=f"Timestamp: {given}\r\n")
    assert ladder.caller.get_response(100).get("timestamp") == copied
    assert not ladder.callee.get_request("INVITE").has("timestamp")
    answer(ladder)
    ladder.caller.sends("INVITE", headers=f"Contact: {ladder.caller.contact}\r\nTimestamp: {given}\r\n")
    assert ladder.caller.get_response(100).get("timestamp") == copied
    ladder.callee.expects("INVITE", 488)
    ladder.caller.is_refused(488)
    hang_up(ladder)


def test_late_offer_is_answered_in_the_ack(ladder: Ladder) -> None:
    invite = call(ladder, body=b"")
    assert not invite.body
    ladder.callee.answers(200, body=OFFER)
    ladder.callee.gets_nothing()  # its ACK needs the caller's SDP
    assert b"m=audio 4000" in ladder.caller.get(200).body
    ladder.caller.acks(body=ANSWER)
    ack = ladder.callee.get_request("ACK")
    assert b"m=audio 5000" in ack.body
    assert ack.cseq == (1, "ACK")
    hang_up(ladder)


def test_callee_gets_its_ack_when_the_callers_ack_has_no_sdp(ladder: Ladder) -> None:
    call_without_offer(ladder)
    ladder.caller.acks(body=b"v=0 is no description")
    assert not ladder.callee.get("ACK").body
    hang_up(ladder)


@pytest.mark.parametrize(("status", "shown"), [(180, 180), (181, 182), (182, 182), (183, 183)])
def test_provisional_responses_are_relayed(ladder: Ladder, status: int, shown: int) -> None:
    call(ladder)
    ladder.callee.answers(status)
    ladder.caller.get(shown)
    assert (ladder.engine.statistics()["legs"], ladder.commits) == (2, 0)
    answer(ladder)
    assert (ladder.record.ringing_at is not None) == (status == 180)
    hang_up(ladder)


@pytest.mark.parametrize("status", [100, 199])
def test_provisional_responses_of_the_callees_network_are_hidden(ladder: Ladder, status: int) -> None:
    call(ladder)
    ladder.callee.answers(status)
    ladder.caller.gets_nothing()
    ladder.callee.refuses(486)
    ladder.caller.is_refused(486)
    ladder.settle()


def test_early_media_and_answer_share_one_dialog(ladder: Ladder) -> None:
    call(ladder)
    early = ladder.callee.proceeds(183, body=ANSWER)
    assert b"m=audio 5000" in early.body
    ringing = ladder.callee.proceeds(180)
    ladder.callee.accepts(body=ANSWER)
    answer = ladder.caller.get_response(200)
    assert early.to_tag == ringing.to_tag == answer.to_tag
    assert early.body == answer.body
    ladder.caller.acks()
    hang_up(ladder)


def test_ringing_without_a_to_tag_is_relayed(ladder: Ladder) -> None:
    """As RFC 2543 gateways ring."""
    call(ladder)
    ladder.callee.answers(180, tag="")
    assert ladder.caller.get_response(180).to_tag
    complete(ladder)


def test_call_is_answered_without_ringing(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.agrees(ANSWER)
    ladder.caller.is_answered()
    assert ladder.record.ringing_at is None
    hang_up(ladder)


def test_2xx_is_retransmitted_until_its_ack(ladder: Ladder) -> None:
    connect(ladder, acknowledge=False)
    ladder.run(0.49)
    ladder.caller.gets_nothing()
    for interval in (0.01, 1.0, 2.0, 4.0, 4.0):  # T1, doubling up to T2
        ladder.run(interval)
        ladder.caller.get(200)
        ladder.run(0)
        ladder.caller.gets_nothing()
    ladder.caller.acks()
    ladder.run(10)
    ladder.caller.gets_nothing()
    hang_up(ladder)


def test_missing_ack_ends_the_call(ladder: Ladder) -> None:
    connect(ladder, acknowledge=False)
    ladder.run(31.9)
    ladder.callee.gets_nothing()
    ladder.caller.inbox.clear()
    ladder.run(0.2)
    ladder.caller.expects("BYE")
    bye = ladder.callee.expects("BYE")
    assert bye.get("reason") == "Q.850;cause=102"
    assert (ladder.record.outcome, ladder.record.ended_by, ladder.record.end_reason) == (
        "answered",
        "relay",
        "ack_timeout",
    )
    ladder.settle()


def test_missing_ack_after_a_late_offer_ends_the_call(ladder: Ladder) -> None:
    ladder.caller.calls(X, body=b"")
    ladder.callee.expects("INVITE", 200, body=OFFER)
    ladder.run(32.1)
    ladder.callee.get("ACK")  # RFC 3261 13.2.2.4: a 2xx is acknowledged before the BYE
    ladder.callee.expects("BYE")
    ladder.caller.inbox = ladder.caller.inbox[-1:]
    ladder.caller.expects("BYE")
    ladder.settle()


def test_callees_retransmitted_2xx_gets_the_ack_again(ladder: Ladder) -> None:
    connect(ladder)
    ladder.callee.answers_again()
    first = ladder.callee.get("ACK")
    ladder.callee.answers_again()
    assert ladder.callee.get("ACK").branch == first.branch
    ladder.caller.gets_nothing()
    hang_up(ladder)


def test_callees_retransmitted_2xx_gets_the_ack_after_timer_m(ladder: Ladder) -> None:
    """After timer M has forgotten the INVITE transaction."""
    connect(ladder)
    ladder.run(40)
    ladder.callee.answers_again()
    ladder.callee.get("ACK")
    hang_up(ladder)


def test_callees_retransmitted_2xx_waits_for_the_commit(ladder: Ladder) -> None:
    call(ladder)
    answer_pending(ladder)
    ladder.callee.answers_again()
    ladder.callee.gets_nothing()
    ladder.release()
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.caller.is_answered()
    hang_up(ladder)


def test_repeated_ack_has_no_effect(ladder: Ladder) -> None:
    connect(ladder)
    ladder.caller.sends_again("ACK")
    ladder.caller.acks(body=ANSWER)
    ladder.callee.gets_nothing()
    hang_up(ladder)


def test_ack_with_another_cseq_is_ignored(ladder: Ladder) -> None:
    connect(ladder, acknowledge=False)
    ladder.caller.sends("ACK", cseq=77)
    ladder.run(0.6)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_2xx_with_malformed_sdp_gets_ack_and_bye(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.agrees(b"v=nonsense")
    ladder.callee.expects("BYE")
    ladder.caller.is_refused(488)
    record = ladder.record
    assert (record.outcome, record.ended_by, record.end_reason) == ("failed", "relay", "failed")
    ladder.settle()


def test_provisional_response_with_malformed_sdp_is_ignored(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.answers(183, body=b"v=nonsense")
    ladder.caller.gets_nothing()
    complete(ladder)


def test_malformed_offer_is_refused(ladder: Ladder) -> None:
    ladder.caller.calls(X, body=b"v=nonsense")
    ladder.callee.gets_nothing()
    ladder.caller.is_refused(488)
    ladder.settle()


def test_2xx_with_an_unusable_contact_gets_ack_and_bye(ladder: Ladder) -> None:
    ladder.caller.calls(X)
    ladder.callee.expects("INVITE", 200, body=ANSWER, contact="<tel:110>")
    ladder.caller.is_refused(488)
    ladder.settle()
