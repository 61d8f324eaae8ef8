"""What the store asks of a connection, be it SQLite's own or one to a PostgreSQL server (`relay.store.postgres`).

SQL is written once, in words that both understand, with SQLite's parameters (`?`, `?1`, `:name`) and transactions by
name (`BEGIN IMMEDIATE`, `SAVEPOINT`). What a statement gives are tuples of int, str, bytes and None.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol, runtime_checkable

Parameters = Sequence[Any] | Mapping[str, Any]


class ServerError(Exception):
    """A PostgreSQL server refused a statement, or could not be reached."""


class ServerBusy(ServerError):
    """What was needed was held by others for too long: the same may do later."""


DATABASE_ERRORS: Final = (sqlite3.Error, ServerError)


class FileConnection(sqlite3.Connection):
    """One to a store in a file."""

    schema_seen: object = None  # of `relay.store.schema_check`


class Rows(Protocol):
    """What a statement gives."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Connection(Protocol):
    """In autocommit mode: transactions are begun by name. Errors are among DATABASE_ERRORS."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, sql: str, parameters: Parameters = ..., /) -> Rows: ...
    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Rows: ...
    def close(self) -> None: ...


@runtime_checkable
class Paging(Protocol):
    """A connection whose `execute` has all rows in memory, and which gives them a page at a time by other means."""

    def each_row(self, sql: str, parameters: Parameters, /) -> Iterator[Any]: ...


def each_row(connection: Connection, sql: str, parameters: Parameters = ()) -> Iterator[Any]:
    """What a SELECT gives, of a table that memory need not hold. Within a transaction, which outlives it."""
    if isinstance(connection, Paging):
        return connection.each_row(sql, parameters)
    return iter(connection.execute(sql, parameters))


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """One write transaction: committed at the end of the block, rolled back on any error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def one_moment(connection: Connection) -> Iterator[None]:
    """All statements of the block see the store as it was at the first one, whatever others write meanwhile.

    Within a transaction it is that one's moment. Keep it short: while it lasts, the write-ahead log grows.
    """
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(sqlite3.ProgrammingError):  # a list that was not read to its end outlives the connection
            if connection.in_transaction:  # an I/O error has ended it
                connection.execute("ROLLBACK")
