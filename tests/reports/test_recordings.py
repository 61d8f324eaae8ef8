"""Search of call records by page and id, and by business user."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.errors import Refused
from relay.model.call import CallRecord
from relay.reports.recordings import CallQuery, find_call, search_recorded, verify_recordings
from relay.store.journal.rows import PUT, LiveCall, live_row, open_live
from relay.store.record_rows import Row, StoredRecord, insert, open_row
from relay.store.recordings import file_of
from relay.store.records import Position, RecordFilter, live_calls
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.support.recorded import keep
from tests.support.shelf import REFUSED, Shelf, call
from tests.support.stored import NOW_MS, A, X, ended_record, live_record


def all_pages(shelf: Shelf, query: CallQuery, limit: int) -> list[str]:
    pages: list[str] = []
    after: Position | None = None
    while True:
        page = search_recorded(shelf.connection, shelf.sealer, query, after, limit)
        pages.append(ids(page.items))
        if page.next is None:
            return pages
        after = page.next


def ids(records: list[CallRecord]) -> str:
    return " ".join(record.call_id for record in records)


CALLS = (
    call(1),
    call(2, outcome="busy"),
    call(3, business="other"),
    call(4, outcome="busy", business="other"),
    call(5, outcome="number_unknown", **REFUSED),
    call(6),
)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (CallQuery(RecordFilter()), "c6 c5 c4 c3 c2 c1"),
        (CallQuery(RecordFilter(business="other")), "c4 c3"),
        (CallQuery(RecordFilter(), "busy"), "c4 c2"),
        (CallQuery(RecordFilter(business="other"), "busy"), "c4"),
        (CallQuery(RecordFilter(number=A), "number_unknown"), "c5"),
        (CallQuery(RecordFilter(), kind="message"), ""),
        (CallQuery(RecordFilter(business="other"), binding_id="b1"), "c4 c3"),
        (CallQuery(RecordFilter(), binding_id="b2"), ""),
        (CallQuery(RecordFilter(business="default"), "number_unknown"), ""),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7])
def test_pages_are_newest_first(shelf: Shelf, query: CallQuery, expected: str, limit: int) -> None:
    shelf.add(*CALLS)
    shelf.follow(4)
    pages = all_pages(shelf, query, limit)
    assert " ".join(filter(None, pages)) == expected
    assert all(len(page.split()) <= limit for page in pages)


def test_a_rare_outcome_gives_short_pages(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.reports.recordings.MOST_EXAMINED", 2)
    shelf.add(*CALLS)
    assert all_pages(shelf, CallQuery(RecordFilter(), "answered"), 2) == ["c6", "c3", "c1", ""]


def test_a_small_page_does_not_open_all_unindexed_records_for_each_record(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.add(*(call(n, outcome="busy" if n == 1 else "answered") for n in range(1, 41)))
    opened = 0

    def counted(sealer: Sealer, row: Row) -> StoredRecord:
        nonlocal opened
        opened += 1
        return open_row(sealer, row)

    monkeypatch.setattr("relay.store.records.open_row", counted)
    assert all_pages(shelf, CallQuery(RecordFilter(business="default"), "busy"), 1) == ["c1"]
    assert opened <= 4 * 40


def test_a_search_is_refused_while_the_index_is_far_behind(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would open all records of the store, for each page and business user."""
    monkeypatch.setattr("relay.store.records._MOST_UNREAD", 3)
    shelf.add(*CALLS)
    shelf.follow(len(CALLS) - 3)
    theirs = CallQuery(RecordFilter(business="default"))
    assert search_recorded(shelf.connection, shelf.sealer, theirs).items
    shelf.follow(len(CALLS) - 4)
    with pytest.raises(Refused) as refused:
        search_recorded(shelf.connection, shelf.sealer, theirs)
    assert refused.value.kind == "store_busy"
    assert search_recorded(shelf.connection, shelf.sealer, CallQuery(RecordFilter(since_ms=1))).items


def test_a_live_and_an_ended_call_are_found_by_id(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    shelf.follow()
    up = live_record("up")
    insert(shelf.connection, PUT, [live_row(shelf.sealer, 1, up, b"dialogs")])
    assert find_call(shelf.connection, shelf.sealer, "c3") == CALLS[2]
    assert find_call(shelf.connection, shelf.sealer, "up") == up
    assert find_call(shelf.connection, shelf.sealer, "c9") is None
    assert list(live_calls(shelf.connection, shelf.sealer)) == [up]


def test_a_call_is_looked_for_without_opening_the_other_live_calls(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [live_row(shelf.sealer, n, live_record(f"up{n}"), b"dialogs") for n in range(3)]
    insert(shelf.connection, PUT, rows)
    opened: list[str] = []

    def counted(sealer: Sealer, row: Row) -> LiveCall:
        opened.append(row[1])
        return open_live(sealer, row)

    monkeypatch.setattr("relay.store.records.open_live", counted)
    assert find_call(shelf.connection, shelf.sealer, "up1") == live_record("up1")
    assert find_call(shelf.connection, shelf.sealer, "c9") is None
    assert opened == ["up1"]


def test_a_business_finds_only_its_own_calls(shelf: Shelf) -> None:
    shelf.add(*CALLS)
    shelf.follow()
    insert(shelf.connection, PUT, [live_row(shelf.sealer, 1, live_record("up"), b"dialogs")])
    for call_id, theirs in {"c3": "other", "c1": "default", "up": "default"}.items():
        for business in ("default", "other", "third"):
            found = find_call(shelf.connection, shelf.sealer, call_id, business)
            assert (found is not None) is (business == theirs)
    assert find_call(shelf.connection, shelf.sealer, "c5", "default") is None  # of no business user
    assert all_pages(shelf, CallQuery(RecordFilter(number=X, business="third")), 5) == [""]


# -- The check of all


def test_altered_row_of_a_recording_ends_no_check_of_the_others(shelf: Shelf, writer: Writer, tmp_path: Path) -> None:
    for call_id in ("c1", "c2", "c3"):
        writer.run(RELAY, lambda unit, call_id=call_id: keep(unit, tmp_path, call_id, b"sound"))  # type: ignore[misc]
    file_of(tmp_path, "c3").write_bytes(b"other")
    shelf.connection.execute("UPDATE recording SET sha256 = 'other' WHERE call_id = 'c1'")
    shelf.connection.execute("UPDATE recording SET call_id = 'c4' WHERE call_id = 'c2'")
    found = verify_recordings(shelf.connection, shelf.sealer, tmp_path, [ended_record("c1", recording="c1")], NOW_MS)
    assert found.intact == 0
    assert [words for words in found.broken if "c1" in words or "c4" in words or "c3" in words] == found.broken
    assert len(found.broken) == 3
