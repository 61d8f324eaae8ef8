"""Media through rtpengine: events while a command is pending."""

from __future__ import annotations

import pytest

from relay.call.media import MOST_WAITING
from tests.ladder.anchored import (
    AnchoredLadder,
    commands,
    refused,
)
from tests.ladder.descriptions import ANSWER, HELD, HOLD, OFFER
from tests.ladder.ladder import EITHER, call, call_without_offer, connect, connected, hang_up, ring, sides
from tests.ladder.settings import X


@pytest.fixture
def ladder() -> AnchoredLadder:
    return AnchoredLadder()


@pytest.mark.parametrize(
    ("offer", "commanded"), [(OFFER, ["offer", "delete"]), (b"", ["ping"])], ids=["offer", "reservation"]
)
def test_cancel_while_the_offer_is_at_rtpengine(ladder: AnchoredLadder, offer: bytes, commanded: list[str]) -> None:
    ladder.hold_media = True
    ladder.caller.calls(X, body=offer)
    ladder.caller.gives_up()
    ladder.rtpengine_goes_on()
    ladder.callee.gets_nothing()
    assert commands(ladder) == commanded
    ladder.settle()


def answer_at_rtpengine(ladder: AnchoredLadder) -> None:
    """b has answered, and rtpengine has yet to rewrite its SDP."""
    call(ladder)
    ladder.hold_media = True
    ladder.callee.answers(200, body=ANSWER)


def crossing_offers(ladder: AnchoredLadder) -> None:
    """The caller's offer is at rtpengine, the callee's waits behind it."""
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.reinvites(HOLD)
    ladder.callee.reinvites(HELD)


def test_cancel_while_the_answer_is_at_rtpengine(ladder: AnchoredLadder) -> None:
    """As if the 200 crossed the CANCEL: it gets ACK and BYE."""
    answer_at_rtpengine(ladder)
    ladder.callee.gets_nothing()
    ladder.caller.gives_up()
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.rtpengine_goes_on()
    ladder.settle()


def test_ring_timeout_while_the_answer_is_at_rtpengine() -> None:
    ladder = AnchoredLadder(ring_timeout_s=10.0)
    ring(ladder)
    ladder.run(9.9)
    ladder.hold_media = True
    ladder.callee.answers(200, body=ANSWER)
    ladder.run(0.2)
    ladder.caller.is_refused(480)
    ladder.callee.get("ACK")
    ladder.callee.expects("BYE")
    ladder.rtpengine_goes_on()
    ladder.settle()


def test_responses_stay_in_order(ladder: AnchoredLadder) -> None:
    call(ladder)
    ladder.hold_media = True
    ladder.callee.answers(183, body=ANSWER)
    ladder.callee.answers(180)
    ladder.callee.answers(200, body=ANSWER)
    ladder.caller.gets_nothing()
    ladder.rtpengine_answers()
    ladder.caller.get(183)
    ladder.caller.get(180)
    ladder.caller.gets_nothing()
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.callee.get("ACK")
    ladder.caller.acks()
    hang_up(ladder)


def test_refusal_waits_for_earlier_responses(ladder: AnchoredLadder) -> None:
    call(ladder)
    ladder.hold_media = True
    ladder.callee.answers(183, body=ANSWER)
    ladder.callee.refuses(486)
    ladder.rtpengine_goes_on()
    ladder.caller.get(183)
    refused(ladder, 486, "busy")


def test_retransmitted_answer_while_rtpengine_is_pending(ladder: AnchoredLadder) -> None:
    answer_at_rtpengine(ladder)
    ladder.callee.answers_again()
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.callee.get("ACK")
    ladder.callee.gets_nothing()
    ladder.caller.acks()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "delete"]


@EITHER
def test_retransmission_is_not_sent_to_rtpengine_again(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites()
    asked.expects("INVITE", 200, body=OFFER)
    asked.answers_again()
    asking.get(200)
    for _ in range(2):
        asking.acks(body=ANSWER)
    asked.get("ACK")
    asked.answers_again()
    asked.get("ACK")
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "offer", "answer", "delete"]


@EITHER
@pytest.mark.parametrize("ends", ["asking", "asked"])
def test_bye_while_a_reinvite_is_at_rtpengine(ladder: AnchoredLadder, by: str, ends: str) -> None:
    asking, asked = connected(ladder, by)
    ladder.hold_media = True
    asking.reinvites(HOLD)
    by_whom, other = (asking, asked) if ends == "asking" else (asked, asking)
    by_whom.sends("BYE")
    asking.is_refused(487)
    other.expects("BYE")
    ladder.rtpengine_goes_on()
    by_whom.get(200)
    asked.gets_nothing()
    ladder.settle()
    assert commands(ladder) == ["offer", "answer", "offer", "delete"]


@EITHER
def test_bye_while_the_answer_to_a_reinvite_is_at_rtpengine(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(HOLD)
    invite = asked.get_request("INVITE")
    ladder.hold_media = True
    asked.answers(200, invite, body=HELD)
    asking.sends("BYE")
    asking.is_refused(487)
    asked.get("ACK")
    asked.expects("BYE")
    ladder.rtpengine_goes_on()
    asking.get(200)
    ladder.settle()


@EITHER
def test_cancel_of_a_reinvite_at_rtpengine(ladder: AnchoredLadder, by: str) -> None:
    asking, asked = connected(ladder, by)
    ladder.hold_media = True
    asking.reinvites(HOLD)
    asking.gives_up()
    ladder.rtpengine_goes_on()
    asked.gets_nothing()
    hang_up(ladder)


def test_cancel_of_a_queued_reinvite(ladder: AnchoredLadder) -> None:
    crossing_offers(ladder)
    ladder.callee.gives_up()
    ladder.rtpengine_goes_on()
    ladder.callee.agrees(HELD)
    ladder.caller.is_answered()
    hang_up(ladder)


def test_glare_while_the_first_offer_is_at_rtpengine(ladder: AnchoredLadder) -> None:
    """The second offer is not sent to rtpengine, which would take it for the session's new state."""
    crossing_offers(ladder)
    ladder.rtpengine_goes_on()
    invite = ladder.callee.get_request("INVITE")
    ladder.callee.is_refused(491)
    ladder.callee.accepts(invite, body=HELD)
    ladder.caller.is_answered()
    hang_up(ladder)
    assert commands(ladder) == ["offer", "answer", "offer", "answer", "delete"]


def test_requests_stay_in_order(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.updates(HOLD)
    ladder.caller.sends("INFO", body=b"1", content_type="application/dtmf")
    ladder.callee.gets_nothing()
    ladder.rtpengine_answers()
    ladder.callee.expects("UPDATE", body=HELD)
    ladder.callee.expects("INFO")
    ladder.caller.gets_nothing()
    ladder.rtpengine_goes_on()
    ladder.caller.get(200)
    ladder.caller.get(200)
    hang_up(ladder)


@EITHER
def test_bye_while_the_late_answer_is_at_rtpengine(ladder: AnchoredLadder, by: str) -> None:
    """The ACK waits for rtpengine when a side hangs up: the callee gets its ACK, then BYE."""
    call_without_offer(ladder)
    ladder.hold_media = True
    ladder.caller.acks(body=ANSWER)
    ladder.callee.gets_nothing()
    ends, other = sides(ladder, by)
    ends.sends("BYE")
    ladder.callee.get("ACK")
    other.expects("BYE")
    ladder.rtpengine_goes_on()
    ends.get(200)
    ladder.settle()


def test_queued_update_of_a_losing_fork_is_refused(ladder: AnchoredLadder) -> None:
    call(ladder)
    ladder.callee.proceeds(183, body=ANSWER, tag="1")
    losing = ladder.caller.remote_tag
    ladder.callee.proceeds(183, body=ANSWER, tag="2")
    ladder.hold_media = True
    ladder.callee.answers(200, body=ANSWER, tag="2")
    winning, ladder.caller.remote_tag = ladder.caller.remote_tag, losing
    ladder.caller.updates(HOLD)
    ladder.rtpengine_goes_on()
    ladder.caller.remote_tag = winning
    ladder.callee.get("ACK")
    ladder.caller.get(481)
    ladder.caller.is_answered()
    ladder.callee.tag = "2"
    ladder.caller.cseq += 1
    hang_up(ladder)


def test_request_over_the_queue_limit_is_refused(ladder: AnchoredLadder) -> None:
    connect(ladder)
    ladder.hold_media = True
    ladder.caller.updates(HOLD)
    for _ in range(MOST_WAITING):
        ladder.caller.sends("INFO", body=b"1", content_type="application/dtmf")
    ladder.callee.updates(HOLD)
    ladder.callee.get(503)
    assert ladder.engine.statistics()["media_over_limit"] == 1
    ladder.rtpengine_goes_on()
    for method in ("UPDATE", *["INFO"] * MOST_WAITING):
        ladder.callee.expects(method)
    ladder.caller.inbox.clear()
    hang_up(ladder)
