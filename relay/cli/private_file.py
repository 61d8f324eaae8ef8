"""Output files readable by their user alone, since they may hold real numbers.

In a shared folder such as /tmp another user could prepare a file, to read the output, or a link, to have another file
overwritten: both are refused.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from relay.errors import StoreError

FILE_OR_DASH = click.Path(path_type=Path, dir_okay=False, allow_dash=True)  # -: standard output


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """Yield the file, emptied, or standard output for "-". Raises StoreError if it cannot be written."""
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with os.fdopen(_open_private(path), "wb") as file:
            yield file
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


@contextmanager
def appended(path: Path) -> Iterator[BinaryIO]:
    """Yield the file for appending; synced to disk at the end. Raises StoreError."""
    try:
        with os.fdopen(_open_private(path, keep=True), "ab") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def _open_private(path: Path, *, keep: bool = False) -> int:
    """Open the file for writing; without `keep` it is emptied. A new file gets mode 0600, an existing one keeps its.

    Raises OSError, also for a file, pipe or link that belongs to another user.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if keep else 0)
    us = os.geteuid()
    try:
        descriptor, is_checked = os.open(path, flags | os.O_NOFOLLOW, 0o600), False
    except OSError as error:
        if error.errno != errno.ELOOP or os.lstat(path).st_uid not in (0, us):  # root owns the link /dev/stdout
            raise _others() if error.errno == errno.ELOOP else error from None
        descriptor, is_checked = os.open(path, flags, 0o600), True
    found = os.fstat(descriptor)
    is_file = stat.S_ISREG(found.st_mode)
    if found.st_uid != us and (is_file or (stat.S_ISFIFO(found.st_mode) and not is_checked)):
        os.close(descriptor)
        raise _others()
    if is_file and not keep:
        os.ftruncate(descriptor, 0)
    return descriptor


def _others() -> PermissionError:
    return PermissionError(errno.EPERM, "it belongs to another user: name another file")
