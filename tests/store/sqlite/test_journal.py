"""The journal's writer to an SQLite file: COMMITs in doubt, displaced files, a store that was put back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from relay.model.actions import CallEvent, Commit
from relay.store.chain import Head
from relay.store.database import connect, transaction
from relay.store.files import holds_deleted_log
from relay.store.sqlite import journal as sqlite_module
from relay.store.sqlite.journal import sqlite_journal
from tests.store.conftest import Disk, Reported, Told, Tries, Waiter, opened, read_by_another_process, stored
from tests.support.stored import ended_record, live_record


@pytest.mark.usefixtures("unoverflowed")
async def test_failed_commit_that_is_on_disk_is_not_written_again(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = iter([True, False, True])

    def transact(connection: sqlite3.Connection, rows: sqlite_module._TransactionRows) -> tuple[int, Head]:
        result = written(connection, rows)
        if next(fails, False):
            raise sqlite3.OperationalError("disk I/O error")
        return result

    written = sqlite_module._transact
    monkeypatch.setattr(sqlite_module, "_transact", transact)
    reported: Reported = []
    async with opened(disk, reported) as journal:
        done = Waiter()
        journal.queue.append(Commit(1, live_record("c1"), b"dialogs"), done)
        journal.queue.append(Commit(2, ended_record("c2"), None), done)
        await done.until(lambda: done.tokens == [1, 2])
        journal.queue.append(Commit(3, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1, 2, 3])
        journal.queue.append(Commit(4, live_record("c3"), b"dialogs"), done)
        await done.until(lambda: done.tokens == [1, 2, 3, 4])
        assert [call.record.call_id for call in journal.live()] == ["c3"]
    assert [record.call_id for record in stored(disk)] == ["c2", "c1", "c3"]
    assert [event for event, _ in reported] == ["journal.write_failed", "journal.recovered"] * 2


@pytest.mark.usefixtures("unoverflowed")
async def test_nothing_is_acknowledged_while_the_store_is_displaced(disk: Disk) -> None:
    told, done = Told(), Waiter()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    tries = Tries(journal)
    await journal.open()
    away = disk.path.rename(disk.path.with_name("away"))
    journal.queue.append(Commit(1, ended_record("c1"), None), done)
    assert await told.until("journal.write_failed") == f"{disk.path} was moved away or deleted"
    await tries.more(3)
    assert done.tokens == []
    away.rename(disk.path)
    await done.until(lambda: done.tokens == [1])
    await journal.close()
    assert told.events() == ["journal.write_failed", "journal.recovered"]
    assert [record.call_id for record in stored(disk)] == ["c1"]


@pytest.mark.usefixtures("unoverflowed")
@pytest.mark.parametrize("deleted", [["-wal"], ["-shm"], ["-wal", "-shm"]], ids="".join)
async def test_content_of_a_deleted_log_is_moved_into_the_store_while_idle(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, deleted: list[str]
) -> None:
    monkeypatch.setattr(sqlite_module, "LOOK_S", 0.02)
    told, done = Told(), Waiter()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    await journal.open()
    journal.queue.append(Commit(1, ended_record("c1"), None), done)
    journal.queue.append(Commit(2, live_record("c2"), b"dialogs"), done)
    await done.until(lambda: done.tokens == [1, 2])
    for suffix in deleted:
        os.unlink(f"{disk.path}{suffix}")
    assert "was moved away or deleted" in await told.until("journal.write_failed")
    await told.until("journal.recovered")
    with closing(connect(disk.path)) as connection:  # as another process
        assert connection.execute("SELECT count(*) FROM call_record").fetchone() == (1,)
    journal.queue.append(Commit(3, ended_record("c2"), None), done)
    await done.until(lambda: done.tokens == [1, 2, 3])
    await journal.close()
    assert told.events() == ["journal.write_failed", "journal.recovered"]
    assert [record.call_id for record in stored(disk)] == ["c1", "c2"]


@pytest.mark.usefixtures("unoverflowed")
@pytest.mark.parametrize("fault", ["a reader", "the disk"])
async def test_deleted_log_stays_open_until_its_content_can_be_moved(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """What is not moved is nowhere else: the store could not even be read."""

    def fail(connection: sqlite3.Connection) -> tuple[int, int, int]:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite_module, "BUSY_S", 0.05)
    told, done = Told(), Waiter()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    tries = Tries(journal)
    await journal.open()
    with read_by_another_process(disk.path) if fault == "a reader" else nullcontext(), monkeypatch.context() as patch:
        journal.queue.append(Commit(1, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1])
        if fault == "the disk":
            patch.setattr(sqlite_module, "_checkpoint", fail)
        os.unlink(f"{disk.path}-wal")
        journal.queue.append(Commit(2, ended_record("c2"), None), done)
        await tries.more(3)
        assert holds_deleted_log(disk.path)
    await done.until(lambda: done.tokens == [1, 2])
    await journal.close()
    assert [record.call_id for record in stored(disk)] == ["c1", "c2"]


@pytest.mark.usefixtures("unoverflowed")
async def test_deleted_log_is_given_up_once_another_process_has_a_new_one(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its pages would overwrite what others have written since."""

    def fail(connection: sqlite3.Connection) -> tuple[int, int, int]:
        raise sqlite3.OperationalError("database or disk is full")

    told, done = Told(), Waiter()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    tries = Tries(journal)
    await journal.open()
    journal.queue.append(Commit(1, ended_record("c1"), None), done)
    await done.until(lambda: done.tokens == [1])
    moved = sqlite_module._checkpoint
    monkeypatch.setattr(sqlite_module, "_checkpoint", fail)
    for suffix in ("-wal", "-shm"):
        os.unlink(f"{disk.path}{suffix}")
    journal.queue.append(Commit(2, ended_record("c2"), None), done)
    await tries.more(2)
    with read_by_another_process(disk.path):
        monkeypatch.setattr(sqlite_module, "_checkpoint", moved)
        assert await told.until("journal.write_failed", "holds less than was written to it, 0 of 1 call records")
    await journal.close()
    assert stored(disk) == []


@pytest.mark.usefixtures("unoverflowed")
async def test_journal_waits_until_the_process_has_closed_the_deleted_log(disk: Disk) -> None:
    told, done = Told(), Waiter()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    tries = Tries(journal)
    await journal.open()
    with closing(connect(disk.path)) as other:
        other.execute("SELECT * FROM business").fetchall()
        journal.queue.append(Commit(1, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1])
        os.unlink(f"{disk.path}-wal")
        journal.queue.append(Commit(2, ended_record("c2"), None), done)
        await told.until("journal.write_failed")
        await tries.more(3)
        assert done.tokens == [1]
        alone = Path(shutil.copy(disk.path, disk.path.with_name("alone")))
        with closing(connect(alone)) as copy:  # the content of the log is safe
            assert copy.execute("SELECT count(*) FROM call_record").fetchone() == (1,)
    await done.until(lambda: done.tokens == [1, 2])
    await journal.close()
    reasons = [str(fields.get("reason")) for _, fields in told.said]
    assert reasons[1:2] == [f"the look-ups still have the deleted {disk.path}-wal open"]


@pytest.mark.usefixtures("unoverflowed")
async def test_store_that_holds_less_than_was_written_is_not_used(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_S", 0.05)
    told, done = Told(), Waiter()
    journal = sqlite_journal(disk.path, disk.sealer, told)
    await journal.open()
    with closing(connect(disk.path)) as saboteur:
        journal.queue.append(Commit(1, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1])
        head = saboteur.execute("SELECT seq, hash, mac FROM chain_head").fetchone()
        journal.queue.append(Commit(2, ended_record("c2"), None), done)
        await done.until(lambda: done.tokens == [1, 2])
        with transaction(saboteur):
            saboteur.execute("DELETE FROM call_record WHERE chain_seq = 2")
            saboteur.execute("UPDATE chain_head SET seq = ?, hash = ?, mac = ?", head)
            journal.queue.append(Commit(3, ended_record("c3"), None), done)
            await told.until("journal.write_failed")
    await told.until("journal.write_failed", "holds less than was written to it, 1 of 2 call records")
    assert done.tokens == [1, 2]
    await journal.close(patience_s=0.1)
    again = sqlite_journal(disk.path, disk.sealer, told)
    await again.open()  # a restart accepts what is there
    await again.close()
    assert [record.call_id for record in stored(disk)] == ["c1", "c3"]


async def test_journal_tells_of_records_and_events_once_they_are_durable(disk: Disk) -> None:
    told: list[tuple[int, int]] = []
    done = Waiter()

    def note() -> None:
        with closing(connect(disk.path)) as connection:
            counts = connection.execute(
                "SELECT (SELECT count(*) FROM call_record), (SELECT count(*) FROM call_event)"
            ).fetchone()
        told.append(counts)

    journal = sqlite_journal(disk.path, disk.sealer, Told(), note)
    await journal.open()
    journal.queue.append(Commit(1, live_record("c1"), b"dialogs"), done)
    await done.until(lambda: done.tokens == [1])
    assert told == []
    journal.queue.emit(CallEvent("ringing", live_record("c2")))
    journal.queue.append(Commit(2, live_record("c2"), b"dialogs"), done)
    await done.until(lambda: done.tokens == [1, 2])
    assert told == [(0, 1)]
    journal.queue.append(Commit(3, ended_record("c1"), None), done)
    await done.until(lambda: done.tokens == [1, 2, 3])
    await journal.close()
    assert told == [(0, 1), (1, 1)]
