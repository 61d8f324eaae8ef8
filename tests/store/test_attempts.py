"""The file of attempts under way: what one process notes another reads, whatever became of the first."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.call.actions import Commit
from relay.call.lost import KeptAttempt
from relay.errors import StoreError
from relay.store import attempts as attempts_module
from relay.store.attempts import FIRST_SLOTS, SLOT, AttemptFile, with_records
from relay.store.journal import Journal
from relay.store.sealing import Sealer
from tests.store.conftest import Disk
from tests.support.stored import A, B, ended_record, live_record

C1, C2 = "c1".ljust(32, "0"), "c2".ljust(32, "0")
RINGS = live_record(C1, answered_at=None, sip_status=None)
STATE = b"INVITE sip:13900000002@carrier"
LONG = os.urandom(3 * SLOT)


class Reports(list[tuple[str, dict[str, object]]]):
    def __call__(self, event: str, fields: dict[str, object]) -> None:
        self.append((event, fields))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def path(disk: Disk) -> Path:
    return disk.path.with_name("relay.db.attempts")


Opening = Callable[[], tuple[AttemptFile, list[KeptAttempt]]]


@pytest.fixture
def open_file(disk: Disk, path: Path, reports: Reports) -> Iterator[Opening]:
    files = []

    def open_another() -> tuple[AttemptFile, list[KeptAttempt]]:
        made = AttemptFile(path, disk.sealer, reports)
        files.append(made)
        return made, made.open()

    yield open_another
    for made in files:
        made.close()


def test_a_new_one_is_empty_and_for_its_owner_alone(open_file: Opening, path: Path) -> None:
    _, left = open_file()
    assert left == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 >= FIRST_SLOTS * SLOT, "its room is not there before it is needed"


def test_another_process_reads_what_was_noted_last(open_file: Opening) -> None:
    file, _ = open_file()
    file.keep(RINGS._replace(callee=None), b"")
    file.keep(RINGS, STATE)
    file.keep(RINGS._replace(call_id=C2), LONG)
    _, left = open_file()
    assert {attempt.record.call_id: attempt.state for attempt in left} == {C1: STATE, C2: LONG}
    assert next(attempt.record for attempt in left if attempt.record.call_id == C1) == RINGS


def test_what_was_dropped_is_gone(open_file: Opening, reports: Reports) -> None:
    file, _ = open_file()
    file.keep(RINGS, STATE)
    file.keep(RINGS._replace(call_id=C2), LONG)
    file.drop([C1, C2, "unknown"])
    again, left = open_file()
    assert left == reports == []
    again.keep(RINGS, STATE)
    file, left = open_file()
    assert len(left) == 1
    file.drop([C1])
    assert open_file()[1] == []


@pytest.mark.parametrize(("first", "then"), [(LONG, STATE), (STATE, LONG), (LONG, LONG[SLOT:])])
def test_one_that_grows_or_shrinks_is_whole(open_file: Opening, first: bytes, then: bytes) -> None:
    file, _ = open_file()
    file.keep(RINGS, first)
    file.keep(RINGS, then)
    assert [attempt.state for attempt in open_file()[1]] == [then]


def test_slots_are_used_again(open_file: Opening, path: Path) -> None:
    file, _ = open_file()
    for number in range(2 * FIRST_SLOTS):
        call_id = f"{number:032}"
        file.keep(RINGS._replace(call_id=call_id), STATE)
        file.drop([call_id])
    assert path.stat().st_size == FIRST_SLOTS * SLOT


def test_it_grows_with_the_attempts(open_file: Opening, path: Path) -> None:
    file, _ = open_file()
    ids = [f"{number:032}" for number in range(FIRST_SLOTS + 1)]
    for call_id in ids:
        assert file.keep(RINGS._replace(call_id=call_id), STATE)
    assert path.stat().st_size == 2 * FIRST_SLOTS * SLOT
    assert sorted(attempt.record.call_id for attempt in open_file()[1]) == ids


def test_it_does_not_grow_for_ever(
    open_file: Opening, reports: Reports, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module, "MOST_SLOTS", FIRST_SLOTS)
    file, _ = open_file()
    ids = [f"{number:032}" for number in range(FIRST_SLOTS + 1)]
    assert [file.keep(RINGS._replace(call_id=call_id), STATE) for call_id in ids] == [True] * FIRST_SLOTS + [False]
    assert path.stat().st_size == FIRST_SLOTS * SLOT
    assert reports.events == ["attempts.cannot_keep"]
    file.drop(ids[:1])
    assert file.keep(RINGS._replace(call_id=ids[-1]), STATE)


def test_kill_9_leaves_what_was_noted(open_file: Opening, disk: Disk, path: Path) -> None:
    """The page cache outlives the process that wrote into it."""
    child = os.fork()
    if child == 0:
        file = AttemptFile(path, disk.sealer, lambda *_: None)
        file.open()
        file.keep(RINGS, STATE)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [attempt.state for attempt in open_file()[1]] == [STATE]


def test_no_number_stands_in_it(open_file: Opening, path: Path) -> None:
    file, _ = open_file()
    file.keep(RINGS, STATE)
    raw = path.read_bytes()
    for number in (A[2:], B[2:]):
        assert number.encode() not in raw


@pytest.mark.parametrize("place", [60, SLOT + 60])
def test_one_that_was_altered_is_reported_and_the_others_are_read(
    open_file: Opening, path: Path, reports: Reports, place: int
) -> None:
    file, _ = open_file()
    file.keep(RINGS, LONG)
    file.keep(RINGS._replace(call_id=C2), STATE)
    with path.open("r+b") as raw:
        raw.seek(place)
        raw.write(b"!!!!")
    _, left = open_file()
    assert [attempt.record.call_id for attempt in left] == [C2]
    assert reports.events == ["attempts.altered"]
    assert open_file()[1] == left
    assert len(reports) == 1


def test_one_of_which_a_part_is_missing_is_reported(open_file: Opening, path: Path, reports: Reports) -> None:
    file, _ = open_file()
    file.keep(RINGS, LONG)
    with path.open("r+b") as raw:
        raw.seek(SLOT)
        raw.write(bytes(4))
    assert open_file()[1] == []
    assert reports.events == ["attempts.altered"]


def test_that_of_another_store_is_reported(open_file: Opening, path: Path, reports: Reports) -> None:
    stranger = AttemptFile(path, Sealer(os.urandom(32)), reports)
    stranger.open()
    stranger.keep(RINGS, STATE)
    stranger.close()
    assert open_file()[1] == []
    assert reports.events == ["attempts.altered"]


def test_what_is_no_slot_is_passed_over(open_file: Opening, path: Path) -> None:
    path.write_bytes(b"r7a0" + os.urandom(SLOT + 100))
    file, left = open_file()
    assert left == []
    file.keep(RINGS, STATE)
    assert len(open_file()[1]) == 1


def test_where_nothing_can_be_written_it_is_said_once(
    open_file: Opening, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = open_file()
    with monkeypatch.context() as context:
        context.setattr(attempts_module.os, "pwrite", _no_space)
        assert not file.keep(RINGS, STATE)
        assert not file.keep(RINGS._replace(call_id=C2), STATE)
    assert reports.events == ["attempts.cannot_keep"]
    assert reports[0][1]["reason"] == "No space left on device"
    assert file.keep(RINGS._replace(call_id=C2), STATE)


def _no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_cannot_be_opened_is_named(disk: Disk, path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match=r"relay\.db\.attempts cannot be read: Is a directory"):
        AttemptFile(path, disk.sealer, lambda *_: None).open()


# -- what the store has of them


async def with_commits(disk: Disk, *commits: Commit) -> None:
    journal = Journal(disk.path, disk.sealer, lambda *_: None)
    await journal.open()
    for commit in commits:
        journal.queue.append(commit, lambda _: None)
    await journal.close()


async def test_the_record_that_the_store_has_is_found(disk: Disk) -> None:
    up, ended = live_record(C1), ended_record(C2)
    await with_commits(disk, Commit(0, up, b"dialogs"), Commit(0, ended, None), Commit(0, ended_record("other"), None))
    left = [KeptAttempt(RINGS._replace(call_id=call_id), STATE) for call_id in (C1, C2, "c3")]
    found = with_records(disk.path, disk.sealer, left, ())
    assert [attempt.stored for attempt in found] == [up, ended, None]
    assert [attempt.state for attempt in found] == [STATE] * 3


async def test_what_is_not_in_the_store_yet_counts_most(disk: Disk) -> None:
    await with_commits(disk, Commit(0, live_record(C1), b"dialogs"))
    (found,) = with_records(disk.path, disk.sealer, [KeptAttempt(RINGS, STATE)], [ended_record(C1)])
    assert found.stored == ended_record(C1)


async def test_a_record_that_was_altered_is_one_all_the_same(disk: Disk) -> None:
    """The attempt must not get a second one."""
    await with_commits(disk, Commit(0, ended_record(C1), None))
    with closing(sqlite3.connect(disk.path)) as connection:
        connection.execute("UPDATE call_record SET sealed = zeroblob(100)")
        connection.commit()
    (found,) = with_records(disk.path, disk.sealer, [KeptAttempt(RINGS, STATE)], ())
    assert found.stored is not None
    assert found.stored.ended_at is not None
