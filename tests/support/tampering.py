"""Tampering with every table and column of a store, by someone who has the database but not the key.

The deeds are generated from the schema, so a new table or column needs no case of its own. The thief knows how the
ledger works: after each deed no note of a trigger is left.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from relay.store.connection import DATABASE_ERRORS, Connection, PostgresServer, WritingConnection, savepoint
from relay.store.database import connect
from relay.store.ledger_tables import CHAINS, TABLES, dialect_of
from tests.support.ledger_attacks import any_type

Row = tuple[Any, ...]

# Words that some CHECK of the schema allows, and keys that some foreign key does.
_WORDS: Final = "suspended approved express other zh en active locked both a_to_b a b black white masked clear".split()
_KEYS: Final = ("acme", "bolt")


class Column(NamedTuple):
    name: str
    kind: str  # "text", "integer", "blob"; any other is an affair of the server alone
    is_key: bool


class Table(NamedTuple):
    name: str
    columns: tuple[Column, ...]

    @property
    def key(self) -> list[str]:
        return [column.name for column in self.columns if column.is_key]

    @property
    def content(self) -> list[str]:
        return [column.name for column in self.columns if not column.is_key]

    @property
    def names(self) -> str:
        return ", ".join(f'"{column.name}"' for column in self.columns)

    @property
    def where(self) -> str:
        return _equals(self.key, " AND ")

    def rows(self, connection: Connection) -> list[Row]:
        """All rows, by key."""
        order = ", ".join(f'"{name}"' for name in self.key)
        return connection.execute(f"SELECT {self.names} FROM {self.name} ORDER BY {order}").fetchall()

    def key_of(self, row: Row) -> Row:
        return tuple(value for column, value in zip(self.columns, row, strict=True) if column.is_key)

    def content_of(self, row: Row) -> Row:
        return tuple(value for column, value in zip(self.columns, row, strict=True) if not column.is_key)

    def with_content(self, row: Row, content: Row) -> Row:
        """The row with another content."""
        left = iter(content)
        return tuple(value if column.is_key else next(left) for column, value in zip(self.columns, row, strict=True))

    def insert(self, connection: Connection, row: Row) -> None:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {self.name} ({self.names}) VALUES ({marks})", row)

    def delete(self, connection: Connection, row: Row) -> None:
        connection.execute(f"DELETE FROM {self.name} WHERE {self.where}", self.key_of(row))

    def update(self, connection: Connection, row: Row, names: Sequence[str], values: Sequence[Any]) -> None:
        connection.execute(
            f"UPDATE {self.name} SET {_equals(names, ', ')} WHERE {self.where}", [*values, *self.key_of(row)]
        )


def _equals(names: Sequence[str], joined: str) -> str:
    return joined.join(f'"{name}" = ?' for name in names)


def tables_of(connection: Connection) -> list[Table]:
    """The tables of a store, and their columns; without SQLite's own, and the parts of tables on a server."""
    if isinstance(connection, sqlite3.Connection):
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
        return [
            Table(name, tuple(Column(row[1], row[2].lower(), row[5] > 0) for row in _columns_in_file(connection, name)))
            for (name,) in names
            if not name.startswith("sqlite_")
        ]
    found: dict[str, list[Column]] = {}
    for table, column, kind, is_key in connection.execute(_COLUMNS_ON_SERVER).fetchall():
        found.setdefault(table, []).append(Column(column, _KINDS.get(kind, kind), bool(is_key)))
    return [Table(name, tuple(columns)) for name, columns in found.items()]


def _columns_in_file(connection: Connection, table: str) -> list[Row]:
    return connection.execute(f"PRAGMA table_info({table})").fetchall()


_KINDS: Final = {"bigint": "integer", "integer": "integer", "bytea": "blob", "blob": "blob"}
_COLUMNS_ON_SERVER: Final = """
SELECT cls.relname, attname, CAST(CAST(atttypid AS regtype) AS text), attnum = ANY(coalesce(con.conkey, '{}'))
FROM pg_class AS cls JOIN pg_attribute ON attrelid = cls.oid AND attnum > 0 AND NOT attisdropped
LEFT JOIN pg_constraint AS con ON con.conrelid = cls.oid AND con.contype = 'p'
WHERE cls.relnamespace = CAST('public' AS regnamespace) AND cls.relkind IN ('r', 'p') AND NOT cls.relispartition
ORDER BY cls.relname, attnum
"""


# -- The thief


class Thief(Protocol):
    """Someone with a connection to a copy of the store, which `undo` makes as it was."""

    connection: WritingConnection

    def begin(self) -> None: ...
    def undo(self) -> None: ...


class ThiefOfFile:
    """A copy in memory."""

    def __init__(self, path: str) -> None:
        self._whole = sqlite3.connect(path)
        self.connection: Any = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute("PRAGMA ignore_check_constraints = ON")
        self.undo()

    def begin(self) -> None: ...

    def undo(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        self._whole.backup(self.connection)

    def close(self) -> None:
        self.connection.close()
        self._whole.close()


class ThiefOfServer:
    """A transaction that is rolled back."""

    def __init__(self, place: PostgresServer) -> None:
        self.connection = connect(place)

    def begin(self) -> None:
        self.connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")

    def undo(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def close(self) -> None:
        self.connection.close()


# -- Deeds


class Tampering(NamedTuple):
    """One deed, on a column or on rows of a table."""

    deed: str
    table: str
    column: str  # "" if the deed is on whole rows
    do: Callable[[Connection], None]  # raises one of DATABASE_ERRORS if the database does not allow it

    def __str__(self) -> str:
        return f"{self.table} {self.column}: {self.deed}" if self.column else f"{self.table}: {self.deed}"


def without_notes(connection: Connection) -> None:
    """Delete what the triggers have noted."""
    connection.execute("DELETE FROM ledger_touch")
    for chain in CHAINS:
        connection.execute("DELETE FROM ledger WHERE table_name = ?", (chain,))


def on_columns(connection: Connection, table: Table) -> Iterator[Tampering]:
    """Each column of one row that has a value there gets another value, none, and one of another type."""
    rows = table.rows(connection)
    in_file = isinstance(connection, sqlite3.Connection)
    for place, column in enumerate(table.columns):
        row = next((row for row in rows if row[place] is not None), rows[0])
        deeds = {"altered": partial(alter, table=table, row=row, place=place)}
        if row[place] is not None:
            deeds["emptied"] = partial(_force if in_file else put_value, table=table, row=row, place=place, value=None)
        if in_file:
            value = _OF_OTHER_TYPE[column.kind]
            deeds["of another type"] = partial(_force, table=table, row=row, place=place, value=value)
        yield from (Tampering(deed, table.name, column.name, do) for deed, do in deeds.items())


_OF_OTHER_TYPE: Final = {"integer": "x", "blob": "zz", "text": b"\x01"}


def put_value(connection: Connection, table: Table, row: Row, place: int, value: Any) -> None:
    table.update(connection, row, [table.columns[place].name], [value])


def _force(connection: Any, table: Table, row: Row, place: int, value: Any) -> None:
    """Put what the schema of a file does not allow."""
    with any_type(connection, table.name):
        put_value(connection, table, row, place, value)


def alter(connection: Connection, table: Table, row: Row, place: int) -> None:
    """Give a column the first other value of its type that the schema allows."""
    *tried, last = others(table.columns[place].kind, row[place])
    for value in tried:
        with suppress(*DATABASE_ERRORS), savepoint(connection):
            return put_value(connection, table, row, place, value)
    return put_value(connection, table, row, place, last)


def others(kind: str, value: Any) -> list[Any]:
    """Other values, in the order in which they are tried."""
    if kind == "integer":
        return [5, 6] if value is None else [value + 1, value - 1]
    if kind == "blob":
        return [b"\x07"] if not value else [bytes([*value[:-1], value[-1] ^ 1])]
    if kind == "text":
        return [f"{value or ''}1", *(word for word in (*_WORDS, *_KEYS) if word != value)]
    return [f"{value} 1"] if isinstance(value, str) else [_later(value)]


def _later(value: Any) -> Any:
    """Of a type of the server: an array, or a time."""
    if isinstance(value, list):
        return [*value[:-1], value[-1] + 1]
    return "2026-01-01 00:00:00+00" if value is None else value.replace(year=value.year + 1)


def on_rows(connection: Connection, table: Table) -> Iterator[Tampering]:
    """Rows are deleted, added, and exchanged; of a covered table also with the proofs that belong to them."""
    rows = table.rows(connection)
    yield Tampering("row deleted", table.name, "", partial(_delete_one, table=table, rows=rows))
    yield Tampering("row added", table.name, "", partial(_add_copy, table=table, row=rows[0]))
    yield Tampering("all rows deleted", table.name, "", partial(_delete_all, table=table, rows=rows))
    pair = _differing(table, rows)
    if pair:
        yield Tampering("rows swapped", table.name, "", partial(_swap, table=table, pair=pair))
    if table.name not in TABLES:
        return
    yield Tampering(
        "row deleted with its proof", table.name, "", partial(_delete_one, table=table, rows=rows, proof=True)
    )
    yield Tampering(
        "row added with another's proof", table.name, "", partial(_add_copy, table=table, row=rows[0], proof=True)
    )
    yield Tampering("proof deleted", table.name, "", partial(_without_proof, table=table, row=rows[0]))
    if pair:
        yield Tampering(
            "rows swapped with their proofs", table.name, "", partial(_swap, table=table, pair=pair, proof=True)
        )


def _delete_one(connection: Connection, table: Table, rows: list[Row], *, proof: bool = False) -> None:
    """The first that no foreign key keeps."""
    for row in rows:
        with suppress(*DATABASE_ERRORS), savepoint(connection):
            if proof:
                _without_proof(connection, table, row)
            return table.delete(connection, row)
    return table.delete(connection, rows[-1])


def _delete_all(connection: Connection, table: Table, rows: list[Row]) -> None:
    for row in rows:
        with suppress(*DATABASE_ERRORS), savepoint(connection):
            table.delete(connection, row)


def _add_copy(connection: Connection, table: Table, row: Row, *, proof: bool = False) -> None:
    copy = _copied(connection, table, row)
    if proof:
        old, new = row_key(connection, table, row), row_key(connection, table, copy)
        (found,) = connection.execute(_PROOF, (table.name, old)).fetchone()
        connection.execute(_PUT_PROOF, (table.name, new, found))


def _copied(connection: Connection, table: Table, row: Row) -> Row:
    """Insert the first copy that the schema allows."""
    *tried, last = copies(table, row)
    for copy in tried:
        with suppress(*DATABASE_ERRORS), savepoint(connection):
            table.insert(connection, copy)
            return copy
    table.insert(connection, last)
    return last


def copies(table: Table, row: Row) -> Iterator[Row]:
    """Rows that differ in one column of the key; first in the last one."""
    for place in reversed(range(len(row))):
        if table.columns[place].is_key:
            for value in others(table.columns[place].kind, row[place]):
                yield (*row[:place], value, *row[place + 1 :])


def _differing(table: Table, rows: list[Row]) -> tuple[Row, Row] | None:
    """The first two rows with different contents, of those that are proven if the table is covered."""
    names = [column.name for column in TABLES[table.name].columns] if table.name in TABLES else table.content
    places = [place for place, column in enumerate(table.columns) if column.name in names and not column.is_key]

    def proven_of(row: Row) -> list[Any]:
        return [row[place] for place in places]

    return next(((one, other) for one in rows for other in rows if proven_of(one) != proven_of(other)), None)


def _swap(connection: Connection, table: Table, pair: tuple[Row, Row], *, proof: bool = False) -> None:
    """Exchange the contents of two rows."""
    one, other = pair
    try:
        with savepoint(connection):
            table.update(connection, one, table.content, table.content_of(other))
            table.update(connection, other, table.content, table.content_of(one))
    except DATABASE_ERRORS:  # one of them is unique
        table.delete(connection, one)
        table.delete(connection, other)
        table.insert(connection, table.with_content(one, table.content_of(other)))
        table.insert(connection, table.with_content(other, table.content_of(one)))
    if proof:
        keys = [row_key(connection, table, row) for row in (one, other)]
        found = [connection.execute(_PROOF, (table.name, key)).fetchone()[0] for key in keys]
        connection.executemany(_PUT_PROOF, [(table.name, *pair) for pair in zip(keys, reversed(found), strict=True)])


# -- Proofs

_PROOF: Final = "SELECT proof FROM ledger WHERE table_name = ? AND row_key = ?"
_PUT_PROOF: Final = """
INSERT INTO ledger (table_name, row_key, proof) VALUES (?, ?, ?)
ON CONFLICT (table_name, row_key) DO UPDATE SET proof = excluded.proof
"""


def row_key(connection: Connection, table: Table, row: Row) -> str:
    """The key of a row in the ledger."""
    declared = TABLES[table.name]
    query = f"SELECT {dialect_of(connection).row_key(declared)} FROM {table.name} WHERE {table.where}"
    (key,) = connection.execute(query, table.key_of(row)).fetchone()
    return str(key)


def _without_proof(connection: Connection, table: Table, row: Row) -> None:
    key = row_key(connection, table, row)
    connection.execute("DELETE FROM ledger WHERE table_name = ? AND row_key = ?", (table.name, key))


class Proven(NamedTuple):
    """A row as it was at some time, and its proof of then."""

    table: Table
    row: Row
    key: str
    proof: bytes

    def put(self, connection: Connection) -> None:
        """In place of the row that has its key, if there is one."""
        there = connection.execute(
            f"SELECT 1 FROM {self.table.name} WHERE {self.table.where}", self.table.key_of(self.row)
        ).fetchone()
        if there is None:
            self.table.insert(connection, self.row)
        elif self.table.content:
            self.table.update(connection, self.row, self.table.content, self.table.content_of(self.row))
        connection.execute(_PUT_PROOF, (self.table.name, self.key, self.proof))


def proven(connection: Connection, table: Table, row: Row) -> Proven:
    key = row_key(connection, table, row)
    (found,) = connection.execute(_PROOF, (table.name, key)).fetchone()
    return Proven(table, row, key, found)
