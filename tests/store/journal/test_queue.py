"""The queue of a journal: order, batches with a gap between them, one acknowledgement each."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from relay.model.actions import Commit
from relay.model.call import CallRecord
from relay.store.journal import queue as overflow_module
from relay.store.journal.queue import MAX_BATCH, SLICE_S, Acknowledgements, JournalQueue, Overflow
from tests.store.conftest import Disk, Waiter
from tests.support.stored import ended_record, live_record


def filled(count: int, done: Waiter, *, min_gap_s: float = 0.0) -> JournalQueue:
    queue = JournalQueue(min_gap_s)
    for token in range(1, count + 1):
        queue.put(Commit(token, ended_record(f"c{token}"), None), done)
    return queue


async def test_batches_are_bounded_and_repeated_until_taken() -> None:
    done = Waiter()
    queue = filled(MAX_BATCH + 1, done)
    batch = await queue.batch()
    assert len(batch) == MAX_BATCH
    assert await queue.batch() == batch
    queue.took(batch)
    assert len(await queue.batch()) == 1
    await done.until(lambda: done.tokens == list(range(1, MAX_BATCH + 1)))


async def test_items_acknowledged_before_are_not_acknowledged_again() -> None:
    done = Waiter()
    queue = filled(5, done)
    queue.took(await queue.batch(), told=3)
    await done.until(lambda: bool(done.tokens))
    assert done.tokens == [4, 5]


async def test_batch_waits_for_the_gap_and_for_an_item() -> None:
    queue = JournalQueue(min_gap_s=600.0)
    assert queue.rest_s <= 0
    first = asyncio.create_task(queue.batch())
    await asyncio.sleep(0)
    assert not first.done()
    queue.put(Commit(1, ended_record(), None), None)
    queue.took(await first)
    assert 0 < queue.rest_s <= 600.0
    queue.put(Commit(2, ended_record(), None), None)
    second = asyncio.create_task(queue.batch())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.done()
    second.cancel()


async def test_full_batch_does_not_wait_for_the_gap() -> None:
    queue = filled(2 * MAX_BATCH + 1, Waiter(), min_gap_s=600.0)
    for _ in range(2):
        batch = await asyncio.wait_for(queue.batch(), 10)
        assert len(batch) == MAX_BATCH
        queue.took(batch)
    last = asyncio.create_task(queue.batch())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not last.done()
    last.cancel()


async def test_wake_gives_an_empty_batch() -> None:
    queue = JournalQueue(0.0)
    queue.wake()
    assert await queue.batch() == []
    queue.took([])
    again = asyncio.create_task(queue.batch())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_emptied_returns_when_the_queue_is_empty() -> None:
    queue = filled(1, Waiter())
    await queue.emptied(0.0)
    assert len(queue.waiting) == 1
    emptied = asyncio.create_task(queue.emptied(600.0))
    queue.took(await queue.batch())
    await emptied


class Clock:
    """A clock that only `spend` moves, so that a slow machine does not look like a long turn."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


async def test_acknowledgements_are_in_order_and_yield_to_the_loop() -> None:
    """Else an INVITE that arrives while the calls of a batch are answered waits for all of them."""
    clock = Clock()
    acknowledgements = Acknowledgements(clock)
    happened: list[str] = []

    def tell(token: int) -> None:
        happened.append(f"told {token}")
        clock.spend(SLICE_S)

    for token in range(3):
        acknowledgements.put(tell, token)
    all_told = asyncio.create_task(acknowledgements.all_told())
    while not all_told.done():
        await asyncio.sleep(0)
        happened.append("turn")
    assert [event for event in happened if event != "turn"] == ["told 0", "told 1", "told 2"]
    assert "turn" in happened[happened.index("told 0") : happened.index("told 1")]
    assert "turn" in happened[happened.index("told 1") : happened.index("told 2")]


async def test_slices_are_unbounded_when_the_loop_is_behind() -> None:
    """Else answers would wait for dozens of turns while the process is behind."""
    clock = Clock()
    acknowledgements = Acknowledgements(clock)
    told: list[int] = []

    def tell(token: int) -> None:
        told.append(token)
        clock.spend(SLICE_S)

    for token in range(100):
        acknowledgements.put(tell, token)
    turns = 0
    while len(told) < 100:
        clock.spend(20 * SLICE_S)
        await asyncio.sleep(0)
        turns += 1
    assert turns <= 20


async def test_exception_in_one_acknowledgement_does_not_stop_the_others() -> None:
    acknowledgements = Acknowledgements()
    told: list[int] = []
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))

    def fail(_: int) -> None:
        raise ValueError

    acknowledgements.put(fail, 1)
    acknowledgements.put(told.append, 2)
    await acknowledgements.all_told()
    assert told == [2]
    assert [type(error) for error in failed] == [ValueError]


# -- The overflow log, which takes commits while the store accepts none


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


def test_failed_write_can_be_prepared_again(disk: Disk, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overflow = make(disk, path)
    fill(overflow, COMMITS[:1])

    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fails)
        with pytest.raises(OSError, match="Input"):
            fill(overflow, COMMITS)
    fill(overflow, COMMITS[1:])
    assert read(make(disk, path)) == (5, READ, True)
