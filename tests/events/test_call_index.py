"""When the index of calls gets its rows, and that none is missing after a kill or a failure of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest

from relay.errors import StoreError
from relay.events import call_index as module
from relay.events.call_index import CallIndex
from relay.events.follower import Follower
from relay.policy.fraud import Signals, Watch
from relay.store.call_counts import owner_of_business, read_counts
from relay.store.database import connect_reader
from relay.store.record_index import CURSOR, FOLLOWED, SET_CURSOR, IndexRow
from relay.store.records import RecordFilter, read_all
from relay.store.writer import GroupWriter
from tests.events.conftest import Shop
from tests.support.stored import X, ended_record, rows_of

CALLS = [ended_record(f"c{n}", business="shop") for n in range(1, 6)]


def rows(shop: Shop) -> list[IndexRow]:
    return sorted(shop.rows("SELECT key, at, record FROM record_index"))  # type: ignore[arg-type]


def expected(shop: Shop, calls: int = len(CALLS)) -> list[IndexRow]:
    return sorted(row for n in range(calls) for row in rows_of(shop.sealer, CALLS[n], n + 1))


def a_follower(shop: Shop, writer: GroupWriter, clock_s: Callable[[], float]) -> Follower:
    return Follower(shop.path, shop.sealer, writer, shop.log.logger, Watch(Signals()), clock_s)


async def test_rows_wait_for_others_at_most_ten_seconds(shop: Shop, writer: GroupWriter) -> None:
    now_s = 100.0
    follower = a_follower(shop, writer, lambda: now_s)
    await shop.record(*CALLS[:2])
    await follower.look()
    await follower.look()
    assert rows(shop) == expected(shop, 2)  # caps over hours count them, and may have missed them for long
    await shop.record(*CALLS[2:])
    await follower.look()
    assert follower.statistics()["records_followed"] == 5
    now_s = 109.9
    await follower.look()
    assert rows(shop) == expected(shop, 2)
    now_s = 110.0
    await follower.look()
    assert rows(shop) == expected(shop)


async def test_many_rows_do_not_wait(shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)
    follower = a_follower(shop, writer, lambda: 0.0)
    for call in CALLS[:3]:
        await shop.record(call)
        await follower.look()
        await follower.look()
    assert rows(shop) == expected(shop, 1)
    await shop.record(CALLS[3])
    await follower.look()
    await follower.look()
    assert rows(shop) == expected(shop, 4)


async def test_a_kill_loses_no_row_and_counts_no_call_twice(shop: Shop, writer: GroupWriter) -> None:
    await shop.record(*CALLS[:3])
    await a_follower(shop, writer, lambda: 0.0).look()  # killed with three records that are not indexed
    await shop.record(*CALLS[3:])
    after = a_follower(shop, writer, lambda: 0.0)
    after.finish()
    await after.run()
    assert after.statistics()["records_followed"] == 2
    assert rows(shop) == expected(shop)
    assert dict(shop.rows("SELECT * FROM cursor")) == {"record_index": 5, "followed": 5}
    with closing(connect_reader(shop.path)) as connection:
        [counts] = read_counts(connection, owner_of_business("shop"), 3_600, 0, 1 << 40).values()
    assert counts.outcomes == {"answered": 5}


async def test_a_failed_write_is_repeated_as_a_whole(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails in the second transaction; the first one's rows are there already."""
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    monkeypatch.setattr(module, "_PART", 4)
    index = CallIndex(writer, lambda: 0.0)
    index.begin(expected(shop), 5, 5, 5)
    shop.run(lambda unit: unit.connection.execute(SET_CURSOR, (FOLLOWED, 5)))
    wrote: list[int] = []

    def fail(add: Callable[..., None], *args: object) -> None:
        wrote.append(len(wrote))
        if len(wrote) == 2:
            raise StoreError("the disk is full")
        add(*args)

    monkeypatch.setattr(module, "add_index", partial(fail, module.add_index))
    with pytest.raises(StoreError):
        await index.write()
    assert len(rows(shop)) == 4
    assert shop.rows("SELECT * FROM cursor") == [("followed", 5)]
    await index.write()
    assert rows(shop) == expected(shop)
    assert shop.rows("SELECT * FROM cursor") == [("followed", 5), ("record_index", 5)]


async def test_no_call_is_found_twice_while_its_rows_are_written(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of some records are there before the cursor is."""
    monkeypatch.setattr(module, "SLICE_S", 0.0)
    monkeypatch.setattr(module, "_PART", 4)
    await shop.record(*CALLS)
    follower = a_follower(shop, writer, lambda: 0.0)
    await follower.look()
    found: list[list[str]] = []

    def look(add: Callable[..., None], *args: object) -> None:
        with closing(connect_reader(shop.path)) as connection:
            found.append([record.call_id for record in read_all(connection, shop.sealer, RecordFilter(number=X))])
        add(*args)

    monkeypatch.setattr(module, "add_index", partial(look, module.add_index))
    await follower.look()
    assert len(found) > 2
    assert [each for each in found if each != ["c1", "c2", "c3", "c4", "c5"]] == []


@pytest.mark.parametrize("is_finishing", [False, True])
async def test_an_index_that_is_behind_catches_up_in_steps_while_new_calls_have_their_events(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch, is_finishing: bool
) -> None:
    """At the first start of this version, or if someone has set its cursor back."""
    hook = shop.hook()
    monkeypatch.setattr(module, "MOST_WAITING", 2)
    monkeypatch.setattr("relay.events.follower.MOST_WAITING", 2)
    await shop.record(*CALLS[:4])
    shop.run(lambda unit: unit.connection.executemany(SET_CURSOR, [(FOLLOWED, 4), (CURSOR, 0)]))
    await shop.record(CALLS[4])
    follower = a_follower(shop, writer, lambda: 0.0)
    if not is_finishing:
        found = []
        for _ in range(3):
            await follower.step()
            found.append(len({row[2] for row in rows(shop)}))
            assert [event.event_id for event in shop.waiting(hook)] == ["c5.ended"]
        assert found == [0, 2, 4]
    follower.finish()
    await follower.run()
    assert follower.statistics()["records_followed"] == 1
    assert dict(shop.rows("SELECT * FROM cursor")) == {"record_index": 5, "followed": 5}
    assert rows(shop) == expected(shop)


async def test_new_calls_come_before_an_index_that_is_behind(
    shop: Shop, writer: GroupWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    monkeypatch.setattr("relay.events.follower.MOST_WAITING", 1)
    monkeypatch.setattr("relay.events.follower.MOST_TOLD", 1)
    hook = shop.hook()
    await shop.record(*CALLS[:2])
    shop.run(lambda unit: unit.connection.execute(SET_CURSOR, (FOLLOWED, 2)))
    await shop.record(*CALLS[2:])
    follower = a_follower(shop, writer, lambda: 0.0)
    for _ in range(3):
        await follower.step()
    assert [event.event_id for event in shop.waiting(hook)] == ["c3.ended", "c4.ended", "c5.ended"]
    assert rows(shop) == []
    follower.finish()
    await follower.run()
    assert rows(shop) == expected(shop)


async def test_calls_after_a_store_was_put_back_are_indexed(shop: Shop, writer: GroupWriter) -> None:
    """A backup of two calls in the place of five, three of them not indexed, as after the loss of a database server."""
    now_s = 100.0
    follower = a_follower(shop, writer, lambda: now_s)
    await shop.record(*CALLS[:2])
    await follower.look()
    await follower.look()
    with closing(sqlite3.connect(":memory:")) as backup, closing(sqlite3.connect(shop.path)) as store:
        store.backup(backup)
        await shop.record(*CALLS[2:])
        await follower.look()
        backup.backup(store)
    now_s = 111.0
    await follower.look()
    await shop.record(*(call._replace(call_id=f"new-{call.call_id}") for call in CALLS[2:]))
    await follower.look()
    now_s = 122.0
    await follower.look()
    assert dict(shop.rows("SELECT * FROM cursor")) == {"record_index": 5, "followed": 5}
    with closing(connect_reader(shop.path)) as connection:
        found = [record.call_id for record in read_all(connection, shop.sealer, RecordFilter(number=X))]
    assert found == ["c1", "c2", "new-c3", "new-c4", "new-c5"]


async def test_call_is_found_by_an_old_middle_number_that_it_showed(shop: Shop, writer: GroupWriter) -> None:
    """Before and after it is indexed: a record has no column for that number."""
    shown = "8617000000001"
    await shop.record(CALLS[0]._replace(number_shown=shown))
    follower = a_follower(shop, writer, lambda: 0.0)
    for _ in range(2):
        with closing(connect_reader(shop.path)) as connection:
            found = [record.call_id for record in read_all(connection, shop.sealer, RecordFilter(number=shown))]
        assert found == ["c1"]
        await follower.look()
        await follower.look()
    assert len(rows(shop)) > 0
