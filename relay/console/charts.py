"""Charts as SVG shapes: numbers to places. Templates draw them, with classes for colours and no style of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final, Literal, NamedTuple

from relay.console.outcomes import CLASSES, Class, class_of
from relay.store.call_counts import PeriodCounts

DAY_S: Final = 86_400
WIDTH, HEIGHT = 760, 192
LEFT, BOTTOM, TOP = 36, 20, 8  # margins for labels


class Range(NamedTuple):
    """A range of time: bars of `span_s`, which `relay.store.call_counts` keeps for twice as long."""

    span_s: int
    bars: int
    label_s: int  # between two labels

    @property
    def length_s(self) -> int:
        return self.span_s * self.bars


RANGES: Final = {
    "1h": Range(60, 60, 600),
    "6h": Range(600, 36, 3_600),
    "24h": Range(600, 144, 4 * 3_600),
    "7d": Range(3_600, 168, 86_400),
}


class Piece(NamedTuple):
    """A part of a bar."""

    class_: Class
    y: float
    height: float


class Bar(NamedTuple):
    """A bar, from `at`, in Unix seconds. `counts`: by class."""

    at: int
    x: float
    width: float
    pieces: tuple[Piece, ...]
    counts: Mapping[Class, int]


class Chart(NamedTuple):
    """`lines`: height and label of the grid, in calls per second or minute; `hours`: place and label of times."""

    per: Literal["second", "minute"]
    bars: tuple[Bar, ...]
    lines: tuple[tuple[float, str], ...]
    hours: tuple[tuple[float, str], ...]


def by_class(counts: PeriodCounts) -> dict[Class, int]:
    """The counts of each class of outcomes."""
    sums = dict.fromkeys(CLASSES, 0)
    for name, count in counts.outcomes.items():
        sums[class_of(name)] += count
    return sums


def stacked(range_: Range, begin_s: int, counts: Mapping[int, PeriodCounts], zone: tzinfo) -> Chart:
    """Bars of calls by class. `begin_s`: of the first bar."""
    times = [begin_s + place * range_.span_s for place in range(range_.bars)]
    parts = {at: by_class(counts[at]) if at in counts else dict.fromkeys(CLASSES, 0) for at in times}
    most = max(sum(part.values()) for part in parts.values()) / range_.span_s
    per: Literal["second", "minute"] = "second" if most > 1 else "minute"
    unit_s = 1 if per == "second" else 60
    top = _round_up(most * unit_s)
    step = (WIDTH - LEFT) / range_.bars
    scale = (HEIGHT - BOTTOM - TOP) * unit_s / (top * range_.span_s)
    bars = []
    for place, (at, part) in enumerate(parts.items()):
        bars.append(Bar(at, LEFT + place * step, step * 0.84, _pieces(part, scale), part))
    lines = tuple((HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), f"{top * share:g}") for share in (0, 0.5, 1))
    return Chart(per, tuple(bars), lines, tuple(_hours(range_, times, step, zone)))


def _pieces(part: Mapping[Class, int], scale: float) -> tuple[Piece, ...]:
    pieces, base = [], float(HEIGHT - BOTTOM)
    for class_ in CLASSES:
        if part[class_]:
            height = part[class_] * scale
            base -= height
            pieces.append(Piece(class_, round(base, 2), round(height, 2)))
    return tuple(pieces)


def _hours(range_: Range, times: Sequence[int], step: float, zone: tzinfo) -> Iterator[tuple[float, str]]:
    """Labels at round times of the viewer's day."""
    form = "%m-%d" if range_.label_s == DAY_S else "%H:%M"
    for place, at in enumerate(times):
        local = datetime.fromtimestamp(at, UTC).astimezone(zone)
        if (local.hour * 3_600 + local.minute * 60) % range_.label_s < range_.span_s and place < len(times) - 2:
            yield round(LEFT + place * step, 1), local.strftime(form)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20 … at or above."""
    size = 1.0
    while True:
        for step in (1, 2, 5):
            if step * size >= value:
                return round(step * size, 6)
        size *= 10
