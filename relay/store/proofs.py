"""Reads covered rows and their proofs, and writes proofs, many with each statement. It makes and checks none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Final

from relay.store.connection import Connection, Statement, together
from relay.store.ledger_tables import TABLES, Dialect, LedgerTable, dialect_of

CHUNK: Final = 128  # rows per statement
# Each binding reads rows of these tables, and few change them: units of work may read them at the same time. The lock
# on another table is that of UPDATE, as a weaker one would have to be raised, by two units of work at once.
_READ_ABOVE_ALL: Final = frozenset(["business", "pool", "prefix", "api_key", "party_group", "hook"])


def rows_of(connection: Connection, table: LedgerTable, keys: Sequence[str], *, locked: bool = False) -> dict[str, str]:
    """The covered columns of rows, as `Dialect.values` gives them.

    `locked`: on a server, no other transaction can change or delete them until this one ends.
    """
    return dict(connection.execute(*select_rows(connection, table, keys, locked=locked)).fetchall()) if keys else {}


def select_rows(connection: Connection, table: LedgerTable, keys: Sequence[str], *, locked: bool = False) -> Statement:
    """The statement of `rows_of`, for at least one key."""
    parameters = list(chain.from_iterable(table.parameters(key) for key in _padded(keys)))
    select = _select(table.name, dialect_of(connection), _rounded(len(keys)))
    if locked:
        select += f" FOR {'SHARE' if table.name in _READ_ABOVE_ALL else 'NO KEY UPDATE'} OF {table.name}"
    return select, parameters


@cache
def _select(table: str, dialect: Dialect, count: int) -> str:
    declared = TABLES[table]
    names = ", ".join(column.name for column in declared.key)
    marks = f"({', '.join('?' * len(declared.key))})"
    return (
        f"SELECT {dialect.row_key(declared)}, {dialect.values(declared)} FROM {table}"
        f" WHERE ({names}) IN (VALUES {', '.join([marks] * count)})"
    )


def proofs_of(connection: Connection, table: str, keys: Sequence[str]) -> dict[str, bytes]:
    return dict(connection.execute(*select_proofs(table, keys)).fetchall())


def select_proofs(table: str, keys: Sequence[str]) -> Statement:
    """The statement of `proofs_of`."""
    return _select_proofs(_rounded(len(keys))), [table, *_padded(keys)]


@cache
def _select_proofs(count: int) -> str:
    return f"SELECT row_key, proof FROM ledger WHERE table_name = ? AND row_key IN ({', '.join('?' * count)})"


def put_proofs(connection: Connection, proofs: Sequence[tuple[str, str, bytes]]) -> None:
    """Write proofs of distinct rows."""
    together(connection, *insert_proofs(proofs))


def insert_proofs(proofs: Sequence[tuple[str, str, bytes]]) -> Iterator[Statement]:
    """The statements of `put_proofs`: by powers of two, so that there are few prepared ones."""
    start = 0
    while left := len(proofs) - start:
        count = min(CHUNK, 1 << (left.bit_length() - 1))
        yield _insert(count), list(chain.from_iterable(proofs[start : start + count]))
        start += count


@cache
def _insert(count: int) -> str:
    return (
        f"INSERT INTO ledger (table_name, row_key, proof) VALUES {', '.join(['(?, ?, ?)'] * count)}"
        " ON CONFLICT (table_name, row_key) DO UPDATE SET proof = excluded.proof"
    )


def _rounded(count: int) -> int:
    """Round up to a power of two, so that there are few prepared statements."""
    return 1 << (count - 1).bit_length() if count else 0


def _padded(keys: Sequence[str]) -> list[str]:
    return [*keys, *([keys[-1]] * (_rounded(len(keys)) - len(keys)))] if keys else []
