"""The purge: what it deletes and keeps, and that the rest of the chain still verifies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.store.database import connect, connect_reader
from relay.store.maintenance import (
    count_bindings,
    count_businesses,
    count_records,
    purge_answers,
    purge_bindings,
    purge_businesses,
    purge_complaints,
    purge_events,
    purge_members,
    purge_records,
    purge_routes,
)
from relay.store.record_index import add_index
from relay.store.records import RecordsCheck, verify_records
from relay.store.sqlite.journal import sqlite_journal
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.store.conftest import Disk
from tests.support.stored import NOW_MS, X, ended_record, rows_of

COUNT = 7


def record(n: int) -> Any:
    """The n-th record of the chain, ended n seconds after NOW_MS."""
    return ended_record(f"c{n}", received_at=NOW_MS, ended_at=NOW_MS + 1_000 * n)


async def write(disk: Disk, *numbers: int) -> None:
    journal = sqlite_journal(disk.path, disk.sealer, lambda *_: None)
    await journal.open()
    for n in numbers:
        journal.queue.append(Commit(0, record(n), None), lambda _: None)
    await journal.close()


def execute(disk: Disk, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    with closing(connect(disk.path)) as connection:
        return connection.execute(statement, parameters).fetchall()


def execute_all(disk: Disk, script: str) -> None:
    with closing(connect(disk.path)) as connection:
        connection.executescript(script)


@pytest.fixture
async def filled(disk: Disk) -> Disk:
    """A store with seven records, all indexed."""
    await write(disk, *range(1, COUNT + 1))
    with closing(connect(disk.path)) as connection:
        for n in range(1, COUNT + 1):
            add_index(connection, rows_of(disk.sealer, record(n), n))
        connection.execute("INSERT INTO cursor VALUES ('record_index', ?)", (COUNT,))
    return disk


LATER_MS = NOW_MS + 1_000_000  # the time of the purge


@pytest.fixture
def writer(disk: Disk) -> Iterator[Writer]:
    with closing(Writer(disk.path, disk.sealer, clock_ms=lambda: LATER_MS)) as writer:
        yield writer


def verify(disk: Disk) -> RecordsCheck:
    with closing(connect_reader(disk.path)) as connection:
        return verify_records(connection, disk.sealer)


def kept(disk: Disk) -> list[int]:
    return [seq for (seq,) in execute(disk, "SELECT chain_seq FROM call_record ORDER BY chain_seq")]


def purge(writer: Writer, n: int, most: int = 100) -> int:
    """Purge the records that ended before the n-th."""
    return writer.run(RELAY, lambda unit: purge_records(unit, NOW_MS + 1_000 * n, most))


async def test_chain_verifies_from_the_checkpoint_on(filled: Disk, writer: Writer) -> None:
    before = verify(filled)
    assert purge(writer, 4) == 3
    assert kept(filled) == [4, 5, 6, 7]
    after = verify(filled)
    assert (after.broken, after.intact, after.purged) == (None, 4, 3)
    assert after.head == before.head
    await write(filled, 8)
    assert purge(writer, 6) == 2
    assert (verify(filled).intact, verify(filled).purged, verify(filled).broken) == (3, 5, None)


async def test_records_are_added_after_a_purge_of_all(filled: Disk, writer: Writer) -> None:
    assert purge(writer, 99) == COUNT
    assert (verify(filled).intact, verify(filled).purged, verify(filled).broken) == (0, COUNT, None)
    await write(filled, 8)
    assert kept(filled) == [8]
    assert (verify(filled).intact, verify(filled).broken) == (1, None)


def test_purge_deletes_at_most_the_given_number(filled: Disk, writer: Writer) -> None:
    assert [purge(writer, 6, most=2) for _ in range(4)] == [2, 2, 1, 0]
    assert kept(filled) == [6, 7]


def test_purge_stops_at_the_first_young_record(filled: Disk, writer: Writer) -> None:
    """Only the start of the chain can be deleted, so an old record after a young one must wait."""
    with closing(connect(filled.path)) as connection:
        assert count_records(connection, NOW_MS + 3_000, LATER_MS) == 2
    assert purge(writer, 3) == 2
    assert purge(writer, 3) == 0


@pytest.mark.parametrize(("numbers", "deleted"), [((1, 9_001, 9_002, 2, 6), 4), ((1, 9_001, 6), 1), ((1, 9_001), 1)])
async def test_records_of_a_clock_that_was_ahead_go_with_the_next_one(
    disk: Disk, writer: Writer, numbers: tuple[int, ...], deleted: int
) -> None:
    """It was written after them. Without one that is old enough, they stay."""
    await write(disk, *numbers)
    with closing(connect(disk.path)) as connection:
        assert count_records(connection, NOW_MS + 5_000, LATER_MS) == deleted
    purged = 0
    while gone := purge(writer, 5, most=2):
        purged += gone
    assert purged == deleted
    assert verify(disk).broken is None


def test_records_not_indexed_yet_are_kept(filled: Disk, writer: Writer) -> None:
    execute(filled, "UPDATE cursor SET at = 2 WHERE name = 'record_index'")
    with closing(connect(filled.path)) as connection:
        assert count_records(connection, NOW_MS + 5_000, LATER_MS) == 2
    assert purge(writer, 5) == 2
    assert kept(filled) == [3, 4, 5, 6, 7]


def test_purge_does_not_wait_for_a_follower_that_never_ran(filled: Disk, writer: Writer) -> None:
    execute(filled, "DELETE FROM cursor")
    assert purge(writer, 5) == 4


def test_purge_deletes_exactly_the_index_rows_of_its_records(filled: Disk, writer: Writer) -> None:
    purge(writer, 6)
    left = execute(filled, "SELECT key, at, record FROM record_index ORDER BY record, key")
    expected = [row for n in (6, 7) for row in sorted(rows_of(filled.sealer, record(n), n))]
    assert left == expected


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("DELETE FROM checkpoint", "record 1 is missing: the next one is 4"),
        (
            "UPDATE checkpoint SET seq = 4; DELETE FROM call_record WHERE chain_seq = 4",
            "checkpoint record is not as relay700 wrote it",
        ),
        ("UPDATE checkpoint SET hash = zeroblob(33)", "checkpoint record is not as relay700 wrote it"),
        ("UPDATE checkpoint SET chain = 'audit'", "record 1 is missing"),
        ("DELETE FROM call_record WHERE chain_seq = 4", "record 4 is missing: the next one is 5"),
        ("DELETE FROM call_record", "records 4 to 7 were cut off the end"),
        ("DELETE FROM call_record; DELETE FROM chain_head", "head of the chain"),
        ("DELETE FROM call_record; DELETE FROM checkpoint", "records 1 to 7 were cut off the end"),
    ],
)
def test_altered_checkpoint_is_found(filled: Disk, writer: Writer, deed: str, said: str) -> None:
    purge(writer, 4)
    execute_all(filled, deed)
    assert said in str(verify(filled).broken)


def test_restored_old_checkpoint_is_found(filled: Disk, writer: Writer) -> None:
    purge(writer, 3)
    (old,) = execute(filled, "SELECT chain, seq, hash, at FROM checkpoint")
    purge(writer, 5)
    execute(filled, "UPDATE checkpoint SET (chain, seq, hash, at) = (?, ?, ?, ?)", *old)
    assert "checkpoint record is not as relay700 wrote it" in str(verify(filled).broken)


async def test_head_older_than_the_checkpoint_is_refused(disk: Disk, writer: Writer) -> None:
    await write(disk, 1, 2)
    (old,) = execute(disk, "SELECT seq, hash, mac FROM chain_head")
    await write(disk, 3, 4)
    purge(writer, 99)
    execute(disk, "UPDATE chain_head SET (seq, hash, mac) = (?, ?, ?)", *old)
    assert "head of the chain" in str(verify(disk).broken)
    with pytest.raises(StoreError, match="head of the chain"):
        await write(disk, 5)


@pytest.mark.parametrize(
    "deed",
    [
        "UPDATE call_record SET ended_at = 5 WHERE chain_seq = 2",
        "DELETE FROM call_record WHERE chain_seq = 2",
        "DELETE FROM call_record WHERE chain_seq = 1",
    ],
)
def test_purge_refuses_altered_records(filled: Disk, writer: Writer, deed: str) -> None:
    execute_all(filled, deed)
    left = kept(filled)
    with pytest.raises(StoreError, match=r"record [12]"):
        purge(writer, 5)
    assert kept(filled) == left
    assert execute(filled, "SELECT * FROM checkpoint") == []


# -- bindings and the rest

DAY_MS = 86_400_000


def add_binding(disk: Disk, made_ms: int, released_ms: int | None, business: str = "default") -> str:
    binding_id = f"{made_ms:012x}{'0' * 12}"
    execute(
        disk,
        "INSERT INTO binding (id, mode, business, pool, x, sealed, created_at, created_by, released_at)"
        " VALUES (?, 'AXB', ?, 'default', ?, x'', ?, 'cli:test', ?)",
        *(binding_id, business, X, made_ms, released_ms),
    )
    hash_ = made_ms.to_bytes(17)
    execute(disk, "INSERT INTO binding_change VALUES (?, 1, 0, '', x'')", binding_id)
    execute(disk, "INSERT INTO past_party VALUES (?, ?, 0)", hash_, binding_id)
    execute(disk, "INSERT INTO list_entry VALUES (?, ?, 'black', x'', 0, '')", f"binding {binding_id}", hash_)
    execute(disk, "INSERT INTO last_caller VALUES (?, ?, ?, x'', 0)", binding_id, X, hash_)
    execute(disk, "INSERT INTO route VALUES (?, ?, ?, 'a', x'', ?)", X, hash_, binding_id, released_ms)
    return binding_id


def test_released_bindings_are_deleted_with_their_rows_and_others_kept(disk: Disk, writer: Writer) -> None:
    live = add_binding(disk, NOW_MS - 400 * DAY_MS, None)
    add_binding(disk, NOW_MS - 300 * DAY_MS, NOW_MS - 200 * DAY_MS)
    late = add_binding(disk, NOW_MS - 299 * DAY_MS, NOW_MS - 10 * DAY_MS)
    add_binding(disk, NOW_MS - 298 * DAY_MS, NOW_MS - 185 * DAY_MS)
    young = add_binding(disk, NOW_MS - 1 * DAY_MS, None)
    before_ms = NOW_MS - 184 * DAY_MS
    with closing(connect(disk.path)) as connection:
        assert count_bindings(connection, before_ms, NOW_MS) == 2
    first = writer.run(RELAY, lambda unit: purge_bindings(unit, before_ms, "", 3))
    second = writer.run(RELAY, lambda unit: purge_bindings(unit, before_ms, first.after, 3))
    assert (first.seen, first.deleted, second.seen, second.deleted) == (3, 1, 1, 1)
    stay = [(live,), (late,), (young,)]
    assert execute(disk, "SELECT id FROM binding ORDER BY id") == stay
    for table in ("binding_change", "past_party", "last_caller", "route"):
        assert execute(disk, f"SELECT binding_id FROM {table} ORDER BY binding_id") == stay
    assert execute(disk, "SELECT substr(owner, 9) FROM list_entry ORDER BY owner") == stay


def test_released_binding_stays_while_one_of_its_callers_rests(disk: Disk, writer: Writer) -> None:
    """A cool-down may be longer than the retention."""
    released_ms, before_ms = NOW_MS - 200 * DAY_MS, NOW_MS - 184 * DAY_MS
    add_binding(disk, NOW_MS - 300 * DAY_MS, released_ms)

    def purged(free_at: int) -> tuple[int, int, int]:
        execute(disk, "UPDATE route SET free_at = ?", free_at)
        with closing(connect(disk.path)) as connection:
            counted = count_bindings(connection, before_ms, LATER_MS)
        deleted = writer.run(RELAY, lambda unit: purge_bindings(unit, before_ms, "", 3)).deleted
        return counted, deleted, len(execute(disk, "SELECT 1 FROM route"))

    assert purged(LATER_MS + 1) == (0, 0, 1)
    assert purged(LATER_MS) == (1, 1, 0)


def add_business(disk: Disk, business: str, state: str, days_ago: int) -> None:
    at = NOW_MS - days_ago * DAY_MS
    execute(
        disk,
        "INSERT INTO business (id, state, name, created_at, updated_at) VALUES (?, ?, '', ?, ?)",
        *(business, state, at, at),
    )
    execute(
        disk,
        "INSERT INTO business_change (business, at, seq, state, by, sealed) VALUES (?, ?, 1, ?, '', x'')",
        business,
        at,
        state,
    )
    execute(disk, "INSERT INTO api_key VALUES (?, ?, '', x'', x'', 0, '', NULL, NULL, NULL)", f"k-{business}", business)
    execute(
        disk,
        "INSERT INTO user_account (name, role, business, sealed, password_at, created_at, created_by)"
        " VALUES (?, '', ?, x'', 0, 0, '')",
        *(f"u-{business}", business),
    )
    execute(disk, "INSERT INTO party_group VALUES (?, ?, 1, 1, 0, x'')", f"g-{business}", business)
    execute(disk, "INSERT INTO group_member VALUES (?, x'01', x'', 0)", f"g-{business}")
    execute(
        disk,
        "INSERT INTO webhook (id, business, sealed, kinds, created_at) VALUES (?, ?, x'', '', 0)",
        business,
        business,
    )
    execute(disk, "INSERT INTO outbox (webhook, event_id, kind, at, sealed) VALUES (?, 'e', '', 0, x'')", business)
    execute(disk, "INSERT INTO list_entry VALUES (?, x'01', 'black', x'', 0, '')", f"business {business}")


def test_only_long_revoked_businesses_are_deleted(disk: Disk, writer: Writer) -> None:
    add_business(disk, "gone", "revoked", 800)
    add_business(disk, "just-revoked", "revoked", 700)
    add_business(disk, "suspended", "suspended", 800)
    add_business(disk, "bound", "revoked", 800)
    add_binding(disk, NOW_MS - DAY_MS, None, "bound")
    before_ms = NOW_MS - 731 * DAY_MS
    with closing(connect(disk.path)) as connection:
        assert count_businesses(connection, before_ms) == 1
    assert writer.run(RELAY, lambda unit: purge_businesses(unit, before_ms, 100)) == 1
    stay = ["bound", "just-revoked", "suspended"]
    assert execute(disk, "SELECT id FROM business WHERE id <> 'default' ORDER BY id") == [(one,) for one in stay]
    columns = {
        "business_change": "business",
        "api_key": "business",
        "user_account": "business",
        "party_group": "business",
        "group_member": "substr(group_id, 3)",
        "webhook": "business",
        "outbox": "webhook",
    }
    for table, column in columns.items():
        assert execute(disk, f"SELECT {column} FROM {table} ORDER BY 1") == [(one,) for one in stay], table
    listed = "SELECT substr(owner, 10) FROM list_entry WHERE owner LIKE 'business %' ORDER BY 1"
    assert execute(disk, listed) == [(one,) for one in stay]


def test_events_of_long_disabled_webhooks_are_deleted(disk: Disk, writer: Writer) -> None:
    for webhook, disabled_at in (("on", None), ("off", 999), ("just-off", 1_000)):
        execute(
            disk,
            "INSERT INTO webhook (id, business, sealed, kinds, created_at, disabled_at) VALUES (?, 'b', x'', '', 0, ?)",
            *(webhook, disabled_at),
        )
        execute(disk, "INSERT INTO outbox (webhook, event_id, kind, at, sealed) VALUES (?, 'e', '', 0, x'')", webhook)
    assert writer.run(RELAY, lambda unit: purge_events(unit, 1_000, 100)) == 1
    assert execute(disk, "SELECT webhook FROM outbox ORDER BY 1") == [("just-off",), ("on",)]


def test_routes_members_answers_dead_letters_and_complaints_are_deleted_by_age(disk: Disk, writer: Writer) -> None:
    for n, free_at in enumerate((None, 999, 1_000, 1_001)):
        execute(disk, "INSERT INTO route VALUES (?, ?, 'b', 'a', x'', ?)", X, bytes([1, n]), free_at)
    for n, at in enumerate((999, 1_000, 1_001)):
        execute(disk, "INSERT INTO idempotency VALUES ('operator', ?, x'', 200, x'', ?)", bytes([n]), at)
    for n, dead_at in enumerate((None, 999, 1_000)):
        execute(
            disk,
            "INSERT INTO outbox (webhook, event_id, kind, at, sealed, dead_at) VALUES ('w', ?, '', 0, x'', ?)",
            *(f"e{n}", dead_at),
        )
        execute(disk, "INSERT INTO past_member VALUES ('g', ?, x'', 0, ?)", bytes([n]), dead_at or 5_000)
    for day in ("2023-12-31", "2024-01-01"):
        execute(disk, "INSERT INTO complaint VALUES (?, 'default', '70010000001', 1, '')", day)
    assert writer.run(RELAY, lambda unit: purge_routes(unit, 1_000, 100)) == 2
    assert writer.run(RELAY, lambda unit: purge_members(unit, 1_000, 100)) == 1
    assert writer.run(RELAY, lambda unit: purge_answers(unit, 1_000, 100)) == 2
    assert writer.run(RELAY, lambda unit: purge_events(unit, 1_000, 100)) == 1
    assert writer.run(RELAY, lambda unit: purge_complaints(unit, "2024-01-01", 100)) == 1
    assert execute(disk, "SELECT free_at FROM route ORDER BY 1") == [(None,), (1_001,)]
    assert execute(disk, "SELECT removed_at FROM past_member ORDER BY 1") == [(1_000,), (5_000,)]
    assert execute(disk, "SELECT at FROM idempotency") == [(1_001,)]
    assert execute(disk, "SELECT dead_at FROM outbox ORDER BY 1") == [(None,), (1_000,)]
    assert execute(disk, "SELECT day FROM complaint") == [("2024-01-01",)]
