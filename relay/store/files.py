"""Detects that the files of an open store were moved, deleted or replaced. It opens and changes none of them.

SQLite keeps writing to the files that it has open. Data written to a file that was moved away, deleted or replaced is
on disk and still lost. So the journal checks the files before each transaction, and the look-up every second. If the
write-ahead log was deleted, the journal moves its content into the store; then every connection closes that log. The
backend does so by a restart, since the connections of a process share one index of the log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.server import Place, local_path

_PAGE_SIZE: Final = slice(16, 18)  # in the 100-byte header of SQLite's file format
_PAGES: Final = slice(28, 32)
_LARGEST_PAGE: Final = 65_536  # stored as 1


class Displaced(StoreError):
    """A file of the store is not the one that a connection has open.

    Do not close that connection: the last one to close makes SQLite delete the files by name.
    """

    def __init__(self, file: Path, what: str, *, is_log: bool) -> None:
        """`is_log`: the file is the write-ahead log or its index, and the store itself is in place."""
        super().__init__(f"{file} {what}")
        self.file = file
        self.is_log = is_log


class _Place(NamedTuple):
    name: str  # not a Path: converting one takes longer than the stat
    is_log: bool  # as in Displaced
    identity: tuple[int, int] | None  # device and inode


class StoreFiles:
    """The files that a connection has open. Create it after the first read, which opens all three."""

    def __init__(self, place: Place) -> None:
        """For a store on a server there are no files to check."""
        self._path = path = local_path(place)
        files = [path, *_logs(path)] if isinstance(place, Path) else []
        names = [str(file) for file in files]
        self._places = [_Place(name, index > 0, _identity(_found(name))) for index, name in enumerate(names)]
        self._size = os.stat(path).st_size if files else 0

    def displaced(self) -> Displaced | None:
        """The first displaced file, if any, in about 4 us. A file may be put back later."""
        size = 0
        for name, is_log, identity in self._places:
            found = _found(name)
            if found is None:
                return Displaced(Path(name), "was moved away or deleted", is_log=is_log)
            if _identity(found) != identity:
                return Displaced(Path(name), "was replaced by another file", is_log=is_log)
            if not is_log:
                size = found.st_size  # a second stat could fail if the file goes meanwhile
        return self._cut_short(size)

    def _cut_short(self, size: int) -> Displaced | None:
        if size < self._size and size < _needed(self._path):  # VACUUM also makes it smaller
            return Displaced(self._path, "was cut short", is_log=False)
        self._size = size
        return None


def holds_deleted_log(path: Path) -> bool:
    """Whether this process still has a deleted write-ahead log of the store, or its index, open.

    A new connection would share that index, and be cut off from other processes.
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
    """The file size by its header, in bytes; 100 without a header."""
    head = _head(path)
    if len(head) < 100:
        return 100
    size = int.from_bytes(head[_PAGE_SIZE])
    return int.from_bytes(head[_PAGES]) * (_LARGEST_PAGE if size == 1 else size)


def _head(path: Path) -> bytes:
    """Read the header through SQLite's descriptor: closing another one would drop the process's fcntl locks.

    The next process to close the store would then believe that it is the last, and delete the log.
    """
    for descriptor, name in _open_files():
        if name == str(path.resolve()):
            return os.pread(descriptor, 100, 0)
    return b""


def _open_files() -> Iterator[tuple[int, str]]:
    """The descriptors of this process, with the names of their files."""
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            yield int(descriptor), os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue


def sync_folder(folder: Path) -> None:
    """Make durable what was created or renamed in a folder. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
