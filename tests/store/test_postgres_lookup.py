"""The look-up of a call on a PostgreSQL server. `tests.service` tests its results, on both kinds of store."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from relay.policy.evaluate import LookupResult
from relay.policy.rules import Cap, Rules
from relay.store.database import open_store
from relay.store.postgres_lookup import ServerRouteReader
from tests.support import postgres
from tests.support.stored import NOW_MS, A, X, binding, put

pytestmark = pytest.mark.outside

_LAST = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_look_up_is_one_statement(tmp_path: Path) -> None:
    """Each further statement would double the cost on the server."""
    place = postgres.new_place(tmp_path)
    sealer = open_store(place, tmp_path / "relay.key")
    reader = ServerRouteReader(place, sealer, Rules(), lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as looker:
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
        ((last,),) = looker.execute(_LAST).fetchall()
    assert last.strip().startswith("SELECT (SELECT revision FROM ledger_head")
    postgres.drop(place)


async def test_look_up_with_frequency_caps_is_one_statement(tmp_path: Path) -> None:
    """It also counts the call."""
    place = postgres.new_place(tmp_path)
    sealer = open_store(place, tmp_path / "relay.key")
    put(place, sealer, binding())
    caps = (Cap(3, 300), Cap(10, 86_400))
    reader = ServerRouteReader(place, sealer, Rules(caller_caps=caps, number_caps=caps), lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as looker:
        found = await reader.fetch(X, A, NOW_MS / 1000)
        ((last,),) = looker.execute(_LAST).fetchall()
        ((granted,),) = looker.execute("SELECT count(*) FROM frequency").fetchall()
    assert isinstance(found, LookupResult) and found.counted is not None and found.counted.over is None
    assert last.strip().startswith("WITH found AS")
    assert granted == 2
    postgres.drop(place)


async def test_look_up_under_way_uses_changed_rules(tmp_path: Path) -> None:
    """Its first answer has the columns of the old rules."""
    place = postgres.new_place(tmp_path)
    sealer = open_store(place, tmp_path / "relay.key")
    put(place, sealer, binding())
    reader = ServerRouteReader(place, sealer, Rules(), lambda event, fields: None)
    await reader.open()
    with closing(reader):
        asked = asyncio.create_task(reader.fetch(X, A, NOW_MS / 1000))
        await asyncio.sleep(0)  # it waits for the server now
        reader.follow(Rules(filing_required=True))
        found = await asked
    assert isinstance(found, LookupResult)
    assert found.bound is not None and not found.bound.filed
    postgres.drop(place)
