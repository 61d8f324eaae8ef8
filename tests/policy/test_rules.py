"""The operator's rules, and the table of refusals."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from relay.errors import ParseError
from relay.model.call import Refusal
from relay.policy import rules
from relay.policy.rules import Cap, Hours, Rules, parse_hours


def test_the_store_counts_windows_longer_than_the_memory() -> None:
    made = Rules(caller_caps=(Cap(3, 300), Cap(9, 900), Cap(10, 901), Cap(20, 86_400)), number_caps=(Cap(1, 60),))
    assert made.caller_windows_s == (901, 86_400)
    assert made.number_windows_s == ()


def test_each_refusal_has_its_own_outcome() -> None:
    told = {name: refusal for name, refusal in vars(rules).items() if isinstance(refusal, Refusal)}
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
