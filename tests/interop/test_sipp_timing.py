"""SIPp against the relay's own clocks and second choices: ringing too long, talking too long, a dead first peer."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.ladders import FLOWS, LATE_ACKNOWLEDGEMENT, NO_ANSWER, TOO_LONG, refusing
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


def test_answer_is_repeated_until_it_is_acknowledged(start_relay: StartRelay, tmp_path: Path) -> None:
    relay = start_relay()
    relay.bind()
    caller, callee = run_flow(relay, tmp_path, LATE_ACKNOWLEDGEMENT)
    answers = [message for message in caller.received if message.status == 200 and message.method == "INVITE"]
    assert len(answers) >= 2
    assert sum(message.method == "ACK" for message in callee.received) == 1
    assert_recorded(relay.calls()[0], LATE_ACKNOWLEDGEMENT, FORTH)


@pytest.mark.parametrize("first_peer", ["dead", "silent", 408, 500, 503])
def test_second_peer_is_tried_when_the_first_fails(
    start_relay: StartRelay, tmp_path: Path, first_peer: str | int
) -> None:
    first, second = free(CALLEE), free(SECOND_CALLEE)
    relay = start_relay(Setup(callees=[first, second], sip={"t1_ms": 50}))
    relay.bind()
    flow = FLOWS["caller_hangs_up"]
    relay.setup.callees = [second]  # who answers
    with ExitStack() as cleanup:
        if first_peer == "silent":
            cleanup.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).bind(first)
        broken = None
        if isinstance(first_peer, int):
            broken = Sipp(tmp_path, "broken", refusing(first_peer), first)
            cleanup.callback(broken.stop)
        caller, callee = run_flow(relay, tmp_path, flow)
        assert_masked(relay, FORTH, caller, callee)
        if broken is not None:
            refused = broken.finish().received[0]
            assert refused["call-id"] != callee.received[0]["call-id"]
    (record,) = relay.calls()
    assert_recorded(record, flow, FORTH)
    assert record["peer_out"] == "callee_side_2"
