"""Every table and column has a verdict, and the triggers are those that the tables need."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from relay.store.connection import Connection
from relay.store.database import connect
from relay.store.ledger_tables import CHAINS, NOT_COVERED, NOT_COVERED_COLUMNS, TABLES, dialect_of
from tests.support.acting import Acting
from tests.support.ledger_attacks import faults


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


def test_removed_trigger_is_named(store: Acting) -> None:
    with closing(connect(store.path)) as thief:
        on = " ON binding" if dialect_of(thief).is_server else ""
        thief.execute(f"DROP TRIGGER ledger_binding_update{on}")
    assert [str(fault) for fault in faults(store)] == [
        "schema trigger ledger_binding_update: is not as relay700 made it"
    ]


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_trigger_text_is_compared_exactly(store: Acting) -> None:
    """Text that looks like a comment may be part of a string, and name another row."""
    with closing(connect(store.path)) as thief:
        (made,) = thief.execute("SELECT sql FROM sqlite_master WHERE name = 'ledger_route_update'").fetchone()
        thief.execute("DROP TRIGGER ledger_route_update")
        thief.execute(made.replace("' '", "'--\n '", 1))
    assert any(fault.row_key == "trigger ledger_route_update" for fault in faults(store))
