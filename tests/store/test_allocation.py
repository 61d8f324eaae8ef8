"""The choice of a number, and its constant cost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.errors import Refused
from relay.service.numbers import load_prefix, new_prefix
from relay.store import allocation
from relay.store.allocation import (
    Wish,
    choose_number,
    cool_down_ms,
    count_use,
    end_rest,
    give_back,
    last_number,
    pair_of,
    rest_all,
    rest_number,
)
from tests.support import postgres
from tests.support.acting import Acting, acting
from tests.support.places import new_server_store
from tests.support.stored import NOW_MS, PREFIX, A, B, X, Y, binding, end, put

PAIR, OTHERS = b"pair", b"others"
CAP = 200
DAY_MS = 86_400_000
ANYBODY = Wish("acme")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    """A store with the 10,000 numbers of a prefix in the pool `default`."""
    with acting(tmp_path) as store:
        store.run(lambda unit: load_prefix(unit, new_prefix(PREFIX, cool_down_ms=500)))
        yield store


def chosen(store: Acting, wish: Wish = ANYBODY, *, cap: int = CAP, not_this: str | None = None) -> str | None:
    return choose_number(store.reader, "default", cap, wish, not_this, store.now_ms)


def set_all(store: Acting, assignments: str) -> None:
    store.run(lambda unit: unit.connection.execute(f"UPDATE number SET {assignments}"))


def taken(store: Acting, number: str, *, by: str = "acme", cap: int = CAP, exclusive: bool = False) -> str:
    """The error code of the refusal; "" if the number was taken."""
    try:
        store.run(lambda unit: count_use(unit, "x", number, by, cap, PAIR, exclusive=exclusive))
    except Refused as refused:
        return refused.kind
    return ""


def put_route(store: Acting, number: str, caller: bytes, free_at: int | None, pair: bytes = PAIR) -> None:
    row = (number, caller, "b1", "a", pair, free_at)
    store.run(lambda unit: unit.connection.execute("INSERT INTO route VALUES (?, ?, ?, ?, ?, ?)", row))


def test_number_that_has_rested_longest_is_chosen_first(store: Acting) -> None:
    set_all(store, "cools_until = 10")
    store.run(lambda unit: unit.connection.execute("UPDATE number SET cools_until = 9 WHERE number = ?", (Y,)))
    assert chosen(store) == Y
    assert chosen(store, not_this=Y) == f"{PREFIX}0000"


def test_cooling_or_locked_number_is_not_chosen(store: Acting) -> None:
    set_all(store, f"cools_until = {NOW_MS + 1}")
    assert chosen(store) is None
    store.now_ms += 1
    assert chosen(store) is not None
    set_all(store, "locked = 1")
    assert chosen(store) is None


def test_least_used_number_is_shared_when_all_are_bound(store: Acting) -> None:
    set_all(store, "bindings = 2, holder = 'acme'")
    store.run(lambda unit: unit.connection.execute("UPDATE number SET bindings = 1 WHERE number = ?", (Y,)))
    assert chosen(store) == Y
    assert chosen(store, Wish("acme", exclusive=True)) is None
    assert chosen(store, cap=1) is None


@pytest.mark.parametrize(("free_at", "is_in_the_way"), [(None, True), (NOW_MS + 1, True), (NOW_MS, False)])
def test_shared_number_is_skipped_if_a_caller_has_a_route_on_it(
    store: Acting, free_at: int | None, is_in_the_way: bool
) -> None:
    set_all(store, "bindings = 2, holder = 'acme'")
    store.run(lambda unit: unit.connection.execute("UPDATE number SET bindings = 1 WHERE number = ?", (Y,)))
    put_route(store, Y, b"b", free_at)
    assert (chosen(store, Wish("acme", (b"a", b"b"))) == Y) is not is_in_the_way
    assert chosen(store, Wish("acme", (b"a", b"c"))) == Y


def steps_of(store: Acting, wish: Wish) -> int:
    """The cost of one choice, in tens of SQLite VM instructions."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store.reader.set_progress_handler(count, 10)
    chosen(store, wish)
    store.reader.set_progress_handler(None, 0)
    return steps


FULL = [
    "bindings = 1, holder = 'other'",
    f"cools_until = {NOW_MS + 1}",
    "locked = 1",
    f"bindings = {CAP}, holder = 'acme'",
    "bindings = 1, holder = 'acme', exclusive = 1",
    "bindings = 2, holder = 'acme'",
]


@pytest.mark.parametrize("state", FULL)
@pytest.mark.parametrize(
    "wish", [Wish("acme", (b"a", b"b")), Wish("acme", (b"b",), "g1"), Wish("acme", exclusive=True)]
)
def test_cost_of_a_choice_does_not_grow_with_unavailable_numbers(store: Acting, state: str, wish: Wish) -> None:
    """For numbers that are cooling, locked, full, exclusive to an AXN, or shared."""
    set_all(store, state)
    assert steps_of(store, wish) < 200  # a scan of the 10,000 numbers would take about 5,000


def test_choice_searches_one_covering_index_without_sorting(store: Acting) -> None:
    search = "SEARCH number USING COVERING INDEX "
    for statement, condition in (
        (allocation._RESTED, "number_choice (pool=? AND locked=? AND exclusive=? AND bindings=? AND cools_until<?)"),
        (
            allocation._NEXT_RESTED,
            "number_choice (pool=? AND locked=? AND exclusive=? AND bindings=? AND cools_until>?)",
        ),
        (
            allocation._SHARED,
            "number_held (pool=? AND holder=? AND locked=? AND exclusive=? AND bindings>? AND bindings<?)",
        ),
    ):
        asked = dict.fromkeys(("pool", "cap", "now", "not_this", "holder", "first", "second", "most"), 1)
        plan = [row[3] for row in store.reader.execute(f"EXPLAIN QUERY PLAN {statement}", asked)]
        assert plan[0] == search + condition
        assert not [step for step in plan if "SCAN" in step or "TEMP B-TREE" in step]


@pytest.mark.outside
def test_choice_on_a_server_reads_only_the_routes_of_the_numbers_it_looks_at(tmp_path: Path) -> None:
    place, _ = new_server_store(tmp_path)
    number = "'70010000' || lpad(CAST(n % 3000 AS text), 7, '0')"
    asked = {"pool": "default", "cap": CAP, "now": NOW_MS, "not_this": None, "holder": "acme", "most": 1}
    asked |= {"first": b"\x01first", "second": b"\x01second"}
    with closing(postgres.connect(place)) as connection:
        connection.execute(
            "INSERT INTO number (number, prefix, pool, bindings, holder) "
            f"SELECT {number}, '70010000', 'default', 10, 'acme' FROM generate_series(1, 3000) AS n"
        )
        connection.execute(
            "INSERT INTO route (number, caller_hash, binding_id, party, pair) "
            f"SELECT {number}, CAST('caller ' || n AS bytea), 'b' || n, 'a', '' FROM generate_series(1, 30000) AS n"
        )
        connection.execute("ANALYZE")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {allocation._SHARED} FOR UPDATE", asked))
    assert "number_held" in plan and "route_pkey" in plan and "Seq Scan" not in plan, plan
    postgres.drop(place)


def test_number_is_taken_up_to_its_cap_or_by_one_axn(store: Acting) -> None:
    assert [taken(store, X, cap=2) for _ in range(3)] == ["", "", "number_full"]
    assert taken(store, X, exclusive=True) == "number_full"
    assert [taken(store, Y, exclusive=True), taken(store, Y)] == ["", "number_full"]
    assert taken(store, "700999999990000") == "number_unknown"
    set_all(store, "locked = 4")
    assert taken(store, X) == "number_locked"


def test_number_serves_one_business_user_until_its_cool_down_ends(store: Acting) -> None:
    """The refusal to others does not depend on the parties bound on it."""
    taken(store, X)
    set_all(store, f"bindings = 1, holder = 'acme' WHERE number <> '{X}'")
    assert [taken(store, X, by="other", exclusive=exclusive) for exclusive in (False, True)] == ["number_full"] * 2
    assert chosen(store, Wish("other", (b"a",))) is None
    assert chosen(store, Wish("acme", (b"a",))) is not None
    store.run(lambda unit: give_back(unit, X, NOW_MS + 100))
    assert taken(store, X, by="other") == "number_cooling"
    store.now_ms += 100
    assert chosen(store, Wish("other")) == X
    assert [taken(store, X, by="other"), taken(store, X)] == ["", "number_full"]


def test_cool_down_is_the_longest_of_all_released_bindings(store: Acting) -> None:
    taken(store, X)
    taken(store, X)
    store.run(lambda unit: rest_number(unit, X, NOW_MS + 300))
    assert store.run(lambda unit: give_back(unit, X, NOW_MS + 100)) is False
    assert store.run(lambda unit: give_back(unit, X, NOW_MS + 200)) is True
    for now_ms, kind in ((NOW_MS + 299, "number_cooling"), (NOW_MS + 300, "")):
        store.now_ms = now_ms
        assert taken(store, X) == kind


@pytest.mark.parametrize(("pairs", "kind"), [([PAIR], ""), ([PAIR, OTHERS], "number_cooling"), ([], "number_cooling")])
def test_cooling_number_is_taken_again_only_by_the_same_two_parties(
    store: Acting, pairs: list[bytes], kind: str
) -> None:
    set_all(store, f"cools_until = {NOW_MS + 100}, holder = 'acme'")
    for caller, pair in enumerate(pairs):
        put_route(store, X, bytes([caller]), NOW_MS + 100, pair)
    assert taken(store, X, by="other") == "number_cooling"
    assert taken(store, X) == kind


def test_cool_down_is_that_of_the_prefix_else_the_configured_one(store: Acting) -> None:
    assert store.run(lambda unit: cool_down_ms(unit, X, 9)) == 500
    store.run(lambda unit: load_prefix(unit, new_prefix("70010000002")))
    assert store.run(lambda unit: cool_down_ms(unit, "700100000020001", 9)) == 9


def test_all_numbers_without_a_binding_are_put_to_rest(store: Acting) -> None:
    taken(store, X)
    set_all(store, f"cools_until = {NOW_MS + 501} WHERE number = '{Y}'")
    store.run(lambda unit: load_prefix(unit, new_prefix("70010000002")))
    assert store.run(lambda unit: rest_all(unit, 9)) == 19_998
    rests = "SELECT DISTINCT cools_until FROM number WHERE prefix = ? AND number NOT IN (?, ?)"
    for prefix, until in ((PREFIX, NOW_MS + 500), ("70010000002", NOW_MS + 9)):
        assert store.reader.execute(rests, (prefix, X, Y)).fetchall() == [(until,)]
    kept = "SELECT cools_until FROM number WHERE number IN (?, ?) ORDER BY number"
    assert store.reader.execute(kept, (X, Y)).fetchall() == [(0,), (NOW_MS + 501,)]


def test_the_rest_of_all_ends_and_a_cool_down_goes_on(store: Acting) -> None:
    put(store.path, store.sealer, binding())
    end(store.path, store.sealer, "b1")
    store.run(lambda unit: rest_all(unit, 9))
    store.now_ms += 1
    cooling = "SELECT number FROM number WHERE cools_until > ?"
    assert len(store.reader.execute(cooling, (store.now_ms,)).fetchall()) > 1
    ended = store.run(end_rest)
    assert ended > 1 and store.reader.execute(cooling, (store.now_ms,)).fetchall() == [(X,)]
    assert store.run(end_rest) == 0


def test_pair_does_not_get_its_last_number_again_once_all_are_put_to_rest(store: Acting) -> None:
    """Another may have had it since, in a binding that is lost."""
    a, b = (store.sealer.lookup_hash(party) for party in (A, B))
    put(store.path, store.sealer, binding())
    pair = pair_of(store.sealer, binding())
    end(store.path, store.sealer, "b1")
    wish = Wish("default", (a, b), pair=(a, b, pair))
    store.now_ms += DAY_MS
    for free in (True, False):
        last = last_number(store.reader, "x", wish, None, store.now_ms)
        assert (last is not None) is free
        store.run(lambda unit: rest_all(unit, 9))
