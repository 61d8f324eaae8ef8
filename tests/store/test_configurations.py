"""Configurations kept in the store, by node and time."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import StoreError
from relay.store.configurations import (
    find_configuration,
    is_in_force,
    node_of,
    purge_configurations,
    put_configuration,
)
from relay.store.connection import Place, PostgresServer
from relay.store.database import connect, connect_reader
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.support.places import new_store, store_in

NUMBER = "13800000001"


@pytest.fixture
def store(store_kind: str, tmp_path: Path) -> tuple[Place, Sealer]:
    return store_in(tmp_path)


def put(store: tuple[Place, Sealer], node: str, text: str, at_ms: int) -> None:
    with closing(Writer(*store, clock_ms=lambda: at_ms)) as writer:
        writer.run(RELAY, lambda unit: put_configuration(unit, node, text))


def text_at(store: tuple[Place, Sealer], node: str, at_ms: int) -> tuple[int, str] | None:
    with closing(connect_reader(store[0])) as reader:
        return find_configuration(reader, store[1], node, at_ms)


def test_the_configuration_of_a_time_is_the_last_one_kept_before_it(store: tuple[Place, Sealer]) -> None:
    put(store, "a", "one", 1_000)
    put(store, "a", "two", 2_000)
    put(store, "b", "other", 1_500)
    assert [text_at(store, "a", at_ms) for at_ms in (999, 1_000, 1_999, 2_000)] == [
        None,
        (1_000, "one"),
        (1_000, "one"),
        (2_000, "two"),
    ]
    assert text_at(store, "b", 9_000) == (1_500, "other")
    with closing(connect_reader(store[0])) as reader:
        assert is_in_force(reader, store[1], "a", "two")
        assert not is_in_force(reader, store[1], "a", "one")
        assert not is_in_force(reader, store[1], "c", "two")


def test_a_purge_keeps_what_was_in_force_since(store: tuple[Place, Sealer]) -> None:
    for at_ms in (1_000, 2_000, 3_000):
        put(store, "a", str(at_ms), at_ms)
    with closing(Writer(*store)) as writer:
        assert writer.run(RELAY, lambda unit: purge_configurations(unit, 3_000, 500)) == 1
        assert writer.run(RELAY, lambda unit: purge_configurations(unit, 3_000, 500)) == 0
    assert [text_at(store, "a", at_ms) for at_ms in (1_500, 2_500)] == [None, (2_000, "2000")]


def test_texts_are_sealed_to_their_node_and_time(tmp_path: Path) -> None:
    place = tmp_path / "relay.db"
    sealer = new_store(place, tmp_path / "relay.key")
    put((place, sealer), "", f'numbers = ["{NUMBER}"]', 1_000)
    assert NUMBER.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob("relay.db*"))
    with closing(connect(place)) as connection:
        connection.execute("UPDATE configuration SET at = 2000")
    with pytest.raises(StoreError):
        text_at((place, sealer), "", 3_000)


def test_a_node_reads_what_was_kept_before_the_store_moved_to_a_server(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    put(store, "", "file", 1_000)
    assert text_at(store, "a", 2_000) == (1_000, "file")
    assert node_of(tmp_path) == ""
    assert node_of(PostgresServer("postgresql://h/d", "a", tmp_path)) == "a"
