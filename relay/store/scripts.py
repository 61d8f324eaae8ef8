"""The scripts that create and change the tables of a store, and the number of scripts that a store has seen.

The first script makes all tables. Relays of the previous version use the store while the later ones run, and
afterwards. So these follow rules, which tests/store/test_scripts.py enforces:

- A script adds a table, an index, or a column that is nullable or has a constant DEFAULT. It drops, renames, changes
  and fills nothing that existed. Rows written by the previous version lack the new columns.
- A script is one short transaction and changes one table; if it is killed, nothing has changed. A new store is created
  in one transaction.
- On a server a script waits 300 ms for its table and tries again, for a minute.
- On a server an index on an existing table is created CONCURRENTLY, in a separate script that first drops the remains
  of a killed run. It has columns only, and at most `WHERE column IS NOT NULL`: relays take other indexes for foreign.
- SQLite reads a whole STRICT table for a new column or index, with the store locked: 1.2 s for a million records;
  meanwhile calls write to the overflow log. For a table that grows without bound, add a second table instead.
- A form that the previous version cannot read takes two releases: the first reads both forms, the second writes the
  new one. Its script raises `schema_least`, and relays that know fewer scripts refuse to start.

`relay.store.database` decides when scripts run.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Final, NamedTuple, Protocol

from relay.errors import StoreError
from relay.store.connection import Connection, Place, PostgresBusy, PostgresServer

TURN_LOCK: Final = 700_000_004  # for pg_try_advisory_lock: the right to run scripts
TURN_S: Final = 60.0  # longest wait for another relay that runs scripts
LOOK_S: Final = 0.1
# All look-ups and records queue behind a statement that waits for a table: 300 ms delay calls, but fail none. After
# 1 s the server cancels an autovacuum that blocks the statement, so every fifth try waits longer than that.
LOCK_MS: Final = 300
LOCK_PAST_AUTOVACUUM_MS: Final = 1_300
AUTOVACUUM_TRY: Final = 5  # tries
_WORD: Final = " CONCURRENTLY"


class Script(NamedTuple):
    """One script file."""

    name: str
    text: str

    @property
    def is_concurrent(self) -> bool:
        """Whether it creates an index CONCURRENTLY, which is not possible inside a transaction."""
        return _WORD in self.text

    def statements(self) -> Iterator[str]:
        """The single statements: `executescript` would commit their transaction."""
        statement = ""
        for line in self.text.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""

    def for_empty_tables(self) -> Script:
        """The script without CONCURRENTLY."""
        return self._replace(text=self.text.replace(_WORD, ""))


class Schema(Protocol):
    """The scripts of one kind of store, and how a store counts them."""

    folder: str

    def seen(self, connection: Connection) -> int: ...
    def note(self, connection: Connection, seen: int) -> None: ...
    def take_turn(self, connection: Connection) -> None: ...
    def limit_waits(self, connection: Connection, tries: int) -> None: ...


class _FileSchema:
    folder = "schema"

    def seen(self, connection: Connection) -> int:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        return int(found)

    def note(self, connection: Connection, seen: int) -> None:
        connection.execute(f"PRAGMA user_version = {seen}")

    def take_turn(self, connection: Connection) -> None:
        """SQLite has one writer at a time anyway."""

    def limit_waits(self, connection: Connection, tries: int) -> None:
        """A write transaction of SQLite waits for no table."""


class _ServerSchema:
    folder = "schema/postgresql"

    def seen(self, connection: Connection) -> int:
        (table,) = connection.execute("SELECT CAST(to_regclass('schema_version') AS text)").fetchone()
        if table is None:
            return 0
        row = connection.execute("SELECT seen FROM schema_version WHERE id = 1").fetchone()
        if row is None:
            raise StoreError("the table schema_version is empty: put a backup of the store in its place")
        return int(row[0])

    def note(self, connection: Connection, seen: int) -> None:
        connection.execute(
            "INSERT INTO schema_version (id, seen) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen",
            (seen,),
        )

    def take_turn(self, connection: Connection) -> None:
        """Take the right to run scripts, until the connection is closed. Raises PostgresBusy.

        By polling: CREATE INDEX CONCURRENTLY would wait for a statement that blocks on the lock.
        """
        until_s = time.monotonic() + TURN_S
        while not connection.execute(f"SELECT pg_try_advisory_lock({TURN_LOCK})").fetchone()[0]:
            if time.monotonic() > until_s:
                raise PostgresBusy("another relay is changing the tables: try again when it is done")
            time.sleep(LOOK_S)

    def limit_waits(self, connection: Connection, tries: int) -> None:
        """Set how long this transaction waits for a table."""
        wait_ms = LOCK_MS if tries % AUTOVACUUM_TRY else LOCK_PAST_AUTOVACUUM_MS
        connection.execute(f"SET LOCAL lock_timeout = {wait_ms}")


def schema_of(place: Place) -> Schema:
    """The schema of the store at a place."""
    return _ServerSchema() if isinstance(place, PostgresServer) else _FileSchema()


def file_schema() -> Schema:
    """The schema of a store in a file."""
    return _FileSchema()


def schema_by(connection: Connection) -> Schema:
    """The schema of the store behind a connection."""
    return _FileSchema() if isinstance(connection, sqlite3.Connection) else _ServerSchema()


def is_newer(connection: Connection) -> bool:
    """Whether a later version has run scripts on the store that this one does not know."""
    schema = schema_by(connection)
    return schema.seen(connection) > len(scripts_of(schema))


def least_scripts(connection: Connection) -> int:
    """The number of scripts that a relay must know to use the store."""
    (found,) = connection.execute("SELECT least FROM schema_least").fetchone()
    return int(found)


def scripts_of(schema: Schema) -> Sequence[Script]:
    """All scripts, in order."""
    return _scripts_in(schema.folder)


@cache
def _scripts_in(folder: str) -> tuple[Script, ...]:
    """The watch of the schema asks for them every few seconds."""
    found = resources.files("relay.store").joinpath(folder).iterdir()
    files = sorted((file for file in found if file.name.endswith(".sql")), key=lambda file: file.name)
    return tuple(Script(file.name, file.read_text(encoding="utf-8")) for file in files)
