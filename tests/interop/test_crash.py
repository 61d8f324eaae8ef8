"""kill -9 under load: no call that somebody saw answered lacks its record, none has two, and calls go on.

The seed is printed; RELAY_TEST_SEED sets it. `scripts/chaos --only crash` does the same for longer.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from tests.interop.conftest import StartRelay
from tests.support.crashes import BINDINGS, PARTIES, Crashes, Kill, check_hanging_up, check_records, setup_for
from tests.support.load import LoadCall, LoadCallee, LoadCaller
from tests.support.relay_process import RelayProcess, Setup
from tests.support.seeds import dice
from tests.support.store_faults import FAULTS, disk_for, reran_with_own_disk

pytestmark = pytest.mark.outside

KILLS = 6
KILLS_IN_AN_OUTAGE = 2


@pytest.mark.timeout(300)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_no_record_is_lost_or_doubled_by_kill_9_under_load(start_relay: StartRelay, transport: str) -> None:
    relay = start_relay(setup_for(transport), PARTIES)
    relay.import_bindings(BINDINGS)
    await Crashes(relay, dice()).run(KILLS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["full", "locked"])
async def test_nor_while_they_lie_in_the_overflow(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    """The store takes nothing when it is killed, and is well again when the next one comes."""
    fault = FAULTS[name]
    if reran_with_own_disk(request, fault):
        return
    folder = tmp_path / "store"
    with disk_for(folder, fault):
        relay = RelayProcess(tmp_path, replace(setup_for("udp"), store_in=folder), PARTIES)
        relay.start()
        try:
            relay.import_bindings(BINDINGS)
            await Crashes(relay, dice()).run(KILLS_IN_AN_OUTAGE, fault)
        finally:
            relay.stop_if_running()
        relay.assert_nothing_in_clear()
    assert "Traceback" not in relay.log()
    assert any(event["event"] == "journal.recovered" and event["backlog"] for event in relay.events())


def test_missing_doubled_and_open_records_are_found() -> None:
    """The book-keeping above must be able to fail."""
    caller = LoadCaller(Setup().caller, Setup().relay, random.Random(1), lambda: ("1", "2"))
    call_ids = [f"call-{n}" for n in range(101)]
    for call_id in call_ids:
        caller.calls[call_id] = LoadCall(call_id, "", "", "", final_status=200, finals={"": 200})
    records = [
        {
            "caller_leg_call_id": call_id,
            "callee_leg_call_id": f"of {call_id}",
            "sip_status": 200,
            "ended_at": 1,
            "outcome": "answered",
        }
        for call_id in call_ids
    ]
    check_records(records, caller, at_least=100)
    for broken in (records[1:], [*records, records[0]], [{**records[0], "ended_at": None}, *records[1:]]):
        with pytest.raises(AssertionError):
            check_records(broken, caller, at_least=100)


def test_a_bye_that_is_refused_without_its_record_and_a_kill_is_found() -> None:
    setup = Setup()
    caller = LoadCaller(setup.caller, setup.relay, random.Random(1), lambda: ("1", "2"))
    callee = LoadCallee(setup.callee, setup.relay, random.Random(1))
    for phone in (caller, callee):
        for call_id, status in (("ended", 200), ("gone", 481)):
            call = LoadCall(call_id, "", "", "", bye_answered=status, bye_sent_s=2.0, bye_answered_s=4.0)
            phone.calls[call_id] = call
    records = [{"caller_leg_call_id": "gone", "callee_leg_call_id": "gone", "sip_status": 200, "end_reason": "bye"}]
    check_hanging_up(records, caller, callee, [Kill(2.9, 3.0)], at_least=0)
    for end_reason, kills in (("bye", [Kill(0.9, 1.0), Kill(4.9, 5.0)]), ("restart", [Kill(2.9, 3.0)])):
        with pytest.raises(AssertionError):
            check_hanging_up([{**records[0], "end_reason": end_reason}], caller, callee, kills, at_least=0)
