"""Moving a store to a server: all rows are copied, and refusals copy nothing."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.policy.evaluate import LookupResult
from relay.policy.rules import Rules
from relay.store.bindings import all_bindings
from relay.store.chain import AnchorFile
from relay.store.connection import PostgresServer
from relay.store.database import connect, connect_reader, is_there
from relay.store.journal.attempts import AttemptFile
from relay.store.journal.overflow import Overflow
from relay.store.migrate import COPIED, LEFT_OUT, migrate
from relay.store.postgres.lookup import PostgresRouteReader
from tests.store.conftest import Disk, Waiter, opened
from tests.support import postgres
from tests.support.stored import NOW_MS, A, X, binding, ended_record, live_record, put


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PostgresServer]:
    place = postgres.new_place(tmp_path)
    yield place
    postgres.drop(place)


async def _fill(disk: Disk, *, up: bool = False) -> None:
    put(disk.path, disk.sealer, binding())
    done = Waiter()
    async with opened(disk) as journal:
        for n in range(2_100):  # more than fit into one read
            journal.queue.append(Commit(n + 1, ended_record(f"c{n}"), None), done)
        if up:
            journal.queue.append(Commit(9_999, live_record("up"), b""), done)
        await journal.queue.emptied(60)


def test_every_table_is_copied_or_left_out_on_purpose(disk: Disk) -> None:
    with closing(connect_reader(disk.path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        assert {name for (name,) in names} == {*COPIED, *LEFT_OUT}


@pytest.mark.outside
async def test_all_rows_are_copied(disk: Disk, server: PostgresServer) -> None:
    await _fill(disk)
    moved = migrate(disk.path, server, disk.key_file)
    assert moved.records == moved.rows["call_record"] == 2_100
    with closing(connect_reader(disk.path)) as source, closing(connect_reader(server)) as target:
        for table in COPIED:
            columns = ", ".join(row[1] for row in source.execute(f"PRAGMA table_info({table})").fetchall())
            rows = f"SELECT {columns} FROM {table}"
            assert sorted(map(repr, source.execute(rows))) == sorted(map(repr, target.execute(rows))), table
    with closing(connect_reader(server)) as connection:
        assert [found.binding_id for found in all_bindings(connection, disk.sealer)] == ["b1"]
    reader = PostgresRouteReader(server, disk.sealer, Rules(), lambda event, fields: None)
    await reader.open()
    found = await reader.fetch(X, A, NOW_MS / 1000)
    assert isinstance(found, LookupResult) and found.bound is not None and found.bound.binding_id == "b1"
    reader.close()
    with closing(connect(server)) as connection:
        connection.execute("INSERT INTO call_event (call_id, kind, sealed) VALUES (?, 'ringing', x'')", ("c",))


@pytest.mark.outside
async def test_store_with_calls_up_is_not_moved(disk: Disk, server: PostgresServer) -> None:
    await _fill(disk, up=True)
    with pytest.raises(StoreError, match="1 calls are up"):
        migrate(disk.path, server, disk.key_file)


@pytest.mark.outside
async def test_served_store_is_not_moved(disk: Disk, server: PostgresServer) -> None:
    lock = os.open(disk.path.with_name("relay.db.lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(StoreError, match="stop it first"):
        migrate(disk.path, server, disk.key_file)
    os.close(lock)


@pytest.mark.outside
async def test_existing_store_on_the_server_is_not_overwritten(disk: Disk, server: PostgresServer) -> None:
    migrate(disk.path, server, disk.key_file)
    with pytest.raises(StoreError, match="already"):
        migrate(disk.path, server, disk.key_file)


@pytest.mark.outside
async def test_store_changed_by_a_later_version_is_not_moved(disk: Disk, server: PostgresServer) -> None:
    with closing(connect(disk.path)) as connection:
        connection.execute("CREATE TABLE later (id INTEGER)")
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="move it with that"):
        migrate(disk.path, server, disk.key_file)
    assert not is_there(server)


@pytest.mark.outside
async def test_damaged_store_is_not_moved(disk: Disk, server: PostgresServer) -> None:
    await _fill(disk)
    with closing(connect(disk.path)) as connection:
        connection.execute("UPDATE call_record SET number_shown = NULL WHERE chain_seq = 7")
    with pytest.raises(StoreError, match="record 7"):
        migrate(disk.path, server, disk.key_file)
    assert not is_there(server)


@pytest.mark.outside
async def test_a_row_changed_outside_relay700_is_not_proven_by_a_move(disk: Disk, server: PostgresServer) -> None:
    put(disk.path, disk.sealer, binding())
    with closing(connect(disk.path)) as connection:
        connection.execute("UPDATE binding SET expires_at = expires_at + 1")
    with pytest.raises(StoreError, match=r"binding b1: was changed outside relay700.*relay700 verify"):
        migrate(disk.path, server, disk.key_file)
    assert not is_there(server)


@pytest.mark.outside
@pytest.mark.parametrize("place", ["overflow", "attempts"])
def test_a_store_that_lacks_records_which_are_in_files_beside_it_is_not_moved(
    disk: Disk, server: PostgresServer, place: str
) -> None:
    path = disk.path.with_name(f"relay.db.{place}")
    if place == "overflow":
        with closing(Overflow(path, disk.sealer)) as overflow:
            overflow.open()
            overflow.write(overflow.prepare(0, [Commit(0, ended_record("c1"), None)]))
    else:
        with closing(AttemptFile(path, disk.sealer, lambda *_: None)) as attempts:
            attempts.open()
            attempts.keep(live_record("c" * 32), b"")
    with pytest.raises(StoreError, match="1 calls are in files beside"):
        migrate(disk.path, server, disk.key_file)
    assert not is_there(server)


@pytest.mark.outside
async def test_an_earlier_copy_of_a_store_is_not_moved(disk: Disk, server: PostgresServer) -> None:
    await _fill(disk)
    earlier = disk.path.read_bytes()
    async with opened(disk) as journal:
        journal.queue.append(Commit(1, ended_record("later"), None), Waiter())
        await journal.queue.emptied(60)
    with closing(connect_reader(disk.path)) as connection:
        AnchorFile(disk.path, disk.sealer).keep(connection)
    disk.path.write_bytes(earlier)
    with pytest.raises(StoreError, match="an earlier copy of the store"):
        migrate(disk.path, server, disk.key_file)
    assert not is_there(server)
