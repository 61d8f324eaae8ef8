"""The daily report, per business user and prefix."""

from __future__ import annotations

import csv
import io
from datetime import date

import pytest

from relay.errors import Refused
from relay.reports.daily import DailyLine, daily, daily_csv, day_span
from relay.service.complaints import set_complaints
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.support.shelf import REFUSED, Shelf, call
from tests.support.stored import NOW_MS, PREFIX, A, B

DAY = date(2026, 1, 1)
OTHER_PREFIX = "70010000002"
HOUR_MS = 3_600_000


def report(shelf: Shelf, business: str | None = None, day: date = DAY) -> list[DailyLine]:
    return daily(shelf.connection, shelf.sealer, day, business)


def test_days_are_those_of_china() -> None:
    since_ms, until_ms = day_span(DAY)
    assert since_ms == NOW_MS - 8 * HOUR_MS
    assert until_ms - since_ms == 24 * HOUR_MS


def test_attempts_are_counted_by_result(shelf: Shelf) -> None:
    c, d = "8613700000003", "8613600000004"
    shelf.add(
        call(1),
        call(2, caller=B, callee=A, duration_ms=80_000),
        call(3, caller=c, answered_at=None, duration_ms=None, outcome="busy"),
        call(4, caller=d, outcome="frequency_caller", **(REFUSED | {"business": "default"}), duration_ms=None),
        call(5, caller=d, outcome="frequency_caller", **(REFUSED | {"business": "default"}), duration_ms=None),
        call(6, caller="", outcome="direction_barred", **(REFUSED | {"business": "default"}), duration_ms=None),
    )
    (line,) = report(shelf)
    assert line._replace(day=DAY) == line
    assert (line.business, line.prefix) == ("default", PREFIX)
    assert (line.attempts, line.answered, line.unanswered) == (6, 2, 1)
    assert line.refused == {"direction_barred": 1, "frequency_caller": 2}
    assert (line.talk_ms, line.minutes) == (90_000, 1.5)
    assert line.parties == 4
    assert line.complaints == 0


def test_a_call_that_its_caller_cancelled_before_a_route_is_not_refused(shelf: Shelf) -> None:
    shelf.add(call(1, **(REFUSED | {"business": "default"}), answered_at=None, duration_ms=None, outcome="cancelled"))
    (line,) = report(shelf)
    assert (line.attempts, line.unanswered, line.refused) == (1, 1, {})


def test_a_week_long_call_is_in_the_report(shelf: Shelf) -> None:
    """[sip] max_call_s is at most a week, from the answer."""
    _, until_ms = day_span(DAY)
    shelf.add(call(1, received_at=until_ms - 1, answered_at=until_ms + 60_000, ended_at=until_ms + 604_860_000))
    assert [line.answered for line in report(shelf)] == [1]


def test_messages_are_counted_separately(shelf: Shelf) -> None:
    c = "8613700000003"
    message = {"kind": "message", "answered_at": None, "duration_ms": None, "outcome": "delivered"}
    refused = REFUSED | {"business": "default", "outcome": "number_in_text"}
    shelf.add(call(1), call(2, caller=c, **message), call(3, **(message | refused)))
    (line,) = report(shelf)
    assert (line.messages, line.messages_delivered) == (2, 1)
    assert (line.attempts, line.answered, line.unanswered, line.refused) == (1, 1, 0, {})
    assert line.parties == 3


def test_each_business_has_a_line_per_prefix_and_sees_its_own(shelf: Shelf) -> None:
    shelf.add(
        call(1),
        call(2, number_dialled=OTHER_PREFIX + "0001"),
        call(3, business="acme"),
        call(4, number_dialled="13800000001", outcome="number_unknown", **REFUSED),
    )
    shelf.follow(2)
    places = [(line.business, line.prefix, line.attempts) for line in report(shelf)]
    assert places == [("", "", 1), ("acme", PREFIX, 1), ("default", PREFIX, 1), ("default", OTHER_PREFIX, 1)]
    assert [(line.business, line.prefix) for line in report(shelf, "acme")] == [("acme", PREFIX)]
    assert report(shelf, "nobody") == []


def test_a_call_counts_on_the_day_it_was_received(shelf: Shelf) -> None:
    since_ms, until_ms = day_span(DAY)
    times = (since_ms - 1, since_ms, until_ms - 1, until_ms)
    shelf.add(*(call(n, received_at=at, ended_at=at + 5_000) for n, at in enumerate(times)))
    assert [line.attempts for line in report(shelf)] == [2]
    assert [line.attempts for line in report(shelf, day=date(2026, 1, 2))] == [1]


def test_complaints_are_entered_by_hand_and_replaced(shelf: Shelf, writer: Writer) -> None:
    shelf.add(call(1))
    for count in (3, 5):
        writer.run(RELAY, lambda unit, count=count: set_complaints(unit, DAY, "default", PREFIX, count))
    writer.run(RELAY, lambda unit: set_complaints(unit, DAY, "default", OTHER_PREFIX, 1))
    writer.run(RELAY, lambda unit: set_complaints(unit, date(2026, 1, 2), "default", PREFIX, 9))
    lines = report(shelf)
    assert [(line.prefix, line.attempts, line.complaints) for line in lines] == [(PREFIX, 1, 5), (OTHER_PREFIX, 0, 1)]
    assert report(shelf, "acme") == []
    actions = shelf.connection.execute(
        "SELECT action, object, business FROM audit WHERE action = 'complaints.set'"
    ).fetchall()
    assert actions == [("complaints.set", prefix, "default") for prefix in (PREFIX, PREFIX, OTHER_PREFIX, PREFIX)]


@pytest.mark.parametrize(
    ("business", "prefix", "count", "said"),
    [
        ("default", PREFIX, -1, "count"),
        ("default", PREFIX, 10**10, "count"),
        ("default", "7001", 1, "prefix"),
        ("default", "7001000000x", 1, "prefix"),
        ("nobody", PREFIX, 1, "business"),
    ],
)
def test_invalid_complaints_are_refused(
    shelf: Shelf, writer: Writer, business: str, prefix: str, count: int, said: str
) -> None:
    with pytest.raises(Refused, match=said):
        writer.run(RELAY, lambda unit: set_complaints(unit, DAY, business, prefix, count))


def test_the_csv_has_no_real_number(shelf: Shelf) -> None:
    shelf.add(call(1), call(2, outcome="expired", **(REFUSED | {"business": "default"}), duration_ms=None))
    text = daily_csv(report(shelf))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row == {
        "day": "2026-01-01",
        "business": "default",
        "prefix": PREFIX,
        "attempts": "2",
        "answered": "1",
        "unanswered": "0",
        "refused": "expired=1",
        "minutes": "0.2",
        "parties": "2",
        "complaints": "0",
        "messages": "0",
        "messages_delivered": "0",
    }
