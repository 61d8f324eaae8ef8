"""All outcomes of records."""

from __future__ import annotations

from relay.policy.outcomes import OUTCOMES, REFUSALS

# DESIGN 5 and later additions; an outcome missing from OUTCOMES would be refused as a filter.
NAMED = (
    "answered busy no_answer rejected cancelled unreachable no_binding expired direction_barred number_unknown"
    " number_locked caller_not_allowed business_suspended over_limit store_failed failed"
    " delivered media_failed number_in_text draining legacy_ended verification_refused"
).split()


def test_outcomes_include_those_of_the_contract() -> None:
    assert set(NAMED) <= set(OUTCOMES)
    assert list(OUTCOMES) == sorted(set(OUTCOMES))


def test_refusals_are_outcomes_of_the_relay_itself() -> None:
    assert "no_binding" in REFUSALS
    assert not REFUSALS & {"answered", "busy", "cancelled"}
