"""The scripts that create and change the tables of a store, and the number of scripts that a store has seen.

Relays of the previous version use the store while scripts run, and afterwards. So these rules hold from script 008 (a
file) and 002 (a server) on; tests/store/test_scripts.py enforces them:

- A script adds a table, an index, or a column that is nullable or has a constant DEFAULT. It drops, renames, changes
  and fills nothing that existed. Rows written by the previous version lack the new columns.
- A script is one short transaction and changes one table; if it is killed, nothing has changed. A new store is created
  in one transaction.
- On a server a script waits 300 ms for its table and tries again, for a minute.
- On a server an index on an existing table is created CONCURRENTLY, in a separate script that first drops the remains
  of a killed run.
- SQLite reads a whole STRICT table for a new column or index, with the store locked: 1.2 s for a million records;
  meanwhile calls write to the overflow log. For a table that grows without bound, add a second table instead.
- A form that the previous version cannot read takes two releases: the first reads both forms, the second writes the
  new one. Its script raises `schema_least`, and relays that know fewer scripts refuse to start.

`relay.store.database` decides when scripts run.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cache
from importlib import resources
from typing import Final, NamedTuple, Protocol

from relay.errors import StoreError
from relay.store.connection import Connection, Place, PostgresBusy, PostgresServer
from relay.store.ledger_tables import POSTGRES, SQLITE, dialect_of, triggers
from relay.store.sealing.sealer import Sealer

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
    first: int  # stores that have seen fewer scripts are older than the first release
    ledger: int  # stores that have seen fewer scripts have no ledger

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
        """Define the SQL functions that scripts call."""
        assert isinstance(connection, sqlite3.Connection)
        connection.create_function("seal", 2, sealer.seal)

    def take_turn(self, connection: Connection) -> None:
        """SQLite has one writer at a time anyway."""

    def limit_waits(self, connection: Connection, tries: int) -> None:
        """A write transaction of SQLite waits for no table."""


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
        """Scripts of a server call no functions of ours."""

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


def least(connection: Connection) -> int:
    """The number of scripts that a relay must know to use the store."""
    (found,) = connection.execute("SELECT least FROM schema_least").fetchone()
    return int(found)


def scripts_of(schema: Schema) -> Sequence[Script]:
    """All scripts, in order."""
    found = resources.files("relay.store").joinpath(schema.folder).iterdir()
    files = sorted((file for file in found if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Script(file.name, file.read_text(encoding="utf-8")) for file in files]


# -- Checks that a store has exactly the tables

# Objects of a store in a file.
_FILE: Final = "SELECT type || ' ' || name, tbl_name || ' ' || coalesce(sql, '') FROM sqlite_master"
_LEFT: Final = "a table, column, constraint, index, operator or function"
_SQLITES_OWN: Final = re.compile(r"\w+ sqlite_")
_HERE: Final = "CAST(current_schema() AS regnamespace)"
_TRIGGERS: Final = f"""
SELECT trigger.tgname, pg_get_triggerdef(trigger.oid), CAST(trigger.tgenabled AS text), function.prosrc
FROM pg_trigger AS trigger
JOIN pg_proc AS function ON function.oid = trigger.tgfoid
JOIN pg_class AS relation ON relation.oid = trigger.tgrelid
WHERE NOT trigger.tgisinternal AND relation.relnamespace = {_HERE}
"""
_RULES: Final = """
SELECT 'rule ' || rulename FROM pg_rules WHERE schemaname = current_schema()
UNION ALL SELECT 'policy ' || policyname FROM pg_policies WHERE schemaname = current_schema()
UNION ALL SELECT 'view ' || viewname FROM pg_views WHERE schemaname = current_schema()
"""
# A value that changes with each change of an object on a server. Its own objects have smaller oids.
_MADE: Final = 16_384
_CATALOGS: Final = (
    *("pg_class", "pg_proc", "pg_trigger", "pg_rewrite", "pg_policy", "pg_attrdef", "pg_constraint"),
    *("pg_operator", "pg_cast"),
)
_VERSION: Final = 'SELECT md5(string_agg(what, chr(32) ORDER BY what COLLATE "C")) FROM ({}) AS objects'.format(
    " UNION ALL ".join(
        f"SELECT '{name} ' || oid || ' ' || CAST(xmin AS text) AS what FROM {name} WHERE oid >= {_MADE}"
        for name in _CATALOGS
    )
)
_OWN: Final = f"relnamespace = {_HERE} AND relkind NOT IN ('i', 'I') AND NOT relispartition"  # captures: one for a day
# All that a statement of ours may call or meet on a server, beside triggers and rules: one hash. It cannot be compared
# with a new store's, as in a file: each version of the server writes expressions in another way. Of the indexes those
# that call something that is not the server's own: a later version may be building others CONCURRENTLY.
_ON_SERVER: Final = f"""
SELECT sha256(convert_to(string_agg(what, ' ' ORDER BY what COLLATE "C"), 'UTF8')) FROM (
    SELECT 'function ' || pg_get_functiondef(oid) AS what FROM pg_proc
    WHERE pronamespace = {_HERE} AND prokind IN ('f', 'p')
    UNION ALL SELECT 'aggregate ' || proname FROM pg_proc WHERE pronamespace = {_HERE} AND prokind NOT IN ('f', 'p')
    UNION ALL SELECT 'operator ' || oprname || ' ' || CAST(oprcode AS text) FROM pg_operator
    WHERE oprnamespace = {_HERE}
    UNION ALL SELECT concat_ws(' ', 'relation', relname, relkind, relrowsecurity, relforcerowsecurity) FROM pg_class
    WHERE {_OWN}
    UNION ALL SELECT concat_ws(' ', 'column', relname, attname, format_type(atttypid, atttypmod), attnotnull,
        attgenerated, attidentity, pg_get_expr(adbin, adrelid))
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE {_OWN} AND attnum > 0 AND NOT attisdropped
    UNION ALL SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = {_HERE} AND contype <> 't'
        AND NOT EXISTS (SELECT 1 FROM pg_class WHERE oid = conrelid AND relispartition)
    UNION ALL SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relnamespace = {_HERE} AND EXISTS (
        SELECT 1 FROM pg_depend
        WHERE classid = CAST('pg_class' AS regclass) AND objid = indexrelid AND refobjid >= {_MADE} AND refclassid
            IN (CAST('pg_proc' AS regclass), CAST('pg_operator' AS regclass), CAST('pg_opclass' AS regclass))
    )
) AS objects
"""


class Vouched(NamedTuple):
    """What the sealed head of the ledger says of the schema."""

    scripts: int  # how many the store has seen
    objects: bytes  # as `objects_on_server` gave them then; b"" for a file


def require_own_schema(connection: Connection, vouched: Callable[[], Vouched]) -> None:
    """At the begin of a write transaction: raise StoreError naming the objects that relay700 did not make.

    The result is cached for the connection until the schema changes. `vouched`: as for `foreign_objects`.
    """
    version = _version(connection)
    if getattr(connection, "schema_seen", None) == version:
        return
    if different := foreign_objects(connection, vouched()):
        raise StoreError(
            f"the store is not as relay700 made it, and nothing is written to it: {', '.join(different[:3])}."
            " Remove foreign objects (DROP …), or put a backup in its place"
        )
    if hasattr(connection, "schema_seen"):
        connection.schema_seen = version


def foreign_objects(connection: Connection, vouched: Vouched) -> list[str]:
    """The missing, changed and foreign objects, by kind and name. Empty for the store of a later version.

    The number of scripts that the store has seen counts only where the head of the ledger says the same.
    """
    schema = schema_by(connection)
    if (seen := schema.seen(connection)) != vouched.scripts:
        return [f"its number of scripts, {seen} instead of {vouched.scripts}"]
    if seen > len(scripts_of(schema)):
        return []
    return different_objects(connection) + ([] if is_left(connection, vouched) else [_LEFT])


def is_left(connection: Connection, vouched: Vouched) -> bool:
    """Whether a server has the objects that relay700 left there. Triggers and rules aside."""
    return not vouched.objects or objects_on_server(connection) == vouched.objects


def objects_on_server(connection: Connection) -> bytes:
    """A hash of 32 bytes over the definitions of all objects of the schema; b"" for a file."""
    if not dialect_of(connection).is_server:
        return b""
    (found,) = connection.execute(_ON_SERVER).fetchone()
    return bytes(found)


def different_objects(connection: Connection) -> list[str]:
    """The objects in which the store differs from a new one of this version, by kind and name."""
    if dialect_of(connection).is_server:
        return _of_server(connection)
    found = _objects(connection)
    wanted = _own_objects()
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def _of_server(connection: Connection) -> list[str]:
    found = {name: (_plain(made), *rest) for name, made, *rest in connection.execute(_TRIGGERS).fetchall()}
    wanted = {name: (_plain(made), "O", _source(function)) for name, (function, made) in triggers(POSTGRES).items()}
    different = [f"trigger {name}" for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]
    return sorted(different + [name for (name,) in connection.execute(_RULES).fetchall()])


def _version(connection: Connection) -> object:
    statement = _VERSION if dialect_of(connection).is_server else "PRAGMA schema_version"
    return connection.execute(statement).fetchone(), schema_by(connection).seen(connection)


def _objects(connection: Connection) -> dict[str, str]:
    rows = connection.execute(_FILE).fetchall()
    return {name: made for name, made in rows if not _SQLITES_OWN.match(name)}


@cache
def _own_objects() -> dict[str, str]:
    """The objects of a new store."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.create_function("seal", 2, lambda text, context: text)
        for script in scripts_of(file_schema()):
            for statement in script.for_empty_tables().statements():
                connection.execute(statement)
        for (statement,) in triggers(SQLITE).values():
            connection.execute(statement)
        return _objects(connection)


def _plain(made: str) -> str:
    """The definition of a trigger, without the schema name and the quotes that the server adds."""
    return re.sub(r" ON [\w\"]+\.", " ON ", re.sub(r"FUNCTION [\w\"]+\.", "FUNCTION ", made)).replace('"', "")


def _source(function: str) -> str:
    """The body in a CREATE FUNCTION statement."""
    return function.split(" AS '", 1)[1].removesuffix("'").replace("''", "'")
