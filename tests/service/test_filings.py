"""Filings of A numbers with the carriers, and what happens to bindings and calls of unfiled ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from relay.errors import Refused
from relay.policy.last_caller import LastCaller
from relay.policy.rules import Rules
from relay.service.changes import BindingChange, change
from relay.service.filings import add_filing, filing_warning, import_filings, remove_filing
from relay.service.groups import add_members, make_group
from relay.service.releases import BindRules
from relay.store.filings import FIRST, Filing, find_filing, find_filings, is_filed, purge_filings
from relay.store.journal_rows import PUT_CALLERS, caller_row
from relay.store.record_rows import insert
from tests.service.conftest import RULES, Desk
from tests.support.stored import NOW_MS, A, B, X

C = "8613700000003"
REQUIRED, WARNED = BindRules(filing="require"), BindRules(filing="warn")


def file(desk: Desk, number: str = A, business: str = "default", reference: str = "CT-2026-17") -> Filing:
    return desk.run(lambda act: add_filing(act, business, number, reference))


def refused(desk: Desk, do: Callable[[Any], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        desk.run(do)
    return refusal.value.kind, refusal.value.field


def filed(desk: Desk, **more: Any) -> list[tuple[str, str]]:
    found = find_filings(desk.connection, desk.sealer, None, FIRST, 100, **more)
    return sorted((filing.business, filing.number) for filing in found)


def test_a_number_is_filed_with_its_reference_and_withdrawn(desk: Desk) -> None:
    made = file(desk, "+86 138 0000 0001", reference=" CT-17 ")
    assert (made.number, made.reference, made.filed_at, made.filed_by) == (A, "CT-17", NOW_MS, desk.actor.name)
    assert find_filing(desk.connection, desk.sealer, "default", A) == made
    assert filed(desk) == [("default", A)]
    desk.now_ms += 5
    gone = desk.run(lambda act: remove_filing(act, "default", "138-0000-0001"))
    assert (gone.withdrawn_at, gone.withdrawn_by) == (NOW_MS + 5, desk.actor.name)
    assert (filed(desk), filed(desk, all_=True)) == ([], [("default", A)])
    assert not is_filed(desk.connection, desk.sealer, "default", A)
    assert refused(desk, lambda act: remove_filing(act, "default", A)) == ("not_found", "number")
    again = file(desk, reference="CT-18")
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
def test_an_invalid_field_is_named(desk: Desk, number: str, reference: str, field: str) -> None:
    assert refused(desk, lambda act: add_filing(act, "default", number, reference)) == ("invalid", field)


def test_a_filing_applies_to_its_business_user_only(desk: Desk) -> None:
    desk.business("acme")
    file(desk, A, "acme")
    assert is_filed(desk.connection, desk.sealer, "acme", A)
    assert not is_filed(desk.connection, desk.sealer, "default", A)
    assert refused(desk, lambda act: add_filing(act, "nobody", A, "r")) == ("not_found", "business")


def test_a_page_continues_after_the_last_filing(desk: Desk) -> None:
    desk.business("acme")
    for business in ("acme", "default"):
        for number in (A, B, C):
            file(desk, number, business)
    seen, after = [], FIRST
    while page := find_filings(desk.connection, desk.sealer, None, after, 2):
        seen += [(filing.business, filing.number) for filing in page]
        after = page[-1].place
    assert len(seen) == len(set(seen)) == 6
    assert {number for _, number in seen} == {A, B, C}


def test_withdrawn_filings_are_purged_after_their_retention(desk: Desk) -> None:
    file(desk, A)
    file(desk, B)
    desk.run(lambda act: remove_filing(act, "default", A))
    for before_ms, purged in ((NOW_MS, 0), (NOW_MS + 1, 1), (NOW_MS + 1, 0)):
        assert desk.run(lambda act, before_ms=before_ms: purge_filings(act, before_ms, 10)) == purged
    assert filed(desk, all_=True) == [("default", B)]


def test_import_files_valid_lines_and_names_invalid_ones(desk: Desk) -> None:
    lines = [
        "number,reference\n",
        "13800000001,CT-1\n",
        "\n",
        "12,CT-2\n",
        "13700000003\n",
        "13700000004,\n",
        '13700000004,"a\nb"\n',
    ]
    outcomes = import_filings(lines, "default", desk.run)
    assert {line: refused and refused.field for line, refused in outcomes} == {
        2: None, 4: "number", 5: "line", 6: "reference", 7: "reference",
    }  # fmt: skip
    assert filed(desk) == [("default", A)]


# Effect on bindings and calls


def bound(desk: Desk, rules: BindRules, *args: Any, **more: Any) -> str:
    """ "made", or kind and field of the refusal."""
    try:
        desk.bind(*args, rules=rules, **more)
    except Refused as refusal:
        return f"{refusal.kind} {refusal.field}"
    return "made"


@pytest.mark.parametrize("mode", ["AXB", "AXYB", "AXN"])
def test_a_binding_requires_its_a_filed_by_its_own_business_user(desk: Desk, mode: str) -> None:
    desk.business("acme")
    file(desk, A, "acme")
    assert bound(desk, REQUIRED, mode, A, B) == "not_filed a"
    file(desk, B)
    assert bound(desk, REQUIRED, mode, A, B) == "not_filed a"
    file(desk, A)
    assert bound(desk, REQUIRED, mode, A, B) == "made"
    assert bound(desk, BindRules(), mode, C, B) == "made"


@pytest.mark.parametrize("mode", ["GXB", "GXYB"])
def test_a_group_binding_requires_all_members_and_a_filed(desk: Desk, mode: str) -> None:
    group = desk.run(lambda act: make_group(act, "riders", RULES, "default", [A, C])).group_id
    file(desk, A)
    assert bound(desk, REQUIRED, mode, "", B, group_id=group) == "not_filed group_id"
    file(desk, C)
    assert bound(desk, REQUIRED, mode, "13600000004", B, group_id=group) == "not_filed a"
    assert bound(desk, REQUIRED, mode, "", B, group_id=group) == "made"


def test_a_changed_a_must_be_filed(desk: Desk) -> None:
    file(desk, A)
    made = desk.bind(rules=REQUIRED)
    asked = BindingChange(a=C)
    assert refused(desk, lambda act: change(act, made.binding_id, asked, REQUIRED)) == ("not_filed", "a")
    desk.run(lambda act: remove_filing(act, "default", A))
    desk.run(lambda act: change(act, made.binding_id, BindingChange(b=C), REQUIRED))
    file(desk, A)
    file(desk, "8613600000004")
    desk.run(lambda act: change(act, made.binding_id, BindingChange(a="13600000004"), REQUIRED))


def test_warn_makes_the_binding_and_writes_an_audit_line(desk: Desk) -> None:
    made = desk.bind(rules=WARNED)
    assert filing_warning(desk.connection, desk.sealer, made, WARNED) == "a: this A number is not filed"
    assert filing_warning(desk.connection, desk.sealer, made, REQUIRED) is None
    lines = "SELECT object FROM audit WHERE action = 'binding.not_filed'"
    assert desk.one(lines) == (made.binding_id,)
    file(desk, A)
    assert filing_warning(desk.connection, desk.sealer, made, WARNED) is None
    changed = desk.run(lambda act: change(act, made.binding_id, BindingChange(a=C), WARNED))
    assert changed.a == C
    assert desk.one(f"SELECT count(*) FROM ({lines}) AS found") == (2,)


def test_a_call_in_either_direction_requires_a_filed_a_number(desk: Desk) -> None:
    made = desk.bind(x=X)
    desk.follow(Rules(filing_required=True))
    assert (desk.reaches(X, A), desk.reaches(X, B)) == ("not_filed", "not_filed")
    file(desk, B)
    assert (desk.reaches(X, A), desk.reaches(X, B)) == ("not_filed", "not_filed")
    file(desk, A)
    assert (desk.reaches(X, A), desk.reaches(X, B)) == (B, A)
    desk.run(lambda act: remove_filing(act, "default", A))
    assert (desk.reaches(X, A), desk.reaches(X, B)) == ("not_filed", "not_filed")
    assert desk.reaches(X, C) == "no_binding"
    desk.follow(Rules())
    assert desk.reaches(X, A) == B
    assert made.a == A


def test_a_forged_filing_fails_the_look_up(desk: Desk) -> None:
    desk.bind(x=X)
    file(desk, A)
    desk.run(lambda act: remove_filing(act, "default", A))
    desk.follow(Rules(filing_required=True))
    assert desk.reaches(X, A) == "not_filed"
    desk.connection.execute("UPDATE filing SET withdrawn_at = NULL, withdrawn_by = NULL")
    assert (desk.reaches(X, A), desk.reaches(X, B)) == ("store_failed", "store_failed")


def test_an_axn_call_requires_a_filed_callee(desk: Desk) -> None:
    desk.bind("AXN", A, B, x=X)
    desk.follow(Rules(filing_required=True))
    assert desk.reaches(X, C) == "not_filed"
    file(desk, A)
    assert (desk.reaches(X, C), desk.reaches(X, A)) == (A, B)


def test_only_filed_members_of_a_group_call_and_are_called_back(desk: Desk) -> None:
    group = desk.run(lambda act: make_group(act, "riders", RULES, "default", [A])).group_id
    made = desk.bind("GXB", "", B, x=X, group_id=group)
    desk.follow(Rules(filing_required=True))
    desk.run(lambda act: add_members(act, group, [C], RULES))
    file(desk, A)
    assert (desk.reaches(X, A), desk.reaches(X, C)) == (B, "not_filed")
    assert desk.reaches(X, B) == "no_callee"
    for last, reached in ((A, A), (C, "not_filed")):
        row = caller_row(desk.sealer, LastCaller(made.binding_id, X, last, NOW_MS))
        desk.connection.execute("DELETE FROM last_caller")
        insert(desk.connection, PUT_CALLERS.replace(" OR REPLACE", ""), [row])
        assert desk.reaches(X, B) == reached
