"""Lock files beside a store, each held by one process. The kernel releases them however the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from relay.errors import StoreError
from relay.store.files import open_beside


def open_lock(store: Path, suffix: str) -> int:
    """Open the lock file, creating it with mode 0600 if needed. Return its descriptor. Raises StoreError."""
    try:
        return open_beside(store.with_name(store.name + suffix), os.O_RDWR)
    except OSError as error:
        raise StoreError(f"the lock file of {store} cannot be opened: {error.strerror}") from None


def takes(lock: int) -> bool:
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
        return not takes(lock)
    finally:
        os.close(lock)
