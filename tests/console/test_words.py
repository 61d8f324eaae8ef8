"""The language of a request; times in the viewer's zone."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from relay.console.words import language_of, length_of, local_time, with_zone, zone_of
from relay.service.fields import CHINA


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("zh", "en", "zh"),
        (None, "fr,zh-CN;q=0.9,en;q=0.8", "zh"),
        (None, "en-US,zh", "en"),
        (None, "en;q=0.5,zh", "zh"),
        (None, "zh;q=0,en;q=x", "en"),
        ("xx", "", "en"),
        (None, "*" * 10_000, "en"),
    ],
)
def test_the_language_is_that_of_the_switch_then_of_the_browser(
    cookie: str | None, accepted: str, language: str
) -> None:
    assert language_of(cookie, accepted) == language


def test_times_are_those_of_the_viewer() -> None:
    now_s = 1_767_225_600.0  # 2026-01-01T00:00:00Z
    assert local_time("2026-01-01T00:00:01.250Z", CHINA, now_s) == "01-01 08:00:01"
    assert local_time("2026-01-01T00:00:01.250Z", CHINA, now_s, exact=True) == "01-01 08:00:01.250"
    assert local_time("2025-12-31T12:00:00Z", CHINA, now_s) == "2025-12-31 20:00:00"
    assert zone_of("Europe/Berlin") == ZoneInfo("Europe/Berlin")
    assert zone_of("../etc/passwd") == zone_of("Nowhere/None") == zone_of(None) == CHINA
    assert with_zone("2026-01-01T08:00", zone_of("Europe/Berlin")) == "2026-01-01T15:00:00+08:00"
    assert with_zone("2026-01-01T08:00Z", CHINA) == "2026-01-01T16:00:00+08:00"
    for text in ("yesterday", "9999-12-31T23:59"):  # which China has in the year 10000
        assert with_zone(text, zone_of("America/New_York")) == text


def test_lengths_are_written_for_people() -> None:
    lengths = [0, 0.9, 812, 4_310, 134_000, 3_734_000]
    assert [length_of(each) for each in lengths] == ["0 ms", "0.9 ms", "812 ms", "4.31 s", "2:14", "1:02:14"]
