"""Attacks on a store by someone who has the database but not the key, on one row of each table.

They are generated from the schema, so a new table needs no case of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from relay.errors import StoreError
from relay.store.connection import Connection, one_moment, transaction
from relay.store.ledger import require_proofs
from relay.store.ledger_check import LedgerFault, ledger_faults
from relay.store.ledger_tables import TABLES, CoveredColumn, LedgerTable, dialect_of
from tests.support.acting import Acting

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
    ("user_account", "must_change"): [0, 1],
}
TRUTHS = {("binding", "white_only"), ("binding", "record"), ("business", "white_only"), ("business", "live_events")}
INTEGERS: dict[str, tuple[str, ...]] = {
    "business": ("max_bindings", "max_calls", "max_cps", "max_binds_per_day", "version", "qualification", "hook"),
    "hook": ("unknown_callers",),
    "pool": ("max_bindings", "warn_percent"),
    "number": ("locked", "legacy"),
    "past_party": ("to_ms",),
    "binding": ("version",),
    "recording": ("size",),
    "paper": ("version", "valid_from", "valid_until", "size"),
    "complaint": ("count",),
    "user_account": ("must_change", "failures", "locked_until", "last_step"),
    "checkpoint": ("seq", "at"),
    "binding_change": ("at",),
}


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


class Row(NamedTuple):
    """The attacked row of a covered table."""

    table: LedgerTable
    key: str  # in the ledger
    where: str
    at: list[Any]  # the values of the key columns


def add(connection: Connection, table: LedgerTable) -> Row:
    """Insert a row."""
    names = [column.name for column in (*table.key, *table.columns)]
    values = [value_of(table.name, column.name, column.kind, 0) for column in (*table.key, *table.columns)]
    marks = ", ".join("?" * len(names))
    connection.execute(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", values)
    where = " AND ".join(f"{column.name} = ?" for column in table.key)
    at = values[: len(table.key)]
    query = f"SELECT {dialect_of(connection).row_key(table)} FROM {table.name} WHERE {where}"
    (key,) = connection.execute(query, at).fetchone()
    return Row(table, key, where, at)


def alter(connection: Connection, row: Row) -> None:
    column = last_changed(row.table)
    value = value_of(row.table.name, column.name, column.kind, 1)
    connection.execute(f"UPDATE {row.table.name} SET {column.name} = ? WHERE {row.where}", [value, *row.at])


def last_changed(table: LedgerTable) -> CoveredColumn:
    return next(
        column
        for column in table.columns
        if len(CHECKED.get((table.name, column.name), [0, 1])) > 1
        and (table.name, column.name) != ("binding", "business")
    )


def fill(store: Acting, table: LedgerTable) -> Row:
    """Write a row as relay700."""
    return store.run(lambda unit: add(unit.connection, table))


def change(store: Acting, row: Row) -> None:
    """Write another version of the row as relay700."""
    store.run(lambda unit: alter(unit.connection, row))


# -- Attacks

Attack = Callable[[Connection, Row], None]


def delete(connection: Connection, row: Row) -> None:
    connection.execute(f"DELETE FROM {row.table.name} WHERE {row.where}", row.at)


def delete_with_its_proof(connection: Connection, row: Row) -> None:
    delete(connection, row)
    connection.execute("DELETE FROM ledger WHERE table_name = ? AND row_key = ?", [row.table.name, row.key])


def empty_the_table(connection: Connection, row: Row) -> None:
    connection.execute(f"DELETE FROM {row.table.name}")


ATTACKS: list[Attack] = [alter, delete, delete_with_its_proof, empty_the_table]


def covered(connection: Connection, row: Row) -> list[Any]:
    """The present values of the row, to put them back later."""
    names = ", ".join(column.name for column in row.table.columns)
    return list(connection.execute(f"SELECT {names} FROM {row.table.name} WHERE {row.where}", row.at).fetchone())


def proofs(connection: Connection) -> list[tuple[Any, ...]]:
    """All proofs of the ledger, to put them back later."""
    return connection.execute("SELECT table_name, row_key, proof FROM ledger").fetchall()


def put_back(connection: Connection, row: Row, values: list[Any], proofs: list[tuple[Any, ...]]) -> None:
    marks = ", ".join(f"{column.name} = ?" for column in row.table.columns)
    connection.execute(f"UPDATE {row.table.name} SET {marks} WHERE {row.where}", [*values, *row.at])
    connection.executemany("UPDATE ledger SET proof = ?3 WHERE table_name = ?1 AND row_key = ?2", proofs)


class Copies:
    """Rows of some tables and their proofs, as they were at one time."""

    def __init__(self, connection: Connection, *tables: str) -> None:
        self._tables = [TABLES[table] for table in tables]
        self._rows = [
            connection.execute(f"SELECT {', '.join(_columns_of(table))} FROM {table.name}").fetchall()
            for table in self._tables
        ]
        self._proofs = proofs(connection)

    def put_back(self, connection: Connection) -> None:
        """As by someone who knows how the ledger works: in one transaction, without a note."""
        with transaction(connection):
            for table, rows in zip(self._tables, self._rows, strict=True):
                for row in rows:
                    _put(connection, table, row)
            names = {table.name for table in self._tables}
            kept = [proof for proof in self._proofs if proof[0] in names]
            connection.executemany(_PUT_PROOF, kept)
            connection.execute("DELETE FROM ledger_touch")


_PUT_PROOF = """
INSERT INTO ledger (table_name, row_key, proof) VALUES (?1, ?2, ?3)
ON CONFLICT (table_name, row_key) DO UPDATE SET proof = excluded.proof
"""


def _put(connection: Connection, table: LedgerTable, row: tuple[Any, ...]) -> None:
    names, at = _columns_of(table), len(table.key)
    where = " AND ".join(f"{column.name} = ?" for column in table.key)
    update = f"UPDATE {table.name} SET {', '.join(f'{name} = ?' for name in names[at:])} WHERE {where}"
    if connection.execute(update, (*row[at:], *row[:at])).rowcount == 0:  # it was deleted
        marks = ", ".join("?" * len(names))
        connection.execute(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", row)


def _columns_of(table: LedgerTable) -> list[str]:
    return [column.name for column in (*table.key, *table.columns)]


HEAD_CHANGES = [
    ("DELETE FROM ledger_head", "the head of the ledger was removed"),
    ("UPDATE ledger_head SET revision = revision + 1", "the head of the ledger was altered"),
    ("UPDATE ledger_head SET sealed = x'00'", "the head of the ledger was altered"),
]
HELPER = "CREATE TRIGGER helper AFTER INSERT ON audit BEGIN UPDATE business SET state = 'approved'; END"
SCHEMA_CHANGES = [  # of an SQLite store
    HELPER,
    "CREATE VIEW another AS SELECT 1 AS one",
    "CREATE UNIQUE INDEX another ON audit (action)",
    "DROP INDEX binding_a",
    "ALTER TABLE business ADD COLUMN another TEXT",
    "DROP TRIGGER ledger_binding_update",
    "PRAGMA user_version = 99",
]


@contextmanager
def any_type(thief: Connection, table: str) -> Iterator[None]:
    """In the block a table in a file takes any values; afterwards the schema is as before, without a note."""
    thief.execute("PRAGMA writable_schema = ON")
    thief.execute("BEGIN IMMEDIATE")
    put = "UPDATE sqlite_master SET sql = ? WHERE name = ?"
    select = "SELECT sql, name FROM sqlite_master WHERE name IN (?, 'ledger_touch')"
    made = thief.execute(select, (table,)).fetchall()
    thief.executemany(put, [(_LIMITS.sub("", sql), name) for sql, name in made])
    thief.execute("PRAGMA writable_schema = RESET")
    yield
    thief.execute("DELETE FROM ledger_touch")
    thief.execute("PRAGMA writable_schema = ON")
    thief.executemany(put, made)
    thief.execute("PRAGMA writable_schema = RESET")
    thief.execute("COMMIT")


_LIMITS = re.compile(r"STRICT, |STRICT|NOT NULL|CHECK \([^()]*(\([^()]*\))?[^()]*\)")


# Values that relay700 never writes, and that make a driver or a decoder fail.
NOT_UTF8 = "INSERT INTO complaint VALUES ('d', CAST(x'ff' AS TEXT), 'p', 1, 'x')"
NOTE_NOT_UTF8 = "INSERT INTO ledger_touch VALUES (CAST(x'ff' AS TEXT), 'x', NULL)"
OTHER_TYPES = [
    ("complaint", "INSERT INTO complaint VALUES ('d', 'b', 'p', 1.5, 'x')"),
    ("complaint", "INSERT INTO complaint VALUES ('d', 'b', 'p', 1, x'41')"),
    ("api_key", "UPDATE api_key SET sealed = 'zz'"),
    ("ledger", "UPDATE ledger SET proof = 'zz' WHERE table_name = 'api_key'"),
    ("ledger_head", "UPDATE ledger_head SET revision = 'x'"),
    ("ledger_head", "UPDATE ledger_head SET sealed = 'zz'"),
    ("audit_head", "UPDATE audit_head SET mac = 'zz'"),
    ("audit", "UPDATE audit SET hash = 'zz'"),
    ("audit", "UPDATE audit SET hash = NULL, sealed = NULL WHERE seq = 3"),
    ("api_key", "UPDATE api_key SET expires_at = 'zz', revoked_at = NULL"),
    ("binding", "UPDATE binding SET version = 'zz', ended_at = NULL"),
    ("business", "UPDATE business SET version = NULL"),
]


# -- What is found, and what the row still grants


def faults(store: Acting) -> list[LedgerFault]:
    with one_moment(store.reader):
        return list(ledger_faults(store.reader, store.sealer))


def names(found: list[LedgerFault], row: Row) -> bool:
    return any(fault.table == row.table.name and fault.row_key == row.key for fault in found)


def refused(store: Acting, row: Row) -> bool:
    """Whether the row grants nothing: its proof does not hold, or it is missing."""
    there = store.reader.execute(f"SELECT 1 FROM {row.table.name} WHERE {row.where}", row.at).fetchone()
    try:
        require_proofs(store.reader, store.sealer, row.table.name, [row.key])
    except StoreError:
        return True
    return there is None
