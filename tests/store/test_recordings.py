"""The table of recordings."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from relay.store.database import connect_reader
from relay.store.recordings import (
    NEWEST,
    Recording,
    RecordingQuery,
    add_recording,
    find_recording,
    kept_recordings,
    list_recordings,
)
from relay.store.records import LAST_MS
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.store.conftest import Disk


@pytest.fixture
def reader(disk: Disk) -> Iterator[sqlite3.Connection]:
    """A store with five recordings, the last two taken over at the same time."""
    with closing(Writer(disk.path, disk.sealer)) as writer:
        for n, at in enumerate((1, 2, 3, 4, 4)):
            made = Recording(f"c{n}", "acme" if n % 2 else "", at, 10, 20, "ab", 9 if n == 2 else None)
            writer.run(RELAY, lambda act, made=made: add_recording(act, made))  # type: ignore[misc]
    with closing(connect_reader(disk.path)) as connection:
        yield connection


def ids(found: list[Recording]) -> list[str]:
    return [recording.call_id for recording in found]


def test_recording_is_found_by_its_call(reader: sqlite3.Connection, disk: Disk) -> None:
    assert find_recording(reader, disk.sealer, "c1") == Recording("c1", "acme", 2, 10, 20, "ab")
    assert find_recording(reader, disk.sealer, "c9") is None


def test_second_recording_of_a_call_is_an_error(reader: sqlite3.Connection, disk: Disk) -> None:
    with closing(Writer(disk.path, disk.sealer)) as writer, pytest.raises(Exception, match="UNIQUE"):
        writer.run(RELAY, lambda act: add_recording(act, Recording("c1", "", 2, 1, 1, "")))


def test_pages_have_all_recordings_newest_first(reader: sqlite3.Connection) -> None:
    seen: list[str] = []
    after = NEWEST
    while found := list_recordings(reader, RecordingQuery(), after, 2):
        seen += ids(found)
        after = (found[-1].taken_at, found[-1].call_id)
    assert seen == ["c4", "c3", "c2", "c1", "c0"]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (RecordingQuery("acme"), ["c3", "c1"]),
        (RecordingQuery(None, 2, 4), ["c2", "c1"]),
        (RecordingQuery("acme", 4, LAST_MS), ["c3"]),
        (RecordingQuery("nobody"), []),
    ],
)
def test_list_filters_by_business_and_time(reader: sqlite3.Connection, query: RecordingQuery, found: list[str]) -> None:
    assert ids(list_recordings(reader, query, NEWEST, 10)) == found


def test_purged_recordings_are_not_among_the_kept(reader: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.store.recordings._PAGE", 2)
    assert ids(list(kept_recordings(reader))) == ["c0", "c1", "c3", "c4"]
