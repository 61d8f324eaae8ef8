"""Media through rtpengine that fails to answer, or answers wrongly."""

from __future__ import annotations

import pytest

from relay.call.media import MOST_STREAMS
from relay.privacy.sdp import LONGEST
from relay.sip.sdp import MAX_LINES
from tests.ladder.anchored import (
    AnchoredLadder,
    commands,
    hold_and_update,
    refused,
)
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import (
    EITHER,
    call,
    call_without_offer,
    complete,
    connect,
    connected,
    hang_up,
    is_hung_up,
    reinvite,
)
from tests.ladder.settings import X


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder()


# -- rtpengine does not answer


@pytest.mark.parametrize("offer", [OFFER, b""])
def test_call_is_refused_without_rtpengine(ladder: AnchoredLadder, offer: bytes) -> None:
    ladder.rtpengine.works = False
    ladder.caller.calls(X, body=offer)
    ladder.callee.gets_nothing()
    answer = refused(ladder, 503, "media_failed")
    assert answer.get("retry-after") == "5"
    assert ladder.engine.refusals() == {"media_failed": 1}


@pytest.mark.parametrize(
    ("rewritten", "status", "outcome", "end_reason"),
    [(None, 503, "media_failed", "media_failed"), (False, 480, "failed", "leak_check")],
    ids=["rejected", "not rewritten"],
)
def test_answer_that_rtpengine_does_not_rewrite_ends_the_attempt(
    ladder: AnchoredLadder, rewritten: bool | None, status: int, outcome: str, end_reason: str
) -> None:
    call(ladder)
    ladder.rtpengine.works = rewritten is not None
    ladder.rtpengine.passes_addresses = rewritten is False
    ladder.callee.accepts(body=ANSWER)
    ladder.callee.expects("BYE")
    ladder.caller.is_refused(status)
    assert (ladder.record.outcome, ladder.record.end_reason) == (outcome, end_reason)
    ladder.rtpengine.calls.clear()
    ladder.settle()


def test_early_media_rejected_by_rtpengine_are_ignored(ladder: AnchoredLadder) -> None:
    call(ladder)
    ladder.rtpengine.works = False
    ladder.callee.answers(183, body=ANSWER)
    ladder.caller.gets_nothing()
    ladder.rtpengine.works = True
    complete(ladder)


STREAM = OFFER[OFFER.index(b"m=") :]
WITHOUT_NAME = OFFER.replace(b"s=call\r\n", b"").replace(b"t=0 0\r\n", b"")
TOO_LARGE = {  # and how it is refused
    "lines": (WITHOUT_NAME + (MAX_LINES - 7) * b"a=sendrecv\r\n", 503),  # those that are missing come on top
    "streams": (OFFER + MOST_STREAMS * STREAM, 503),
    "bytes": (OFFER + (LONGEST // 90) * (b"a=fmtp:8 " + b";".join([b"mode-set=0"] * 8) + b"\r\n"), 488),
}


@pytest.mark.parametrize("what", TOO_LARGE)
def test_oversized_sdp_is_refused_without_rtpengine(ladder: AnchoredLadder, what: str) -> None:
    """rtpengine's answer, or its report of the call, would exceed a datagram."""
    body, status = TOO_LARGE[what]
    ladder.caller.calls(X, body=body)
    ladder.callee.gets_nothing()
    refused(ladder, status, "media_failed" if status == 503 else "failed")
    assert commands(ladder) == []


@EITHER
@pytest.mark.parametrize("what", TOO_LARGE)
def test_oversized_sdp_in_a_reinvite_leaves_the_call_up(ladder: AnchoredLadder, by: str, what: str) -> None:
    asking, asked = connected(ladder, by)
    body, status = TOO_LARGE[what]
    asking.reinvites(body)
    asked.gets_nothing()
    asking.is_refused(status)
    assert commands(ladder) == ["offer", "answer"]
    hold_and_update(asking, asked)
    hang_up(ladder)


def test_maximum_of_streams_goes_to_rtpengine_with_two_that_take_ports(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X, body=OFFER + (MOST_STREAMS - 1) * STREAM)
    body = ladder.callee.get("INVITE").body
    assert (body.count(b"m=audio "), body.count(b"m=audio 0 ")) == (MOST_STREAMS, MOST_STREAMS - 2)
    ladder.callee.refuses(486)
    refused(ladder, 486, "busy")


@EITHER
def test_reinvite_offer_rejected_by_rtpengine_is_refused(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    ladder.rtpengine.works = False
    asking.reinvites(HOLD)
    assert asking.get(503).get("retry-after") == "2"
    asking.acks_refusal()
    asked.gets_nothing()
    ladder.rtpengine.works = True
    reinvite(asking, asked)
    hang_up(ladder)


def test_reinvite_answer_rejected_by_rtpengine_is_refused(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.caller.reinvites(HOLD)
    ladder.rtpengine.works = False
    ladder.callee.agrees(HELD)
    ladder.caller.is_refused(500)
    ladder.rtpengine.works = True
    hang_up(ladder)


def test_late_answer_rejected_by_rtpengine_ends_the_call(ladder: AnchoredLadder) -> None:
    call_without_offer(ladder)
    ladder.rtpengine.works = False
    ladder.caller.acks(body=ANSWER)
    assert not ladder.callee.get("ACK").body
    is_hung_up(ladder, "media_failed")
    ladder.rtpengine.calls.clear()
    ladder.settle()


# -- rtpengine answers wrongly


def test_offer_not_rewritten_by_rtpengine_is_not_relayed(ladder: AnchoredLadder) -> None:
    ladder.rtpengine.passes_addresses = True
    ladder.caller.calls(X)
    ladder.callee.gets_nothing()
    refused(ladder, 480, "failed")
    assert ladder.engine.statistics()["leak_check"] == 1
    assert ladder.record.end_reason == "leak_check"


@EITHER
def test_reinvite_not_rewritten_by_rtpengine_ends_the_call(ladder: AnchoredLadder, by: str) -> None:
    asking, _ = connected(ladder, by)
    ladder.rtpengine.passes_addresses = True
    asking.reinvites(HOLD)
    asking.is_refused(487)
    is_hung_up(ladder, "leak_check")
    ladder.settle()


def test_sdp_not_rewritten_after_the_end_is_no_leak(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.caller.sends("BYE")
    ladder.caller.is_refused(487)
    ladder.callee.expects("BYE")
    ladder.rtpengine.passes_addresses = True
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    assert "leak_check" not in ladder.engine.statistics()
    ladder.settle()
