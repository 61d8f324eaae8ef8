"""Hand-over: parcels keep their numbers while couriers change."""

from __future__ import annotations

import pytest

from relay.errors import Refused
from relay.service.bindings import end, steps
from relay.service.hand_over import CHUNK, MOST_OF_ORDER, HandOver, HandOverResult, hand_over
from tests.service.conftest import RULES, Backend
from tests.support.stored import A, B, X

C, D = "8613700000003", "8613600000004"


def handed(backend: Backend, *order_ids: str, to_a: str | None = C, **asked: str) -> list[HandOverResult]:
    """The results of a whole hand-over."""
    wanted = HandOver(**{"business": "default", "to_a": to_a, "order_ids": order_ids} | asked)  # type: ignore[arg-type]
    results: list[HandOverResult] = []
    after: str | None = ""
    while after is not None:
        done, after = backend.run(lambda unit, after=after: hand_over(unit, wanted, after, RULES))
        results += done
    return results


def kinds(results: list[HandOverResult]) -> list[str]:
    return ["done" if result.refused is None else result.refused.kind for result in results]


def test_a_parcel_keeps_its_number_while_couriers_change(backend: Backend) -> None:
    made = backend.bind(x=X, order_id="SF1")
    for courier, former in ((C, A), (D, C)):
        assert handed(backend, "SF1", to_a=courier) == [HandOverResult("SF1", made.binding_id, None)]
        assert [backend.reaches(X, courier), backend.reaches(X, B)] == [B, courier]
        assert backend.reaches(X, former) == "no_binding"
    lived = [(step.action, step.changed) for step in steps(backend.reader, backend.sealer, backend.bindings()[0])]
    assert lived == [("made", []), ("changed", ["a"]), ("changed", ["a"])]


def test_between_two_couriers_nobody_reaches_b(backend: Backend) -> None:
    backend.bind(x=X, order_id="SF1")
    assert kinds(handed(backend, "SF1", to_a=None)) == ["done"]
    assert [backend.reaches(X, A), backend.reaches(X, B)] == ["no_binding", "no_callee"]
    assert kinds(handed(backend, "SF1")) == ["done"]
    assert backend.reaches(X, B) == C


def test_all_bindings_of_a_party_go_over_in_several_units_of_work(backend: Backend) -> None:
    made = [backend.bind("AXB", A, f"139{n:08d}", order_id=f"SF{n}") for n in range(CHUNK + 1)]
    other = backend.bind("AXB", D, B)
    results = handed(backend, from_a=A)
    assert set(results) == {HandOverResult(each.order_id, each.binding_id, None) for each in made}
    assert len(results) == len(made)
    assert backend.binding(other.binding_id).a == D
    assert handed(backend, from_a=A) == []


def test_many_bindings_of_orders_go_over_in_several_units_of_work(backend: Backend) -> None:
    each = 5
    orders = [f"SF{n}" for n in range(CHUNK // each + 1)]
    for n in range(each * len(orders)):
        backend.bind("AXB", A, f"139{n:08d}", order_id=orders[n // each])
    asked = HandOver("default", C, None, orders)
    first, after = backend.run(lambda unit: hand_over(unit, asked, "", RULES))
    rest, end_ = backend.run(lambda unit: hand_over(unit, asked, after or "", RULES))
    assert ([len(first), len(rest)], end_) == ([CHUNK, each], None)


def test_a_repeated_hand_over_finds_it_done(backend: Backend) -> None:
    made = backend.bind(order_id="SF1")
    for _ in range(2):
        assert kinds(handed(backend, "SF1", from_a=A)) == ["done"]
    assert backend.binding(made.binding_id).version == 2


def test_one_refusal_holds_up_no_other_and_leaves_nothing_behind(backend: Backend) -> None:
    backend.bind("AXB", C, "13600000009", x=X)
    there = backend.bind(x=X, order_id="SF1")
    backend.bind(order_id="SF2")
    over = backend.bind("AXB", D, B, order_id="SF4")
    backend.run(lambda unit: end(unit, over.binding_id, RULES))
    results = handed(backend, "SF1", "SF2", "SF3", "SF4", from_a=A)
    assert kinds(results) == ["conflict", "done", "not_found", "not_found"]
    assert backend.binding(there.binding_id) == there
    assert [backend.reaches(X, A), backend.reaches(X, B)] == [B, A]
    assert backend.one("SELECT count(*) FROM binding_change") == (1,)


def test_a_key_hands_over_bindings_of_its_own_business_user_only(backend: Backend) -> None:
    backend.business("acme")
    made = backend.bind(order_id="SF1")
    backend.key_of("acme")
    assert kinds(handed(backend, "SF1", business="acme")) == ["not_found"]
    assert backend.binding(made.binding_id).a == A


def test_an_order_with_many_bindings_is_refused(backend: Backend) -> None:
    for n in range(MOST_OF_ORDER + 1):
        backend.bind("AXB", f"138{n:08d}", B, order_id="all")
    assert kinds(handed(backend, "all")) == ["quota"]


def test_a_hand_over_of_everything_is_refused(backend: Backend) -> None:
    with pytest.raises(Refused, match="name orders, or from_a"):
        handed(backend)


def test_the_new_party_is_checked_as_at_binding(backend: Backend) -> None:
    backend.bind(order_id="SF1")
    assert kinds(handed(backend, "SF1", to_a=B)) == ["invalid"]
