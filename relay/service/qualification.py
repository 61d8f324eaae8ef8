"""What a business user must show before it may bind numbers, by what its numbers are for.

An approval is of the qualification as it is then: whatever of it changes has to be approved again. The business user
`default` is the operator's own and shows none.
"""

from __future__ import annotations

from typing import Literal, get_args

from relay.errors import Refused
from relay.policy.quotas import DEFAULT_BUSINESS
from relay.store.businesses import Business, Terms

Scenario = Literal["express", "takeaway", "ride_hailing", "other"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)

# Of what is kept of each change, what an approval is of: a contact may change without one.
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
    """Raises Refused with all that its scenario asks for and that it lacks."""
    if business.id == DEFAULT_BUSINESS:
        return
    missing = {field: words for field, words in REQUIRED[business.scenario].items() if not getattr(business, field)}
    if missing:
        named = "; ".join(f"{field}: {words}" for field, words in missing.items())
        problem = (
            f"the scenario {business.scenario} needs what is missing. {named}. Enter it (`relay700 business change ID`)"
        )
        raise Refused(
            "unqualified", "", problem, tuple((field, f"it is missing: {words}") for field, words in missing.items())
        )


def changes_qualification(old: Business, new: Business) -> bool:
    """Whether `new` has to be approved, as `old` was."""
    if old.state not in ("approved", "suspended") or old.id == DEFAULT_BUSINESS:
        return False
    return any(getattr(old, name) != getattr(new, name) for name in QUALIFICATION)
