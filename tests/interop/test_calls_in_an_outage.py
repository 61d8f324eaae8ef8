"""The store takes nothing, and the relay is killed: calls go on, also those that the overflow alone knows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.live_call import Call
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.store_faults import FAULTS, Fault, disk_for, reran_with_own_disk

pytestmark = pytest.mark.outside


@contextmanager
def _serving(folder: Path, setup: Setup) -> Iterator[RelayProcess]:
    relay = RelayProcess(folder, setup)
    relay.start()
    try:
        relay.bind()
        yield relay
    finally:
        relay.stop_if_running()
    assert "Traceback" not in relay.log()


def _kill_and_start(relay: RelayProcess) -> None:
    relay.kill()
    relay.start()


async def _goes_on(call: Call) -> None:
    """Both sides are asked whether they are there."""
    for phone, leg in ((call.caller, call.leg), (call.callee, call.called)):
        request = await phone.expect_call(leg.call_id)
        assert request.first_line.startswith("OPTIONS")
        await leg.answer(request, 200)


async def _offer_again(asks: Leg, hears: Leg) -> None:
    await asks.request("INVITE", body=SDP)
    invite = await hears.phone.expect("INVITE")
    await hears.answer(invite, 200, body=SDP)
    await asks.phone.expect(200, "INVITE")
    await asks.request("ACK", cseq=asks.cseq)
    await hears.phone.expect("ACK")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["full", "locked"])
async def test_they_can_be_ended_by_either_side_while_it_lasts(
    request: pytest.FixtureRequest, tmp_path: Path, name: str
) -> None:
    fault = FAULTS[name]
    if reran_with_own_disk(request, fault):
        return
    folder = tmp_path / "store"
    with disk_for(folder, fault), _serving(tmp_path, Setup(sip={"t1_ms": 200}, store_in=folder)) as relay:
        await _outlived(relay, folder, fault)


@pytest.mark.timeout(120)
async def test_those_that_ended_in_it_count_against_the_caps(tmp_path: Path) -> None:
    setup = Setup(sip={"t1_ms": 200}, policy={"caller_caps": ["2/5m"], "number_caps": []})
    with _serving(tmp_path, setup) as relay:
        undo = FAULTS["locked"].happens(tmp_path)
        try:
            async with Phone(setup.caller) as caller, Phone(setup.callee) as callee:
                for _ in range(2):
                    call = Call(relay, caller, callee)
                    await call.answer()
                    await call.hang_up()
                await asyncio.to_thread(_kill_and_start, relay)
                leg = Leg.calling(caller, setup.relay, A, X)
                branch = await leg.request("INVITE", body=SDP)
                leg.learn(await caller.expect(403, "INVITE"))
                await leg.request("ACK", cseq=leg.cseq, branch=branch)
        finally:
            undo()
        relay.stop()
        assert [record["outcome"] for record in relay.calls()] == ["answered", "answered", "frequency_caller"]


async def _outlived(relay: RelayProcess, folder: Path, fault: Fault) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        undo = fault.happens(folder)
        calls = [Call(relay, caller, callee) for _ in range(3)]
        for call in calls:
            await call.answer()
        await _offer_again(calls[0].leg, calls[0].called)
        await _offer_again(calls[0].called, calls[0].leg)
        await calls[2].hang_up()
        mark = len(relay.log().splitlines())
        await asyncio.to_thread(_kill_and_start, relay)
        for call in calls[:2]:
            await _goes_on(call)
        await calls[0].hang_up()
        await calls[1].called.request("BYE")
        await calls[1].leg.answer(await caller.expect("BYE"), 200)
        await callee.expect(200, "BYE")
        if fault is FAULTS["locked"]:  # on a full disk whoever opens the store finds room in what is left of its log
            assert "journal.recovered" not in relay.log()
        undo()
        await asyncio.to_thread(relay.wait_for_event, "journal.recovered", after=mark)
    relay.stop()
    assert relay.verify()
    ended = {record["caller_leg_call_id"]: (record["outcome"], record["ended_by"]) for record in relay.calls()}
    by = ("caller", "callee", "caller")
    assert ended == {call.leg.call_id: ("answered", side) for call, side in zip(calls, by, strict=True)}
