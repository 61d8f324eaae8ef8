"""The operator's rules, and the table of refusals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.model import outcomes
from relay.model.outcomes import OF_POLICY
from relay.policy.rules import MEMORY_S, Cap, Hours, Recent, Rules, parse_hours


def test_the_store_counts_windows_longer_than_the_memory() -> None:
    made = Rules(caller_caps=(Cap(3, 300), Cap(9, 900), Cap(10, 901), Cap(20, 86_400)), number_caps=(Cap(1, 60),))
    assert made.caller_windows_s == (901, 86_400)
    assert made.number_windows_s == ()


def test_each_refusal_has_its_own_outcome() -> None:
    told = {name: refusal for name, refusal in vars(outcomes).items() if refusal in OF_POLICY}
    assert {name.lower() for name in told} == {refusal.outcome for refusal in told.values()}
    assert all((refusal.status == 503) == (refusal.retry_after_s is not None) for refusal in told.values())


# -- Hours of service in China's time


def at(hour: int, minute: int, second: int = 0) -> float:
    """A time of day in UTC."""
    return datetime(2026, 7, 1, hour, minute, second, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "hours"),
    [("08:00-22:00", Hours(480, 1320)), ("00:00-24:00", Hours(0, 1440)), ("22:30-06:00", Hours(1350, 360))],
)
def test_hours_are_parsed(text: str, hours: Hours) -> None:
    assert parse_hours(text) == hours


@pytest.mark.parametrize(
    "text",
    ["", "08:00", "8:00-22:00", "08:00-22:60", "24:00-08:00", "08:00-25:00", "08:00-08:00", "22:00-00:00",
     "ab:cd-ef:gh", "08:00-22:00-23:00", "08.00-22.00", "０８:00-22:00", "-1:00-22:00"],
)  # fmt: skip
def test_invalid_hours_are_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse_hours(text)


@pytest.mark.parametrize(
    ("text", "time", "within"),
    [
        ("08:00-22:00", at(0, 0), True),
        ("08:00-22:00", at(23, 59, 59), False),
        ("08:00-22:00", at(13, 59, 59), True),
        ("08:00-22:00", at(14, 0), False),
        ("22:00-06:00", at(14, 0), True),
        ("22:00-06:00", at(21, 59, 59), True),
        ("22:00-06:00", at(22, 0), False),
        ("22:00-06:00", at(13, 59), False),
        ("00:00-24:00", at(15, 59, 59), True),
        ("00:00-24:00", at(16, 0), True),
    ],
)
def test_hours_include_their_first_and_exclude_their_last_minute(text: str, time: float, within: bool) -> None:
    assert parse_hours(text).hold(time) is within


# -- The memory of granted calls: exact, and bounded in time


def test_calls_are_counted_by_key_and_time() -> None:
    recent = Recent()
    for at_s in (100.0, 200.0, 300.0):
        recent.note(1, at_s)
    recent.note(2, 300.0)
    assert [recent.count(1, since_s) for since_s in (99.0, 100.0, 299.0, 300.0)] == [3, 2, 1, 0]
    assert (recent.count(2, 299.0), recent.count(2, 300.0), recent.count(3, 0.0)) == (1, 0, 0)


def test_old_calls_expire_for_all_keys() -> None:
    recent = Recent()
    for number in range(1_000):
        recent.note(number % 400, float(number))
    recent.note(7, 1_000.0 + MEMORY_S)
    assert len(recent) == 1
    assert recent._times == {7: 1_000.0 + MEMORY_S}


@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 400) | st.just(0.0), st.booleans()), max_size=60),
    st.sampled_from([60, 300, MEMORY_S]),
)
def test_a_call_that_is_given_back_does_not_count(calls: list[tuple[int, float, bool]], window_s: int) -> None:
    recent, granted, now_s = Recent(), [], 0.0
    recent.give_back(9)
    for key, pause_s, is_granted in calls:
        now_s += pause_s
        since_s = now_s - window_s
        assert recent.count(key, since_s) == sum(1 for other, at_s in granted if other == key and at_s > since_s)
        recent.note(key, now_s)
        if is_granted:
            granted.append((key, now_s))
        else:
            recent.give_back(key)
    recent.note(9, now_s + 2 * MEMORY_S)
    assert list(recent._times) == [9]


def test_a_call_after_a_backward_clock_step_stays_in_order() -> None:
    recent = Recent()
    recent.note(1, 1_000.0)
    recent.note(1, 500.0)
    assert recent.count(1, 999.0) == 2


def test_a_clock_step_does_not_change_the_age_of_calls() -> None:
    recent = Recent()
    for at_s in (1_000.0, 1_010.0):
        recent.note(1, at_s)
    recent.note(2, 1_020.0)
    recent.shift(-3_600.0)
    recent.note(1, 1_030.0 - 3_600.0)
    assert [recent.count(1, since_s - 3_600.0) for since_s in (999.0, 1_000.0, 1_010.0, 1_030.0)] == [3, 2, 1, 0]
    recent.note(3, 1_000.0 + MEMORY_S - 3_600.0)
    assert len(recent) == 4  # the first has expired


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 400)), max_size=60), st.sampled_from([60, 300, MEMORY_S]))
def test_counts_equal_those_of_a_plain_list(calls: list[tuple[int, float]], window_s: int) -> None:
    recent, all_calls, now_s = Recent(), [], 0.0
    for key, pause_s in calls:
        now_s += pause_s
        since_s = now_s - window_s
        assert recent.count(key, since_s) == sum(1 for other, at_s in all_calls if other == key and at_s > since_s)
        recent.note(key, now_s)
        all_calls.append((key, now_s))
