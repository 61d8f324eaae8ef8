"""Media through rtpengine: rollback of failed offers."""

from __future__ import annotations

import pytest

from tests.ladder.anchored import (
    AnchoredLadder,
    commands,
)
from tests.ladder.descriptions import ANSWER, HOLD, OFFER
from tests.ladder.ladder import (
    EITHER,
    call_without_offer,
    connect,
    connected,
    hang_up,
    refused_update,
    reinvite,
    restart,
)


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder()


def told(ladder: AnchoredLadder) -> list[tuple[str, str, bytes]]:
    """The SDPs sent to rtpengine, in order."""
    return [(each.command, each.from_tag, each.sdp) for each in ladder.rtpengine.told if each.sdp]


def is_rolled_back(ladder: AnchoredLadder) -> None:
    """rtpengine got the first offer and answer again; the call goes on."""
    offer, answer, _, again, answered = told(ladder)
    assert [again, answered] == [offer, answer]
    hang_up(ladder)


def rollback_pending(ladder: AnchoredLadder) -> None:
    """An UPDATE is refused, and rtpengine has yet to take back its offer."""
    connect(ladder)
    ladder.caller.updates(HOLD)
    update = ladder.callee.get_request("UPDATE")
    ladder.hold_media = True
    ladder.callee.answers(488, update)
    ladder.caller.get(488)


@EITHER
@pytest.mark.parametrize("method", ["INVITE", "UPDATE"])
@pytest.mark.parametrize("restarted", [False, True])
def test_refused_offer_is_rolled_back_at_rtpengine(
    ladder: AnchoredLadder, by: str, method: str, restarted: bool
) -> None:
    """rtpengine takes each offer for the session's new state, and would mute the other side."""
    asking, asked = connected(ladder, by)
    if restarted:
        restart(ladder)
    for _ in range(2):
        if method == "INVITE":
            asking.reinvites(HOLD)
            asked.expects("INVITE", 488)
            asking.is_refused(488)
        else:
            refused_update(asking, asked, HOLD, 488)
    offer, answer, hold, *restored = told(ladder)
    assert hold[0] == "offer"
    assert restored == [offer, answer, hold, offer, answer]
    hang_up(ladder)


def test_rollback_restores_the_last_settled_offer(ladder: AnchoredLadder) -> None:
    connect(ladder)
    reinvite(ladder.callee, ladder.caller)
    refused_update(ladder.caller, ladder.callee, OFFER, 491)
    *_, offer, answer, refused, again, answered = told(ladder)
    assert refused[1] != offer[1]
    assert [again, answered] == [offer, answer]
    hang_up(ladder)


def test_answered_late_offer_is_settled(ladder: AnchoredLadder) -> None:
    call_without_offer(ladder)
    ladder.caller.acks(body=ANSWER)
    ladder.callee.get("ACK")
    refused_update(ladder.caller, ladder.callee, HOLD, 488)
    offer, answer, _, again, answered = told(ladder)
    assert [again[1:], answered] == [offer[1:], answer]
    hang_up(ladder)


def test_late_offer_of_a_refused_reinvite_is_rolled_back(ladder: AnchoredLadder) -> None:
    """The offer came in a reliable 183."""
    connect(ladder)
    ladder.caller.reinvites(headers="Supported: 100rel\r\n")
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.answers(183, invite, body=HOLD, headers="Require: 100rel\r\nRSeq: 5\r\n")
    ladder.caller.get(183)
    ladder.callee.refuses(488, invite)
    ladder.caller.is_refused(488)
    is_rolled_back(ladder)


def test_queue_continues_after_the_rollback(ladder: AnchoredLadder) -> None:
    rollback_pending(ladder)
    ladder.callee.updates(OFFER)
    assert ladder.asked == ["offer"]
    ladder.rtpengine_answers()
    assert ladder.asked == ["answer"]
    ladder.caller.gets_nothing()
    ladder.rtpengine_goes_on()
    ladder.caller.expects("UPDATE", body=ANSWER)
    ladder.callee.get(200)
    hang_up(ladder)


def test_offer_cancelled_at_rtpengine_is_rolled_back(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.caller.gives_up()
    ladder.rtpengine_goes_on()
    is_rolled_back(ladder)


def test_call_ending_during_the_rollback(ladder: AnchoredLadder) -> None:
    rollback_pending(ladder)
    ladder.caller.sends("BYE")
    ladder.callee.expects("BYE")
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.settle()
    assert commands(ladder) == ["offer", "answer", "offer", "offer", "delete"]
