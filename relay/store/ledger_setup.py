"""Creates the ledger of a store, and its triggers, which note changed rows.

A store that is new, or older than the ledger, is signed once as it is. In any other store, missing or foreign triggers
are a manipulation: they are repaired, with an entry in the audit log. If that fails, because the store accepts no
writes or lacks a table, they stay, and `verify` and the running relay report them.
"""

from __future__ import annotations

from relay.errors import StoreError
from relay.store.audit import Entry, add_entry
from relay.store.chain import AUDIT, EMPTY, RECORDS, stored_head
from relay.store.connection import DATABASE_ERRORS, Connection, transaction
from relay.store.ledger import read_ledger_head, sign_all, write_ledger_head
from relay.store.ledger_tables import dialect_of, triggers
from relay.store.schema_check import foreign_objects
from relay.store.sealing import Sealer

_HEADS = "SELECT count(*) FROM ledger_head"


def open_ledger(connection: Connection, sealer: Sealer, now_ms: int, *, changed: bool, may_begin: bool) -> None:
    """Create the ledger if needed, and repair the triggers. `changed`: scripts have just run and may need new ones.

    `may_begin`: the store had no ledger before. Raises StoreError if it had one, and it is gone. If the store has
    records or audit entries already, the audit log gets an entry of the begin.
    """
    is_begun = _has_head(connection)
    if not changed and is_begun and not foreign_triggers(connection):
        return
    if not is_begun and not may_begin:
        raise StoreError("the head of the ledger was removed: put a backup of the store in its place")
    try:
        with transaction(connection):
            _repair(connection, sealer, now_ms, changed=changed)
    except DATABASE_ERRORS:
        if not is_begun or changed:
            raise


def foreign_triggers(connection: Connection) -> list[str]:
    """The missing, changed, disabled and foreign triggers."""
    names = (name.partition(" ") for name in foreign_objects(connection))
    return [name for kind, _, name in names if kind == "trigger"]


def _repair(connection: Connection, sealer: Sealer, now_ms: int, *, changed: bool) -> None:
    displaced = foreign_triggers(connection)  # another process may have been faster
    _put_back(connection, displaced)
    if not _has_head(connection):
        sign_all(connection, sealer)
        if stored_head(connection, AUDIT) != EMPTY or stored_head(connection, RECORDS) != EMPTY:
            _note(connection, sealer, now_ms, "ledger.begin", "store", "")
    elif changed:
        head = read_ledger_head(connection, sealer)
        write_ledger_head(connection, sealer, head.revision + 1, head.sums)  # with the new number of scripts
    elif displaced:
        what = f"{len(displaced)} triggers, {displaced[0]} first"
        _note(connection, sealer, now_ms, "ledger.fault", what, "removed, changed or added outside relay700")


def _note(connection: Connection, sealer: Sealer, now_ms: int, action: str, what: str, reason: str) -> None:
    add_entry(connection, sealer, Entry(now_ms, "relay", action, what, None, reason, {}))


def _put_back(connection: Connection, names: list[str]) -> None:
    wanted = triggers(dialect_of(connection))
    for name in names:
        _drop(connection, name)
        for statement in wanted.get(name, ()):
            connection.execute(statement)


def _drop(connection: Connection, name: str) -> None:
    if not dialect_of(connection).is_server:
        connection.execute(f'DROP TRIGGER IF EXISTS "{name}"')
        return
    tables = connection.execute(
        "SELECT CAST(CAST(tgrelid AS regclass) AS text) FROM pg_trigger"
        " WHERE tgname = ? AND pg_table_is_visible(tgrelid)",
        (name,),
    ).fetchall()
    for (table,) in tables:
        connection.execute(f'DROP TRIGGER "{name}" ON {table}')


def _has_head(connection: Connection) -> bool:
    return bool(connection.execute(_HEADS).fetchone() != (0,))
