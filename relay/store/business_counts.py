"""Counts of a business user's bindings: live ones, and those made today. Limits are compared with them.

A unit of work checks and notes them; they are written once at the end of its transaction. So on a server the units of
work of one business user need not wait for each other, on whatever node; those that run at the same moment may together
exceed a limit by as many. Owns the table `business_count`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from relay.policy.rules import NO_LIMIT
from relay.store.connection import Connection, Naming
from relay.store.unit_of_work import UnitOfWork

_FIND: Final = "SELECT live, day, today FROM business_count WHERE business = ?"
_PUT: Final = """
INSERT INTO business_count (business, live, day, today) VALUES (?1, CASE WHEN ?2 > 0 THEN ?2 ELSE 0 END, ?3, ?4)
ON CONFLICT (business) DO UPDATE SET
  live = CASE WHEN business_count.live + ?2 > 0 THEN business_count.live + ?2 ELSE 0 END,
  day = CASE WHEN ?4 > 0 THEN ?3 ELSE business_count.day END,
  today = CASE WHEN ?4 > 0 AND business_count.day <> ?3 THEN ?4 ELSE business_count.today + ?4 END
"""
_DAY_MS: Final = 24 * 3_600_000
_CHINA_MS: Final = 8 * 3_600_000


class Count(NamedTuple):
    """A change of the counts, written at the end of the transaction."""

    business: str
    live: int
    day: int  # since 1970, of China
    today: int


def count_binding(unit: UnitOfWork, business: str, most: int | None, most_today: int | None) -> str | None:
    """Count one more live binding, and one more made today.

    If a quota is reached, count nothing and return its name.
    """
    one = Count(business, 1, _day(unit), 1)
    live, today = _counted(unit, one)
    if live >= (NO_LIMIT if most is None else most):
        return "max_bindings"
    if today >= (NO_LIMIT if most_today is None else most_today):
        return "max_binds_per_day"
    _noted(unit).append(one)
    return None


def discount_binding(unit: UnitOfWork, business: str) -> None:
    """Count one live binding less; none is left where the row was given to a business that did not make it."""
    _noted(unit).append(Count(business, -1, _day(unit), 0))


def write_counts(connection: Connection, counts: Sequence[Count]) -> None:
    """Write the changes of a transaction."""
    sums: dict[tuple[str, int], tuple[int, int]] = defaultdict(lambda: (0, 0))
    for business, live, day, today in counts:
        before = sums[business, day]
        sums[business, day] = before[0] + live, before[1] + today
    rows = [(business, live, day, today) for (business, day), (live, today) in sums.items()]
    if rows:
        connection.executemany(_PUT, rows)


def _counted(unit: UnitOfWork, one: Count) -> tuple[int, int]:
    """The live bindings and those made today, as this transaction will leave them."""
    live, day, today = unit.connection.execute(_FIND, (one.business,)).fetchone() or (0, 0, 0)
    today = today if day == one.day else 0
    for note in _noted(unit):
        if isinstance(note, Count) and note.business == one.business:
            live, today = max(live + note.live, 0), today + (note.today if note.day == one.day else 0)
    return live, today


def _noted(unit: UnitOfWork) -> list[object]:
    naming: Naming | None = getattr(unit.connection, "naming", None)
    assert naming is not None  # units of work run in such a transaction
    return naming.at_end


def _day(unit: UnitOfWork) -> int:
    return (unit.now_ms + _CHINA_MS) // _DAY_MS
