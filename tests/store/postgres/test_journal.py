"""Several journals on one PostgreSQL server: one chain, each record once, none from a node that was taken over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from copy import copy
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from asyncpg.transaction import Transaction

from relay.call.recovery import KeptAttempt
from relay.errors import StoreError
from relay.model.actions import CallEvent, Commit
from relay.model.call import CallRecord
from relay.policy.rules import LastCaller
from relay.store.chain import Head
from relay.store.connection import PostgresServer
from relay.store.database import connect_reader
from relay.store.journal.attempts import with_records
from relay.store.journal.journal import Batch, Journal
from relay.store.journal.rows import LiveCall, event_rows
from relay.store.postgres import journal as module
from relay.store.postgres import nodes
from relay.store.postgres.journal import PostgresWriter, postgres_journal
from relay.store.postgres.nodes import Node
from relay.store.records import RecordFilter, read_all, verify_records
from tests.store.conftest import Reported, Waiter
from tests.support import postgres
from tests.support.places import new_server_store
from tests.support.stored import ended_record, live_record
from tests.support.waiting import until

pytestmark = pytest.mark.outside

_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


# As a COMMIT that waits for the disk, it goes on when it is cancelled.
_SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN LOOP
    BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; EXCEPTION WHEN query_canceled THEN NULL; END;
END LOOP; END'
"""
_SLOW_COMMIT_OF_RECORDS = """
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON call_record DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION slow()
"""
_LOCKED_OUT = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
_SEEN = "SELECT seen_at > now() - interval '30 s' FROM node"
_WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Store:
    """A database, and the journals of its nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place, self.sealer = new_server_store(folder)
        self.said: Reported = []

    def server(self, node: str) -> PostgresServer:
        return self.place._replace(node=node, local=self.folder / node)

    @asynccontextmanager
    async def journal(self, node: str) -> AsyncIterator[Journal]:
        journal = postgres_journal(self.server(node), self.sealer, self.report)
        await journal.open()
        try:
            yield journal
        finally:
            await journal.close()

    def report(self, event: str, fields: dict[str, object]) -> None:
        self.said.append((event, fields))

    def records(self) -> list[CallRecord]:
        """All ended records, by their end."""
        with closing(connect_reader(self.place)) as connection:
            assert verify_records(connection, self.sealer).broken is None
            return list(read_all(connection, self.sealer, RecordFilter()))

    def live(self) -> list[str]:
        with closing(connect_reader(self.place)) as connection:
            return [row[0] for row in connection.execute("SELECT call_id || ' ' || node FROM live_call ORDER BY 1")]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    postgres.drop(store.place)


async def test_call_is_up_until_its_record_has_ended(store: Store) -> None:
    done = Waiter()
    async with store.journal("a") as journal:
        journal.queue.append(Commit(1, live_record("c1"), b"dialogs"), done)
        await done.until(lambda: done.tokens == [1])
        assert store.live() == ["c1 a"]
        assert [(call.record.call_id, call.dialogs) for call in journal.live()] == [("c1", b"dialogs")]
        journal.queue.append(Commit(2, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1, 2])
    assert store.live() == []
    assert [record.call_id for record in store.records()] == ["c1"]
    assert store.said == []


async def test_records_of_two_nodes_form_one_chain(store: Store) -> None:
    done = Waiter()
    async with store.journal("a") as first, store.journal("b") as second:
        for n in range(1, 501):
            (first if n % 2 else second).queue.append(Commit(n, ended_record(f"c{n}"), None), done)
            if n % 50 == 0:
                await asyncio.sleep(0)
        await done.until(lambda: len(done.tokens) == 500)
    assert len(store.records()) == 500


async def test_a_batch_is_one_statement_after_the_one_that_reads_the_head(store: Store) -> None:
    """Each further one is a round trip, and begins and ends on the server."""
    done, asked = Waiter(), []
    async with store.journal("a") as journal:
        journal.queue.append(Commit(1, ended_record("c0"), None), done)  # begins the chain
        await done.until(lambda: done.tokens == [1])
        writer = journal.writer
        assert isinstance(writer, PostgresWriter)
        writer._contended = 0
        writer._live_connection().add_query_logger(lambda query: asked.append(query.query.split()[0]))
        journal.queue.append(Commit(2, live_record("c1"), b"dialogs"), done)
        await done.until(lambda: done.tokens == [1, 2])
        assert asked == ["WITH"]
        journal.queue.append(Commit(3, ended_record("c1"), None), done)
        journal.queue.append(Commit(4, live_record("c2"), b""), done)
        journal.queue.emit(CallEvent("call.answered", live_record("c2")))
        await done.until(lambda: len(done.tokens) == 4)
        assert asked == ["WITH", "SELECT", "WITH"]
    assert store.live() == ["c2 a"]
    assert len(store.records()) == 2


async def test_the_slower_of_two_nodes_writes_behind_the_records_of_the_other(store: Store) -> None:
    """Both have read the same head of the chain."""
    done = Waiter()
    async with store.journal("a") as first, store.journal("b") as second:
        first.queue.append(Commit(1, ended_record("c0"), None), done)
        await done.until(lambda: done.tokens == [1])
        for journal in (first, second):
            assert isinstance(journal.writer, PostgresWriter)
            journal.writer._contended = 0
        with closing(postgres.connect(store.place)) as holder:
            holder.execute("BEGIN READ WRITE")
            holder.execute("SELECT 1 FROM chain_head FOR UPDATE")
            for token, journal in ((2, first), (3, second)):
                journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)
                journal.queue.append(Commit(10 * token, live_record(f"up{token}"), b""), done)
            await until(lambda: holder.execute(_LOCKED_OUT).fetchone() == (2,))
            holder.execute("COMMIT")
        await done.until(lambda: len(done.tokens) == 5)
        assert sorted(journal.writer._contended > 0 for journal in (first, second)) == [False, True]
    assert sorted(record.call_id for record in store.records()) == ["c0", "c2", "c3"]
    assert store.live() == ["up2 a", "up3 b"]
    assert store.said == []


async def test_a_heartbeat_that_is_under_way_holds_a_batch_up_and_loses_none_of_it(store: Store) -> None:
    done = Waiter()
    async with store.journal("a") as journal:
        journal.queue.append(Commit(1, ended_record("c0"), None), done)
        await done.until(lambda: done.tokens == [1])
        assert isinstance(journal.writer, PostgresWriter)
        journal.writer._contended = 0
        with closing(postgres.connect(store.place)) as beat:
            beat.execute("BEGIN READ WRITE")
            beat.execute("UPDATE node SET seen_at = now()")
            journal.queue.append(Commit(2, ended_record("c1"), None), done)
            journal.queue.append(Commit(3, live_record("c2"), b""), done)
            await until(lambda: beat.execute(_LOCKED_OUT).fetchone() != (0,))
            beat.execute("COMMIT")
        await done.until(lambda: len(done.tokens) == 3)
        assert journal.writer._contended == 0
    assert [record.call_id for record in store.records()] == ["c0", "c1"]
    assert store.live() == ["c2 a"]
    assert store.said == []


@pytest.mark.parametrize("has_records", [True, False])
async def test_a_try_that_still_waits_on_the_server_writes_nothing_after_the_next_one(
    store: Store, has_records: bool
) -> None:
    """Its connection was lost, and the server has not noticed."""
    done = Waiter()
    async with store.journal("a") as journal:
        journal.queue.append(Commit(1, ended_record("c0"), None), done)
        await done.until(lambda: done.tokens == [1])
        writer = journal.writer
        assert isinstance(writer, PostgresWriter)
        writer._contended = 0
        lost = copy(writer)
        lost._connection = await asyncpg.connect(store.place.url)
        ended = [Commit(2, ended_record("c1"), None)] if has_records else []
        up = Commit(3, live_record("c2"), b"")
        with closing(postgres.connect(store.place)) as holder:
            holder.execute("BEGIN READ WRITE")
            holder.execute(f"SELECT 1 FROM {'chain_head' if has_records else 'node'} FOR UPDATE")
            trying = asyncio.create_task(lost._transact(Batch([up], ended, [], []), is_in_doubt=False))
            await until(lambda: holder.execute(_LOCKED_OUT).fetchone() == (1,))
            for commit in (up, *ended):
                journal.queue.append(commit, done)
            await until(lambda: holder.execute(_LOCKED_OUT).fetchone() == (2,))
            holder.execute("COMMIT")
        await done.until(lambda: len(done.tokens) == 2 + len(ended))
        await trying
        lost._connection.terminate()
    assert [record.call_id for record in store.records()] == ["c0", "c1"][: 1 + len(ended)]
    assert store.live() == ["c2 a"]
    assert store.said == []


async def test_records_of_attempts_are_found_from_any_node(store: Store) -> None:
    done = Waiter()
    async with store.journal("b") as other:
        other.queue.append(Commit(1, live_record("c1"), b"dialogs"), done)
        other.queue.append(Commit(2, ended_record("c2"), None), done)
        await done.until(lambda: done.tokens == [1, 2])
    left = [KeptAttempt(live_record(call_id), b"") for call_id in ("c1", "c2", "c3")]
    found = with_records(store.server("a"), store.sealer, left, ())
    assert [attempt.stored for attempt in found] == [live_record("c1"), ended_record("c2"), None]


async def test_events_and_last_callers_are_written(store: Store) -> None:
    async with store.journal("a") as journal:
        journal.queue.emit(CallEvent("ringing", live_record("c1")))
        journal.queue.emit(CallEvent("answered", live_record("c1")))
        for caller in ("1", "2"):  # in one transaction
            journal.queue.remember(LastCaller("b1", "700100000010001", caller, 5))
        await journal.queue.emptied(60)
    with closing(connect_reader(store.place)) as connection:
        assert [row[2] for row in event_rows(connection, 10)] == ["ringing", "answered"]
        ((hash_,),) = connection.execute("SELECT caller_hash FROM last_caller").fetchall()
    assert hash_ == store.sealer.lookup_hash("2")


async def test_lost_connection_loses_and_duplicates_nothing(store: Store) -> None:
    done = Waiter()
    async with store.journal("a") as journal:
        for n in range(1, 301):
            journal.queue.append(Commit(n, ended_record(f"c{n}"), None), done)
            if n % 60 == 0:
                await asyncio.to_thread(_drop_others, store.place)
                await done.until(lambda n=n: len(done.tokens) == n)
    assert sorted(record.call_id for record in store.records()) == sorted(f"c{n}" for n in range(1, 301))
    assert {event for event, _ in store.said} <= {"journal.write_failed", "journal.recovered", "node.beat_failed"}


async def test_commit_whose_answer_was_lost_is_not_repeated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    done = Waiter()
    async with store.journal("a") as journal:
        transact = PostgresWriter._transact

        async def lose_answer(writer: PostgresWriter, batch: Batch, *, is_in_doubt: bool) -> None:
            monkeypatch.setattr(PostgresWriter, "_transact", transact)
            await transact(writer, batch, is_in_doubt=is_in_doubt)
            raise OSError("the connection was lost")

        monkeypatch.setattr(PostgresWriter, "_transact", lose_answer)
        journal.queue.append(Commit(1, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1])
    assert len(store.records()) == 1


async def test_commit_that_is_still_under_way_is_not_repeated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As while a synchronous standby restarts: the next try must wait for it."""
    monkeypatch.setattr(module, "PATIENCE_S", 1.0)
    done = Waiter()
    with closing(postgres.connect(store.place)) as holder, closing(postgres.connect(store.place)) as looker:
        holder.execute("SELECT pg_advisory_lock(1)")
        holder.execute(_SLOW_COMMIT)
        holder.execute(_SLOW_COMMIT_OF_RECORDS)
        async with store.journal("a") as journal:
            journal.queue.append(Commit(1, ended_record("c1"), None), done)
            await until(lambda: looker.execute(f"{_WAITING} AND query LIKE '% batch %'").fetchone() == (1,))
            holder.execute("SELECT pg_advisory_unlock(1)")
            await done.until(lambda: done.tokens == [1])
    assert [record.call_id for record in store.records()] == ["c1"]


async def test_records_that_another_says_were_written_are_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Waiter()
    async with store.journal("a") as journal:
        transact = PostgresWriter._transact

        async def fail(writer: PostgresWriter, batch: Batch, *, is_in_doubt: bool) -> None:
            monkeypatch.setattr(PostgresWriter, "_transact", transact)
            writer._links = [Head(1, b"of a try that was rolled back")]
            with closing(postgres.connect(store.place)) as thief:
                thief.execute("UPDATE node SET batch = batch + 1")
            raise OSError("the connection was lost")

        monkeypatch.setattr(PostgresWriter, "_transact", fail)
        journal.queue.append(Commit(1, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1])
    assert [record.call_id for record in store.records()] == ["c1"]


async def test_a_removed_head_of_a_purged_chain_begins_no_other(store: Store) -> None:
    async with store.journal("a") as journal:
        writer = journal.writer
        assert isinstance(writer, PostgresWriter)
        with closing(postgres.connect(store.place)) as thief:
            thief.execute("INSERT INTO checkpoint (chain, seq, hash, at) VALUES ('record', 5, '', 0)")
        with pytest.raises(StoreError, match="altered or removed"):
            await writer._locked_heads(writer._live_connection(), begins=True)


async def test_frozen_transaction_does_not_block_other_nodes(store: Store) -> None:
    done = Waiter()
    async with store.journal("a") as frozen, store.journal("b") as journal:
        writer = frozen.writer
        assert isinstance(writer, PostgresWriter)
        connection = writer._live_connection()
        await connection.execute("BEGIN")
        await writer._locked_heads(connection, begins=True)
        journal.queue.append(Commit(1, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1])
    assert store.said == []  # it did not even have to retry


async def test_nodes_that_write_the_same_callers_do_not_deadlock(store: Store) -> None:
    """In a deadlock the server would abort one of the two transactions."""

    def remember(journal: Journal, *bindings: str) -> None:
        for binding in bindings:
            journal.queue.remember(LastCaller(binding, "700100000010001", "1", 5))

    async with store.journal("a") as first, store.journal("b") as second:
        remember(first, "b0", "b1", "b2")
        await first.queue.emptied(60)
        with closing(postgres.connect(store.place)) as holder, closing(postgres.connect(store.place)) as looker:
            holder.execute("BEGIN IMMEDIATE")
            holder.execute("UPDATE last_caller SET at = 6 WHERE binding_id = 'b0'")
            remember(second, "b1", "b0", "b2")
            await until(lambda: looker.execute(_WAITING).fetchone() == (1,))
            remember(first, "b2", "b0", "b1")
            await until(lambda: looker.execute(_WAITING).fetchone() == (2,))
            holder.execute("COMMIT")
        await asyncio.gather(first.queue.emptied(60), second.queue.emptied(60))
    assert store.said == []


async def test_altered_head_takes_no_records(store: Store) -> None:
    done = Waiter()
    async with store.journal("a") as journal:
        journal.queue.append(Commit(1, ended_record("c1"), None), done)
        await done.until(lambda: done.tokens == [1])
        with closing(postgres.connect(store.place)) as connection:
            (mac,) = connection.execute("SELECT mac FROM chain_head").fetchone()
            connection.execute("UPDATE chain_head SET mac = sealed FROM (SELECT sealed FROM call_record) AS other")
            journal.queue.append(Commit(2, ended_record("c2"), None), done)
            await until(lambda: store.said)
            connection.execute("UPDATE chain_head SET mac = ?", (mac,))
        await done.until(lambda: done.tokens == [1, 2])
    assert "altered" in str(store.said[0][1]["reason"])


# Nodes


class Rounds:
    """Counts the rounds in which each node looked for calls to take over."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[str] = Counter()
        take = Node._take

        async def counted(node: Node) -> tuple[list[LiveCall], list[KeptAttempt]]:
            taken = await take(node)
            self.counts[node.name] += 1
            return taken

        monkeypatch.setattr(Node, "_take", counted)

    async def more(self, *names: str) -> None:
        """Wait for two more rounds of each node: the second one began after this call."""
        wanted = {name: self.counts[name] + 2 for name in names}
        await until(lambda: all(self.counts[name] >= count for name, count in wanted.items()))


async def test_failed_node_is_taken_over_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    rounds = Rounds(monkeypatch)
    taken: list[tuple[str, str]] = []
    done = Waiter()
    async with store.journal("a") as journal:
        journal.queue.append(Commit(1, live_record("c1"), b""), done)
        journal.queue.append(Commit(2, live_record("c2"), b""), done)
        await done.until(lambda: done.tokens == [1, 2])
        _fall_silent(journal)
        heirs = [Node(store.server(name), store.sealer, store.report, dead_s=0.5) for name in ("b", "c", "d")]
        for heir in heirs:
            await heir.open()
            heir.watch(lambda calls, _, name=heir.name: taken.extend(_named(name, calls)), lambda: None)
        await until(lambda: len(taken) == 2)
        assert len({name for name, _ in taken}) == 1
        await rounds.more("b", "c", "d")
        assert sorted(call for _, call in taken) == ["c1", "c2"]
        assert store.live() == [f"c1 {taken[0][0]}", f"c2 {taken[0][0]}"]
        for heir in heirs:
            await heir.close()


async def test_live_row_put_back_after_the_end_is_not_taken_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    taken: list[tuple[str, str]] = []
    done = Waiter()
    async with store.journal("a") as journal:
        for token, call in enumerate(("c1", "c2"), 1):
            journal.queue.append(Commit(token, live_record(call), b""), done)
        await done.until(lambda: done.tokens == [1, 2])
        with closing(postgres.connect(store.place)) as thief:
            (copied,) = thief.execute("SELECT sealed FROM live_call WHERE call_id = 'c1'").fetchone()
            journal.queue.append(Commit(3, ended_record("c1"), None), done)
            await done.until(lambda: done.tokens == [1, 2, 3])
            thief.execute("INSERT INTO live_call (id, call_id, node, sealed) VALUES (0, 'c1', 'a', ?)", (copied,))
        _fall_silent(journal)
        heir = Node(store.server("b"), store.sealer, store.report, dead_s=0.5)
        await heir.open()
        heir.watch(lambda calls, _: taken.extend(_named("b", calls)), lambda: None)
        await until(lambda: taken == [("b", "c2")])
        await until(lambda: store.live() == ["c2 b"])
        await heir.close()
    assert ("journal.live_call_has_ended", "c1") in [(event, fields.get("call_id")) for event, fields in store.said]


async def test_slow_node_that_was_taken_over_writes_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    done, taken = Waiter(), list[tuple[str, str]]()
    slow = postgres_journal(store.server("a"), store.sealer, store.report)
    await slow.open()
    slow.queue.append(Commit(1, live_record("c1"), b""), done)
    await done.until(lambda: done.tokens == [1])
    _fall_silent(slow)
    heir = Node(store.server("b"), store.sealer, store.report, dead_s=0.3)
    await heir.open()
    heir.watch(lambda calls, _: taken.extend(_named("b", calls)), lambda: None)
    await until(lambda: taken == [("b", "c1")])
    slow.queue.append(Commit(2, ended_record("c1"), None), done)
    await until(lambda: any(event == "journal.write_failed" for event, _ in store.said))
    with pytest.raises(StoreError, match="1 call records could not be written"):
        await slow.close(0.1)
    assert (done.tokens, store.records(), store.live()) == ([1], [], ["c1 b"])
    await heir.close()


async def test_node_learns_that_it_was_taken_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    lost = asyncio.Event()
    node = Node(store.server("a"), store.sealer, store.report)
    await node.open()
    node.watch(lambda calls, _: None, lost.set)
    with closing(postgres.connect(store.place)) as connection:
        connection.execute("UPDATE node SET epoch = epoch + 1")
    async with asyncio.timeout(10):
        await lost.wait()
    await node.close()


async def test_no_node_is_taken_over_right_after_an_outage_of_the_server(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    rounds = Rounds(monkeypatch)
    taken: list[tuple[str, str]] = []
    pair = [Node(store.server(name), store.sealer, store.report, dead_s=0.5) for name in ("a", "b")]
    for node in pair:
        await node.open()
        node.watch(
            lambda calls, _, name=node.name: taken.extend(_named(name, calls)), lambda: taken.append(("lost", ""))
        )
    await rounds.more("a", "b")
    with closing(postgres.connect(store.place)) as connection:  # as after an outage of one minute
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE node SET seen_at = now() - interval '60 s'")
        connection.execute(_TERMINATE)
        connection.execute("COMMIT")
    await until(lambda: {fields["node"] for event, fields in store.said if event == "node.beat_failed"} == {"a", "b"})
    await rounds.more("a", "b")
    assert not [fields for event, fields in store.said if event == "node.taken_over"]
    assert taken == []
    for node in pair:
        await node.close()


async def test_stopped_node_is_not_taken_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    rounds = Rounds(monkeypatch)
    async with store.journal("a"):
        pass
    with closing(postgres.connect(store.place)) as connection:
        connection.execute("UPDATE node SET seen_at = now() - interval '60 s'")
    heir = Node(store.server("b"), store.sealer, store.report, dead_s=0.2)
    await heir.open()
    heir.watch(lambda calls, _: None, lambda: None)
    await rounds.more("b")
    await heir.close()
    assert store.said == []


async def test_takeover_whose_commit_was_in_doubt_loses_no_call(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    monkeypatch.setattr(nodes, "MOST_TAKEN", 1)
    rounds, taken, commit = Rounds(monkeypatch), list[tuple[str, str]](), Transaction.__aexit__

    async def lose_answer(transaction: Transaction, *raised: Any) -> None:
        await commit(transaction, *raised)
        if "c1 b" in store.live():
            monkeypatch.setattr(Transaction, "__aexit__", commit)
            raise OSError("the connection was lost")

    await _leave_calls(store, "a", "c1", "c2")
    await _leave_calls(store, "b", "own")
    monkeypatch.setattr(Transaction, "__aexit__", lose_answer)
    heir = Node(store.server("b"), store.sealer, store.report, dead_s=0.3)
    async with asyncio.timeout(20):
        while True:
            try:  # until the server has noticed the end of b's session, or its beat is old
                await heir.open()
                break
            except StoreError:
                continue
    heir.watch(lambda calls, _: taken.extend(_named("b", calls)), lambda: None)
    await until(lambda: len(taken) == 2)
    await rounds.more("b")
    assert sorted(taken) == [("b", "c1"), ("b", "c2")]
    assert {event for event, _ in store.said} == {"node.beat_failed"}
    await heir.close()


async def test_takeover_in_doubt_waits_for_a_commit_still_under_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    taken: list[tuple[str, str]] = []
    await _leave_calls(store, "a", "c1")
    heir = Node(store.server("b"), store.sealer, store.report, dead_s=60)
    heir._taken = ["c1"]
    with closing(postgres.connect(store.place)) as committing, closing(postgres.connect(store.place)) as looker:
        committing.execute("BEGIN READ WRITE")
        committing.execute("UPDATE live_call SET node = 'b'")
        await heir.open()
        heir.watch(lambda calls, _: taken.extend(_named("b", calls)), lambda: None)
        await until(lambda: looker.execute(_WAITING).fetchone() == (1,))
        committing.execute("COMMIT")
    await until(lambda: taken == [("b", "c1")])
    await heir.close()


async def test_node_that_can_beat_no_more_ends(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose calls were taken over: it would live on unseen, and they would be taken over from it."""
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    lost = asyncio.Event()

    def fail(calls: list[LiveCall], _: list[KeptAttempt]) -> None:
        raise KeyError("a bug")

    await _leave_calls(store, "a", "c1")
    heir = Node(store.server("b"), store.sealer, store.report, dead_s=0.3)
    await heir.open()
    heir.watch(fail, lost.set)
    async with asyncio.timeout(60):
        await lost.wait()
    event, fields = store.said[-1]
    assert (event, fields["reason"]) == ("node.stopped", "KeyError('a bug')")
    await heir.close()


async def test_name_of_a_running_node_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a copied machine. A process that was killed frees its name at once, one that is silent after a while."""
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    first, second, third = [Node(store.server("a"), store.sealer, store.report, dead_s=0.5) for _ in range(3)]
    await first.open()
    with pytest.raises(StoreError, match=r'another relay700 is node "a" of the store .*: choose another store\.node'):
        await second.open()
    await second.close()
    assert first._watching is not None and not first._watching.done()
    first._watching.cancel()
    assert first._connection is not None
    first._connection.terminate()
    await until_joined(second)
    assert second._watching is not None
    second._watching.cancel()  # its connection stays, as of a machine that has vanished
    await until_joined(third)
    assert (first.epoch, second.epoch, third.epoch) == (1, 2, 3)
    for node in (second, third):
        await node.close()


async def test_node_that_was_cut_off_gets_its_name_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server keeps the session of the connection that broke, with its lock, for a while."""
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    monkeypatch.setattr(nodes, "SILENT", {"idle_session_timeout": "500"})
    node, copy = (Node(store.server("a"), store.sealer, store.report) for _ in range(2))
    await node.open()
    cut_off, node._connection = node._connection, None
    await until(lambda: node._connection is not None and not node._holds_name)
    await until(lambda: node._holds_name)
    assert cut_off is not None and cut_off.is_closed()
    with pytest.raises(StoreError, match="another relay700"):
        await copy.open()
    for each in (node, copy):
        await each.close()


async def until_joined(node: Node) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await node.open()
            except StoreError:
                await node.close()
                await asyncio.sleep(0.01)
            else:
                return


async def test_node_beats_from_its_start_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start may take longer than other nodes wait before they take over its calls."""
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    lost = asyncio.Event()
    node = Node(store.server("a"), store.sealer, store.report)
    await node.open()
    with closing(postgres.connect(store.place)) as connection:
        connection.execute("UPDATE node SET seen_at = now() - interval '60 s'")
        await until(lambda: connection.execute(_SEEN).fetchone() == (True,))
        connection.execute("UPDATE node SET epoch = epoch + 1")  # by another one, even before this one watches
    assert node._watching is not None
    await asyncio.wait([node._watching])
    node.watch(lambda calls, _: None, lost.set)
    async with asyncio.timeout(60):
        await lost.wait()
    await node.close()


async def _leave_calls(store: Store, node: str, *call_ids: str) -> None:
    """Write calls that are up when their node dies."""
    done = Waiter()
    async with store.journal(node) as journal:
        for token, call_id in enumerate(call_ids, 1):
            journal.queue.append(Commit(token, live_record(call_id), b""), done)
        await done.until(lambda: len(done.tokens) == len(call_ids))


def _fall_silent(journal: Journal) -> None:
    """Stop the heartbeats, as on a machine that is too slow for them."""
    writer = journal.writer
    assert isinstance(writer, PostgresWriter) and writer._node._watching is not None
    writer._node._watching.cancel()


def _named(node: str, calls: list[LiveCall]) -> list[tuple[str, str]]:
    return [(node, call.record.call_id) for call in calls]


def _drop_others(place: PostgresServer) -> None:
    with closing(postgres.connect(place)) as connection:
        connection.execute(_TERMINATE)
