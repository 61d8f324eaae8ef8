"""A trunk of several targets, found by DNS: real packets, phones on addresses of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import StartRelay, running_relay
from tests.support.addresses import CALLEE, SECOND_CALLEE, free
from tests.support.dns_server import DnsServer
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, B, RelayProcess, Setup, X

pytestmark = pytest.mark.outside

THIRD_CALLEE = "127.0.0.24"
SOURCES = f'sources = ["{CALLEE}/32", "{SECOND_CALLEE}/32", "{THIRD_CALLEE}/32"]\n'


@asynccontextmanager
async def trunk(*hosts: str) -> AsyncIterator[list[Phone]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Phone(free(host))) for host in hosts]


async def call(relay: RelayProcess, caller: Phone) -> Leg:
    leg = Leg.calling(caller, relay.setup.relay, A, X)
    await leg.request("INVITE", body=SDP)
    return leg


async def taken(relay: RelayProcess, leg: Leg, callee: Phone) -> str:
    """The callee takes the call and hangs up; the Request-URI that it got."""
    invite = await callee.expect("INVITE")
    other = Leg.called(callee, relay.setup.relay, invite)
    await other.answer(invite, 200, body=SDP)
    leg.learn(await leg.phone.expect(200, "INVITE"))
    await leg.request("ACK", cseq=1)
    await callee.expect("ACK")
    await other.request("BYE")
    await leg.answer(await leg.phone.expect("BYE"), 200)
    await callee.expect(200, "BYE")
    return invite.first_line.split()[1]


def peers(relay: RelayProcess) -> list[dict[str, Any]]:
    done = relay.command("peers", "list", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_srv_leads_past_a_dead_target_and_a_503_to_the_one_that_answers(start_relay: StartRelay) -> None:
    dead = free(CALLEE)
    async with trunk(SECOND_CALLEE, THIRD_CALLEE) as (second, third):
        server = DnsServer(
            {
                ("_sip._udp.trunk.example", "SRV"): [
                    f"0 0 {dead.port} dead.trunk.example.",
                    f"1 0 {second.local.port} second.trunk.example.",
                    f"2 0 {third.local.port} third.trunk.example.",
                ],
                ("dead.trunk.example", "A"): [CALLEE],
                ("second.trunk.example", "A"): [SECOND_CALLEE],
                ("third.trunk.example", "A"): [THIRD_CALLEE],
            }
        )
        await server.start()
        more = f'[dns]\nservers = ["{server.address}"]\n'
        setup = Setup(trunk=f'uri = "sip:trunk.example;transport=udp"\n{SOURCES}', more=more)
        relay = await asyncio.to_thread(start_relay, setup)
        relay.bind()
        async with Phone(setup.caller) as caller:
            leg = await call(relay, caller)
            invite = await second.expect("INVITE")
            await Leg.called(second, setup.relay, invite).answer(invite, 503, ["Retry-After: 60"])
            await second.expect("ACK")
            assert await taken(relay, leg, third) == f"sip:{B}@trunk.example"
            leg = await call(relay, caller)
            await taken(relay, leg, third)  # the second one is left alone
            assert not second.take_arrived()
        server.close()
    relay.wait_for_event("target.aside", matching=lambda event: event["target"] == f"udp:{second.local}")
    for record in relay.calls():
        assert (record["outcome"], record["peer_out"]) == ("answered", "trunk")


async def test_a_record_that_changes_is_followed(start_relay: StartRelay) -> None:
    async with trunk(CALLEE, SECOND_CALLEE) as (first, second):
        name = ("_sip._udp.trunk.example", "SRV")
        records = {
            ("first.trunk.example", "A"): [CALLEE],
            ("second.trunk.example", "A"): [SECOND_CALLEE],
            name: [f"0 0 {first.local.port} first.trunk.example."],
        }
        server = DnsServer(records, ttl_s=1)
        await server.start()
        more = f'[dns]\nservers = ["{server.address}"]\n'
        setup = Setup(trunk=f'uri = "sip:trunk.example;transport=udp"\n{SOURCES}', more=more)
        relay = await asyncio.to_thread(start_relay, setup)
        relay.bind()
        async with Phone(setup.caller) as caller:
            await taken(relay, await call(relay, caller), first)
            server.records[name] = [f"0 0 {second.local.port} second.trunk.example."]
            found = [f"udp:{second.local}"]
            await asyncio.to_thread(
                relay.wait_for_event, "peer.located", matching=lambda event: event["targets"] == found
            )
            listed = await asyncio.to_thread(peers, relay)  # who carries calls has heard of it before he is asked
            assert [each["target"] for each in listed if each["peer"] == "trunk"] == found
            await taken(relay, await call(relay, caller), second)
        server.close()


async def test_a_silent_target_delays_a_call_and_the_next_one_no_more(start_relay: StartRelay) -> None:
    async with trunk(CALLEE, SECOND_CALLEE) as (first, second):
        uris = [f"sip:{phone.local};transport=udp" for phone in (first, second)]
        targets = f'{{uri = "{uris[0]}"}}, {{uri = "{uris[1]}", priority = 1}}'
        setup = Setup(trunk=f"targets = [{targets}]\ndown_after = 1\n", sip={"no_progress_s": 0.5})
        relay = start_relay(setup)
        relay.bind()
        async with Phone(setup.caller) as caller:
            leg = await call(relay, caller)
            late = await first.expect("INVITE")
            await taken(relay, leg, second)
            relay.wait_for_event("target.aside", matching=lambda event: event["target"] == f"udp:{first.local}")
            states = {each["target"]: each["state"] for each in peers(relay) if each["peer"] == "trunk"}
            assert states == {f"udp:{first.local}": "aside", f"udp:{second.local}": "up"}
            await taken(relay, await call(relay, caller), second)
            answered = Leg.called(first, setup.relay, late)
            await answered.answer(late, 200, body=SDP)
            await first.expect("ACK")
            await answered.answer(await first.expect("BYE"), 200)
    assert {record["outcome"] for record in relay.calls()} == {"answered"}


@pytest.mark.parametrize("limit", ["max_calls_out", "max_cps_out"])
async def test_a_call_over_the_limit_of_a_trunk_is_told_to_come_again(start_relay: StartRelay, limit: str) -> None:
    async with trunk(CALLEE) as (callee,):
        setup = Setup(trunk=f'uri = "sip:{callee.local};transport=udp"\nsources = ["{CALLEE}/32"]\n{limit} = 1\n')
        relay = start_relay(setup)
        relay.bind()
        async with Phone(setup.caller) as caller:
            first, _ = await call(relay, caller), await call(relay, caller)
            refused = await caller.expect(503)
            assert int(refused["retry-after"]) > 0
            await taken(relay, first, callee)
            assert not callee.take_arrived()
    assert sorted(record["outcome"] for record in relay.calls()) == ["answered", "over_limit"]


async def test_a_connection_that_is_lost_takes_the_call_to_the_next_target(start_relay: StartRelay) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readline())
        writer.transport.abort()

    got: list[bytes] = []
    first = free(CALLEE)
    async with await asyncio.start_server(hang_up, *first), Phone(free(SECOND_CALLEE), "tcp") as second:
        targets = f'{{uri = "sip:{first};transport=tcp"}}, {{uri = "sip:{second.local};transport=tcp", priority = 1}}'
        setup = Setup(trunk=f"targets = [{targets}]\n", sip={"no_progress_s": 60})  # not by its silence
        relay = await asyncio.to_thread(start_relay, setup)
        relay.bind()
        async with Phone(setup.caller) as caller:
            await taken(relay, await call(relay, caller), second)
    assert [line.partition(b" ")[0] for line in got] == [b"INVITE"]
    assert [(record["outcome"], record["peer_out"]) for record in relay.calls()] == [("answered", "trunk")]


async def test_pings_find_a_relay_that_is_killed_and_that_it_is_back(start_relay: StartRelay, tmp_path: Path) -> None:
    """The first target is another relay700, which answers OPTIONS; no call meets it while it is gone."""
    async with trunk(SECOND_CALLEE) as (phone,):
        setup = Setup()
        other = Setup(relay=free(CALLEE), caller=setup.relay)
        uris = [f"sip:{address};transport=udp" for address in (other.relay, phone.local)]
        targets = f'{{uri = "{uris[0]}"}}, {{uri = "{uris[1]}", priority = 1}}'
        setup.trunk = f"targets = [{targets}]\nping_s = 0.1\ndown_after = 2\n"
        (tmp_path / "other").mkdir()
        with running_relay(tmp_path / "other", other) as second:
            relay = start_relay(setup)
            relay.bind()
            second.kill()
            relay.wait_for_event("target.down", matching=lambda event: event["target"] == f"udp:{other.relay}")
            async with Phone(setup.caller) as caller:
                await taken(relay, await call(relay, caller), phone)
            states = {each["target"]: each["state"] for each in peers(relay)}
            assert states[f"udp:{other.relay}"] == "down"
            second.start()
            relay.wait_for_event("target.up", matching=lambda event: event["target"] == f"udp:{other.relay}")
        assert [record["outcome"] for record in relay.calls()] == ["answered"]
