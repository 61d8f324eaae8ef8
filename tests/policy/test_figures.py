"""The figures of the checks, in the words of an operator."""

from __future__ import annotations

import pytest

from relay.model.outcomes import NO_CALLEE, OWN_NUMBER, PARTY_NOT_ALLOWED
from relay.policy.evaluate import OF_BINDING, OF_NUMBER, DialledCall
from relay.policy.figures import (
    FIGURES_OF_BINDING,
    FIGURES_OF_NUMBER,
    CapCounts,
    figures_of_callee,
    figures_of_caps,
)
from relay.policy.rules import Cap, Hours, Rules
from tests.policy.cases import NOW_S, found
from tests.support.stored import NOW_MS, A, B, X

ASKED = DialledCall(X, A, NOW_S, 1, 2)


def test_each_check_has_its_figures() -> None:
    assert list(FIGURES_OF_NUMBER) == list(OF_NUMBER)
    assert list(FIGURES_OF_BINDING) == list(OF_BINDING)


@pytest.mark.parametrize(
    ("check", "changes", "rules", "figures"),
    [
        ("number", {"locked": 0}, {}, "not locked or held"),
        ("number", {"locked": None}, {}, "no such number"),
        ("number", {"locked": 3}, {}, "locked by operator and fraud"),
        ("legacy number", {}, {}, "no"),
        ("legacy number", {"legacy": 1}, {"legacy_until_ms": NOW_MS}, "yes; phase pilot, until 2026-01-01T00:00:00Z"),
        ("caller", {}, {}, "has its own route on the number"),
        ("caller", {"is_own": False}, {}, "without a route of its own; other countries allowed: no"),
        ("binding in force", {}, {}, "no expiry"),
        ("binding in force", {"in_force": 0}, {}, "a former route"),
        ("binding in force", {"expires_at": NOW_MS + 1000}, {}, "expires 2026-01-01T00:00:01Z"),
        ("binding in force", {"expires_at": NOW_MS}, {}, "expired 2026-01-01T00:00:00Z"),
        ("binding in force", {"ended_at": NOW_MS}, {}, "unbound at 2026-01-01T00:00:00Z"),
        ("business", {}, {}, "firm: approved"),
        ("business", {"business_state": None}, {}, "firm: unknown"),
        ("direction", {"direction": "b_to_a"}, {}, "a_to_b; allowed: b_to_a"),
        ("lists", {}, {}, "on no list"),
        ("lists", {"white_only": 1, "entry": "white"}, {}, "list: white; only white callers"),
        ("hours", {}, {}, "hours any, now 08:00 in China"),
        (
            "hours",
            {"hours": "22:00-06:30"},
            {"hours": Hours(480, 1200)},
            "hours 08:00-20:00 and 22:00-06:30, now 08:00 in China",
        ),
        ("caller as party", {}, {}, "mobile"),
        ("caller as party", {"party": "*"}, {}, "anybody may call"),
        ("filing", {}, {}, "not required"),
        ("filing", {"filed_until": 0}, {"filing_required": True}, "A number not filed"),
    ],
)
def test_figures(check: str, changes: dict[str, object], rules: dict[str, object], figures: str) -> None:
    case, made = found(**changes), Rules(**rules)  # type: ignore[arg-type]
    assert case.bound is not None
    if check in FIGURES_OF_NUMBER:
        assert FIGURES_OF_NUMBER[check](case, ASKED, made) == figures
    else:
        assert FIGURES_OF_BINDING[check](case.bound, ASKED, made) == figures


def test_an_anonymous_caller_is_told_as_such() -> None:
    asked = DialledCall(X, "", NOW_S, 1, 2)
    assert FIGURES_OF_NUMBER["caller"](found(is_own=False), asked, Rules()) == "anonymous; allowed: no"


def test_the_called_party_is_told_by_its_kind() -> None:
    told = [figures_of_callee(target, Rules()) for target in (B, "110", NO_CALLEE, OWN_NUMBER, PARTY_NOT_ALLOWED)]
    assert told == ["mobile", "may not be a party", "none", "the caller itself", "may not be a party"]


def test_caps_are_told_in_whole_units() -> None:
    rules = Rules(caller_caps=(Cap(3, 300), Cap(9, 90)), number_caps=(Cap(50, 86_400),))
    told = figures_of_caps(rules, CapCounts((2, 2), (7,)))
    assert told == "caller 3 per 5 min: 2 used; caller 9 per 90 s: 2 used; number 50 per 24 h: 7 used"
    assert figures_of_caps(Rules(), CapCounts()) == "no cap"
