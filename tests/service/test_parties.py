"""Every way to bind refuses a number that may not be a party, with field and reason, and changes nothing."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from relay.errors import Refused
from relay.policy.call_policy import CallPolicy
from relay.policy.rules import Rules
from relay.service.groups import add_members, get_group, make_group, remove_members
from relay.service.imports import import_bindings, import_members
from relay.service.placement import BindRules
from tests.service.conftest import RULES, Backend
from tests.support.stored import X
from tests.support.written import bind, bind_all, change, written

A, B, C = "13800000001", "13900000002", "13700000003"
MOBILES = BindRules()
WRONG = ["110", "119", "95588", "4001234567", "+12012001234", "+882161234567", "138000000", "138000000011", "8001"]


def refusal(backend: Backend, do: Any) -> str:
    """The refused field, after checking the reason."""
    with pytest.raises(Refused) as refused:
        backend.run(do)
    assert refused.value.kind == "invalid"
    assert refused.value.problem.endswith(": a party is a mobile number (11 digits of an assigned range)")
    return refused.value.field


@pytest.mark.parametrize(("mode", "field"), [("AXB", "a"), ("AXB", "b"), ("AXYB", "b"), ("AXN", "a"), ("AXN", "b")])
def test_bind_refuses_a_disallowed_party(backend: Backend, mode: str, field: str) -> None:
    for number in WRONG:
        asked = written(mode, **{"a": A, "b": B} | {field: number})
        assert refusal(backend, lambda unit, asked=asked: bind(unit, asked, MOBILES)) == field
        (answer,) = backend.run(lambda unit, asked=asked: bind_all(unit, [asked], MOBILES))
        assert isinstance(answer, Refused) and answer.field == field
    assert backend.bindings() == []


@pytest.mark.parametrize("field", ["a", "b"])
def test_bind_for_a_group_refuses_a_disallowed_party(backend: Backend, field: str) -> None:
    group = backend.run(lambda unit: make_group(unit, "riders", MOBILES, "", [C]))
    for number in WRONG:
        asked = written("GXB", **{"b": B, "group_id": group.group_id} | {field: number})
        assert refusal(backend, lambda unit, asked=asked: bind(unit, asked, MOBILES)) == field


def test_import_refuses_a_disallowed_party(backend: Backend) -> None:
    lines = ["mode,a,b,x", f"AXB,{A},{B},{X}", *(f"AXB,{number},{B}," for number in WRONG), f"AXB,{C},110,"]
    outcomes = [one.refused and one.refused.field for one in import_bindings(lines, backend.run, MOBILES)]
    assert outcomes == [None, *["a"] * len(WRONG), "b"]
    assert len(backend.bindings()) == 1


@pytest.mark.parametrize("field", ["a", "b"])
def test_change_refuses_a_disallowed_party(backend: Backend, field: str) -> None:
    made = backend.bind(rules=MOBILES)
    for number in WRONG:
        asked = {field: number}
        assert refusal(backend, lambda unit, asked=asked: change(unit, made.binding_id, asked, MOBILES)) == field
    assert backend.binding(made.binding_id) == made


def test_a_group_refuses_a_disallowed_member(backend: Backend) -> None:
    group = backend.run(lambda unit: make_group(unit, "riders", MOBILES))
    for number in WRONG:
        members = [C, number]
        asked = partial(add_members, group_id=group.group_id, numbers=members, rules=MOBILES)
        assert refusal(backend, asked) == "members.1"
        asked = partial(make_group, name="others", rules=MOBILES, numbers=members)
        assert refusal(backend, asked) == "members.1"
        with pytest.raises(Refused):
            list(import_members(members, group.group_id, backend.run, MOBILES))
    assert backend.run(lambda unit: get_group(unit, group.group_id)).size == 0


def test_a_member_no_longer_allowed_can_be_removed(backend: Backend) -> None:
    group = backend.run(lambda unit: make_group(unit, "riders", RULES, "", ["8001"]))
    assert backend.run(lambda unit: remove_members(unit, group.group_id, ["8001"], MOBILES)) == 1


def test_calls_of_a_binding_with_a_party_no_longer_allowed_are_refused(backend: Backend) -> None:
    made = backend.bind("AXB", A, "8001", x=X)
    assert backend.reaches(X, f"86{A}") == "8001"
    gate = CallPolicy(backend._routes.fetch, Rules(), lambda last: None)
    for caller in (f"86{A}", "8001"):
        answer = gate.look_up(X, caller, backend.now_ms / 1000)
        assert answer[:3] == ("party_not_allowed", 403, 21)
        assert answer.binding_id == made.binding_id
