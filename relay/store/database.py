"""Opens and migrates the store, and checks that the key file belongs to it; connects to it.

The store is an SQLite file or a database of a PostgreSQL server. Owns the pragmas, and decides when the scripts of
`relay.store.scripts` run. The neighbouring modules own the tables.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

from relay.errors import Refused, StoreError
from relay.store import scripts as store_scripts
from relay.store.chain import anchor_path
from relay.store.connection import (
    DATABASE_ERRORS,
    Connection,
    Place,
    PostgresBusy,
    PostgresServer,
    SqliteConnection,
    SqliteReader,
    WritingConnection,
    local_path,
)
from relay.store.connection import one_moment as one_moment
from relay.store.connection import transaction as transaction
from relay.store.files import check_permissions, open_beside, require_log
from relay.store.ledger import learn_head, ledger_transaction
from relay.store.ledger_check import note_script, open_ledger, require_left
from relay.store.schema_check import require_empty_schema
from relay.store.scripts import Schema, Script, least_scripts, schema_of, scripts_of
from relay.store.sealing.keys import check_keys, enter_keys, key_in_use, sealing_keys
from relay.store.sealing.sealer import Sealer, load_key, make_key

BUSY_TIMEOUT_S = 5.0
LOCK_PATIENCE_S = 60.0  # longest wait for a table that a script changes
LOCK_PAUSE_S = 1.0  # between two tries, for statements that queued behind the last one

# Overwrites deleted data. Debian's SQLite does so by default, others do not.
SECURE_DELETE = "PRAGMA secure_delete = ON"
# FULL: in WAL mode NORMAL does not sync commits, and a power failure would lose records of answered calls.
# A page of records is rewritten many times while it fills; a checkpoint every 16 MiB copies it to the store once.
# The log grows beyond that while a long reading goes on, such as a check of all rows; its room is then given back.
WRITER_PRAGMAS = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA wal_autocheckpoint = 4000",
    f"PRAGMA journal_size_limit = {64 << 20}",
    SECURE_DELETE,
)
# No mmap_size: SQLite unmaps the file after each commit of another connection. With one commit per three look-ups, a
# look-up takes 55 us without mmap and 80 us with it (18 and 34 us with warm CPU caches).
READER_PRAGMAS = ("PRAGMA query_only = ON",)
# Advice by SQLite's primary result codes.
_WHAT_TO_DO = {
    sqlite3.SQLITE_BUSY: (
        "another process keeps it locked (`fuser -v {place}` shows which have it open): let it end, or end it, and try"
        " again"
    ),
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "look for faults of its disk in the system log",
    sqlite3.SQLITE_READONLY: "let the relay's user write to its file, its folder and its disk",
    sqlite3.SQLITE_CORRUPT: "stop the relay and put a backup in its place",
    sqlite3.SQLITE_NOTADB: "stop the relay and put a backup in its place",
}
_OF_FILES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
_FILES = 4  # that a connection may have open at once: the store, its log, the log's index, a directory
_KEY_CHECK = "SELECT hash FROM key_check"


def open_store(place: Place, key_file: Path, *, as_is: bool = False) -> Sealer:
    """Create what is missing (folder, key, tables), migrate, and check that the key belongs to the store.

    A key is only created with a new store, and a new store only where none was served before: a lost one must be
    restored, not replaced. If nothing is missing nothing is written, so a store that accepts no writes opens too.
    `as_is`: foreign triggers stay, to be named. Raises StoreError, also if other users have access to the files.
    """
    schema = schema_of(place)
    if not isinstance(place, Path):
        _require_postgresql(place)
        _make_folder(place.local)
    check_permissions(place, key_file)
    is_new = not is_there(place)
    if isinstance(place, Path) and is_new and (served := place.with_name(place.name + ".lock")).exists():
        raise StoreError(
            f"the store {place} was served before, and is {'empty' if place.exists() else 'missing'}: put it back, or"
            f" delete {served} to begin a new one"
        )
    if is_new and not key_file.exists():
        make_key(key_file)
    sealer = load_key(key_file)
    if isinstance(place, Path):
        _make_file(place)
    with store_errors(place), closing(connect(place)) as connection:
        if isinstance(place, Path):
            connection.execute("PRAGMA journal_mode = WAL")
        seen = schema.seen(connection)
        if seen:  # the head of the ledger is sealed behind each script
            _check_key(connection, sealer, key_file)
            if key_in_use(connection):
                check_keys(connection, sealer, key_file)
        _migrate(connection, schema, sealer, place)
        _check_key(connection, sealer, key_file)
        now_ms = time.time_ns() // 1_000_000
        may_begin = not seen and not anchor_path(local_path(place)).exists()
        if has_keys := bool(sealing_keys(connection)):
            check_keys(connection, sealer, key_file)  # the head of the ledger is sealed with the key in use
        open_ledger(connection, sealer, now_ms, may_begin=may_begin, as_is=as_is)
        if not has_keys:
            with ledger_transaction(connection, sealer, now_ms):
                enter_keys(connection, sealer)
            check_keys(connection, sealer, key_file)
        learn_head(connection, sealer)
    return sealer


def _require_postgresql(server: PostgresServer) -> None:
    """Raises StoreError for a server that speaks PostgreSQL's protocol and lacks what the store relies on."""
    from relay.store.postgres.connection import server_version

    with store_errors(server):
        version = server_version(server.url)
    if (why := why_unfit(version)) is not None:
        raise StoreError(f"the store {server} cannot be used: {why}: use PostgreSQL 15 or later")


def why_unfit(version: str) -> str | None:
    """The reason why a server with this text of `version()` cannot hold a store; None for PostgreSQL."""
    if "CockroachDB" in version:
        return "it is CockroachDB, whose advisory locks keep nobody out, so that two nodes would lead"
    if "-YB-" in version or "YugabyteDB" in version:
        return "it is YugabyteDB, whose rows have no xmin, by which a changed schema is found"
    return None


def is_there(place: Place) -> bool:
    """Whether there is a store. Raises StoreError if its server cannot be asked."""
    if isinstance(place, Path):
        return place.exists() and place.stat().st_size > 0
    with reading(place) as connection:
        return schema_of(place).seen(connection) > 0


def is_newer(place: Place) -> bool:
    """Whether a later version has run scripts on it that this one does not know. Raises StoreError."""
    with reading(place) as connection:
        return store_scripts.is_newer(connection)


def connect(place: Place) -> WritingConnection:
    """Open a connection that writes, in autocommit mode: transactions are explicit."""
    if isinstance(place, PostgresServer):
        return _connect_server(place)
    require_log(place, BUSY_TIMEOUT_S)
    connection = sqlite3.connect(
        uri_of(place),
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        cached_statements=64,
        factory=SqliteConnection,
    )
    for pragma in WRITER_PRAGMAS:
        connection.execute(pragma)
    return connection


def connect_reader(place: Place, *, check_same_thread: bool = True, in_loop: bool = False) -> Connection:
    """Open a read-only connection. Its next statement sees every commit of others.

    Without `check_same_thread` threads may use it one after the other. `in_loop`: also that of an event loop, which
    must not wait for long for a server.
    """
    if isinstance(place, PostgresServer):
        return _connect_server(place, read_only=True, in_loop=in_loop)
    require_log(place, 0 if in_loop else BUSY_TIMEOUT_S)
    connection = sqlite3.connect(
        uri_of(place),
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=check_same_thread,
        factory=SqliteReader,
    )
    for pragma in READER_PRAGMAS:
        connection.execute(pragma)
    return connection


@contextmanager
def reading(place: Place) -> Iterator[Connection]:
    """A read-only connection for the block. Errors of the store are StoreErrors."""
    with store_errors(place), closing(connect_reader(place)) as connection:
        yield connection


def empty_log(place: Place) -> None:
    """Move the content of a file's write-ahead log into the file. The last connection, which this may be, deletes it.

    A backup put in place of the file would be mixed with the content of a log left beside it. Raises StoreError.
    """
    if isinstance(place, Path):
        with store_errors(place), closing(connect(place)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def uri_of(path: Path) -> str:
    """The URI of the file, with which SQLite does not create a missing one."""
    return f"{path.absolute().as_uri()}?mode=rw"


def _connect_server(server: PostgresServer, *, read_only: bool = False, in_loop: bool = False) -> WritingConnection:
    from relay.store.postgres.connection import PostgresConnection

    return PostgresConnection(server.url, read_only=read_only, in_loop=in_loop)


@contextmanager
def store_errors(place: Place) -> Iterator[None]:
    """Translate the errors of SQLite and PostgreSQL into StoreError, with advice for the operator."""
    try:
        yield
    except DATABASE_ERRORS as error:
        reason = reason_of(place, error)
        raise StoreError(f"the store {place} failed: {reason}") from error


def reason_of(place: Place, error: Exception) -> str:
    """One of DATABASE_ERRORS as a text, with advice for the operator."""
    if isinstance(place, PostgresServer):
        return place.without_secrets(str(error))
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    hint = _why_no_file(place) if code in _OF_FILES else ""
    hint = hint or _WHAT_TO_DO.get(code, "").format(place=place)
    return f"{error}: {hint}" if hint else str(error)


def _why_no_file(path: Path) -> str:
    """The reason why files cannot be opened or written there, which SQLite does not tell."""
    try:
        if os.statvfs(path.parent).f_flag & os.ST_RDONLY:
            return "its file system is read-only: mount it for writing"
        with ExitStack() as opened:
            for _ in range(_FILES):
                opened.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return "no file descriptors are left: raise the limit (`LimitNOFILE=` of the unit, `ulimit -n`)"
    return ""


def _make_folder(local: Path) -> None:
    """Create the folder of a node's own files."""
    try:
        local.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {local.parent} cannot be made: {error.strerror}") from None


def _make_file(path: Path) -> None:
    """Create an empty file, mode 0600, for SQLite to fill; its -wal and -shm inherit the mode.

    An existing file is not opened: closing it again would drop the locks of this process's other connections, and the
    next process to close its own would delete the WAL that they write to.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(open_beside(path, os.O_WRONLY | os.O_EXCL))
    except FileExistsError:
        pass
    except OSError as error:
        raise StoreError(f"the store {path} cannot be opened: {error.strerror}") from None


def _migrate(connection: Connection, schema: Schema, sealer: Sealer, place: Place) -> None:
    """Run the scripts that the store has not seen. If killed, it leaves the store after one of them."""
    scripts = scripts_of(schema)
    if schema.seen(connection) < len(scripts):
        schema.take_turn(connection)
        while schema.seen(connection) < len(scripts):
            _run_next(connection, schema, scripts, sealer)
    if (seen := schema.seen(connection)) > len(scripts) and least_scripts(connection) > len(scripts):
        raise StoreError(
            f"the store {place} was made for another relay700 (schema {seen}): install that version, or move the store"
            " away, and a new one is made"
        )


def _run_next(connection: Connection, schema: Schema, scripts: Sequence[Script], sealer: Sealer) -> None:
    """Run the next script. Raises PostgresBusy if its table stays in use."""
    until_s = time.monotonic() + LOCK_PATIENCE_S
    for tries in count(1):
        try:
            _run(connection, schema, scripts, sealer, tries)
            return
        except PostgresBusy as error:
            if time.monotonic() > until_s:
                words = "its tables are in use by a long transaction (export, verify, backup): try again after it"
                raise PostgresBusy(f"{words} ({error})") from error
        time.sleep(LOCK_PAUSE_S)


def _run(connection: Connection, schema: Schema, scripts: Sequence[Script], sealer: Sealer, tries: int) -> None:
    """Run the next script in one transaction; in a new store, run all scripts in one."""
    seen = schema.seen(connection)
    if 0 < seen < len(scripts) and scripts[seen].is_concurrent:
        require_left(connection, sealer)
        _run_concurrently(connection, scripts[seen])
        with transaction(connection):
            _note(connection, schema, sealer, seen, 1)
        return
    with transaction(connection):
        seen = schema.seen(connection)  # another process may have been faster
        next_ones = scripts[seen : seen + 1] if seen else [script.for_empty_tables() for script in scripts]
        schema.limit_waits(connection, tries)
        if seen:
            require_left(connection, sealer)
        else:
            require_empty_schema(connection)
        for script in next_ones:
            for statement in script.statements():
                connection.execute(statement)
        if next_ones:
            _note(connection, schema, sealer, seen, len(next_ones))


def _note(connection: Connection, schema: Schema, sealer: Sealer, seen: int, more: int) -> None:
    """Count the scripts that have run, in the store and in the head of its ledger."""
    schema.note(connection, seen + more)
    if seen:
        note_script(connection, sealer, is_last=seen + more == len(scripts_of(schema)))


def _run_concurrently(connection: Connection, script: Script) -> None:
    """Run a script that waits for all earlier transactions, and blocks none."""
    connection.execute("SET lock_timeout = 0")
    for statement in script.statements():
        connection.execute(statement)
    connection.execute("RESET lock_timeout")


def _check_key(connection: Connection, sealer: Sealer, key_file: Path) -> None:
    expected = sealer.lookup_hash("key check")
    if not connection.execute(_KEY_CHECK).fetchall():
        with transaction(connection):
            connection.execute(
                "INSERT INTO key_check (hash) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM key_check)",
                (expected,),
            )
    if connection.execute(_KEY_CHECK).fetchall() != [(expected,)]:
        raise StoreError(f"the key file {key_file} belongs to another store: put the right one back")


# -- Read connections that are kept

T = TypeVar("T")
MOST_KEPT = 8  # connections; each may hold 2 MiB of pages


class Reader:
    """Read connections, for any thread, each used by one query at a time.

    They are kept, because a new one reads the whole schema first, for 2 ms. After an error another one is opened.
    """

    def __init__(self, path: Place) -> None:
        self._path = path
        self._idle: list[Connection] = []
        self._watch: Connection | None = None
        self._opened = 0  # how often the watch was

    def read(self, query: Callable[[Connection], T]) -> T:
        """Return the result of the query. Raises StoreError, and what the query raises."""
        with store_errors(self._path):
            connection = self._take()
            try:
                with one_moment(connection):  # a row and its proof must be of one snapshot
                    found = query(connection)
            except Refused:
                self._keep(connection)
                raise
            except BaseException:
                connection.close()
                raise
            self._keep(connection)
            return found

    def changes(self) -> tuple[int, int] | None:
        """A value that is equal to an earlier one if nobody has committed since. None: unknown. Raises StoreError."""
        if isinstance(self._path, PostgresServer):
            return None
        with store_errors(self._path):
            if self._watch is None:
                self._watch = connect_reader(self._path, check_same_thread=False)
                self._opened += 1
            try:
                return self._opened, self._watch.execute("PRAGMA data_version").fetchone()[0]
            except BaseException:
                self._close_watch()
                raise

    def _take(self) -> Connection:
        try:
            return self._idle.pop()  # the one used last, whose pages are in the CPU's cache
        except IndexError:
            return connect_reader(self._path, check_same_thread=False, in_loop=True)

    def _keep(self, connection: Connection) -> None:
        if len(self._idle) < MOST_KEPT:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the connections. The next query opens another."""
        while self._idle:
            self._idle.pop().close()
        self._close_watch()

    def _close_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None
