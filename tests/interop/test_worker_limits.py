"""What two workers of a running relay count together."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.test_workers import CALLEES, NUMBERS, A
from tests.support.live_call import Call
from tests.support.phone import Phone
from tests.support.relay_process import RelayProcess, Setup

pytestmark = pytest.mark.outside


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    setup = Setup(sip={"t1_ms": 200}, more="\n[limits]\nmax_calls = 1\n")
    process = RelayProcess(tmp_path, setup, (A, *CALLEES), workers=2)
    process.start()
    for number, callee in zip(NUMBERS, CALLEES, strict=True):
        process.bind(x=number, a=A, b=callee)
    yield process
    process.stop()


async def test_a_limit_holds_for_both_also_after_one_was_killed(relay: RelayProcess) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        call = Call(relay, caller, callee, A, NUMBERS[0])
        await call.answer()
        assert (await call.refused())["retry-after"] == "5"  # to a number of the other worker
        mark = len(relay.log().splitlines())
        os.kill(relay.worker_pids()[0], signal.SIGKILL)
        relay.wait_for_event("worker.ready", after=mark, matching=lambda event: event["worker"] == 0)
        for phone, leg in ((caller, call.leg), (callee, call.called)):  # it asks whether they are there
            await leg.answer(await phone.expect("OPTIONS"), 200)
        await call.refused()
        await call.hang_up()
        other = Call(relay, caller, callee, A, NUMBERS[1])
        await other.answer()
        await other.hang_up()
    assert [record["outcome"] for record in relay.calls()].count("over_limit") == 2
    relay.verify()
