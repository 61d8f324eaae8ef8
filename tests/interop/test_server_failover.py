"""PostgreSQL fails over to a standby, as docs/NODES.md has it, while nodes serve calls and their follower works."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.addresses import RELAY, free
from tests.support.live_call import Call
from tests.support.phone import SDP, Leg, Phone
from tests.support.postgres import PostgresProcess
from tests.support.relay_process import A, B, RelayProcess, Setup, X
from tests.support.waiting import until_seen

pytestmark = [pytest.mark.outside, pytest.mark.timeout(240)]

DATABASE = "relay700"


class Servers:
    """A primary with a standby."""

    def __init__(self) -> None:
        self.primary = PostgresProcess(synchronous_commit="on")
        self._on_primary(f"CREATE DATABASE {DATABASE}")
        self.standby = PostgresProcess(primary=self.primary)
        self._on_primary("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")

    @property
    def url(self) -> str:
        """Of both, as the manual has it."""
        hosts = f"{self.primary.folder},{self.standby.folder}"
        return f"postgresql://relay@/{DATABASE}?host={hosts}&target_session_attrs=read-write"

    def lose_standby(self) -> None:
        """The primary goes on without it."""
        self.standby.stop("fast")
        self._on_primary("ALTER SYSTEM SET synchronous_standby_names = ''", "SELECT pg_reload_conf()")

    def _on_primary(self, *statements: str) -> None:
        with psycopg.connect(self.primary.url("postgres"), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    made.standby.close()
    made.primary.start()
    made.primary.close()


@contextmanager
def running(folder: Path, url: str, *names: str) -> Iterator[list[RelayProcess]]:
    relays = []
    for name in names:
        own = folder / name
        own.mkdir()
        store = {"url": url, "node": name, "key_file": f"{folder}/relay.key"}
        relays.append(RelayProcess(own, Setup(store=store, api=free(RELAY)), (A, B)))
        relays[-1].start()
    try:
        yield relays
    finally:
        for relay in relays:
            relay.stop_if_running()


async def one_call(relay: RelayProcess, caller: Phone, callee: Phone) -> None:
    made = Call(relay, caller, callee)
    await made.answer()
    await made.hang_up()


async def test_no_call_and_no_record_is_lost_and_the_follower_goes_on(tmp_path: Path, servers: Servers) -> None:
    with running(tmp_path, servers.url, "a", "b") as relays:
        first, other = relays
        first.bind()
        async with Phone(first.setup.caller) as caller, Phone(first.setup.callee) as callee:
            await one_call(first, caller, callee)
            up = Call(first, caller, callee)
            await up.answer()
            mark = len(first.log().splitlines())
            await asyncio.to_thread(servers.primary.stop)
            leg = Leg.calling(caller, first.setup.relay, A, X)
            branch = await leg.request("INVITE", body=SDP)
            await asyncio.to_thread(first.wait_for_event, "journal.write_failed", after=mark)
            await asyncio.to_thread(servers.standby.promote)
            leg.learn(await caller.expect(503, "INVITE", timeout_s=60))  # once its record is stored
            await leg.request("ACK", cseq=leg.cseq, branch=branch)
            await up.hang_up()
            await one_call(first, caller, callee)
        async with Phone(other.setup.caller) as caller, Phone(other.setup.callee) as callee:
            await one_call(other, caller, callee)
        outcomes = ["answered", "answered", "store_failed", "answered", "answered"]
        assert sorted(record["outcome"] for record in other.calls()) == sorted(outcomes)

        def indexed() -> list[tuple[int]]:
            with psycopg.connect(servers.standby.url(DATABASE)) as connection:
                return connection.execute("SELECT DISTINCT record FROM record_index").fetchall()

        await until_seen(lambda: len(indexed()) == len(outcomes))
        assert sorted(record["outcome"] for record in other.calls("--number", X)) == sorted(outcomes)
        assert "5 " in first.verify()
        assert [relay.stop() for relay in relays] == [0, 0]
        for relay in relays:
            assert [event for event in relay.events() if event["event"].startswith("ledger.")] == []


async def test_what_the_new_primary_lacks_is_not_given_again(tmp_path: Path, servers: Servers) -> None:
    with running(tmp_path, servers.url, "a") as (relay,):
        relay.bind()
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            await one_call(relay, caller, callee)
            await asyncio.to_thread(servers.lose_standby)
            assert relay.command("business", "suspend", "default", "--reason", "complaints").returncode == 0
            leg = Leg.calling(caller, relay.setup.relay, A, X)
            branch = await leg.request("INVITE", body=SDP)
            leg.learn(await caller.expect(403, "INVITE"))
            await leg.request("ACK", cseq=leg.cseq, branch=branch)
            mark = len(relay.log().splitlines())
            await asyncio.to_thread(servers.primary.stop)
            await asyncio.to_thread(servers.standby.start)
            await asyncio.to_thread(servers.standby.promote)
            while not any(event["event"] == "lookup.altered" for event in relay.events(mark)):
                await Call(relay, caller, callee).refused()
            assert (await asyncio.to_thread(relay.command, "bindings", "list")).returncode == 1
            accept = ("verify", "--accept", "--reason", "failover")
            assert (await asyncio.to_thread(relay.command, *accept)).returncode == 0
            await Call(relay, caller, callee).refused()
            assert await asyncio.to_thread(relay.stop) == 0
            await asyncio.to_thread(relay.start)
            await one_call(relay, caller, callee)
