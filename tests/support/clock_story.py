"""Calls during steps of the relay's wall clock."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from tests.support.live_call import call
from tests.support.relay_process import RelayProcess
from tests.support.store_faults import GO_ON, Witness
from tests.support.wall_clock import WallClock

_STEPS = ("received_at", "routed_at", "ringing_at", "answered_at", "ended_at")


async def outlives(relay: RelayProcess, clock: WallClock, ahead_s: int, *, restarts: bool = False) -> None:
    """One live call and others, with the clock set meanwhile; `restarts`: the relay is killed and started then."""
    mark = len(relay.log().splitlines())
    async with call(relay) as up:
        witness = Witness(up)
        await witness.until(GO_ON)
        clock.set(ahead_s)
        if restarts:
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(relay.start)
            for phone, leg in ((up.caller, up.leg), (up.callee, up.called)):
                await leg.answer(await phone.expect("OPTIONS"), 200)
        else:
            await asyncio.to_thread(relay.wait_for_event, "clock.was_set", after=mark)
        await witness.until(GO_ON)
        await up.hang_up()
    assert await asyncio.to_thread(relay.verify)
    await asyncio.to_thread(witness.check_records, relay)
    for record in await asyncio.to_thread(relay.calls):
        check_times(record)


def check_times(record: dict[str, Any]) -> None:
    """The times of a record are in order and agree with its duration."""
    times = [datetime.fromisoformat(record[step]) for step in _STEPS if record[step]]
    assert times == sorted(times), record
    if record["duration_ms"] is not None:
        lasted = datetime.fromisoformat(record["ended_at"]) - datetime.fromisoformat(record["answered_at"])
        assert abs(1000 * lasted.total_seconds() - record["duration_ms"]) < 2, record
