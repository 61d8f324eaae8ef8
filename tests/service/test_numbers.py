"""Prefixes, numbers and pools: the operator's changes, and their effect on the next call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import Refused
from relay.model.numbers import LOCKED_FOR_FRAUD
from relay.service import numbers
from relay.service.numbers import PoolChange, new_pool, new_prefix
from relay.store.numbers import Pool, Prefix, PrefixState, find_pool, set_locks, usage
from tests.service.conftest import Backend
from tests.support.places import FEW
from tests.support.stored import NOW_MS, PREFIX, A, B, X, Y

OTHER = "70023456789"


def refused(backend: Backend, do: Callable[[Any], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        backend.run(do)
    return refusal.value.kind, refusal.value.field


def set_state(backend: Backend, state: PrefixState) -> Prefix:
    return backend.run(lambda unit: numbers.change_prefix(unit, PREFIX, {"state": state}, "because"))


# Prefixes


@pytest.mark.parametrize(
    ("asked", "kind", "field"),
    [
        (new_prefix("7001000000"), "invalid", "prefix"),
        (new_prefix("13800000001"), "invalid", "prefix"),
        (new_prefix(PREFIX), "state_conflict", "prefix"),
        (new_prefix(OTHER, cool_down_ms=-1), "invalid", "cool_down"),
        (new_prefix(OTHER, peer="a\nb"), "invalid", "peer"),
    ],
)
def test_an_invalid_prefix_is_refused(backend: Backend, asked: Prefix, kind: str, field: str) -> None:
    assert refused(backend, lambda unit: numbers.load_prefix(unit, asked)) == (kind, field)


@pytest.mark.parametrize("pool", ["none", "legacy"])
def test_a_prefix_for_an_unknown_pool_is_refused(backend: Backend, pool: str) -> None:
    assert refused(backend, lambda unit: numbers.load_prefix(unit, new_prefix(OTHER), pool)) == ("not_found", "pool")


def test_a_locked_prefix_refuses_calls_and_new_bindings(backend: Backend) -> None:
    backend.bind(x=X)
    backend.bind("AXB", "8001", "8002", x=Y)
    set_state(backend, "locked")
    assert [backend.reaches(X, A), backend.reaches(Y, "8001")] == ["number_locked", "number_locked"]
    for x, kind in (("", "pool_empty"), (f"{PREFIX}0005", "number_locked")):
        with pytest.raises(Refused) as refusal:
            backend.bind("AXB", "8003", "8004", x=x)
        assert refusal.value.kind == kind
    set_state(backend, "active")
    assert [backend.reaches(X, A), backend.reaches(Y, "8001")] == [B, "8002"]


def test_a_returned_prefix_stays_returned(backend: Backend) -> None:
    backend.bind(x=X)
    set_state(backend, "returned")
    assert backend.reaches(X, A) == "number_locked"
    states: tuple[PrefixState, ...] = ("active", "locked")
    for state in states:
        assert refused(backend, lambda unit, to=state: numbers.change_prefix(unit, PREFIX, {"state": to})) == (
            "state_conflict",
            "state",
        )
    assert refused(backend, lambda unit: numbers.load_prefix(unit, new_prefix(PREFIX))) == ("state_conflict", "prefix")
    assert backend.run(lambda unit: numbers.ensure_numbers(unit, [PREFIX])) == 0


def test_a_change_of_a_prefix_writes_the_given_fields_only(backend: Backend) -> None:
    before = backend.run(lambda unit: numbers.get_prefix(unit, PREFIX))
    after = backend.run(lambda unit: numbers.change_prefix(unit, PREFIX, {"peer": "carrier", "cool_down_ms": 7}))
    assert after == before._replace(peer="carrier", cool_down_ms=7)
    assert backend.run(lambda unit: numbers.change_prefix(unit, PREFIX, {"cool_down_ms": None})).cool_down_ms is None


# Numbers


def test_a_locked_number_refuses_calls_until_it_is_unlocked(backend: Backend) -> None:
    backend.bind(x=X)
    backend.bind("AXB", "8001", "8002", x=Y)
    assert backend.run(lambda unit: numbers.lock(unit, X, "complaints")).state == "locked"
    assert [backend.reaches(X, A), backend.reaches(Y, "8001")] == ["number_locked", "8002"]
    assert backend.run(lambda unit: numbers.unlock(unit, X)).state == "bound"
    assert backend.reaches(X, A) == B


def test_a_held_number_gets_no_new_bindings_and_keeps_its_calls(backend: Backend) -> None:
    backend.bind("AXB", "8001", "8002", x=Y)
    assert backend.run(lambda unit: numbers.hold(unit, Y, "for the fleet")).locked_by == ["hold"]
    assert backend.reaches(Y, "8001") == "8002"
    with pytest.raises(Refused, match="the number is locked"):
        backend.bind("AXB", "8003", "8004", x=Y)
    assert backend.bind("AXB", "8003", "8004").x != Y
    backend.run(lambda unit: numbers.lock(unit, Y, "complaints"))
    assert backend.run(lambda unit: numbers.unhold(unit, Y)).locked_by == ["operator"]
    assert backend.reaches(Y, "8001") == "number_locked"


def test_a_business_user_holds_numbers_of_its_own_pools_alone(backend: Backend) -> None:
    for business in ("acme", "rival"):
        backend.business(business)
    backend.run(lambda unit: numbers.make_pool(unit, numbers.new_pool("own", "acme")))
    backend.run(lambda unit: numbers.move(unit, [X], "own"))
    backend.key_of("acme")
    assert backend.run(lambda unit: numbers.hold(unit, X)).locked_by == ["hold"]
    assert refused(backend, lambda unit: numbers.hold(unit, Y)) == ("number_unknown", "number")
    backend.key_of("rival")
    assert refused(backend, lambda unit: numbers.unhold(unit, X)) == ("number_unknown", "number")
    assert refused(backend, lambda unit: numbers.hold(unit, Y)) == ("forbidden", "number")


def test_unlock_releases_operator_and_fraud_locks_but_not_the_prefix(backend: Backend) -> None:
    backend.run(lambda unit: set_locks(unit, X, add=LOCKED_FOR_FRAUD))
    set_state(backend, "locked")
    assert backend.run(lambda unit: numbers.unlock(unit, X)).state == "locked"  # the prefix is locked
    backend.run(lambda unit: numbers.lock(unit, X, "complaints"))
    set_state(backend, "active")
    assert backend.run(lambda unit: numbers.get_number(unit, X)).state == "locked"
    assert backend.run(lambda unit: numbers.unlock(unit, X)).state == "free"


def test_a_moved_number_keeps_its_bindings(backend: Backend) -> None:
    backend.business("acme")
    backend.bind(x=X)
    backend.run(lambda unit: numbers.make_pool(unit, new_pool("acme", "acme")))
    assert backend.run(lambda unit: numbers.move(unit, [X, Y], "acme")) == 2
    assert backend.reaches(X, A) == B
    assert refused(backend, lambda unit: numbers.move(unit, [X, "700999999990000"], "default"))[0] == "number_unknown"
    assert backend.run(lambda unit: numbers.get_number(unit, X)).pool == "acme"
    assert refused(backend, lambda unit: numbers.move(unit, [X], "none")) == ("not_found", "pool")


# Pools


def test_usage_counts_numbers_by_state_and_warns(backend: Backend) -> None:
    backend.run(lambda unit: numbers.make_pool(unit, new_pool("few", warn_percent=75)))
    few = [f"{PREFIX}{n:04d}" for n in range(200, 205)]
    backend.run(lambda unit: numbers.move(unit, few, "few"))
    backend.run(lambda unit: numbers.lock(unit, few[4], "broken"))
    backend.bind("AXYB", pool="few")
    backend.bind("AXB", "8001", "8002", x=few[0])
    used = {one.pool_id: one for one in usage(backend.connection, NOW_MS)}["few"]
    assert used[2:] == (5, 2, 2, 0, 1, 3, 50, False)
    backend.connection.execute("UPDATE number SET cools_until = ? WHERE number = ?", (NOW_MS + 1, few[3]))
    used = {one.pool_id: one for one in usage(backend.connection, NOW_MS)}["few"]
    assert (used.free, used.cooling, used.percent, used.warning) == (1, 1, 75, True)


@pytest.mark.parametrize(
    ("asked", "kind", "field"),
    [
        (new_pool("a b"), "invalid", "id"),
        (new_pool("default"), "state_conflict", "id"),
        (new_pool("legacy"), "state_conflict", "id"),
        (new_pool("p", "nobody"), "not_found", "business"),
        (new_pool("p", max_bindings=0), "invalid", "max_bindings"),
        (new_pool("p", warn_percent=101), "invalid", "warn_percent"),
        (new_pool("p", area="a\nb"), "invalid", "area"),
    ],
)
def test_an_invalid_pool_is_refused(backend: Backend, asked: Pool, kind: str, field: str) -> None:
    assert refused(backend, lambda unit: numbers.make_pool(unit, asked)) == (kind, field)


def test_owner_area_and_limits_of_a_pool_can_be_changed(backend: Backend) -> None:
    backend.business("acme")
    made = backend.run(lambda unit: numbers.make_pool(unit, new_pool("bj", "acme", "010")))
    assert made.max_bindings == 200
    asked: PoolChange = {"business": None, "area": "021", "max_bindings": 5, "warn_percent": 90}
    changed = backend.run(lambda unit: numbers.change_pool(unit, "bj", asked))
    assert changed == made._replace(business=None, area="021", max_bindings=5, warn_percent=90)
    assert find_pool(backend.connection, "bj") == changed
    assert refused(backend, lambda unit: numbers.change_pool(unit, "none", {})) == ("not_found", "pool")


def test_numbers_prefixes_and_pools_require_an_operator(backend: Backend) -> None:
    backend.business("acme")
    backend.key_of("acme")
    for do in (
        lambda unit: numbers.load_prefix(unit, new_prefix(OTHER)),
        lambda unit: numbers.change_prefix(unit, PREFIX, {"state": "locked"}),
        lambda unit: numbers.lock(unit, X, "why not"),
        lambda unit: numbers.unlock(unit, X),
        lambda unit: numbers.move(unit, [X], "default"),
        lambda unit: numbers.make_pool(unit, new_pool("p")),
        lambda unit: numbers.change_pool(unit, "default", {"area": "bj"}),
    ):
        assert refused(backend, do)[0] == "forbidden"
    assert backend.one("SELECT count(*), max(locked) FROM number") == (FEW, 0)
