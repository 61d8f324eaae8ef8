"""The row of a call that is up: encoding, and the choice of its place."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import StoreError
from relay.model.actions import Commit
from relay.model.call import CallRecord
from relay.store.database import connect
from relay.store.journal.rows import PUT, SELECT, LiveCall, LiveRows, delete_live, laid_over, live_row, open_live
from relay.store.record_rows import insert
from relay.store.sealing.sealer import Sealer
from tests.store.conftest import Disk
from tests.store.test_record_rows import RECORDS
from tests.support.stored import A, B, X, ended_record, live_record

SEALER = Sealer(b"k" * 32)
CALLS = ["c1", "c2", "c3", "c4", "c5"]


@given(RECORDS, st.binary(max_size=50))
def test_any_call_is_read_back_unchanged(record: CallRecord, dialogs: bytes) -> None:
    assert open_live(SEALER, live_row(SEALER, 7, record, dialogs)) == (record, dialogs)


def test_row_reveals_only_the_call_id() -> None:
    shown = repr(live_row(SEALER, 7, live_record(), b"dialogs with 13800000001"))
    for secret in (A[2:], B[2:], X, "a84b4c76e66710", "order-1", "dialogs with"):
        assert secret not in shown


def test_row_moved_to_another_place_or_call_does_not_open() -> None:
    place, call_id, sealed = live_row(SEALER, 7, live_record("c1"), b"dialogs")
    _, _, others = live_row(SEALER, 7, live_record("c2"), b"dialogs")
    for row in ((8, call_id, sealed), (place, "c2", sealed), (place, call_id, others), (place, call_id, b"")):
        with pytest.raises(StoreError, match="was altered"):
            open_live(SEALER, row)


def test_sealed_bytes_that_are_not_a_call_are_an_altered_record() -> None:
    sealed = SEALER.seal(b"no call", b"live 7 c1")
    with pytest.raises(StoreError, match="c1 was altered"):
        open_live(SEALER, (7, "c1", sealed))


def test_later_commits_are_laid_over_the_calls_read() -> None:
    read = [LiveCall(live_record(call_id), b"as read") for call_id in CALLS[:3]]
    commits = [
        *(Commit(0, live_record("c1"), dialogs) for dialogs in (b"before", b"now")),
        *(Commit(0, ended_record(call_id), None) for call_id in ("c2", "never read")),
        *(Commit(0, live_record(call_id), b"new") for call_id in ("c4", "c5")),
        Commit(0, ended_record("c5"), None),
    ]
    once = laid_over(read, commits)
    assert [(call.record.call_id, call.dialogs) for call in once] == [
        ("c1", b"now"),
        ("c3", b"as read"),
        ("c4", b"new"),
    ]
    assert laid_over(once, commits) == once


@pytest.fixture
def stored(disk: Disk) -> Iterator[tuple[Disk, LiveRows]]:
    """The places of a store with five calls in rows 1 to 5."""
    with closing(connect(disk.path)) as connection:
        places = LiveRows(connection)
        rows = [live_row(disk.sealer, places.of(call, []), live_record(call), b"") for call in CALLS]
        insert(connection, PUT, rows)
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    yield disk, places


def test_call_keeps_its_place_and_a_new_call_reuses_one(stored: tuple[Disk, LiveRows]) -> None:
    _, places = stored
    assert places.of("c2", []) == 2
    vacated = [place for call in ("c3", "c4") if (place := places.vacate(call)) is not None]
    assert vacated == [3, 4]
    assert places.vacate("c3") is None
    assert places.of("c6", vacated) == 4
    assert vacated == [3]
    places.free(vacated)
    assert [places.of(call, []) for call in ("c7", "c8", "c9")] == [3, 6, 7]


@pytest.mark.parametrize("deleted", [[1], [2, 3], [1, 3, 5], [1, 2, 3, 4, 5]])
def test_places_are_read_back_and_gaps_are_free(stored: tuple[Disk, LiveRows], deleted: list[int]) -> None:
    disk, _ = stored
    with closing(connect(disk.path)) as connection:
        delete_live(connection, deleted)
        left = [row[0] for row in connection.execute(SELECT)]
        assert left == [place for place in range(1, 6) if place not in deleted]
        places = LiveRows(connection)
    assert [places.of(f"c{place}", []) for place in left] == left
    given = [places.of(f"new{n}", []) for n in range(5)]
    assert not set(given) & set(left)
    assert len(set(given)) == 5


@given(st.sets(st.integers(1, 300), min_size=1))
def test_delete_in_one_statement_deletes_exactly_the_given_rows(places: set[int]) -> None:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE live_call (id INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO live_call VALUES (?)", [(place,) for place in range(1, 301)])
        delete_live(connection, sorted(places))
        left = {place for (place,) in connection.execute("SELECT id FROM live_call")}
    assert left == set(range(1, 301)) - places
    connection.close()
