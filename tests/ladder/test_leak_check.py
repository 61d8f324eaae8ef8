"""A number that passes masking (here in a media key) is not sent, and the call fails closed."""

from __future__ import annotations

import pytest

from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import EITHER, Ladder, bye, connected, is_hung_up
from tests.ladder.settings import X
from tests.ladder.side import Side


def leaky(description: bytes, number: bytes) -> bytes:
    """The SDP with a key that contains the number."""
    key = b"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:" + number + b"A" * (40 - len(number)) + b"\r\n"
    return description.replace(b"RTP/AVP", b"RTP/SAVP") + key


OF_CALLER, OF_CALLEE = b"13800000001", b"13900000002"


def number_of(ladder: Ladder, side: Side) -> bytes:
    return OF_CALLER if side is ladder.caller else OF_CALLEE


def has_failed_closed(ladder: Ladder, *, outcome: str = "failed") -> None:
    assert ladder.engine.statistics()["leak_check"] == 1
    (note,) = (note for note in ladder.notes if note.event == "leak_check")
    assert not {OF_CALLER.decode(), OF_CALLEE.decode()} & {str(value) for value in note.fields.values()}
    record = ladder.record
    assert (record.outcome, record.ended_by, record.end_reason) == (outcome, "relay", "leak_check")
    ladder.settle()


def call_has_failed_closed(ladder: Ladder) -> None:
    is_hung_up(ladder, "leak_check")
    has_failed_closed(ladder, outcome="answered")


def start(ladder: Ladder, offer: bytes = OFFER) -> None:
    ladder.caller.calls(X, body=offer, headers="Supported: 100rel\r\n")


def test_leak_in_the_invite_fails_closed(ladder: Ladder) -> None:
    start(ladder, leaky(OFFER, OF_CALLER))
    ladder.callee.gets_nothing()
    ladder.caller.is_refused(480)
    has_failed_closed(ladder)
    assert ladder.record.peer_out is None


@pytest.mark.parametrize("status", [183, 180])
def test_leak_in_early_media_fails_closed(ladder: Ladder, status: int) -> None:
    start(ladder)
    ladder.callee.get("INVITE")
    ladder.callee.answers(status, body=leaky(ANSWER, OF_CALLEE))
    ladder.callee.is_cancelled()
    ladder.caller.is_refused(480)
    has_failed_closed(ladder)


def test_leak_in_the_answer_fails_closed(ladder: Ladder) -> None:
    start(ladder)
    ladder.callee.agrees(leaky(ANSWER, OF_CALLEE))
    ladder.callee.expects("BYE")
    ladder.caller.is_refused(480)
    has_failed_closed(ladder)


def test_leak_in_the_ack_fails_closed(ladder: Ladder) -> None:
    start(ladder, b"")
    ladder.callee.expects("INVITE", 200, body=OFFER)
    ladder.caller.get(200)
    ladder.caller.acks(body=leaky(ANSWER, OF_CALLER))
    assert not ladder.callee.get("ACK").body
    call_has_failed_closed(ladder)


def test_leak_in_a_prack_fails_closed(ladder: Ladder) -> None:
    start(ladder)
    ladder.callee.get("INVITE")
    ladder.callee.proceeds(183, headers="Require: 100rel\r\nRSeq: 1\r\n", body=ANSWER)
    ladder.caller.sends("PRACK", headers="RAck: 1 1 INVITE\r\n", body=leaky(OFFER, OF_CALLER))
    ladder.caller.get(500)
    ladder.callee.is_cancelled()
    ladder.caller.is_refused(480)
    has_failed_closed(ladder)


@EITHER
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("leaks", ["offer", "answer"])
def test_leak_in_an_offer_or_answer_of_the_call_fails_closed(ladder: Ladder, by: str, method: str, leaks: str) -> None:
    asking, asked = connected(ladder, by)
    offers = asking.reinvites if method == "INVITE" else asking.updates
    offers(leaky(HOLD, number_of(ladder, asking)) if leaks == "offer" else HOLD)
    if leaks == "answer":
        asked.expects(method, body=leaky(HELD, number_of(ladder, asked)))
    if method == "INVITE":
        asking.is_refused(500)
        if leaks == "answer":
            asked.get("ACK")
    else:
        asking.get(500)
    call_has_failed_closed(ladder)


@EITHER
def test_leak_in_a_provisional_response_to_a_reinvite_fails_closed(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.get_request("INVITE")
    asked.answers(183, invite, body=leaky(HELD, number_of(ladder, asked)))
    asking.is_refused(487)
    asked.expects("CANCEL")
    is_hung_up(ladder, "leak_check")
    asked.refuses(487, invite)
    has_failed_closed(ladder, outcome="answered")


@EITHER
def test_own_number_is_no_leak(ladder: Ladder, by: str) -> None:
    """It reveals nothing."""
    asking, asked = connected(ladder, by)
    asking.reinvites(leaky(HOLD, number_of(ladder, asked)))
    asked.agrees(HELD)
    asking.is_answered()
    bye(ladder.caller, ladder.callee)
    assert "leak_check" not in ladder.engine.statistics()
    ladder.settle()
