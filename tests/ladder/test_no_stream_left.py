"""SDP all of whose active streams are refused by masking: 488, so that a gateway falls back to G.711."""

from __future__ import annotations

import pytest

from tests.ladder.anchored import AnchoredLadder, hold_and_update
from tests.ladder.descriptions import ANSWER, OFFER
from tests.ladder.ladder import EITHER, Ladder, call, call_without_offer, complete, connected, hang_up, is_hung_up
from tests.ladder.settings import X

STREAMS = {
    "fax": b"m=image %d udptl t38",
    "fax_after_refused_audio": b"m=audio 0 RTP/AVP 0\r\nm=image %d udptl t38",
    "chat": b"m=message %d TCP/MSRP *",
    "webrtc": b"m=audio %d UDP/TLS/RTP/SAVPF 8",
    "unknown_codec": b"m=audio %d RTP/AVP 120",
}
WHAT = pytest.mark.parametrize("what", STREAMS)


@pytest.fixture(params=[Ladder, AnchoredLadder], ids=["direct", "rtpengine"])
def ladder(request: pytest.FixtureRequest) -> Ladder:
    made: Ladder = request.param()
    return made


def of(what: str, description: bytes = OFFER, port: int = 4000) -> bytes:
    return description[: description.index(b"m=")] + STREAMS[what] % port + b"\r\n"


@WHAT
def test_offer_is_refused(ladder: Ladder, what: str) -> None:
    ladder.caller.calls(X, body=of(what))
    ladder.callee.gets_nothing()
    ladder.caller.is_refused(488)
    assert ladder.record.outcome == "failed"


@EITHER
@WHAT
def test_reinvite_is_refused_and_the_call_goes_on(ladder: Ladder, by: str, what: str) -> None:
    asking, asked = connected(ladder, by)
    for port in (4000, 4002):
        asking.reinvites(of(what, port=port))
        asked.gets_nothing()
        asking.is_refused(488)
    hold_and_update(asking, asked)
    hang_up(ladder)


@EITHER
def test_update_is_refused_and_the_call_goes_on(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.updates(of("fax"))
    asked.gets_nothing()
    asking.get(488)
    hold_and_update(asking, asked)
    hang_up(ladder)


@EITHER
def test_reinvite_with_ports_of_0_alone_passes(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(of("fax", port=0))
    assert b"m=image 0 udptl *\r\n" in asked.agrees(of("fax", ANSWER, 0)).body
    asking.is_answered()
    hang_up(ladder)


def test_answer_ends_the_attempt(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.accepts(body=of("fax", ANSWER))
    ladder.callee.expects("BYE")
    ladder.caller.is_refused(488)


def test_early_answer_is_ignored(ladder: Ladder) -> None:
    call(ladder)
    ladder.callee.answers(183, body=of("fax", ANSWER))
    ladder.caller.gets_nothing()
    complete(ladder)


@EITHER
def test_answer_to_a_reinvite_leaves_the_call_as_it_was(ladder: Ladder, by: str) -> None:
    asking, asked = connected(ladder, by)
    asking.reinvites(OFFER)
    asked.agrees(of("fax", ANSWER))
    asking.is_refused(500)
    hold_and_update(asking, asked)
    hang_up(ladder)


def test_late_answer(ladder: Ladder) -> None:
    call_without_offer(ladder)
    ladder.caller.acks(body=of("fax", ANSWER))
    assert not ladder.callee.get("ACK").body
    if isinstance(ladder, AnchoredLadder):
        is_hung_up(ladder, "media_failed")
    else:
        hang_up(ladder)
