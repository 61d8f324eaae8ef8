"""Times and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import ParseError
from relay.service.fields import format_duration, format_moment, parse_duration_ms, parse_moment_ms

NEW_YEAR = 1_767_225_600_000


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1_800), ("2h", 7_200), ("7d", 604_800), ("1h30m", 5_400), (" 1d2h3m4s ", 93_784)],
)
def test_durations_are_parsed(text: str, seconds: int) -> None:
    assert parse_duration_ms(text) == 1_000 * seconds


@pytest.mark.parametrize("text", ["1s", "90s", "15m", "90m", "23h", "1d", "184d"])
def test_a_duration_round_trips(text: str) -> None:
    assert format_duration(parse_duration_ms(text)) == text


@pytest.mark.parametrize(
    "text", ["", " ", "2", "h", "2 h", "-2h", "2h1d", "1.5h", "2w", "0s", "0h0m", "999999999d", "999999999d999h", "２h"]
)
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="duration"):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T00:00:00Z", "2026-01-01T08:00:00+08:00", "2026-01-01 00:00:00.000Z", "2025-12-31T23:00:00-01:00"],
)
def test_times_are_parsed(text: str) -> None:
    assert parse_moment_ms(text) == NEW_YEAR


def test_a_day_is_its_midnight_in_china(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert parse_moment_ms("2026-01-01") == parse_moment_ms(" 2026-01-01 ") == NEW_YEAR - 8 * 3_600_000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00Z", "0001-01-01-x"),
        *("2026-01-01T08:00", "2026-01-01 08:00:00", "2026-01-01T08:00:00.000"),  # no zone: whose?
    ],
)
def test_an_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ParseError, match="write it as"):
        parse_moment_ms(text)


def test_a_time_is_formatted_in_utc_with_milliseconds() -> None:
    assert format_moment(NEW_YEAR) == "2026-01-01T00:00:00.000Z"
    assert format_moment(NEW_YEAR + 1_234) == "2026-01-01T00:00:01.234Z"


@given(st.integers(0, 4_102_444_800_000))
def test_a_time_round_trips(moment_ms: int) -> None:
    assert parse_moment_ms(format_moment(moment_ms)) == moment_ms
