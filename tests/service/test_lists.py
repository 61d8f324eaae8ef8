"""Black- and whitelists: ownership, and the effect on the next call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import Refused
from relay.service.changes import BindingChange, change
from relay.service.groups import Whose, remove_entry, set_entry
from tests.service.conftest import RULES, Backend
from tests.support.stored import A, B, X

CALLER = "8613700000003"


def put(backend: Backend, whose: Whose, owner: str, kind: str, number: str = "13700000003") -> None:
    backend.run(lambda act: set_entry(act, whose, owner, number, kind))


def refused(backend: Backend, do: Callable[[Any], object]) -> tuple[str, str]:
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
    backend.run(lambda act: remove_entry(act, "binding", made.binding_id, "+86 137 0000 0003"))
    assert backend.reaches(X, CALLER) == "caller_blacklisted"
    backend.run(lambda act: remove_entry(act, "business", "default", "13700000003"))
    assert backend.reaches(X, CALLER) == A


def test_white_only_admits_callers_on_the_whitelist_only(backend: Backend) -> None:
    made = backend.bind("AXN", b="", x=X)
    backend.run(lambda act: change(act, made.binding_id, BindingChange(white_only=True), RULES))
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
    def asked(whose: Whose, owner: str, number: str = "13700000003", kind: str = "black") -> tuple[str, str]:
        return refused(backend, lambda act: set_entry(act, whose, owner, number, kind))

    assert asked("business", "default", kind="grey") == ("invalid", "kind")
    assert asked("business", "default", number="alice") == ("invalid", "number")
    assert asked("business", "default", number=X) == ("invalid", "number")
    assert asked("business", "nobody") == ("not_found", "business")
    assert asked("binding", "none") == ("not_found", "binding")
    assert refused(backend, lambda act: remove_entry(act, "business", "default", CALLER)) == ("not_found", "number")


def test_a_key_changes_lists_of_its_own_business_user_only(backend: Backend) -> None:
    backend.business("acme")
    theirs = backend.bind(x=X)
    backend.key_of("acme")
    put(backend, "business", "acme", "black")
    assert refused(backend, lambda act: set_entry(act, "business", "default", CALLER, "black"))[0] == "not_found"
    assert refused(backend, lambda act: set_entry(act, "binding", theirs.binding_id, CALLER, "black"))[0] == "not_found"
    assert refused(backend, lambda act: remove_entry(act, "business", "default", CALLER))[0] == "not_found"
