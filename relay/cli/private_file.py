"""Files that commands write for their user alone, since they may hold real numbers.

A folder such as /tmp is everybody's: whoever puts a file of his own there first would read what is written, or have it
written over another one, by a link.
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
    """The file, empty, or standard output for "-". Raises StoreError where it cannot be written."""
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
    """The file, to be written to behind what it holds, and on disk afterwards. Raises StoreError."""
    try:
        with os.fdopen(_open_private(path, keep=True), "ab") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}") from None


def _open_private(path: Path, *, keep: bool = False) -> int:
    """A descriptor to write the file from its beginning. One that is made has mode 0600, one that is there keeps its
    own. Raises OSError, also for a file, pipe or link of another user's."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if keep else 0)
    us = os.geteuid()
    try:
        descriptor, is_checked = os.open(path, flags | os.O_NOFOLLOW, 0o600), False
    except OSError as error:
        if error.errno != errno.ELOOP or os.lstat(path).st_uid not in (0, us):  # /dev/stdout is a link of root's
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
    return PermissionError(errno.EPERM, "it is another user's: name a file of your own")
