"""The read connection that survives faults of the store."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from relay.errors import StoreError
from relay.store.database import connect
from relay.store.reader import Reader
from tests.store.conftest import Disk


def businesses(connection: sqlite3.Connection) -> list[tuple[str]]:
    return connection.execute("SELECT id FROM business").fetchall()


def test_reader_reconnects_after_an_error(disk: Disk) -> None:
    with closing(Reader(disk.path)) as reader, closing(connect(disk.path)) as saboteur:
        assert reader.read(businesses) == [("default",)]
        saboteur.execute("ALTER TABLE business RENAME TO gone")
        with pytest.raises(StoreError, match="no such table"):
            reader.read(businesses)
        assert reader._connection is None
        saboteur.execute("ALTER TABLE gone RENAME TO business")
        assert reader.read(businesses) == [("default",)]


def test_query_sees_one_snapshot(disk: Disk) -> None:
    """A row and its proof must belong together."""
    with closing(Reader(disk.path)) as reader, closing(connect(disk.path)) as writer:

        def twice(connection: sqlite3.Connection) -> list[list[tuple[str]]]:
            first = businesses(connection)
            writer.execute("UPDATE business SET id = 'other'")
            return [first, businesses(connection)]

        assert reader.read(twice) == [[("default",)]] * 2
        assert reader.read(businesses) == [("other",)]


def test_missing_store_is_not_created(disk: Disk) -> None:
    disk.path.unlink()
    with closing(Reader(disk.path)) as reader, pytest.raises(StoreError, match="unable to open"):
        reader.read(businesses)
    assert not disk.path.exists()
