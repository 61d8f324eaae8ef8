"""Reliable provisional responses (RFC 3262): separate RSeq numbers per side, mapped for PRACK."""

from __future__ import annotations

import pytest

from relay.sip.message import Request, Response
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import EITHER, Ladder, answer, call, complete, connected, hang_up
from tests.ladder.settings import SECOND_HOST
from tests.ladder.side import Side


def ring_reliably(ladder: Ladder, *, rseq: int = 776655, status: int = 183, body: bytes = ANSWER) -> Response:
    return ladder.callee.proceeds(status, headers=f"Require: 100rel\r\nRSeq: {rseq}\r\n", body=body)


def start(ladder: Ladder, body: bytes = OFFER) -> None:
    assert call(ladder, body=body, headers="Supported: 100rel, timer, replaces\r\n").get("supported") == "100rel, timer"


def start_reliably(ladder: Ladder) -> Response:
    start(ladder)
    return ring_reliably(ladder)


def prack(ladder: Ladder, number: int = 1, body: bytes = b"") -> None:
    """The caller's PRACK of our reliable response with that RSeq."""
    ladder.caller.sends("PRACK", headers=f"RAck: {number} 1 INVITE\r\n", body=body)


def acknowledge(ladder: Ladder, number: int = 1, body: bytes = b"", answer: bytes = b"") -> Request:
    """A successful PRACK. Returns it as the callee got it."""
    prack(ladder, number, body)
    received = ladder.callee.expects("PRACK", body=answer)
    ladder.caller.get(200)
    return received


def test_prack_is_relayed_with_our_rseq(ladder: Ladder) -> None:
    progress = start_reliably(ladder)
    assert progress.get("require") == "100rel"
    assert progress.rseq == 1
    assert acknowledge(ladder).rack == (776655, 1, "INVITE")
    complete(ladder)


def test_retransmitted_reliable_response_is_relayed_unchanged(ladder: Ladder) -> None:
    start_reliably(ladder)
    ladder.callee.answers_again()
    ladder.caller.get(183)
    assert ladder.caller.received[-1] == ladder.caller.received[-2]
    acknowledge(ladder)
    assert ring_reliably(ladder, rseq=776656, status=180, body=b"").rseq == 2
    assert acknowledge(ladder, 2).rack == (776656, 1, "INVITE")
    complete(ladder)


def test_overtaken_reliable_response_is_ignored(ladder: Ladder) -> None:
    start_reliably(ladder)
    late = ladder.callee.answered
    ring_reliably(ladder, rseq=776656, status=180, body=b"")
    ladder.callee.answered = late
    ladder.callee.answers_again()
    ladder.caller.gets_nothing()
    complete(ladder)


def test_reliable_response_after_a_gap_waits_for_the_missing_one(ladder: Ladder) -> None:
    """RFC 3262 4: it is not acknowledged, nor processed; its sender repeats it."""
    start_reliably(ladder)
    ladder.callee.answers(180, headers="Require: 100rel\r\nRSeq: 776657\r\n")
    ladder.caller.gets_nothing()
    early = ladder.callee.answered
    assert ring_reliably(ladder, rseq=776656).rseq == 2
    ladder.callee.answered = early
    ladder.callee.answers_again()
    assert ladder.caller.get_response(180).rseq == 3
    assert acknowledge(ladder, 3).rack == (776657, 1, "INVITE")
    complete(ladder)


def test_malformed_reliable_response_uses_no_rseq(ladder: Ladder) -> None:
    start(ladder)
    ladder.callee.answers(183, headers="Require: 100rel\r\nRSeq: 1\r\n", body=b"v=nonsense")
    ladder.caller.gets_nothing()
    assert ring_reliably(ladder, rseq=2).rseq == 1
    complete(ladder)


def test_offer_in_the_reliable_response_is_answered_in_prack(ladder: Ladder) -> None:
    start(ladder, body=b"")
    assert b"m=audio 4000" in ring_reliably(ladder, body=OFFER).body
    assert b"m=audio 5000" in acknowledge(ladder, body=ANSWER).body
    ladder.callee.answers(200)
    ladder.caller.get(200)
    ladder.callee.gets_nothing()  # the relay cannot know that no SDP will come
    ladder.caller.acks()
    assert not ladder.callee.get("ACK").body
    hang_up(ladder)


def test_second_offer_in_prack_is_answered_in_its_200(ladder: Ladder) -> None:
    start_reliably(ladder)
    acknowledge(ladder, body=HOLD, answer=HELD)
    assert b"recvonly" in ladder.caller.last().body
    complete(ladder)


def test_second_offer_in_prack_before_the_answer_is_refused(ladder: Ladder) -> None:
    """RFC 3264 4: with two offers at once, a retransmission could reorder them."""
    start(ladder)
    for number in (1, 2):
        ring_reliably(ladder, rseq=776654 + number)
    prack(ladder, 1, HOLD)
    first = ladder.callee.get_request("PRACK")
    prack(ladder, 2, OFFER)
    assert ladder.caller.get(500).get("retry-after")
    ladder.callee.gets_nothing()
    ladder.callee.answers(200, first, body=HELD)
    ladder.caller.get(200)
    acknowledge(ladder, 2, OFFER, ANSWER)
    complete(ladder)


@pytest.mark.parametrize(
    ("rack", "status"),
    [
        ("RAck: 7 1 INVITE\r\n", 481),
        ("RAck: 1 2 INVITE\r\n", 481),
        ("RAck: 1 1 UPDATE\r\n", 481),
        ("", 481),
        ("RAck: nonsense\r\n", 400),
    ],
    ids=["unknown RSeq", "CSeq of no INVITE", "other method", "none", "malformed"],
)
def test_prack_that_matches_no_reliable_response_is_refused(ladder: Ladder, rack: str, status: int) -> None:
    """RFC 3262 3: method, CSeq and RSeq have to match, else 481."""
    start_reliably(ladder)
    ladder.caller.sends("PRACK", headers=rack)
    ladder.caller.get(status)
    ladder.callee.gets_nothing()
    complete(ladder)


def test_refused_prack_leaves_the_call_up(ladder: Ladder) -> None:
    start_reliably(ladder)
    prack(ladder)
    ladder.callee.expects("PRACK", 481)
    ladder.caller.get(481)
    complete(ladder)


def test_prack_crossing_the_answer(ladder: Ladder) -> None:
    start_reliably(ladder)
    prack(ladder)
    crossing = ladder.callee.get_request("PRACK")
    answer(ladder)
    ladder.callee.answers(200, crossing)
    ladder.caller.get(200)
    hang_up(ladder)


@pytest.mark.parametrize("by", ["cancel", "fork"])
def test_bye_to_a_superfluous_answer_has_a_cseq_above_the_prack(ladder: Ladder, by: str) -> None:
    """RFC 3261 12.2.2: a BYE with a CSeq below the PRACK's would be refused, and the phone would stay up."""
    start_reliably(ladder)
    acknowledged = acknowledge(ladder)
    if by == "cancel":
        ladder.caller.cancels()
        ladder.callee.expects("CANCEL")
    else:
        ladder.callee.accepts(tag="bob-mobile", body=ANSWER)
    ladder.callee.accepts(body=ANSWER)
    assert ladder.callee.expects("BYE").cseq.number > acknowledged.cseq.number
    ladder.engine.hang_up_all(ladder.now)
    ladder.perform()
    ladder.settle()


def is_acknowledged_by_us(side: Side, rseq: int, invite: Request, status: int = 200) -> None:
    """The relay's own PRACK comes."""
    prack = side.expects("PRACK", status)
    assert (prack.rack, prack.body) == ((rseq, invite.cseq.number, "INVITE"), b"")


@pytest.mark.parametrize("offered", ["", "Supported: timer\r\n"], ids=["no Supported", "without 100rel"])
def test_reliable_response_that_the_caller_cannot_acknowledge_is_acknowledged_by_us(
    ladder: Ladder, offered: str
) -> None:
    """RFC 3262 3: a reliable response needs an INVITE with 100rel. One all the same reaches the caller as a plain one,
    and its answer also in the 200, where the caller has to have it (RFC 3261 13.2.1)."""
    invite = call(ladder, headers=offered)
    assert "100rel" not in (invite.get("supported") or "")
    early = ring_reliably(ladder)
    assert (early.get("require"), early.rseq, b"m=audio 5000" in early.body) == (None, None, True)
    is_acknowledged_by_us(ladder.callee, 776655, invite)
    ladder.callee.answers_again()
    ladder.callee.gets_nothing()
    ladder.caller.gets_nothing()
    ringing = ring_reliably(ladder, rseq=776656, status=180, body=b"")
    assert (ringing.get("require"), ringing.body) == (None, b"")
    is_acknowledged_by_us(ladder.callee, 776656, invite)
    prack(ladder)
    ladder.caller.get(481)
    ladder.callee.accepts()
    assert ladder.caller.get_response(200).body == early.body
    ladder.caller.acks()
    hang_up(ladder)


def test_refused_prack_of_ours_leaves_the_call_up(ladder: Ladder) -> None:
    invite = call(ladder)
    ring_reliably(ladder)
    is_acknowledged_by_us(ladder.callee, 776655, invite, 481)
    complete(ladder)


def test_reliable_response_that_is_not_shown_is_acknowledged_by_us(ladder: Ladder) -> None:
    """199 reveals the callee's forks. Without a PRACK its sender would give up the call after 64*T1 (RFC 3262 3)."""
    start(ladder)
    invite = ladder.callee.invite
    assert invite is not None
    ladder.callee.answers(199, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.caller.gets_nothing()
    is_acknowledged_by_us(ladder.callee, 5, invite)
    assert ring_reliably(ladder, rseq=6).rseq == 1
    assert acknowledge(ladder).rack == (6, 1, "INVITE")
    complete(ladder)


def test_offer_that_nobody_can_answer_ends_the_attempt(ladder: Ladder) -> None:
    """RFC 3262 5: the PRACK has to bring the answer, and a caller without 100rel sends none before the 200."""
    call(ladder, body=b"")
    ladder.callee.answers(183, headers="Require: 100rel\r\nRSeq: 5\r\n", body=OFFER)
    ladder.caller.is_refused(488)
    ladder.callee.is_cancelled()
    assert (ladder.record.outcome, ladder.record.q850_cause) == ("failed", 88)
    ladder.settle()


@pytest.mark.parametrize("headers", ["RSeq: 5\r\n", "Require: 100rel\r\n"], ids=["no Require", "no RSeq"])
def test_half_reliable_response_is_a_plain_one(ladder: Ladder, headers: str) -> None:
    """RFC 3262 4: a reliable one has Require: 100rel and RSeq."""
    start(ladder)
    ladder.callee.proceeds(183, headers=headers, body=ANSWER)
    early = ladder.caller.last()
    assert early.get("require") is early.get("rseq") is None
    complete(ladder)


@EITHER
def test_reliable_response_to_a_reinvite_without_100rel_is_acknowledged_by_us(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.get_request("INVITE")
    asked.answers(183, invite, headers="Require: 100rel\r\nRSeq: 5\r\n", body=HELD)
    early = asking.get_response(183)
    assert (early.get("require"), early.rseq) == (None, None)
    is_acknowledged_by_us(asked, 5, invite)
    asked.accepts(invite)
    assert asking.get_response(200).body == early.body
    asking.acks()
    hang_up(ladder)


@EITHER
def test_offer_to_a_reinvite_that_nobody_can_answer_ends_the_reinvite(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites()
    invite = asked.get_request("INVITE")
    asked.answers(183, invite, headers="Require: 100rel\r\nRSeq: 5\r\n", body=OFFER)
    asked.is_cancelled(invite)
    asking.is_refused(487)
    hang_up(ladder)


@EITHER
def test_prack_in_a_reinvite(ladder: Ladder, by: str) -> None:
    """RFC 3262 3: the numbers begin again with each INVITE."""
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


def test_rseq_goes_on_at_the_next_target() -> None:
    """RFC 3262 4: a caller that counts by INVITE ignores one that is not one higher than the last."""
    ladder = Ladder(tried=("carrier", "second"))
    carol = ladder.side(SECOND_HOST, "carol")
    assert start_reliably(ladder).rseq == 1
    acknowledge(ladder)
    assert ring_reliably(ladder, rseq=776656, status=180, body=b"").rseq == 2
    acknowledge(ladder, 2)
    ladder.callee.refuses(503)
    carol.get("INVITE")
    ladder.callee = carol
    assert ring_reliably(ladder, rseq=90).rseq == 3
    assert acknowledge(ladder, 3).rack == (90, 1, "INVITE")
    assert ring_reliably(ladder, rseq=91, status=180, body=b"").rseq == 4
    complete(ladder)


def test_rseq_goes_on_within_each_dialog_of_a_forking_callee(ladder: Ladder) -> None:
    """To the caller these are two servers, each with its own numbers (RFC 3262 3)."""
    start(ladder)
    rseqs = []
    for tag, rseq in (("first", 10), ("second", 20), ("first", 11), ("second", 21)):
        reliable = f"Require: 100rel\r\nRSeq: {rseq}\r\n"
        rseqs.append(ladder.callee.proceeds(183, headers=reliable, body=ANSWER, tag=tag).rseq)
    assert rseqs == [1, 2, 2, 3]
    complete(ladder)
