"""`relay700 serve --workers 2`: one address, two processes that carry calls; where one dies, its calls go on."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.live_call import Call
from tests.support.phone import Phone
from tests.support.relay_process import RelayProcess, Setup
from tests.support.workers import NUMBERS, A, StartWorkers, kill, wait_for_successor

pytestmark = pytest.mark.outside


@pytest.fixture
def relay(start_workers: StartWorkers) -> RelayProcess:
    return start_workers(Setup(sip={"drain_s": 10, "t1_ms": 200}))


def expected_deaths(relay: RelayProcess) -> list[int]:
    return [event["worker"] for event in relay.events() if event["event"] == "worker.ended"]


async def test_each_number_has_its_worker_and_all_share_one_address(relay: RelayProcess) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        calls = [Call(relay, caller, callee, A, number) for number in NUMBERS]
        for call in calls:
            await call.answer()
        tags = [call.leg.remote.rpartition("tag=")[2] for call in calls]
        assert [tag[0] for tag in tags] == ["0", "1"]
        statistics = relay.statistics()
        assert statistics["calls_up"] == 2
        for call in calls:
            await call.hang_up()
    records = relay.calls()
    assert [record["outcome"] for record in records] == ["answered", "answered"]
    relay.verify()
    left = relay.wait_until_idle(30)
    assert left["datagrams_lost"] == 0
    assert left["datagrams_handed_over"] == 0  # the kernel steers what is written as usual
    relay.stop_and_check()


async def test_a_number_in_any_notation_has_the_same_worker(relay: RelayProcess) -> None:
    """The kernel does not know these, and gives all of one phone's to one worker, which hands over half of them."""
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        calls = [Call(relay, caller, callee, A, f"+86{number}") for number in NUMBERS]
        for call in calls:
            await call.answer()
            await call.hang_up()
        assert [call.leg.remote.rpartition("tag=")[2][0] for call in calls] == ["0", "1"]
    left = relay.wait_until_idle(30)
    assert left["datagrams_handed_over"] >= 1
    assert left["datagrams_lost_between_workers"] == 0


@pytest.mark.parametrize("worker", [0, 1])
async def test_a_call_goes_on_where_its_worker_is_killed(relay: RelayProcess, worker: int) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        call = Call(relay, caller, callee, A, NUMBERS[worker])
        await call.answer()
        wait_for_successor(relay, worker, kill(relay, worker))
        for phone, leg in ((caller, call.leg), (callee, call.called)):  # it asks whether they are there
            await leg.answer(await phone.expect("OPTIONS"), 200)
        await call.hang_up()
    (record,) = relay.calls()
    assert (record["outcome"], record["ended_by"]) == ("answered", "caller")
    assert expected_deaths(relay) == [worker]


async def test_the_other_worker_serves_meanwhile(relay: RelayProcess) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        os.kill(relay.worker_pids()[0], signal.SIGSTOP)
        call = Call(relay, caller, callee, A, NUMBERS[1])
        await call.answer()
        await call.hang_up()
        os.kill(relay.worker_pids()[0], signal.SIGCONT)


async def test_a_worker_that_hangs_is_replaced_and_what_came_meanwhile_is_served(relay: RelayProcess) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        mark = len(relay.log().splitlines())
        os.kill(relay.worker_pids()[0], signal.SIGSTOP)
        call = Call(relay, caller, callee, A, NUMBERS[0])
        relay.wait_for_event("worker.silent", after=mark)
        await call.answer()
        await call.hang_up()
    assert expected_deaths(relay) == [0]


async def test_nobody_is_left_of_a_relay_that_is_killed_and_its_calls_go_on(relay: RelayProcess) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        calls = [Call(relay, caller, callee, A, number) for number in NUMBERS]
        for call in calls:
            await call.answer()
        relay.kill()
        relay.start()
        assert (
            relay.wait_for_event("relay.ready", matching=lambda event: event["calls_restored"])["calls_restored"] == 2
        )
        for call in calls:
            for phone, leg in ((caller, call.leg), (callee, call.called)):
                await leg.answer(await phone.expect_call(leg.call_id), 200)
        for call in calls:
            await call.hang_up()
    assert [record["outcome"] for record in relay.calls()] == ["answered", "answered"]
    relay.stop_and_check()


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 2)])
async def test_calls_go_on_with_another_number_of_workers(start_workers: StartWorkers, before: int, after: int) -> None:
    relay = start_workers(Setup(sip={"drain_s": 10, "t1_ms": 200}), before)
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        calls = [Call(relay, caller, callee, A, NUMBERS[1]) for _ in range(4)]
        for call in calls:
            await call.answer()
        relay.kill()
        relay.workers = after
        relay.start()
        for call in calls:
            for phone, leg in ((caller, call.leg), (callee, call.called)):
                await leg.answer(await phone.expect_call(leg.call_id), 200)
        for call in calls:
            await call.called.request("BYE")
            await call.leg.answer(await caller.expect_call(call.leg.call_id), 200)
            await callee.expect(200, "BYE")
    assert [record["ended_by"] for record in relay.calls()] == ["callee"] * len(calls)
    relay.stop_and_check()


async def test_calls_of_all_workers_are_shown_and_hung_up_from_outside(relay: RelayProcess) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        calls = [Call(relay, caller, callee, A, number) for number in NUMBERS]
        for call in calls:
            await call.answer()
        live = [json.loads(line) for line in relay.command("calls", "live", "--json").stdout.splitlines()]
        assert sorted(call["number_dialled"] for call in live) == sorted(NUMBERS)
        for one in live:
            done = relay.command("calls", "hang-up", one["call_id"], "--reason", "a test")
            assert done.returncode == 0, done.stderr
            for phone in (caller, callee):
                await phone.expect("BYE")
    assert {record["end_reason"] for record in relay.calls()} == {"hung_up"}


async def test_the_drain_waits_for_the_calls_of_all_workers(relay: RelayProcess) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        call = Call(relay, caller, callee, A, NUMBERS[1])
        await call.answer()
        os.kill(relay.pid, signal.SIGTERM)
        for worker, number in enumerate(NUMBERS):
            relay.wait_for_event("relay.draining", matching=lambda event, of=worker: event["worker"] == of)
            assert (await call.refused(number)).status == 503
        await call.hang_up()
    assert relay.wait_for_event("relay.stopped")["clean"] is True


def test_a_port_in_use_is_told(relay: RelayProcess, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    second = RelayProcess(folder, Setup(relay=relay.setup.relay))
    done = second.command("serve", "--workers", "2")
    assert done.returncode == 1
    place = relay.setup.relay
    assert f"sip.listen[0]: udp:{place} is in use: stop the other program, or choose another port" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


async def test_a_connection_outlives_the_worker_that_it_serves(start_workers: StartWorkers) -> None:
    relay = start_workers(Setup(transport="tcp", sip={"drain_s": 2}))
    async with Phone(relay.setup.caller, "tcp") as caller, Phone(relay.setup.callee, "tcp") as callee:
        call = Call(relay, caller, callee, A, NUMBERS[0])
        await call.answer()
        wait_for_successor(relay, 0, kill(relay, 0))
        for phone, leg in ((caller, call.leg), (callee, call.called)):
            await leg.answer(await phone.expect("OPTIONS"), 200)
        await call.hang_up()
        assert not [name for name in relay.statistics() if name.startswith("streams_closed")]
    assert relay.calls()[0]["outcome"] == "answered"
