"""The PostgreSQL server is away, frozen or full, and its node goes on: what is answered, and what has a record."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from tests.support.addresses import RELAY, free
from tests.support.live_call import Call, Ringing
from tests.support.namespace import reran_with_own_mounts
from tests.support.phone import SDP, Leg, Phone
from tests.support.postgres import PostgresProcess
from tests.support.relay_process import A, B, RelayProcess, Setup, X
from tests.support.store_faults import FAULTS, disk_for

pytestmark = [pytest.mark.outside, pytest.mark.timeout(240)]

REFUSED = 20
HTTP_S = 15.0
SERVER_MB = 120


@contextmanager
def served(folder: Path | None = None) -> Iterator[PostgresProcess]:
    made = PostgresProcess(folder, synchronous_commit="on", min_wal_size="32MB", max_wal_size="64MB")
    with psycopg.connect(made.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE relay700")
    yield made
    made.ensure_running()
    made.close()


@contextmanager
def small_disk() -> Iterator[Path]:
    """The user postgres has no access to a test's own folder."""
    folder = Path(tempfile.mkdtemp())
    with disk_for(folder, FAULTS["full"], SERVER_MB):
        folder.chmod(0o755)
        yield folder
    folder.rmdir()


def fill_segment(server: PostgresProcess) -> None:
    """Write until the log needs another segment, for which there is no room: then the server ends."""
    with suppress(psycopg.Error), psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        while True:
            connection.execute("SELECT pg_logical_emit_message(false, 'fills', repeat('x', 1000000))")


@pytest.fixture
def server() -> Iterator[PostgresProcess]:
    with served() as server:
        yield server


@pytest.fixture
def relay(tmp_path: Path, server: PostgresProcess) -> Iterator[RelayProcess]:
    with running(tmp_path, server) as relay:
        yield relay


@contextmanager
def running(tmp_path: Path, server: PostgresProcess) -> Iterator[RelayProcess]:
    store = {"url": server.url("relay700"), "node": "a", "key_file": f"{tmp_path}/relay.key"}
    relay = RelayProcess(tmp_path, Setup(store=store, api=free(RELAY), sip={"t1_ms": 200}), (A, B))
    relay.start()
    try:
        relay.bind()
        yield relay
    finally:
        relay.stop_if_running()
        print(relay.log_tail())  # shown if the test fails


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


class Http:
    """A client of the API."""

    def __init__(self, relay: RelayProcess) -> None:
        self._url = f"http://{relay.setup.api}"
        self._key = relay.answer("keys", "make", "--operator", "--json")["secret"]

    async def get(self, path: str) -> httpx.Response:
        return await self._request("GET", path)

    async def bind(self) -> httpx.Response:
        wanted = {"mode": "AXB", "a": "13800000003", "b": "13900000004", "order_id": "order"}
        return await self._request("POST", "/v1/bindings", wanted)

    async def _request(self, method: str, path: str, body: object = None) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=HTTP_S) as client:
            headers = {"authorization": f"Bearer {self._key}"}
            return await client.request(method, self._url + path, json=body, headers=headers)

    async def says_that_the_store_is_away(self) -> None:
        requests = [self.get("/v1/businesses"), self.get("/v1/bindings?limit=5"), self.get("/readyz"), self.bind()]
        for answer in await asyncio.gather(*requests):
            assert (answer.status_code, answer.headers.get("retry-after")) == (503, "1"), answer.text
        assert (await self.get("/healthz")).status_code == 200
        metrics = await self.get("/metrics")
        assert metrics.status_code == 200
        assert {"relay700_up 1.0", "relay700_store_up 0.0"} <= set(metrics.text.splitlines())

    async def works(self) -> None:
        answers: list[httpx.Response] = []
        async with asyncio.timeout(60):
            while [answer.status_code for answer in answers] != [200, 201]:
                if answers:
                    print(*(answer.text for answer in answers))
                    await asyncio.sleep(0.2)
                answers = [await self.get("/readyz"), await self.bind()]


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
async def test_http_says_so_and_the_same_backend_goes_on(
    relay: RelayProcess, server: PostgresProcess, fault: str
) -> None:
    relay.wait_for_event("api.listening")
    http = Http(relay)
    await http.works()
    happens, ends = (server.stop, server.start) if fault == "stopped" else (server.freeze, server.thaw)
    await asyncio.to_thread(happens)
    try:
        await http.says_that_the_store_is_away()
        await asyncio.to_thread(relay.wait_for_event, "leader_lock.failed")
        await http.says_that_the_store_is_away()
    finally:
        await asyncio.to_thread(ends)
    await http.works()
    assert [event for event in relay.events() if event["event"] in ("backend.ended", "backend.part_failed")] == []
    assert relay.stop() == 0


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


async def test_call_that_is_answered_while_its_disk_is_full_ends_after_a_while(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if reran_with_own_mounts(request):
        return
    with small_disk() as disk, served(disk) as server, running(tmp_path, server) as relay:
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            up, call = Call(relay, caller, callee), Ringing(relay, caller, callee)
            await up.answer()
            await call.ring()
            undo = FAULTS["full"].happens(disk)
            await asyncio.to_thread(fill_segment, server)
            await call.is_answered_in_vain()
            await up.hang_up()
            undo()
            await asyncio.to_thread(server.ensure_running)
            await asyncio.to_thread(relay.wait_for_event, "journal.recovered", timeout_s=60)
        outcomes = {record["caller_leg_call_id"]: record["outcome"] for record in relay.calls()}
        assert outcomes == {up.leg.call_id: "answered", call.leg.call_id: "store_failed"}
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
