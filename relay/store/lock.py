"""Lock files beside a store: what one process alone may do with it. The system lets go of them, however it ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from relay.errors import StoreError
from relay.store.permissions import open_beside


def open_lock(store: Path, suffix: str) -> int:
    """The descriptor of the lock file, mode 0600, which is made where there is none. Raises StoreError."""
    try:
        return open_beside(store.with_name(store.name + suffix), os.O_RDWR)
    except OSError as error:
        raise StoreError(f"the lock file of {store} cannot be opened: {error.strerror}") from None


def takes(lock: int) -> bool:
    """Whether it is ours now, until it is closed; else another process has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_served(store: Path) -> bool:
    """Whether a relay has the lock of the store now. It makes no lock file: that says that the store was served."""
    if not store.with_name(store.name + ".lock").exists():
        return False
    lock = open_lock(store, ".lock")
    try:
        return not takes(lock)
    finally:
        os.close(lock)
