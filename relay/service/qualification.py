"""The qualification of a business user: the fields that its scenario requires before approval.

An approval covers the qualification as it is then, so any change of it needs a new approval. The business user
`default` is the operator's own and needs no qualification.
"""

from __future__ import annotations

from typing import Literal, get_args

from relay.errors import Refused
from relay.policy.quotas import DEFAULT_BUSINESS
from relay.store.businesses import Business, Terms

Scenario = Literal["express", "takeaway", "ride_hailing", "other"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

# The fields that an approval covers. A change of the contact needs none.
QUALIFICATION = tuple(name for name in Terms._fields if name != "contact")

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
