"""Attempts of a node in the store: who owns them when the node dies, is slow, or comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from relay.call.recovery import KeptAttempt
from relay.defence.limits import SharedLimits
from relay.model.actions import Commit
from relay.policy.call_policy import RefusedAttempts
from relay.store.journal.attempts import AttemptFile
from relay.store.journal.journal import Journal
from relay.store.journal.rows import LiveCall
from relay.store.postgres import nodes
from relay.store.postgres.attempts import SharedAttempts
from relay.store.postgres.journal import PostgresWriter, postgres_journal
from tests.store.conftest import Reported, Waiter
from tests.support import postgres
from tests.support.places import new_server_store
from tests.support.stored import ended_record, live_record
from tests.support.waiting import until

pytestmark = pytest.mark.outside

C1, C2 = "c1".ljust(32, "0"), "c2".ljust(32, "0")
SENT_BY = ("192.0.2.11:5060",)
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

_WAITS = "SELECT count(*) FROM pg_locks WHERE NOT granted"


def ringing(call_id: str, caller: str = "13800000001") -> KeptAttempt:
    record = live_record(call_id, answered_at=None, sip_status=None, caller=caller)
    return KeptAttempt(record, b"state of " + call_id.encode())


class Relay:
    """A node's journal and attempts, and what it takes over."""

    def __init__(self, journal: Journal, attempts: SharedAttempts, left: list[KeptAttempt]) -> None:
        self.journal = journal
        self.attempts = attempts
        self.left = left
        self.taken: list[tuple[list[LiveCall], list[KeptAttempt]]] = []
        journal.writer.watch(self._take, SharedLimits({}, {}, RefusedAttempts(), lambda: 0.0))

    def _take(self, calls: list[LiveCall], attempts: list[KeptAttempt]) -> None:
        if calls or attempts:
            self.taken.append((calls, attempts))

    def keep(self, *attempts: KeptAttempt) -> None:
        for attempt in attempts:
            self.attempts.keep(attempt.record, attempt.state)

    def fall_silent(self) -> None:
        """Beat no more, as a machine that has frozen."""
        writer = self.journal.writer
        assert isinstance(writer, PostgresWriter) and writer._node._watching is not None
        writer._node._watching.cancel()

    async def commit(self, commit: Commit) -> None:
        done = Waiter()
        self.journal.queue.append(commit, done)
        await done.until(lambda: bool(done.tokens))


class Store:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place, self.sealer = new_server_store(folder)
        self.said: Reported = []

    def report(self, event: str, fields: dict[str, object]) -> None:
        self.said.append((event, fields))

    @asynccontextmanager
    async def relay(self, name: str, dead_s: float = 60.0) -> AsyncIterator[Relay]:
        place = self.place._replace(node=name, local=self.folder / name)
        file = AttemptFile(self.folder / f"{name}.attempts", self.sealer, self.report)
        attempts = SharedAttempts(file, place, self.sealer, SENT_BY, self.report)
        journal = postgres_journal(place, self.sealer, self.report, attempts)
        writer = journal.writer
        assert isinstance(writer, PostgresWriter)
        writer._node._dead_s = dead_s
        await journal.open()
        try:
            yield Relay(journal, attempts, attempts.open())
        finally:
            await journal.close()
            attempts.close()

    def rows(self) -> dict[str, str]:
        """The node of each attempt."""
        with closing(postgres.connect(self.place)) as connection:
            return dict(connection.execute("SELECT call_id, node FROM attempt").fetchall())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    store = Store(tmp_path)
    yield store
    postgres.drop(store.place)


async def test_attempt_has_a_row_until_it_is_over(store: Store) -> None:
    async with store.relay("a") as relay:
        relay.keep(ringing(C1))
        await until(lambda: store.rows() == {C1: "a"})
        relay.attempts.drop([C1])
        await until(lambda: store.rows() == {})


async def test_attempt_that_is_over_at_once_never_has_one(store: Store) -> None:
    async with store.relay("a") as relay:
        with closing(postgres.connect(store.place)) as connection:
            connection.execute(f"ALTER TABLE attempt ADD CHECK (call_id <> '{C2}')")
        relay.keep(ringing(C2))
        relay.attempts.drop([C2])
        relay.keep(ringing(C1))
        await until(lambda: store.rows() == {C1: "a"})
    assert store.said == []


async def test_another_node_gets_the_latest_state_with_its_record(store: Store) -> None:
    async with store.relay("a") as gone, store.relay("b", dead_s=0.5) as heir:
        gone.keep(ringing(C1), ringing(C1)._replace(state=b"the next target"), ringing(C2))
        await until(lambda: len(store.rows()) == 2)
        await gone.commit(Commit(1, ended_record(C2), None))
        gone.fall_silent()
        await until(lambda: heir.taken)
        ((calls, attempts),) = heir.taken
        assert calls == []
        found = {attempt.record.call_id: attempt for attempt in attempts}
        assert (found[C1].state, found[C1].stored, found[C1].sent_by) == (b"the next target", None, SENT_BY)
        assert found[C2].stored == ended_record(C2)
        assert store.rows() == {C1: "b", C2: "b"}
        heir.attempts.drop([C1, C2])
        await until(lambda: store.rows() == {})


async def test_call_that_was_just_answered_comes_with_its_attempt(store: Store) -> None:
    async with store.relay("a") as gone, store.relay("b", dead_s=0.5) as heir:
        gone.keep(ringing(C1))
        await gone.commit(Commit(1, live_record(C1), b"dialogs"))
        await until(lambda: store.rows() == {C1: "a"})
        gone.fall_silent()
        await until(lambda: heir.taken)
        ((calls, attempts),) = heir.taken
        assert [call.record.call_id for call in calls] == [C1]
        assert [attempt.stored for attempt in attempts] == [live_record(C1)]


async def test_node_that_was_only_slow_neither_writes_nor_deletes_any_more(store: Store) -> None:
    async with store.relay("a") as slow, store.relay("b", dead_s=0.5) as heir:
        slow.keep(ringing(C1))
        await until(lambda: store.rows() == {C1: "a"})
        slow.fall_silent()
        await until(lambda: heir.taken)
        slow.keep(ringing(C2))
        slow.attempts.drop([C1])
        await slow.attempts._write()
        assert store.rows() == {C1: "b"}


async def test_attempts_and_the_journal_do_not_wait_for_each_other(store: Store) -> None:
    async with store.relay("a") as relay:
        with closing(postgres.connect(store.place)) as journal:
            journal.execute("BEGIN READ WRITE")
            journal.execute("UPDATE node SET batch = batch + 1")
            relay.keep(ringing(C1))
            await until(lambda: store.rows() == {C1: "a"})
            journal.execute("ROLLBACK")


async def test_a_takeover_waits_for_attempts_that_are_being_written(store: Store) -> None:
    async with store.relay("a") as gone, store.relay("b", dead_s=0.5) as heir:
        with closing(postgres.connect(store.place)) as writer:
            writer.execute("BEGIN READ WRITE")
            writer.execute("SELECT 1 FROM node WHERE name = 'a' FOR KEY SHARE")
            gone.fall_silent()
            await until(lambda: writer.execute(_WAITS).fetchone() == (1,))
            kept = ringing(C1)
            sealed = gone.attempts._sealed(C1, (kept.record, kept.state, SENT_BY))
            writer.execute("INSERT INTO attempt (call_id, node, sealed) VALUES (?, 'a', ?)", (C1, sealed))
            writer.execute("COMMIT")
        await until(lambda: heir.taken)
        assert [attempt.record.call_id for _, attempts in heir.taken for attempt in attempts] == [C1]


async def test_start_leaves_alone_what_another_node_ends(store: Store) -> None:
    async with store.relay("b", dead_s=0.5) as heir:
        async with store.relay("a") as gone:
            gone.keep(ringing(C1))
            await until(lambda: store.rows() == {C1: "a"})
            gone.keep(ringing(C2))  # killed before it is shared
            gone.attempts._new.clear()
            gone.fall_silent()
            await until(lambda: heir.taken)
        async with store.relay("a") as back:
            assert [attempt.record.call_id for attempt in back.left] == [C2]


async def test_start_finds_what_its_file_has_lost(store: Store) -> None:
    async with store.relay("a") as gone:
        gone.keep(ringing(C1), ringing(C2))
        await until(lambda: len(store.rows()) == 2)
    (store.folder / "a.attempts").unlink()
    async with store.relay("a") as back:
        assert {attempt.record.call_id for attempt in back.left} == {C1, C2}
        back.attempts.drop([C1, C2])
        await until(lambda: store.rows() == {})


async def test_server_that_comes_back_without_them_gets_them_again(store: Store) -> None:
    async with store.relay("a") as relay:
        relay.keep(ringing(C1))
        await until(lambda: store.rows() == {C1: "a"})
        with closing(postgres.connect(store.place)) as connection:
            connection.execute("DELETE FROM attempt")
            connection.execute(_TERMINATE)
        relay.keep(ringing(C2))
        await until(lambda: store.rows() == {C1: "a", C2: "a"})


async def test_altered_row_is_reported_and_deleted(store: Store) -> None:
    async with store.relay("a") as gone, store.relay("b", dead_s=0.5) as heir:
        gone.keep(ringing(C1), ringing(C2))
        await until(lambda: len(store.rows()) == 2)
        with closing(postgres.connect(store.place)) as connection:
            connection.execute("UPDATE attempt SET sealed = (SELECT sealed FROM attempt WHERE call_id = ?)", (C2,))
        gone.fall_silent()
        await until(lambda: heir.taken)
        assert [attempt.record.call_id for attempt in heir.taken[0][1]] == [C2]
        assert ("attempts.altered", C1) in [(event, fields.get("call_id")) for event, fields in store.said]
        await until(lambda: store.rows() == {C2: "b"})


async def test_numbers_are_sealed(store: Store) -> None:
    async with store.relay("a") as relay:
        relay.keep(ringing(C1))
        await until(lambda: store.rows())
        with closing(postgres.connect(store.place)) as connection:
            ((sealed,),) = connection.execute("SELECT sealed FROM attempt").fetchall()
        assert b"13800000001" not in bytes(sealed)
