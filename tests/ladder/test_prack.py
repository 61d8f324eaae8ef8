"""Reliable provisional responses (RFC 3262): separate RSeq numbers per side, mapped for PRACK."""

from __future__ import annotations

import pytest

from relay.sip.message import Response
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import EITHER, Ladder, X, answer, connected, hang_up


def ring_reliably(ladder: Ladder, *, rseq: int = 776655, status: int = 183, body: bytes = ANSWER) -> Response:
    ladder.callee.answers(status, headers=f"Require: 100rel\r\nRSeq: {rseq}\r\n", body=body)
    return ladder.caller.get_response(status)


def start(ladder: Ladder, body: bytes = OFFER) -> None:
    ladder.caller.calls(X, body=body, headers="Supported: 100rel, timer, replaces\r\n")
    assert ladder.callee.get("INVITE").get("supported") == "100rel, timer"


def test_prack_is_relayed_with_our_rseq(ladder: Ladder) -> None:
    start(ladder)
    progress = ring_reliably(ladder)
    assert progress.get("require") == "100rel"
    assert progress.rseq == 1
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
    prack = ladder.callee.expects("PRACK")
    assert prack.rack == (776655, 1, "INVITE")
    ladder.caller.get(200)
    answer(ladder)
    hang_up(ladder)


def test_retransmitted_reliable_response_is_relayed_unchanged(ladder: Ladder) -> None:
    start(ladder)
    ring_reliably(ladder)
    ladder.callee.answers_again()
    ladder.caller.get(183)
    assert ladder.caller.received[-1] == ladder.caller.received[-2]
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
    ladder.callee.expects("PRACK")
    ladder.caller.get(200)
    assert ring_reliably(ladder, rseq=776656, status=180, body=b"").rseq == 2
    ladder.caller.sends("PRACK", headers="RAck: 2 1 INVITE\r\n")
    assert ladder.callee.expects("PRACK").rack == (776656, 1, "INVITE")
    ladder.caller.get(200)
    answer(ladder)
    hang_up(ladder)


def test_overtaken_reliable_response_is_ignored(ladder: Ladder) -> None:
    start(ladder)
    ring_reliably(ladder)
    late = ladder.callee.answered
    ring_reliably(ladder, rseq=776656, status=180, body=b"")
    ladder.callee.answered = late
    ladder.callee.answers_again()
    ladder.caller.gets_nothing()
    answer(ladder)
    hang_up(ladder)


def test_malformed_reliable_response_uses_no_rseq(ladder: Ladder) -> None:
    start(ladder)
    ladder.callee.answers(183, headers="Require: 100rel\r\nRSeq: 1\r\n", body=b"v=nonsense")
    ladder.caller.gets_nothing()
    assert ring_reliably(ladder, rseq=2).rseq == 1
    answer(ladder)
    hang_up(ladder)


def test_offer_in_the_reliable_response_is_answered_in_prack(ladder: Ladder) -> None:
    start(ladder, body=b"")
    assert b"m=audio 4000" in ring_reliably(ladder, body=OFFER).body
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=ANSWER)
    assert b"m=audio 5000" in ladder.callee.expects("PRACK").body
    ladder.caller.get(200)
    ladder.callee.answers(200)
    ladder.caller.get(200)
    ladder.callee.gets_nothing()  # the relay cannot know that no SDP will come
    ladder.caller.acks()
    assert not ladder.callee.get("ACK").body
    hang_up(ladder)


def test_second_offer_in_prack_is_answered_in_its_200(ladder: Ladder) -> None:
    start(ladder)
    ring_reliably(ladder)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=HOLD)
    ladder.callee.expects("PRACK", body=HELD)
    assert b"recvonly" in ladder.caller.get(200).body
    answer(ladder)
    hang_up(ladder)


def test_second_offer_in_prack_before_the_answer_is_refused(ladder: Ladder) -> None:
    """RFC 3264 4: with two offers at once, a retransmission could reorder them."""
    start(ladder)
    for number in (1, 2):
        ring_reliably(ladder, rseq=776654 + number)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=HOLD)
    first = ladder.callee.get_request("PRACK")
    ladder.caller.sends("PRACK", headers="RAck: 2 1 INVITE\r\n", body=OFFER)
    assert ladder.caller.get(500).get("retry-after")
    ladder.callee.gets_nothing()
    ladder.callee.answers(200, first, body=HELD)
    ladder.caller.get(200)
    ladder.caller.sends("PRACK", headers="RAck: 2 1 INVITE\r\n", body=OFFER)
    ladder.callee.expects("PRACK", body=ANSWER)
    ladder.caller.get(200)
    answer(ladder)
    hang_up(ladder)


@pytest.mark.parametrize("rack", ["RAck: 7 1 INVITE\r\n", ""])
def test_prack_with_an_unknown_rseq_is_481(ladder: Ladder, rack: str) -> None:
    start(ladder)
    ring_reliably(ladder)
    ladder.caller.sends("PRACK", headers=rack)
    ladder.caller.get(481)
    ladder.callee.gets_nothing()
    answer(ladder)
    hang_up(ladder)


def test_malformed_rack_is_refused(ladder: Ladder) -> None:
    start(ladder)
    ring_reliably(ladder)
    ladder.caller.sends("PRACK", headers="RAck: nonsense\r\n")
    ladder.caller.get(400)
    answer(ladder)
    hang_up(ladder)


def test_refused_prack_leaves_the_call_up(ladder: Ladder) -> None:
    start(ladder)
    ring_reliably(ladder)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
    ladder.callee.expects("PRACK", 481)
    ladder.caller.get(481)
    answer(ladder)
    hang_up(ladder)


def test_prack_crossing_the_answer(ladder: Ladder) -> None:
    start(ladder)
    ring_reliably(ladder)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
    prack = ladder.callee.get_request("PRACK")
    answer(ladder)
    ladder.callee.answers(200, prack)
    ladder.caller.get(200)
    hang_up(ladder)


@pytest.mark.parametrize("by", ["cancel", "fork"])
def test_bye_to_a_superfluous_answer_has_a_cseq_above_the_prack(ladder: Ladder, by: str) -> None:
    """RFC 3261 12.2.2: a BYE with a CSeq below the PRACK's would be refused, and the phone would stay up."""
    start(ladder)
    ring_reliably(ladder)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n")
    prack = ladder.callee.expects("PRACK")
    ladder.caller.get(200)
    if by == "cancel":
        ladder.caller.cancels()
        ladder.callee.expects("CANCEL")
    else:
        ladder.callee.accepts(tag="bob-mobile", body=ANSWER)
    ladder.callee.accepts(body=ANSWER)
    assert ladder.callee.expects("BYE").cseq.number > prack.cseq.number
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.settle()


@EITHER
def test_prack_in_a_reinvite(ladder: Ladder, by: str) -> None:
    """RSeq numbers are per INVITE transaction."""
    asking, asked = connected(ladder, by)
    for _ in range(2):
        asking.reinvites(HOLD, headers="Supported: 100rel\r\n")
        invite = asked.get_request("INVITE")
        asked.answers(183, invite, headers="Require: 100rel\r\nRSeq: 5\r\n", body=HELD)
        progress = asking.get_response(183)
        assert (progress.rseq, b"recvonly" in progress.body) == (1, True)
        asking.sends("PRACK", headers=f"RAck: 1 {progress.cseq.number} INVITE\r\n")
        assert asked.expects("PRACK").rack == (5, invite.cseq.number, "INVITE")
        asking.get(200)
        asked.accepts(invite)
        asking.is_answered()
    hang_up(ladder)
