"""Several relays on one PostgreSQL store: what one binds another uses, and the calls of one that dies go on."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import postgres
from tests.support.addresses import RELAY, Address
from tests.support.live_call import Call, call
from tests.support.namespace import reran_in_own_network
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, RelayProcess, Setup, X

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


async def test_a_node_that_was_killed_ends_what_rang_there_when_it_comes_back(tmp_path: Path, url: str) -> None:
    """What it noted is on its machine, where others do not see it: none of them records the attempt a second time."""
    relay, other = node(tmp_path, url, "a"), node(tmp_path, url, "b")
    with running(relay, other):
        relay.bind()
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            leg = Leg.calling(caller, relay.setup.relay, A, X)
            branch = await leg.request("INVITE", body=SDP)
            invite = await callee.expect("INVITE")
            called = Leg.called(callee, relay.setup.relay, invite)
            await called.answer(invite, 180)
            await caller.expect(180)
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(other.wait_for_event, "node.taken_over")
            assert other.calls() == []
            await asyncio.to_thread(relay.start)
            leg.learn(await caller.expect(503, "INVITE"))
            await leg.request("ACK", cseq=leg.cseq, branch=branch)
            await called.answer(await callee.expect("CANCEL"), 200)
            await called.answer(invite, 487)
            await callee.expect("ACK")
        (record,) = other.calls()
        assert (record["outcome"], record["end_reason"]) == ("failed", "lost_at_restart")
        relay.stop_and_check()
        assert other.stop() == 0


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
