"""How the ledger of a store begins, and its triggers, which note what is changed.

A store that is new, or was made before there was a ledger, is vouched for as it is, once. Triggers that are missing in
any other one were removed by somebody: they are put back, and the audit log says so. Where that fails, as in a store
that takes nothing or that lacks a table, they are missing still, as `verify` and the running relay say.
"""

from __future__ import annotations

import re
from typing import Final

from relay.errors import StoreError
from relay.store.audit import Entry, add_entry
from relay.store.connection import DATABASE_ERRORS, Connection, transaction
from relay.store.ledger import sign_all
from relay.store.ledger_tables import dialect_of, triggers
from relay.store.scripts import is_newer
from relay.store.sealing import Sealer

_FILE: Final = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'ledger\\_%' ESCAPE '\\'"
_SERVER: Final = """
SELECT trigger.tgname, pg_get_triggerdef(trigger.oid), function.prosrc, trigger.tgenabled
FROM pg_trigger AS trigger JOIN pg_proc AS function ON function.oid = trigger.tgfoid
WHERE trigger.tgname LIKE 'ledger\\_%' AND NOT trigger.tgisinternal
    AND pg_table_is_visible(trigger.tgrelid)
"""
_HEADS: Final = "SELECT count(*) FROM ledger_head"


def open_ledger(connection: Connection, sealer: Sealer, now_ms: int, *, changed: bool, may_begin: bool) -> None:
    """Puts the triggers in place. `changed`: scripts were run just now, so others are expected.

    `may_begin`: the store had no ledger before them. Raises StoreError where it had one, and it is gone.
    """
    if not displaced_triggers(connection) and _has_head(connection):
        return
    is_begun = _has_head(connection)
    if not is_begun and not may_begin:
        raise StoreError("the head of the ledger was removed: put a backup of the store in its place")
    try:
        with transaction(connection):
            _repair(connection, sealer, now_ms, changed=changed)
    except DATABASE_ERRORS:
        if not is_begun or changed:
            raise


def _repair(connection: Connection, sealer: Sealer, now_ms: int, *, changed: bool) -> None:
    displaced = displaced_triggers(connection)  # another process may have been faster
    _put_back(connection, displaced)
    if not _has_head(connection):
        sign_all(connection, sealer)
    elif displaced and not changed:
        what = f"{len(displaced)} triggers, {displaced[0]} first"
        add_entry(connection, sealer, Entry(now_ms, "relay", "ledger.fault", what, None, "removed or changed", {}))


def displaced_triggers(connection: Connection) -> list[str]:
    """Those that are not as they were made, by name: missing, changed, disabled, or nobody's.

    A later version makes its own, which this one cannot judge.
    """
    if is_newer(connection):
        return []
    dialect = dialect_of(connection)
    if dialect.is_server:
        found = {name: (_plain(made), source, enabled) for name, made, source, enabled in connection.execute(_SERVER)}
        wanted = {name: (_plain(made), _source(function), "O") for name, (function, made) in triggers(dialect).items()}
        return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    made_here = dict(connection.execute(_FILE).fetchall())
    statements = {name: sql for name, (sql,) in triggers(dialect).items()}
    return sorted(name for name in made_here.keys() | statements.keys() if made_here.get(name) != statements.get(name))


def _put_back(connection: Connection, names: list[str]) -> None:
    wanted = triggers(dialect_of(connection))
    for name in names:
        _drop(connection, name)
        for statement in wanted.get(name, ()):
            connection.execute(statement)


def _drop(connection: Connection, name: str) -> None:
    if not dialect_of(connection).is_server:
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
        return
    table = connection.execute(
        "SELECT CAST(CAST(tgrelid AS regclass) AS text) FROM pg_trigger"
        " WHERE tgname = ? AND pg_table_is_visible(tgrelid)",
        (name,),
    ).fetchone()
    if table is not None:
        connection.execute(f"DROP TRIGGER {name} ON {table[0]}")


def _has_head(connection: Connection) -> bool:
    return bool(connection.execute(_HEADS).fetchone() != (0,))


def _plain(statement: str) -> str:
    """Without what a server adds when it says how a trigger was made."""
    return re.sub(r" ON [\w\"]+\.", " ON ", re.sub(r"FUNCTION [\w\"]+\.", "FUNCTION ", statement)).replace('"', "")


def _source(function: str) -> str:
    """The body of a statement that makes a function."""
    return function.split(" AS '", 1)[1].removesuffix("'").replace("''", "'")
