"""The journal: order, grouping, the chain, and the lock of its single writer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import closing

import pytest

from relay.defence.limits import SharedLimits
from relay.errors import StoreError
from relay.model.actions import CallEvent, Commit
from relay.policy.rules import LastCaller
from relay.store.database import connect, connect_reader
from relay.store.journal.journal import Batch, Journal
from relay.store.journal.overflow import Overflow
from relay.store.journal.queue import MAX_BATCH
from relay.store.journal.rows import LiveCall, event_rows, open_caller, open_event
from relay.store.record_index import CURSOR, SET_CURSOR, add_index
from relay.store.records import RecordFilter, read_all, verify_records
from relay.store.sqlite.journal import sqlite_journal
from tests.store.conftest import Disk, Reported, Waiter, opened, stored
from tests.support.stored import NOW_MS, A, B, X, binding, ended_record, live_record, put, rows_of


async def test_acknowledged_record_is_durable(disk: Disk) -> None:
    async with opened(disk) as journal:
        done = Waiter()
        journal.queue.append(Commit(1, ended_record(), None), done)
        assert (journal.queue.backlog, done.tokens) == (1, [])
        await done.until(lambda: done.tokens == [1])
        assert journal.queue.backlog == 0
        assert stored(disk) == [ended_record()]


async def test_live_row_is_replaced_by_the_ended_record(disk: Disk) -> None:
    async with opened(disk) as journal:
        done = Waiter()
        journal.queue.append(Commit(1, live_record(), b"dialogs"), done)
        await done.until(lambda: done.tokens == [1])
        assert stored(disk) == [live_record()]
        assert journal.live() == [(live_record(), b"dialogs")]
        journal.queue.append(Commit(2, live_record(), b"other dialogs"), done)
        await done.until(lambda: done.tokens == [1, 2])
        assert journal.live() == [(live_record(), b"other dialogs")]
        journal.queue.append(Commit(3, ended_record(), None), done)
        await done.until(lambda: done.tokens == [1, 2, 3])
        assert stored(disk) == [ended_record()]
        assert journal.live() == []


async def test_both_commits_of_a_call_in_one_transaction_leave_the_ended_record(disk: Disk) -> None:
    async with opened(disk) as journal:
        done = Waiter()
        journal.queue.append(Commit(1, live_record(), b"dialogs"), done)
        journal.queue.append(Commit(2, ended_record(), None), done)
        await done.until(lambda: done.tokens == [1, 2])
    assert stored(disk) == [ended_record()]


async def test_commits_are_acknowledged_once_each_in_order(disk: Disk) -> None:
    count = 3 * MAX_BATCH + 7
    async with opened(disk) as journal:
        done = Waiter()
        for token in range(1, count + 1):
            journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
        await done.until(lambda: len(done.tokens) == count)
        assert done.tokens == list(range(1, count + 1))
    assert [record.call_id for record in stored(disk)] == [f"c{token}" for token in done.tokens]


async def test_commit_with_token_0_is_written_and_not_acknowledged(disk: Disk) -> None:
    done = Waiter()
    async with opened(disk) as journal:
        journal.queue.append(Commit(0, ended_record(), None), done)
    assert done.tokens == []
    assert stored(disk) == [ended_record()]


async def test_close_writes_and_acknowledges_the_queue(disk: Disk) -> None:
    done = Waiter()
    async with opened(disk) as journal:
        for token in range(1, 1 + 2 * MAX_BATCH):
            journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
    assert len(done.tokens) == 2 * MAX_BATCH == len(stored(disk))


async def test_closed_record_never_changes(disk: Disk) -> None:
    reported: Reported = []
    other = ended_record(outcome="busy", ended_at=NOW_MS + 99)
    async with opened(disk, reported) as journal:
        done = Waiter()
        journal.queue.append(Commit(1, ended_record(), None), done)
        await done.until(lambda: done.tokens == [1])
        commits = [other, ended_record("c2"), live_record(), ended_record("c2", outcome="busy"), live_record("c3")]
        for token, record in enumerate(commits, 2):
            journal.queue.append(Commit(token, record, None), done)
        await done.until(lambda: done.tokens == [1, 2, 3, 4, 5, 6])
    assert stored(disk) == [ended_record(), ended_record("c2"), live_record("c3")]
    closed = [fields["call_id"] for event, fields in reported if event == "journal.record_closed_before"]
    assert closed == ["c1", "c1", "c2"]


async def test_latest_ended_calls_stay_closed(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.journal.rows.REMEMBERED", 3)
    reported: Reported = []
    calls = [f"c{n}" for n in range(10)]
    async with opened(disk, reported) as journal:
        done = Waiter()
        for n, call in enumerate(calls):
            journal.queue.append(Commit(2 * n + 1, ended_record(call), None), done)
            await done.until(lambda: journal.queue.backlog == 0)
            for before in calls[max(0, n - 2) : n + 1]:
                journal.queue.append(Commit(2 * n + 2, live_record(before), b"dialogs"), done)
            await done.until(lambda: journal.queue.backlog == 0)
        assert journal.live() == []
    assert [event for event, _ in reported] == ["journal.record_closed_before"] * (1 + 2 + 8 * 3)
    assert [record.call_id for record in stored(disk)] == calls


async def test_calls_reuse_rows_of_ended_ones_also_after_a_restart(disk: Disk) -> None:
    for life in range(3):
        async with opened(disk) as journal:
            done = Waiter()
            for n in range(40):
                journal.queue.append(Commit(2 * n + 1, live_record(f"c{life}-{n}"), b"dialogs"), done)
                if n >= 10:
                    journal.queue.append(Commit(2 * n + 2, ended_record(f"c{life}-{n - 10}"), None), done)
            await done.until(lambda: journal.queue.backlog == 0)
            up = [call.record.call_id for call in journal.live()]
            assert sorted(up) == sorted(f"c{before}-{n}" for before in range(life + 1) for n in range(30, 40))
    assert len(stored(disk)) == 3 * 40


async def test_chain_continues_after_a_restart(disk: Disk) -> None:
    for call in ("c1", "c2", "c3"):
        async with opened(disk) as journal:
            journal.queue.append(Commit(0, ended_record(call), None), Waiter())
    with closing(connect_reader(disk.path)) as connection:
        verdict = verify_records(connection, disk.sealer)
    assert (verdict.intact, verdict.broken) == (3, None)


async def test_call_id_of_any_bytes_is_kept(disk: Disk) -> None:
    strange = b"\xff\x00\xed\xa0\x80call".decode("utf-8", "surrogateescape")
    async with opened(disk) as journal:
        journal.queue.append(Commit(0, ended_record(caller_leg_call_id=strange), None), Waiter())
    assert stored(disk)[0].caller_leg_call_id == strange


async def test_numbers_other_than_700_numbers_are_sealed(disk: Disk) -> None:
    forwarded = ended_record(number_dialled="8675512345678", number_shown=A, callee=None, binding_id="")
    async with opened(disk) as journal:
        journal.queue.append(Commit(0, forwarded, None), Waiter())
    assert stored(disk) == [forwarded]
    with closing(connect_reader(disk.path)) as connection:
        assert list(read_all(connection, disk.sealer, RecordFilter(number="8675512345678"))) == [forwarded]
    assert b"75512345678" not in disk.raw()


async def test_exception_in_an_acknowledgement_does_not_stop_the_writer(disk: Disk) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda _, __: None)

    def faulty(_: int) -> None:
        raise RuntimeError

    async with opened(disk) as journal:
        done = Waiter()
        journal.queue.append(Commit(1, ended_record("c1"), None), faulty)
        journal.queue.append(Commit(2, ended_record("c2"), None), done)
        await done.until(lambda: done.tokens == [2])


async def test_second_writer_is_refused_with_the_process_id_of_the_first(disk: Disk) -> None:
    async with opened(disk):
        second = sqlite_journal(disk.path, disk.sealer, lambda _, __: None)
        with pytest.raises(StoreError, match=f"another relay700 serves .* \\(process {os.getpid()}\\)"):
            await second.open()
    async with opened(disk):
        pass


@pytest.mark.parametrize(
    "forgery",
    [
        "DELETE FROM chain_head",
        "UPDATE chain_head SET seq = 1",
        "UPDATE chain_head SET hash = x'01'",
        "UPDATE chain_head SET mac = x'01'",
    ],
)
async def test_journal_does_not_open_on_a_forged_head(disk: Disk, forgery: str) -> None:
    async with opened(disk) as journal:
        for call in ("c1", "c2"):
            journal.queue.append(Commit(0, ended_record(call), None), Waiter())
    with closing(connect(disk.path)) as thief:
        thief.execute(forgery)
    with pytest.raises(StoreError, match="head of the chain"):
        await sqlite_journal(disk.path, disk.sealer, lambda _, __: None).open()


async def test_journal_does_not_open_on_an_older_head(disk: Disk) -> None:
    heads = []
    for call in ("c1", "c2"):
        async with opened(disk) as journal:
            journal.queue.append(Commit(0, ended_record(call), None), Waiter())
        with closing(connect(disk.path)) as connection:
            heads.append(connection.execute("SELECT seq, hash, mac FROM chain_head").fetchone())
    with closing(connect(disk.path)) as thief:
        thief.execute("UPDATE chain_head SET (seq, hash, mac) = (?, ?, ?)", heads[0])
    with pytest.raises(StoreError, match="head of the chain"):
        await sqlite_journal(disk.path, disk.sealer, lambda _, __: None).open()


async def test_altered_live_record_is_reported_and_not_restored(disk: Disk) -> None:
    reported: Reported = []
    async with opened(disk, reported) as journal:
        for call in ("c1", "c2"):
            journal.queue.append(Commit(0, live_record(call), b"dialogs " + call.encode()), Waiter())
    with closing(connect(disk.path)) as thief:
        thief.execute("UPDATE live_call SET sealed = zeroblob(99) WHERE call_id = 'c1'")
    async with opened(disk, reported) as journal:
        assert journal.live() == [(live_record("c2"), b"dialogs c2")]
    assert [(event, fields["call_id"]) for event, fields in reported] == [("journal.record_altered", "c1")]


@pytest.mark.parametrize("is_indexed", [False, True])
async def test_live_row_put_back_after_the_end_is_reported_and_not_restored(disk: Disk, *, is_indexed: bool) -> None:
    reported: Reported = []
    done = Waiter()
    async with opened(disk, reported) as journal:
        for call in ("c1", "c2"):
            journal.queue.append(Commit(1, live_record(call), b"dialogs " + call.encode()), done)
        await done.until(lambda: len(done.tokens) == 2)
        with closing(connect(disk.path)) as thief:
            copied = thief.execute("SELECT * FROM live_call WHERE call_id = 'c1'").fetchone()
        journal.queue.append(Commit(2, ended_record("c1"), None), done)
    with closing(connect(disk.path)) as thief:
        thief.execute("INSERT INTO live_call VALUES (?, ?, ?)", copied)
        if is_indexed:
            add_index(thief, rows_of(disk.sealer, ended_record("c1"), 1))
            thief.execute(SET_CURSOR, (CURSOR, 1))
    async with opened(disk, reported) as journal:
        assert journal.live() == [(live_record("c2"), b"dialogs c2")]
        assert journal.live() == [(live_record("c2"), b"dialogs c2")]
    assert [(event, fields["call_id"]) for event, fields in reported] == [("journal.live_call_has_ended", "c1")]


async def test_record_of_another_call_or_an_altered_one_ends_no_call(disk: Disk) -> None:
    """Who can write the index may not end calls by it."""
    reported: Reported = []
    async with opened(disk, reported) as journal:
        for commit in (live_record("c1"), live_record("c2"), ended_record("c3"), ended_record("c4")):
            journal.queue.append(Commit(0, commit, b"" if commit.ended_at is None else None), Waiter())
    with closing(connect(disk.path)) as thief:
        for seq, call in enumerate(("c1", "c2"), 1):
            add_index(thief, rows_of(disk.sealer, ended_record(call), seq))
        thief.execute("UPDATE call_record SET call_id = 'c2' WHERE call_id = 'c4'")
        thief.execute(SET_CURSOR, (CURSOR, 0))
    async with opened(disk, reported) as journal:
        assert [call.record.call_id for call in journal.live()] == ["c1", "c2"]
    assert reported == []


async def test_bindings_are_written_while_the_journal_writes(disk: Disk) -> None:
    async with opened(disk) as journal:
        done = Waiter()

        def bind() -> None:
            for n in range(50):
                put(disk.path, disk.sealer, binding(f"b{n}", x=f"{X[:11]}{n:04d}"))

        binder = asyncio.create_task(asyncio.to_thread(bind))
        while not binder.done():
            token = len(done.tokens) + 1
            journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
            await done.until(lambda: len(done.tokens) == token)  # noqa: B023 (called at once)
        await binder
    assert len(stored(disk)) == len(done.tokens)


async def test_events_and_last_callers_are_written_in_queue_order(disk: Disk) -> None:
    async with opened(disk) as journal:
        journal.queue.emit(CallEvent("received", live_record(answered_at=None)))
        journal.queue.remember(LastCaller("b1", X, A, NOW_MS))
        journal.queue.append(Commit(0, live_record(), b"dialogs"), Waiter())
        journal.queue.emit(CallEvent("answered", live_record()))
        journal.queue.append(Commit(0, ended_record(), None), Waiter())
        journal.queue.remember(LastCaller("b1", X, B, NOW_MS + 1))
        assert journal.queue.backlog == 6
    with closing(connect(disk.path)) as connection:
        events = [open_event(disk.sealer, row) for row in event_rows(connection, 10)]
        [(binding_id, number, caller_hash, sealed, at)] = connection.execute("SELECT * FROM last_caller").fetchall()
    assert events == [CallEvent("received", live_record(answered_at=None)), CallEvent("answered", live_record())]
    assert (binding_id, number, caller_hash, at) == ("b1", X, disk.sealer.lookup_hash(B), NOW_MS + 1)
    assert open_caller(disk.sealer, "b1", X, sealed) == B
    assert stored(disk) == [ended_record()]


async def test_fire_and_forget_writes_need_no_commit(disk: Disk) -> None:
    async with opened(disk) as journal:
        journal.queue.emit(CallEvent("ringing", live_record(answered_at=None)))
    with closing(connect(disk.path)) as connection:
        assert [kind for _, _, kind, _ in event_rows(connection, 10)] == ["ringing"]


async def test_event_moved_to_another_call_does_not_open(disk: Disk) -> None:
    async with opened(disk) as journal:
        journal.queue.emit(CallEvent("ringing", live_record()))
    with closing(connect(disk.path)) as connection:
        connection.execute("UPDATE call_event SET call_id = 'c2'")
        [row] = event_rows(connection, 10)
        with pytest.raises(StoreError, match="the event ringing of call c2 was altered"):
            open_event(disk.sealer, row)


class Failing:
    """A writer whose first tries fail."""

    effect = "none"
    faults = (OSError,)
    seq = 0

    def __init__(self, fails: int) -> None:
        self.fails = fails
        self.tries: list[Batch] = []

    async def open(self, wake: Callable[[], None]) -> None: ...

    async def write(self, batch: Batch) -> None:
        self.tries.append(batch)
        if len(self.tries) <= self.fails:
            raise OSError("broken")

    async def failed(self, error: Exception) -> None: ...

    def watch(self, take: Callable[[list[LiveCall]], None], limits: SharedLimits) -> None: ...

    async def close(self) -> None: ...


async def test_failed_batch_comes_again_unchanged_before_any_other(disk: Disk) -> None:
    reported: Reported = []
    writer = Failing(2)
    overflow = Overflow(disk.path.with_name("relay.db.overflow"), disk.sealer)
    journal = Journal(disk.path, disk.sealer, writer, lambda event, fields: reported.append((event, fields)), overflow)
    await journal.open()
    done = Waiter()
    ended, live = ended_record("c1"), live_record("c2")
    for token, record in enumerate([live_record("c1"), live, ended, live_record("c1")], 1):
        journal.queue.append(Commit(token, record, b"dialogs"), done)
    journal.queue.emit(CallEvent("ringing", live))
    for name in ("b2", "b1", "b2"):
        journal.queue.remember(LastCaller(name, X, A, NOW_MS))
    await done.until(lambda: done.tokens == [1, 2, 3, 4])
    await journal.close()
    first, *others = writer.tries
    assert others == [first, first]
    assert [commit.token for commit in first.up] == [2]
    assert [commit.token for commit in first.ended] == [3]
    assert first.events == [CallEvent("ringing", live)]
    assert [caller.binding_id for caller in first.callers] == ["b1", "b2"]
    events = [event for event, _ in reported]
    assert events == ["journal.record_closed_before", "journal.write_failed", "journal.recovered"]
