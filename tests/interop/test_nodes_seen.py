"""Each node of a store serves its own HTTP: its calls, its readiness, and which nodes are there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.interop.test_nodes import node
from tests.support import postgres
from tests.support.addresses import RELAY, free
from tests.support.live_call import Call
from tests.support.phone import Phone
from tests.support.relay_process import RelayProcess, Setup
from tests.support.waiting import until_seen

pytestmark = pytest.mark.outside

PATIENCE_S = 20.0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[RelayProcess, RelayProcess]]:
    """The backend of the first one works, that of the second one stands by."""
    with postgres.new_url() as url, ExitStack() as stack:
        first, second = (node(tmp_path, url, name, Setup(api=free(RELAY))) for name in ("a", "b"))
        for relay, role in ((first, "backend.ready"), (second, "backend.stands_by")):
            stack.callback(relay.stop_if_running)
            relay.start()
            relay.wait_for_event(role)
            relay.wait_for_event("api.listening")
        yield first, second


def get(relay: RelayProcess, path: str, **headers: str) -> httpx.Response:
    return httpx.get(f"http://{relay.setup.api}{path}", headers=headers, trust_env=False, timeout=PATIENCE_S)


def metrics(relay: RelayProcess) -> dict[str, float]:
    lines = [line for line in get(relay, "/metrics").text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def calls_in(relay: RelayProcess) -> float:
    return metrics(relay)['relay700_calls_in_total{outcome="answered",peer="caller_side"}']


async def test_each_node_serves_the_metrics_of_its_own_calls(nodes: tuple[RelayProcess, RelayProcess]) -> None:
    first, second = nodes
    first.bind()
    for relay, calls in ((first, 1), (second, 2)):
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            for _ in range(calls):
                up = Call(relay, caller, callee)
                await up.answer()
                await up.hang_up()
    assert [calls_in(relay) for relay in nodes] == [1, 2]
    for relay, name, leads in ((first, "a", 1), (second, "b", 0)):
        found = metrics(relay)
        assert found["relay700_up"] == found["relay700_store_up"] == 1
        assert found[f'relay700_leader{{node="{name}"}}'] == leads
        assert found['relay700_node_up{node="a"}'] == found['relay700_node_up{node="b"}'] == 1
    ours = [name for name in metrics(first) if name.startswith(("relay700_outbox", "relay700_follower"))]
    assert ours
    assert not metrics(second).keys() & set(ours), "counted twice"
    for relay in nodes:
        relay.stop_and_check()


async def test_each_node_serves_the_api(nodes: tuple[RelayProcess, RelayProcess]) -> None:
    first, second = nodes
    key = {"authorization": f"Bearer {first.answer('keys', 'make', '--operator', '--json')['secret']}"}
    for relay in nodes:
        assert get(relay, "/healthz").json() == {"status": "ok"}
        assert get(relay, "/readyz").json() == {"status": "ok"}
        assert get(relay, "/v1/businesses", **key).status_code == 200
        assert get(relay, "/console/").status_code == 303  # to the page where one signs in
    mark = len(second.log().splitlines())
    await asyncio.to_thread(first.kill)
    await asyncio.to_thread(second.wait_for_event, "backend.ready", after=mark)
    assert get(second, "/v1/businesses", **key).status_code == 200
    assert metrics(second)['relay700_leader{node="b"}'] == 1


@pytest.mark.parametrize("dies", [0, 1], ids=["leader", "standby"])
async def test_the_others_see_a_node_that_dies_and_none_that_stops(
    nodes: tuple[RelayProcess, RelayProcess], dies: int
) -> None:
    lost, stays = nodes[dies], nodes[1 - dies]
    name = lost.folder.name
    await asyncio.to_thread(lost.kill)
    await until_seen(lambda: metrics(stays).get(f'relay700_node_up{{node="{name}"}}') == 0)
    await asyncio.to_thread(lost.start)
    await until_seen(lambda: metrics(stays)[f'relay700_node_up{{node="{name}"}}'] == 1)
    lost.stop()
    assert f'relay700_node_up{{node="{name}"}}' not in metrics(stays)
    assert stays.stop() == 0
