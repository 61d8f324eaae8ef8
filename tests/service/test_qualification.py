"""Approval requires the fields of the scenario, and a change of them requires a new approval."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused, StoreError
from relay.service.businesses import REQUIRED, SCENARIOS, change, parsed, set_state
from relay.store.audit import AuditQuery, newest_entries
from relay.store.businesses import Business, QualificationTerms, TermChange, qualification_at, state_changes
from relay.store.unit_of_work import RELAY, Actor
from tests.support.acting import Acting, acting
from tests.support.papers import PAPERS, apply
from tests.support.stored import NOW_MS

CHECKER = Actor("cli:checker", None, RELAY.scopes)
MADE = QualificationTerms(
    name="Acme", licence="L-1", application="A-1", scenario="express", scheme="S-1", contact="Li Lei"
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


def approved(store: Acting) -> Business:
    store.run(lambda unit: apply(unit, "Acme", "acme", scenario="express", **PAPERS))
    store.now_ms += 10
    return store.run(lambda unit: set_state(unit, "acme", "approve", "papers complete"), CHECKER)


def changed(store: Acting, business: str = "acme", reason: str = "a new permit", **fields: Any) -> Business:
    store.now_ms += 10
    return store.run(lambda unit: change(unit, business, reason=reason, **parsed(fields)), CHECKER)


def refusal(store: Acting, do: Any) -> Refused:
    with pytest.raises(Refused) as refused:
        store.run(do)
    return refused.value


def history(store: Acting, business: str = "acme") -> list[tuple[Any, ...]]:
    return [
        (step.state, step.version, step.reason, step.changed)
        for step in state_changes(store.reader, store.sealer, business)
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_approval_names_all_missing_fields_at_once(store: Acting, scenario: str) -> None:
    store.run(lambda unit: apply(unit, "Acme", "acme", scenario=scenario, scheme="S-1"))
    refused = refusal(store, lambda unit: set_state(unit, "acme", "approve", "papers complete"))
    assert refused.kind == "unqualified"
    assert [field for field, _ in refused.fields] == ["licence", "application", "contact"]
    assert REQUIRED[scenario]["licence"] in refused.problem and "application" in refused.problem
    changed(store, reason="", licence="L-1", application="A-1", contact="Li Lei")
    assert store.run(lambda unit: set_state(unit, "acme", "approve", "now")).state == "approved"


def test_a_refused_step_is_in_the_audit_log_with_its_reason(store: Acting) -> None:
    store.run(lambda unit: apply(unit, "Acme", "acme"))
    refusal(store, lambda unit: set_state(unit, "acme", "approve", "papers complete"))
    refusal(store, lambda unit: set_state(unit, "acme", "resume", "go on"))
    refusal(store, lambda unit: set_state(unit, "nobody", "approve", "why not"))
    lines = newest_entries(store.reader, store.sealer, AuditQuery(action="change.refused"), None, 9)
    assert [(line.entry.object_, line.entry.reason, line.entry.details) for line in lines] == [
        ("acme", "go on", {"action": "business.resume", "kinds": ["state_conflict"]}),
        ("acme", "papers complete", {"action": "business.approve", "kinds": ["unqualified"]}),
    ]


@pytest.mark.parametrize(
    "new", [{"name": "B"}, {"licence": "L-2"}, {"application": "A-2"}, {"scenario": "takeaway"}, {"scheme": "S-2"}]
)
@pytest.mark.parametrize("state", ["approved", "suspended"])
def test_a_change_of_the_qualification_requires_a_new_approval(store: Acting, new: dict[str, Any], state: str) -> None:
    approved(store)
    if state == "suspended":
        store.run(lambda unit: set_state(unit, "acme", "suspend", "complaints"))
    refused = refusal(store, lambda unit: change(unit, "acme", **new))
    assert (refused.kind, refused.field) == ("invalid", "reason")
    assert changed(store, **new).state == "applied"
    assert refusal(store, lambda unit: set_state(unit, "acme", "resume", "so")).field == "state"
    ((field, after),) = new.items()
    assert history(store)[-1][2:] == ("a new permit", [TermChange(field, getattr(MADE, field), after)])
    again = store.run(lambda unit: set_state(unit, "acme", "approve", "seen"))
    assert (again.state, again.qualification) == ("approved", again.version)


def test_other_changes_require_no_new_approval(store: Acting) -> None:
    approved(store)
    kept = changed(store, reason="", max_calls=7, licence=" L-1 ", contact="Han Meimei")
    assert (kept.state, kept.qualification) == ("approved", 2)
    assert history(store)[-1] == ("approved", 3, "", [TermChange("contact", "Li Lei", "Han Meimei")])
    changed(store, reason="", max_calls=8)
    assert len(history(store)) == 3
    assert refusal(store, lambda unit: change(unit, "acme", contact="")).kind == "unqualified"


def test_resume_requires_the_fields_of_the_scenario(store: Acting) -> None:
    approved(store)
    store.run(lambda unit: set_state(unit, "acme", "suspend", "complaints"))
    store.run(lambda unit: unit.connection.execute("UPDATE business SET licence = '' WHERE id = 'acme'"))
    assert refusal(store, lambda unit: set_state(unit, "acme", "resume", "so")).kind == "unqualified"


def test_the_business_user_default_needs_no_qualification(store: Acting) -> None:
    assert changed(store, "default", reason="", name="Ours").state == "approved"
    assert history(store, "default") == [("approved", 2, "", [TermChange("name", "default", "Ours")])]
    store.run(lambda unit: set_state(unit, "default", "suspend", "x"))
    assert store.run(lambda unit: set_state(unit, "default", "resume", "x")).qualification == 1


def test_each_version_is_found_with_its_terms_and_approval(store: Acting) -> None:
    approved(store)
    changed(store, licence="L-2", contact="Han Meimei")
    store.now_ms += 10
    store.run(lambda unit: set_state(unit, "acme", "approve", "seen"))

    def found(at_ms: int) -> Any:
        return qualification_at(store.reader, store.sealer, "acme", at_ms)

    now = MADE._replace(licence="L-2", contact="Han Meimei")
    approvals = {2: ("cli:checker", "papers complete"), 4: ("relay", "seen")}
    for after_ms, version, state, terms in (
        (10, 2, "approved", MADE),
        (29, 2, "applied", MADE),
        (30, 4, "approved", now),
    ):
        one = found(NOW_MS + after_ms)
        assert (one.version, one.state, one.terms) == (version, state, terms), after_ms
        assert (one.approval.by, one.approval.reason) == approvals[version]
    assert found(NOW_MS).approval is None
    assert found(NOW_MS - 1) is None
    assert qualification_at(store.reader, store.sealer, "unknown", NOW_MS) is None


def test_an_approval_without_recorded_terms_is_found_by_the_first_known_terms(store: Acting) -> None:
    approved(store)
    store.run(lambda unit: unit.connection.execute("UPDATE business_change SET sealed_terms = NULL"))
    store.run(lambda unit: unit.connection.execute("UPDATE business SET qualification = 1 WHERE id = 'acme'"))
    changed(store, scheme="S-2")
    one = qualification_at(store.reader, store.sealer, "acme", NOW_MS + 10)
    assert one is not None and (one.terms, one.approval) == (MADE, None)


def test_the_terms_of_a_change_are_sealed_to_its_row(store: Acting) -> None:
    approved(store)
    changed(store, licence="canary 13800000001")
    kept = "SELECT sealed_terms FROM business_change WHERE seq = 3"
    (sealed,) = store.run(lambda unit: unit.connection.execute(kept).fetchone())
    assert b"canary" not in sealed
    theft = "UPDATE business_change SET sealed_terms = ? WHERE seq = 2"
    store.run(lambda unit: unit.connection.execute(theft, (sealed,)))
    with pytest.raises(StoreError):
        state_changes(store.reader, store.sealer, "acme")
