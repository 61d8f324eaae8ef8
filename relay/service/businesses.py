"""Business users: application, approval, suspension, revocation, and the qualification that approval requires.

An approval covers the qualification as it is then, so any change of it needs a new approval. The business user
`default` is the operator's own and needs no qualification.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypedDict, Unpack, cast, get_args

from relay.errors import AuditedRefusal, Refused
from relay.model.binding import MODES, Mode
from relay.model.call import LANGUAGES, PROBE_BUSINESS, Language
from relay.policy.rules import DEFAULT_BUSINESS, NO_LIMIT
from relay.service import fields
from relay.service.fields import invalid
from relay.store.businesses import (
    Business,
    QualificationTerms,
    State,
    add_business,
    add_state_change,
    find_business,
    put_business,
)
from relay.store.hooks import remove_hook
from relay.store.keys import revoke_all
from relay.store.papers import owner_of, papers_of
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.webhooks import disable_all

Scenario = Literal["express", "takeaway", "ride_hailing", "other"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

# The fields that an approval covers. A change of the contact needs none.
QUALIFICATION = tuple(name for name in QualificationTerms._fields if name != "contact")

_OF_ALL = {
    "application": "reference of its application for the pilot",
    "scheme": "reference of its technical scheme",
    "contact": "person and phone",
}
REQUIRED: dict[str, dict[str, str]] = {
    "express": {"licence": "number of its courier service permit (快递业务经营许可证)", **_OF_ALL},
    "takeaway": {"licence": "number of its food business permit (食品经营许可证) or platform filing", **_OF_ALL},
    "ride_hailing": {"licence": "number of its online ride-hailing permit (网络预约出租汽车经营许可证)", **_OF_ALL},
    "other": {"licence": "number of its business licence (统一社会信用代码)", **_OF_ALL},
}


def check_complete(business: Business) -> None:
    """Raise Refused with all missing fields that the scenario requires."""
    if business.id == DEFAULT_BUSINESS:
        return
    missing = {field: words for field, words in REQUIRED[business.scenario].items() if not getattr(business, field)}
    if missing:
        named = "; ".join(f"{field}: {words}" for field, words in missing.items())
        problem = f"missing for the scenario {business.scenario}: {named}. Set it with `relay700 business change ID`"
        raise Refused(
            "unqualified", "", problem, tuple((field, f"required: {words}") for field, words in missing.items())
        )


def changes_qualification(old: Business, new: Business) -> bool:
    """Whether the change from `old`, which was approved, to `new` needs a new approval."""
    if old.state not in ("approved", "suspended") or old.id == DEFAULT_BUSINESS:
        return False
    return any(getattr(old, name) != getattr(new, name) for name in QUALIFICATION)


# -- The rules of business users

Step = Literal["approve", "suspend", "resume", "revoke"]
LARGEST_LIMIT = 1_000_000_000
LONGEST = {"name": 128, "licence": 64, "application": 128, "scheme": 256, "contact": 256}

# Step -> (states it is allowed in, resulting state).
STEPS: dict[Step, tuple[tuple[State, ...], State]] = {
    "approve": (("applied",), "approved"),
    "suspend": (("approved",), "suspended"),
    "resume": (("suspended",), "approved"),
    "revoke": (("applied", "approved", "suspended"), "revoked"),
}


QUOTAS = ("max_bindings", "max_calls", "max_cps", "max_binds_per_s", "max_binds_per_day")


class Fields(TypedDict, total=False):
    """The fields of a business user that a change gives. Quotas: None is the configured one, NO_LIMIT is unlimited."""

    name: str
    licence: str
    application: str
    scenario: Scenario
    scheme: str
    contact: str
    modes: tuple[Mode, ...]
    max_bindings: int | None
    max_calls: int | None
    max_cps: int | None
    max_binds_per_s: int | None
    max_binds_per_day: int | None
    white_only: bool
    hours: str | None
    live_events: bool
    language: Language | None


def apply(unit: UnitOfWork, asked: Fields, business_id: str = "") -> Business:
    """Make a business user, which can do nothing until it is approved. Without an id one is generated. Raises Refused.

    `name` is required.
    """
    new_id = fields.name("id", business_id) if business_id else f"b{secrets.token_hex(6)}"
    if new_id == PROBE_BUSINESS and unit.actor != RELAY:
        raise invalid("id", "reserved for the probe: choose another id")
    business = _NEW._replace(id=new_id, created_at=unit.now_ms, updated_at=unit.now_ms, **asked)
    if not add_business(unit, business):
        raise Refused(
            "state_conflict", "id", f"exists already: choose another id, or `relay700 business change {new_id}`"
        )
    add_state_change(unit, None, business, "")
    details = {name: getattr(business, name) for name in QualificationTerms._fields} | {"modes": business.modes} | asked
    unit.audit("business.apply", business.id, business=business.id, details=_details(details))
    return business


_NEW = Business(
    id="",
    state="applied",
    name="",
    licence="",
    application="",
    scenario="other",
    scheme="",
    contact="",
    modes=MODES,
    max_bindings=None,
    max_calls=None,
    max_cps=None,
    max_binds_per_s=None,
    max_binds_per_day=None,
    live_bindings=0,
    white_only=False,
    hours=None,
    live_events=False,
    language=None,
    version=1,
    created_at=0,
    updated_at=0,
    qualification=1,
)


def set_state(unit: UnitOfWork, business_id: str, step: Step, reason: str, required: Sequence[str] = ()) -> Business:
    """Take a step, effective from the next call on all of its bindings. Raises Refused.

    Approval requires the fields that the scenario needs, and papers of the kinds in `required`. Revocation also ends
    all keys, disables all webhooks and removes the hook. The audit log has a refused step, too.
    """
    reason = fields.reason(reason, required=True)
    business = get(unit, business_id)
    to_state = STEPS[step][1]
    try:
        _check_step(business, step)
        papers = _papers(unit, business, required) if to_state == "approved" else []
    except Refused as refused:
        refused.attempt = AuditedRefusal(f"business.{step}", business_id, reason)
        raise
    wanted = business._replace(state=to_state)
    changed = _put(unit, wanted._replace(qualification=business.version + 1) if step == "approve" else wanted)
    add_state_change(unit, business, changed, reason, papers)
    details: dict[str, object] = {"version": changed.version} | ({"papers": papers} if papers else {})
    if to_state == "revoked":  # it loses access to the platform's records
        details["keys"] = revoke_all(unit, business_id)
        disable_all(unit, business_id)
        remove_hook(unit, business_id)
    unit.audit(f"business.{step}", business_id, business=business_id, reason=reason, details=details)
    return changed


def _check_step(business: Business, step: Step) -> None:
    """Raise Refused if the business user cannot take the step."""
    from_states, to_state = STEPS[step]
    if business.state not in from_states:
        problem = f"the business user is {business.state}: {step} requires {' or '.join(from_states)}"
        raise Refused("state_conflict", "state", problem)
    if to_state == "approved":
        check_complete(business)


def required_kinds(business: Business, required: Sequence[str]) -> list[str]:
    """The kinds of papers that the business user needs: those without a scenario, or with its own."""
    if business.id == DEFAULT_BUSINESS:
        return []
    asked = (each.rpartition(":") for each in required)
    return [kind for scenario, _, kind in asked if scenario in ("", business.scenario)]


def _papers(unit: UnitOfWork, business: Business, required: Sequence[str]) -> list[str]:
    """The versions of papers that an approval rests on. Raises Refused with all kinds that are missing."""
    kinds = required_kinds(business, required)
    held = papers_of(unit.connection, unit.sealer, owner_of("business", business.id)) if kinds else []
    found = {paper.kind: paper for paper in held if paper.is_in_force(unit.now_ms)}
    if missing := [kind for kind in kinds if kind not in found]:
        problem = f"papers missing, not accepted or not in force: {', '.join(missing)}. See `relay700 papers list`"
        raise Refused("unqualified", "papers", problem)
    return [f"{kind} version {found[kind].version}, sha256 {found[kind].sha256}" for kind in sorted(found)]


def change(
    unit: UnitOfWork, business_id: str, version: int | None = None, reason: str | None = None, **asked: Unpack[Fields]
) -> Business:
    """Change the given fields. `version`, if given, must be the current version. Raises Refused.

    A change of the qualification requires a reason and returns an approved business user to `applied`: its calls are
    refused until it is approved again.
    """
    business = get(unit, business_id)
    if version not in (None, business.version):
        problem = f"must be the current version, {business.version}: read the business user again"
        raise Refused("state_conflict", "version", problem)
    if business.state == "revoked":
        raise Refused("state_conflict", "state", "the business user is revoked and cannot be changed")
    if not asked:
        return business
    wanted = business._replace(**asked)
    requalified = changes_qualification(business, wanted)
    reason = fields.reason(reason or "")
    if requalified and not fields.says_something(reason):
        problem = "required: the qualification changes, and calls are refused until it is approved again"
        raise invalid("reason", problem)
    if wanted.state == "approved" and wanted.contact != business.contact:
        check_complete(wanted)
    changed = _put(unit, wanted._replace(state="applied") if requalified else wanted)
    if any(getattr(business, name) != getattr(changed, name) for name in QualificationTerms._fields):
        add_state_change(unit, business, changed, reason)
    details = _details(asked) | {"state": changed.state, "version": changed.version}
    unit.audit("business.change", business_id, business=business_id, reason=reason, details=details)
    return changed


def get(unit: UnitOfWork, business_id: str) -> Business:
    """The business user. Raises Refused if it does not exist or is not visible to the actor."""
    seen = unit.actor.business in (None, business_id) and business_id.isprintable()
    business = find_business(unit.connection, unit.sealer, business_id) if seen else None
    if business is None:
        raise Refused("not_found", "business", "there is no such business user")
    return business


def raised_by(quota: str) -> str:
    """The fix for an exhausted quota, for the text of a refusal."""
    return f"an operator can raise it (`relay700 business limits ID --{quota.replace('_', '-')} N`)"


def _put(unit: UnitOfWork, business: Business) -> Business:
    changed = business._replace(version=business.version + 1, updated_at=unit.now_ms)
    put_business(unit, changed)
    return changed


def _details(given: Mapping[str, Any]) -> dict[str, object]:
    return {field: list(value) if field == "modes" else value for field, value in given.items()}


# -- The fields from text


def parsed(written: Mapping[str, Any]) -> Fields:
    """The fields as people and programs write them, in normal form. Raises Refused for the first invalid one."""
    return cast(Fields, {field: _PARSERS[field](field, value) for field, value in written.items()})


def parse_text(field: str, written: str | None) -> str:
    """A text of the terms in normal form; None removes it. Raises Refused; a name is required."""
    text = fields.text(field, written or "", LONGEST[field]) or ""
    if field == "name" and not text:
        raise invalid(field, "required")
    return text


def _scenario(field: str, written: str) -> Scenario:
    for known in SCENARIOS:
        if known == written:
            return known
    raise invalid(field, f"must be one of: {', '.join(SCENARIOS)}")


def _modes(field: str, written: Collection[str]) -> tuple[Mode, ...]:
    if not written or not set(written) <= set(MODES):
        raise invalid(field, f"must be one or more of: {', '.join(MODES)}")
    return in_order(written)


def in_order(modes: Collection[str]) -> tuple[Mode, ...]:
    """The modes in the order of MODES, each once."""
    return tuple(mode for mode in MODES if mode in modes)


def _limit(field: str, value: int | None) -> int | None:
    if value is not None and value != NO_LIMIT and not 0 <= value <= LARGEST_LIMIT:
        raise invalid(field, f"must be 0 to {LARGEST_LIMIT}, none for no limit, or unset for the configured one")
    return value


def _hours(_: str, written: str | None) -> str | None:
    return fields.hours(written or "")


def _language(field: str, written: str | None) -> Language | None:
    for known in LANGUAGES:
        if written in (None, known):
            return None if written is None else known
    raise invalid(field, f"must be one of: {', '.join(LANGUAGES)}; or unset for the configured one")


def _flag(_: str, value: bool) -> bool:
    return bool(value)


_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(LONGEST, parse_text),
    **dict.fromkeys(QUOTAS, _limit),
    **dict.fromkeys(("white_only", "live_events"), _flag),
    "scenario": _scenario,
    "modes": _modes,
    "hours": _hours,
    "language": _language,
}
