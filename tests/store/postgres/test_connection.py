"""A connection to a PostgreSQL server: paged reads of whole tables, and one unit of work at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from relay.call.recovery import KeptAttempt
from relay.model.actions import Commit
from relay.store.audit import verify_audit
from relay.store.connection import PostgresBusy, PostgresError, each_row, transaction
from relay.store.database import connect, connect_reader, one_moment
from relay.store.journal.attempts import with_records
from relay.store.postgres import connection as module
from relay.store.postgres.connection import PostgresConnection
from relay.store.postgres.journal import postgres_journal
from relay.store.records import verify_records
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.support import postgres
from tests.support.places import new_server_store
from tests.support.postgres import PostgresProcess
from tests.support.stored import NOW_MS, ended_record, live_record

pytestmark = pytest.mark.outside

PAGE = 10
COUNT = 3 * PAGE + 1


class Store:
    """A database with `COUNT` ended records and entries of the audit log."""

    def __init__(self, folder: Path) -> None:
        self.place, self.sealer = new_server_store(folder)

    async def fill(self) -> None:
        journal = postgres_journal(self.place, self.sealer, lambda event, fields: None)
        await journal.open()
        for n in range(COUNT):
            journal.queue.append(Commit(0, ended_record(f"c{n}", received_at=NOW_MS + n), None), lambda _: None)
        await journal.close()
        with closing(Writer(self.place, self.sealer, clock_ms=lambda: NOW_MS)) as writer:
            for n in range(COUNT):
                writer.run(RELAY, lambda unit, n=n: unit.audit("do", f"o{n}"))  # type: ignore[misc]

    def verified(self) -> int:
        with closing(connect_reader(self.place)) as connection:
            return verify_records(connection, self.sealer).intact

    def verified_entries(self) -> int:
        with closing(connect_reader(self.place)) as connection:
            return verify_audit(connection, self.sealer).intact


@pytest.fixture
async def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    await store.fill()
    yield store
    postgres.drop(store.place)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the result sets that the server sent."""
    counts: list[int] = []
    execute = psycopg.Cursor.execute

    def counted(cursor: psycopg.Cursor[Any], *args: Any, **options: Any) -> object:
        done = execute(cursor, *args, **options)
        counts.append(cursor.pgresult.ntuples if cursor.pgresult else 0)
        return done

    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    monkeypatch.setattr(module, "PAGE", PAGE)
    return counts


@pytest.mark.parametrize("read", [Store.verified, Store.verified_entries])
async def test_tables_are_read_page_by_page(store: Store, sent: list[int], read: Callable[[Store], int]) -> None:
    assert read(store) >= COUNT
    assert max(sent) == PAGE


async def test_read_sees_one_snapshot(store: Store, sent: list[int]) -> None:
    query = "SELECT seq FROM audit ORDER BY seq"
    with closing(connect_reader(store.place)) as reader, closing(connect(store.place)) as writer:
        with one_moment(reader):
            rows = each_row(reader, query)
            first = next(rows)
            writer.execute("DELETE FROM audit")
            inner = list(each_row(reader, query))  # each has its own cursor
            assert [first, *rows] == inner
        assert len(inner) >= COUNT
        assert reader.execute(query).fetchall() == []


def test_frozen_unit_of_work_does_not_block_others(tmp_path: Path) -> None:
    place, _ = new_server_store(tmp_path)
    with closing(connect(place)) as frozen, closing(connect(place)) as writer:
        frozen.execute("BEGIN IMMEDIATE")
        writer.execute("BEGIN IMMEDIATE")  # waits for the frozen one
        writer.execute("COMMIT")
        with pytest.raises(PostgresError):
            frozen.execute("COMMIT")
    postgres.drop(place)


def test_transaction_that_waited_in_vain_for_its_turn_leaves_the_connection_usable(tmp_path: Path) -> None:
    place, _ = new_server_store(tmp_path)
    with closing(connect(place)) as first, closing(connect(place)) as second:
        second.execute("SET lock_timeout = 10")
        with transaction(first), pytest.raises(PostgresBusy), transaction(second):
            pass
        with transaction(second):
            assert second.in_transaction
        assert not second.in_transaction
    postgres.drop(place)


def test_server_that_vanishes_is_noticed(tmp_path: Path) -> None:
    """Also while a statement waits for its answer: the server has acknowledged it, so nothing is sent again."""
    place, _ = new_server_store(tmp_path)
    with closing(PostgresConnection(place.url)) as connection:
        parameters = connection._connection.info.get_parameters()
    assert int(parameters["keepalives_idle"]) + 3 * int(parameters["keepalives_interval"]) <= module.CONNECT_S
    assert parameters["keepalives_count"] == "3"
    postgres.drop(place)


def test_record_of_an_attempt_is_found_without_those_of_other_nodes(store: Store, sent: list[int]) -> None:
    left = [KeptAttempt(live_record("c5", received_at=NOW_MS), b"")]
    (found,) = with_records(store.place, store.sealer, left, ())
    assert found.stored == ended_record("c5", received_at=NOW_MS + 5)
    assert sum(sent) < PAGE


# A server that does not answer


@pytest.fixture
def frozen_soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresProcess]:
    """A server of this test's own, which is noticed early when it is frozen."""
    for name, seconds in (("SILENT_S", 0.3), ("LOOP_S", 0.2), ("PAUSE_S", 600.0)):
        monkeypatch.setattr(module, name, seconds)
    monkeypatch.setattr(module, "_silent_until", {})
    server = PostgresProcess()
    yield server
    server.thaw()
    server.close()


def test_statement_ends_if_the_server_answers_nobody(frozen_soon: PostgresProcess) -> None:
    with closing(PostgresConnection(frozen_soon.url("postgres"))) as connection:
        frozen_soon.freeze()
        for _ in range(2):  # the second one at once, before PAUSE_S is over
            with pytest.raises(PostgresError, match="the server does not answer"):
                connection.execute("SELECT 1")
        frozen_soon.thaw()
        module._silent_until.clear()
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_long_statement_goes_on_while_the_server_answers_others(frozen_soon: PostgresProcess) -> None:
    with closing(PostgresConnection(frozen_soon.url("postgres"))) as connection:
        assert connection.execute("SELECT 1 FROM pg_sleep(1)").fetchone() == (1,)


async def test_event_loop_waits_for_no_long_statement_of_its_own(frozen_soon: PostgresProcess) -> None:
    with closing(PostgresConnection(frozen_soon.url("postgres"), in_loop=True)) as connection:
        for _ in range(2):
            with pytest.raises(PostgresError, match="the server does not answer"):
                connection.execute("SELECT 1 FROM pg_sleep(60)")
        assert await asyncio.to_thread(lambda: connection.execute("SELECT 1").fetchone()) == (1,)
