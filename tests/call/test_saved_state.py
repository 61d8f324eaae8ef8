"""The stored form of a call: dialogs, and flows after listeners have changed."""

from __future__ import annotations

import msgspec
import pytest

from relay.call.saved_state import DialogState, flow_by
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


# -- a dialog

STATE = DialogState(
    "c1", "ours", "theirs", "<sip:a@h>", "<sip:b@h>", 7, None, "<sip:b@192.0.2.2>", ("<sip:p;lr>",), True, False
)


def test_it_is_stored_without_names_and_read_back() -> None:
    stored = msgspec.json.encode(STATE)
    assert stored.startswith(b'["c1","ours","theirs",')
    assert msgspec.json.decode(stored, type=DialogState) == STATE


@pytest.mark.parametrize(
    "wrong", [b'["c1"]', b'{"call_id":"c1"}', b'["c1","o","t","u","u","7",null,"x",[],true,false]']
)
def test_another_form_is_refused(wrong: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(wrong, type=DialogState)
