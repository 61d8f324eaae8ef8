"""kill -9 under load, ten times: no call that somebody saw answered lacks its record, and none has two.

The seed is printed; RELAY_TEST_SEED sets it.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from typing import Any

import pytest

from tests.interop.conftest import StartRelay
from tests.support.load import Load, LoadCall, LoadCallee, LoadCaller
from tests.support.relay_process import Setup

KILLS = 10
CALLS_PER_SECOND = 100
BINDINGS = [(f"70010000001{n:04}", f"1380000{n:04}", f"1390000{n:04}") for n in range(50)]
PATIENCE_S = 60.0


@pytest.mark.timeout(300)
async def test_no_record_is_lost_or_doubled_by_kill_9_under_load(start_relay: StartRelay) -> None:
    seed = int(os.environ.get("RELAY_TEST_SEED") or random.randrange(1 << 32))
    print(f"RELAY_TEST_SEED={seed}")
    dice = random.Random(seed)
    setup = Setup(sip={"t1_ms": 100})
    relay = start_relay(setup, [party for _, a, b in BINDINGS for party in (a, b)])
    relay.import_bindings(BINDINGS)
    caller = LoadCaller(setup.caller, setup.relay, dice, lambda: _numbers(dice))
    callee = LoadCallee(setup.callee, setup.relay, dice)
    async with Load(caller, callee, CALLS_PER_SECOND) as load:
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0.3, 1.5))  # the moment is what is tested
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(relay.start)
        await asyncio.sleep(1)
        load.stop()
        await _until_no_call_is_up(caller)
        await asyncio.to_thread(relay.wait_until_idle, PATIENCE_S)
    assert relay.verify()
    _check_records(relay.calls(), caller)
    _check_both_sides_could_end_calls(caller, callee)


def _numbers(dice: random.Random) -> tuple[str, str]:
    number, a, _ = dice.choice(BINDINGS)
    return a, number


async def _until_no_call_is_up(caller: LoadCaller) -> None:
    for _ in range(int(PATIENCE_S / 0.1)):
        if not caller.unfinished:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"never ended: {[call.call_id for call in caller.unfinished][:5]} and more")


def _check_records(records: list[dict[str, Any]], caller: LoadCaller) -> None:
    by_call: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        assert record["ended_at"] and record["outcome"], f"not closed: {record}"
        by_call[record["caller_leg_call_id"]].append(record)
    seen = [call for call in caller.calls.values() if call.final_status]
    assert len(seen) > KILLS * 20, "hardly a call got through: nothing is proved"
    assert any(call.final_status == 200 for call in seen)
    for call in seen:
        found = by_call[call.call_id]
        assert [record["sip_status"] for record in found] == [call.final_status], f"{call}: {found}"


def _check_both_sides_could_end_calls(caller: LoadCaller, callee: LoadCallee) -> None:
    """Every BYE was answered; 481 alone where the call had been ended and recorded just before the kill."""
    for phone in (caller, callee):
        ended = [call for call in phone.calls.values() if call.bye_answered]
        assert len(ended) > KILLS * 5
        refused = [call for call in ended if call.bye_answered != 200 and not call.bye_received]
        assert len(refused) <= len(ended) / 20, refused[:5]


def test_missing_doubled_and_open_records_are_found() -> None:
    """The book-keeping above must be able to fail."""
    caller = LoadCaller(Setup().caller, Setup().relay, random.Random(1), lambda: ("1", "2"))
    call_ids = [f"call-{n}" for n in range(KILLS * 20 + 1)]
    for call_id in call_ids:
        caller.calls[call_id] = LoadCall(call_id, "", "", "", final_status=200)
    records = [
        {"caller_leg_call_id": call_id, "sip_status": 200, "ended_at": 1, "outcome": "answered"} for call_id in call_ids
    ]
    _check_records(records, caller)
    for broken in (records[1:], [*records, records[0]], [{**records[0], "ended_at": None}, *records[1:]]):
        with pytest.raises(AssertionError):
            _check_records(broken, caller)
