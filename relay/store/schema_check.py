"""Checks that a store has exactly the tables, triggers and other objects that relay700 made.

Any other object could change rows within a transaction of relay700. So each transaction that proves rows begins with
this check, and `verify` and the running relay make it too. In a file the objects are compared with those of a new
store, by type, name, table and text: SQLite runs the text, whatever type and name say. Names that begin with "sqlite_"
are no exception. On a server the sealed head of the ledger vouches for the objects.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import cache
from hashlib import sha256
from typing import Any, Final, NamedTuple

from relay.errors import StoreError
from relay.store.connection import Connection, WritingConnection, one_moment
from relay.store.ledger_tables import POSTGRES, SQLITE, dialect_of, triggers
from relay.store.postgres.objects import HASH, NEVER_OURS, OBJECTS, TRIGGERS, VERSION
from relay.store.scripts import file_schema, schema_by, scripts_of

# Objects of a store in a file, and those that the connection itself has made.
_FILE: Final = """
SELECT type, name, tbl_name, sql FROM sqlite_master
UNION ALL SELECT type, name, tbl_name, sql FROM sqlite_temp_master
"""
_Object = tuple[Any, ...]  # a row of _FILE
SCHEMA: Final = "schema"  # stands among the tables of the ledger for the objects on a server
# ANALYZE makes these tables. The planner reads them: they decide how a statement finds rows, not which.
_OF_ANALYZE: Final[frozenset[_Object]] = frozenset(
    ("table", name, name, f"CREATE TABLE {name}({columns})")
    for name, columns in (("sqlite_stat1", "tbl,idx,stat"), ("sqlite_stat4", "tbl,idx,neq,nlt,ndlt,sample"))
)
_LEFT: Final = "a table, column, constraint, index, operator, type or function"


class SchemaRecord(NamedTuple):
    """The schema according to the sealed head of the ledger."""

    scripts: int  # how many the store has seen
    objects: bytes  # as `hash_on_server` gave it then; b"" for a file


def require_own_schema(connection: WritingConnection, vouched: Callable[[], SchemaRecord]) -> None:
    """At the begin of a write transaction: raise StoreError naming the objects that relay700 did not make.

    The result is cached for the connection until the schema changes. `vouched`: as for `foreign_objects`.
    """
    if connection.schema_seen == schema_version(connection):
        return
    connection.schema_seen = None
    with one_moment(connection):
        version = schema_version(connection)
        _parse_anew(connection)
        different = foreign_objects(connection, vouched())
    if different:
        raise StoreError(
            f"the store is not as relay700 made it, and nothing is written to it: {', '.join(different[:3])}."
            " Remove foreign objects (DROP …), or put a backup in its place"
        )
    connection.schema_seen = version


def require_same_schema(connection: WritingConnection) -> None:
    """At the end of a write transaction: raise StoreError if the schema has changed since its begin.

    On a server others may change it meanwhile. But an object that has come to a table that we write to stays there
    until we have committed, since its maker needs a lock on the table; and a function that was replaced is another row
    of the catalog, even when it is put back. In a file a transaction that writes keeps everybody else from writing.
    """
    if dialect_of(connection).is_server and connection.schema_seen != schema_version(connection):
        connection.schema_seen = None
        raise StoreError("the tables of the store were changed during a transaction, which was rolled back: try again")


def _parse_anew(connection: Connection) -> None:
    """Have SQLite parse the schema as this transaction sees it.

    A connection runs the triggers that it has parsed. It parses again only if the schema's version changes, which
    anyone can write: so the text that is checked must be the text that was parsed.
    """
    if not dialect_of(connection).is_server:
        connection.execute("PRAGMA writable_schema = RESET")


def foreign_objects(connection: Connection, vouched: SchemaRecord) -> list[str]:
    """The missing, changed and foreign objects, by kind and name. Empty for the store of a later version.

    The number of scripts that the store has seen counts only where the head of the ledger says the same.
    """
    schema = schema_by(connection)
    if (seen := schema.seen(connection)) != vouched.scripts:
        return [f"its number of scripts, {seen} instead of {vouched.scripts}"]
    if seen > len(scripts_of(schema)):
        return []
    return different_objects(connection) + _unvouched(connection, vouched)


def _unvouched(connection: Connection, vouched: SchemaRecord) -> list[str]:
    if is_left(connection, vouched):
        return []
    then = dict(connection.execute("SELECT row_key, proof FROM ledger WHERE table_name = ?", (SCHEMA,)).fetchall())
    now = objects_on_server(connection)
    return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name)) or [_LEFT]


def is_left(connection: Connection, vouched: SchemaRecord) -> bool:
    """Whether a server has the objects that relay700 left there. Triggers, rules, policies and views aside."""
    return not vouched.objects or hash_on_server(connection) == vouched.objects


def hash_on_server(connection: Connection) -> bytes:
    """A hash of 32 bytes over the definitions of all objects that a statement could use; b"" for a file."""
    if not dialect_of(connection).is_server:
        return b""
    (found,) = connection.execute(HASH).fetchone()
    return bytes(found)


def objects_on_server(connection: Connection) -> dict[str, bytes]:
    """Kind and name of each of these objects, with a hash of its definition; empty for a file."""
    if not dialect_of(connection).is_server:
        return {}
    return {name: sha256(str(made).encode()).digest() for name, made, _ in connection.execute(OBJECTS).fetchall()}


def require_empty_schema(connection: Connection) -> None:
    """Before a store is made on a server: raise StoreError naming the objects that its schema already has."""
    if not dialect_of(connection).is_server:
        return
    found = [name for name, _, is_here in connection.execute(OBJECTS).fetchall() if is_here]
    if found:
        raise StoreError(
            f"the schema of the database has objects that relay700 did not make: {', '.join(sorted(found)[:3])}."
            " Give relay700 a database, or a schema, of its own"
        )


def different_objects(connection: Connection) -> list[str]:
    """The objects in which the store differs from a new one of this version, by kind and name."""
    if dialect_of(connection).is_server:
        return _of_server(connection)
    found, wanted = _objects(connection), _own_objects()
    different = ((found - wanted) + (wanted - found)).keys() - _OF_ANALYZE
    return sorted({f"{kind} {name}" for kind, name, *_ in different})


def _of_server(connection: Connection) -> list[str]:
    found = Counter(
        (name, _plain(made), *rest, is_here) for name, made, *rest, is_here in connection.execute(TRIGGERS).fetchall()
    )
    wanted = Counter(
        (name, _plain(made), "O", _source(function), True) for name, (function, made) in triggers(POSTGRES).items()
    )
    different = {f"trigger {name}" for name, *_ in (found - wanted) + (wanted - found)}
    return sorted(different) + sorted(name for (name,) in connection.execute(NEVER_OURS).fetchall())


def schema_version(connection: Connection) -> object:
    """A value that changes with each change of the schema, and on a server with the settings of the session."""
    if dialect_of(connection).is_server:
        return connection.execute(VERSION).fetchone()
    return connection.execute("PRAGMA schema_version").fetchone(), schema_by(connection).seen(connection)


def _objects(connection: Connection) -> Counter[_Object]:
    return Counter(connection.execute(_FILE).fetchall())


@cache
def _own_objects() -> Counter[_Object]:
    """The objects of a new store."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
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
