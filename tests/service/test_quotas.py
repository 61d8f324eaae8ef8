"""Quotas of a business user's bindings: small defaults, which an operator can raise."""

from __future__ import annotations

from typing import Any

import pytest

from relay.config import parse_config
from relay.defence.limits import Rates
from relay.errors import Refused
from relay.policy.rules import NO_LIMIT, Quotas
from relay.service.bindings import end
from relay.service.businesses import change
from relay.service.numbers import load_prefix, new_prefix
from relay.service.placement import BindRules
from relay.store.bindings import all_bindings
from relay.store.numbers import usage
from relay.store.unit_of_work import Actor, UnitOfWork, operator_cli
from tests.service.conftest import Backend
from tests.support import places
from tests.support.stored import PREFIX
from tests.support.written import bind, bind_all, written

DAY_MS = 86_400_000
FEW = BindRules(quotas=Quotas(max_bindings=3, max_binds_per_day=5))


@pytest.fixture
def acme(backend: Backend) -> Backend:
    """A backend whose actor is a key of a new business user."""
    backend.business("acme")
    backend.key_of("acme")
    return backend


def raised(backend: Backend, **quotas: int) -> None:
    backend.run(lambda unit: change(unit, "acme", **quotas), Actor("cli:test", None, frozenset(["operator"])))  # type: ignore[arg-type]


def bound(backend: Backend, rules: BindRules = FEW, n: int = 0, **more: Any) -> Any:
    return backend.bind(a=f"138{n:08}", b=f"139{n:08}", order_id="17", rules=rules, **more)


def refusal(backend: Backend, rules: BindRules = FEW, **more: Any) -> str:
    with pytest.raises(Refused) as refused:
        bound(backend, rules, 99, **more)
    assert (refused.value.kind, refused.value.field) == ("quota", "business")
    return refused.value.problem


def test_a_new_business_user_cannot_empty_the_common_pool(acme: Backend) -> None:
    """With the default quotas, however often it tries."""
    acme.run(lambda unit: load_prefix(unit, new_prefix("70010000002")), operator_cli())
    rules = parse_config(f'[numbers]\nprefixes = ["{PREFIX}"]', "test").numbers
    asked = [written("AXB", f"138{n:08}", f"139{n:08}", order_id="17") for n in range(1_100)]
    made: list[Any] = []
    for start in range(0, len(asked), 100):
        made += acme.run(lambda unit, at=start: bind_all(unit, asked[at : at + 100], rules))
    assert sum(not isinstance(one, Refused) for one in made) == 1_000
    assert {one.kind for one in made if isinstance(one, Refused)} == {"quota"}
    (pool,) = usage(acme.reader, acme.now_ms)
    assert (pool.total, pool.free) == (10_000 + places.FEW, 9_000 + places.FEW)


def test_max_bindings_limits_live_bindings_until_an_operator_raises_it(acme: Backend) -> None:
    made = [bound(acme, n=n) for n in range(3)]
    problem = refusal(acme)
    assert "3 bindings" in problem and "relay700 business limits ID --max-bindings N" in problem
    acme.run(lambda unit: end(unit, made[0].binding_id, FEW))
    bound(acme, n=4)
    refusal(acme)
    raised(acme, max_bindings=4)
    bound(acme, n=5)


def test_max_binds_per_day_limits_binding_and_unbinding(acme: Backend) -> None:
    """A number cools down after its binding: without a daily quota, binding and unbinding would use up the pool."""
    for n in range(5):
        made = bound(acme, n=n)
        acme.run(lambda unit, of=made: end(unit, of.binding_id, FEW))
    assert "5 new bindings a day" in refusal(acme) and "--max-binds-per-day" in refusal(acme)
    raised(acme, max_binds_per_day=6)
    bound(acme, n=6)
    refusal(acme)
    raised(acme, max_binds_per_day=NO_LIMIT)
    bound(acme, n=7)
    raised(acme, max_binds_per_day=0)
    acme.now_ms += DAY_MS
    refusal(acme)
    raised(acme, max_binds_per_day=5, max_bindings=NO_LIMIT)
    for n in range(8, 13):
        bound(acme, n=n)
    refusal(acme)


def test_a_refused_binding_does_not_count(acme: Backend) -> None:
    for _ in range(9):
        with pytest.raises(Refused, match="pool"):
            bound(acme, pool="nowhere")
    first = bound(acme)
    with pytest.raises(Refused) as refused:
        bound(acme, x=first.x)
    assert refused.value.kind == "conflict"
    for n in (1, 2):
        bound(acme, n=n)


def test_the_business_user_default_has_explicit_quotas_only(backend: Backend) -> None:
    for n in range(6):
        bound(backend, n=n)
    backend.run(lambda unit: change(unit, "default", max_bindings=6))
    refusal(backend)


def test_max_binds_per_s_limits_the_keys_of_a_business_user(acme: Backend) -> None:
    rules, rates = BindRules(quotas=Quotas(max_binds_per_s=2)), Rates()

    def make(n: int, actor: Actor | None = None) -> None:
        def do(unit: UnitOfWork) -> object:
            return bind(unit, written("AXB", f"138{n:08}", f"139{n:08}", order_id="17", business="acme"), rules, rates)

        acme.run(do, actor)

    make(1)
    make(2)
    with pytest.raises(Refused) as refused:
        make(3)
    assert (refused.value.kind, refused.value.field) == ("rate_limited", "business")
    assert "2 new bindings a second" in refused.value.problem and "--max-binds-per-s N" in refused.value.problem
    make(4, Actor("key:operator", None, frozenset(["bindings:write"])))  # operators have no rate limit
    raised(acme, max_binds_per_s=3)
    make(5)
    acme.now_ms += 1_000
    make(6)
    assert len(list(all_bindings(acme.reader, acme.sealer))) == 5
