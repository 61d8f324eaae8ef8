"""Reads covered rows and their proofs, and writes proofs, many with each statement. It makes and checks none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Final

from relay.store.connection import Connection, Rows, Statement, fetch_together
from relay.store.ledger_tables import TABLES, Dialect, LedgerTable, dialect_of

CHUNK: Final = 128  # rows per statement


def rows_with_proofs(
    connection: Connection, wanted: Sequence[tuple[LedgerTable, Sequence[str]]], *then: Statement, locked: bool = False
) -> tuple[list[tuple[dict[str, str], dict[str, bytes]]], list[Rows]]:
    """For each table and at least one and at most CHUNK keys: the covered columns of its rows, as `Dialect.values`
    gives them, and their proofs. Also the results of statements that run afterwards.

    On a server all of it is one round trip. `locked`: there, nobody else can change or delete the rows until this
    transaction ends.
    """
    asked: list[Statement] = []
    for table, keys in wanted:
        asked += [_select_rows(connection, table, keys, locked=locked), _proofs(table.name, keys)]
    found = fetch_together(connection, *asked, *then)
    read = [
        (dict(rows.fetchall()), dict(proofs.fetchall()))
        for rows, proofs in zip(found[: len(asked) : 2], found[1 : len(asked) : 2], strict=True)
    ]
    return read, found[len(asked) :]


def _select_rows(connection: Connection, table: LedgerTable, keys: Sequence[str], *, locked: bool) -> Statement:
    dialect = dialect_of(connection)
    parameters = list(chain.from_iterable(table.parameters(key) for key in _padded(keys)))
    return _select(table.name, dialect, _rounded(len(keys))) + (dialect.lock(table) if locked else ""), parameters


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
    return dict(connection.execute(*_proofs(table, keys)).fetchall())


def _proofs(table: str, keys: Sequence[str]) -> Statement:
    return _select_proofs(_rounded(len(keys))), [table, *_padded(keys)]


@cache
def _select_proofs(count: int) -> str:
    return f"SELECT row_key, proof FROM ledger WHERE table_name = ? AND row_key IN ({', '.join('?' * count)})"


def put_proofs(connection: Connection, proofs: Sequence[tuple[str, str, bytes]]) -> None:
    """Write proofs of distinct rows."""
    fetch_together(connection, *insert_proofs(proofs))


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
