"""Whether the files of an open store still are where they were opened. It opens and changes none of them.

SQLite goes on with the files that it has open. What it writes to one that was moved away, deleted or replaced is on
disk, and yet nobody will ever find it. So whoever promises that something is durable looks here first: the journal
before each transaction, look-ups each second. What stands in a write-ahead log that was deleted the journal moves into
the store; then all let go of that log, the desk by being started anew, since one process shares one index of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.server import Place, local_path

_PAGE_SIZE: Final = slice(16, 18)  # of the file's first 100 bytes, as SQLite's file format has them
_PAGES: Final = slice(28, 32)
_LARGEST_PAGE: Final = 65_536  # which is written as 1


class Displaced(StoreError):
    """A file of the store is not what a connection has open any more.

    Such a connection must be kept: SQLite deletes the files by their names where it is closed as the last one.
    """

    def __init__(self, file: Path, what: str, *, is_log: bool) -> None:
        """`is_log`: it is the write-ahead log or its index, and the store itself is in its place."""
        super().__init__(f"{file} {what}")
        self.file = file
        self.is_log = is_log


class _Place(NamedTuple):
    name: str  # no path: to make a name of one takes longer than to look there
    is_log: bool  # as of Displaced
    identity: tuple[int, int] | None  # device and inode


class StoreFiles:
    """What a connection has open. To be made when it has read something: from then on it has all three files."""

    def __init__(self, place: Place) -> None:
        """A store on a server has none here."""
        self._path = path = local_path(place)
        files = [path, *_logs(path)] if isinstance(place, Path) else []
        names = [str(file) for file in files]
        self._places = [_Place(name, index > 0, _identity(_found(name))) for index, name in enumerate(names)]
        self._size = os.stat(path).st_size if files else 0

    def displaced(self) -> Displaced | None:
        """The first that is not what it was; some 4 us. It may be again what it was later."""
        size = 0
        for name, is_log, identity in self._places:
            found = _found(name)
            if found is None:
                return Displaced(Path(name), "was moved away or deleted", is_log=is_log)
            if _identity(found) != identity:
                return Displaced(Path(name), "was replaced by another file", is_log=is_log)
            if not is_log:
                size = found.st_size  # to look again would find nothing where it goes meanwhile
        return self._cut_short(size)

    def _cut_short(self, size: int) -> Displaced | None:
        if size < self._size and size < _needed(self._path):  # VACUUM too makes it smaller
            return Displaced(self._path, "was cut short", is_log=False)
        self._size = size
        return None


def holds_deleted_log(path: Path) -> bool:
    """Whether a connection of this process still has a log of the store, or its index, that was deleted.

    A connection that is opened meanwhile shares that index with it, and is alone with both.
    """
    gone = {f"{file.resolve()} (deleted)" for file in _logs(path)}
    return any(name in gone for _, name in _open_files())


def _logs(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


def _found(name: str) -> os.stat_result | None:
    try:
        return os.stat(name)
    except OSError:
        return None


def _identity(found: os.stat_result | None) -> tuple[int, int] | None:
    return None if found is None else (found.st_dev, found.st_ino)


def _needed(path: Path) -> int:
    """How large the file is by what stands in its head; 100 bytes where there is none."""
    head = _head(path)
    if len(head) < 100:
        return 100
    size = int.from_bytes(head[_PAGE_SIZE])
    return int.from_bytes(head[_PAGES]) * (_LARGEST_PAGE if size == 1 else size)


def _head(path: Path) -> bytes:
    """What SQLite has open is read: were it opened here, to close it would end the process's locks on it (fcntl).

    Whoever closes the store next would then take himself for the last one, and delete the log.
    """
    for descriptor, name in _open_files():
        if name == str(path.resolve()):
            return os.pread(descriptor, 100, 0)
    return b""


def _open_files() -> Iterator[tuple[int, str]]:
    """The descriptors of this process, and what they are of."""
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            yield int(descriptor), os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # that of the list itself
            continue


def sync_folder(folder: Path) -> None:
    """Makes durable what was made or renamed in it. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
