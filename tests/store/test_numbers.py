"""Numbers, prefixes and pools in the store. Their rules are tested in tests/service/test_numbers.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.model.numbers import LOCKED_BY_OPERATOR, LOCKED_FOR_FRAUD
from relay.service.numbers import load_prefix, new_pool, new_prefix
from relay.store.numbers import (
    LEGACY_POOL,
    NumberQuery,
    Prefix,
    find_number,
    find_numbers,
    find_pool,
    find_prefix,
    find_prefixes,
    insert_legacy,
    insert_pool,
    is_held_by,
    move_number,
    pools_of,
    set_locks,
    update_prefix,
    usage,
    usage_of,
    usage_seen_by,
)
from tests.support.acting import Acting, acting
from tests.support.papers import apply
from tests.support.stored import NOW_MS, PREFIX, X, Y

OTHER = "70023456789"
NUMBERS = [f"{PREFIX}{n:04d}" for n in range(10_000)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    """A store with the 10,000 numbers of a prefix in the pool `default`."""
    with acting(tmp_path) as store:
        store.run(lambda unit: load_prefix(unit, new_prefix(PREFIX)))
        yield store


def run(store: Acting, statement: str, *values: object) -> None:
    store.run(lambda unit: unit.connection.execute(statement, values))


def locks(store: Acting, number: str = X) -> list[str]:
    found = find_number(store.reader, number, NOW_MS)
    assert found is not None
    return list(found.locked_by)


# -- prefixes


@pytest.mark.parametrize("store_kind", ["sqlite"], indirect=True)
def test_load_prefix_inserts_10000_numbers_in_one_statement(store: Acting) -> None:
    statements: list[str] = []

    def load(unit: Any) -> int:
        unit.connection.set_trace_callback(statements.append)
        loaded = load_prefix(unit, new_prefix(OTHER, "carrier", cool_down_ms=5))
        unit.connection.set_trace_callback(None)
        return int(loaded)

    assert store.run(load) == 10_000
    assert len({statement for statement in statements if "INSERT INTO number (" in statement}) == 1
    assert find_prefix(store.reader, OTHER) == Prefix(OTHER, "2", "3456789", "carrier", "active", 5, NOW_MS)
    query = "SELECT count(*), min(number), max(number) FROM number WHERE prefix = ? AND pool = 'default'"
    assert store.reader.execute(query, (OTHER,)).fetchone() == (10_000, f"{OTHER}0000", f"{OTHER}9999")


def test_prefixes_are_paginated(store: Acting) -> None:
    store.run(lambda unit: load_prefix(unit, new_prefix(OTHER)))
    assert [one.prefix for one in find_prefixes(store.reader, "", 9)] == [PREFIX, OTHER]
    assert [one.prefix for one in find_prefixes(store.reader, PREFIX, 9)] == [OTHER]


# -- numbers


def test_each_lock_is_set_and_cleared_by_itself(store: Acting) -> None:
    prefix = find_prefix(store.reader, PREFIX)
    assert prefix is not None
    store.run(lambda unit: set_locks(unit, X, add=LOCKED_FOR_FRAUD))
    for state, expected in (("locked", ["fraud", "prefix"]), ("returned", ["fraud", "prefix"]), ("active", ["fraud"])):
        store.run(lambda unit, state=state: update_prefix(unit, prefix._replace(state=state)))
        assert (locks(store), locks(store, Y)) == (expected, expected[1:])
    store.run(lambda unit: set_locks(unit, X, clear=LOCKED_FOR_FRAUD, add=LOCKED_BY_OPERATOR))
    assert locks(store) == ["operator"]
    store.run(lambda unit: set_locks(unit, X, clear=LOCKED_FOR_FRAUD | LOCKED_BY_OPERATOR))
    assert locks(store) == []


def test_numbers_are_found_by_state(store: Acting) -> None:
    cooling = NUMBERS[3]
    run(store, "UPDATE number SET bindings = 1 WHERE number = ?", X)
    store.run(lambda unit: set_locks(unit, Y, add=LOCKED_BY_OPERATOR))
    run(store, "UPDATE number SET cools_until = ? WHERE number = ?", NOW_MS + 1, cooling)
    for state, number in (("bound", X), ("locked", Y), ("cooling", cooling)):
        (found,) = find_numbers(store.reader, NumberQuery(state=state), NOW_MS, "", 9)
        assert (found.number, found.state) == (number, state)
    assert len(find_numbers(store.reader, NumberQuery(state="free"), NOW_MS, "", 20_000)) == 9_997
    assert find_numbers(store.reader, NumberQuery(state="cooling"), NOW_MS + 1, "", 9) == []


def test_a_locked_number_is_locked_whatever_else_it_is(store: Acting) -> None:
    run(store, "UPDATE number SET bindings = 1, cools_until = ? WHERE number = ?", NOW_MS + 1, X)
    states = []
    for statement in ("SET locked = 1", "SET locked = 0", "SET bindings = 0"):
        run(store, f"UPDATE number {statement} WHERE number = ?", X)
        found = find_number(store.reader, X, NOW_MS)
        states.append(found and found.state)
    assert states == ["locked", "bound", "cooling"]


def test_a_number_is_held_by_the_business_user_of_its_bindings_alone(store: Acting) -> None:
    run(store, "UPDATE number SET holder = 'acme', bindings = 1 WHERE number = ?", X)
    asked = ((X, "acme"), (X, "other"), (X, ""), (Y, "acme"), (Y, ""), ("700999999990001", "acme"))
    held = [is_held_by(store.reader, *each, NOW_MS) for each in asked]
    assert held == [True, False, False, False, False, False]


def test_a_number_is_held_until_it_has_rested(store: Acting) -> None:
    """Otherwise its last holder would learn when it is bound for another business user."""
    run(store, "UPDATE number SET holder = 'acme', cools_until = ? WHERE number = ?", NOW_MS + 1, X)
    assert [is_held_by(store.reader, X, "acme", at_ms) for at_ms in (NOW_MS, NOW_MS + 1)] == [True, False]


def test_numbers_are_found_by_prefix_pool_and_business_page_by_page(store: Acting) -> None:
    store.run(lambda unit: load_prefix(unit, new_prefix(OTHER)))
    store.run(lambda unit: apply(unit, "acme", "acme"))
    store.run(lambda unit: insert_pool(unit, new_pool("few", "acme")))
    for number in (X, f"{OTHER}0007"):
        store.run(lambda unit, number=number: move_number(unit, number, "few"))

    def found(after: str = "", **query: str) -> list[str]:
        return [one.number for one in find_numbers(store.reader, NumberQuery(**query), NOW_MS, after, 2)]

    assert found(prefix=PREFIX) == NUMBERS[:2]
    assert found(NUMBERS[9_998], prefix=PREFIX) == NUMBERS[9_999:]
    assert found(pool="few") == found(business="acme") == [X, f"{OTHER}0007"]
    assert found(pool="few", prefix=OTHER) == [f"{OTHER}0007"]
    assert found(business="default") == []


def test_an_old_middle_number_is_added_once_and_never_chosen(store: Acting) -> None:
    old = "8613500000005"
    assert [store.run(lambda unit: insert_legacy(unit, old)) for _ in range(2)] == [True, False]
    found = find_number(store.reader, old, NOW_MS)
    assert found is not None
    assert (found.pool, found.prefix, found.legacy) == (LEGACY_POOL, "", True)
    assert LEGACY_POOL not in [pool.pool_id for pool in pools_of(store.reader, "default")]


# -- pools


def test_usage_counts_each_number_in_one_state(store: Acting) -> None:
    few = NUMBERS[9_000:9_005]
    store.run(lambda unit: insert_pool(unit, new_pool("few", warn_percent=75)))
    for number in few:
        store.run(lambda unit, number=number: move_number(unit, number, "few"))
    store.run(lambda unit: set_locks(unit, few[4], add=LOCKED_BY_OPERATOR))
    run(store, "UPDATE number SET bindings = 1 WHERE number = ?", few[1])
    run(store, "UPDATE number SET bindings = 2 WHERE number IN (?, ?)", few[0], few[4])
    used = {one.pool_id: one for one in usage(store.reader, NOW_MS)}["few"]
    assert used[2:] == (5, 2, 2, 0, 1, 5, 50, False)
    run(store, "UPDATE number SET cools_until = ? WHERE number = ?", NOW_MS + 1, few[3])
    used = {one.pool_id: one for one in usage(store.reader, NOW_MS)}["few"]
    assert (used.free, used.cooling, used.percent, used.warning) == (1, 1, 75, True)
    run(store, "UPDATE number SET locked = 1 WHERE pool = 'few'")
    used = {one.pool_id: one for one in usage(store.reader, NOW_MS)}["few"]
    assert (used.free, used.locked, used.percent, used.warning) == (0, 5, 100, True)


def test_a_business_user_sees_a_common_pool_in_whole_percents(store: Acting) -> None:
    default = find_pool(store.reader, "default")
    assert default is not None
    run(store, "UPDATE number SET bindings = 2, holder = 'acme' WHERE number = ?", X)
    run(store, "UPDATE number SET bindings = 1, holder = 'other' WHERE number < ? AND number <> ?", NUMBERS[150], X)
    run(store, "UPDATE number SET cools_until = ? WHERE number >= ?", NOW_MS + 1, NUMBERS[9_950])
    run(store, "UPDATE number SET locked = 1 WHERE number BETWEEN ? AND ?", NUMBERS[9_000], NUMBERS[9_120])
    seen = usage_seen_by(store.reader, default, "acme", NOW_MS)
    assert seen[2:] == (10_000, 9_702, 198, 0, 100, 2, 2, False)
    assert seen.total == seen.free + seen.bound + seen.locked
    exact = usage_of(store.reader, default, NOW_MS)
    assert usage_seen_by(store.reader, default, None, NOW_MS) == exact
    assert usage_seen_by(store.reader, default._replace(business="acme"), "acme", NOW_MS)[2:] == exact[2:]
    assert usage_seen_by(store.reader, default._replace(pool_id="none"), "acme", NOW_MS).free == 0


def test_a_business_uses_its_own_pools_else_the_common_ones(store: Acting) -> None:
    for name in ("acme", "other"):
        store.run(lambda unit, name=name: apply(unit, name, name))
    assert [pool.pool_id for pool in pools_of(store.reader, "acme")] == ["default"]
    for pool in (new_pool("a-bj", "acme", "010"), new_pool("z", "acme"), new_pool("common-bj", area="010")):
        store.run(lambda unit, pool=pool: insert_pool(unit, pool))
    own, common = [[pool.pool_id for pool in pools_of(store.reader, name)] for name in ("acme", "other")]
    assert (own, common) == (["z", "a-bj"], ["default", "common-bj"]), "pools without an area come first"
    assert find_pool(store.reader, "z", "acme") == find_pool(store.reader, "z") is not None
    assert find_pool(store.reader, "z", "other") is find_pool(store.reader, "default", "acme") is None
