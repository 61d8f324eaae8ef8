"""Charts: numbers to places."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from relay.console.charts import BOTTOM, HEIGHT, LEFT, RANGES, TOP, WIDTH, by_class, stacked
from relay.service.fields import CHINA
from relay.store.call_counts import SPANS, PeriodCounts

NONE = [0] * 15
BEGIN_S = 1_767_225_600  # 2026-01-01T00:00:00Z, 08:00 in China


def test_outcomes_are_counted_by_class() -> None:
    counts = PeriodCounts({"answered": 3, "delivered": 1, "busy": 2, "no_binding": 1, "of a later version": 1}, NONE)
    assert by_class(counts) == {"good": 4, "calm": 2, "refused": 1, "bad": 1}


def test_the_highest_bar_fits_and_pieces_stand_on_each_other() -> None:
    counts = {
        BEGIN_S: PeriodCounts({"answered": 60, "busy": 30}, NONE),
        BEGIN_S + 60: PeriodCounts({"answered": 120}, NONE),
    }
    chart = stacked(RANGES["1h"], BEGIN_S, counts, CHINA)
    assert (len(chart.bars), chart.per) == (60, "second")
    assert [label for _, label in chart.lines] == ["0", "1", "2"]
    first, second = chart.bars[0].pieces, chart.bars[1].pieces
    full = HEIGHT - BOTTOM - TOP
    assert [piece.height for piece in first] == [full / 2, full / 4] and second[0].height == full
    assert first[1].y + first[1].height == first[0].y and first[0].y + first[0].height == HEIGHT - BOTTOM
    assert chart.bars[-1].x + chart.bars[-1].width <= WIDTH and chart.bars[0].x == LEFT


def test_few_calls_are_counted_by_the_minute() -> None:
    chart = stacked(RANGES["24h"], BEGIN_S, {BEGIN_S: PeriodCounts({"busy": 7}, NONE)}, CHINA)
    assert (chart.per, chart.lines[-1][1]) == ("minute", "1")
    assert stacked(RANGES["1h"], BEGIN_S, {}, CHINA).lines[-1][1] == "1"


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("1h", ["08:00", "08:10", "08:20", "08:30", "08:40", "08:50"]),
        ("6h", ["08:00", "09:00", "10:00", "11:00", "12:00", "13:00"]),
        ("24h", ["08:00", "12:00", "16:00", "20:00", "00:00", "04:00"]),
        ("7d", ["01-02", "01-03", "01-04", "01-05", "01-06", "01-07", "01-08"]),
    ],
)
def test_labels_stand_at_round_times_of_the_viewers_day(name: str, labels: list[str]) -> None:
    assert [label for _, label in stacked(RANGES[name], BEGIN_S, {}, CHINA).hours] == labels


def test_labels_follow_the_zone() -> None:
    chart = stacked(RANGES["24h"], BEGIN_S, {}, ZoneInfo("Asia/Kolkata"))
    assert chart.hours[0][1] == "08:00"


def test_a_range_and_the_one_before_are_kept() -> None:
    assert all(2 * each.length_s <= SPANS[each.span_s] for each in RANGES.values())
