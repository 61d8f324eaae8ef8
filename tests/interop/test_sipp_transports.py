"""The basic flows over TCP and IPv6 with SIPp. SIPp's TLS client fails in Debian 13: TLS is in test_tls.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.interop.ladders import BASIC_FLOWS, FLOWS
from tests.support.addresses import CALLEE, CALLER, RELAY, free
from tests.support.relay_process import Setup
from tests.support.sipp_calls import BACK, FORTH, assert_masked, assert_recorded, run_flow

WAYS = {
    "tcp": ("tcp", RELAY, CALLER, CALLEE),
    "udp_ipv6": ("udp", "::1", "::1", "::1"),
    "tcp_ipv6": ("tcp", "::1", "::1", "::1"),
}


@pytest.mark.parametrize("way", WAYS)
def test_basic_flows_pass_both_ways(start_relay: StartRelay, tmp_path: Path, way: str) -> None:
    transport, relay_host, caller_host, callee_host = WAYS[way]
    setup = Setup(free(relay_host), free(caller_host), [free(callee_host)], transport, listen=[transport])
    relay = start_relay(setup)
    relay.bind()
    expected = []
    for direction in (FORTH, BACK):
        for name in BASIC_FLOWS:
            flow = FLOWS[name]
            caller, callee = run_flow(relay, tmp_path, flow, direction, transport=transport)
            assert_masked(relay, direction, caller, callee)
            expected.append((flow, direction))
    records = sorted(relay.calls(), key=lambda record: record["received_at"])
    assert len(records) == len(expected)
    for record, (flow, direction) in zip(records, expected, strict=True):
        assert_recorded(record, flow, direction)
