"""The switch to another sealing key: in the journals, the overflow log, a node."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.store.connection import Connection, Place
from relay.store.database import connect, connect_reader, open_store
from relay.store.journal.journal import Journal
from relay.store.journal.overflow import Overflow
from relay.store.postgres.nodes import Node
from relay.store.sealing import keys as rotation
from relay.store.sealing.keys import KeySwitch, nodes_without
from relay.store.sealing.sealer import Sealer, load_key
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.writer import Writer
from tests.store.conftest import Disk, Reported, opened, stored
from tests.support.places import SERVER, kind, store_in
from tests.support.stored import ended_record, live_record
from tests.support.waiting import until


def turned(place: Place, key_file: Path) -> None:
    """Switch to the key 2, as another process."""
    with closing(Writer(place, load_key(key_file))) as other:
        key_id = other.run(RELAY, lambda unit: rotation.add(unit, key_file))
        other.run(RELAY, lambda unit: rotation.use(unit, key_id, []))


async def write(journal: Journal, *commits: Commit) -> None:
    for commit in commits:
        journal.queue.append(commit, lambda token: None)
    await journal.queue.emptied(60)


def ids(connection: Connection, column: str, table: str) -> list[int]:
    return [found[0] for (found,) in connection.execute(f"SELECT {column} FROM {table}").fetchall()]


async def test_journal_switches_keys_with_its_next_batch_and_the_chain_continues(disk: Disk) -> None:
    async with opened(disk) as journal:
        await write(journal, Commit(0, ended_record("c1"), None), Commit(0, live_record("c2"), b"dialogs"))
        turned(disk.path, disk.key_file)
        await write(journal, Commit(0, ended_record("c3"), None))  # in this transaction it reads the new key id
        await write(journal, Commit(0, ended_record("c4"), None))
    with closing(connect(disk.path)) as connection:
        assert ids(connection, "chain_hash", "call_record") == [1, 1, 2]
        assert ids(connection, "mac", "chain_head") == [2]
        assert ids(connection, "sealed", "live_call") == [1]
    assert [record.call_id for record in stored(disk)] == ["c1", "c3", "c4", "c2"]  # calls that are up come last
    async with opened(disk) as journal:
        assert [call.record.call_id for call in journal.live()] == ["c2"]


async def test_overflow_log_sealed_with_the_former_key_is_written_to_the_store(disk: Disk) -> None:
    overflow = Overflow(disk.path.with_name("relay.db.overflow"), disk.sealer)
    overflow.open()
    overflow.write(overflow.prepare(0, [Commit(0, ended_record("c1"), None)]))
    overflow.close()
    turned(disk.path, disk.key_file)
    again = disk._replace(sealer=open_store(disk.path, disk.key_file))
    said: Reported = []
    async with opened(again, said):
        pass
    assert [event for event, _ in said] == ["journal.recovered"]
    with closing(connect(disk.path)) as connection:
        assert ids(connection, "sealed", "call_record") == [2]
    assert [record.call_id for record in stored(again)] == ["c1"]


def test_missing_key_is_reported_once_and_the_former_key_stays_in_use(disk: Disk) -> None:
    said: Reported = []
    turning = KeySwitch(disk.sealer, lambda event, fields: said.append((event, fields)))
    turning.to(2)
    turning.to(2)
    ((event, fields),) = said
    assert (event, fields["effect"]) == ("sealing_key.missing", "records are still sealed with the key 1")
    assert "the key 2, which the key file" in str(fields["reason"])
    turned(disk.path, disk.key_file)
    turning.to(2)
    assert disk.sealer.key_id == 2


def test_unreadable_key_file_is_reported_once(disk: Disk) -> None:
    said: Reported = []
    turning = KeySwitch(disk.sealer, lambda event, fields: said.append((event, fields)))
    disk.key_file.write_text("nonsense\n")
    assert [turning.known(), turning.known()] == [f"1:{disk.sealer.proof(1).hex()}"] * 2
    assert [event for event, _ in said] == ["sealing_key.missing"]


@pytest.mark.parametrize("deed", ["UPDATE sealing_key SET used_at = NULL WHERE id = 2", "DELETE FROM sealing_key"])
def test_a_rotation_is_not_undone_in_the_database(disk: Disk, deed: str) -> None:
    turned(disk.path, disk.key_file)
    with closing(Writer(disk.path, disk.sealer)) as writer:
        writer.run(RELAY, lambda unit: unit.audit("test", "x"))
        with closing(connect(disk.path)) as thief:
            thief.execute(deed)
        writer.run(RELAY, lambda unit: unit.audit("test", "x"))
    assert (disk.sealer.key_id, open_store(disk.path, disk.key_file).key_id) == (2, 2)


# -- nodes


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Place, Sealer]]:
    with kind(SERVER):
        yield store_in(tmp_path)


async def test_node_publishes_its_keys_and_switches_with_a_heartbeat(
    server: tuple[Place, Sealer], tmp_path: Path
) -> None:
    place, sealer = server
    node = Node(place, sealer, lambda event, fields: None)  # type: ignore[arg-type]
    await node.open()
    with closing(connect_reader(place)) as reader:
        assert (nodes_without(reader, 1), nodes_without(reader, 2)) == ([], ["a"])
        turned(place, tmp_path / "relay.key")
        await until(lambda: (nodes_without(reader, 2), sealer.key_id) == ([], 2))
    await node.close()
    with closing(connect_reader(place)) as reader:
        assert nodes_without(reader, 7) == []


async def test_a_node_with_another_key_of_the_same_id_does_not_have_the_key(
    server: tuple[Place, Sealer], tmp_path: Path
) -> None:
    place, sealer = server
    of_a, of_b = tmp_path / "relay.key", tmp_path / "b.key"
    shutil.copy(of_a, of_b)
    said: list[str] = []
    node = Node(place, sealer, lambda event, fields: said.append(event))  # type: ignore[arg-type]
    await node.open()

    def add_in_vain(unit: UnitOfWork) -> None:
        rotation.add(unit, of_a)
        raise StoreError("no room for the COMMIT")

    with closing(Writer(place, load_key(of_a))) as writer, pytest.raises(StoreError, match="no room"):
        writer.run(RELAY, add_in_vain)
    await until(lambda: sealer.key_ids == [1, 2])
    with closing(Writer(place, load_key(of_b))) as writer:
        assert writer.run(RELAY, lambda unit: rotation.add(unit, of_b)) == 2
    of_b.replace(of_a)
    await until(lambda: "sealing_key.missing" in said)
    with closing(connect_reader(place)) as reader:
        assert (nodes_without(reader, 1), nodes_without(reader, 2)) == ([], ["a"])
    await node.close()
