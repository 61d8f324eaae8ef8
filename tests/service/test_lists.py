"""Black- and whitelists: ownership, and the effect on the next call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import Refused
from relay.service.changes import BindingChange, change
from relay.service.lists import Whose, remove_entry, set_entry
from tests.service.conftest import RULES, Desk
from tests.support.stored import A, B, X

CALLER = "8613700000003"


def put(desk: Desk, whose: Whose, owner: str, kind: str, number: str = "13700000003") -> None:
    desk.run(lambda act: set_entry(act, whose, owner, number, kind))


def refused(desk: Desk, do: Callable[[Any], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        desk.run(do)
    return refusal.value.kind, refusal.value.field


def test_a_whitelist_of_a_binding_overrides_the_blacklist_of_its_business_user(desk: Desk) -> None:
    made = desk.bind("AXN", b="", x=X)
    assert desk.reaches(X, CALLER) == A
    put(desk, "business", "default", "black")
    assert desk.reaches(X, CALLER) == "caller_blacklisted"
    put(desk, "binding", made.binding_id, "white")
    assert desk.reaches(X, CALLER) == A
    desk.run(lambda act: remove_entry(act, "binding", made.binding_id, "+86 137 0000 0003"))
    assert desk.reaches(X, CALLER) == "caller_blacklisted"
    desk.run(lambda act: remove_entry(act, "business", "default", "13700000003"))
    assert desk.reaches(X, CALLER) == A


def test_white_only_admits_callers_on_the_whitelist_only(desk: Desk) -> None:
    made = desk.bind("AXN", b="", x=X)
    desk.run(lambda act: change(act, made.binding_id, BindingChange(white_only=True), RULES))
    assert desk.reaches(X, CALLER) == "caller_not_listed"
    put(desk, "business", "default", "white")
    assert desk.reaches(X, CALLER) == A
    put(desk, "binding", made.binding_id, "black")
    assert desk.reaches(X, CALLER) == "caller_blacklisted"
    put(desk, "binding", made.binding_id, "white")
    assert desk.reaches(X, CALLER) == A


def test_a_list_applies_to_its_binding_only(desk: Desk) -> None:
    first = desk.bind(x=X)
    second = desk.bind("AXB", "13800000001", "13600000004")
    put(desk, "binding", first.binding_id, "black", "13800000001")
    assert desk.reaches(X, A) == "caller_blacklisted"
    assert desk.reaches(X, B) == A
    assert desk.reaches(second.x, A) == "8613600000004"


def test_an_invalid_entry_is_refused(desk: Desk) -> None:
    def asked(whose: Whose, owner: str, number: str = "13700000003", kind: str = "black") -> tuple[str, str]:
        return refused(desk, lambda act: set_entry(act, whose, owner, number, kind))

    assert asked("business", "default", kind="grey") == ("invalid", "kind")
    assert asked("business", "default", number="alice") == ("invalid", "number")
    assert asked("business", "default", number=X) == ("invalid", "number")
    assert asked("business", "nobody") == ("not_found", "business")
    assert asked("binding", "none") == ("not_found", "binding")
    assert refused(desk, lambda act: remove_entry(act, "business", "default", CALLER)) == ("not_found", "number")


def test_a_key_changes_lists_of_its_own_business_user_only(desk: Desk) -> None:
    desk.business("acme")
    theirs = desk.bind(x=X)
    desk.key_of("acme")
    put(desk, "business", "acme", "black")
    assert refused(desk, lambda act: set_entry(act, "business", "default", CALLER, "black"))[0] == "not_found"
    assert refused(desk, lambda act: set_entry(act, "binding", theirs.binding_id, CALLER, "black"))[0] == "not_found"
    assert refused(desk, lambda act: remove_entry(act, "business", "default", CALLER))[0] == "not_found"
