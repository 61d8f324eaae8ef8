"""Several relays on one PostgreSQL store: what one binds another uses, and the calls of one that dies go on."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.support import postgres
from tests.support.addresses import RELAY, Address, free
from tests.support.live_call import Call, Ringing, call
from tests.support.namespace import reran_in_own_network
from tests.support.phone import Leg, Phone
from tests.support.relay_process import A, B, RelayProcess, Setup
from tests.support.waiting import until_seen

NUMBERS = ("700100000010002", "700100000010001")
CALLEES = (B, "13900000003")


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.new_url() as url:
        yield url


def node(folder: Path, url: str, name: str, setup: Setup | None = None) -> RelayProcess:
    """Not started."""
    store = {"url": url, "node": name, "key_file": f"{folder}/relay.key"}
    own = folder / name
    own.mkdir()
    return RelayProcess(own, replace(setup or Setup(), store=store), (A, *CALLEES))


async def test_what_rang_at_a_node_that_stays_away_is_ended_by_another_node(tmp_path: Path, url: str) -> None:
    setup = Setup(sip={"t1_ms": 100})
    relay, other = node(tmp_path, url, "a", setup), node(tmp_path, url, "b", elsewhere(setup))
    with running(relay, other):
        relay.bind()
        async with Phone(setup.caller) as caller, Phone(setup.callee) as callee:
            calls = [Ringing(relay, caller, callee) for _ in range(2)]
            for call in calls:
                await call.ring()
            await until_seen(lambda: len(attempts(url)) == len(calls))
            await asyncio.to_thread(relay.kill)
            for call in calls:
                await call.is_ended_by(other)
            taken = other.wait_for_event("node.taken_over")
            assert (taken["calls"], taken["attempts"]) == (0, 2)
            await until_seen(lambda: not attempts(url))
            recorded = {(record["caller_leg_call_id"], record["end_reason"]) for record in other.calls()}
            assert recorded == {(call.leg.call_id, "lost_at_restart") for call in calls}
            await asyncio.to_thread(relay.start)
            await asyncio.to_thread(relay.wait_until_idle, 60.0)
            await asyncio.to_thread(other.wait_until_idle, 60.0)
        assert len(other.calls()) == 2
        assert relay.stop() == other.stop() == 0
        for each in (relay, other):
            each.assert_nothing_in_clear()


async def test_a_node_that_was_killed_ends_what_rang_there_when_it_is_back_in_time(tmp_path: Path, url: str) -> None:
    """Also if its own file is lost, as in a container without a volume."""
    relay = node(tmp_path, url, "a", Setup(sip={"t1_ms": 100}))
    with running(relay):
        relay.bind()
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            for is_lost in (False, True):
                call = Ringing(relay, caller, callee)
                await call.ring()
                await until_seen(lambda: attempts(url))
                await asyncio.to_thread(relay.kill)
                if is_lost:
                    (tmp_path / "relay.a.attempts").unlink()
                await asyncio.to_thread(relay.start)
                await call.is_ended_by(relay)
                await until_seen(lambda: not attempts(url))
        assert [record["end_reason"] for record in relay.calls()] == ["lost_at_restart"] * 2
        relay.stop_and_check()


def elsewhere(setup: Setup) -> Setup:
    """A node with the same peers at another address."""
    return replace(setup, relay=free("127.0.0.13"))


def attempts(url: str) -> list[tuple[str]]:
    """The attempts under way that all nodes see."""
    with psycopg.connect(url) as store:
        return store.execute("SELECT call_id FROM attempt").fetchall()


def bind(relay: RelayProcess) -> None:
    for number, callee in zip(NUMBERS, CALLEES, strict=True):
        relay.bind(x=number, a=A, b=callee)


@contextmanager
def running(*relays: RelayProcess) -> Iterator[None]:
    for relay in relays:
        relay.start()
    try:
        yield
    except BaseException:
        for relay in relays:
            print(relay.log_tail())
            relay.stop_if_running()
        raise


async def test_what_is_bound_through_one_relay_is_used_by_the_other_at_once(tmp_path: Path, url: str) -> None:
    first = node(tmp_path, url, "a")
    second = node(tmp_path, url, "b")
    with running(first, second):
        first.bind()
        async with call(second) as up:
            await up.hang_up()
        (record,) = first.calls()
        assert (record["outcome"], record["ended_by"]) == ("answered", "caller")
        assert "1 " in first.verify()
        first.stop_and_check()
        second.stop_and_check()


# What another node's calls become


def at_the_address_of(gone: Setup, heir: Setup) -> None:
    """The address moves, as keepalived has it: what is for the one that is gone comes to the heir, and from there."""
    there, here = gone.relay, heir.relay
    rules = f"""
    table ip moved {{
        chain output {{
            type nat hook output priority -100
            ip daddr {there.host} udp dport {there.port} dnat to {here.host}:{here.port}
        }}
        chain postrouting {{
            type nat hook postrouting priority 100
            ip saddr {here.host} udp sport {here.port} snat to {there.host}:{there.port}
        }}
    }}"""
    subprocess.run(["nft", rules], check=True)


async def answer_probes(phone: Phone, stays: Leg, ends: Leg) -> None:
    """Whoever took the calls over asks whether they are there still: one is."""
    for _ in range(2):
        probe = await phone.expect("OPTIONS", timeout_s=20)
        if probe["call-id"] == stays.call_id:
            await stays.answer(probe, 200)
        else:
            await ends.answer(probe, 481)


async def test_calls_of_a_node_that_dies_go_on_at_its_address(
    request: pytest.FixtureRequest, tmp_path: Path, url: str
) -> None:
    if reran_in_own_network(request):
        return
    setup = Setup(sip={"t1_ms": 100}, listen=["udp"])
    heir = replace(setup, relay=Address("127.0.0.13", setup.relay.port), sip={**setup.sip, "advertise": RELAY})
    first, second = node(tmp_path, url, "a", setup), node(tmp_path, url, "b", heir)
    with running(first, second):
        bind(first)
        async with Phone(setup.caller) as caller, Phone(setup.callee) as callee:
            stays, ends = (Call(first, caller, callee, A, number) for number in NUMBERS)
            await stays.answer()
            await ends.answer()
            await asyncio.to_thread(first.kill)
            at_the_address_of(setup, heir)
            await answer_probes(caller, stays.leg, ends.leg)
            await answer_probes(callee, stays.called, ends.called)
            await asyncio.to_thread(second.wait_for_event, "call.ended")
            await stays.hang_up()
        ended = second.calls()
        assert [record["outcome"] for record in ended] == ["answered", "answered"]
        assert sorted(record["ended_by"] for record in ended) == ["caller", "relay"]
        second.verify()
        assert second.stop() == 0
