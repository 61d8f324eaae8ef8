"""A purge killed beside live calls: calls go on, nothing that must be kept is deleted, the chain stays intact."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.database import open_store, transaction
from tests.interop.conftest import running_relay
from tests.story.calls import Ends, call
from tests.support.addresses import RELAY, free
from tests.support.phone import Phone
from tests.support.product import RELAY700
from tests.support.relay_process import A, RelayProcess, Setup, X
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

pytestmark = pytest.mark.outside

OLD, DAY_MS = 2_000, 86_400_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a store whose records ended 200 days ago."""
    shelf = Shelf(tmp_path / "relay.db", open_store(tmp_path / "relay.db", tmp_path / "relay.key"))
    long_ago = int(time.time() * 1000) - 200 * DAY_MS
    with transaction(shelf.connection):
        shelf.add(*(ended_record(f"{n:032x}", received_at=long_ago, ended_at=long_ago + n) for n in range(OLD)))
        shelf.follow()
    return tmp_path


def kept(folder: Path) -> int:
    """The number of old records left."""
    with closing(sqlite3.connect(folder / "relay.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM call_record WHERE chain_seq <= ?", (OLD,)).fetchone()
    return int(count)


async def test_kill_during_a_purge_beside_calls(folder: Path) -> None:
    setup = Setup(api=free(RELAY))
    with running_relay(folder, setup) as relay:
        relay.bind()
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            ends = Ends(relay, left, right)
            await call(ends, A, X)
            purge = await asyncio.create_subprocess_exec(*RELAY700, "purge", "-c", str(relay.config), cwd=folder)
            calls = 1
            while kept(folder) > OLD - 200:
                assert purge.returncode is None
                await call(ends, A, X)
                calls += 1
            purge.send_signal(signal.SIGKILL)
            assert await purge.wait() == -signal.SIGKILL
            left_over = kept(folder)
            assert 0 < left_over < OLD
            assert _verified(relay) == (left_over + calls, OLD - left_over)
            await call(ends, A, X)
            assert relay.answer("purge", "--json")["records"] == left_over
            await call(ends, A, X)
        assert _verified(relay) == (calls + 2, OLD)
        assert [record["outcome"] for record in relay.calls()] == ["answered"] * (calls + 2)
        assert "intact" in relay.command("audit", "verify").stdout


def _verified(relay: RelayProcess) -> tuple[int, int]:
    """The numbers of intact and of purged records."""
    verdict = relay.answer("verify", "--json")
    return verdict["intact"], verdict["purged"]
