"""The sealing key turns twice under load: calls that are up go on, and nothing is lost of before or after."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path

import pytest

from relay.service.retention import TWO_YEARS_MS, Retention, purge
from relay.store.database import open_store
from relay.store.writer import Writer
from tests.interop.conftest import running_relay
from tests.interop.ladders import FLOWS
from tests.interop.test_reload import hang_up
from tests.support.addresses import RELAY, free
from tests.support.phone import Phone, connected
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.sipp_calls import run_flow

pytestmark = pytest.mark.outside

CALLS = 120


def key(relay: RelayProcess, *arguments: str) -> str:
    done = relay.command("seal-key", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def turn(relay: RelayProcess, key_id: int) -> None:
    """To a new key, and until all that lives on is sealed with it."""
    mark = len(relay.events())
    key(relay, "add")
    key(relay, "use", str(key_id))
    relay.wait_for_event("reseal.done", after=mark, matching=lambda event: event["key"] == key_id)


async def test_the_key_turns_twice_under_load(tmp_path: Path) -> None:
    setup = Setup(api=free(RELAY))
    with running_relay(tmp_path, setup) as relay:
        first = relay.bind()["binding_id"]
        flow = FLOWS["caller_hangs_up"]
        load = asyncio.create_task(asyncio.to_thread(run_flow, relay, tmp_path, flow, calls=CALLS, rate=12))
        await asyncio.to_thread(turn, relay, 2)
        second = relay.bind(a="13800000003", b="13900000004")["binding_id"]
        await asyncio.to_thread(turn, relay, 3)
        await load
        kept = {line.split()[0] for line in relay.command("bindings", "list").stdout.splitlines()[1:]}
        assert kept == {first, second}
        assert len(relay.calls()) == CALLS
        assert f"{CALLS} records intact" in relay.verify()
        refused = relay.command("seal-key", "drop", "1")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert refused.stderr.startswith("the key 1 is still needed by rows of ")


async def test_a_call_that_is_up_outlives_the_turns_and_a_crash_and_old_keys_go_when_their_time_is_over(
    tmp_path: Path,
) -> None:
    with running_relay(tmp_path, Setup(api=free(RELAY))) as relay:
        made = relay.bind()["binding_id"]
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            leg_a, leg_b = await connected(relay.setup.relay, caller, callee, (A, X))
            await asyncio.to_thread(turn, relay, 2)
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(relay.start)
            await asyncio.to_thread(turn, relay, 3)
            await hang_up(leg_b, leg_a)
        (record,) = relay.calls()
        assert (record["outcome"], record["ended_by"]) == ("answered", "callee")
        assert "1 records intact" in relay.verify()
        await asyncio.to_thread(relay.stop)
        purge_all(relay)
        key(relay, "reseal")
        key(relay, "drop", "1")
        key(relay, "drop", "2")
        assert (tmp_path / "relay.key").read_text().startswith("relay700-key 3 ")
        await asyncio.to_thread(relay.start)
        assert relay.bind(a="13800000003", b="13900000004")["binding_id"] != made
        async with Phone(relay.setup.caller) as caller, Phone(relay.setup.callee) as callee:
            await hang_up(*await connected(relay.setup.relay, caller, callee, (A, X)))
        assert "1 records intact" in relay.verify()


def purge_all(relay: RelayProcess) -> None:
    """As in two years."""
    path = relay.folder / "relay.db"
    now_ms = time.time_ns() // 1_000_000 + TWO_YEARS_MS + 60_000
    with closing(Writer(path, open_store(path, relay.folder / "relay.key"), clock_ms=lambda: now_ms)) as writer:
        assert purge(writer, Retention(), relay.folder / "recordings", now_ms).records == 1
