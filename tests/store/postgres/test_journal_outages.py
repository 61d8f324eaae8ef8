"""The journal of a node while the server takes no records: what the overflow log keeps, and who writes it at last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.model.actions import CallEvent, Commit
from relay.store.journal import journal as journal_module
from relay.store.journal.journal import Journal
from tests.store.conftest import Waiter
from tests.store.postgres.test_journal import Store
from tests.support import postgres
from tests.support.stored import ended_record, live_record
from tests.support.waiting import until

pytestmark = pytest.mark.outside

NO_RECORDS, RECORDS = "ALTER TABLE call_record RENAME TO gone", "ALTER TABLE gone RENAME TO call_record"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(journal_module, "OVERFLOW_AFTER_S", 0.1)
    store = Store(tmp_path)
    yield store
    postgres.drop(store.place)


def execute(store: Store, *statements: str) -> None:
    with closing(postgres.connect(store.place)) as connection:
        for statement in statements:
            connection.execute(statement)


def end(journal: Journal, done: Waiter, *tokens: int) -> None:
    for token in tokens:
        journal.queue.append(Commit(token, ended_record(f"c{token}"), None), done)


def answer(journal: Journal, done: Waiter, token: int) -> None:
    journal.queue.append(Commit(token, live_record(f"c{token}"), b"dialogs"), done)


async def test_records_of_ends_are_acknowledged_and_answers_wait(store: Store) -> None:
    """A node that takes over could not see an answer that is in a file of this machine."""
    done = Waiter()
    async with store.journal("a") as journal:
        execute(store, NO_RECORDS)
        end(journal, done, 1)
        await until(lambda: store.said)
        answer(journal, done, 2)
        journal.queue.emit(CallEvent("answered", live_record("c2")))
        end(journal, done, 3, 4)
        await done.until(lambda: done.tokens == [1, 3, 4])
        end(journal, done, 5)
        await done.until(lambda: done.tokens == [1, 3, 4, 5])
        execute(store, RECORDS)
        await done.until(lambda: done.tokens == [1, 3, 4, 5, 2])
        await journal.queue.emptied(60)
    assert sorted(record.call_id for record in store.records()) == ["c1", "c3", "c4", "c5"]
    assert store.live() == ["c2 a"]
    assert list(dict.fromkeys(event for event, _ in store.said)) == ["journal.write_failed", "journal.recovered"]


async def killed_in_an_outage(store: Store, *ended: int) -> None:
    """Node a with records in its overflow log alone."""
    done = Waiter()
    with pytest.raises(StoreError, match="1 call records could not be written"):
        async with store.journal("a") as journal:
            execute(store, NO_RECORDS)
            end(journal, done, *ended)
            answer(journal, done, 99)
            await done.until(lambda: done.tokens == list(ended))
            close = journal.close
            journal.close = lambda: close(0.1)  # type: ignore[method-assign, assignment]
    execute(store, RECORDS)


async def test_next_start_writes_what_the_server_did_not_take(store: Store) -> None:
    await killed_in_an_outage(store, 1, 2)
    assert store.records() == []
    async with store.journal("a") as journal:
        await journal.queue.emptied(60)
        assert journal.live() == []
    assert sorted(record.call_id for record in store.records()) == ["c1", "c2"]


async def test_what_another_node_ends_or_has_recorded_is_left_to_it(store: Store) -> None:
    await killed_in_an_outage(store, 1, 2, 3, 4)
    done = Waiter()
    async with store.journal("b") as heir:
        heir.queue.append(Commit(1, ended_record("c1", end_reason="lost_at_restart"), None), done)
        answer(heir, done, 2)
        await done.until(lambda: len(done.tokens) == 2)
        execute(store, "INSERT INTO attempt (call_id, node, sealed) VALUES ('c3', 'b', '')")
        async with store.journal("a") as back:
            await back.queue.emptied(60)
        assert sorted((record.call_id, record.end_reason) for record in store.records()) == [
            ("c1", "lost_at_restart"),
            ("c4", "bye"),
        ]
        assert store.live() == ["c2 b"]
