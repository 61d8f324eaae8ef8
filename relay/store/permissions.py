"""Permissions of the store's files: only the relay's user may have access to them, or replace them.

Checks the files and changes nothing: silently fixing the mode would not revoke a descriptor or a link that another user
already has.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from relay.errors import StoreError
from relay.store.server import Place, local_path

# The files named after the store: itself, SQLite's log and its index, and the files of the relay.
SUFFIXES: Final = ("", "-wal", "-shm", ".spill", ".lock", ".desk.lock", ".anchor", ".attempts")


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
        elif found.st_uid not in owners:
            yield f"{file} belongs to another user: chown {_user()} {name}"
        elif mode & 0o077 and not is_key:  # read_key_file checks the mode of the key
            yield f"{file} is open to other users (mode {mode:04o}): chmod go= {name}"


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
