"""Attacks on each table by someone who has the database but not the key, and how they are reported and contained.

The attacks are generated from the schema: a new table or column without a verdict fails the first tests here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from structlog import get_logger
from structlog.testing import capture_logs

from relay.errors import StoreError
from relay.events.ledger_watch import CHECK_S, LedgerWatch
from relay.store.chain import AnchorFile, read_anchor
from relay.store.connection import Connection, one_moment
from relay.store.database import connect, open_store
from relay.store.ledger import require
from relay.store.ledger_check import Fault, ledger_faults
from relay.store.ledger_tables import (
    CHAINS,
    NOT_COVERED,
    NOT_COVERED_COLUMNS,
    SQLITE,
    TABLES,
    LedgerTable,
    dialect_of,
    triggers,
)
from tests.support.acting import Acting, acting

# Columns whose values the schema checks.
CHECKED: dict[tuple[str, str], list[object]] = {
    ("business", "state"): ["approved", "suspended"],
    ("business", "scenario"): ["other", "express"],
    ("business", "language"): ["zh", "en"],
    ("prefix", "prefix"): ["70010000009"],
    ("prefix", "state"): ["active", "locked"],
    ("pool", "max_bindings"): [200, 201],
    ("binding", "business"): ["default"],
    ("binding", "direction"): ["both", "a_to_b"],
    ("route", "party"): ["a", "b"],
    ("list_entry", "kind"): ["black", "white"],
    ("list_entry", "owner"): ["business default"],
    ("webhook", "parties"): ["masked", "clear"],
    ("checkpoint", "chain"): ["audit"],
    ("checkpoint", "seq"): [0],
    ("checkpoint", "hash"): [b"\x00"],
    ("sealing_key", "id"): [200],
    ("sealing_key", "proof"): [b"\x00"],
    ("sealing_key", "used_at"): [None],
}
TRUTHS = {("binding", "white_only"), ("binding", "record"), ("business", "white_only"), ("business", "live_events")}


def tables_of(connection: Connection) -> dict[str, list[str]]:
    """The tables of a store, with their columns."""
    if isinstance(connection, sqlite3.Connection):
        names = [
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        ]
        return {
            name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})").fetchall()]
            for name in names
            if not name.startswith("sqlite_")
        }
    found: dict[str, list[str]] = {}
    query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
    for table, column in connection.execute(query).fetchall():
        found.setdefault(table, []).append(column)
    return found


@pytest.fixture
def store(tmp_path: Path, store_kind: str) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


def test_every_table_has_a_verdict(store: Acting) -> None:
    found = set(tables_of(store.reader))
    said = {*TABLES, *CHAINS, *NOT_COVERED}
    assert found - said == set()
    assert {*TABLES, *CHAINS} - found == set()
    assert not (TABLES.keys() | CHAINS.keys()) & NOT_COVERED.keys()


def test_every_column_of_a_covered_table_has_a_verdict(store: Acting) -> None:
    for table, columns in tables_of(store.reader).items():
        if table in TABLES:
            declared = TABLES[table]
            said = [column.name for column in (*declared.key, *declared.columns)]
            said += NOT_COVERED_COLUMNS.get(table, {})
            assert sorted(columns) == sorted(said), table


# -- attacks on one row of each table


def value_of(table: str, column: str, kind: str, version: int) -> object:
    if (table, column) in CHECKED:
        values = CHECKED[table, column]
        return values[min(version, len(values) - 1)]
    if (table, column) in TRUTHS:
        return version
    if kind == "blob":
        return bytes([7, version])
    return version + 5 if is_number(table, column, kind) else f"text{version}"


def is_number(table: str, column: str, kind: str) -> bool:
    return kind == "integer" or column.endswith(("_at", "_ms", "_s")) or column in INTEGERS.get(table, ())


INTEGERS: dict[str, tuple[str, ...]] = {
    "business": ("max_bindings", "max_calls", "max_cps", "max_binds_per_day", "version", "qualification"),
    "pool": ("max_bindings", "warn_percent"),
    "number": ("locked", "legacy"),
    "past_party": ("to_ms",),
    "binding": ("version",),
    "recording": ("size",),
    "complaint": ("count",),
    "checkpoint": ("seq", "at"),
    "binding_change": ("at",),
}


class Row(NamedTuple):
    """The attacked row of a covered table."""

    table: LedgerTable
    key: str  # in the ledger
    where: str
    at: list[Any]  # the values of the key columns


def fill(store: Acting, table: LedgerTable) -> Row:
    """Write a row as relay700."""
    names = [column.name for column in (*table.key, *table.columns)]
    values = [value_of(table.name, column.name, column.kind, 0) for column in (*table.key, *table.columns)]
    marks = ", ".join("?" * len(names))
    store.run(
        lambda act: act.connection.execute(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", values)
    )
    where = " AND ".join(f"{column.name} = ?" for column in table.key)
    at = values[: len(table.key)]
    query = f"SELECT {dialect_of(store.reader).row_key(table)} FROM {table.name} WHERE {where}"
    (key,) = store.reader.execute(query, at).fetchone()
    return Row(table, key, where, at)


def change(store: Acting, row: Row) -> None:
    """Write another version of the row as relay700."""
    column = last_changed(row.table)
    value = value_of(row.table.name, column.name, column.kind, 1)
    store.run(
        lambda act: act.connection.execute(
            f"UPDATE {row.table.name} SET {column.name} = ? WHERE {row.where}", [value, *row.at]
        )
    )


def last_changed(table: LedgerTable) -> Any:
    return next(
        column
        for column in table.columns
        if len(CHECKED.get((table.name, column.name), [0, 1])) > 1
        and (table.name, column.name) != ("binding", "business")
    )


Attack = Callable[[Connection, Row], None]


def alter(connection: Connection, row: Row) -> None:
    column = last_changed(row.table)
    value = value_of(row.table.name, column.name, column.kind, 1)
    connection.execute(f"UPDATE {row.table.name} SET {column.name} = ? WHERE {row.where}", [value, *row.at])


def delete(connection: Connection, row: Row) -> None:
    connection.execute(f"DELETE FROM {row.table.name} WHERE {row.where}", row.at)


def delete_with_its_proof(connection: Connection, row: Row) -> None:
    delete(connection, row)
    connection.execute("DELETE FROM ledger WHERE table_name = ? AND row_key = ?", [row.table.name, row.key])


def empty_the_table(connection: Connection, row: Row) -> None:
    connection.execute(f"DELETE FROM {row.table.name}")


ATTACKS: list[Attack] = [alter, delete, delete_with_its_proof, empty_the_table]


def faults(store: Acting) -> list[Fault]:
    with one_moment(store.reader):
        return list(ledger_faults(store.reader, store.sealer))


_now_s = [0.0]


def watching(store: Acting) -> LedgerWatch:
    """A watch whose clock the test sets."""
    return LedgerWatch(store.path, store.sealer, get_logger(), clock_s=lambda: _now_s[0])


async def found_while_running(watch: LedgerWatch) -> list[str]:
    """The reports of a full check of all rows."""
    _now_s[0] += CHECK_S
    with capture_logs() as logs:
        await watch.look()
    return [log["fault"] for log in logs if log["event"] == "ledger.fault"]


def names(found: list[Fault], row: Row) -> bool:
    return any(fault.table == row.table.name and fault.row_key == row.key for fault in found)


def refused(store: Acting, row: Row) -> bool:
    """Whether the row grants nothing: its proof does not hold, or it is missing."""
    there = store.reader.execute(f"SELECT 1 FROM {row.table.name} WHERE {row.where}", row.at).fetchone()
    try:
        require(store.reader, store.sealer, row.table.name, [row.key])
    except StoreError:
        return True
    return there is None


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
@pytest.mark.parametrize("attack", ATTACKS)
async def test_attacked_row_is_named_and_grants_nothing(store: Acting, table: LedgerTable, attack: Attack) -> None:
    row = fill(store, table)
    watch = watching(store)
    await watch.look()
    assert faults(store) == []
    assert not refused(store, row)
    with closing(connect(store.path)) as thief:
        if not dialect_of(thief).is_server:
            thief.execute("PRAGMA foreign_keys = OFF")
        elif table.name == "business" and attack is empty_the_table:
            thief.execute("DELETE FROM binding")
        attack(thief, row)
    assert names(faults(store), row)
    assert any(f"{row.table.name} {row.key}" in fault for fault in await found_while_running(watch))
    assert refused(store, row)
    with suppress(StoreError):  # without its sealing keys the store accepts no writes
        store.run(lambda act: None)  # any later transaction of relay700
    assert names(faults(store), row) or attack is delete_with_its_proof
    assert refused(store, row)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
async def test_restored_row_is_named_and_grants_nothing(store: Acting, table: LedgerTable) -> None:
    row = fill(store, table)
    columns = [column.name for column in table.columns]
    query = f"SELECT {', '.join(columns)} FROM {table.name} WHERE {row.where}"
    old = store.reader.execute(query, row.at).fetchone()
    (proof,) = store.reader.execute(
        "SELECT proof FROM ledger WHERE table_name = ? AND row_key = ?", [table.name, row.key]
    ).fetchone()
    change(store, row)
    watch = watching(store)
    await watch.look()
    assert faults(store) == []
    with closing(connect(store.path)) as thief:
        marks = ", ".join(f"{name} = ?" for name in columns)
        thief.execute(f"UPDATE {table.name} SET {marks} WHERE {row.where}", [*old, *row.at])
        thief.execute("UPDATE ledger SET proof = ? WHERE table_name = ? AND row_key = ?", [proof, table.name, row.key])
    assert names(faults(store), row)
    assert any(f"{table.name} {row.key}" in fault for fault in await found_while_running(watch))
    store.run(lambda act: None)
    assert names(faults(store), row)
    assert refused(store, row)


@pytest.mark.parametrize("table", TABLES.values(), ids=list(TABLES))
async def test_row_restored_with_its_proof_and_no_note_shows_in_the_sum(store: Acting, table: LedgerTable) -> None:
    """The attacker knows how the ledger works."""
    row = fill(store, table)
    columns = [column.name for column in table.columns]
    query = f"SELECT {', '.join(columns)} FROM {table.name} WHERE {row.where}"
    old = store.reader.execute(query, row.at).fetchone()
    proofs = store.reader.execute("SELECT table_name, row_key, proof FROM ledger").fetchall()
    change(store, row)
    with closing(connect(store.path)) as thief:
        marks = ", ".join(f"{name} = ?" for name in columns)
        thief.execute(f"UPDATE {table.name} SET {marks} WHERE {row.where}", [*old, *row.at])
        thief.executemany("UPDATE ledger SET proof = ?3 WHERE table_name = ?1 AND row_key = ?2", proofs)
        thief.execute("DELETE FROM ledger_touch")
    assert [fault.table for fault in faults(store)] == [table.name]
    watch = watching(store)
    assert any(fault.startswith(f"{table.name}: rows were removed") for fault in await found_while_running(watch))


async def test_added_row_is_named_and_grants_nothing(store: Acting) -> None:
    watch = watching(store)
    await watch.look()
    for table in TABLES.values():
        names_ = [column.name for column in (*table.key, *table.columns)]
        values = [value_of(table.name, column.name, column.kind, 0) for column in (*table.key, *table.columns)]
        with closing(connect(store.path)) as thief:
            thief.execute(
                f"INSERT INTO {table.name} ({', '.join(names_)}) VALUES ({', '.join('?' * len(names_))})", values
            )
            where = " AND ".join(f"{column.name} = ?" for column in table.key)
            at = values[: len(table.key)]
            query = f"SELECT {dialect_of(thief).row_key(table)} FROM {table.name} WHERE {where}"
            (key,) = thief.execute(query, at).fetchone()
        row = Row(table, key, where, at)
        assert names(faults(store), row), table.name
        assert refused(store, row), table.name
        store.run(lambda act: None)
        assert refused(store, row), table.name
    told = await found_while_running(watch)
    assert {fault.split()[0] for fault in told} >= TABLES.keys()


# -- the ledger itself


def test_distrusted_row_stays_distrusted_after_a_change_by_relay700(store: Acting) -> None:
    row = fill(store, TABLES["api_key"])
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE api_key SET scopes = 'operator'")
    change(store, row)
    assert refused(store, row)
    assert names(faults(store), row)


def test_row_altered_without_a_note_is_not_proven_by_the_next_change(store: Acting) -> None:
    row = fill(store, TABLES["api_key"])
    with closing(connect(store.path)) as thief:
        thief.execute("UPDATE api_key SET scopes = 'operator'")
        thief.execute("DELETE FROM ledger_touch")
    store.run(lambda act: act.connection.execute("UPDATE api_key SET expires_at = 5"))
    assert refused(store, row)
    assert names(faults(store), row)


@pytest.mark.parametrize(
    ("deed", "named"),
    [
        ("DELETE FROM ledger_head", "the head of the ledger was removed"),
        ("UPDATE ledger_head SET revision = revision + 1", "the head of the ledger was altered"),
        ("UPDATE ledger_head SET sealed = x'00'", "the head of the ledger was altered"),
    ],
)
async def test_altered_head_is_named_and_stops_all_writes(store: Acting, deed: str, named: str) -> None:
    fill(store, TABLES["api_key"])
    with closing(connect(store.path)) as thief:
        thief.execute(deed)
    assert [named in str(fault) for fault in faults(store)] == [True]
    assert any(named in fault for fault in await found_while_running(watching(store)))
    with pytest.raises(StoreError, match=named):
        store.run(lambda act: act.connection.execute("UPDATE api_key SET expires_at = 5"))


async def test_removed_trigger_is_named(store: Acting) -> None:
    with closing(connect(store.path)) as thief:
        on = " ON binding" if dialect_of(thief).is_server else ""
        thief.execute(f"DROP TRIGGER ledger_binding_update{on}")
    assert [str(fault) for fault in faults(store)] == [
        "schema trigger ledger_binding_update: is not as relay700 made it"
    ]
    assert await found_while_running(watching(store))


async def test_restored_ledger_is_found_by_the_running_relay(store: Acting) -> None:
    old = store.reader.execute("SELECT revision, sealed FROM ledger_head").fetchone()
    row = fill(store, TABLES["api_key"])
    watch = watching(store)
    await watch.look()
    with closing(connect(store.path)) as thief:
        delete_with_its_proof(thief, row)
        thief.execute("DELETE FROM ledger_touch")
        thief.execute("UPDATE ledger_head SET revision = ?, sealed = ?", old)
    assert any("has 1 now" in fault or "revision" in fault for fault in await found_while_running(watch))


HELPER = "CREATE TRIGGER helper AFTER INSERT ON audit BEGIN UPDATE business SET state = 'approved'; END"


@pytest.mark.parametrize(
    "deed",
    [
        HELPER,
        "CREATE VIEW another AS SELECT 1 AS one",
        "CREATE UNIQUE INDEX another ON audit (action)",
        "DROP INDEX binding_a",
        "ALTER TABLE business ADD COLUMN another TEXT",
        "DROP TRIGGER ledger_binding_update",
        "PRAGMA user_version = 99",
    ],
)
@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
async def test_changed_schema_is_named_and_stops_all_writes(store: Acting, deed: str) -> None:
    """Changes that the database makes by itself would be proven as relay700's own."""
    watch = watching(store)
    await watch.look()
    with closing(connect(store.path)) as thief:
        thief.execute(deed)
    assert any(fault.table == "schema" for fault in faults(store))
    assert any(fault.startswith("schema") for fault in await found_while_running(watch))
    if "PRAGMA" not in deed:
        with pytest.raises(StoreError, match="nothing is written to it"):
            store.run(lambda act: act.audit("test", "store"))


@pytest.mark.parametrize("store_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(
    "deed",
    [
        "CREATE FUNCTION helper() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER helper AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION helper()",
        "CREATE RULE helper AS ON INSERT TO audit DO ALSO UPDATE business SET state = 'approved'",
        "ALTER TABLE binding DISABLE TRIGGER ledger_binding_update",
    ],
)
async def test_changed_schema_of_a_server_is_named(store: Acting, deed: str) -> None:
    with closing(connect(store.path)) as thief:
        thief.execute(deed)
    assert any(fault.table == "schema" for fault in faults(store))
    with pytest.raises(StoreError, match="nothing is written to it"):
        store.run(lambda act: act.audit("test", "store"))


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_foreign_trigger_is_dropped_when_the_store_opens(store: Acting, tmp_path: Path) -> None:
    with closing(connect(store.path)) as thief:
        thief.execute(HELPER)
    open_store(store.path, tmp_path / "relay.key")
    store.run(lambda act: act.audit("test", "store"))
    assert store.reader.execute("SELECT object FROM audit WHERE action = 'ledger.fault'").fetchall() == [
        ("1 triggers, helper first",)
    ]


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_index_that_hides_rows_is_named(store: Acting) -> None:
    """The text of the schema was restored afterwards."""
    fill(store, TABLES["binding"])
    with closing(connect(store.path)) as thief:
        (sql,) = thief.execute("SELECT sql FROM sqlite_master WHERE name = 'binding_a'").fetchone()
        thief.execute("DROP INDEX binding_a")
        thief.execute("CREATE INDEX binding_a ON binding (a_hash, created_at) WHERE id IS NULL AND id = 'zz'")
        thief.execute("PRAGMA writable_schema = ON")
        thief.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'binding_a'", (sql,))
        (version,) = thief.execute("PRAGMA schema_version").fetchone()
        thief.execute(f"PRAGMA schema_version = {version + 1}")
    assert [fault.table for fault in faults(store)] == ["binding"]


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_removed_ledger_is_not_created_again(store: Acting, tmp_path: Path) -> None:
    AnchorFile(store.path, store.sealer).write(read_anchor(store.reader, store.sealer))
    with closing(connect(store.path)) as thief:
        for name in triggers(SQLITE):
            thief.execute(f"DROP TRIGGER {name}")
        for table in ("ledger", "ledger_touch", "ledger_head", "filing"):
            thief.execute(f"DROP TABLE {table}")
        thief.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError):
        open_store(store.path, tmp_path / "relay.key")


def test_deleted_list_entry_makes_its_owner_distrusted(store: Acting) -> None:
    """The deleted entry may have barred a caller, so its owner grants nothing until an operator signs again."""
    row = fill(store, TABLES["list_entry"])
    with closing(connect(store.path)) as thief:
        delete_with_its_proof(thief, row)
    store.run(lambda act: None)
    with pytest.raises(StoreError, match="business default is not as relay700 wrote it"):
        require(store.reader, store.sealer, "business", ["default"])


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_trigger_text_is_compared_exactly(store: Acting) -> None:
    """Text that looks like a comment may be part of a string, and name another row."""
    with closing(connect(store.path)) as thief:
        (made,) = thief.execute("SELECT sql FROM sqlite_master WHERE name = 'ledger_route_update'").fetchone()
        thief.execute("DROP TRIGGER ledger_route_update")
        thief.execute(made.replace("' '", "'--\n '", 1))
    assert any(fault.row_key == "trigger ledger_route_update" for fault in faults(store))
