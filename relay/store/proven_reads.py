"""Reads rows as they were proven: a reader gets the values that `require_proofs` has seen.

On a server someone else may change a row between two statements of a unit of work. Rows that such a unit has proven
are locked until it ends; so a row is proven before it is read, or read again afterwards. In a file both see one state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relay.errors import StoreError
from relay.store.connection import Connection, Parameters, one_moment
from relay.store.ledger import CHANGED_MEANWHILE, is_locking, require_each, require_proofs
from relay.store.sealing.sealer import Sealer


def proven_row(
    connection: Connection, sealer: Sealer, table: str, row_key: str, sql: str, parameters: Parameters
) -> tuple[Any, ...] | None:
    """The one row of a SELECT, which has this key; None if there is none. Raises StoreError if it is not proven."""
    (count,), (rows,) = require_each(connection, sealer, [(table, [row_key])], (sql, parameters))
    found: tuple[Any, ...] | None = rows.fetchone() if count else None
    return found


def proven_rows(
    connection: Connection,
    sealer: Sealer,
    table: str,
    sql: str,
    parameters: Parameters,
    key: Callable[[tuple[Any, ...]], str] = lambda row: str(row[0]),
) -> list[tuple[Any, ...]]:
    """The rows of a SELECT, in its order; `key` gives the key of each, as `require_proofs` has it.

    Raises StoreError if one is not proven, or was changed meanwhile.
    """
    with one_moment(connection):
        rows: list[tuple[Any, ...]] = connection.execute(sql, parameters).fetchall()
        keys = list(dict.fromkeys(map(key, rows)))
        is_changed = require_proofs(connection, sealer, table, keys) != len(keys)
        if is_changed or (rows and is_locking(connection) and connection.execute(sql, parameters).fetchall() != rows):
            raise StoreError(CHANGED_MEANWHILE)
    return rows
