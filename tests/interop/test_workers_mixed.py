"""Workers together with what else there is: bans, reloads, TLS, many listeners, IPv6, names of peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.floods import connect, invites
from tests.interop.test_workers import CALLEES, NUMBERS, A
from tests.support.addresses import CALLER
from tests.support.live_call import Call
from tests.support.phone import Phone
from tests.support.relay_process import RelayProcess, Setup

pytestmark = pytest.mark.outside

BAN_AFTER = 100
ELSEWHERE = "127.0.0.12"

Start = Callable[[Setup, int], RelayProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[RelayProcess] = []

    def start_it(setup: Setup, workers: int) -> RelayProcess:
        relay = RelayProcess(tmp_path, setup, (A, *CALLEES), workers=workers)
        started.append(relay)
        relay.start()
        for number, callee in zip(NUMBERS, CALLEES, strict=True):
            relay.bind(x=number, a=A, b=callee)
        return relay

    yield start_it
    for relay in started:
        relay.stop_if_running()
        assert "Traceback" not in relay.log()


async def test_who_was_a_peer_when_a_call_of_another_worker_was_made_is_not_banned(start: Start) -> None:
    """A reload has taken the caller's peer away. One worker has the call, the other one strangers from its address."""
    relay = start(Setup(transport="tcp"), 2)
    async with Phone(relay.setup.caller, "tcp") as caller, Phone(relay.setup.callee, "tcp") as callee:
        call = Call(relay, caller, callee, A, NUMBERS[0])
        await call.answer()
        relay.config.write_text(relay.config.read_text().replace(CALLER, ELSEWHERE))
        assert relay.command("reload").returncode == 0
        _, stranger = await connect(CALLER, relay)
        for invite in invites(CALLER, relay.setup.relay, 2 * BAN_AFTER):
            stranger.write(invite.replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP"))
        assert relay.wait_for_event("source.spared")["source"] == CALLER
        refused = relay.command("bans", "add", CALLER, "--for", "1h", "--reason", "a test")
        assert refused.returncode == 1
        assert "a call that is up" in refused.stderr
        assert not relay.command("bans", "list", "--json").stdout
        await call.hang_up()
        stranger.close()
    assert "source.banned" not in relay.log()
    assert relay.calls()[0]["ended_by"] == "caller"
