"""SIPp plays every flow of a call through the relay, over UDP, the basic ones both ways; each side sees X alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import running_relay
from tests.interop.ladders import BASIC_FLOWS, FLOWS, FORBIDDEN_NUMBERS, REFUSED_AT_THE_DOOR
from tests.support.addresses import CALLEE, CALLER
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.sipp import Sipp, Traffic
from tests.support.sipp_calls import BACK, FORTH, Direction, assert_carried, assert_masked, assert_recorded, run_flow


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    with running_relay(tmp_path_factory.mktemp("relay"), Setup()) as relay:
        relay.bind()
        yield relay
        relay.verify()


@pytest.mark.parametrize(
    ("name", "direction"), [*((name, FORTH) for name in FLOWS), *((name, BACK) for name in BASIC_FLOWS)]
)
def test_flow_passes_and_shows_only_the_700_number(
    relay: RelayProcess, tmp_path: Path, name: str, direction: Direction
) -> None:
    flow = FLOWS[name]
    before = len(relay.calls())
    caller, callee = run_flow(relay, tmp_path, flow, direction)
    assert_masked(relay, direction, caller, callee)
    assert_carried(flow, caller, callee)
    assert_no_word_of_the_callees_network(caller)
    records = relay.calls()
    assert len(records) == before + 1
    newest = max(records, key=lambda record: record["received_at"])
    assert_recorded(newest, flow, direction)


@pytest.mark.parametrize("name", REFUSED_AT_THE_DOOR)
def test_what_the_relay_does_not_do_is_refused_without_a_call(relay: RelayProcess, tmp_path: Path, name: str) -> None:
    ladder, header = REFUSED_AT_THE_DOOR[name]
    before = len(relay.calls())
    phone = Sipp(tmp_path, name, ladder, relay.setup.caller, calls_to=relay.setup.relay, numbers=[(A, X)])
    traffic = phone.finish()
    if header:
        assert traffic.received[-1][header]
    assert name == "unknown_extension_required" or len(relay.calls()) == before


@pytest.mark.parametrize("name", FORBIDDEN_NUMBERS)
def test_number_that_may_not_be_called_is_refused_with_a_reason(relay: RelayProcess, tmp_path: Path, name: str) -> None:
    dialled, status, outcome = FORBIDDEN_NUMBERS[name]
    _refused(relay, tmp_path, A, dialled, status)
    newest = max(relay.calls(), key=lambda record: record["received_at"])
    assert (newest["outcome"], newest["sip_status"]) == (outcome, status)


def test_caller_without_a_binding_is_refused(relay: RelayProcess, tmp_path: Path) -> None:
    _refused(relay, tmp_path, "13800000099", X, 403)
    newest = max(relay.calls(), key=lambda record: record["received_at"])
    assert newest["outcome"] in ("no_binding", "caller_not_allowed")


def test_masking_check_itself_sees_a_leak(tmp_path: Path) -> None:
    """Two phones without the relay between them: the check that all flows rely on must fail."""
    ends = Setup()
    unmasked = RelayProcess(tmp_path, Setup(relay=ends.callee, caller=ends.caller, callees=ends.callees))
    caller, callee = run_flow(unmasked, tmp_path, FLOWS["caller_hangs_up"])
    with pytest.raises(AssertionError):
        assert_masked(unmasked, FORTH, caller, callee)
    assert CALLER.encode() in callee.raw_received
    assert CALLEE.encode() in caller.raw_received


def assert_no_word_of_the_callees_network(caller: Traffic) -> None:
    """What a 3xx, 401 or 407 tells of the callee."""
    for message in caller.received:
        assert not message["www-authenticate"] + message["proxy-authenticate"]
        assert "127.0.0.99" not in message.text


def _refused(relay: RelayProcess, folder: Path, caller: str, dialled: str, status: int) -> None:
    ladder = f"> INVITE sdp\n< 100?\n< {status}\n> ACK"
    phone = Sipp(folder, "refused", ladder, relay.setup.caller, calls_to=relay.setup.relay, numbers=[(caller, dialled)])
    answer = phone.finish().received[-1]
    assert answer["reason"].startswith("Q.850;cause=")
