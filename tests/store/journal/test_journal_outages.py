"""The journal while the store fails, is locked by others, or its process is killed."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import threading
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.model.actions import CallEvent, Commit
from relay.store.database import connect, transaction
from relay.store.journal import journal as journal_module
from relay.store.journal.overflow import Overflow, PreparedEntries
from relay.store.journal.queue import MAX_BATCH
from relay.store.journal.rows import read_live
from relay.store.sqlite.journal import sqlite_journal
from tests.store.conftest import Disk, Reported, Told, Tries, Waiter, opened, stored
from tests.support.limits import soft_limit
from tests.support.product import PYTHON
from tests.support.stored import ended_record, live_record


@pytest.mark.usefixtures("unoverflowed")
async def test_outage_is_reported_once_acknowledges_nothing_and_loses_nothing(disk: Disk) -> None:
    told = Told()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    tries = Tries(journal)
    await journal.open()
    done = Waiter()
    with closing(connect(disk.path)) as saboteur:
        saboteur.execute("ALTER TABLE call_record RENAME TO gone")
        for token in range(1, 51):
            journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
        await told.until("journal.write_failed")
        await tries.more(3)  # which must not report again
        assert (done.tokens, journal.queue.backlog) == ([], 50)
        for token in range(51, 101):
            journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
        saboteur.execute("ALTER TABLE gone RENAME TO call_record")
    await done.until(lambda: len(done.tokens) == 100)
    await journal.close()
    assert done.tokens == list(range(1, 101))
    assert told.events() == ["journal.write_failed", "journal.recovered"]
    assert len(stored(disk)) == 100


@pytest.mark.usefixtures("unoverflowed")
async def test_full_disk_delays_and_loses_nothing(disk: Disk) -> None:
    told = Told()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    await journal.open()
    done = Waiter()
    # The kernel refuses to grow the log, as on a full disk.
    with soft_limit(resource.RLIMIT_FSIZE, os.stat(f"{disk.path}-wal").st_size + 30_000):
        for token in range(1, 301):
            journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
        await told.until("journal.write_failed")
        assert journal.queue.backlog > 0
    await done.until(lambda: len(done.tokens) == 300)
    await journal.close()
    assert done.tokens == list(range(1, 301))
    assert told.events() == ["journal.write_failed", "journal.recovered"]
    assert len(stored(disk)) == 300


@pytest.mark.usefixtures("unoverflowed")
async def test_lack_of_descriptors_delays_and_loses_nothing(disk: Disk) -> None:
    told = Told()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    await journal.open()
    done = Waiter()
    with closing(connect(disk.path)) as saboteur:
        saboteur.execute("ALTER TABLE call_record RENAME TO gone")  # so that the journal connects again
        with soft_limit(resource.RLIMIT_NOFILE, 3):
            journal.queue.append(Commit(1, ended_record(), None), done)
            await told.until("journal.write_failed", "Too many open files")
        saboteur.execute("ALTER TABLE gone RENAME TO call_record")
    await done.until(lambda: done.tokens == [1])
    await journal.close()
    assert stored(disk) == [ended_record()]


async def test_next_process_writes_what_the_store_did_not_take(disk: Disk) -> None:
    journal = sqlite_journal(disk.path, disk.sealer, lambda *_: None)
    await journal.open()
    with closing(connect(disk.path)) as saboteur:
        saboteur.execute("ALTER TABLE call_record RENAME TO gone")
        journal.queue.append(Commit(1, ended_record(), None), Waiter())
        await journal.close(patience_s=0.2)
        saboteur.execute("ALTER TABLE gone RENAME TO call_record")
    reported: Reported = []
    async with opened(disk, reported) as journal:
        pass
    assert stored(disk) == [ended_record()]
    assert [event for event, _ in reported] == ["journal.recovered"]
    async with opened(disk) as journal:  # nothing is left over
        assert journal.queue.backlog == 0


async def test_close_without_overflow_log_reports_the_number_of_lost_records(disk: Disk) -> None:
    disk.path.with_name("relay.db.overflow").mkdir()
    reported: Reported = []
    journal = sqlite_journal(disk.path, disk.sealer, lambda event, fields: reported.append((event, fields)))
    await journal.open()
    assert [event for event, _ in reported] == ["journal.cannot_overflow"]
    with closing(connect(disk.path)) as saboteur:
        saboteur.execute("DROP TABLE call_record")
    journal.queue.append(Commit(1, ended_record(), None), Waiter())
    with pytest.raises(StoreError, match="1 call records could not be written"):
        await journal.close(patience_s=0.2)


async def test_commits_are_acknowledged_while_the_store_accepts_none(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 0.1)
    reported: Reported = []
    async with opened(disk, reported) as journal:
        done = Waiter()
        with closing(connect(disk.path)) as saboteur:
            saboteur.execute("ALTER TABLE call_record RENAME TO gone")
            journal.queue.append(Commit(1, ended_record("c1"), None), done)
            journal.queue.emit(CallEvent("ringing", live_record("c2")))
            journal.queue.append(Commit(2, live_record("c2"), b"dialogs"), done)
            await done.until(lambda: done.tokens == [1, 2])
            journal.queue.append(Commit(3, ended_record("c2"), None), done)
            await done.until(lambda: done.tokens == [1, 2, 3])
            saboteur.execute("ALTER TABLE gone RENAME TO call_record")
        await journal.queue.emptied(60)
        journal.queue.append(Commit(4, ended_record("c4"), None), done)
        await done.until(lambda: done.tokens == [1, 2, 3, 4])
    assert [record.call_id for record in stored(disk)] == ["c1", "c2", "c4"]
    assert [event for event, _ in reported] == ["journal.write_failed", "journal.recovered"]


async def test_overflow_log_that_failed_is_tried_again(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 0.1)
    told = Told()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    await journal.open()
    done = Waiter()
    with closing(connect(disk.path)) as saboteur:
        for token in (1, 2):
            saboteur.execute("ALTER TABLE call_record RENAME TO gone")
            with soft_limit(resource.RLIMIT_FSIZE, 0):
                journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
                await told.until("journal.cannot_overflow")
            await done.until(lambda count=token: len(done.tokens) == count)
            saboteur.execute("ALTER TABLE gone RENAME TO call_record")
            await told.until("journal.recovered")
            said = [event for event in told.events() if event != "journal.write_failed"]
            assert said == ["journal.cannot_overflow", "journal.recovered"]
            told.said.clear()
    await journal.close()
    assert [record.call_id for record in stored(disk)] == ["c1", "c2"]


async def test_overflow_log_that_could_not_be_opened_is_opened_when_it_is_needed(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 0.1)
    overflow_file = disk.path.with_name("relay.db.overflow")
    overflow_file.mkdir()
    async with opened(disk, []) as journal:
        overflow_file.rmdir()
        done = Waiter()
        with closing(connect(disk.path)) as saboteur:
            saboteur.execute("ALTER TABLE call_record RENAME TO gone")
            journal.queue.append(Commit(1, ended_record(), None), done)
            await done.until(lambda: done.tokens == [1])
            saboteur.execute("ALTER TABLE gone RENAME TO call_record")
    assert stored(disk) == [ended_record()]


async def test_entries_that_a_start_could_not_read_stay_for_the_next_one(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 0.1)
    overflow_file = overflowed(disk, [Commit(0, ended_record("c1"), None)])
    away = overflow_file.rename(overflow_file.with_name("away"))
    overflow_file.mkdir()
    told = Told()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    await journal.open()
    overflow_file.rmdir()
    away.rename(overflow_file)
    done = Waiter()
    with closing(connect(disk.path)) as saboteur:
        saboteur.execute("ALTER TABLE call_record RENAME TO gone")
        journal.queue.append(Commit(2, ended_record("c2"), None), done)
        await told.until("journal.cannot_overflow", "records of an earlier start")
        saboteur.execute("ALTER TABLE gone RENAME TO call_record")
    await done.until(lambda: done.tokens == [2])
    await journal.close()
    assert [record.call_id for record in stored(disk)] == ["c2"]
    async with opened(disk, []):
        pass
    assert [record.call_id for record in stored(disk)] == ["c2", "c1"]


async def test_commit_written_to_both_store_and_overflow_log_is_acknowledged_once(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on = threading.Event(), threading.Event()

    def write(overflow: Overflow, prepared: PreparedEntries) -> None:
        begun.set()
        may_go_on.wait(20)
        written(overflow, prepared)

    written = Overflow.write
    monkeypatch.setattr(Overflow, "write", write)
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 0.1)
    async with opened(disk, []) as journal:
        done = Waiter()
        with closing(connect(disk.path)) as saboteur:
            saboteur.execute("ALTER TABLE call_record RENAME TO gone")
            for token in (1, 2):
                journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
            await asyncio.to_thread(begun.wait, 20)
            saboteur.execute("ALTER TABLE gone RENAME TO call_record")
        await journal.queue.emptied(60)
        may_go_on.set()
        journal.queue.append(Commit(3, ended_record("c3"), None), done)
        await done.until(lambda: 3 in done.tokens)
    assert done.tokens == [1, 2, 3]


def overflowed(disk: Disk, commits: list[Commit]) -> Path:
    """Write an overflow log as an earlier process leaves it. Return its path."""
    path = disk.path.with_name("relay.db.overflow")
    overflow = Overflow(path, disk.sealer)
    overflow.open()
    overflow.write(overflow.prepare(0, commits))
    overflow.close()
    return path


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
async def test_entries_of_the_overflow_log_are_written_once_after_any_kill(disk: Disk, taken: int) -> None:
    """`taken`: number of its commits in the store when the process was killed, before clearing the log."""
    commits = [
        Commit(0, live_record("c1"), b"one"),
        Commit(0, ended_record("c2"), None),
        Commit(0, ended_record("c1"), None),
    ]
    overflow_file = overflowed(disk, commits)
    kept = overflow_file.read_bytes()
    overflow_file.unlink()
    async with opened(disk) as journal:
        for commit in commits[:taken]:
            journal.queue.append(commit, Waiter())
        await journal.queue.emptied(60)
    overflow_file.write_bytes(kept)
    async with opened(disk, []) as journal:
        assert journal.live() == []
    assert sorted(record.call_id for record in stored(disk)) == ["c1", "c2"]


async def test_journal_opens_with_the_overflow_log_while_the_store_accepts_no_writes(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 0.1)
    async with opened(disk) as journal:
        journal.queue.append(Commit(1, live_record("c0"), b"in the store"), Waiter())
    commits = [
        Commit(0, live_record("c1"), b"first"),
        Commit(0, live_record("c2"), b"two"),
        Commit(0, live_record("c1"), b"later"),
        Commit(0, ended_record("c2"), None),
    ]
    overflow_file = overflowed(disk, commits)
    with closing(connect(disk.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with opened(disk, []) as journal:
            assert [call.dialogs for call in journal.live()] == [b"in the store", b"later"]
            done = Waiter()
            journal.queue.append(Commit(1, live_record("c3"), b"three"), done)
            journal.queue.append(Commit(2, ended_record("c1"), None), done)
            await done.until(lambda: done.tokens == [1, 2])
            assert [call.dialogs for call in journal.live()] == [b"in the store", b"three"]
            killed_here = overflow_file.read_bytes()
            other.execute("ROLLBACK")
    for _ in range(2):  # with the overflow log cleared, and again with its entries still there
        async with opened(disk, []) as journal:
            assert [call.dialogs for call in journal.live()] == [b"in the store", b"three"]
        assert [record.call_id for record in stored(disk)] == ["c2", "c1", "c0", "c3"]
        overflow_file.write_bytes(killed_here)


async def test_later_state_of_a_call_is_written_after_the_overflow_log_is_cleared(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[set[bytes]] = []

    def clear(overflow: Overflow) -> None:
        found.append({call.dialogs for call in read_live(disk.path, disk.sealer, lambda *_: None)})
        cleared(overflow)

    cleared = Overflow.clear
    monkeypatch.setattr(Overflow, "clear", clear)
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 0.1)
    more_than_a_batch = [Commit(0, live_record(f"c{n}"), b"first") for n in range(MAX_BATCH + 1)]
    overflowed(disk, more_than_a_batch)
    with closing(connect(disk.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with opened(disk, []) as journal:
            monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 600.0)
            journal.queue.append(Commit(1, live_record(f"c{MAX_BATCH}"), b"later"), Waiter())
            other.execute("ROLLBACK")
            await journal.queue.emptied(60)
            assert {call.dialogs for call in journal.live()} == {b"first", b"later"}
    assert found == [{b"first"}]


async def test_unreadable_overflow_log_is_reported_once(disk: Disk) -> None:
    overflow_file = overflowed(disk, [Commit(0, ended_record("c1"), None)])
    data = overflow_file.read_bytes()
    overflow_file.write_bytes(data[:60] + bytes([data[60] ^ 1]) + data[61:])
    for events in (["journal.overflow_damaged"], []):
        reported: Reported = []
        async with opened(disk, reported):
            pass
        assert [event for event, _ in reported] == events
    assert stored(disk) == []


@pytest.mark.usefixtures("unoverflowed")
async def test_another_writer_only_delays(disk: Disk) -> None:
    async with opened(disk) as journal:
        done = Waiter()
        with closing(connect(disk.path)) as importer, transaction(importer):
            journal.queue.append(Commit(1, ended_record(), None), done)
            for _ in range(20):
                await asyncio.to_thread(os.sched_yield)
            assert done.tokens == []
        await done.until(lambda: done.tokens == [1])


DYING = """
import asyncio, sys
from pathlib import Path
from relay.model.actions import Commit
from relay.store.database import open_store
from relay.store.sqlite.journal import sqlite_journal
from tests.support.stored import ended_record

async def main(path, key_file):
    journal = sqlite_journal(path, open_store(path, key_file), lambda *said: print(said, flush=True))
    await journal.open()
    journal.queue.append(Commit(1, ended_record(received_at=2**63), None), print)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_process_whose_journal_dies_of_a_bug_ends(disk: Disk) -> None:
    command = [PYTHON, "-c", DYING, str(disk.path), str(disk.key_file)]
    root = Path(__file__).parents[3]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=root, timeout=60)
    assert ended.returncode == 1
    assert ended.stdout.startswith("('journal.stopped', ")
    assert "OverflowError" in ended.stdout


WRITER = """
import asyncio, sys
from pathlib import Path
from relay.model.actions import Commit
from relay.store.database import open_store
from relay.store.sqlite.journal import sqlite_journal
from tests.support.stored import ended_record, live_record

async def main(path, key_file, start):
    journal = sqlite_journal(path, open_store(path, key_file), lambda *said: print("reported", said, flush=True))
    await journal.open()
    print("ready", flush=True)
    n, append = start, journal.queue.append
    while True:
        for n in range(n + 1, n + 40):
            append(Commit(2 * n, live_record(f"c{n}"), b"dialogs"), lambda token: print(token, flush=True))
            append(Commit(2 * n + 1, ended_record(f"c{n}"), None), lambda token: print(token, flush=True))
        await asyncio.sleep(0.003)

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
"""


def test_kill_in_mid_batch_loses_no_acknowledged_record(disk: Disk) -> None:
    acknowledged: set[int] = set()
    for life in range(4):
        writer = subprocess.Popen(
            [PYTHON, "-c", WRITER, str(disk.path), str(disk.key_file), str(100_000 * (life + 1))],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(100 + 37 * life):
            acknowledged.add(int(writer.stdout.readline()))
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()
        acknowledged.update(int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n"))
        writer.wait()
        records = {record.call_id: record for record in stored(disk)}
        for token in acknowledged:
            record = records[f"c{token // 2}"]
            assert record.ended_at is not None or token % 2 == 0
    assert len(acknowledged) > 400
