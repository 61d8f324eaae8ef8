"""Counts of calls by time, owner and outcome."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.model.call import PROBE_BUSINESS, CallRecord
from relay.store.call_counts import (
    ALL,
    DAY_S,
    SPANS,
    PeriodCounts,
    answered_calls,
    count_calls,
    counts_of_businesses,
    owner_of_business,
    owner_of_peer,
    owner_of_sender,
    read_counts,
    sum_counts,
)
from relay.store.connection import Connection
from relay.store.database import connect
from tests.support.places import store_in
from tests.support.stored import NOW_MS, PREFIX, ended_record

NOW_S = NOW_MS // 1000


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    place, _ = store_in(tmp_path)
    with closing(connect(place)) as connection:
        yield connection


def record(ended_s: int, **changes: object) -> CallRecord:
    ended_ms = NOW_MS + 1000 * ended_s
    times = {"received_at": ended_ms - 900, "ringing_at": ended_ms - 200, "answered_at": None, "ended_at": ended_ms}
    return ended_record(f"{ended_s}", **{**times, "business": "acme", "peer_out": "carrier", **changes})


def test_calls_are_counted_by_minute_for_all_their_owners(connection: Connection) -> None:
    count_calls(connection, [record(0), record(59, outcome="busy"), record(60, business=None, peer_out=None)], NOW_MS)
    count_calls(connection, [record(61), record(61, business=PROBE_BUSINESS)], NOW_MS)
    read = {
        owner: {at - NOW_S: counts.outcomes for at, counts in found.items()}
        for owner in (ALL, owner_of_business("acme"), owner_of_peer("carrier"), owner_of_sender("pbx"))
        if (found := read_counts(connection, owner, 60, NOW_S, NOW_S + 120))
    }
    assert read == {
        "": {0: {"answered": 1, "busy": 1}, 60: {"answered": 2}},
        "business acme": {0: {"answered": 1, "busy": 1}, 60: {"answered": 1}},
        "peer carrier": {0: {"answered": 1, "busy": 1}, 60: {"answered": 1}},
        "from pbx": {0: {"answered": 1, "busy": 1}, 60: {"answered": 2}},
    }
    for span in SPANS:
        assert sum_counts(read_counts(connection, ALL, span, 0, NOW_S + 7_200).values()).total == 4


def test_text_messages_are_not_counted(connection: Connection) -> None:
    text = {"kind": "message", "ringing_at": None}
    texts = [record(1, outcome="delivered", **text), record(2, outcome="no_binding", **text)]
    count_calls(connection, [record(0), *texts], NOW_MS)
    assert sum_counts(read_counts(connection, ALL, 60, NOW_S, NOW_S + 60).values()).outcomes == {"answered": 1}


def test_the_time_to_the_ringing_is_counted_in_ranges(connection: Connection) -> None:
    slow = {"ringing_at": NOW_MS - 900 + 6_000, "received_at": NOW_MS - 900}
    count_calls(connection, [*(record(0) for _ in range(9)), record(0, **slow), record(0, ringing_at=None)], NOW_MS)
    counts = sum_counts(read_counts(connection, ALL, 60, NOW_S, NOW_S + 60).values())
    assert counts.ringing_s(0.5) == pytest.approx(0.5 + 0.5 * 5 / 9)  # of nine between 0.5 and 1 s
    assert counts.ringing_s(0.99) == pytest.approx(5 + 2.5 * 0.9)
    assert PeriodCounts({}, [0] * 15).ringing_s(0.5) is None
    assert PeriodCounts({}, [0] * 14 + [1]).ringing_s(0.5) == 60


def test_old_spans_go_when_new_ones_come(connection: Connection) -> None:
    count_calls(connection, [record(0)], NOW_MS)
    count_calls(connection, [record(SPANS[60] + 60)], NOW_MS + 1000 * (SPANS[60] + 60))
    assert list(read_counts(connection, ALL, 60, 0, NOW_S + 10 * SPANS[60])) == [NOW_S + SPANS[60] + 60]
    assert len(read_counts(connection, ALL, 3_600, 0, NOW_S + 10 * SPANS[60])) == 2


@pytest.mark.parametrize("ahead_s", [SPANS[60] + 60, 36 * DAY_S])
def test_a_record_of_a_clock_that_was_ahead_drops_no_counts(connection: Connection, ahead_s: int) -> None:
    count_calls(connection, [record(0)] * 1_000, NOW_MS)
    count_calls(connection, [record(ahead_s)], NOW_MS)
    for span in SPANS:
        assert sum_counts(read_counts(connection, ALL, span, 0, NOW_S + 2 * ahead_s).values()).total == 1_001
    assert answered_calls(connection, "acme", 0) == {PREFIX: 1_001}


def test_business_users_are_listed_without_a_look_at_all_rows(connection: Connection) -> None:
    count_calls(
        connection, [record(0, business="acme"), record(1, business="zeta", outcome="busy"), record(3_601)], NOW_MS
    )
    found = counts_of_businesses(connection, NOW_S)
    assert {name: counts.outcomes for name, counts in found.items()} == {
        "acme": {"answered": 2},
        "zeta": {"busy": 1},
    }
    assert {name: counts.total for name, counts in counts_of_businesses(connection, NOW_S + 3_600).items()} == {
        "acme": 1
    }
