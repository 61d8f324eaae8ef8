"""The look-up of a call on a PostgreSQL server. `tests.service` tests its results, on both kinds of store."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from relay.model.call import Refusal
from relay.model.outcomes import STORE_FAILED
from relay.policy.evaluate import LookupResult
from relay.policy.figures import CapCounts
from relay.policy.rules import Cap, Rules
from relay.store.postgres.lookup import LookupRequest, PostgresRouteReader
from relay.store.record_index import add_index, number_key, pair_key
from tests.support import postgres
from tests.support.places import new_server_store
from tests.support.stored import NOW_MS, A, B, X, binding, end, put

pytestmark = pytest.mark.outside

_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_LAST = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_look_up_is_one_statement(tmp_path: Path) -> None:
    """Each further statement would double the cost on the server."""
    place, sealer = new_server_store(tmp_path)
    reader = PostgresRouteReader(place, sealer, Rules(), lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as looker:
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
        ((last,),) = looker.execute(_LAST).fetchall()
    assert last.strip().startswith("SELECT (SELECT revision FROM ledger_head")
    postgres.drop(place)


async def test_look_up_with_frequency_caps_is_one_statement(tmp_path: Path) -> None:
    """It also counts the call."""
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    caps = (Cap(3, 300), Cap(10, 86_400))
    reader = PostgresRouteReader(place, sealer, Rules(caller_caps=caps, number_caps=caps), lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as looker:
        found = await reader.fetch(X, A, NOW_MS / 1000)
        ((last,),) = looker.execute(_LAST).fetchall()
        ((granted,),) = looker.execute("SELECT count(*) FROM frequency").fetchall()
    assert isinstance(found, LookupResult) and found.counted is not None and found.counted.over is None
    assert last.strip().startswith("WITH found AS")
    assert granted == 2
    postgres.drop(place)


CAPS = (Cap(3, 300), Cap(10, 86_400))


@pytest.mark.parametrize("rules", [Rules(), Rules(caller_caps=CAPS, number_caps=CAPS), Rules(number_caps=CAPS)])
async def test_calls_looked_up_together_find_what_each_finds_alone(tmp_path: Path, rules: Rules) -> None:
    place, sealer = new_server_store(tmp_path)
    anybodys, third = "700100000010008", "700100000010009"
    put(place, sealer, binding(), binding("n1", mode="AXN", x=anybodys, a=A, b=B), binding("b3", x=third))
    end(place, sealer, "b3")
    now_s = NOW_MS / 1000
    asked = [
        LookupRequest(X, A, now_s),
        LookupRequest(anybodys, "8613700000001", now_s),
        LookupRequest(third, A, now_s),
        LookupRequest("700100000019999", A, now_s),
    ]
    later = [each._replace(unix_s=now_s + 86_400 * 365) for each in (asked[1]._replace(caller=B), asked[2])]
    reader = PostgresRouteReader(place, sealer, rules, lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as counts:
        for some in (asked, later, [LookupRequest(anybodys, B, now_s), asked[0]]):
            alone = [await reader.fetch(*each) for each in some]
            counts.execute("DELETE FROM frequency")
            together = await reader.fetch_all(some)
            counts.execute("DELETE FROM frequency")
            assert [_without_slices(found) for found in together] == [_without_slices(found) for found in alone]
            assert all(isinstance(found, LookupResult) for found in together)
    postgres.drop(place)


def _without_slices(found: LookupResult | Refusal) -> object:
    if not isinstance(found, LookupResult) or found.counted is None:
        return found
    return found._replace(counted=None), [key for key, _ in found.counted.under], found.counted.over


async def test_nodes_that_count_the_same_calls_in_another_order_wait_for_each_other(tmp_path: Path) -> None:
    """Two statements that lock the same rows in different orders would be ended by the server, as a deadlock."""
    place, sealer = new_server_store(tmp_path)
    numbers = [f"7001000000100{place:02}" for place in range(20)]
    put(place, sealer, *(binding(f"b{x}", x=x) for x in numbers))
    caps = (Cap(10_000, 300),)
    told: list[str] = []
    readers = [
        PostgresRouteReader(
            place, sealer, Rules(caller_caps=caps, number_caps=caps), lambda event, _: told.append(event)
        )
        for _ in range(2)
    ]
    for reader in readers:
        await reader.open()

    async def ask(reader: PostgresRouteReader, step: int) -> None:
        for _ in range(60):
            await reader.fetch_all([LookupRequest(x, A, NOW_MS / 1000) for x in numbers[::step]], 60.0)

    await asyncio.gather(*(ask(reader, step) for reader, step in zip(readers, (1, -1), strict=True)))
    with closing(postgres.connect(place)) as looker:
        assert looker.execute("SELECT count(*), min(granted), max(granted) FROM frequency").fetchone() == (40, 120, 120)
    for reader in readers:
        reader.close()
    assert told == []
    postgres.drop(place)


@pytest.mark.parametrize("setting", ["default_transaction_read_only = on", "quote_all_identifiers = on"])
async def test_settings_of_the_database_stop_no_look_up(tmp_path: Path, setting: str) -> None:
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    with closing(postgres.connect(place)) as thief:
        ((name,),) = thief.execute("SELECT current_database()").fetchall()
        thief.execute(f"ALTER DATABASE {name} SET {setting}")
    reader = PostgresRouteReader(place, sealer, Rules(caller_caps=(Cap(3, 300),)), lambda *_: None)
    await reader.open()
    with closing(reader):
        await reader.look_at_store()
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
    postgres.drop(place)


async def test_a_peek_sees_the_counts_that_the_next_look_up_compares_and_counts_none(tmp_path: Path) -> None:
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    rules = Rules(caller_caps=(Cap(3, 300), Cap(4, 86_400)), number_caps=(Cap(200, 300),))
    reader = PostgresRouteReader(place, sealer, rules, lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as other:
        now_ms = int(other.execute("SELECT extract(epoch FROM now()) * 1000").fetchone()[0])
        add_index(other, [(pair_key(number_key(sealer, X), sealer.lookup_hash(A)), now_ms - 3_600_000, 1)])
        for granted in range(4):
            for _ in range(2):
                found, counts = await reader.peek(X, A, now_ms / 1000, rules)
                assert isinstance(found, LookupResult) and found.counted is None and found.bound is not None
                assert counts == CapCounts([granted, granted + 1], [granted])
            counted = await reader.fetch(X, A, now_ms / 1000)
            assert isinstance(counted, LookupResult) and counted.counted is not None
            assert (counted.counted.over is not None) == (granted >= 3)
    postgres.drop(place)


@pytest.mark.parametrize("by", [-1, 1_000_000])
async def test_revision_without_its_seal_stops_no_later_call(tmp_path: Path, by: int) -> None:
    """Anyone who can write the database can change it, and put it back at once."""
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    told: list[str] = []
    reader = PostgresRouteReader(place, sealer, Rules(), lambda _, fields: told.append(str(fields["reason"])))
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as thief:
        await reader.learn_head()
        thief.execute(f"UPDATE ledger_head SET revision = revision + {by}")
        await reader.fetch(X, A, NOW_MS / 1000)
        await reader.learn_head()
        thief.execute(f"UPDATE ledger_head SET revision = revision - {by}")
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
    assert any("the head of the ledger was altered" in reason for reason in told)
    postgres.drop(place)


async def test_store_that_was_put_back_is_not_used_again(tmp_path: Path) -> None:
    place, sealer = new_server_store(tmp_path)
    reader = PostgresRouteReader(place, sealer, Rules(), lambda *_: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as thief:
        thief.execute("CREATE TEMPORARY TABLE earlier AS SELECT * FROM ledger_head")
        put(place, sealer, binding())
        thief.execute("CREATE TEMPORARY TABLE later AS SELECT * FROM ledger_head")
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
        for head in ("earlier", "later"):
            thief.execute(f"UPDATE ledger_head SET (revision, sealed) = (SELECT revision, sealed FROM {head})")
            assert await reader.fetch(X, A, NOW_MS / 1000) is STORE_FAILED
    postgres.drop(place)


async def test_look_up_under_way_uses_changed_rules(tmp_path: Path) -> None:
    """Its first answer has the columns of the old rules."""
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    reader = PostgresRouteReader(place, sealer, Rules(), lambda event, fields: None)
    await reader.open()
    with closing(reader):
        asked = asyncio.create_task(reader.fetch(X, A, NOW_MS / 1000))
        await asyncio.sleep(0)  # it waits for the server now
        reader.apply_config(Rules(filing_required=True))
        found = await asked
    assert isinstance(found, LookupResult)
    assert found.bound is not None and not found.bound.filed_until
    postgres.drop(place)


async def test_frozen_connection_fails_the_look_up_and_is_replaced(tmp_path: Path) -> None:
    """asyncpg cancels the statement first, and would wait for the end of that without limit."""
    place, sealer = new_server_store(tmp_path)
    reader = PostgresRouteReader(place, sealer, Rules(), lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as looker:
        ((frozen,),) = looker.execute(_BACKENDS).fetchall()
        os.kill(frozen, signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):
                assert await reader.fetch(X, A, NOW_MS / 1000, 0.1) is STORE_FAILED
                assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
        finally:
            os.kill(frozen, signal.SIGCONT)
    postgres.drop(place)
