"""One peer floods the relay, or somebody in its name: the calls of another peer go on."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.conftest import StartRelay
from tests.support.addresses import Address, free
from tests.support.load import Load, LoadCall, LoadCallee, LoadCaller
from tests.support.relay_process import Neighbour, RelayProcess, Setup
from tests.support.seeds import dice
from tests.support.waiting import until

pytestmark = pytest.mark.outside

SENDER = Path("scripts/bench.d/peer_flood.py").resolve()
BINDINGS = [(f"70010000001{n:04}", f"1380000{n:04}", f"1390000{n:04}") for n in range(50)]
FLOODED = ("700100000010900", "13800009000", "13700009000")
FLOODER, SILENT = "127.0.0.13", "127.0.0.24"
CALLS_PER_S = 50
UDP_RATE = 12_000
TCP_RATE = 200_000  # more than it can: the stream slows it
FLOOD_S = 3
TRIES = 15
MOST_SHED = 0.5  # of the calls: where this machine is busy the relay is late, and sheds some, with a flood or without
LIMITS = "\n[limits]\nmax_calls = 500\nmax_transactions = 50000\n"  # that each flood would fill, all by itself


def setup(flooder: Address, silent: Address) -> Setup:
    peers = Neighbour("flooder", flooder).toml() + Neighbour("silent", silent).toml()
    return Setup(more=f'{LIMITS}{peers}\n[[route]]\nprefix = "86137"\npeers = ["silent"]\n')


async def flood(kind: str, source: str, at: Address, rate: int) -> None:
    number, caller, _ = FLOODED
    arguments = [kind, source, str(at), str(rate), str(FLOOD_S), caller, number]
    sender = await asyncio.create_subprocess_exec(
        sys.executable, str(SENDER), *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    assert await sender.wait() == 0


async def placed(caller: LoadCaller, more: int = 0, *, begun: int | None = None) -> list[LoadCall]:
    """The calls from `begun` on, now if it is None, when there are so many more and all have their final answers."""
    begun = len(caller.calls) if begun is None else begun
    until_placed = len(caller.calls) + more
    await until(lambda: len(caller.calls) >= until_placed)
    calls = list(caller.calls.values())[begun:until_placed]
    await until(lambda: all(call.final_status for call in calls))
    return calls


def about_peers(relay: RelayProcess) -> list[dict[str, Any]]:
    return [event for event in relay.events() if str(event.get("event", "")).startswith("peer.")]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("kind", "rate", "is_forged"),
    [
        ("options", UDP_RATE, False),
        ("options", UDP_RATE, True),
        ("options-tcp", TCP_RATE, True),
        ("invite", 1_500, False),
        ("bye", UDP_RATE, False),
    ],
    ids=["options", "forged options", "options by one stream", "half-open calls", "stray BYEs"],
)
async def test_the_calls_of_another_peer_go_on(start_relay: StartRelay, kind: str, rate: int, is_forged: bool) -> None:
    """Each call is answered, most of them with 200, and those end well.

    That is so in one of a few floods. `scripts/bench --floods` measures how long it takes.
    """
    draw = dice()
    flooder, silent = free(FLOODER), free(SILENT)
    relay = start_relay(setup(flooder, silent), [party for _, a, b in [*BINDINGS, FLOODED] for party in (a, b)])
    await asyncio.to_thread(relay.import_bindings, [*BINDINGS, FLOODED])
    caller = LoadCaller(relay.setup.caller, relay.setup.relay, draw, lambda: draw.choice(BINDINGS)[1::-1])
    callee = LoadCallee(relay.setup.callee, relay.setup.relay, draw)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unanswering:
        unanswering.bind(silent)
        async with Load(caller, callee, CALLS_PER_S) as load:
            await placed(caller, CALLS_PER_S)  # the first second finds it cold
            for _ in range(TRIES):
                begun = len(caller.calls)
                await flood(kind, f"{FLOODER}:{0 if is_forged else flooder.port}", relay.setup.relay, rate)
                statuses = [call.final_status for call in await placed(caller, begun=begun)]
                shed = statuses.count(503) / len(statuses)
                print(f"{kind}: {len(statuses)} calls, of which {shed:.0%} were shed")
                if shed <= MOST_SHED:
                    break
            load.stop()
            statistics = await asyncio.to_thread(relay.statistics)
            await until(lambda: not caller.unfinished)
        assert shed <= MOST_SHED
        calls = caller.calls.values()
        assert all(call.bye_answered == 200 or call.bye_received for call in calls if call.final_status == 200)
        assert {call.final_status for call in calls} <= {200, 503}
        if about_peers(relay):  # else the relay had so little that the flood was shed, or lost, before any limit
            await asyncio.to_thread(relay.wait_for_event, "peer.within_share")
        told = about_peers(relay)
        assert {event["peer"] for event in told} <= {"flooder"}
        assert len(told) <= 2 * TRIES, "once when it begins, and once when it is over"
        assert statistics["bans"] == 0, "who is flooded in its name must not be banned for it"
        relay.assert_nothing_in_clear()
