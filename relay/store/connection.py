"""Connections to a store, SQLite or PostgreSQL; its location, a file or a server that nodes share; its outages."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable
from urllib.parse import unquote

from relay.errors import Report

WRONG: Final = "\N{REPLACEMENT CHARACTER}"  # as `any_text` reads a byte that is not UTF-8
_CHUNK: Final = 500  # keys in one statement


class PostgresServer(NamedTuple):
    """A database shared by several relays, the nodes."""

    url: str
    node: str  # name of this relay
    local: Path  # base name of this node's local files, such as sockets and locks

    def __str__(self) -> str:
        return without_password(self.url)

    def without_secrets(self, text: str) -> str:
        """The text, such as an error of a driver, without the passwords of the URL."""
        for found in _PASSWORD.finditer(self.url):
            written = found[0][len(found[1] or found[2]) :]
            for secret in (written, unquote(written)):
                text = text.replace(secret, "***") if secret else text
        return text


Place = Path | PostgresServer
# Up to the last "@": a password may have one that is not encoded.
_PASSWORD: Final = re.compile(r"(://[^/@:]*:).*(?=@)|([?&](?:ssl)?password=)[^&]*", re.DOTALL)
_PLAIN: Final = r"(?:[^\s:/?#\[\]@%]|%[0-9A-Fa-f]{2})"
_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|(?:[^\s:/?#\[\]@%,]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
_PARAMETER: Final = r"[a-z_]+=(?:[^\s&=#%]|%[0-9A-Fa-f]{2})*"
_SERVER_URL: Final = re.compile(
    rf"postgresql://(?:{_PLAIN}*(?::(?:{_PLAIN}|:)*)?@)?{_HOST}(?:,{_HOST})*(?:/{_PLAIN}*)?"
    rf"(?:\?{_PARAMETER}(?:&{_PARAMETER})*)?"
)


def is_server_url(url: str) -> bool:
    """Whether all drivers read the URL alike. In other URLs they take a part of the password for host or port."""
    return _SERVER_URL.fullmatch(url) is not None


def without_password(url: str) -> str:
    """The URL without its password, such as that of a PostgreSQL server."""
    return _PASSWORD.sub(r"\1\2***", url)


def local_path(place: Place) -> Path:
    """The base name of the local files of a store."""
    return place.local if isinstance(place, PostgresServer) else place


# -- The interface of a connection to the store

Parameters = Sequence[Any] | Mapping[str, Any]


class PostgresError(Exception):
    """A PostgreSQL server refused a statement, or could not be reached."""


class PostgresBusy(PostgresError):
    """A lock was not released in time. A retry may succeed."""


DATABASE_ERRORS: Final = (sqlite3.Error, PostgresError)


@runtime_checkable
class Dated(Protocol):
    """A connection that keeps when its read transaction began, by `time.monotonic_ns`."""

    begun_ns: int


class SqliteReader(sqlite3.Connection):
    """A connection that reads a store in a file."""

    begun_ns = 0


class SqliteConnection(sqlite3.Connection):
    """A connection to a store in a file."""

    begun_ns = 0
    schema_seen: object = None  # for `relay.store.schema_check`
    naming: Naming | None = None

    def execute(self, sql: str, parameters: Any = (), /) -> Any:
        run = super().execute
        return run(sql, parameters) if self.naming is None else self.naming.execute(run, sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Any:
        if self.naming is None or not self.naming.names(sql):
            return super().executemany(sql, parameters)
        return self.naming.execute_each(super().execute, sql, parameters)


class WorkConnection(sqlite3.Connection):
    """A connection for aiosqlite, which runs `work` in its thread by `commit`: one switch for a whole transaction."""

    work: Callable[[], Any]
    result: Any

    def commit(self) -> None:
        self.result = self.work()


class Rows(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int: ...
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


Execute = Callable[[str, Parameters], Rows]
RunTogether = Callable[[Sequence["Statement"]], list[Rows]]


class Connection(Protocol):
    """A connection in autocommit mode: transactions are explicit. Errors are among DATABASE_ERRORS."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, sql: str, parameters: Parameters = ..., /) -> Rows: ...
    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Rows: ...
    def close(self) -> None: ...


Statement = tuple[str, Parameters]


class Naming(Protocol):
    """Takes part in the statements of a transaction that proves rows, as `relay.store.named_rows.NamedRows`."""

    at_end: list[Any]  # written once for the whole transaction: entries of the audit log, and counts

    def names(self, sql: str, /) -> bool: ...
    def execute(self, run: Execute, sql: str, parameters: Parameters, /) -> Rows: ...
    def execute_each(self, run: Execute, sql: str, parameters: Iterable[Parameters], /) -> Rows: ...
    def execute_together(self, run: RunTogether, statements: Sequence[Statement], /) -> list[Rows]: ...


class WritingConnection(Connection, Protocol):
    """A connection for transactions that prove rows."""

    schema_seen: object  # for `relay.store.schema_check`
    naming: Naming | None


def fetch_together(connection: Connection, *statements: Statement) -> list[Rows]:
    """The results of independent statements, on a server in one round trip."""
    send: Callable[[Sequence[Statement]], list[Rows]] | None = getattr(connection, "together", None)
    if send is None or not statements:
        return [connection.execute(*statement) for statement in statements]
    return send(statements)


@runtime_checkable
class Paging(Protocol):
    """A connection whose `execute` holds all rows in memory, and which can also read them page by page."""

    def each_row(self, sql: str, parameters: Parameters, /) -> Iterator[Any]: ...


def each_row(connection: Connection, sql: str, parameters: Parameters = ()) -> Iterator[Any]:
    """The rows of a SELECT, without holding all in memory. Call it within a transaction that outlives the iterator."""
    if isinstance(connection, Paging):
        return connection.each_row(sql, parameters)
    return iter(connection.execute(sql, parameters))


def select_rows(connection: Connection, sql: str, keys: Sequence[object], *more: int) -> Iterator[tuple[Any, ...]]:
    """The rows of a SELECT with `IN ({keys})`, for _CHUNK keys at a time."""
    for start in range(0, len(keys), _CHUNK):
        some = keys[start : start + _CHUNK]
        yield from connection.execute(sql.format(keys=", ".join("?" * len(some))), [*some, *more]).fetchall()


TRY_S: Final = 0.001  # between two tries to write to a file
BEGIN_ALONE: Final = "BEGIN IMMEDIATE"
BEGIN_BESIDE: Final = "BEGIN IMMEDIATE TRANSACTION"  # the same in a file


@contextmanager
def transaction(connection: Connection, begin: str = BEGIN_ALONE) -> Iterator[None]:
    """One write transaction: committed at the end of the block, rolled back on any error.

    `begin`: on a server BEGIN_ALONE keeps all others from writing covered rows, BEGIN_BESIDE those that write alone.
    """
    try:
        _begin(connection, begin)  # PostgreSQL: one that waited in vain for its turn has begun all the same
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _begin(connection: Connection, begin: str) -> None:
    """In a file, wait for other writers by tries at short intervals.

    SQLite itself pauses for up to 100 ms between two tries, and so misses the gaps that other writers leave.
    """
    if not isinstance(connection, sqlite3.Connection):
        connection.execute(begin)
        return
    (patience_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
    until_s = time.monotonic() + patience_ms / 1000
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        while not _has_begun(connection, begin, may_wait=time.monotonic() < until_s):
            time.sleep(TRY_S)
    finally:
        connection.execute(f"PRAGMA busy_timeout = {patience_ms}")


def _has_begun(connection: sqlite3.Connection, begin: str, *, may_wait: bool) -> bool:
    """False if another process writes, and `may_wait`. Raises the error of SQLite."""
    try:
        connection.execute(begin)
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or not may_wait:
            raise
        return False
    return True


def quote_identifier(name: str) -> str:
    """An identifier that was found in a database, for use in a statement."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def one_moment(connection: Connection) -> Iterator[None]:
    """A read transaction: all statements of the block see one snapshot of the store.

    Inside another transaction it is that one's snapshot. Keep it short: while it lasts, the write-ahead log grows.
    """
    if connection.in_transaction:
        yield
        return
    if isinstance(connection, Dated):
        connection.begun_ns = time.monotonic_ns()
    connection.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(sqlite3.ProgrammingError):  # an iterator not read to its end may outlive the connection
            if connection.in_transaction:  # an I/O error has ended it
                connection.execute("ROLLBACK")  # type: ignore[unreachable]  # mypy: it was not, and nothing can change it


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """A part of a transaction: after an error in it the transaction can go on. Raises the error."""
    connection.execute("SAVEPOINT part")
    try:
        yield
    except Exception:
        connection.execute("ROLLBACK TO SAVEPOINT part")
        connection.execute("RELEASE SAVEPOINT part")
        raise
    connection.execute("RELEASE SAVEPOINT part")


@contextmanager
def any_text(connection: Connection) -> Iterator[None]:
    """Within the block, read each byte that is not UTF-8 as U+FFFD instead of raising an error."""
    if not isinstance(connection, sqlite3.Connection):
        yield  # PostgreSQL accepts no such text
        return
    before, connection.text_factory = connection.text_factory, _any_text
    try:
        yield
    finally:
        connection.text_factory = before


def _any_text(text: bytes) -> str:
    return text.decode(errors="replace")


# -- Reports of outages to the operator: each reason once, and the recovery


MOST_ALTERED: Final = 1_000  # altered rows that are reported
AGAIN_S: Final = 3_600.0


class WriteOutage:
    """An outage of a journal, whose store accepts no writes."""

    def __init__(self, store: Place, effect: str, report: Report) -> None:
        self._store = str(store)
        self._effect = effect
        self._report = report
        self._reasons: set[str] = set()  # reported in the present outage

    @property
    def lasts(self) -> bool:
        return bool(self._reasons)

    def failed(self, error: Exception) -> None:
        reason = str(error) or "no answer in time"
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._report("journal.write_failed", {"store": self._store, "reason": reason, "effect": self._effect})

    def began_before(self) -> None:
        """Assume an outage that an earlier process has reported, so that its end is reported too."""
        self._reasons.add("")

    def is_over(self, backlog: int) -> None:
        """Report the recovery, if there was an outage. `backlog`: items not in the store yet."""
        if self._reasons:
            self._reasons.clear()
            self._report("journal.recovered", {"store": self._store, "backlog": backlog})


class LookupOutage:
    """Outages of look-ups: of the whole store, or of altered rows."""

    def __init__(self, store: Place, report: Report) -> None:
        self._store = str(store)
        self._report = report
        self._lasts = False
        self._altered: set[str] = set()  # reported
        self._again_s = time.monotonic() + AGAIN_S  # when all of them may be reported again

    def failed(self, reason: str) -> None:
        if not self._lasts:
            self._lasts = True
            effect = "new calls are refused; each one tries the store again"
            self._report("lookup.failed", {"store": self._store, "reason": reason, "effect": effect})

    def is_over(self) -> None:
        """Report the recovery, if there was an outage."""
        if self._lasts:
            self._lasts = False
            self._report("lookup.recovered", {"store": self._store})

    def altered(self, reason: str) -> None:
        """Report an altered row, once an hour: it may have been accepted meanwhile, and altered again."""
        if (now_s := time.monotonic()) >= self._again_s:
            self._altered.clear()
            self._again_s = now_s + AGAIN_S
        if reason not in self._altered and len(self._altered) < MOST_ALTERED:
            self._altered.add(reason)
            effect = "its calls are refused"
            self._report("lookup.altered", {"store": self._store, "reason": reason, "effect": effect})
