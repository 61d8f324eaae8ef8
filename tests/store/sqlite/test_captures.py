"""The file of captures: its size on the disk, and that it is made anew."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.captures import Captures
from relay.store.sqlite.captures import CaptureFile
from tests.store.conftest import Disk, Reported
from tests.support.captured import call_id_of, captured
from tests.support.stored import NOW_MS

MIB = 1 << 20
LIMIT = 2 * MIB
WAL = 5 * MIB  # a transaction may exceed its limit a little


@pytest.fixture
def path(disk: Disk) -> Path:
    return CaptureFile(disk.path).path


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def fill(captures: Captures, first: int, calls: int, limit: int = LIMIT) -> None:
    for start in range(first, first + calls, 20):
        captures.save([captured(number, NOW_MS + number, noise=4_000) for number in range(start, start + 20)])
        captures.trim(limit, 0)


def test_the_file_stays_near_its_limit_however_many_calls_pass(disk: Disk, path: Path) -> None:
    with closing(Captures(disk.path, disk.sealer)) as captures:
        fill(captures, 0, 1_000)  # 8 MB
        size = captures.sizes().size
        assert LIMIT - MIB < size <= LIMIT
    assert on_disk(path) < LIMIT * 1.2
    assert path.with_name(f"{path.name}-wal").exists() is False


def test_the_log_beside_the_file_is_bounded(disk: Disk, path: Path) -> None:
    with closing(Captures(disk.path, disk.sealer)) as captures:
        fill(captures, 0, 1_000)
        assert on_disk(path.with_name(f"{path.name}-wal")) < WAL


@pytest.mark.usefixtures("leaves_deleted")
def test_what_is_deleted_does_not_stay_in_the_file(disk: Disk, path: Path) -> None:
    call_ids = [call_id_of(number).encode() for number in range(40)]
    with closing(Captures(disk.path, disk.sealer)) as captures:
        fill(captures, 0, 40)
    assert all(call_id in path.read_bytes() for call_id in call_ids)
    with closing(Captures(disk.path, disk.sealer)) as captures:
        captures.trim(LIMIT, NOW_MS + 20)
    assert [call_id in path.read_bytes() for call_id in call_ids] == 20 * [False] + 20 * [True]


def test_a_smaller_limit_gives_the_disk_its_room_back(disk: Disk, path: Path) -> None:
    with closing(Captures(disk.path, disk.sealer)) as captures:
        fill(captures, 0, 200)
        captures.trim(LIMIT // 4, 0)
    assert on_disk(path) < LIMIT // 3


@pytest.mark.parametrize(
    "damage",
    [b"not a database", b"SQLite format 3\0" + bytes(4_096), None],
    ids=["text", "header", "middle"],
)
def test_a_damaged_file_is_made_anew(disk: Disk, path: Path, damage: bytes | None) -> None:
    with closing(Captures(disk.path, disk.sealer)) as captures:
        captures.save([captured(1, noise=9_000)])
    if damage is None:
        with path.open("r+b") as file:
            file.seek(4_096)
            file.write(os.urandom(4 * 4_096))
    else:
        path.write_bytes(damage)
    said: Reported = []
    with closing(Captures(disk.path, disk.sealer, lambda event, fields: said.append((event, fields)))) as captures:
        assert captures.load(call_id_of(1)) is None
        assert captures.reseal() == captures.count_before(NOW_MS) == len(captures.needs()) == 0
        assert [str(path) in fault for fault in captures.verify()[1]] == [True]
        captures.save([captured(2)])
        assert captures.load(call_id_of(2)) == captured(2)
        assert captures.load(call_id_of(1)) is None
    assert [(event, fields["file"]) for event, fields in said] == [("captures.made_anew", str(path))]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_of_another_format_is_made_anew(disk: Disk, path: Path) -> None:
    with closing(CaptureFile(disk.path).connect()) as other:
        other.execute("PRAGMA user_version = 99")
    said: Reported = []
    with closing(Captures(disk.path, disk.sealer, lambda event, fields: said.append((event, fields)))) as captures:
        captures.save([captured(2)])
        assert captures.sizes().rows == 1
    assert "format 99" in str(said)


def test_a_file_deleted_under_way_is_made_anew(disk: Disk, path: Path) -> None:
    with closing(Captures(disk.path, disk.sealer)) as captures:
        captures.save([captured(1)])
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()
        captures.save([captured(2)])
        assert path.exists()
        assert [captures.load(call_id_of(number)) is not None for number in (1, 2)] == [False, True]


def test_a_reader_makes_no_file(disk: Disk, path: Path) -> None:
    with closing(Captures(disk.path, disk.sealer)) as captures:
        captures.load(call_id_of(1))
        captures.trim(0, 0)
        captures.reseal()
    assert not path.exists()


def test_a_link_is_not_followed(disk: Disk, path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))
    with closing(Captures(disk.path, disk.sealer)) as captures, pytest.raises(StoreError):
        captures.save([captured(1)])


def test_a_reader_in_the_same_process_does_not_lose_the_writer_its_locks(disk: Disk, path: Path) -> None:
    """Else the next process to close its connection deletes the WAL that the writer goes on writing to."""
    read = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM capture'); c.close()"
    with closing(Captures(disk.path, disk.sealer)) as writer, closing(Captures(disk.path, disk.sealer)) as reader:
        writer.save([captured(1)])
        assert reader.load(call_id_of(1)) is not None
        subprocess.run([sys.executable, "-c", read, str(path)], check=True)
        writer.save([captured(2)])
        with closing(Captures(disk.path, disk.sealer)) as later:
            assert later.load(call_id_of(2)) is not None
