"""The rules for business users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from relay.errors import Refused
from relay.service import businesses
from relay.service.businesses import STEPS, Step
from relay.store.audit import AuditQuery, all_entries
from relay.store.businesses import Business, find_business, list_businesses, state_changes
from tests.support.acting import Acting, acting, key_of
from tests.support.papers import apply
from tests.support.stored import NOW_MS

CONTACT = "Li Lei 13800000001"
ACME = {
    "licence": "91310000", "application": "MIIT-2026-7", "scenario": "express", "scheme": "scheme 3", "contact": CONTACT
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Acting]:
    with acting(tmp_path) as store:
        yield store


def applied(store: Acting, name: str = "Acme 快递", business_id: str = "acme", **fields: Any) -> Business:
    return store.run(lambda unit: apply(unit, name, business_id, **ACME | fields))


def stepped(store: Acting, *steps: Step) -> Business:
    for step in steps:
        business = store.run(lambda unit, step=step: businesses.set_state(unit, "acme", step, f"because of {step}"))
    return business


def refused(store: Acting, do: Any, **run: Any) -> tuple[str, str]:
    with pytest.raises(Refused) as refusal:
        store.run(do, **run)
    return refusal.value.kind, refusal.value.field


def test_apply_stores_all_fields(store: Acting) -> None:
    made = applied(store, max_calls=30, modes=["AXN", "AXB"], hours="08:00-22:00")
    assert made.state == "applied"
    assert made.modes == ("AXB", "AXN")
    assert (made.name, made.scenario, made.contact, made.max_calls) == ("Acme 快递", "express", CONTACT, 30)
    assert find_business(store.reader, store.sealer, "acme") == made


def test_apply_generates_a_missing_id(store: Acting) -> None:
    first, second = applied(store, "A", ""), applied(store, "B", "")
    assert first.id != second.id and len(first.id) == 13


def test_apply_refuses_a_taken_id(store: Acting) -> None:
    applied(store)
    with pytest.raises(Refused, match=r"exists already: .* or `relay700 business change acme`") as error:
        store.run(lambda unit: apply(unit, "Acme", "acme"))
    assert (error.value.kind, error.value.field) == ("state_conflict", "id")


@pytest.mark.parametrize("step", list(STEPS))
@pytest.mark.parametrize(
    ("before", "allowed"),
    [
        ((), {"approve": "approved", "revoke": "revoked"}),
        (("approve",), {"suspend": "suspended", "revoke": "revoked"}),
        (("approve", "suspend"), {"resume": "approved", "revoke": "revoked"}),
        (("approve", "suspend", "resume"), {"suspend": "suspended", "revoke": "revoked"}),
        (("approve", "revoke"), {}),
    ],
)
def test_a_step_is_refused_outside_its_states(
    store: Acting, before: tuple[Step, ...], allowed: dict[str, str], step: Step
) -> None:
    applied(store)
    if before:
        stepped(store, *before)
    if step in allowed:
        assert stepped(store, step).state == allowed[step]
    else:
        kept = find_business(store.reader, store.sealer, "acme")
        assert refused(store, lambda unit: businesses.set_state(unit, "acme", step, "why")) == (
            "state_conflict",
            "state",
        )
        assert find_business(store.reader, store.sealer, "acme") == kept


def test_each_step_is_recorded_with_reason_actor_and_time(store: Acting) -> None:
    applied(store)
    store.now_ms += 5
    stepped(store, "approve", "suspend")
    assert [change[:4] for change in state_changes(store.reader, store.sealer, "acme")] == [
        ("applied", "", "relay", NOW_MS),
        ("approved", "because of approve", "relay", NOW_MS + 5),
        ("suspended", "because of suspend", "relay", NOW_MS + 5),
    ]
    log = [logged.entry for logged in all_entries(store.reader, store.sealer, AuditQuery(object_="acme"))]
    assert [(entry.action, entry.reason) for entry in log] == [
        ("business.apply", ""),
        ("business.approve", "because of approve"),
        ("business.suspend", "because of suspend"),
    ]


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * 501])
def test_a_step_requires_a_reason(store: Acting, reason: str) -> None:
    applied(store)
    assert refused(store, lambda unit: businesses.set_state(unit, "acme", "approve", reason)) == ("invalid", "reason")


def test_a_change_writes_the_given_fields_only(store: Acting) -> None:
    before = applied(store, max_cps=5)
    store.now_ms += 9
    after = store.run(lambda unit: businesses.change(unit, "acme", hours="22:00-06:00", max_cps=None, white_only=True))
    assert after == before._replace(
        hours="22:00-06:00", max_cps=None, white_only=True, version=2, updated_at=NOW_MS + 9
    )
    assert find_business(store.reader, store.sealer, "acme") == after


def test_a_change_of_an_older_version_is_refused(store: Acting) -> None:
    applied(store)
    store.run(lambda unit: businesses.change(unit, "acme", 1, name="Acme"))
    assert refused(store, lambda unit: businesses.change(unit, "acme", 1, name="Other")) == (
        "state_conflict",
        "version",
    )


def test_a_revoked_business_user_cannot_be_changed(store: Acting) -> None:
    applied(store)
    stepped(store, "revoke")
    assert refused(store, lambda unit: businesses.change(unit, "acme", name="Acme")) == ("state_conflict", "state")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", "x" * 129),
        ("contact", "a\0b"),
        ("scenario", "taxi"),
        ("modes", []),
        ("modes", ["AXB", "AXX"]),
        ("max_calls", -1),
        ("max_bindings", 1 << 63),
        ("hours", "8-22"),
    ],
)
def test_an_invalid_field_is_named(field: str, value: object) -> None:
    with pytest.raises(Refused) as refusal:
        businesses.parsed({field: value})
    assert (refusal.value.kind, refusal.value.field) == ("invalid", field)


@pytest.mark.parametrize("name", ["a b", "-a", "x" * 65, "快递", "a/b"])
def test_an_invalid_id_is_refused(store: Acting, name: str) -> None:
    assert refused(store, lambda unit: apply(unit, "A", name)) == ("invalid", "id")


def test_another_business_user_looks_like_a_missing_one(store: Acting) -> None:
    applied(store)
    applied(store, "Other", "other")
    other = key_of("other", "keys")
    for business_id in ("acme", "nobody"):
        assert refused(store, lambda unit, of=business_id: businesses.get(unit, of), actor=other) == (
            "not_found",
            "business",
        )
    assert [business.id for business in list_businesses(store.reader, store.sealer, "other", None, "", 9)] == ["other"]


@pytest.mark.parametrize("name", ["\udcff", "a\0b", ""])
def test_an_unprintable_id_is_not_found(store: Acting, name: str) -> None:
    """A command line may hold bytes that are not text."""
    assert refused(store, lambda unit: businesses.get(unit, name)) == ("not_found", "business")


def test_a_list_continues_after_the_given_id(store: Acting) -> None:
    for name in ("c", "a", "b"):
        applied(store, name, name)
    first = list_businesses(store.reader, store.sealer, None, None, "", 2)
    rest = list_businesses(store.reader, store.sealer, None, None, first[-1].id, 9)
    assert [business.id for business in [*first, *rest]] == ["a", "b", "c", "default"]
    assert [business.id for business in list_businesses(store.reader, store.sealer, None, "approved", "", 9)] == [
        "default"
    ]
