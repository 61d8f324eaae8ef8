"""Histograms: durations counted by range, for the metrics. Adding one costs an array increment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

# Set-up times of calls: half a second and more is the network's and the phone's, up to a minute the callee's.
# Not a tuple of floats for mypyc (2.4): it takes the value of such a constant as not set.
CALL_BOUNDS_S: Final[Sequence[float]] = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0)
REQUEST_BOUNDS_S: Final[Sequence[float]] = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Form = Mapping[str, Sequence[float] | Mapping[str, Sequence[float]]]  # as `statistics` returns it


class Histogram:
    """Durations by label value: for each, a count per range and their sum."""

    __slots__ = ("_bounds_ms", "_bounds_s", "_rows")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        """`bounds_s`: the upper bounds of the ranges, ascending; the last range has none."""
        self._bounds_s = tuple(bounds_s)
        self._bounds_ms = [bound * 1000 for bound in bounds_s]
        self._rows: dict[str, list[float]] = {}  # counts, then the sum in milliseconds

    def add(self, key: str, duration_ms: float) -> None:
        """Count one duration under `key`: label values, separated by blanks."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = [0] * (len(self._bounds_ms) + 2)
        row[bisect_left(self._bounds_ms, duration_ms)] += 1
        row[-1] += duration_ms

    def statistics(self) -> Form:
        """The bounds in seconds, and by key the counts followed by the sum in seconds."""
        rows = {key: [*row[:-1], row[-1] / 1000] for key, row in self._rows.items()}
        return {"bounds": self._bounds_s, "rows": rows}
