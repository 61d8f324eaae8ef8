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
from typing import Any, Final, NamedTuple

from relay.errors import StoreError
from relay.store.connection import Connection, one_moment
from relay.store.ledger_tables import POSTGRES, SQLITE, dialect_of, triggers
from relay.store.scripts import file_schema, schema_by, scripts_of

# Objects of a store in a file, and those that the connection itself has made.
_FILE: Final = """
SELECT type, name, tbl_name, sql FROM sqlite_master
UNION ALL SELECT type, name, tbl_name, sql FROM sqlite_temp_master
"""
_Object = tuple[Any, ...]  # a row of _FILE
# ANALYZE makes these tables. The planner reads them: they decide how a statement finds rows, not which.
_OF_ANALYZE: Final[frozenset[_Object]] = frozenset(
    ("table", name, name, f"CREATE TABLE {name}({columns})")
    for name, columns in (("sqlite_stat1", "tbl,idx,stat"), ("sqlite_stat4", "tbl,idx,neq,nlt,ndlt,sample"))
)
_LEFT: Final = "a table, column, constraint, index, operator or function"
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
    if getattr(connection, "schema_seen", None) == _version(connection):
        return
    if hasattr(connection, "schema_seen"):
        connection.schema_seen = None
    with one_moment(connection):
        version = _version(connection)
        _parse_anew(connection)
        different = foreign_objects(connection, vouched())
    if different:
        raise StoreError(
            f"the store is not as relay700 made it, and nothing is written to it: {', '.join(different[:3])}."
            " Remove foreign objects (DROP …), or put a backup in its place"
        )
    if hasattr(connection, "schema_seen"):
        connection.schema_seen = version


def _parse_anew(connection: Connection) -> None:
    """Have SQLite parse the schema as this transaction sees it.

    A connection runs the triggers that it has parsed. It parses again only if the schema's version changes, which
    anyone can write: so the text that is checked must be the text that was parsed.
    """
    if not dialect_of(connection).is_server:
        connection.execute("PRAGMA writable_schema = RESET")


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
    found, wanted = _objects(connection), _own_objects()
    different = ((found - wanted) + (wanted - found)).keys() - _OF_ANALYZE
    return sorted({f"{kind} {name}" for kind, name, *_ in different})


def _of_server(connection: Connection) -> list[str]:
    found = {name: (_plain(made), *rest) for name, made, *rest in connection.execute(_TRIGGERS).fetchall()}
    wanted = {name: (_plain(made), "O", _source(function)) for name, (function, made) in triggers(POSTGRES).items()}
    different = [f"trigger {name}" for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]
    return sorted(different + [name for (name,) in connection.execute(_RULES).fetchall()])


def _version(connection: Connection) -> object:
    statement = _VERSION if dialect_of(connection).is_server else "PRAGMA schema_version"
    return connection.execute(statement).fetchone(), schema_by(connection).seen(connection)


def _objects(connection: Connection) -> Counter[_Object]:
    return Counter(connection.execute(_FILE).fetchall())


@cache
def _own_objects() -> Counter[_Object]:
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
