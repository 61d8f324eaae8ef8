"""The stored form of a call: what it says of flows."""

from __future__ import annotations

import pytest

from relay.call.saved_state import flow_by
from relay.errors import StoreError
from relay.sip.message import Flow
from tests.call.support import TCP, UDP, UDP6, Parts

BY_UDP = Flow(0, "udp", "192.0.2.11", 5060)
BY_TCP = Flow(1, "tcp", "192.0.2.22", 5060)


def test_listeners_may_be_reordered_before_a_restart() -> None:
    peers = Parts(listeners=(TCP, UDP6, UDP)).peers
    assert flow_by(BY_UDP[:4], peers) == BY_UDP._replace(listener=2)
    assert flow_by(BY_TCP[:4], peers) == BY_TCP._replace(listener=0)


@pytest.mark.parametrize("listeners", [(UDP6, UDP), (UDP,)])
def test_flow_without_a_listener_of_its_transport_raises_store_error(listeners: tuple[object, ...]) -> None:
    with pytest.raises(StoreError):
        flow_by(BY_TCP[:4], Parts(listeners=listeners).peers)
