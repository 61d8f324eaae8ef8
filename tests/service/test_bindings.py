"""The rules for bindings."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relay.call.binding import Binding
from relay.service.bindings import BindingRefused, BindingRequest, BindingService
from relay.store.bindings import Bindings
from relay.store.database import connect
from tests.support.stored import NOW_MS, PREFIX, A, B, X, Y

_ADD_BUSINESS = "INSERT INTO business (id, state, name, created_at, updated_at) VALUES ('acme', ?, '', 0, 0)"


def request(mode: str = "AXB", a: str = "13800000001", b: str = "13900000002", **more: Any) -> BindingRequest:
    return BindingRequest(mode, a, b, **more)


def test_a_binding_is_completed_and_kept(service: BindingService, store: Bindings) -> None:
    made = service.bind(request(expires_in="2h", order_id=" 17 ", x="7001-0000001 0001"), NOW_MS)
    expected = Binding(made.binding_id, "AXB", "default", "17", X, None, A, B, NOW_MS, NOW_MS + 7_200_000)
    assert made == expected == store.get(made.binding_id)


def test_numbers_are_chosen_where_none_are_given(service: BindingService, store: Bindings) -> None:
    axb, axyb = service.bind(request(), NOW_MS), service.bind(request("axyb"), NOW_MS)
    assert axb.y is None
    assert axyb.y is not None and axyb.x != axyb.y
    for number in (axb.x, axyb.x, axyb.y):
        assert number.startswith(PREFIX) and len(number) == 15


def test_a_chosen_number_is_one_where_neither_party_is_bound(store: Bindings) -> None:
    taken = BindingService(store, [PREFIX])
    requests = [request(b=f"139{n:08d}", x=f"{PREFIX}{n:04d}") for n in range(10_000) if n != 4_711]
    for start in range(0, len(requests), 1_000):
        assert all(isinstance(made, Binding) for made in taken.bind_all(requests[start : start + 1_000], NOW_MS))
    assert taken.bind(request(), NOW_MS).x == f"{PREFIX}4711"
    with pytest.raises(BindingRefused, match="x: no number is left"):
        taken.bind(request(b="13700000003"), NOW_MS)
    # A second prefix helps, and so does the end of what holds the numbers.
    assert BindingService(store, [PREFIX, "70010000002"]).bind(request(b="13700000003"), NOW_MS).x[:11] == "70010000002"


def test_two_requests_of_one_transaction_do_not_choose_the_same_number(store: Bindings) -> None:
    service = BindingService(store, [PREFIX])
    answers = service.bind_all([request(b=f"139{n:08d}") for n in range(400)], NOW_MS)
    assert all(isinstance(answer, Binding) for answer in answers)
    assert len({answer.x for answer in answers if isinstance(answer, Binding)}) == 400


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [
        (request("GXB"), "mode", "AXB or AXYB"),
        (request(a=""), "a", "missing"),
        (request(b="alice"), "b", "only digits"),
        (request(a=X), "a", "write the real number"),
        (request(b="+86 138 0000 0001"), "b", "same number as a"),
        (request(x="13800000009"), "x", "15 digits"),
        (request(x="700200000010001"), "x", f"not under an assigned prefix ([numbers] prefixes: {PREFIX})"),
        (request(y=Y), "y", "only AXYB"),
        (request("AXYB", y="700200000010001"), "y", "assigned prefix"),
        (request("AXYB", x=X, y=X), "y", "same number as x"),
        (request(expires_in="2"), "expires_in", "with its unit"),
        (request(expires_in="2026-13-01T00:00:00Z"), "expires_in", "not a time"),
        (request(expires_in="2025-12-31T23:59:59Z"), "expires_in", "over"),
        (request(business="acme"), "business", "no such business user"),
        (request(business="\udcff"), "business", "no such business user"),
        (request(order_id="x" * 129), "order_id", "at most 128"),
        (request(order_id="a\nb"), "order_id", "printable"),
        (request(order_id="\udcff"), "order_id", "printable"),
    ],
)
def test_a_refusal_names_the_field_and_the_fix(
    service: BindingService, store: Bindings, asked: BindingRequest, field: str, said: str
) -> None:
    with pytest.raises(BindingRefused) as refused:
        service.bind(asked, NOW_MS)
    assert refused.value.field == field
    assert said in refused.value.problem
    assert list(store.all()) == []


@pytest.mark.parametrize("state", ["applied", "suspended", "revoked"])
def test_a_business_user_not_in_good_standing_binds_nothing(
    service: BindingService, tmp_path: Path, state: str
) -> None:
    with closing(connect(tmp_path / "relay.db")) as connection:
        connection.execute(_ADD_BUSINESS, (state,))
    with pytest.raises(BindingRefused, match=f"business: the business user is {state}"):
        service.bind(request(business="acme"), NOW_MS)


def test_a_conflict_names_the_party_masked_and_the_number(service: BindingService) -> None:
    service.bind(request(x=X), NOW_MS)
    with pytest.raises(BindingRefused, match=rf"b: 139\*\*\*\*0002 is bound on {X} already: unbind it") as refused:
        service.bind(request(a="8001", x=X), NOW_MS)
    assert B not in str(refused.value) and B[2:] not in str(refused.value)


def test_an_expired_binding_gives_way(service: BindingService) -> None:
    service.bind(request(x=X, expires_in="2026-01-01T00:00:10Z"), NOW_MS)
    with pytest.raises(BindingRefused):
        service.bind(request(x=X), NOW_MS + 9_999)
    service.bind(request(x=X), NOW_MS + 10_000)


def test_unbinding_ends_a_binding_once(service: BindingService) -> None:
    made = service.bind(request(x=X), NOW_MS)
    assert service.unbind(made.binding_id, NOW_MS + 5) == made
    with pytest.raises(BindingRefused, match="unbound before"):
        service.unbind(made.binding_id, NOW_MS + 6)
    service.bind(request(x=X), NOW_MS + 7)


@pytest.mark.parametrize("binding_id", ["", "none", "\udcff"])
def test_unbinding_what_is_not_there_is_refused(service: BindingService, binding_id: str) -> None:
    with pytest.raises(BindingRefused, match="none with this id"):
        service.unbind(binding_id, NOW_MS)


def test_without_prefixes_nothing_can_be_bound_and_the_fix_is_named(store: Bindings) -> None:
    service = BindingService(store, [])
    with pytest.raises(BindingRefused, match=r"x: no prefix is assigned: set \[numbers\] prefixes"):
        service.bind(request(), NOW_MS)
    with pytest.raises(BindingRefused, match=r"prefixes: none is"):
        service.bind(request(x=X), NOW_MS)
