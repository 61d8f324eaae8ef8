"""The scripts that make the tables of a store and change them, and how many of them a store has seen.

Relays of the version before serve with a store while its scripts are run, and go on with it afterwards. So from 008 (a
file) and 002 (a server) on, and tests/store/test_scripts.py holds each script to it:

- A script adds: a table, an index, a column that may be NULL or has a constant for its DEFAULT. It drops, renames,
  changes and fills nothing that was there. What the version before writes lacks the new columns.
- A script is one short transaction and changes one table: killed at any moment, it has not been. A new store is made in
  one transaction.
- On a server it waits 300 ms for its table and tries again, for a minute.
- There an index on a table that exists is made CONCURRENTLY, by a script of its own that first drops what a killed one
  has left.
- SQLite reads a STRICT table to its end for a new column or index, with the store locked: 1.2 s for a million records,
  which are spilled meanwhile. What grows without end gets a table beside it instead.
- What the version before cannot go on with comes a release late: first a release that reads both forms, then one that
  writes the new one. Its script raises `schema_least`, and relays that know fewer scripts refuse to start.

When scripts are run is the business of `relay.store.database`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Final, NamedTuple, Protocol

from relay.store.connection import Connection, ServerBusy
from relay.store.sealing import Sealer
from relay.store.server import Place, Server

TURN_LOCK: Final = 700_000_004  # of pg_try_advisory_lock: who runs scripts
TURN_S: Final = 60.0  # for another relay that runs them
LOOK_S: Final = 0.1
# A statement that waits for a table has all look-ups and records wait behind it: 300 ms delay calls, and fail none. For
# 1 s and a moment the server would end an autovacuum that is in the way, so that is tried now and then.
LOCK_MS: Final = 300
LOCK_PAST_AUTOVACUUM_MS: Final = 1_300
AUTOVACUUM_TRY: Final = 5  # each so many tries
_WORD: Final = " CONCURRENTLY"


class Script(NamedTuple):
    """One file."""

    name: str
    text: str

    @property
    def is_concurrent(self) -> bool:
        """It makes an index while others write, which a server does outside transactions alone."""
        return _WORD in self.text

    def statements(self) -> Iterator[str]:
        """One by one: `executescript` would commit the transaction they belong to."""
        statement = ""
        for line in self.text.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                yield statement
                statement = ""

    def for_empty_tables(self) -> Script:
        """Which nobody waits for."""
        return self._replace(text=self.text.replace(_WORD, ""))


class Schema(Protocol):
    """What a kind of store has seen of its scripts."""

    folder: str
    first: int  # stores of fewer were made before the first release
    ledger: int  # stores of fewer have no ledger

    def seen(self, connection: Connection) -> int: ...
    def note(self, connection: Connection, seen: int) -> None: ...
    def prepare(self, connection: Connection, sealer: Sealer) -> None: ...
    def take_turn(self, connection: Connection) -> None: ...
    def limit_waits(self, connection: Connection, tries: int) -> None: ...


class _FileSchema:
    folder = "schema"
    first = 2
    ledger = 10

    def seen(self, connection: Connection) -> int:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        return int(found)

    def note(self, connection: Connection, seen: int) -> None:
        connection.execute(f"PRAGMA user_version = {seen}")

    def prepare(self, connection: Connection, sealer: Sealer) -> None:
        """What the scripts call."""
        assert isinstance(connection, sqlite3.Connection)
        connection.create_function("seal", 2, sealer.seal)

    def take_turn(self, connection: Connection) -> None:
        """There is one writer at a time anyway."""

    def limit_waits(self, connection: Connection, tries: int) -> None:
        """A transaction has the store to itself once it has begun."""


class _ServerSchema:
    folder = "schema/postgresql"
    first = 1
    ledger = 4

    def seen(self, connection: Connection) -> int:
        (table,) = connection.execute("SELECT CAST(to_regclass('schema_version') AS text)").fetchone()
        if table is None:
            return 0
        (found,) = connection.execute("SELECT seen FROM schema_version").fetchone()
        return int(found)

    def note(self, connection: Connection, seen: int) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version (id bigint PRIMARY KEY, seen bigint NOT NULL)")
        connection.execute(
            "INSERT INTO schema_version (id, seen) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen",
            (seen,),
        )

    def prepare(self, connection: Connection, sealer: Sealer) -> None:
        """Its scripts call nothing of ours."""

    def take_turn(self, connection: Connection) -> None:
        """One relay after the other, until the connection is closed. Raises ServerBusy.

        By asking again: a statement that waited would itself be waited for by an index that is made concurrently.
        """
        until_s = time.monotonic() + TURN_S
        while not connection.execute(f"SELECT pg_try_advisory_lock({TURN_LOCK})").fetchone()[0]:
            if time.monotonic() > until_s:
                raise ServerBusy("another relay changes its tables: try again when that is done")
            time.sleep(LOOK_S)

    def limit_waits(self, connection: Connection, tries: int) -> None:
        """Of this transaction, for tables."""
        wait_ms = LOCK_MS if tries % AUTOVACUUM_TRY else LOCK_PAST_AUTOVACUUM_MS
        connection.execute(f"SET LOCAL lock_timeout = {wait_ms}")


def schema_of(place: Place) -> Schema:
    """Which kind of store that is."""
    return _ServerSchema() if isinstance(place, Server) else _FileSchema()


def file_schema() -> Schema:
    """That of a store in a file."""
    return _FileSchema()


def schema_by(connection: Connection) -> Schema:
    """That of the store which the connection is to."""
    return _FileSchema() if isinstance(connection, sqlite3.Connection) else _ServerSchema()


def is_newer(connection: Connection) -> bool:
    """Whether a later version has added to the store what this one does not know."""
    schema = schema_by(connection)
    return schema.seen(connection) > len(scripts_of(schema))


def least(connection: Connection) -> int:
    """How many scripts a relay must know to use a store that has seen more than we know."""
    (found,) = connection.execute("SELECT least FROM schema_least").fetchone()
    return int(found)


def scripts_of(schema: Schema) -> Sequence[Script]:
    """In their order."""
    found = resources.files("relay.store").joinpath(schema.folder).iterdir()
    files = sorted((file for file in found if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Script(file.name, file.read_text(encoding="utf-8")) for file in files]
