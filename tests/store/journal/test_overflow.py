"""The overflow log, which takes commits while the store accepts none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from relay.model.actions import Commit
from relay.model.call import CallRecord
from relay.store.journal import overflow as overflow_module
from relay.store.journal.overflow import Overflow
from tests.store.conftest import Disk
from tests.support.stored import ended_record, live_record

COMMITS = [Commit(7, live_record("c1"), b"dialogs"), Commit(8, ended_record("c1"), None)]
READ = [(0, commit.record, commit.dialogs) for commit in COMMITS]


def make(disk: Disk, path: Path) -> Overflow:
    made = Overflow(path, disk.sealer)
    made.open()
    return made


@pytest.fixture
def path(disk: Disk) -> Path:
    return disk.path.with_name("relay.db.overflow")


def read(overflow: Overflow) -> tuple[int, list[tuple[int, CallRecord, bytes | None]], bool]:
    since_seq, commits, is_whole = overflow.read()
    return since_seq, [(commit.token, commit.record, commit.dialogs) for commit in commits], is_whole


def fill(overflow: Overflow, commits: list[Commit], since_seq: int = 5) -> int:
    prepared = overflow.prepare(since_seq, commits)
    overflow.write(prepared)
    return prepared.commits


def test_new_file_is_empty_and_private(disk: Disk, path: Path) -> None:
    assert read(make(disk, path))[1] == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 >= overflow_module.BYTES, "its room is not there before it is needed"


def test_another_process_reads_all_entries_in_order(disk: Disk, path: Path) -> None:
    overflow = make(disk, path)
    assert fill(overflow, COMMITS[:1]) == fill(overflow, COMMITS[1:], since_seq=9) == 1
    assert read(make(disk, path)) == (5, READ, True)


def test_file_holds_no_plain_number(disk: Disk, path: Path) -> None:
    fill(make(disk, path), COMMITS)
    record = COMMITS[1].record
    for number in (record.caller, record.callee):
        assert number is not None
        assert number.encode() not in path.read_bytes()


def test_cleared_entries_never_come_back(disk: Disk, path: Path) -> None:
    overflow = make(disk, path)
    fill(overflow, COMMITS * 3)
    overflow.clear()
    assert read(make(disk, path))[1] == []
    fill(overflow, COMMITS[:1], since_seq=11)
    assert read(make(disk, path)) == (11, READ[:1], True)


def test_log_of_an_unknown_format_is_not_taken_for_an_empty_one(disk: Disk, path: Path) -> None:
    fill(make(disk, path), COMMITS)
    with path.open("r+b") as file:
        file.write(b"R")
    _, commits, is_whole = read(make(disk, path))
    assert (commits, is_whole) == ([], False)


def test_unfinished_entry_ends_the_log(disk: Disk, path: Path) -> None:
    overflow = make(disk, path)
    fill(overflow, COMMITS[:1])
    end = overflow._end
    fill(overflow, COMMITS[1:])
    with path.open("r+b") as file:
        file.seek(end + 20)
        file.write(bytes(30))
    another = make(disk, path)
    assert read(another) == (5, READ[:1], False)
    fill(another, COMMITS[1:], since_seq=9)
    assert read(make(disk, path)) == (5, READ, True)


def test_entries_are_appended_to_those_of_an_earlier_process(disk: Disk, path: Path) -> None:
    fill(make(disk, path), COMMITS[:1])
    another = make(disk, path)
    another.read()
    fill(another, COMMITS[1:], since_seq=9)
    assert read(make(disk, path)) == (5, READ, True)


def test_moved_entries_do_not_open(disk: Disk, path: Path) -> None:
    overflow = make(disk, path)
    fill(overflow, COMMITS[:1] * 2)
    data = bytearray(path.read_bytes())
    head, half = overflow_module._HEAD.size, (overflow._end - overflow_module._HEAD.size) // 2
    data[head : head + half], data[head + half : head + 2 * half] = (
        data[head + half : head + 2 * half],
        data[head : head + half],
    )
    path.write_bytes(data)
    assert read(make(disk, path)) == (5, [], False)


def test_commits_are_taken_as_far_as_there_is_room(disk: Disk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overflow_module, "BYTES", 4096)
    overflow = make(disk, path)
    added = fill(overflow, COMMITS * 10)
    assert 2 < added < 20
    assert fill(overflow, COMMITS) == 0
    assert read(make(disk, path))[1] == (READ * 10)[:added]


def fail_to_fill(overflow: Overflow, commits: list[Commit]) -> None:
    """The disk fails when the entries are written, and not yet durable."""

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(os, "fdatasync", fails)
        with pytest.raises(OSError, match="Input"):
            fill(overflow, commits)


def test_log_is_not_empty_after_a_failed_write(disk: Disk, path: Path) -> None:
    """So it is cleared once the store has the commits: the next start would take their old states for the last ones."""
    overflow = make(disk, path)
    fail_to_fill(overflow, COMMITS)
    assert read(make(disk, path))[1] == READ
    assert not overflow.is_empty


def test_failed_write_can_be_prepared_again(disk: Disk, path: Path) -> None:
    overflow = make(disk, path)
    fill(overflow, COMMITS[:1])
    fail_to_fill(overflow, COMMITS)
    fill(overflow, COMMITS[1:])
    assert read(make(disk, path)) == (5, READ, True)
