"""Limits hold over all nodes of a shared store: calls through two relays at once, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.interop.test_nodes import node, running
from tests.support import postgres
from tests.support.addresses import RELAY, free
from tests.support.live_call import Call
from tests.support.phone import SDP, Leg, Phone
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.sip_text import SipText


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.new_url() as url:
        yield url


def two(folder: Path, url: str, **policy: Any) -> tuple[RelayProcess, RelayProcess]:
    """Nodes with the same neighbours; not started."""
    setup = Setup(policy={**Setup().policy, **policy}, listen=["udp"])
    return node(folder, url, "a", setup), node(folder, url, "b", replace(setup, relay=free(RELAY)))


async def invite(phone: Phone, relay: RelayProcess) -> tuple[Leg, str]:
    leg = Leg.calling(phone, relay.setup.relay, A, X)
    return leg, await leg.request("INVITE", body=SDP)


async def final(phone: Phone, leg: Leg, branch: str) -> SipText:
    while (answer := await phone.expect_call(leg.call_id)).status < 200:
        pass
    leg.learn(answer)
    await leg.request("ACK", cseq=leg.cseq, branch=branch)
    return answer


async def refuse_all(callee: Phone, relays: tuple[RelayProcess, ...]) -> None:
    """Each of its calls is answered 486."""
    while True:
        request = await callee.expect("INVITE", timeout_s=60)
        relay = next(relay for relay in relays if str(relay.setup.relay) in request["via"])
        await Leg.called(callee, relay.setup.relay, request).answer(request, 486)


async def test_a_cap_of_three_is_three_calls_through_both_relays(tmp_path: Path, url: str) -> None:
    relays = two(tmp_path, url, caller_caps=["3/5m"])
    with running(*relays):
        relays[0].bind()
        async with Phone(relays[0].setup.caller) as caller, Phone(relays[0].setup.callee) as callee:
            refusing = asyncio.create_task(refuse_all(callee, relays))
            calls = [await invite(caller, relays[number % 2]) for number in range(12)]
            answers = [(await final(caller, leg, branch)).status for leg, branch in calls]
            refusing.cancel()
        assert Counter(answers) == {486: 3, 403: 9}
        outcomes = Counter(record["outcome"] for record in relays[0].calls())
        assert outcomes == {"busy": 3, "frequency_caller": 9}
        for relay in relays:
            relay.stop_and_check()


async def refused_with(phone: Phone, relay: RelayProcess) -> int:
    return (await final(phone, *await invite(phone, relay))).status


async def until_answered_with(status: int, phone: Phone, relay: RelayProcess) -> None:
    """Nodes hear of each other's calls within a second or two."""
    async with asyncio.timeout(30):
        while await refused_with(phone, relay) != status:
            pass


async def test_calls_at_once_are_counted_over_both_relays(tmp_path: Path, url: str) -> None:
    relays = first, second = two(tmp_path, url, max_calls_per_number=1)
    with running(*relays):
        first.bind()
        async with Phone(first.setup.caller) as caller, Phone(first.setup.callee) as callee:
            up = Call(first, caller, callee)
            await up.answer()
            refusing = asyncio.create_task(refuse_all(callee, relays))
            await until_answered_with(503, caller, second)
            refusing.cancel()
            await up.hang_up()
            refusing = asyncio.create_task(refuse_all(callee, relays))
            await until_answered_with(486, caller, second)
            refusing.cancel()
        outcomes = Counter(record["outcome"] for record in first.calls())
        assert outcomes["answered"] == 1
        assert outcomes["number_busy"] >= 1
        for relay in relays:
            relay.stop_and_check()
