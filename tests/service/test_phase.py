"""The phase by the calendar, and what still uses old middle numbers."""

from __future__ import annotations

from typing import Literal

import pytest

from relay.model.call import CallRecord
from relay.policy.rules import PilotDates
from relay.service.fields import DAY_MS
from relay.service.numbers import ensure_numbers
from relay.service.phase import LegacyUse, legacy_use, phase_now
from relay.service.placement import BindRules
from relay.store.call_counts import count_calls
from relay.store.legacy_use import LegacyBindings
from tests.service.conftest import RULES, Backend
from tests.store.test_call_counts import record
from tests.support.stored import NOW_MS, X

OLD = "8617012345678"
DATES = PilotDates(
    preparation_ms=NOW_MS - 60 * DAY_MS,
    transition_ms=NOW_MS - 30 * DAY_MS,
    pilot_ms=NOW_MS + 14 * DAY_MS,
    ends_ms=NOW_MS + 700 * DAY_MS,
)
BY_DATE = RULES._replace(phase="auto", dates=DATES)


@pytest.mark.parametrize(
    ("at_ms", "expected"),
    [
        (DATES.transition_ms - 1, ("preparation", 1)),
        (DATES.transition_ms, ("transition", 44)),
        (DATES.pilot_ms, ("pilot", 686)),
        (DATES.ends_ms, ("over", None)),
    ],
)
def test_the_phase_has_an_end_and_days_left(at_ms: int, expected: tuple[str, int | None]) -> None:
    now = phase_now(BindRules(phase="auto", dates=DATES), at_ms)
    assert (now.phase, now.days_left(at_ms)) == expected


def test_a_phase_set_by_hand_ends_with_the_pilot_alone() -> None:
    by_hand = BindRules(phase="transition", dates=DATES)
    assert phase_now(by_hand, NOW_MS) == ("transition", DATES.ends_ms)
    assert phase_now(by_hand, DATES.ends_ms).phase == "over"
    assert phase_now(BindRules(), NOW_MS) == ("pilot", None)


@pytest.mark.parametrize(("days", "warned"), [(31, None), (30, 30), (8, 30), (7, 7), (2, 7), (1, 1)])
def test_the_end_is_warned_of_30_7_and_1_days_before(days: int, warned: int | None) -> None:
    at_ms = DATES.pilot_ms - days * DAY_MS
    assert phase_now(BY_DATE, at_ms).warned_days(at_ms) == warned


def call(business: str, number: str, ended_at: int) -> CallRecord:
    return record((ended_at - NOW_MS) // 1000, business=business, number_dialled=number)


def test_what_is_left_is_told_by_business_user(backend: Backend) -> None:
    backend.run(lambda unit: ensure_numbers(unit, (), [OLD]))
    backend.business("acme")
    backend.bind(x=OLD, rules=BY_DATE, business="acme", expires_in="20d", order_id="1")
    backend.bind("AXB", "8001", "8002", x=OLD, rules=BY_DATE, business="acme", expires_in="1h", order_id="2")
    backend.bind("AXB", "8003", "8004", x=X, rules=BY_DATE, business="acme", order_id="3")
    calls = [call("acme", OLD, NOW_MS - days * DAY_MS) for days in (0, 1, 1, 7, 13)]
    calls += [call("acme", X, NOW_MS)]
    calls += [call("old", OLD, NOW_MS - 8 * DAY_MS)]
    backend.run(lambda unit: count_calls(unit.connection, calls, NOW_MS))
    ends_ms = DATES.pilot_ms
    assert legacy_use(backend.connection, BY_DATE, NOW_MS) == [
        LegacyUse("acme", LegacyBindings(2, 1), [0, 0, 0, 0, 0, 2, 1], 2, ends_ms),
        LegacyUse("old", LegacyBindings(0, 0), [0] * 7, 1, ends_ms),
    ]


@pytest.mark.parametrize(
    ("outlasting", "calls", "before", "trend", "in_time"),
    [
        (0, 0, 0, "steady", True),
        (1, 0, 0, "steady", False),
        (0, 10, 15, "falling", True),  # 5 less a week, in two weeks
        (0, 10, 14, "falling", False),
        (0, 10, 10, "steady", False),
        (0, 10, 9, "rising", False),
    ],
)
def test_it_ends_in_time_if_calls_fall_fast_enough(
    outlasting: int, calls: int, before: int, trend: Literal["falling", "steady", "rising"], in_time: bool
) -> None:
    use = LegacyUse("acme", LegacyBindings(outlasting, outlasting), [0] * 6 + [calls], before, DATES.pilot_ms)
    assert (use.trend, use.ends_in_time(NOW_MS)) == (trend, in_time)
    assert use._replace(ends_ms=None).ends_in_time(NOW_MS) is None
