"""The PostgreSQL server is away, frozen or full, and its node goes on: what is answered, and what has a record."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.addresses import RELAY, free
from tests.support.live_call import Call
from tests.support.phone import SDP, Leg, Phone
from tests.support.postgres import PostgresProcess
from tests.support.relay_process import A, B, RelayProcess, Setup, X

pytestmark = [pytest.mark.outside, pytest.mark.timeout(240)]

REFUSED = 20


@pytest.fixture
def server() -> Iterator[PostgresProcess]:
    made = PostgresProcess(synchronous_commit="on")
    with psycopg.connect(made.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE relay700")
    yield made
    made.close()


@pytest.fixture
def relay(tmp_path: Path, server: PostgresProcess) -> Iterator[RelayProcess]:
    store = {"url": server.url("relay700"), "node": "a", "key_file": f"{tmp_path}/relay.key"}
    relay = RelayProcess(tmp_path, Setup(store=store, api=free(RELAY), sip={"t1_ms": 200}), (A, B))
    relay.start()
    try:
        relay.bind()
        yield relay
    except BaseException:
        print(relay.log_tail())
        raise
    finally:
        relay.stop_if_running()


async def is_refused(relay: RelayProcess, caller: Phone) -> str:
    """Returns the Call-ID of an attempt that is answered while the server is away."""
    leg = Leg.calling(caller, relay.setup.relay, A, X)
    branch = await leg.request("INVITE", body=SDP)
    response = await caller.expect_call(leg.call_id)
    if response.status == 100:
        response = await caller.expect_call(leg.call_id)
    assert (response.status, response["retry-after"]) == (503, "5")
    leg.learn(response)
    await leg.request("ACK", cseq=leg.cseq, branch=branch)
    return leg.call_id


class Ringing:
    """A call whose phone rings."""

    def __init__(self, relay: RelayProcess, caller: Phone, callee: Phone) -> None:
        self._caller, self._callee = caller, callee
        self._relay = relay.setup.relay
        self.leg = Leg.calling(caller, self._relay, A, X)

    async def ring(self) -> None:
        self._branch = await self.leg.request("INVITE", body=SDP)
        self._invite = await self._callee.expect("INVITE")
        self._called = Leg.called(self._callee, self._relay, self._invite)
        await self._called.answer(self._invite, 180)
        await self._caller.expect(180)

    async def is_answered_in_vain(self) -> None:
        """The callee is told at once that it is over, and the caller hears it, too."""
        await self._called.answer(self._invite, 200, body=SDP)
        refused = await self._caller.expect(503, "INVITE", timeout_s=20)
        self.leg.learn(refused)
        await self.leg.request("ACK", cseq=self.leg.cseq, branch=self._branch)
        await self._callee.expect("ACK")
        await self._called.answer(await self._callee.expect("BYE"), 200)


async def test_call_that_is_answered_while_it_is_away_ends_after_a_while(
    relay: RelayProcess, server: PostgresProcess
) -> None:
    """Another node could not see that it was answered."""
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        call = Ringing(relay, caller, callee)
        await call.ring()
        await asyncio.to_thread(server.stop)
        await call.is_answered_in_vain()
        refused = await is_refused(relay, caller)
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(relay.wait_for_event, "journal.recovered")
    outcomes = {record["caller_leg_call_id"]: record["outcome"] for record in relay.calls()}
    assert outcomes == dict.fromkeys((call.leg.call_id, refused), "store_failed")
    assert len(relay.calls()) == 2
    relay.verify()
    assert relay.stop() == 0


async def test_calls_end_and_are_refused_while_it_is_away_and_each_has_its_record(
    relay: RelayProcess, server: PostgresProcess
) -> None:
    async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
        calls = [Call(relay, caller, callee) for _ in range(2)]
        for call in calls:
            await call.answer()
        await asyncio.to_thread(server.stop)
        refused = [await is_refused(relay, caller) for _ in range(REFUSED)]
        await calls[0].hang_up()
        await asyncio.to_thread(relay.kill)
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(relay.start)
        for phone, leg in ((caller, calls[1].leg), (callee, calls[1].called)):
            probe = await phone.expect_call(leg.call_id)
            assert probe.method == "OPTIONS"
            await leg.answer(probe, 200)
        await calls[1].hang_up()
        await asyncio.to_thread(relay.wait_until_idle, 60.0)
    outcomes = {record["caller_leg_call_id"]: record["outcome"] for record in relay.calls()}
    assert outcomes == dict.fromkeys(refused, "store_failed") | {call.leg.call_id: "answered" for call in calls}
    assert len(relay.calls()) == len(outcomes)
    relay.verify()
    assert relay.stop() == 0
    relay.assert_nothing_in_clear()


async def test_each_line_of_the_log_stays_an_object_while_it_is_away(
    relay: RelayProcess, server: PostgresProcess
) -> None:
    """The backend ended with a line of plain text, and the driver's pool wrote a traceback at each try."""
    async with Phone(relay.setup.caller) as caller:
        await asyncio.to_thread(server.stop)
        await is_refused(relay, caller)
        await asyncio.to_thread(relay.wait_for_event, "backend.failed")
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(relay.wait_for_event, "journal.recovered")
    assert relay.stop() == 0
    assert relay.lines_without_form() == []
    assert [event for event in relay.events() if event["event"] == "library.said" or "exception" in event] == []
