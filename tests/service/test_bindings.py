"""Making bindings."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from relay.errors import Refused
from relay.model.binding import Binding, BindingChange, number_of
from relay.model.call import Route
from relay.policy.rules import PilotDates
from relay.service import bindings, placement
from relay.service.bindings import end
from relay.service.fields import format_moment
from relay.service.groups import make_group
from relay.service.numbers import (
    change_pool,
    ensure_numbers,
    load_prefix,
    lock,
    make_pool,
    move,
    new_pool,
    new_prefix,
    unlock,
)
from relay.service.placement import BindRules, release_due
from relay.store.audit import AuditQuery, all_entries
from relay.store.bindings import find_numbered
from relay.store.groups import find_numbered_group
from relay.store.unit_of_work import Actor, UnitOfWork
from tests.service.conftest import COOL_MS, RULES, Backend
from tests.support.stored import NOW_MS, PREFIX, A, B, X, Y
from tests.support.written import bind, bind_all, change, written

C = "8613700000003"
PILOT = RULES


def refused(backend: Backend, *args: Any, **more: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        backend.bind(*args, **more)
    return refusal.value.kind, refusal.value.field


def test_bind_completes_and_stores_the_binding(backend: Backend) -> None:
    made = backend.bind(
        *("AXB", "13800000001", "13900000002"),
        expires_in="2h",
        order_id=" 17 ",
        x="7001-0000001 0001",
        direction="a_to_b",
        max_call_s=600,
        ring_timeout_s=30,
        consent="form 9",
        user_data="{}",
        white_only=True,
        hours="08:00-22:00",
        industrial_id=" 88.101.1/order-1 ",
    )
    assert made == Binding(
        made.binding_id, "AXB", "default", "17", X, None, A, B, NOW_MS, NOW_MS + 7_200_000, None, None, "default",
        "a_to_b", 600, 30, True, "08:00-22:00", "form 9", "{}", backend.actor.name, industrial_id="88.101.1/order-1",
    )  # fmt: skip
    assert backend.binding(made.binding_id) == made
    assert backend.one("SELECT bindings, exclusive FROM number WHERE number = ?", X) == (1, 0)
    assert backend.one("SELECT live FROM business_count WHERE business = 'default'") == (1,)


def test_a_binding_and_its_group_are_found_by_their_numbers(backend: Backend) -> None:
    group = backend.run(lambda unit: make_group(unit, "riders", RULES, numbers=[C]))
    made = backend.bind("GXB", a="", group_id=group.group_id)
    number, of_group = number_of(made.binding_id), number_of(group.group_id)
    connection, sealer = backend.connection, backend.sealer
    assert find_numbered(connection, sealer, number, "default") == made
    assert find_numbered(connection, sealer, number, "default", made.x) == made
    assert find_numbered(connection, sealer, number, "default", X.replace("0001", "0009")) is None
    assert find_numbered(connection, sealer, number, "other") is None
    assert find_numbered(connection, sealer, number + 1, "default") is None
    assert find_numbered_group(connection, sealer, of_group, "default") == group
    assert find_numbered_group(connection, sealer, of_group, "other") is None


def test_bind_chooses_numbers_if_none_are_given(backend: Backend) -> None:
    axb, axyb = backend.bind(), backend.bind("axyb")
    assert axb.y is None
    assert axyb.y is not None and len({axb.x, axyb.x, axyb.y}) == 3
    for number in (axb.x, axyb.x, axyb.y):
        assert number.startswith(PREFIX) and len(number) == 15


def test_bind_prefers_unused_numbers(backend: Backend) -> None:
    requests = [written("AXB", f"138{n:08d}", f"139{n:08d}") for n in range(300)]
    answers = backend.run(lambda unit: bind_all(unit, requests, RULES))
    assert len({answer.x for answer in answers if isinstance(answer, Binding)}) == 300


def few(backend: Backend, count: int, **pool: Any) -> list[str]:
    """Make the pool `few` with `count` numbers."""
    numbers = [f"{PREFIX}{n:04d}" for n in range(900, 900 + count)]
    backend.run(lambda unit: make_pool(unit, new_pool("few", **pool)))
    backend.run(lambda unit: move(unit, numbers, "few"))
    return numbers


def test_bound_numbers_are_shared_when_no_unused_one_is_left(backend: Backend) -> None:
    first, second = few(backend, 2)
    assert backend.bind(pool="few").x == first
    assert backend.bind(pool="few").x == second
    with pytest.raises(Refused, match="these parties: end bindings") as refusal:
        backend.bind(pool="few")
    assert (refusal.value.kind, refusal.value.field) == ("pool_empty", "x")
    assert refused(backend, "AXB", "13700000003", "13900000002", pool="few") == ("pool_empty", "x")
    assert backend.bind("AXB", "13700000003", "13700000004", pool="few").x in (first, second)


def test_a_number_carries_at_most_the_lower_of_pool_and_configured_maximum(backend: Backend) -> None:
    few(backend, 1, max_bindings=3)
    rules = RULES._replace(max_bindings=2)
    for n in range(2):
        backend.bind("AXB", f"1370000000{n}", f"1360000000{n}", pool="few", rules=rules)
    assert refused(backend, pool="few", rules=rules) == ("pool_empty", "x")
    assert refused(backend, x=f"{PREFIX}0900", rules=rules) == ("number_full", "x")
    backend.bind(pool="few")
    assert refused(backend, "AXB", "13500000001", "13500000002", pool="few") == ("pool_empty", "x")


@pytest.mark.parametrize(
    ("pool", "rules"), [({}, RULES._replace(max_bindings=5_000)), ({"max_bindings": 5_000}, RULES)]
)
def test_a_number_carries_200_bindings_by_default(backend: Backend, pool: dict[str, int], rules: BindRules) -> None:
    few(backend, 1, **pool)
    requests = [written("AXB", f"138{n:08d}", f"139{n:08d}", pool="few") for n in range(201)]
    answers = backend.run(lambda unit: bind_all(unit, requests, rules))
    assert [getattr(answer, "kind", "made") for answer in answers] == ["made"] * 200 + ["pool_empty"]


def test_an_axn_binding_shares_its_number_with_no_other(backend: Backend) -> None:
    few(backend, 1)
    made = backend.bind("AXN", b="", pool="few")
    assert made.b is None
    assert refused(backend, "AXB", "13700000003", "13700000004", pool="few") == ("pool_empty", "x")
    assert refused(backend, "AXB", "13700000003", "13700000004", x=made.x) == ("number_full", "x")
    backend.bind("AXB", x=X)
    assert refused(backend, "AXN", "13700000003", "", x=X) == ("number_full", "x")


@pytest.mark.parametrize(
    ("asked", "kind", "field", "problem"),
    [
        ({"mode": "AXX"}, "invalid", "mode", "one of: AXB, AXYB, GXB, GXYB, AXN"),
        ({"a": ""}, "invalid", "a", "required"),
        ({"b": ""}, "invalid", "b", "required"),
        ({"b": "alice"}, "invalid", "b", "only digits"),
        ({"a": X}, "invalid", "a", "write the real number"),
        ({"b": "+86 138 0000 0001"}, "invalid", "b", "must differ from a"),
        ({"x": "13800000009"}, "invalid", "x", "15 digits"),
        ({"x": "700200000010001"}, "number_unknown", "x", "must be under an assigned prefix"),
        ({"y": Y}, "invalid", "y", "not used in mode AXB"),
        ({"mode": "AXYB", "y": "700200000010001"}, "number_unknown", "y", "assigned prefix"),
        ({"mode": "AXYB", "x": X, "y": X}, "invalid", "y", "must differ from x"),
        ({"expires_in": "2"}, "invalid", "expires_in", "with its unit"),
        ({"expires_in": "2026-13-01T00:00:00Z"}, "invalid", "expires_in", "not a time"),
        ({"expires_in": "2025-12-31T23:59:59Z"}, "invalid", "expires_in", "must be in the future"),
        ({"business": "acme"}, "not_found", "business", "no such business user"),
        ({"business": "\udcff"}, "not_found", "business", "no such business user"),
        ({"order_id": "x" * 129}, "invalid", "order_id", "at most 128"),
        ({"order_id": "a\nb"}, "invalid", "order_id", "printable"),
        ({"industrial_id": "x" * 129}, "invalid", "industrial_id", "1 to 128"),
        ({"industrial_id": "88.101 1"}, "invalid", "industrial_id", "letters, digits or"),
        ({"industrial_id": "/88"}, "invalid", "industrial_id", "beginning with a letter or digit"),
        ({"order_id": "\udcff"}, "invalid", "order_id", "printable"),
        ({"consent": "x" * 129}, "invalid", "consent", "at most 128"),
        ({"user_data": "x" * 1025}, "invalid", "user_data", "at most 1024"),
        ({"direction": "up"}, "invalid", "direction", "a_to_b"),
        ({"max_call_s": 9}, "invalid", "max_call_s", "10 to 86400"),
        ({"ring_timeout_s": 181}, "invalid", "ring_timeout_s", "5 to 180"),
        ({"hours": "8-22"}, "invalid", "hours", "two times of the day"),
        ({"group_id": "g1"}, "invalid", "group_id", "not used in mode AXB"),
        ({"mode": "GXB", "a": ""}, "invalid", "group_id", "required"),
        ({"mode": "GXB", "a": "", "group_id": "g1"}, "not_found", "group_id", "no such group"),
        ({"pool": "none"}, "not_found", "pool", "no such pool"),
        ({"area": "bj"}, "not_found", "area", "no pool of this area"),
        ({"mode": "AXN", "a": "", "late": True}, "invalid", "late", "not used in mode AXN"),
    ],
)
def test_a_refusal_names_the_kind_the_field_and_the_fix(
    backend: Backend, asked: dict[str, Any], kind: str, field: str, problem: str
) -> None:
    with pytest.raises(Refused) as refusal:
        backend.bind(**asked)
    assert (refusal.value.kind, refusal.value.field) == (kind, field)
    assert problem in refusal.value.problem
    assert backend.bindings() == []
    assert backend.one("SELECT sum(bindings) FROM number") == (0,)


@pytest.mark.parametrize("state", ["applied", "suspended", "revoked"])
def test_bind_is_refused_unless_the_business_user_is_approved(backend: Backend, state: str) -> None:
    backend.business("acme")
    backend.run(lambda unit: unit.connection.execute("UPDATE business SET state = ? WHERE id = 'acme'", (state,)))
    assert refused(backend, business="acme", order_id="1") == ("business_not_approved", "business")


def test_bind_is_refused_outside_the_modes_and_quota_of_the_business_user(backend: Backend) -> None:
    backend.business("acme", modes=["AXB"], max_bindings=1)
    assert refused(backend, "AXYB", business="acme", order_id="1") == ("mode_not_allowed", "mode")
    made = backend.bind(business="acme", order_id="1")
    assert refused(backend, business="acme", order_id="1") == ("quota", "business")
    assert backend.one("SELECT sum(bindings) FROM number") == (1,)
    backend.run(lambda unit: end(unit, made.binding_id, RULES))
    backend.bind(business="acme", order_id="1")


def test_a_key_binds_for_its_own_business_user_only(backend: Backend) -> None:
    backend.business("acme")
    backend.business("other")
    backend.key_of("acme")
    assert backend.bind(order_id="1").business == "acme"
    assert refused(backend, business="other", order_id="1") == ("not_found", "business")


def test_the_pilot_phase_requires_an_order_except_for_default_on_the_command_line(backend: Backend) -> None:
    backend.business("acme")
    backend.bind()
    assert refused(backend, business="acme") == ("invalid", "order_id")
    backend.bind(business="acme", rules=RULES._replace(phase="transition"))
    backend.actor = Actor("key:k1", None, frozenset())
    assert refused(backend) == ("invalid", "order_id")


def test_a_business_user_with_pools_gets_numbers_from_them_only(backend: Backend) -> None:
    backend.business("acme")
    numbers = few(backend, 2, business="acme", area="bj")
    backend.key_of("acme")
    assert backend.bind(order_id="1").x == numbers[0]
    assert backend.bind(order_id="1", area="bj").x == numbers[1]
    assert refused(backend, order_id="1") == ("pool_empty", "x")
    assert refused(backend, order_id="1", area="sh", area_match="loose") == ("pool_empty", "x")
    assert refused(backend, order_id="1", pool="default") == ("not_found", "pool")
    assert refused(backend, order_id="1", x=X) == ("number_unknown", "x")
    backend.actor = Actor("cli:root", None, frozenset())
    assert backend.bind().x not in numbers
    assert refused(backend, x=numbers[0]) == ("number_unknown", "x")


@pytest.mark.parametrize("mode", ["AXB", "AXYB"])
def test_the_same_two_get_the_same_numbers_again(backend: Backend, mode: str) -> None:
    made = backend.bind(mode)
    backend.bind(mode, "13700000003", "13700000004")
    for later_ms in (0, COOL_MS, 30 * COOL_MS):
        backend.run(lambda unit, made=made: end(unit, made.binding_id, RULES))
        backend.now_ms += later_ms
        again = backend.bind(mode)
        assert (again.x, again.y) == (made.x, made.y)
        made = again


def test_the_same_two_get_another_number_while_theirs_is_taken(backend: Backend) -> None:
    made = backend.bind()
    second = backend.bind()
    assert second.x != made.x
    backend.run(lambda unit: end(unit, made.binding_id, RULES))
    backend.run(lambda unit: lock(unit, made.x, "test"))
    assert backend.bind().x not in (made.x, second.x)
    backend.run(lambda unit: unlock(unit, made.x))
    assert backend.bind().x == made.x


def test_the_same_two_of_another_business_user_get_another_number(backend: Backend) -> None:
    backend.business("acme")
    made = backend.bind()
    backend.run(lambda unit: end(unit, made.binding_id, RULES))
    assert backend.bind(business="acme", order_id="1").x != made.x


def test_a_loose_area_gives_numbers_of_other_pools_when_its_own_has_none(backend: Backend) -> None:
    here = few(backend, 1, area="bj")
    made = [backend.bind(area=area, area_match="loose") for area in ("bj", "bj", "sh")]
    assert [binding.pool for binding in made] == ["few", "default", "default"]
    assert made[0].x == here[0]


def test_a_locked_number_is_not_bound(backend: Backend) -> None:
    number = few(backend, 1)[0]
    backend.run(lambda unit: lock(unit, number, "broken"))
    assert refused(backend, pool="few") == ("pool_empty", "x")
    assert refused(backend, x=number) == ("number_locked", "x")


def test_a_conflict_names_the_party_masked_and_the_number(backend: Backend) -> None:
    backend.bind(x=X)
    with pytest.raises(Refused, match=rf"b: 139\*\*\*\*0002 is bound on {X} already: unbind it") as refusal:
        backend.bind("AXB", "8001", x=X)
    assert refusal.value.kind == "conflict"
    assert B not in str(refusal.value) and B[2:] not in str(refusal.value)
    assert backend.one("SELECT bindings FROM number WHERE number = ?", X) == (1,)
    assert len(backend.bindings()) == 1


def test_the_same_parties_rebind_their_number_at_once_after_expiry(backend: Backend) -> None:
    backend.bind(x=X, expires_in="2026-01-01T00:00:10Z")
    backend.now_ms = NOW_MS + 9_999
    assert refused(backend, x=X) == ("conflict", "a")
    backend.now_ms = NOW_MS + 10_000
    backend.bind(x=X)


def test_other_parties_get_a_number_only_after_its_cool_down(backend: Backend) -> None:
    number = few(backend, 1)[0]
    made = backend.bind(pool="few")
    backend.run(lambda unit: end(unit, made.binding_id, RULES))
    other = ("AXB", "13700000003", "13700000004")
    backend.now_ms = NOW_MS + COOL_MS - 1
    with pytest.raises(Refused, match="the next cools down until") as refusal:
        backend.bind(*other, pool="few")
    assert (refusal.value.kind, format_moment(NOW_MS + COOL_MS) in refusal.value.problem) == ("pool_empty", True)
    assert refused(backend, *other, x=number) == ("number_cooling", "x")
    assert refused(backend, "AXN", "13800000001", "", x=number) == ("number_cooling", "x")
    backend.now_ms = NOW_MS + COOL_MS
    assert backend.bind(*other, pool="few").x == number


def test_only_the_owner_of_a_pool_and_operators_see_when_its_next_number_is_free(backend: Backend) -> None:
    """In a common pool it is the end of another business user's binding."""
    few(backend, 1)
    for name in ("acme", "rival"):
        backend.business(name)
    theirs = backend.bind(pool="few", business="rival", order_id="1")
    backend.run(lambda unit: end(unit, theirs.binding_id, RULES))
    operator = backend.actor

    def told() -> bool:
        with pytest.raises(Refused) as refusal:
            backend.bind("AXN", "13700000003", "", pool="few", business="acme", order_id="1")
        assert (refusal.value.kind, refusal.value.field) == ("pool_empty", "x")
        return format_moment(NOW_MS + COOL_MS) in refusal.value.problem

    seen = [told()]
    backend.key_of("acme")
    seen.append(told())
    backend.run(lambda unit: change_pool(unit, "few", {"business": "acme"}), operator)
    assert [*seen, told()] == [True, False, True]


def test_a_party_does_not_get_a_shared_number_it_used_with_another_party(backend: Backend) -> None:
    number = few(backend, 1)[0]
    backend.bind("AXB", "13700000003", "13700000004", pool="few")
    made = backend.bind(pool="few")
    backend.run(lambda unit: end(unit, made.binding_id, RULES))
    assert refused(backend, "AXB", "13800000001", "13600000005", pool="few") == ("pool_empty", "x")
    assert refused(backend, "AXB", "13800000001", "13600000005", x=number) == ("number_cooling", "a")
    assert backend.bind("AXB", "13500000006", "13600000005", pool="few").x == number
    assert backend.bind(x=number).x == number  # the same two parties


def test_a_party_does_not_reach_another_default_by_its_number_in_cool_down(backend: Backend) -> None:
    """The a of an AXN, who redials X, and the b of a group, while no one has called since."""
    group = backend.run(lambda unit: make_group(unit, "riders", RULES, "", ["13600000001"])).group_id
    for default, wanted in [("b", {"mode": "AXN", "x": X}), ("a", {"mode": "GXB", "x": Y, "group_id": group})]:
        made = backend.bind(**wanted | {default: "13500000004"})
        backend.run(lambda unit, made=made: end(unit, made.binding_id, RULES))
        for other in ("13500000005", ""):
            assert refused(backend, **wanted | {default: other}) == ("number_cooling", "x")
        backend.bind(**wanted | {default: "13500000004"})


def test_the_cool_down_of_a_prefix_overrides_the_configured_one(backend: Backend) -> None:
    backend.run(lambda unit: load_prefix(unit, new_prefix("70010000002", cool_down_ms=1_000)))
    made = backend.bind(x="700100000020000")
    backend.run(lambda unit: end(unit, made.binding_id, RULES))
    assert refused(backend, "AXB", "8001", "8002", x="700100000020000") == ("number_cooling", "x")
    backend.now_ms += 1_000
    backend.bind("AXB", "8001", "8002", x="700100000020000")


def test_a_group_binding_has_a_route_for_each_member_and_b(backend: Backend) -> None:
    group = backend.run(lambda unit: make_group(unit, "depot", RULES, numbers=["13700000003", "13700000004"]))
    gxb = backend.bind("GXB", "", group_id=group.group_id)
    gxyb = backend.bind("GXYB", "13600000005", "13900000006", group_id=group.group_id)
    routes = "SELECT party FROM route WHERE binding_id = ? ORDER BY number, party"
    assert backend.connection.execute(routes, (gxb.binding_id,)).fetchall() == [("b",), ("g",), ("g",)]
    assert backend.connection.execute(routes, (gxyb.binding_id,)).fetchall() == [("g",), ("g",), ("b",)]
    assert (gxb.a, gxyb.a) == (None, "8613600000005")
    with pytest.raises(Refused, match="b: must not be a member of the group"):
        backend.bind("GXB", "", "13700000003", group_id=group.group_id)


def test_a_group_does_not_get_a_number_that_a_member_is_bound_on(backend: Backend) -> None:
    few(backend, 2)
    busy = backend.bind("AXB", "13700000003", pool="few").x
    backend.bind("AXB", "8001", "8002", pool="few")
    group = backend.run(lambda unit: make_group(unit, "depot", RULES, numbers=["13700000003"]))
    assert backend.bind("GXB", "", "8009", group_id=group.group_id, pool="few").x != busy
    assert refused(backend, "GXB", "", "8010", group_id=group.group_id, x=busy) == ("conflict", "group_id")


def test_a_legacy_number_is_bound_on_request_only_and_until_the_deadline(backend: Backend) -> None:
    backend.run(lambda unit: ensure_numbers(unit, (), ["8617012345678"]))
    transition = RULES._replace(phase="transition", legacy_until_ms=NOW_MS + 10)
    made = backend.bind(x="170-1234-5678", rules=transition)
    assert made.x == "8617012345678"
    assert refused(backend, "AXB", "8001", "8002", x="17012345678", rules=PILOT) == ("invalid", "x")
    with pytest.raises(Refused, match="x: must not be one of the parties"):
        backend.bind("AXB", "8001", "17012345678", x="17012345678", rules=transition)
    backend.now_ms += 10
    assert refused(backend, "AXB", "8001", "8002", x="17012345678", rules=transition) == ("invalid", "x")


def test_by_the_dates_a_legacy_number_is_bound_until_the_pilot_begins(backend: Backend) -> None:
    backend.run(lambda unit: ensure_numbers(unit, (), ["8617012345678"]))
    by_date = RULES._replace(phase="auto", dates=PilotDates(pilot_ms=NOW_MS + 10))
    assert backend.bind(x="17012345678", rules=by_date).x == "8617012345678"
    backend.now_ms += 10
    assert refused(backend, "AXB", "8001", "8002", x="17012345678", rules=by_date) == ("invalid", "x")


def test_after_the_pilot_nothing_new_is_bound_and_nothing_lasts_longer(backend: Backend) -> None:
    made = backend.bind(x=X, expires_in="1h")
    over = RULES._replace(dates=PilotDates(ends_ms=NOW_MS))
    with pytest.raises(Refused, match=r"the pilot ended at .*pilot.ends") as refusal:
        backend.bind("AXB", "8001", "8002", rules=over)
    assert refusal.value.kind == "phase_over"
    later: list[BindingChange] = [{"expires_at": NOW_MS + 7_200_000}, {"expires_at": None}, {"b": "8613900000009"}]
    for wanted in later:
        with pytest.raises(Refused) as refusal:
            backend.run(partial(bindings.change, binding_id=made.binding_id, asked=wanted, rules=over))
        assert refusal.value.kind == "phase_over"
    backend.run(lambda unit: bindings.change(unit, made.binding_id, {"expires_at": NOW_MS + 500}, over))
    backend.run(lambda unit: change(unit, made.binding_id, {"user_data": "u"}, over))
    moved = over._replace(dates=PilotDates(ends_ms=NOW_MS + 1))
    backend.bind("AXB", "8001", "8002", rules=moved)


def test_bind_all_makes_each_binding_independently(backend: Backend) -> None:
    requests = [written("AXB", "8001", "8002", x=X), written("AXB", "8001", "8003", x=X)]
    requests += [written("AXX"), written("AXB", "8004", "8005", x=X)]
    answers = backend.run(lambda unit: bind_all(unit, requests, RULES))
    assert [getattr(answer, "kind", "made") for answer in answers] == ["made", "conflict", "invalid", "made"]
    assert backend.one("SELECT bindings FROM number WHERE number = ?", X) == (2,)
    assert len(backend.bindings()) == 2


def test_the_audit_log_has_industrial_ids_sealed(backend: Backend) -> None:
    """It is kept for two years; bindings and call records, for which they are too, only for six months."""
    named = backend.bind(x=X, industrial_id="88.101.1/1")
    backend.run(lambda unit: change(unit, named.binding_id, {"user_data": "u2"}, RULES))
    backend.run(lambda unit: change(unit, named.binding_id, {"industrial_id": "88.101.1/2"}, RULES))
    backend.run(lambda unit: change(unit, named.binding_id, {"industrial_id": ""}, RULES))
    requests = [written("AXB", "8001", "8002", x=X), written("AXB", "8003", "8004", x=X, industrial_id="88.101.1/3")]
    _, last = backend.run(lambda unit: bind_all(unit, requests, RULES))
    entries = [logged.entry for logged in all_entries(backend.reader, backend.sealer, AuditQuery())][-5:]
    assert [entry.details.get("industrial_id", "none") for entry in entries] == [
        *("88.101.1/1", "none", "88.101.1/2", None, "none"),
    ]
    assert entries[-1].details["industrial_ids"] == [f"{last.binding_id} 88.101.1/3"]
    assert "88.101.1" not in str(backend.connection.execute("SELECT * FROM audit").fetchall())


def test_a_request_releases_expired_bindings_twice_at_most(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each release writes events for all webhooks while others wait. The timer releases those that are left."""
    released: list[int] = []

    def release_one(unit: UnitOfWork, rules: BindRules) -> int:
        released.append(release_due(unit, rules))
        return released[-1]

    monkeypatch.setattr(bindings, "release_due", release_one)
    monkeypatch.setattr(placement, "SWEEP", 1)
    for n in range(5):
        backend.bind("AXB", "8001", f"801{n}", x=f"{X[:-1]}{n}", expires_in=f"{60 + n}s")
    backend.now_ms += 100_000
    last = written("AXB", "8001", "8002", x=f"{X[:-1]}4")
    for request in (lambda unit: bind(unit, last, RULES), lambda unit: bind_all(unit, [last] * 3, RULES)):
        released.clear()
        with suppress(Refused):
            assert [answer.kind for answer in backend.run(request)] == ["conflict"] * 3
        assert released == [1, 1]


def test_a_refused_unit_of_work_changes_nothing(backend: Backend) -> None:
    def two(unit: Any) -> None:
        bind(unit, written("AXB", "8001", "8002", x=X), RULES)
        bind(unit, written("AXB", "8001", "8003", x=X), RULES)

    with pytest.raises(Refused):
        backend.run(two)
    assert backend.bindings() == []
    assert backend.one("SELECT count(*) FROM route") == (0,)


def test_a_call_is_recorded_if_its_binding_asks_for_it(backend: Backend) -> None:
    made = backend.bind(record=True, rules=RULES._replace(recording=True), x=X)
    assert backend.binding(made.binding_id) == made
    route = backend.call(X, A)
    assert isinstance(route, Route) and route.record
    other = backend.call(backend.bind(a="8001", b="8002", x=Y).x, "8001")
    assert isinstance(other, Route) and not other.record


def test_record_is_refused_if_recording_is_not_configured(backend: Backend) -> None:
    assert refused(backend, record=True) == ("invalid", "record")
