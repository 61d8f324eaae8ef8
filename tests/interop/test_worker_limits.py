"""What two workers of a running relay count together."""

from __future__ import annotations

import pytest

from tests.support.live_call import Call
from tests.support.phone import Phone
from tests.support.relay_process import Setup
from tests.support.workers import NUMBERS, A, StartWorkers, kill, wait_for_successor

pytestmark = pytest.mark.outside


async def test_a_limit_holds_for_both_also_after_one_was_killed(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup(sip={"t1_ms": 200}, more="\n[limits]\nmax_calls = 1\n"))
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        call = Call(relay, caller, callee, A, NUMBERS[0])
        await call.answer()
        assert (await call.refused())["retry-after"] == "5"  # to a number of the other worker
        wait_for_successor(relay, 0, kill(relay, 0))
        for phone, leg in ((caller, call.leg), (callee, call.called)):  # it asks whether they are there
            await leg.answer(await phone.expect("OPTIONS"), 200)
        await call.refused()
        await call.hang_up()
        other = Call(relay, caller, callee, A, NUMBERS[1])
        await other.answer()
        await other.hang_up()
    assert [record["outcome"] for record in relay.calls()].count("over_limit") == 2
    relay.verify()
