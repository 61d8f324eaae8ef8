"""The store's files: their permissions, whether they are still in their places, and the locks beside them.

Only the relay's user may have access to them, or replace them. Permissions are checked and never changed: silently
fixing the mode would not revoke a descriptor or a link that another user already has.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shlex
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.connection import Place, local_path

# The files named after the store: itself, SQLite's log and its index, and the files of the relay.
SUFFIXES: Final = (
    *("", "-wal", "-shm", ".captures", ".captures-wal", ".captures-shm"),
    *(".overflow", ".lock", ".backend.lock", ".anchor", ".attempts"),
)


def check_permissions(place: Place, key_file: Path) -> None:
    """Raises StoreError with every fault and its fix. A missing file is not a fault."""
    path = local_path(place)
    if faults := [*_folder_faults(path, key_file), *_file_faults(path, key_file)]:
        raise StoreError("; ".join(faults))


def open_beside(path: Path, flags: int) -> int:
    """Open a file beside the store, creating it with mode 0600 if needed. Raises OSError, also for a symlink."""
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _folder_faults(path: Path, key_file: Path) -> Iterator[str]:
    for folder in dict.fromkeys((path.parent, key_file.parent)):
        found = _found(folder, follow=True)
        if found is None:
            continue
        name = shlex.quote(str(folder))
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o022 and not mode & stat.S_ISVTX:
            yield f"the folder {folder} can be written by others (mode {mode:04o}): chmod go-w {name}"
        if found.st_uid not in {0, *_owners(path)}:
            yield f"the folder {folder} belongs to another user: chown {_user()} {name}"


def _file_faults(path: Path, key_file: Path) -> Iterator[str]:
    owners = _owners(path)
    for file in (*(path.with_name(path.name + suffix) for suffix in SUFFIXES), key_file):
        is_key = file is key_file  # may be a symlink, as container secrets are
        found = _found(file, follow=is_key)
        if found is None:
            continue
        name = shlex.quote(str(file))
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISLNK(found.st_mode):
            yield f"{file} is a symlink: put the file itself there, or delete the link with rm {name}"
        elif found.st_uid not in (owners | {0} if is_key else owners):
            yield f"{file} belongs to another user: chown {_user()} {name}"
        elif mode & 0o077 and not is_key:  # check_key_mode is for the key
            yield f"{file} is open to other users (mode {mode:04o}): chmod go= {name}"


def check_key_mode(path: Path, found: os.stat_result) -> None:
    """Raise StoreError if a file with a key can be read by others than its user.

    Root may let one of our groups read its file: so containers get their secrets (Kubernetes: `fsGroup`, mode 0440).
    A command of root takes the group of the folder for ours.
    """
    mode = stat.S_IMODE(found.st_mode)
    if not mode & 0o077:
        return
    if found.st_uid == 0 and not mode & 0o037:
        groups = {os.getegid(), *os.getgroups()} | ({path.parent.stat().st_gid} if os.geteuid() == 0 else set())
        if found.st_gid in groups:
            return
        ours = os.getegid()
        raise StoreError(f"the key file {path} is open to a group that this user is not in: chgrp {ours} {path}")
    raise StoreError(f"the key file {path} is open to other users (mode {mode:04o}): chmod 600 {path}")


def _owners(path: Path) -> set[int]:
    """The users who may own the files: this process's, and for a command of root the owner of the folder."""
    us = os.geteuid()
    folder = _found(path.parent, follow=True) if us == 0 else None
    return {us} if folder is None else {us, folder.st_uid}


def _user() -> str:
    return str(os.geteuid())


def _found(path: Path, *, follow: bool) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)
    except OSError:
        return None


# -- Detects that the files of an open store were moved

_PAGE_SIZE: Final = slice(16, 18)  # in the 100-byte header of SQLite's file format
_PAGES: Final = slice(28, 32)
_LARGEST_PAGE: Final = 65_536  # stored as 1
_PAUSE_S: Final = 0.02
_MOVED: Final = "was moved away or deleted"


class Displaced(StoreError):
    """A file of the store is not the one that a connection has open.

    Do not close that connection: the last one to close makes SQLite delete the files by name.
    """

    def __init__(self, file: Path, what: str, *, is_log: bool) -> None:
        """`is_log`: the file is the write-ahead log or its index, and the store itself is in place."""
        super().__init__(f"{file} {what}")
        self.file = file
        self.is_log = is_log


class _OpenFile(NamedTuple):
    name: str  # not a Path: converting one takes longer than the stat
    is_log: bool  # as in Displaced
    identity: tuple[int, int]  # device and inode


class StoreFiles:
    """The files that a connection has open. Create it after the first read, which opens all three."""

    def __init__(self, place: Place) -> None:
        """For a store on a server there are no files to check.

        Raises OperationalError if a file is gone: nothing tells then which ones the connection has.
        """
        self._path = path = local_path(place)
        files = [path, *_logs(path)] if isinstance(place, Path) else []
        names = [str(file) for file in files]
        self._open_files: list[_OpenFile] = []
        self._size = 0  # of the store itself, at the last check
        for name in names:
            is_log = bool(self._open_files)
            if (found := _stat(name)) is None:
                raise sqlite3.OperationalError(f"{name} {_MOVED}")
            self._open_files.append(_OpenFile(name, is_log, _identity(found)))
            self._size = self._size if is_log else found.st_size

    def displaced(self) -> Displaced | None:
        """The first displaced file, if any, in about 4 us. A file may be put back later."""
        size = 0
        for name, is_log, identity in self._open_files:
            found = _stat(name)
            if found is None:
                return Displaced(Path(name), _MOVED, is_log=is_log)
            if _identity(found) != identity:
                return Displaced(Path(name), "was replaced by another file", is_log=is_log)
            if not is_log:
                size = found.st_size  # a second stat could fail if the file goes meanwhile
        return self._cut_short(size)

    def _cut_short(self, size: int) -> Displaced | None:
        try:
            if size < self._size and size < _needed(self._path):  # VACUUM also makes it smaller
                return Displaced(self._path, "was cut short", is_log=False)
        except OSError:  # without a free descriptor the header cannot be found: the next check tries again
            return None
        self._size = size
        return None


def require_log(path: Path, patience_s: float) -> None:
    """Raise StoreError if the write-ahead log is gone that another process, the relay, has open.

    SQLite would make a new log in its place, and the content of the deleted one would be lost. A relay that starts or
    stops has none for a moment: that is waited for, up to `patience_s`.
    """
    log = path.with_name(path.name + "-wal")
    until = time.monotonic() + patience_s
    while not log.exists() and _is_served_by_another(path):
        if time.monotonic() >= until:
            raise StoreError(f"{log} was deleted while the relay runs, which makes it again within seconds: try again")
        time.sleep(_PAUSE_S)


def _is_served_by_another(store: Path) -> bool:
    """As `is_served`, by another process than this one. Does not try the lock: a relay that starts may do so now."""
    lock = _stat(str(store.with_name(store.name + ".lock")))
    if lock is None:
        return False
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, *_, process, file, _, _ = line.split()  # proc_locks(5); "->" instead of a kind: waits for the lock
        if kind == "FLOCK" and file.endswith(f":{lock.st_ino}") and int(process) != os.getpid():
            return True
    return False


def holds_deleted_log(path: Path) -> bool:
    """Whether this process still has a deleted write-ahead log of the store, or its index, open.

    A new connection would share that index, and be cut off from other processes.
    """
    gone = {f"{file.resolve()} (deleted)" for file in _logs(path)}
    return any(name in gone for _, name in _open_files())


def _logs(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("-wal", "-shm")]


def _stat(name: str) -> os.stat_result | None:
    try:
        return os.stat(name)
    except OSError:
        return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return (found.st_dev, found.st_ino)


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


# -- Lock files beside a store, each held by one process. The kernel releases them however the process ends


def make_once(path: Path, text: str) -> None:
    """Create a private file, durably, and its folder. One that exists by then is left alone. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = written_beside(path, text)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def written_beside(path: Path, text: str) -> Path:
    """Write a private temporary file, durably, to replace the one at `path`. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:  # os.write may write a part
        file.write(text.encode())
        file.flush()
        os.fsync(descriptor)
    return temporary


def open_lock(store: Path, suffix: str) -> int:
    """Open the lock file, creating it with mode 0600 if needed. Return its descriptor. Raises StoreError."""
    try:
        return open_beside(store.with_name(store.name + suffix), os.O_RDWR)
    except OSError as error:
        raise StoreError(f"the lock file of {store} cannot be opened: {error.strerror}") from None


def try_lock(lock: int) -> bool:
    """Take the lock, until its descriptor is closed. False if another process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_served(store: Path) -> bool:
    """Whether a relay holds the store's lock now. Creates no lock file: one marks a store that was served before."""
    if not store.with_name(store.name + ".lock").exists():
        return False
    lock = open_lock(store, ".lock")
    try:
        return not try_lock(lock)
    finally:
        os.close(lock)
