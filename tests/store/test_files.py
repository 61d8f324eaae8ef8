"""The store's files: displaced ones, locks beside them, permissions."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.connection import PostgresServer
from relay.store.database import connect, connect_reader, open_store
from relay.store.files import (
    SUFFIXES,
    StoreFiles,
    check_permissions,
    holds_deleted_log,
    is_served,
    open_lock,
    require_log,
    try_lock,
)
from relay.store.journal.overflow import Overflow
from relay.store.sealing.sealer import load_key
from tests.store.conftest import Disk
from tests.support.limits import soft_limit


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


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_file_that_goes_before_the_first_check_is_displaced(
    disk: Disk, connection: sqlite3.Connection, suffix: str
) -> None:
    file = Path(f"{disk.path}{suffix}")
    file.rename(file.with_name("away"))
    with pytest.raises(sqlite3.OperationalError, match=f"{file} was moved away or deleted"):
        StoreFiles(disk.path)


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


def test_truncated_store_is_displaced_once_a_descriptor_is_free_to_look_with(disk: Disk, files: StoreFiles) -> None:
    os.truncate(disk.path, 50)
    with soft_limit(resource.RLIMIT_NOFILE, 3):
        assert said(files) == ""
    assert said(files) == f"{disk.path} was cut short"


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


@pytest.fixture
def relay_elsewhere(disk: Disk) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store's lock, as a relay does."""
    os.close(open_lock(disk.path, ".lock"))
    holds = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", holds, f"{disk.path}.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.parametrize("opens", [connect, partial(connect_reader, in_loop=True)])
def test_no_log_is_made_in_place_of_a_relay_s_deleted_one(
    monkeypatch: pytest.MonkeyPatch, disk: Disk, relay_elsewhere: subprocess.Popen[str], opens: Callable[[Path], object]
) -> None:
    monkeypatch.setattr("relay.store.database.BUSY_TIMEOUT_S", 0)
    log = Path(f"{disk.path}-wal")
    assert not log.exists()
    with pytest.raises(StoreError, match=f"^{log} was deleted while the relay runs"):
        opens(disk.path)
    assert not log.exists()


def test_log_of_a_relay_that_starts_is_waited_for(disk: Disk, relay_elsewhere: subprocess.Popen[str]) -> None:
    threading.Timer(0.1, Path(f"{disk.path}-wal").touch).start()
    require_log(disk.path, 30)


def test_log_is_made_once_the_relay_has_ended(disk: Disk, relay_elsewhere: subprocess.Popen[str]) -> None:
    relay_elsewhere.kill()
    relay_elsewhere.wait()
    require_log(disk.path, 0)


def test_log_is_made_by_the_relay_itself(disk: Disk) -> None:
    lock = open_lock(disk.path, ".lock")
    assert try_lock(lock)
    require_log(disk.path, 0)
    os.close(lock)


# -- Lock files: one holder at a time, private, and released when the holder ends


def test_lock_is_held_until_it_is_closed(tmp_path: Path) -> None:
    store = tmp_path / "relay.db"
    first, second = open_lock(store, ".lock"), open_lock(store, ".lock")
    other = open_lock(store, ".backend.lock")
    try:
        assert try_lock(first)
        assert not try_lock(second)
        assert try_lock(other)
        os.close(first)
        assert try_lock(second)
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
    assert try_lock(lock) and is_served(store)
    os.close(lock)


# -- Files of the store that others could use or replace: the start is refused with the fix


SOMEBODY = 12_345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def opens(disk: Disk) -> bool:
    return open_store(disk.path, disk.key_file).key_id == disk.sealer.key_id


def refusal(disk: Disk) -> str:
    with pytest.raises(StoreError) as refused:
        open_store(disk.path, disk.key_file)
    return str(refused.value)


def mended_as_told(disk: Disk) -> None:
    """Run the fix in the error text, after which the store opens."""
    for fault in refusal(disk).split("; "):
        subprocess.run(fault.rpartition(": ")[2], shell=True, check=True)
    assert opens(disk)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o702])
def test_folder_writable_by_others_is_refused(disk: Disk, mode: int) -> None:
    disk.path.parent.chmod(mode)
    assert f"{disk.path.parent} can be written by others (mode {mode:04o})" in refusal(disk)
    mended_as_told(disk)


def test_key_folder_writable_by_others_is_refused(disk: Disk) -> None:
    disk.key_file.parent.chmod(0o777)
    mended_as_told(disk)


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_folder_where_others_cannot_replace_files_is_accepted(disk: Disk, mode: int) -> None:
    disk.path.parent.chmod(mode)
    assert opens(disk)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", [0o666, 0o640, 0o604])
def test_file_open_to_others_is_refused(disk: Disk, suffix: str, mode: int) -> None:
    file = disk.path.with_name(disk.path.name + suffix)
    file.touch()
    file.chmod(mode)
    assert f"{file} is open to other users (mode {mode:04o}): chmod go= {file}" in refusal(disk)
    mended_as_told(disk)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_symlink_in_place_of_a_file_is_refused(disk: Disk, tmp_path: Path, suffix: str) -> None:
    file = disk.path.with_name(disk.path.name + suffix)
    file.unlink(missing_ok=True)
    file.symlink_to(tmp_path / "elsewhere")
    assert f"{file} is a symlink" in refusal(disk)
    assert not (tmp_path / "elsewhere").exists()


def test_symlink_to_the_key_is_accepted(disk: Disk) -> None:
    disk.key_file.rename(disk.key_file.with_name("real"))
    disk.key_file.symlink_to("real")
    assert opens(disk)


@as_root
def test_a_key_of_root_is_accepted_for_the_folder_owner(disk: Disk) -> None:
    """A container has it so: the folder is its user's, the secret root's."""
    os.chown(disk.path.parent, SOMEBODY, SOMEBODY)
    for file in disk.path.parent.glob("relay.db*"):
        os.chown(file, SOMEBODY, SOMEBODY)
    for secret in (disk.key_file.parent, disk.key_file):
        os.chown(secret, 0, SOMEBODY)
    disk.key_file.chmod(0o440)
    assert opens(disk)


@as_root
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_file_of_another_user_is_refused(disk: Disk, suffix: str) -> None:
    file = disk.path.with_name(disk.path.name + suffix)
    file.touch(0o600)
    os.chown(file, SOMEBODY, SOMEBODY)
    assert f"{file} belongs to another user: chown 0 {file}" in refusal(disk)
    mended_as_told(disk)


@as_root
def test_root_may_use_the_store_of_the_folder_owner(disk: Disk) -> None:
    """The owner of the folder owns the store."""
    for file in (disk.path.parent, *disk.path.parent.iterdir(), disk.key_file):
        os.chown(file, SOMEBODY, SOMEBODY)
    assert opens(disk)


def test_error_lists_every_fault(disk: Disk) -> None:
    disk.path.parent.chmod(0o777)
    disk.path.chmod(0o666)
    assert len(refusal(disk).split("; ")) == 2
    mended_as_told(disk)


def test_local_files_of_a_server_node_are_checked(tmp_path: Path) -> None:
    server = PostgresServer("postgresql:///relay", "a", tmp_path / "relay.a")
    os.close(open_lock(server.local, ".lock"))
    check_permissions(server, tmp_path / "relay.key")
    (tmp_path / "relay.a.lock").chmod(0o644)
    with pytest.raises(StoreError, match="chmod go= "):
        check_permissions(server, tmp_path / "relay.key")


@pytest.mark.parametrize("use", ["overflow", "lock"])
def test_symlink_created_after_the_check_is_not_followed(disk: Disk, tmp_path: Path, use: str) -> None:
    target = tmp_path / "elsewhere"
    disk.path.with_name(f"{disk.path.name}.{use}").symlink_to(target)
    opens: dict[str, Callable[[], object]] = {
        "overflow": Overflow(disk.path.with_name("relay.db.overflow"), load_key(disk.key_file)).open,
        "lock": lambda: open_lock(disk.path, ".lock"),
    }
    with pytest.raises((OSError, StoreError)):
        opens[use]()
    assert not target.exists()


def test_created_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        open_store(tmp_path / "var" / "relay.db", tmp_path / "var" / "relay.key")
    finally:
        os.umask(before)
    files = [tmp_path / "var", *(tmp_path / "var").iterdir()]
    assert {stat.S_IMODE(file.stat().st_mode) & 0o077 for file in files} == {0}
