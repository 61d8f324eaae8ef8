"""Which of the two routes of a look-up is used. What the statement finds is tested beside each reader."""

from __future__ import annotations

from typing import Any

import pytest

from relay.store.lookup import _BINDING, _FREE_AT, _ROUTE, Row, choose_row, own_route_decides

NOW_S = 1000.0
BEFORE, LATER = 999_999, 1_000_001  # milliseconds


def row(key: str | None, free_at: int | None = None) -> Row:
    values: list[Any] = [None] * (_BINDING + 1)
    if key is not None:
        values[_ROUTE] = [key, "00", "a", "b1", None]
        values[_ROUTE][_FREE_AT] = free_at
    return (1, None, None, tuple(values))


ABSENT = row(None)
IN_FORCE, RESTING, FORMER = (row("own", free_at) for free_at in (None, LATER, BEFORE))
ANYBODYS, FORMER_ANYBODYS = row("anybodys"), row("anybodys", BEFORE)


@pytest.mark.parametrize(("own", "used"), [(IN_FORCE, True), (RESTING, True), (FORMER, False), (ABSENT, False)])
def test_own_route_decides_while_it_is_in_force_or_cooling_down(own: Row, used: bool) -> None:
    assert own_route_decides(own, NOW_S) is used


@pytest.mark.parametrize(
    ("own", "anybodys", "used"),
    [
        (FORMER, ANYBODYS, ANYBODYS),
        (FORMER, FORMER_ANYBODYS, FORMER),
        (FORMER, ABSENT, FORMER),
        (ABSENT, ANYBODYS, ANYBODYS),
        (ABSENT, FORMER_ANYBODYS, FORMER_ANYBODYS),
        (ABSENT, ABSENT, ABSENT),
    ],
)
def test_route_for_any_caller_is_used_in_force_or_without_an_own_one(own: Row, anybodys: Row, used: Row) -> None:
    assert choose_row(own, anybodys) == used
