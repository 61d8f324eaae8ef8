"""Marks in all that both sides send, with media through rtpengine: none reaches the other side, and none rtpengine."""

from __future__ import annotations

import pytest

from tests.canary.canary_ladder import CanaryLadder
from tests.canary.marks import ALICE, BOB
from tests.ladder.anchored import MEDIA_HOSTS, AnchoredLadder, hold_and_update
from tests.ladder.descriptions import ANSWER, HELD, HOLD
from tests.ladder.ladder import answer, call, call_without_offer, connect, hang_up


class AnchoredCanary(CanaryLadder, AnchoredLadder):
    def check_privacy(self) -> None:
        super().check_privacy()
        for data, flow in self.checks.sent:
            assert not [host for host in MEDIA_HOSTS if host.encode() in data], f"to {flow.host}:\n{data!r}"
        for command in self.rtpengine.told:
            said = repr(command._replace(sdp=b"")).encode() + command.sdp
            assert not ALICE.found_in(said) + BOB.found_in(said), command


@pytest.fixture(params=["as they come", "turned", "multipart"])
def ladder(request: pytest.FixtureRequest) -> AnchoredCanary:
    return AnchoredCanary(turn=int(request.param == "turned"), multipart=request.param == "multipart")


def test_call_with_early_media_hold_and_update(ladder: AnchoredCanary) -> None:
    call(ladder, headers="Supported: 100rel\r\n")
    ladder.callee.proceeds(183, body=ANSWER, headers="Require: 100rel\r\nRSeq: 7\r\n")
    ladder.caller.sends("PRACK", headers=f"RAck: 1 {ALICE.cseq + 1} INVITE\r\n", body=HOLD)
    ladder.callee.expects("PRACK", body=HELD)
    ladder.caller.get(200)
    answer(ladder)
    for asking, asked in ((ladder.caller, ladder.callee), (ladder.callee, ladder.caller)):
        hold_and_update(asking, asked)
    hang_up(ladder)


def test_late_offer(ladder: AnchoredCanary) -> None:
    call_without_offer(ladder)
    ladder.caller.acks(body=ANSWER)
    ladder.callee.get("ACK")
    hang_up(ladder)


def test_rtpengine_that_fails_lets_nothing_pass(ladder: AnchoredCanary) -> None:
    connect(ladder)
    ladder.rtpengine.works = False
    for asking, asked in ((ladder.caller, ladder.callee), (ladder.callee, ladder.caller)):
        asking.reinvites(HOLD)
        asking.is_refused(503)
        asked.gets_nothing()
    ladder.rtpengine.works = True
    hang_up(ladder)
