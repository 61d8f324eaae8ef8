"""Media through rtpengine: offers that come to nothing leave it as it was."""

from __future__ import annotations

import pytest

from tests.ladder.anchored import (
    AnchoredLadder,
    commands,
)
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import EITHER, X, connect, hang_up, sides


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder()


def told(ladder: AnchoredLadder) -> list[tuple[str, str, bytes]]:
    """The session's descriptions as rtpengine knows them, in order."""
    return [(each.command, each.from_tag, each.sdp) for each in ladder.rtpengine.told if each.sdp]


@EITHER
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
def test_refused_offer_leaves_rtpengine_as_it_was(ladder: AnchoredLadder, by: str, method: str) -> None:
    """It takes each offer for the session's new state, and would not let the other side be heard any more."""
    connect(ladder)
    asking, asked = sides(ladder, by)
    for _ in range(2):
        asking.sends(method, body=HOLD, headers=f"Contact: {asking.contact}\r\n")
        asked.expects(method, 488)
        asked.inbox.clear()
        if method == "INVITE":
            asking.get(100)
        asking.get(488)
        if method == "INVITE":
            asking.acks_refusal()
    offer, answer, hold, *restored = told(ladder)
    assert hold[0] == "offer"
    assert restored == [offer, answer, hold, offer, answer]
    hang_up(ladder)


def test_what_is_restored_is_what_was_settled_last(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.callee.reinvites(HOLD)
    ladder.callee.get(100)
    ladder.caller.expects("INVITE", body=HELD)
    ladder.caller.get("ACK")
    ladder.callee.is_answered()
    ladder.caller.updates(OFFER)
    ladder.callee.expects("UPDATE", 491)
    ladder.caller.get(491)
    *_, offer, answer, refused, again, answered = told(ladder)
    assert refused[1] != offer[1]
    assert [again, answered] == [offer, answer]
    hang_up(ladder)


def test_late_offer_that_was_answered_is_settled(ladder: AnchoredLadder) -> None:
    ladder.caller.calls(X, body=b"")
    ladder.callee.expects("INVITE", 200, body=OFFER)
    ladder.caller.get(200)
    ladder.caller.acks(body=ANSWER)
    ladder.callee.get("ACK")
    ladder.caller.updates(HOLD)
    ladder.callee.expects("UPDATE", 488)
    ladder.caller.get(488)
    offer, answer, _, again, answered = told(ladder)
    assert [again[1:], answered] == [offer[1:], answer]
    hang_up(ladder)


def test_late_offer_of_a_refused_reinvite_is_withdrawn(ladder: AnchoredLadder) -> None:
    """It came in a reliable 183."""
    connect(ladder)
    ladder.caller.reinvites(headers="Supported: 100rel\r\n")
    ladder.caller.get(100)
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.answers(183, invite, body=HOLD, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.caller.get(183)
    ladder.callee.refuses(488, invite)
    ladder.caller.is_refused(488)
    offer, answer, _, again, answered = told(ladder)
    assert [again, answered] == [offer, answer]
    hang_up(ladder)


def test_what_waits_goes_on_when_rtpengine_is_as_it_was(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.caller.updates(HOLD)
    update = ladder.callee.get_request("UPDATE")
    ladder.hold_media = True
    ladder.callee.answers(488, update)
    ladder.caller.get(488)
    ladder.callee.updates(OFFER)
    assert ladder.asked == ["offer"]
    ladder.rtpengine_answers()
    assert ladder.asked == ["answer"]
    ladder.caller.gets_nothing()
    ladder.rtpengine_goes_on()
    ladder.caller.expects("UPDATE", body=ANSWER)
    ladder.callee.get(200)
    hang_up(ladder)


def test_cancelled_while_it_is_there(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.caller.get(100)
    ladder.caller.cancels()
    ladder.caller.get(200)
    ladder.caller.is_refused(487)
    ladder.rtpengine_goes_on()
    offer, answer, _, again, answered = told(ladder)
    assert [again, answered] == [offer, answer]
    hang_up(ladder)


def test_end_while_rtpengine_is_told(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.caller.updates(HOLD)
    update = ladder.callee.get_request("UPDATE")
    ladder.hold_media = True
    ladder.callee.answers(488, update)
    ladder.caller.get(488)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.settle()
    assert commands(ladder) == ["offer", "answer", "offer", "offer", "delete"]
