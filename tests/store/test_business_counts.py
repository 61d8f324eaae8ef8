"""Counts of a business user's bindings: checked within a transaction, written at its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.store.business_counts import count_binding, discount_binding
from relay.store.unit_of_work import UnitOfWork
from tests.support.acting import Acting, acting

DAY_MS = 24 * 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as made:
        yield made


def counted(store: Acting) -> tuple[int, int]:
    found: tuple[int, int] = store.reader.execute(
        "SELECT live, today FROM business_count WHERE business = 'acme'"
    ).fetchone() or (0, 0)
    return found


def make(unit: UnitOfWork, most: int | None = None, most_today: int | None = None) -> str | None:
    return count_binding(unit, "acme", most, most_today)


def test_counts_of_one_transaction_are_compared_with_each_other(store: Acting) -> None:
    assert store.run(lambda unit: [make(unit, 2) for _ in range(3)]) == [None, None, "max_bindings"]
    assert counted(store) == (2, 2)
    assert store.run(lambda unit: make(unit, 2)) == "max_bindings"
    assert store.run(lambda unit: [make(unit, 3, 3), make(unit, 9, 3)]) == [None, "max_binds_per_day"]


def test_what_ends_makes_room_in_the_same_transaction(store: Acting) -> None:
    def both(unit: UnitOfWork) -> list[str | None]:
        discount_binding(unit, "acme")
        return [make(unit, 1), make(unit, 1)]

    store.run(lambda unit: make(unit, 1))
    assert store.run(both) == [None, "max_bindings"]
    assert counted(store) == (1, 2)


def test_no_less_than_none_is_live(store: Acting) -> None:
    store.run(lambda unit: discount_binding(unit, "acme"))
    assert counted(store) == (0, 0)
    assert store.run(lambda unit: make(unit, 1)) is None
    assert counted(store) == (1, 1)


def test_a_day_of_china_begins_with_no_binding_made(store: Acting) -> None:
    store.run(lambda unit: make(unit, None, 1))
    assert store.run(lambda unit: make(unit, None, 1)) == "max_binds_per_day"
    store.now_ms += DAY_MS
    store.run(lambda unit: discount_binding(unit, "acme"))
    assert counted(store) == (0, 1)  # of the day before, which is no limit today
    assert store.run(lambda unit: make(unit, None, 1)) is None
    assert counted(store) == (1, 1)


def test_what_is_rolled_back_is_not_counted(store: Acting) -> None:
    def undone(unit: UnitOfWork) -> None:
        unit.connection.execute("SAVEPOINT part")
        make(unit)
        unit.audit("test", "store")
        unit.connection.execute("ROLLBACK TO part")
        unit.connection.execute("RELEASE part")

    store.run(undone)
    assert counted(store) == (0, 0)
    assert store.reader.execute("SELECT count(*) FROM audit").fetchone() == (0,)
