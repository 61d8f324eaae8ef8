"""Whether the files of an open store are in their places."""

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

from relay.store.database import connect
from relay.store.files import StoreFiles, holds_deleted_log
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
def test_a_file_that_is_moved_away_is_missed_until_it_is_back(disk: Disk, files: StoreFiles, suffix: str) -> None:
    file = Path(f"{disk.path}{suffix}")
    assert files.displaced() is None
    away = file.rename(file.with_name("away"))
    displaced = files.displaced()
    assert displaced is not None
    assert str(displaced) == f"{file} was moved away or deleted"
    assert displaced.is_log == bool(suffix)
    away.rename(file)
    assert files.displaced() is None


def test_a_file_that_goes_while_it_is_looked_at_is_missed_the_next_time(
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


def test_a_copy_in_its_place_is_another_file(disk: Disk, files: StoreFiles) -> None:
    copy = shutil.copy(disk.path, disk.path.with_name("copy"))
    os.replace(copy, disk.path)
    assert said(files) == f"{disk.path} was replaced by another file"


@pytest.mark.parametrize("size", [0, 50, 8192])
def test_a_store_that_was_cut_short_is_seen_until_it_is_whole(disk: Disk, files: StoreFiles, size: int) -> None:
    whole = disk.path.read_bytes()
    os.truncate(disk.path, size)
    assert said(files) == f"{disk.path} was cut short"
    disk.path.write_bytes(whole)
    assert said(files) == ""


def test_one_that_grew_and_was_made_smaller_by_vacuum_is_whole(disk: Disk, files: StoreFiles) -> None:
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


def test_to_look_ends_no_lock_of_sqlite(disk: Disk, files: StoreFiles) -> None:
    """Without one, whoever closes the store elsewhere takes himself for the last, and deletes the log."""
    size = disk.path.stat().st_size
    os.truncate(disk.path, 2 * size)
    assert said(files) == ""
    os.truncate(disk.path, size)
    assert said(files) == ""  # smaller than it was: it had to look
    elsewhere = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM business'); c.close()"
    subprocess.run([sys.executable, "-c", elsewhere, str(disk.path)], check=True)
    assert said(files) == ""


@pytest.mark.parametrize("remove", [lambda wal, shm: wal.unlink(), lambda wal, shm: shm.unlink()], ids=["-wal", "-shm"])
def test_a_deleted_log_is_held_until_the_connection_is_closed(disk: Disk, remove: Callable[[Path, Path], None]) -> None:
    connection = connect(disk.path)
    connection.execute("SELECT * FROM business").fetchall()
    assert not holds_deleted_log(disk.path)
    remove(Path(f"{disk.path}-wal"), Path(f"{disk.path}-shm"))
    assert holds_deleted_log(disk.path)
    connection.close()
    assert not holds_deleted_log(disk.path)
