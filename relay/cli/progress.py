"""Progress bars of long commands; nothing is shown unless stderr is a terminal."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click


@contextmanager
def progress(length: int, label: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that takes the number of steps just done, of `length` in all; 0 if unknown."""
    if not length or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update
        bar.finish()


@contextmanager
def file_progress(file: TextIO, label: str) -> Iterator[Callable[[], None]]:
    """Yield a function to call now and then while the file is read; it shows how far."""
    size = _size(file)
    read = 0
    with progress(size, label) as step:

        def done() -> None:
            nonlocal read
            if size:
                place = file.buffer.tell()
                step(place - read)
                read = place

        yield done


def _size(file: TextIO) -> int:
    """Size in bytes; 0 for anything but a regular file."""
    try:
        found = os.fstat(file.fileno())
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
