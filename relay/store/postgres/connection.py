"""A connection to a PostgreSQL server with the interface of an SQLite one: for units of work, commands and the backend.

Owns the translation of statements. SQLite has one writer at a time. Here the units of work of all nodes write beside
each other: what one has proven, chosen or changed stays locked until it commits, and the heads of ledger and audit log
come last. A command, and what concerns all rows, writes alone. The journal takes no part: it writes no covered rows.

Statements with parameters are prepared, so the server plans each once a connection. It infers the types of texts and of
NULL from where they stand; whole numbers are of 64 bits, as in SQLite.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import count
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.numeric import Int8Dumper
from psycopg.waiting import Ready, Wait

from relay.store.connection import (
    BEGIN_ALONE,
    BEGIN_BESIDE,
    Connection,
    Naming,
    Parameters,
    PostgresBusy,
    PostgresError,
    Rows,
    Statement,
    fetch_together,
)
from relay.store.postgres.objects import PIN, PINNED

T = TypeVar("T")

CONNECT_S: Final = 5
HURRY_S: Final = 2  # the least that libpq has; to connect in an event loop's thread, or to ask whether a server answers
PAGE = 1_000  # rows
MOST_PREPARED: Final = 512  # statements of a connection
LOCK_MS: Final = 5_000
# lock_timeout (ms): how long a transaction waits for a lock, as SQLite's busy timeout. A dead server is noticed then.
# client_connection_check_interval: ends the statements of a killed process, which releases its locks.
_SETTINGS: Final = PINNED | {
    "lock_timeout": str(LOCK_MS),
    "client_connection_check_interval": "1000",
    "client_min_messages": "warning",
    "timezone": "UTC",
}
OPTIONS: Final = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
ACTS_LOCK: Final = 700_000_001  # for pg_advisory_xact_lock: who writes alone has it, the others share it
# In ms, for a row that another unit of work has locked; then this one is tried again. The server would notice two that
# wait for each other only after a second. Drawn for each transaction: two that give up together would meet again.
ROW_MS: Final = (100, 300)
HEADS_LOCK: Final = 700_000_007  # for pg_advisory_xact_lock
# In ms, shorter than lock_timeout: a machine that freezes within a unit of work must not block those of others.
IDLE_ACT: Final = 3_000
# READ COMMITTED, whatever the role's default: each statement sees the schema as it is.
_BEGIN: Final = f"BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = {IDLE_ACT};"
_MARKS: Final = ("SAVEPOINT ", "RELEASE ")
_TRANSACTIONS: Final = {
    BEGIN_ALONE: f"{_BEGIN} SELECT pg_advisory_xact_lock({ACTS_LOCK})",
    BEGIN_BESIDE: f"{_BEGIN} SELECT pg_advisory_xact_lock_shared({ACTS_LOCK}); SET LOCAL lock_timeout = ",
    "BEGIN": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",  # one snapshot, as in SQLite
}
_PARAMETER: Final = re.compile(r"x'[0-9a-f]*'|'[^']*'|(?:\?(\d*)|:([a-z_]\w*))( IS (?:NOT )?NULL)?|%")
# A frozen server keeps connections open and acknowledges what it is sent. One that has not answered a statement for
# SILENT_S is asked anew, by another connection: a long statement goes on as long as that is answered.
SILENT_S: Final = 5.0
# Longest wait for a row in the thread of an event loop, which meanwhile serves nobody else.
LOOP_S: Final = 2.0
PAUSE_S: Final = 3.0  # after either the server is not asked: what needs it fails at once
_IN_TRANSACTION: Final = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


class PostgresConnection:
    """A connection that reconnects if it was lost between transactions. Threads may use it one after the other."""

    schema_seen: object = None  # for `relay.store.schema_check`
    naming: Naming | None = None
    begun_ns = 0

    def __init__(self, url: str, *, read_only: bool = False, in_loop: bool = False) -> None:
        """`in_loop`: LOOP_S applies in a thread with an event loop. Raises PostgresError if there is no connection."""
        self._url = url
        self._read_only = read_only
        self._in_loop = in_loop
        self._marks: list[str] = []  # savepoints, which are sent with the next statement
        self._connection = self._connect()
        self._places = count(1)

    @property
    def in_transaction(self) -> bool:
        return self._connection.info.transaction_status in _IN_TRANSACTION

    def execute(self, sql: str, parameters: Parameters = (), /) -> Rows:
        """Raises PostgresError."""
        if self.naming is None:
            return self._execute(sql, parameters)
        return self.naming.execute(self._execute, sql, parameters)

    def together(self, statements: Sequence[Statement], /) -> list[Rows]:
        """As `execute`, of several statements in one round trip. Raises PostgresError: that of the first that fails."""
        if self.naming is None:
            return self._together(statements)
        return self.naming.execute_together(self._together, statements)

    def _execute(self, sql: str, parameters: Parameters) -> Rows:
        if not parameters and sql.startswith(_MARKS):
            self._marks.append(sql)
            return _Rows(self._cursor(sql))
        if sql == "ROLLBACK":
            self._marks.clear()
        if self._marks:
            return self._together([(sql, parameters)])[-1]
        with _server_errors():
            return self._sent(sql, parameters)

    def _together(self, statements: Sequence[Statement]) -> list[Rows]:
        marks, self._marks = self._marks, []
        connection = self._cursor(statements[0][0]).connection
        with _server_errors(), connection.pipeline():
            for mark in marks:
                connection.execute(mark)
            found = [self._sent(*statement) for statement in statements]
        return found  # noqa: RET504 (complete at the end of the pipeline)

    def _sent(self, sql: str, parameters: Parameters) -> Rows:
        cursor = self._cursor(sql)
        if parameters:
            statement, names = _translated(sql)
            cursor.execute(statement, _values(names, parameters), prepare=True)
        else:
            row_ms = str(random.randint(*ROW_MS)) if sql == BEGIN_BESIDE else ""
            cursor.execute(_TRANSACTIONS.get(sql, sql) + row_ms, prepare=sql.lstrip().startswith("SELECT"))
        return _Rows(cursor)

    def each_row(self, sql: str, parameters: Parameters, /) -> Iterator[Any]:
        """The rows of a SELECT, PAGE at a time, by a server-side cursor that lasts until the transaction ends."""
        place = f"place_{next(self._places)}"
        self.execute(f"DECLARE {place} NO SCROLL CURSOR FOR {sql}", parameters)
        while page := self.execute(f"FETCH {PAGE} FROM {place}").fetchall():
            yield from page

    def executemany(self, sql: str, parameters: Iterable[Parameters], /) -> Rows:
        """Raises PostgresError."""
        if self.naming is not None and self.naming.names(sql):
            return self.naming.execute_each(self._execute, sql, parameters)
        self._send_marks()
        cursor = self._cursor(sql)
        statement, names = _translated(sql)
        with _server_errors():
            cursor.executemany(statement, [_values(names, one) for one in parameters])
        return _Rows(cursor)

    def _cursor(self, sql: str) -> psycopg.Cursor[Any]:
        if sql not in ("COMMIT", "ROLLBACK"):
            _refuse_in_pause(self._url)
        if self._connection.closed and sql not in ("COMMIT", "ROLLBACK"):
            self._connection = self._connect()
        if sql == "COMMIT" and self._connection.info.transaction_status == TransactionStatus.INERROR:
            raise PostgresError("a statement of the transaction failed: it was rolled back")
        return self._connection.cursor()

    def _send_marks(self) -> None:
        if self._marks:
            self._together([("SELECT", ())])

    def close(self) -> None:
        self._connection.close()

    def _connect(self) -> psycopg.Connection[Any]:
        _refuse_in_pause(self._url)
        is_hurried = self._in_loop and _is_loops_thread()
        with _server_errors(), _pause_after_timeout(self._url):
            connection = _BoundedConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=HURRY_S if is_hurried else CONNECT_S,
                options=OPTIONS,
                tcp_user_timeout=CONNECT_S * 1000,  # for requests that the server has not acknowledged
                keepalives_idle=2,  # for the answer after that; in seconds
                keepalives_interval=1,
                keepalives_count=3,
            )
            connection.url, connection.in_loop = self._url, self._in_loop
            connection.prepare_threshold, connection.prepared_max = 1 << 30, MOST_PREPARED  # those that are asked for
            connection.adapters.register_dumper(int, Int8Dumper)
            connection.execute(PIN)
            if self._read_only:  # as an option it would fail with target_session_attrs=read-write
                connection.execute("SET default_transaction_read_only = on")
            return connection


def lock_heads(connection: Connection) -> None:
    """Until this transaction ends, nobody else writes the heads of the ledger and of the audit log."""
    fetch_together(
        connection, (f"SET LOCAL lock_timeout = {LOCK_MS}", ()), (f"SELECT pg_advisory_xact_lock({HEADS_LOCK})", ())
    )


def server_version(url: str) -> str:
    """The server's text of `version()`. Raises PostgresError.

    By a connection without any setting: a server that is no PostgreSQL may refuse those of relay700.
    """
    with _server_errors(), psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_S) as connection:
        found = connection.execute("SELECT version()").fetchone()
    return "" if found is None else str(found[0])


class _BoundedConnection(psycopg.Connection[Any]):
    """A connection whose statements end if the server does not answer."""

    url = ""
    in_loop = False

    def wait(
        self,
        gen: Generator[Wait, Ready | int, T],
        interval: float = 0.1,
        timeout: float | None = None,
    ) -> T:
        return super().wait(self._bounded(gen), interval, timeout)

    def _bounded(self, gen: Generator[Wait, Ready | int, T]) -> Generator[Wait, Ready | int, T]:
        since = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready:  # once an `interval`
                    since = self._check(since)
                wanted = gen.send(ready)
        except StopIteration as done:
            found: T = done.value
            return found

    def _check(self, since: float) -> float:
        """Returns when the server was last known to answer. Closes the connection and raises if it does not."""
        now = time.monotonic()
        if not (self.in_loop and now - since > LOOP_S and _is_loops_thread()):
            if now - since < SILENT_S:
                return since
            with suppress(psycopg.Error), psycopg.connect(self.url, connect_timeout=HURRY_S):
                return time.monotonic()
        self.close()
        _pause(self.url)
        raise psycopg.OperationalError(_SILENT)


_SILENT: Final = "the server does not answer"
_silent_until: dict[tuple[str, bool], float] = {}  # by URL, and whether for threads of event loops


def _is_loops_thread() -> bool:
    return asyncio._get_running_loop() is not None


def _pause(url: str) -> None:
    _silent_until[url, _is_loops_thread()] = time.monotonic() + PAUSE_S


def _refuse_in_pause(url: str) -> None:
    """Raise PostgresError if the server has just not answered such a thread."""
    if _silent_until and time.monotonic() < _silent_until.get((url, _is_loops_thread()), 0.0):
        raise PostgresError(_SILENT)


@contextmanager
def _pause_after_timeout(url: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.ConnectionTimeout:
        _pause(url)
        raise


@contextmanager
def _server_errors() -> Iterator[None]:
    """Translate the errors of the driver, each into one line."""
    try:
        yield
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise PostgresBusy(" ".join(str(error).split())) from error
    except psycopg.Error as error:
        raise PostgresError(" ".join(str(error).split())) from error


class _Rows:
    """The rows of a cursor, as with SQLite: empty for a statement that returns none."""

    def __init__(self, cursor: psycopg.Cursor[Any]) -> None:
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        return self._cursor.rowcount

    def fetchone(self) -> Any:
        return self._cursor.fetchone() if self._has_columns() else None

    def fetchall(self) -> list[Any]:
        return self._cursor.fetchall() if self._has_columns() else []

    def _has_columns(self) -> bool:
        """Whether the statement returns rows. The driver's `description` tells it as well, in 30 us."""
        result = self._cursor.pgresult
        return result is not None and result.nfields > 0

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())


@lru_cache(maxsize=512)
def _translated(sql: str) -> tuple[str, tuple[tuple[str, str | int], ...]]:
    """The statement in psycopg's syntax, and the name of each parameter there and here."""
    names: dict[str, str | int] = {}

    def replace(found: re.Match[str]) -> str:
        text = found[0]
        if text.startswith("x'"):
            return f"'\\x{text[2:]}::bytea"
        if text[0] == "'" or text == "%":
            return text.replace("%", "%%")
        if text[0] == "?":
            ours: str | int = int(found[1]) - 1 if found[1] else len(names)
        else:
            ours = found[2]
        if found[3]:  # tells nothing of the type: without a cast the server would not know it
            names[f"is{ours}"] = ours
            return f"CAST(%(is{ours})s AS text){found[3]}"
        names[f"p{ours}"] = ours
        return f"%(p{ours})s"

    translated = _PARAMETER.sub(replace, sql)
    return translated, tuple(names.items())


def _values(names: tuple[tuple[str, str | int], ...], parameters: Parameters) -> dict[str, Any]:
    """The values by their names in the statement. Booleans become 0 and 1, as in SQLite."""
    get: Callable[[Any], Any] = parameters.__getitem__
    return {name: int(value) if isinstance(value := get(ours), bool) else value for name, ours in names}
