"""Lock files: one holder at a time, private, and released when the holder ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.lock import is_served, open_lock, takes


def test_lock_is_held_until_it_is_closed(tmp_path: Path) -> None:
    store = tmp_path / "relay.db"
    first, second = open_lock(store, ".lock"), open_lock(store, ".lock")
    other = open_lock(store, ".backend.lock")
    try:
        assert takes(first)
        assert not takes(second)
        assert takes(other)
        os.close(first)
        assert takes(second)
    finally:
        os.close(second)
        os.close(other)


def test_lock_file_is_private(tmp_path: Path) -> None:
    os.close(open_lock(tmp_path / "relay.db", ".backend.lock"))
    assert (tmp_path / "relay.db.backend.lock").stat().st_mode & 0o777 == 0o600


def test_error_names_a_lock_file_that_cannot_be_created(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the lock file of .*relay\.db cannot be opened: No such file"):
        open_lock(tmp_path / "gone" / "relay.db", ".lock")


def test_is_served_creates_no_lock_file(tmp_path: Path) -> None:
    store = tmp_path / "relay.db"
    assert not is_served(store)
    assert os.listdir(tmp_path) == []
    lock = open_lock(store, ".lock")
    assert not is_served(store)
    assert takes(lock) and is_served(store)
    os.close(lock)
