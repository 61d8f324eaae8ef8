"""Filings of A numbers with the carriers, and what happens to bindings and calls of unfiled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import Refused
from relay.policy.rules import LastCaller, Rules
from relay.service.filings import add_filing, filing_warning, import_filings, remove_filing
from relay.service.groups import add_members, make_group
from relay.service.placement import BindRules
from relay.store.filings import FIRST, Filing, find_filing, find_filings, is_filed
from relay.store.journal.rows import PUT_CALLERS, caller_row
from relay.store.record_rows import insert
from tests.service.conftest import RULES, Backend
from tests.support.stored import NOW_MS, A, B, X
from tests.support.written import change

C = "8613700000003"
REQUIRED, WARNED = BindRules(filing="require"), BindRules(filing="warn")


def file(backend: Backend, number: str = A, business: str = "default", reference: str = "CT-2026-17") -> Filing:
    return backend.run(lambda act: add_filing(act, business, number, reference))


def refused(backend: Backend, do: Callable[[Any], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        backend.run(do)
    return refusal.value.kind, refusal.value.field


def filed(backend: Backend, **more: Any) -> list[tuple[str, str]]:
    found = find_filings(backend.connection, backend.sealer, None, FIRST, 100, **more)
    return sorted((filing.business, filing.number) for filing in found)


def test_a_number_is_filed_with_its_reference_and_withdrawn(backend: Backend) -> None:
    made = file(backend, "+86 138 0000 0001", reference=" CT-17 ")
    assert (made.number, made.reference, made.filed_at, made.filed_by) == (A, "CT-17", NOW_MS, backend.actor.name)
    assert find_filing(backend.connection, backend.sealer, "default", A) == made
    assert filed(backend) == [("default", A)]
    backend.now_ms += 5
    gone = backend.run(lambda act: remove_filing(act, "default", "138-0000-0001"))
    assert (gone.withdrawn_at, gone.withdrawn_by) == (NOW_MS + 5, backend.actor.name)
    assert (filed(backend), filed(backend, all_=True)) == ([], [("default", A)])
    assert not is_filed(backend.connection, backend.sealer, "default", A)
    assert refused(backend, lambda act: remove_filing(act, "default", A)) == ("not_found", "number")
    again = file(backend, reference="CT-18")
    assert (again.reference, again.withdrawn_at, again.filed_at) == ("CT-18", None, NOW_MS + 5)


@pytest.mark.parametrize(
    ("number", "reference", "field"),
    [
        ("1", "r", "number"),
        ("", "r", "number"),
        ("1380000", "r", "number"),
        ("8001", "r", "number"),
        ("+1 202 555 0143", "r", "number"),
        (A, " ", "reference"),
        (A, "r" * 129, "reference"),
        (A, "\n", "reference"),
    ],
)
def test_an_invalid_field_is_named(backend: Backend, number: str, reference: str, field: str) -> None:
    assert refused(backend, lambda act: add_filing(act, "default", number, reference)) == ("invalid", field)


def test_a_filing_applies_to_its_business_user_only(backend: Backend) -> None:
    backend.business("acme")
    file(backend, A, "acme")
    assert is_filed(backend.connection, backend.sealer, "acme", A)
    assert not is_filed(backend.connection, backend.sealer, "default", A)
    assert refused(backend, lambda act: add_filing(act, "nobody", A, "r")) == ("not_found", "business")


def test_import_files_valid_lines_and_names_invalid_ones(backend: Backend) -> None:
    lines = [
        "number,reference\n",
        "13800000001,CT-1\n",
        "\n",
        "12,CT-2\n",
        "13700000003\n",
        "13700000004,\n",
        '13700000004,"a\nb"\n',
    ]
    outcomes = import_filings(lines, "default", backend.run)
    assert {line: refused and refused.field for line, refused in outcomes} == {
        2: None, 4: "number", 5: "line", 6: "reference", 7: "reference",
    }  # fmt: skip
    assert filed(backend) == [("default", A)]


# Effect on bindings and calls


def bound(backend: Backend, rules: BindRules, *args: Any, **more: Any) -> str:
    """ "made", or kind and field of the refusal."""
    try:
        backend.bind(*args, rules=rules, **more)
    except Refused as refusal:
        return f"{refusal.kind} {refusal.field}"
    return "made"


@pytest.mark.parametrize("mode", ["AXB", "AXYB", "AXN"])
def test_a_binding_requires_its_a_filed_by_its_own_business_user(backend: Backend, mode: str) -> None:
    backend.business("acme")
    file(backend, A, "acme")
    assert bound(backend, REQUIRED, mode, A, B) == "not_filed a"
    file(backend, B)
    assert bound(backend, REQUIRED, mode, A, B) == "not_filed a"
    file(backend, A)
    assert bound(backend, REQUIRED, mode, A, B) == "made"
    assert bound(backend, BindRules(), mode, C, B) == "made"


@pytest.mark.parametrize("mode", ["GXB", "GXYB"])
def test_a_group_binding_requires_all_members_and_a_filed(backend: Backend, mode: str) -> None:
    group = backend.run(lambda act: make_group(act, "riders", RULES, "default", [A, C])).group_id
    file(backend, A)
    assert bound(backend, REQUIRED, mode, "", B, group_id=group) == "not_filed group_id"
    file(backend, C)
    assert bound(backend, REQUIRED, mode, "13600000004", B, group_id=group) == "not_filed a"
    assert bound(backend, REQUIRED, mode, "", B, group_id=group) == "made"


def test_a_changed_a_must_be_filed(backend: Backend) -> None:
    file(backend, A)
    made = backend.bind(rules=REQUIRED)
    asked = {"a": C}
    assert refused(backend, lambda act: change(act, made.binding_id, asked, REQUIRED)) == ("not_filed", "a")
    backend.run(lambda act: remove_filing(act, "default", A))
    backend.run(lambda act: change(act, made.binding_id, {"b": C}, REQUIRED))
    file(backend, A)
    file(backend, "8613600000004")
    backend.run(lambda act: change(act, made.binding_id, {"a": "13600000004"}, REQUIRED))


def test_warn_makes_the_binding_and_writes_an_audit_line(backend: Backend) -> None:
    made = backend.bind(rules=WARNED)
    assert filing_warning(backend.connection, backend.sealer, made, WARNED) == "a: this A number is not filed"
    assert filing_warning(backend.connection, backend.sealer, made, REQUIRED) is None
    lines = "SELECT object FROM audit WHERE action = 'binding.not_filed'"
    assert backend.one(lines) == (made.binding_id,)
    file(backend, A)
    assert filing_warning(backend.connection, backend.sealer, made, WARNED) is None
    changed = backend.run(lambda act: change(act, made.binding_id, {"a": C}, WARNED))
    assert changed.a == C
    assert backend.one(f"SELECT count(*) FROM ({lines}) AS found") == (2,)


def test_a_call_in_either_direction_requires_a_filed_a_number(backend: Backend) -> None:
    made = backend.bind(x=X)
    backend.apply_config(Rules(filing_required=True))
    assert (backend.reaches(X, A), backend.reaches(X, B)) == ("not_filed", "not_filed")
    file(backend, B)
    assert (backend.reaches(X, A), backend.reaches(X, B)) == ("not_filed", "not_filed")
    file(backend, A)
    assert (backend.reaches(X, A), backend.reaches(X, B)) == (B, A)
    backend.run(lambda act: remove_filing(act, "default", A))
    assert (backend.reaches(X, A), backend.reaches(X, B)) == ("not_filed", "not_filed")
    assert backend.reaches(X, C) == "no_binding"
    backend.apply_config(Rules())
    assert backend.reaches(X, A) == B
    assert made.a == A


def test_a_forged_filing_fails_the_look_up(backend: Backend) -> None:
    backend.bind(x=X)
    file(backend, A)
    backend.run(lambda act: remove_filing(act, "default", A))
    backend.apply_config(Rules(filing_required=True))
    assert backend.reaches(X, A) == "not_filed"
    backend.connection.execute("UPDATE filing SET withdrawn_at = NULL, withdrawn_by = NULL")
    assert (backend.reaches(X, A), backend.reaches(X, B)) == ("store_failed", "store_failed")


def test_an_axn_call_requires_a_filed_callee(backend: Backend) -> None:
    backend.bind("AXN", A, B, x=X)
    backend.apply_config(Rules(filing_required=True))
    assert backend.reaches(X, C) == "not_filed"
    file(backend, A)
    assert (backend.reaches(X, C), backend.reaches(X, A)) == (A, B)


def test_only_filed_members_of_a_group_call_and_are_called_back(backend: Backend) -> None:
    group = backend.run(lambda act: make_group(act, "riders", RULES, "default", [A])).group_id
    made = backend.bind("GXB", "", B, x=X, group_id=group)
    backend.apply_config(Rules(filing_required=True))
    backend.run(lambda act: add_members(act, group, [C], RULES))
    file(backend, A)
    assert (backend.reaches(X, A), backend.reaches(X, C)) == (B, "not_filed")
    assert backend.reaches(X, B) == "no_callee"
    for last, reached in ((A, A), (C, "not_filed")):
        row = caller_row(backend.sealer, LastCaller(made.binding_id, X, last, NOW_MS))
        backend.connection.execute("DELETE FROM last_caller")
        insert(backend.connection, PUT_CALLERS.replace(" OR REPLACE", ""), [row])
        assert backend.reaches(X, B) == reached
