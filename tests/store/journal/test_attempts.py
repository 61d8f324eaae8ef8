"""The file of attempts under way: another process reads what one wrote, however that one ended."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from relay.call.engine import LONGEST_CALL_ID
from relay.call.recovery import KeptAttempt
from relay.call.state_codec import MOST_HEAD, dump_attempt
from relay.defence.limits import TIMES_FREE
from relay.errors import StoreError
from relay.model.actions import Commit
from relay.sip.message import MAX_HEAD, Flow
from relay.store.journal import attempts as attempts_module
from relay.store.journal.attempts import (
    FIRST_SLOTS,
    MOST_SLOTS,
    MOST_SLOTS_EACH,
    SLOT,
    SPARE_SLOTS,
    AttemptFile,
    with_records,
)
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.journal import sqlite_journal
from tests.store.conftest import Disk
from tests.support.stored import A, B, ended_record, live_record

C1, C2 = "c1".ljust(32, "0"), "c2".ljust(32, "0")
RINGS = live_record(C1, answered_at=None, sip_status=None)
STATE = b"INVITE sip:13900000002@carrier"
LONG, OTHER = os.urandom(3 * SLOT), os.urandom(3 * SLOT)
PARTS = 4  # slots for LONG


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


def test_new_file_is_empty_and_private(open_file: Opening, path: Path) -> None:
    _, left = open_file()
    assert left == []
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_blocks * 512 >= FIRST_SLOTS * SLOT, "its room is not there before it is needed"


def test_another_process_reads_the_latest_state(open_file: Opening) -> None:
    file, _ = open_file()
    file.keep(RINGS._replace(callee=None), b"")
    file.keep(RINGS, STATE)
    file.keep(RINGS._replace(call_id=C2), LONG)
    _, left = open_file()
    assert {attempt.record.call_id: attempt.state for attempt in left} == {C1: STATE, C2: LONG}
    assert next(attempt.record for attempt in left if attempt.record.call_id == C1) == RINGS


def test_dropped_attempt_is_gone(open_file: Opening, reports: Reports) -> None:
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
def test_attempt_is_complete_after_growing_or_shrinking(open_file: Opening, first: bytes, then: bytes) -> None:
    file, _ = open_file()
    file.keep(RINGS, first)
    file.keep(RINGS, then)
    assert [attempt.state for attempt in open_file()[1]] == [then]


class Killed(BaseException):
    """Stands for SIGKILL: no code runs after it."""


def let_through(monkeypatch: pytest.MonkeyPatch, writes: int, then: BaseException | None = None) -> None:
    """Let only the next `writes` writes succeed. `then`: the error that later ones raise, Killed by default."""
    left, pwrite = [None] * writes, os.pwrite

    def write(descriptor: int, data: bytes, offset: int) -> int:
        if not left:
            raise then or Killed
        left.pop()
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(attempts_module.os, "pwrite", write)


@pytest.mark.parametrize("writes", range(8))
@pytest.mark.parametrize(
    ("first", "then"),
    [(LONG, OTHER), (OTHER[:SLOT], LONG), (LONG, OTHER[:SLOT]), (STATE, LONG), (LONG, STATE), (STATE, STATE + b"!")],
    ids=["long", "grows", "shrinks", "grows from one slot", "shrinks to one slot", "stays in one slot"],
)
def test_kill_after_any_write_leaves_the_old_or_the_new_state(
    open_file: Opening, reports: Reports, monkeypatch: pytest.MonkeyPatch, first: bytes, then: bytes, writes: int
) -> None:
    file, _ = open_file()
    file.keep(RINGS, first)
    with monkeypatch.context() as context:
        let_through(context, writes)
        with suppress(Killed):
            file.keep(RINGS, then)
    again, left = open_file()
    assert [attempt.state in (first, then) for attempt in left] == [True]
    for state in (then, first, then):
        again.keep(RINGS, state)
        again, left = open_file()
        assert [attempt.state for attempt in left] == [state]
    again.drop([C1])
    assert open_file()[1] == reports == []


@pytest.mark.parametrize("writes", range(5))
def test_kill_during_first_write_or_drop_leaves_all_or_nothing(
    open_file: Opening, reports: Reports, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    file, _ = open_file()
    with monkeypatch.context() as context:
        let_through(context, writes)
        with suppress(Killed):
            file.keep(RINGS, LONG)
    file, left = open_file()
    assert [attempt.state for attempt in left] == [LONG] * (writes >= PARTS)
    file.keep(RINGS, LONG)
    with monkeypatch.context() as context:
        let_through(context, writes)
        with suppress(Killed):
            file.drop([C1])
    assert [attempt.state for attempt in open_file()[1]] == [LONG] * (writes == 0)
    assert reports == []


def test_generation_after_a_start_is_higher_than_that_of_leftovers(
    open_file: Opening, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = open_file()
    for _ in range(3):
        file.keep(RINGS, LONG)
    file, _ = open_file()
    with monkeypatch.context() as context:
        let_through(context, PARTS)  # and nothing is freed
        with suppress(Killed):
            file.keep(RINGS, OTHER)
    assert [attempt.state for attempt in open_file()[1]] == [OTHER]
    assert reports == []


@pytest.mark.parametrize("writes", range(4))
def test_failed_write_loses_no_state_and_no_slots(
    open_file: Opening, monkeypatch: pytest.MonkeyPatch, path: Path, writes: int
) -> None:
    """The earlier state stays, and the slots of the failed write are free again."""
    file, _ = open_file()
    file.keep(RINGS, LONG)
    for _ in range(FIRST_SLOTS):
        with monkeypatch.context() as context:
            let_through(context, writes, OSError(errno.EIO, os.strerror(errno.EIO)))
            file.keep(RINGS, OTHER)
    assert path.stat().st_size == FIRST_SLOTS * SLOT
    assert [attempt.state for attempt in open_file()[1]] == [LONG]
    file.keep(RINGS, OTHER)
    assert [attempt.state for attempt in open_file()[1]] == [OTHER]


def test_update_within_one_slot_is_one_write(open_file: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = open_file()
    for state in (b"", STATE, STATE + b"!"):
        with monkeypatch.context() as context:
            let_through(context, 1)
            file.keep(RINGS, state)


def test_attempt_of_the_longest_request_takes_two_slots(open_file: Opening) -> None:
    sent = ("carrier", ("", "udp", "192.0.2.22", 5060), *["x" * 32] * 2, b"x" * 512, "x" * 32, 1, "x" * 48, b"")
    state = dump_attempt(Flow(0, "udp", "192.0.2.11", 5060), b"x" * MOST_HEAD, "udp:127.0.0.1:2223", [sent])
    file, _ = open_file()
    file.keep(RINGS._replace(order_id="x" * 64, industrial_id="x" * 64, source="udp:192.0.2.11:5060"), state)
    assert len(file._slots[C1]) == 2


def test_attempt_of_a_longer_request_takes_one_slot(open_file: Opening) -> None:
    state = dump_attempt(Flow(0, "udp", "192.0.2.11", 5060), b"x" * MAX_HEAD)
    file, _ = open_file()
    record = RINGS._replace(caller_leg_call_id="\udcff" * LONGEST_CALL_ID)
    file.keep(record, state)
    assert len(file._slots[C1]) == 1
    assert [attempt.record for attempt in open_file()[1]] == [record]


def test_freed_slots_are_reused(open_file: Opening, path: Path) -> None:
    file, _ = open_file()
    for number in range(2 * FIRST_SLOTS):
        call_id = f"{number:032}"
        file.keep(RINGS._replace(call_id=call_id), STATE)
        file.drop([call_id])
    assert path.stat().st_size == FIRST_SLOTS * SLOT


def test_file_grows_with_the_attempts(open_file: Opening, path: Path) -> None:
    file, _ = open_file()
    ids = [f"{number:032}" for number in range(FIRST_SLOTS + 1)]
    for call_id in ids:
        file.keep(RINGS._replace(call_id=call_id), STATE)
    assert path.stat().st_size == 2 * FIRST_SLOTS * SLOT
    assert sorted(attempt.record.call_id for attempt in open_file()[1]) == ids


def test_file_does_not_grow_beyond_its_limit(
    open_file: Opening, reports: Reports, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module, "MOST_SLOTS", FIRST_SLOTS)
    file, _ = open_file()
    ids = [f"{number:032}" for number in range(FIRST_SLOTS - SPARE_SLOTS + 1)]
    for call_id in ids:
        assert file.is_ready()
        file.keep(RINGS._replace(call_id=call_id), STATE)
    assert not file.is_ready()
    assert path.stat().st_size == FIRST_SLOTS * SLOT
    assert reports.events == ["attempts.cannot_keep"]
    file.keep(RINGS._replace(call_id=C2), STATE)
    assert C2 in [attempt.record.call_id for attempt in open_file()[1]], "one that goes on finds a place"
    file.drop([*ids[:1], C2])
    assert file.is_ready()


def test_peer_with_many_attempts_leaves_room_to_others(open_file: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "MOST_SLOTS", FIRST_SLOTS)
    most = FIRST_SLOTS // MOST_SLOTS_EACH
    file, _ = open_file()
    ids = [f"{number:032}" for number in range(most)]
    kept = []
    for call_id in ids:
        if file.has_room("pbx"):
            file.keep(RINGS._replace(call_id=call_id), b"")
            file.keep(RINGS._replace(call_id=call_id), STATE)
            kept.append(call_id)
    assert kept == ids[: TIMES_FREE * (most + 1) // (TIMES_FREE + 1)]
    assert file.has_room("other")
    again, _ = open_file()
    assert [again.has_room(name) for name in ("pbx", "other")] == [False, True]
    again.drop([*kept[:10], "unknown"])
    assert again.has_room("pbx")
    again.drop(kept)
    assert not again._by_peer.counts()


def test_attempts_survive_kill_9(open_file: Opening, disk: Disk, path: Path) -> None:
    """The page cache outlives the process that wrote into it."""
    child = os.fork()
    if child == 0:
        file = AttemptFile(path, disk.sealer, lambda *_: None)
        file.open()
        file.keep(RINGS, STATE)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [attempt.state for attempt in open_file()[1]] == [STATE]


def test_file_holds_no_plain_number(open_file: Opening, path: Path) -> None:
    file, _ = open_file()
    file.keep(RINGS, STATE)
    raw = path.read_bytes()
    for number in (A[2:], B[2:]):
        assert number.encode() not in raw


@pytest.mark.parametrize("place", [60, SLOT + 60])
def test_altered_attempt_is_reported_and_the_others_are_read(
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


def test_attempt_with_a_missing_part_is_reported(open_file: Opening, path: Path, reports: Reports) -> None:
    file, _ = open_file()
    file.keep(RINGS, LONG)
    with path.open("r+b") as raw:
        raw.seek(SLOT)
        raw.write(bytes(4))
    assert open_file()[1] == []
    assert reports.events == ["attempts.altered"]


def test_attempt_of_another_store_is_reported(open_file: Opening, path: Path, reports: Reports) -> None:
    stranger = AttemptFile(path, Sealer(os.urandom(32)), reports)
    stranger.open()
    stranger.keep(RINGS, STATE)
    stranger.close()
    assert open_file()[1] == []
    assert reports.events == ["attempts.altered"]


def test_altered_generation_is_ignored(open_file: Opening, path: Path, reports: Reports) -> None:
    """A huge forged generation does not block later writes either."""
    file, _ = open_file()
    file.keep(RINGS, STATE)
    with path.open("r+b") as raw:
        raw.seek(4 + 32)
        raw.write(b"\xff" * 8)
    file, left = open_file()
    assert left == []
    assert reports.events == ["attempts.altered"]
    file.keep(RINGS, STATE)
    assert len(open_file()[1]) == 1


def test_previous_generation_counts_if_the_newest_was_altered(
    open_file: Opening, path: Path, reports: Reports, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = open_file()
    file.keep(RINGS, LONG)
    with monkeypatch.context() as context:
        let_through(context, PARTS)
        with suppress(Killed):
            file.keep(RINGS, OTHER)
    with path.open("r+b") as raw:
        raw.seek(PARTS * SLOT + 60)
        raw.write(b"!!!!")
    assert [attempt.state for attempt in open_file()[1]] == [LONG]
    assert reports.events == ["attempts.altered"]


def altered(path: Path, reports: Reports, reason: str) -> bool:
    """Whether the file was reported as altered exactly once, with this reason."""
    return reports.events == ["attempts.altered"] and reports[0][1] == {"file": str(path), "reason": reason}


def test_slots_with_foreign_bytes_are_reported_once(open_file: Opening, path: Path, reports: Reports) -> None:
    path.write_bytes(bytes(SLOT) + (b"r7a0" + os.urandom(SLOT - 4)) * 3)
    file, left = open_file()
    assert left == []
    assert altered(path, reports, "foreign bytes in 3 slots, the first at offset 4096")
    for number in range(5):
        file.keep(RINGS._replace(call_id=f"{number:032}"), STATE)
    assert len(open_file()[1]) == 5
    assert len(reports) == 1


def test_truncated_file_is_reported_and_the_rest_is_read(open_file: Opening, path: Path, reports: Reports) -> None:
    file, _ = open_file()
    file.keep(RINGS, STATE)
    file.keep(RINGS._replace(call_id=C2), STATE)
    os.truncate(path, SLOT + 100)
    file, left = open_file()
    assert [attempt.record.call_id for attempt in left] == [C1]
    assert altered(path, reports, "the file has 4196 bytes, not a multiple of 4096: a part of it is missing")
    file.keep(RINGS._replace(call_id=C2), STATE)
    assert len(open_file()[1]) == 2
    assert len(reports) == 1


def test_emptied_file_is_reported(open_file: Opening, path: Path, reports: Reports) -> None:
    file, _ = open_file()
    file.keep(RINGS, STATE)
    os.truncate(path, 0)
    assert open_file()[1] == []
    assert altered(path, reports, "the file is empty: it was truncated, or the disk was full when it was created")
    assert open_file()[1] == []
    assert len(reports) == 1


def test_oversized_file_is_truncated_to_the_limit_and_read(open_file: Opening, path: Path, reports: Reports) -> None:
    file, _ = open_file()
    file.keep(RINGS, STATE)
    os.truncate(path, 16 << 30)
    assert [attempt.state for attempt in open_file()[1]] == [STATE]
    most = MOST_SLOTS * SLOT
    reason = f"the file has {16 << 30} bytes, the limit is {most}: it was truncated to that"
    assert altered(path, reports, reason)
    assert path.stat().st_size == most
    assert len(open_file()[1]) == len(reports) == 1


def test_symlink_is_refused(open_file: Opening, path: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"another's")
    path.symlink_to(elsewhere)
    with pytest.raises(StoreError, match=r"relay\.db\.attempts cannot be read: Too many levels of symbolic links"):
        open_file()
    assert elsewhere.read_bytes() == b"another's"


def test_full_disk_is_reported_once(open_file: Opening, reports: Reports, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _ = open_file()
    with monkeypatch.context() as context:
        context.setattr(attempts_module.os, "pwrite", _no_space)
        file.keep(RINGS, STATE)
        assert not file.is_ready()
    assert reports.events == ["attempts.cannot_keep"]
    assert reports[0][1]["reason"] == "No space left on device"
    assert file.is_ready()
    file.keep(RINGS._replace(call_id=C2), STATE)
    assert [attempt.record.call_id for attempt in open_file()[1]] == [C2]


def _no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_error_names_a_file_that_cannot_be_opened(disk: Disk, path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match=r"relay\.db\.attempts cannot be read: Is a directory"):
        AttemptFile(path, disk.sealer, lambda *_: None).open()


# -- records of attempts in the store


async def with_commits(disk: Disk, *commits: Commit) -> None:
    journal = sqlite_journal(disk.path, disk.sealer, lambda *_: None)
    await journal.open()
    for commit in commits:
        journal.queue.append(commit, lambda _: None)
    await journal.close()


async def test_record_in_the_store_is_found(disk: Disk) -> None:
    up, ended = live_record(C1), ended_record(C2)
    await with_commits(disk, Commit(0, up, b"dialogs"), Commit(0, ended, None), Commit(0, ended_record("other"), None))
    left = [KeptAttempt(RINGS._replace(call_id=call_id), STATE) for call_id in (C1, C2, "c3")]
    found = with_records(disk.path, disk.sealer, left, ())
    assert [attempt.stored for attempt in found] == [up, ended, None]
    assert [attempt.state for attempt in found] == [STATE] * 3


async def test_unwritten_record_takes_precedence_over_the_store(disk: Disk) -> None:
    await with_commits(disk, Commit(0, live_record(C1), b"dialogs"))
    (found,) = with_records(disk.path, disk.sealer, [KeptAttempt(RINGS, STATE)], [ended_record(C1)])
    assert found.stored == ended_record(C1)


async def test_altered_record_still_counts_as_a_record(disk: Disk) -> None:
    """The attempt must not get a second one."""
    await with_commits(disk, Commit(0, ended_record(C1), None))
    with closing(sqlite3.connect(disk.path)) as connection:
        connection.execute("UPDATE call_record SET sealed = zeroblob(100)")
        connection.commit()
    (found,) = with_records(disk.path, disk.sealer, [KeptAttempt(RINGS, STATE)], ())
    assert found.stored is not None
    assert found.stored.ended_at is not None
