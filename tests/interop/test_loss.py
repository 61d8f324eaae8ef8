"""500 calls at 50 a second while every twentieth datagram is lost, on all ways and both directions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.ladders import WITH_LOSS
from tests.support.namespace import reran_in_own_network
from tests.support.relay_process import Setup
from tests.support.sipp_calls import FORTH, assert_masked, run_flow

CALLS = 500
T1_MS = 200  # 64*T1 is 13 s: what a lost message leaves behind is gone then


@pytest.mark.timeout(300)
def test_no_call_goes_wrong_and_nothing_is_left_behind(
    request: pytest.FixtureRequest, start_relay: StartRelay, tmp_path: Path
) -> None:
    if reran_in_own_network(request, loss_percent=5):
        return
    relay = start_relay(Setup(sip={"t1_ms": T1_MS}))
    relay.bind()
    caller, callee = run_flow(relay, tmp_path, WITH_LOSS, calls=CALLS, rate=50, timeout_s=120)
    assert_masked(relay, FORTH, caller, callee)
    relay.wait_until_idle(64 * T1_MS / 1000 * 3)
    records = relay.calls()
    assert Counter(record["outcome"] for record in records) == {"answered": CALLS}
    assert Counter(record["ended_by"] for record in records) == {"caller": CALLS}
    assert {record["caller_leg_call_id"] for record in records} == {message["call-id"] for message in caller.sent}
    assert relay.verify()
