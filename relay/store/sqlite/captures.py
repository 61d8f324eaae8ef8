"""The file of captures beside a store in a file, whose size on the disk follows its content.

Deleted rows leave free pages, which the next rows reuse; pages above the limit are cut off. Only checkpoints sync,
so the last captures may be missing after a power failure.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from relay.store.connection import Connection
from relay.store.database import BUSY_TIMEOUT_S, SECURE_DELETE, uri_of
from relay.store.files import open_beside

SUFFIX: Final = ".captures"
_FORMAT: Final = 2
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_MOST_CUT: Final = 20_000  # pages cut off at a time, some 0.2 s
_PRAGMAS: Final = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # before the first table
    "PRAGMA journal_mode = WAL",
    "PRAGMA journal_size_limit = 4194304",
    "PRAGMA synchronous = NORMAL",
    SECURE_DELETE,
)
_TABLES: Final = (
    """
    CREATE TABLE capture (
        call_id TEXT NOT NULL,
        at      INTEGER NOT NULL, -- of the first message, Unix microseconds
        sealed  BLOB NOT NULL,
        share   BLOB NOT NULL,    -- whose room it takes
        size    INTEGER GENERATED ALWAYS AS (length(sealed)) VIRTUAL,
        PRIMARY KEY (call_id, at)
    ) STRICT
    """,
    "CREATE INDEX capture_at ON capture (at)",
    "CREATE INDEX capture_share ON capture (share, at, size)",  # sums need no row: 17 ms, not 310, in 512 MB
    f"PRAGMA user_version = {_FORMAT}",
)


class _OtherFormat(sqlite3.DatabaseError):
    """The file was made by another version."""


class CaptureFile:
    """As `relay.store.captures.CaptureStatements`."""

    begin = "BEGIN IMMEDIATE"
    size = "size"

    def __init__(self, store: Path) -> None:
        self.path = store.with_name(store.name + SUFFIX)
        self._identity: tuple[int, int] | None = None  # of the open file

    def is_there(self) -> bool:
        return self.path.exists()

    def is_current(self) -> bool:
        return self._found() == self._identity

    def connect(self) -> Connection:
        # An existing file is not opened: closing it again would drop the locks of this process's other connections, and
        # the next process to close its own would delete the WAL that they write to.
        try:
            os.close(open_beside(self.path, os.O_WRONLY | os.O_EXCL))
        except FileExistsError:
            if self.path.is_symlink():
                raise sqlite3.OperationalError(f"{self.path} is a symlink") from None
        except OSError as error:
            raise sqlite3.OperationalError(f"{self.path}: {error.strerror}") from None
        connection = sqlite3.connect(
            uri_of(self.path), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._identity = self._found()
        return connection

    def damage(self, error: Exception) -> str | None:
        is_damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
        return str(error) if is_damaged or isinstance(error, _OtherFormat) else None

    def remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def make_room(self, connection: Connection, times_us: Iterable[int]) -> None:
        pass

    def used(self, connection: Connection) -> int:
        pages, free, size = (_number(connection, name) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def give_back(self, connection: Connection, max_bytes: int, oldest_us: int) -> None:
        above = _number(connection, "page_count") - max_bytes // _number(connection, "page_size")
        for _ in range(min(above, _number(connection, "freelist_count"), _MOST_CUT)):
            connection.execute("PRAGMA incremental_vacuum")  # a page: the module takes one step of it

    def _found(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _prepare(connection: sqlite3.Connection) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    if _number(connection, "user_version") == _FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")  # another process may be making the tables
    try:
        if (made := _number(connection, "user_version")) not in (0, _FORMAT):
            raise _OtherFormat(f"it has the format {made}, and this version reads {_FORMAT}")
        for statement in () if made else _TABLES:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _number(connection: Connection, pragma: str) -> int:
    (found,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(found)
