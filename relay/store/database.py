"""The SQLite file: how it is opened, its schema and migrations, and whether the key at hand is its key.

It owns the pragmas and the schema version. What the tables mean is the business of the modules beside it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from relay.errors import StoreError
from relay.store.sealing import Sealer, load_key, make_key

BUSY_TIMEOUT_S = 5.0
FIRST_SCHEMA = 2  # the scripts of the first release; stores of fewer were made before it

# FULL: in WAL mode NORMAL commits are not synced, and a power failure would lose records that callers saw answered.
# A page of records is written many times while it fills: a checkpoint at each 16 MiB moves it to the store once.
WRITER_PRAGMAS = ("PRAGMA synchronous = FULL", "PRAGMA foreign_keys = ON", "PRAGMA wal_autocheckpoint = 4000")
# No mmap_size: SQLite unmaps the file after each commit of another connection. With a commit to each third look-up, one
# takes 55 us without it and 80 with it (18 and 34 where the processor's caches stay warm).
READER_PRAGMAS = ("PRAGMA query_only = ON",)


def open_store(path: Path, key_file: Path) -> Sealer:
    """Makes what is missing (folder, key, tables), migrates, and proves that the key is the store's own.

    A key is made only together with a new store, and a new store only where none was served: what is lost must be put
    back, not replaced. Raises StoreError.
    """
    is_new = not (path.exists() and path.stat().st_size)
    if is_new and (served := path.with_name(path.name + ".lock")).exists():
        raise StoreError(
            f"the store {path} was served before, and is {'empty' if path.exists() else 'missing'}: put it back, or"
            f" delete {served} to begin a new one"
        )
    if is_new and not key_file.exists():
        make_key(key_file)
    sealer = load_key(key_file)
    _make_file(path)
    with store_errors(path):
        connection = connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            if _schema(connection) >= FIRST_SCHEMA:
                _check_key(connection, sealer, key_file)  # what a migration seals, it must seal with the right one
            _migrate(connection, sealer, path)
            _check_key(connection, sealer, key_file)
        finally:
            connection.close()
    return sealer


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes, in autocommit mode: transactions are begun by name."""
    connection = sqlite3.connect(
        place_of(path), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, cached_statements=64
    )
    for pragma in WRITER_PRAGMAS:
        connection.execute(pragma)
    return connection


def connect_reader(path: Path, *, check_same_thread: bool = True) -> sqlite3.Connection:
    """A connection that only reads, and sees each commit of others from its next statement on.

    Without `check_same_thread` threads may use it one after the other.
    """
    connection = sqlite3.connect(
        place_of(path), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=check_same_thread
    )
    for pragma in READER_PRAGMAS:
        connection.execute(pragma)
    return connection


def place_of(path: Path) -> str:
    """The file as a URI for SQLite, which otherwise would make an empty one in the place of one that is missing."""
    return f"{path.absolute().as_uri()}?mode=rw"


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into StoreError with words for the operator."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(f"the store {path} failed: {error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
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
def one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read in the block is the store as it was at its first statement, while others write.

    Keep it short: while it lasts, the write-ahead log grows.
    """
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:  # an I/O error has ended it
            connection.execute("ROLLBACK")


def _make_file(path: Path) -> None:
    """An empty file, mode 0600, for SQLite to fill; its -wal and -shm take the mode over."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreError(f"the store {path} cannot be opened: {error.strerror}") from None


def _schema(connection: sqlite3.Connection) -> int:
    """How many of the scripts the store has seen."""
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    return int(found)


def _migrate(connection: sqlite3.Connection, sealer: Sealer, path: Path) -> None:
    scripts = _scripts()
    found = _schema(connection)
    if found > len(scripts):
        raise StoreError(f"the store {path} was made by a newer relay700 (schema {found}): install that version")
    if found == len(scripts):
        return
    if 0 < found < FIRST_SCHEMA:
        raise StoreError(f"the store {path} was made before the first release: move it away, and a new one is made")
    connection.create_function("seal", 2, sealer.seal)
    with transaction(connection):
        found = _schema(connection)  # another process may have been faster
        for script in scripts[found:]:
            for statement in _statements(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(scripts)}")


def _scripts() -> list[str]:
    files = sorted(
        (file for file in resources.files("relay.store").joinpath("schema").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    return [file.read_text(encoding="utf-8") for file in files]


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: `executescript` would commit the transaction they belong to."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _check_key(connection: sqlite3.Connection, sealer: Sealer, key_file: Path) -> None:
    expected = sealer.lookup_hash("key check")
    with transaction(connection):
        connection.execute(
            "INSERT INTO key_check SELECT ? WHERE NOT EXISTS (SELECT 1 FROM key_check)",
            (expected,),
        )
        rows = connection.execute("SELECT hash FROM key_check").fetchall()
    if rows != [(expected,)]:
        raise StoreError(f"the key file {key_file} belongs to another store: put the right one back")
