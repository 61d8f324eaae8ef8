"""Files of the store that others could use or replace: the start is refused with the fix."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.connection import PostgresServer
from relay.store.database import open_store
from relay.store.files import SUFFIXES, check_permissions, open_lock
from relay.store.journal.overflow_log import Overflow
from relay.store.sealing.sealer import load_key
from tests.store.conftest import Disk

SOMEBODY = 12_345

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def refusal(disk: Disk) -> str:
    with pytest.raises(StoreError) as refused:
        open_store(disk.path, disk.key_file)
    return str(refused.value)


def mended_as_told(disk: Disk) -> None:
    """Run the fix in the error text, after which the store opens."""
    for fault in refusal(disk).split("; "):
        subprocess.run(fault.rpartition(": ")[2], shell=True, check=True)
    open_store(disk.path, disk.key_file)


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
    open_store(disk.path, disk.key_file)


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
    open_store(disk.path, disk.key_file)


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
    open_store(disk.path, disk.key_file)


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
