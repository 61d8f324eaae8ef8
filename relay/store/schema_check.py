"""Checks that a store has exactly the tables, indexes, triggers and views that its scripts and the ledger create.

An attacker with write access could make the database change rows by itself: by a trigger inside one of our
transactions, which would then prove the result; by an index that hides rows; or by a view in place of a table. So
nothing is written to a store with a foreign schema, and `verify` and the running relay name the differences.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import cache
from typing import Final

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.ledger_tables import FILE, SERVER, dialect_of, triggers
from relay.store.scripts import file_schema, is_newer, scripts_of

# Objects of a store in a file.
_FILE: Final = "SELECT type || ' ' || name, tbl_name || ' ' || coalesce(sql, '') FROM sqlite_master"
_SQLITES_OWN: Final = re.compile(r"\w+ sqlite_")
_TRIGGERS: Final = """
SELECT trigger.tgname, pg_get_triggerdef(trigger.oid), CAST(trigger.tgenabled AS text), function.prosrc
FROM pg_trigger AS trigger
JOIN pg_proc AS function ON function.oid = trigger.tgfoid
JOIN pg_class AS relation ON relation.oid = trigger.tgrelid
WHERE NOT trigger.tgisinternal AND relation.relnamespace = CAST(current_schema() AS regnamespace)
"""
_RULES: Final = """
SELECT 'rule ' || rulename FROM pg_rules WHERE schemaname = current_schema()
UNION ALL SELECT 'policy ' || policyname FROM pg_policies WHERE schemaname = current_schema()
UNION ALL SELECT 'view ' || viewname FROM pg_views WHERE schemaname = current_schema()
"""
# A value that changes with each change of a trigger, a rule or a policy on a server.
_VERSION: Final = """
SELECT (SELECT CAST(count(*) AS text) || ' ' || sum(CAST(CAST(xmin AS text) AS bigint)) FROM pg_trigger)
    || ' ' || (SELECT count(*) FROM pg_rewrite) || ' ' || (SELECT count(*) FROM pg_policy)
"""


def require_own_schema(connection: Connection) -> None:
    """At the begin of a write transaction: raise StoreError naming the objects that relay700 did not make.

    The result is cached for the connection until the schema changes.
    """
    version = _version(connection)
    if getattr(connection, "schema_seen", None) == version:
        return
    if different := foreign_objects(connection):
        raise StoreError(
            f"the store is not as relay700 made it, and nothing is written to it: {', '.join(different[:3])}."
            " Remove foreign objects (DROP …), or put a backup in its place"
        )
    if hasattr(connection, "schema_seen"):
        connection.schema_seen = version


def foreign_objects(connection: Connection) -> list[str]:
    """The missing, changed and foreign objects, by kind and name. Empty for the store of a later version."""
    if is_newer(connection):
        return []
    if dialect_of(connection).is_server:
        return _of_server(connection)
    found = _objects(connection)
    wanted = _own_objects()
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def _of_server(connection: Connection) -> list[str]:
    found = {name: (_plain(made), *rest) for name, made, *rest in connection.execute(_TRIGGERS).fetchall()}
    wanted = {name: (_plain(made), "O", _source(function)) for name, (function, made) in triggers(SERVER).items()}
    different = [f"trigger {name}" for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]
    return sorted(different + [name for (name,) in connection.execute(_RULES).fetchall()])


def _version(connection: Connection) -> object:
    statement = _VERSION if dialect_of(connection).is_server else "PRAGMA schema_version"
    return connection.execute(statement).fetchone()


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
        for (statement,) in triggers(FILE).values():
            connection.execute(statement)
        return _objects(connection)


def _plain(made: str) -> str:
    """The definition of a trigger, without the schema name and the quotes that the server adds."""
    return re.sub(r" ON [\w\"]+\.", " ON ", re.sub(r"FUNCTION [\w\"]+\.", "FUNCTION ", made)).replace('"', "")


def _source(function: str) -> str:
    """The body in a CREATE FUNCTION statement."""
    return function.split(" AS '", 1)[1].removesuffix("'").replace("''", "'")
