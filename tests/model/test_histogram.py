"""Durations by range."""

from __future__ import annotations

from relay.model.histogram import Histogram


def test_durations_are_counted_up_to_and_including_each_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for duration_ms in (0, 100, 101, 1000, 5000):
        histogram.add("carrier", duration_ms)
    histogram.add("pbx", 100)
    rows = {"carrier": [2, 2, 1, 6.201], "pbx": [1, 0, 0, 0.1]}
    assert histogram.statistics() == {"bounds": (0.1, 1.0), "rows": rows}
