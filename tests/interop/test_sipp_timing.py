"""SIPp against the relay's own clocks and second choices: ringing too long, talking too long, a dead first peer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.ladders import FLOWS, NO_ANSWER, OUT_OF_SERVICE, TOO_LONG
from tests.support.addresses import CALLEE, SECOND_CALLEE, free
from tests.support.relay_process import Setup
from tests.support.sipp import Sipp
from tests.support.sipp_calls import FORTH, assert_masked, assert_recorded, run_flow


def test_call_that_nobody_answers_ends(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay(Setup(sip={"ring_timeout_s": 1}))
    relay.bind()
    caller, callee = run_flow(relay, tmp_path, NO_ANSWER)
    assert_masked(relay, FORTH, caller, callee)
    assert caller.received[-1]["reason"].startswith("Q.850;cause=19")
    (record,) = relay.calls()
    assert_recorded(record, NO_ANSWER, FORTH)


def test_call_that_is_too_long_is_ended_on_both_legs(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay(Setup(sip={"max_call_s": 1}))
    relay.bind()
    caller, callee = run_flow(relay, tmp_path, TOO_LONG)
    assert_masked(relay, FORTH, caller, callee)
    (record,) = relay.calls()
    assert_recorded(record, TOO_LONG, FORTH)


@pytest.mark.parametrize("first_peer", ["dead", "out_of_service"])
def test_second_peer_is_tried_when_the_first_fails(start_relay: StartRelay, tmp_path: Path, first_peer: str) -> None:
    first, second = free(CALLEE), free(SECOND_CALLEE)
    relay = start_relay(Setup(callees=[first, second], sip={"t1_ms": 50}))
    relay.bind()
    flow = FLOWS["caller_hangs_up"]
    broken = Sipp(tmp_path, "broken", OUT_OF_SERVICE, first) if first_peer == "out_of_service" else None
    relay.setup.callees = [second]  # who answers
    caller, callee = run_flow(relay, tmp_path, flow)
    assert_masked(relay, FORTH, caller, callee)
    if broken is not None:
        refused = broken.finish().received[0]
        assert refused["call-id"] != callee.received[0]["call-id"]
    (record,) = relay.calls()
    assert_recorded(record, flow, FORTH)
    assert record["peer_out"] == "callee_side_2"
