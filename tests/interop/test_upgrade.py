"""A store that a later version migrates while relays of this one serve: no call fails, and no record is missing."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from relay.store.migrate import COPIED
from tests.support import postgres
from tests.support.addresses import RELAY, free
from tests.support.crashes import BINDINGS, PARTIES, check_records
from tests.support.live_call import call
from tests.support.load import Load, LoadCallee, LoadCaller
from tests.support.newer import FILE, SERVER, Newer
from tests.support.relay_process import RelayProcess, Setup
from tests.support.seeds import dice
from tests.support.waiting import until

pytestmark = pytest.mark.outside

CALLS_PER_SECOND = 100
QUICK = {"t1_ms": 100}  # what is over is forgotten soon
UNSHED = "\n[limits]\nshed_lag_ms = 0\n"  # on a busy machine calls would be shed
NEW_TABLE = (
    "CREATE TABLE later (id {integer} PRIMARY KEY, at {integer} NOT NULL);\nCREATE INDEX later_at ON later (at);\n"
)
INDEXES = ("call_record (call_id)", "binding (order_hash, id)", "route (pair)")


def columns(*more_tables: str) -> list[str]:
    """Each table has one more, which this version does not know."""
    return [f"ALTER TABLE {table} ADD COLUMN later TEXT NOT NULL DEFAULT '-';\n" for table in (*COPIED, *more_tables)]


FILE_SCRIPTS = [
    *columns("live_call", "key_check"),
    NEW_TABLE.format(integer="INTEGER"),
    *(f"CREATE INDEX later_{n} ON {what};\n" for n, what in enumerate(INDEXES)),
]
SERVER_SCRIPTS = [
    *columns("live_call", "key_check", "node", "schema_version"),
    NEW_TABLE.format(integer="bigint"),
    *(
        f"DROP INDEX CONCURRENTLY IF EXISTS later_{n};\nCREATE INDEX CONCURRENTLY later_{n} ON {what};\n"
        for n, what in enumerate(INDEXES)
    ),
]


class Under:
    """Calls, from before to after what happens to the store."""

    def __init__(self, relay: RelayProcess, seed: random.Random) -> None:
        setup = relay.setup
        self.caller = LoadCaller(setup.caller, setup.relay, seed, lambda: _numbers(seed))
        self.callee = LoadCallee(setup.callee, setup.relay, seed)
        self._load = Load(self.caller, self.callee, CALLS_PER_SECOND)

    async def __aenter__(self) -> Under:
        await self._load.__aenter__()
        await self.answered(100)
        return self

    async def answered(self, more: int) -> None:
        """Until so many more are."""
        enough = len(self.callee.calls) + more
        await until(lambda: sum(call.final_status == 200 for call in self.callee.calls.values()) >= enough)

    async def __aexit__(self, *_: object) -> None:
        self._load.stop()
        await until(lambda: all(call.final_status and not call.up for call in self.caller.calls.values()))
        await self._load.__aexit__()

    def check(self, relay: RelayProcess) -> None:
        """Each call was answered, and has its record."""
        assert {call.final_status for call in self.caller.calls.values()} == {200}
        records = relay.calls()
        assert len(records) == len(self.caller.calls)
        check_records(records, self.caller, self.callee, at_least=200)
        relay.verify()


def _numbers(seed: random.Random) -> tuple[str, str]:
    number, a, _ = seed.choice(BINDINGS)
    return a, number


def change_things(relay: RelayProcess) -> None:
    """This version's commands go on with the store."""
    made = relay.bind(x="700100000010060", a="13800000060", b="13900000060")
    for arguments in (
        ("bindings", "change", made["binding_id"], "--max-call", "600"),
        ("groups", "make", "couriers"),
        ("lists", "black", "business", "default", "13700000001"),
        ("unbind", made["binding_id"]),
    ):
        done = relay.command(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)


@pytest.mark.timeout(180)
async def test_a_command_of_a_later_version_migrates_the_file_of_a_relay_that_serves(tmp_path: Path) -> None:
    relay = RelayProcess(tmp_path, Setup(api=free(RELAY), sip=QUICK, more=UNSHED), PARTIES)
    newer = Newer(tmp_path / "newer", FILE, FILE_SCRIPTS)
    relay.start()
    try:
        relay.import_bindings(BINDINGS)
        relay.wait_for_event("backend.ready")
        async with Under(relay, dice()) as calls:
            await asyncio.to_thread(newer.migrate, relay.config)
            await calls.answered(100)
            await asyncio.to_thread(change_things, relay)
            await calls.answered(100)
        relay.wait_until_idle(60)
        calls.check(relay)
    except BaseException:
        print(relay.log_tail())
        raise
    relay.stop_and_check()


@pytest.mark.timeout(180)
async def test_a_node_of_a_later_version_migrates_the_store_that_it_shares(tmp_path: Path) -> None:
    newer = Newer(tmp_path / "newer", SERVER, SERVER_SCRIPTS)
    with postgres.new_url() as url:
        old = node(tmp_path, url, "a", Setup(api=free(RELAY), sip=QUICK, more=UNSHED))
        new = node(tmp_path, url, "b", Setup(environment=newer.environment, sip=QUICK, more=UNSHED))
        old.start()
        try:
            old.import_bindings(BINDINGS)
            old.wait_for_event("backend.ready")
            async with Under(old, dice()) as calls:
                await asyncio.to_thread(new.start)
                await calls.answered(100)
                await asyncio.to_thread(change_things, old)
                await calls.answered(100)
            old.wait_until_idle(60)
            calls.check(old)
            async with call(new) as up:  # bound before it came
                await up.hang_up()
        except BaseException:
            print(old.log_tail(), new.log_tail())
            raise
        new.stop_and_check()
        old.stop_and_check()


def node(folder: Path, url: str, name: str, setup: Setup) -> RelayProcess:
    """Not started."""
    own = folder / name
    own.mkdir()
    store = {"url": url, "node": name, "key_file": f"{folder}/relay.key"}
    return RelayProcess(own, replace(setup, store=store), PARTIES)
