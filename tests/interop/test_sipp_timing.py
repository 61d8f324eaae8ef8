"""SIPp against a first target that fails: a closed port, and a refusal."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.ladders import FLOWS, refusing
from tests.support.addresses import CALLEE, SECOND_CALLEE, free
from tests.support.relay_process import Setup
from tests.support.sipp import Sipp
from tests.support.sipp_calls import FORTH, assert_masked, assert_recorded, run_flow


@pytest.mark.parametrize("status", [None, 503], ids=["port_unreachable", "503"])
def test_second_target_is_tried_when_the_first_fails(
    start_relay: StartRelay, tmp_path: Path, status: int | None
) -> None:
    first, second = free(CALLEE), free(SECOND_CALLEE)
    relay = start_relay(Setup(callees=[first, second], sip={"t1_ms": 50}))
    relay.bind()
    flow = FLOWS["caller_hangs_up"]
    relay.setup.callees = [second]  # who answers
    with ExitStack() as cleanup:
        broken = None
        if status is not None:
            broken = Sipp(tmp_path, "broken", refusing(status), first)
            cleanup.callback(broken.stop)
        caller, callee = run_flow(relay, tmp_path, flow)
        assert_masked(relay, FORTH, caller, callee)
        if broken is not None:
            refused = broken.finish().received[0]
            assert refused["call-id"] != callee.received[0]["call-id"]
    (record,) = relay.calls()
    assert_recorded(record, flow, FORTH)
    assert record["peer_out"] == "callee_side_2"
