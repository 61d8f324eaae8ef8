"""Groups: adding and removing members, and the effect on calls to the group's numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from relay.errors import Refused
from relay.model.binding import Binding
from relay.service import groups, placement
from relay.service.bindings import end
from relay.service.groups import (
    MOST_MEMBERS,
    Whose,
    add_members,
    get_group,
    make_group,
    remove_entry,
    remove_group,
    remove_members,
    set_entry,
)
from relay.store.bindings import unreleased_of_group
from relay.store.groups import Group
from relay.store.unit_of_work import UnitOfWork
from tests.service.conftest import COOL_MS, RULES, Backend
from tests.support.stored import A, B, X, Y
from tests.support.written import change

C, D = "8613700000003", "8613600000004"


def made(backend: Backend, numbers: Sequence[str] = ("13700000003",), business: str = "") -> Group:
    return backend.run(lambda unit: make_group(unit, "riders", RULES, business, numbers))


def added(backend: Backend, group: Group, *numbers: str) -> int:
    return backend.run(lambda unit: add_members(unit, group.group_id, numbers, RULES))


def removed(backend: Backend, group: Group, *numbers: str) -> int:
    return backend.run(lambda unit: remove_members(unit, group.group_id, numbers, RULES))


def refused(backend: Backend, group: Group, *numbers: str) -> tuple[str, str]:
    """The kind and field of the refusal, after which the members are unchanged."""
    before = backend.one("SELECT count(*) FROM group_member")
    with pytest.raises(Refused) as refusal:
        added(backend, group, *numbers)
    assert backend.one("SELECT count(*) FROM group_member") == before
    return refusal.value.kind, refusal.value.field


def test_a_change_of_members_applies_to_each_binding_of_the_group(backend: Backend) -> None:
    group = made(backend)
    backend.bind("GXB", "", group_id=group.group_id, x=X)
    backend.bind("GXYB", "", "13500000005", group_id=group.group_id, x=Y, y=f"{X[:11]}0003")
    assert added(backend, group, "13600000004", "+86 137 0000 0003") == 1
    assert [backend.reaches(number, D) for number in (X, Y)] == [B, "8613500000005"]
    assert removed(backend, group, "13600000004", "13800000001") == 1
    assert [backend.reaches(number, D) for number in (X, Y)] == ["no_binding", "no_binding"]
    assert [backend.reaches(number, C) for number in (X, Y)] == [B, "8613500000005"]
    assert backend.run(lambda unit: get_group(unit, group.group_id)).size == 1


def test_a_removed_member_cools_down_and_may_be_added_again(backend: Backend) -> None:
    group = made(backend, ("13700000003", "13600000004"))
    backend.bind("GXB", "", group_id=group.group_id, x=X)
    removed(backend, group, "13600000004")
    with pytest.raises(Refused) as refusal:
        backend.bind("AXB", "13600000004", "8009", x=X)
    assert refusal.value.kind == "number_cooling"
    assert added(backend, group, "13600000004") == 1
    removed(backend, group, "13600000004")
    backend.now_ms += COOL_MS
    backend.bind("AXB", "13600000004", "8009", x=X)


def test_a_party_bound_on_a_number_of_the_group_cannot_be_added(backend: Backend) -> None:
    group = made(backend)
    backend.bind("GXB", "", group_id=group.group_id, x=X)
    backend.bind("AXB", "8001", "8002", x=X)
    assert refused(backend, group, "13600000004", "8001") == ("conflict", "group_id")
    assert refused(backend, group, "13900000002") == ("conflict", "members")
    assert backend.reaches(X, D) == "no_binding"


def test_an_invalid_number_is_named_by_its_index(backend: Backend) -> None:
    group = made(backend)
    assert refused(backend, group, "13600000004", "alice") == ("invalid", "members.1")
    assert refused(backend, group, X) == ("invalid", "members.0")


def test_a_group_has_at_most_1000_members(backend: Backend) -> None:
    group = made(backend, [f"137{n:08d}" for n in range(MOST_MEMBERS)])
    assert group.size == MOST_MEMBERS == 1_000
    backend.bind("GXB", "", group_id=group.group_id, x=X)
    assert {backend.reaches(X, f"86137{n:08d}") for n in (0, 500, 999)} == {B}
    assert refused(backend, group, "13600000004") == ("quota", "members")
    assert removed(backend, group, "13700000000") == 1
    assert backend.reaches(X, "8613700000000") == "no_binding"
    assert added(backend, group, "13600000004") == 1
    assert backend.reaches(X, D) == B


def test_a_group_can_be_removed_once_it_has_no_live_binding(backend: Backend) -> None:
    group = made(backend)
    binding = backend.bind("GXB", "", group_id=group.group_id, x=X)
    with pytest.raises(Refused) as refusal:
        backend.run(lambda unit: remove_group(unit, group.group_id, RULES))
    assert refusal.value.kind == "state_conflict"
    backend.run(lambda unit: end(unit, binding.binding_id, RULES))
    assert backend.run(lambda unit: remove_group(unit, group.group_id, RULES)).group_id == group.group_id
    assert backend.one("SELECT count(*) FROM group_member") == (0,)
    assert backend.one("SELECT count(*) FROM past_member") == (1,)


def test_what_changes_no_route_opens_no_binding_of_the_group(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group may have 1,000 bindings, and all other units of work wait."""
    group = made(backend)
    backend.bind("GXB", "", group_id=group.group_id, x=X)
    opened: list[str] = []

    def noted(unit: UnitOfWork, group_id: str) -> list[Binding]:
        opened.append(group_id)
        return unreleased_of_group(unit, group_id)

    monkeypatch.setattr(groups, "unreleased_of_group", noted)
    assert added(backend, group, "13700000003") == 0
    with pytest.raises(Refused) as refusal:
        backend.run(lambda unit: remove_group(unit, group.group_id, RULES))
    assert (refusal.value.kind, opened) == ("state_conflict", [])


def test_a_group_whose_bindings_have_expired_can_be_removed_before_their_release(backend: Backend) -> None:
    group = made(backend)
    backend.bind("GXB", "", group_id=group.group_id, x=X, expires_in="60s")
    backend.now_ms += 60_000
    assert backend.run(lambda unit: remove_group(unit, group.group_id, RULES)).group_id == group.group_id


def test_a_key_sees_the_groups_of_its_own_business_user_only(backend: Backend) -> None:
    backend.business("acme")
    theirs = made(backend)
    backend.key_of("acme")
    assert made(backend).business == "acme"
    assert refused(backend, theirs, "13600000004") == ("not_found", "group")
    with pytest.raises(Refused) as refusal:
        made(backend, business="default")
    assert (refusal.value.kind, refusal.value.field) == ("not_found", "business")


def test_a_group_requires_a_name(backend: Backend) -> None:
    with pytest.raises(Refused) as refusal:
        backend.run(lambda unit: make_group(unit, " ", RULES))
    assert refusal.value.field == "name"


def test_changes_of_groups_are_audited_without_numbers(backend: Backend) -> None:
    group = made(backend)
    removed(backend, group, "13700000003")
    backend.run(lambda unit: remove_group(unit, group.group_id, RULES))
    rows = backend.connection.execute("SELECT action FROM audit WHERE object = ? ORDER BY seq", (group.group_id,))
    assert [action for (action,) in rows] == ["group.make", "group.add", "group.remove", "group.delete"]
    assert A not in str(backend.connection.execute("SELECT * FROM audit").fetchall())


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit a unit of work to four routes."""
    for module in (groups, placement):
        monkeypatch.setattr(module, "MOST_ROUTES", 4)


@pytest.mark.usefixtures("few")
def test_a_change_of_members_is_refused_over_the_limit_of_routes(backend: Backend) -> None:
    """A long transaction delays call records. Two members in each of three bindings are six routes."""
    group = made(backend)
    for number in range(3):
        backend.bind("GXB", "", f"800{number}", group_id=group.group_id)
    assert refused(backend, group, "8011", "8012") == ("quota", "members")
    assert [added(backend, group, "8011"), added(backend, group, "8012")] == [1, 1]
    with pytest.raises(Refused) as refusal:
        removed(backend, group, "8011", "8012")
    assert (refusal.value.kind, refusal.value.field) == ("quota", "members")
    assert [removed(backend, group, "8011"), removed(backend, group, "8012")] == [1, 1]


@pytest.mark.usefixtures("few")
def test_the_bindings_of_a_group_are_limited(backend: Backend) -> None:
    full, other = made(backend), made(backend)
    *_, last = [backend.bind("GXB", "", f"800{number}", group_id=full.group_id) for number in range(4)]
    with pytest.raises(Refused) as refusal:
        backend.bind("GXB", "", "8005", group_id=full.group_id)
    assert (refusal.value.kind, refusal.value.field) == ("quota", "group_id")
    elsewhere = backend.bind("GXB", "", "8005", group_id=other.group_id)
    into = {"group_id": full.group_id}
    with pytest.raises(Refused) as refusal:
        backend.run(lambda unit: change(unit, elsewhere.binding_id, into, RULES))
    assert (refusal.value.kind, refusal.value.field) == ("quota", "group_id")
    backend.run(lambda unit: end(unit, last.binding_id, RULES))
    backend.run(lambda unit: change(unit, elsewhere.binding_id, into, RULES))


@pytest.mark.usefixtures("few")
def test_a_group_of_more_members_than_one_unit_of_work_writes_is_not_bound(backend: Backend) -> None:
    small, large = made(backend, ("8011", "8012")), made(backend, [f"802{n}" for n in range(5)])
    with pytest.raises(Refused, match="limited to 4 members of its group") as refusal:
        backend.bind("GXB", "", "8001", group_id=large.group_id)
    assert (refusal.value.kind, refusal.value.field) == ("quota", "group_id")
    binding = backend.bind("GXB", "", "8001", group_id=small.group_id)
    other = made(backend, ("8031", "8032", "8033"))
    with pytest.raises(Refused, match="limited to 4 members of both groups") as refusal:
        backend.run(lambda unit: change(unit, binding.binding_id, {"group_id": other.group_id}, RULES))
    assert (refusal.value.kind, refusal.value.field) == ("quota", "group_id")
    assert removed(backend, other, "8033") == 1
    backend.run(lambda unit: change(unit, binding.binding_id, {"group_id": other.group_id}, RULES))


@pytest.mark.usefixtures("few")
def test_a_sweep_stops_at_the_limit_of_routes(backend: Backend) -> None:
    group = made(backend, ("8011", "8012"))
    for number in range(4):
        backend.bind("GXB", "", f"800{number}", group_id=group.group_id, expires_in="60s")
    backend.now_ms += 60_000
    assert [backend.run(lambda unit: placement.release_due(unit, RULES)) for _ in range(3)] == [2, 2, 0]


# -- Black- and whitelists: ownership, and the effect on the next call

CALLER = "8613700000003"


def put(backend: Backend, whose: Whose, owner: str, kind: str, number: str = "13700000003") -> None:
    backend.run(lambda unit: set_entry(unit, whose, owner, number, kind))


def denied(backend: Backend, do: Callable[[Any], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        backend.run(do)
    return refusal.value.kind, refusal.value.field


def test_a_whitelist_of_a_binding_overrides_the_blacklist_of_its_business_user(backend: Backend) -> None:
    made = backend.bind("AXN", b="", x=X)
    assert backend.reaches(X, CALLER) == A
    put(backend, "business", "default", "black")
    assert backend.reaches(X, CALLER) == "caller_blacklisted"
    put(backend, "binding", made.binding_id, "white")
    assert backend.reaches(X, CALLER) == A
    backend.run(lambda unit: remove_entry(unit, "binding", made.binding_id, "+86 137 0000 0003"))
    assert backend.reaches(X, CALLER) == "caller_blacklisted"
    backend.run(lambda unit: remove_entry(unit, "business", "default", "13700000003"))
    assert backend.reaches(X, CALLER) == A


def test_white_only_admits_callers_on_the_whitelist_only(backend: Backend) -> None:
    made = backend.bind("AXN", b="", x=X)
    backend.run(lambda unit: change(unit, made.binding_id, {"white_only": True}, RULES))
    assert backend.reaches(X, CALLER) == "caller_not_listed"
    put(backend, "business", "default", "white")
    assert backend.reaches(X, CALLER) == A
    put(backend, "binding", made.binding_id, "black")
    assert backend.reaches(X, CALLER) == "caller_blacklisted"
    put(backend, "binding", made.binding_id, "white")
    assert backend.reaches(X, CALLER) == A


def test_a_list_applies_to_its_binding_only(backend: Backend) -> None:
    first = backend.bind(x=X)
    second = backend.bind("AXB", "13800000001", "13600000004")
    put(backend, "binding", first.binding_id, "black", "13800000001")
    assert backend.reaches(X, A) == "caller_blacklisted"
    assert backend.reaches(X, B) == A
    assert backend.reaches(second.x, A) == "8613600000004"


def test_an_invalid_entry_is_refused(backend: Backend) -> None:
    def asked(whose: Whose, owner: str, number: str = "13700000003") -> tuple[str, str]:
        return denied(backend, lambda unit: set_entry(unit, whose, owner, number, "black"))

    assert asked("business", "default", number="alice") == ("invalid", "number")
    assert asked("business", "default", number=X) == ("invalid", "number")
    assert asked("business", "nobody") == ("not_found", "business")
    assert asked("binding", "none") == ("not_found", "binding")
    assert denied(backend, lambda unit: remove_entry(unit, "business", "default", CALLER)) == (
        "not_found",
        "number",
    )


def test_a_key_changes_lists_of_its_own_business_user_only(backend: Backend) -> None:
    backend.business("acme")
    theirs = backend.bind(x=X)
    backend.key_of("acme")
    put(backend, "business", "acme", "black")
    assert denied(backend, lambda unit: set_entry(unit, "business", "default", CALLER, "black"))[0] == "not_found"
    assert (
        denied(backend, lambda unit: set_entry(unit, "binding", theirs.binding_id, CALLER, "black"))[0] == "not_found"
    )
    assert denied(backend, lambda unit: remove_entry(unit, "business", "default", CALLER))[0] == "not_found"
