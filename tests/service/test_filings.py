"""Filings of A numbers with the carriers, and what happens to bindings and calls of unfiled ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from relay.errors import Refused
from relay.policy.rules import LastCaller, Rules
from relay.reports.daily import day_span
from relay.service.filings import (
    AnswerWords,
    FilingWords,
    add_filing,
    answer_filing,
    filing_form,
    filing_warning,
    forget_filing,
    remove_filing,
)
from relay.service.groups import add_members, make_group
from relay.service.placement import BindRules
from relay.store.filings import FIRST, FilingQuery, FilingRow, filing_at, find_filing, find_filings, is_filed
from relay.store.journal.rows import PUT_CALLERS, caller_row
from relay.store.record_rows import insert
from relay.store.unit_of_work import Actor
from tests.service.conftest import RULES, Backend
from tests.support.stored import NOW_MS, A, B, X
from tests.support.written import change

C = "8613700000003"
REQUIRED, WARNED = BindRules(filing="require"), BindRules(filing="warn")


HOLDER = {"holder": "张三", "document": "11010519491231002x", "photo": "oss://photos/1"}


def file(
    backend: Backend,
    number: str = A,
    business: str = "default",
    reference: str = "CT-2026-17",
    state: Any = None,
    **more: str,
) -> FilingRow:
    return backend.run(lambda unit: add_filing(unit, business, FilingWords(number, reference, **more), state=state))


def answer(backend: Backend, state: str, number: str = A, **more: str) -> FilingRow:
    words = AnswerWords(number, state=state, **more)
    (filing,) = backend.run(lambda unit: answer_filing(unit, "default", words))
    return filing


def state_of(backend: Backend, number: str = A) -> str:
    filing = find_filing(backend.connection, backend.sealer, "default", number)
    assert filing is not None
    return filing.state(backend.now_ms)


def refused(backend: Backend, do: Callable[[Any], object]) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        backend.run(do)
    return refusal.value.kind, refusal.value.field


def filed(backend: Backend, **more: Any) -> list[tuple[str, str]]:
    found = find_filings(backend.connection, backend.sealer, FilingQuery(**more), backend.now_ms, FIRST, 100)
    return sorted((filing.business, filing.number) for filing in found)


def test_a_number_is_filed_with_its_reference_and_withdrawn(backend: Backend) -> None:
    made = file(backend, "+86 138 0000 0001", reference=" CT-17 ")
    assert (made.number, made.reference, made.filed_at, made.filed_by) == (A, "CT-17", NOW_MS, backend.actor.name)
    assert find_filing(backend.connection, backend.sealer, "default", A) == made
    assert filed(backend) == [("default", A)]
    backend.now_ms += 5
    gone = backend.run(lambda unit: remove_filing(unit, "default", "138-0000-0001"))
    assert (gone.withdrawn_at, gone.withdrawn_by) == (NOW_MS + 5, backend.actor.name)
    assert (filed(backend), filed(backend, all_=True)) == ([], [("default", A)])
    assert not is_filed(backend.connection, backend.sealer, "default", A, backend.now_ms)
    assert refused(backend, lambda unit: remove_filing(unit, "default", A)) == ("not_found", "number")
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
    assert refused(backend, lambda unit: add_filing(unit, "default", FilingWords(number, reference))) == (
        "invalid",
        field,
    )


def test_a_filing_applies_to_its_business_user_only(backend: Backend) -> None:
    backend.business("acme")
    file(backend, A, "acme")
    assert is_filed(backend.connection, backend.sealer, "acme", A, backend.now_ms)
    assert not is_filed(backend.connection, backend.sealer, "default", A, backend.now_ms)
    assert refused(backend, lambda unit: add_filing(unit, "nobody", FilingWords(A, "r"))) == ("not_found", "business")


# Documents, and the carrier's answers


def test_documents_are_sealed_and_masked(backend: Backend) -> None:
    made = file(backend, reference="", **HOLDER)
    assert made.reference.startswith("F") and made.documents is not None
    assert made.documents == ("张三", "id_card", "11010519491231002X", "oss://photos/1")
    row = backend.one("SELECT sealed, documents FROM filing")
    assert not [secret for secret in ("张三".encode(), b"1949", b"oss:") if secret in b"".join(row)]
    masked = filing_form(made, NOW_MS, clear=False)
    assert (masked["holder"], masked["document"], masked["photo"]) == ("张**", "1****X", None)
    clear = filing_form(made, NOW_MS, clear=True)
    assert (clear["number"], clear["holder"], clear["photo"]) == (A, "张三", "oss://photos/1")


@pytest.mark.parametrize(
    ("words", "field"),
    [
        ({"holder": "张三"}, "document"),
        ({"document": "AB1", "document_type": "passport"}, "holder"),
        ({"photo": "oss://1"}, "holder"),
        ({"holder": "张三", "document": "110105194912310021"}, "document"),
        ({"holder": "张三", "document": "AB1", "document_type": "visa"}, "document_type"),
        ({"holder": "三" * 65, "document": "AB1", "document_type": "other"}, "holder"),
        ({"reference": "r", "expires_at": "soon"}, "expires_at"),
        ({"reference": "r", "expires_at": "2020-01-31"}, "expires_at"),
        ({"reference": "r", "expires_at": "2200-01-02"}, "expires_at"),
        ({"reference": "r", "expires_at": "9999-12-31T23:59:59-10:00"}, "expires_at"),
    ],
)
def test_invalid_documents_are_named(backend: Backend, words: dict[str, str], field: str) -> None:
    found = refused(backend, lambda unit: add_filing(unit, "default", FilingWords(A, **words)))
    assert found == ("invalid", field)


def test_only_the_carriers_approval_lets_calls_through(backend: Backend) -> None:
    backend.bind(x=X)
    backend.apply_config(Rules(filing_required=True))
    for state, reaches, bind_says in (
        ("rejected", "not_filed", "not_filed a"),
        ("approved", B, "made"),
        ("revoked", "not_filed", "not_filed a"),
        ("approved", B, "made"),
        ("expired", "not_filed", "not_filed a"),
    ):
        file(backend, state="submitted")
        assert (state_of(backend), backend.reaches(X, A), backend.reaches(X, B)) == ("submitted", *["not_filed"] * 2)
        answer(backend, state, code="4003")
        assert (state_of(backend), backend.reaches(X, A)) == (state, reaches)
        assert bound(backend, REQUIRED) == bind_says


def test_an_approval_ends_at_its_expiry(backend: Backend) -> None:
    backend.bind(x=X)
    file(backend, state="submitted")
    answer(backend, "approved", expires_at="2026-01-01T00:00:10Z")
    backend.apply_config(Rules(filing_required=True))
    backend.now_ms += 9_999
    assert (backend.reaches(X, A), backend.reaches(X, B), bound(backend, REQUIRED)) == (B, A, "made")
    backend.now_ms += 1
    assert (backend.reaches(X, A), bound(backend, REQUIRED)) == ("not_filed", "not_filed a")
    made = backend.bind()
    assert warning(backend, made, WARNED) == "a: this A number is not filed (its filing: expired)"
    group = backend.run(lambda unit: make_group(unit, "riders", RULES, "default", [A])).group_id
    assert bound(backend, REQUIRED, "GXB", "", B, group_id=group) == "not_filed group_id"


def test_a_filing_until_a_day_ends_with_it(backend: Backend) -> None:
    """In China: at midnight."""
    assert file(backend, expires_at="2026-03-01").expires_at == day_span(date(2026, 3, 1))[1]


def test_a_forged_answer_fails_the_look_up(backend: Backend) -> None:
    backend.bind(x=X)
    file(backend, state="submitted")
    backend.apply_config(Rules(filing_required=True))
    backend.connection.execute("UPDATE filing SET state = NULL")
    assert backend.reaches(X, A) == "store_failed"


def test_a_forged_expiry_fails_the_look_up(backend: Backend) -> None:
    backend.bind(x=X)
    file(backend, expires_at="2026-01-01T00:00:10Z")
    backend.apply_config(Rules(filing_required=True))
    assert backend.reaches(X, A) == B
    backend.connection.execute("UPDATE filing SET expires_at = NULL")
    assert backend.reaches(X, A) == "store_failed"


def test_a_business_user_submits_and_does_not_approve(backend: Backend) -> None:
    backend.key_of("default")
    assert file(backend).answer == "submitted"
    assert (
        refused(backend, lambda unit: add_filing(unit, "default", FilingWords(A, "r"), state="approved"))[1] == "state"
    )


def test_a_filing_is_approved_by_the_scope_operator_alone(backend: Backend) -> None:
    backend.actor = Actor("key:k2", None, frozenset(["filings"]))
    assert file(backend).answer == "submitted"
    assert refused(backend, lambda unit: add_filing(unit, "default", FilingWords(A, "r"), state="approved")) == (
        "forbidden",
        "state",
    )
    backend.actor = Actor("key:k3", None, frozenset(["filings", "operator"]))
    assert file(backend).answer == "approved"


def test_a_filing_in_force_stays_so_while_its_holder_stays(backend: Backend) -> None:
    file(backend, **HOLDER, expires_at="2026-03-01")
    backend.key_of("default")
    renewed = file(backend, reference="CT-18")
    assert (renewed.answer, renewed.expires_at is not None, renewed.documents is not None) == ("approved", True, True)
    assert file(backend, reference="CT-19", **HOLDER).answer == "approved"
    assert file(backend, **HOLDER | {"holder": "李四"}).answer == "submitted"


def test_a_repeated_filing_changes_nothing(backend: Backend) -> None:
    made = file(backend, reference="", **HOLDER)
    backend.now_ms += 1_000
    assert file(backend, reference="", **HOLDER) == made
    assert backend.one("SELECT count(*) FROM filing_change") == (0,)
    assert file(backend, reference="", **HOLDER | {"photo": "oss://photos/2"}).reference == made.reference
    assert backend.one("SELECT count(*) FROM filing_change") == (1,)


def test_answers_come_by_reference_too(backend: Backend) -> None:
    for number, reference in ((A, "batch-1"), (B, "batch-1"), (C, "batch-2")):
        file(backend, number, reference=reference, state="submitted")
    words = AnswerWords(reference="batch-1", state="approved")
    assert len(backend.run(lambda unit: answer_filing(unit, "default", words))) == 2
    assert [state_of(backend, number) for number in (A, B, C)] == ["approved", "approved", "submitted"]
    unknown = AnswerWords(reference="batch-3", state="approved")
    assert refused(backend, lambda unit: answer_filing(unit, "default", unknown)) == ("not_found", "reference")


def test_each_earlier_state_is_kept_with_its_holder(backend: Backend) -> None:
    file(backend, state="submitted", **HOLDER)
    for state in ("approved", "revoked"):
        backend.now_ms += 1_000
        answer(backend, state)
    backend.now_ms += 1_000
    file(backend, holder="李四", document="AB1", document_type="passport")
    then = [
        filing_at(backend.connection, backend.sealer, "default", A, NOW_MS + at) for at in (-1, 0, 1_000, 2_500, 3_000)
    ]
    assert [each and each.was_in_force(NOW_MS + 2_500) for each in then] == [None, False, True, False, False]
    assert [each and each.documents and each.documents.holder for each in then] == [None, *["张三"] * 3, "李四"]


def test_documents_are_removed_on_demand_also_from_earlier_states(backend: Backend) -> None:
    file(backend, **HOLDER)
    backend.now_ms += 1_000
    file(backend, reference="CT-18")
    backend.now_ms += 1_000
    gone = backend.run(lambda unit: forget_filing(unit, "default", A, "Zhang San asked"))
    assert (gone.documents, gone.withdrawn_at, gone.number) == (None, backend.now_ms, A)
    for at_ms in (NOW_MS, NOW_MS + 1_000, NOW_MS + 2_000):
        then = filing_at(backend.connection, backend.sealer, "default", A, at_ms)
        assert then is not None and then.documents is None
    assert backend.one("SELECT count(*) FROM audit WHERE action = 'filing.forget'") == (1,)


def warning(backend: Backend, made: Any, rules: BindRules) -> str | None:
    return filing_warning(backend.connection, backend.sealer, made, rules, backend.now_ms)


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
    group = backend.run(lambda unit: make_group(unit, "riders", RULES, "default", [A, C])).group_id
    file(backend, A)
    assert bound(backend, REQUIRED, mode, "", B, group_id=group) == "not_filed group_id"
    file(backend, C)
    assert bound(backend, REQUIRED, mode, "13600000004", B, group_id=group) == "not_filed a"
    assert bound(backend, REQUIRED, mode, "", B, group_id=group) == "made"


def test_a_changed_a_must_be_filed(backend: Backend) -> None:
    file(backend, A)
    made = backend.bind(rules=REQUIRED)
    asked = {"a": C}
    assert refused(backend, lambda unit: change(unit, made.binding_id, asked, REQUIRED)) == ("not_filed", "a")
    backend.run(lambda unit: remove_filing(unit, "default", A))
    backend.run(lambda unit: change(unit, made.binding_id, {"b": C}, REQUIRED))
    file(backend, A)
    file(backend, "8613600000004")
    backend.run(lambda unit: change(unit, made.binding_id, {"a": "13600000004"}, REQUIRED))


def test_warn_makes_the_binding_and_writes_an_audit_line(backend: Backend) -> None:
    made = backend.bind(rules=WARNED)
    assert warning(backend, made, WARNED) == "a: this A number is not filed"
    assert warning(backend, made, REQUIRED) is None
    lines = "SELECT object FROM audit WHERE action = 'binding.not_filed'"
    assert backend.one(lines) == (made.binding_id,)
    file(backend, A)
    assert warning(backend, made, WARNED) is None
    changed = backend.run(lambda unit: change(unit, made.binding_id, {"a": C}, WARNED))
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
    backend.run(lambda unit: remove_filing(unit, "default", A))
    assert (backend.reaches(X, A), backend.reaches(X, B)) == ("not_filed", "not_filed")
    assert backend.reaches(X, C) == "no_binding"
    backend.apply_config(Rules())
    assert backend.reaches(X, A) == B
    assert made.a == A


def test_a_forged_filing_fails_the_look_up(backend: Backend) -> None:
    backend.bind(x=X)
    file(backend, A)
    backend.run(lambda unit: remove_filing(unit, "default", A))
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
    group = backend.run(lambda unit: make_group(unit, "riders", RULES, "default", [A])).group_id
    made = backend.bind("GXB", "", B, x=X, group_id=group)
    backend.apply_config(Rules(filing_required=True))
    backend.run(lambda unit: add_members(unit, group, [C], RULES))
    file(backend, A)
    assert (backend.reaches(X, A), backend.reaches(X, C)) == (B, "not_filed")
    assert backend.reaches(X, B) == "no_callee"
    for last, reached in ((A, A), (C, "not_filed")):
        row = caller_row(backend.sealer, LastCaller(made.binding_id, X, last, NOW_MS))
        backend.connection.execute("DELETE FROM last_caller")
        insert(backend.connection, PUT_CALLERS.replace(" OR REPLACE", ""), [row])
        assert backend.reaches(X, B) == reached


def test_a_reference_with_number_or_holder_shows_neither_without_a_right(backend: Backend) -> None:
    made = file(backend, reference=f"CT-{A}/{HOLDER['holder']}/{HOLDER['document']}/2026011512345", **HOLDER)
    masked = filing_form(made, NOW_MS, clear=False)["reference"]
    assert masked == "CT-86****/****/****/2026011512345"
    assert filing_form(made, NOW_MS, clear=True)["reference"] == made.reference


@pytest.mark.parametrize(
    ("number", "written"),
    [
        ("8613800000001", "138-0000-0001"),
        ("8613800000001", "\uff11\uff13\uff18 0000 0001"),
        ("861088886666", "861088886666"),
        ("861088886666", "010-88886666"),
        ("861088886666", "(010) 8888 6666"),
        ("447911123456", "+447911123456"),
        ("447911123456", "07911 123456"),
        ("85291234567", "9123-4567"),
    ],
)
def test_a_reference_hides_the_number_however_it_is_written(backend: Backend, number: str, written: str) -> None:
    made = file(backend, reference="CT")._replace(number=number, reference=f"CT 17/{written}/2026011512345")
    masked = filing_form(made, NOW_MS, clear=False)["reference"]
    assert re.fullmatch(r"CT 17/[+(]?[0-9]{0,5}\*\*\*\*/2026011512345", masked), masked
