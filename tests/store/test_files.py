"""The detection of displaced files of an open store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.files import StoreFiles, holds_deleted_log, is_served, open_lock, takes
from tests.store.conftest import Disk


@pytest.fixture
def connection(disk: Disk) -> Iterator[sqlite3.Connection]:
    with closing(connect(disk.path)) as connection:
        connection.execute("SELECT * FROM business").fetchall()
        yield connection


@pytest.fixture
def files(disk: Disk, connection: sqlite3.Connection) -> StoreFiles:
    return StoreFiles(disk.path)


def said(files: StoreFiles) -> str:
    return str(files.displaced() or "")


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_moved_file_is_displaced_until_it_is_put_back(disk: Disk, files: StoreFiles, suffix: str) -> None:
    file = Path(f"{disk.path}{suffix}")
    assert files.displaced() is None
    away = file.rename(file.with_name("away"))
    displaced = files.displaced()
    assert displaced is not None
    assert str(displaced) == f"{file} was moved away or deleted"
    assert displaced.is_log == bool(suffix)
    away.rename(file)
    assert files.displaced() is None


def test_file_that_goes_during_a_check_is_displaced_at_the_next(
    disk: Disk, files: StoreFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = os.stat

    def goes_after_the_last(file: str) -> os.stat_result:
        found = find(file)
        if file.endswith("-shm"):
            disk.path.rename(disk.path.with_name("away"))
        return found

    with monkeypatch.context() as patched:
        patched.setattr("relay.store.files.os.stat", goes_after_the_last)
        assert files.displaced() is None
    assert said(files) == f"{disk.path} was moved away or deleted"


def test_copy_in_place_of_a_file_is_displaced(disk: Disk, files: StoreFiles) -> None:
    copy = shutil.copy(disk.path, disk.path.with_name("copy"))
    os.replace(copy, disk.path)
    assert said(files) == f"{disk.path} was replaced by another file"


@pytest.mark.parametrize("size", [0, 50, 8192])
def test_truncated_store_is_displaced_until_it_is_complete(disk: Disk, files: StoreFiles, size: int) -> None:
    whole = disk.path.read_bytes()
    os.truncate(disk.path, size)
    assert said(files) == f"{disk.path} was cut short"
    disk.path.write_bytes(whole)
    assert said(files) == ""


def test_store_made_smaller_by_vacuum_is_in_place(disk: Disk, files: StoreFiles) -> None:
    with closing(connect(disk.path)) as connection:
        for statement in (
            "CREATE TABLE large AS SELECT randomblob(1000000) AS blob",
            "PRAGMA wal_checkpoint(TRUNCATE)",
        ):
            connection.execute(statement).fetchall()
        assert said(files) == ""
        before = disk.path.stat().st_size
        for statement in ("DROP TABLE large", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            connection.execute(statement).fetchall()
    assert disk.path.stat().st_size < before
    assert said(files) == ""


def test_check_drops_no_lock_of_sqlite(disk: Disk, files: StoreFiles) -> None:
    """Without the lock, another process that closes the store believes to be the last, and deletes the log."""
    size = disk.path.stat().st_size
    os.truncate(disk.path, 2 * size)
    assert said(files) == ""
    os.truncate(disk.path, size)
    assert said(files) == ""  # smaller than before, so the header was read
    elsewhere = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM business'); c.close()"
    subprocess.run([sys.executable, "-c", elsewhere, str(disk.path)], check=True)
    assert said(files) == ""


@pytest.mark.parametrize("remove", [lambda wal, shm: wal.unlink(), lambda wal, shm: shm.unlink()], ids=["-wal", "-shm"])
def test_deleted_log_is_held_until_the_connection_is_closed(disk: Disk, remove: Callable[[Path, Path], None]) -> None:
    connection = connect(disk.path)
    connection.execute("SELECT * FROM business").fetchall()
    assert not holds_deleted_log(disk.path)
    remove(Path(f"{disk.path}-wal"), Path(f"{disk.path}-shm"))
    assert holds_deleted_log(disk.path)
    connection.close()
    assert not holds_deleted_log(disk.path)


# -- Lock files: one holder at a time, private, and released when the holder ends


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
