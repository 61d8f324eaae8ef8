"""Evaluation of calls: routes, refusals, and their order."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from relay.config.parties import read_parties
from relay.config.tables import NumbersTable
from relay.model.call import PROBE_BUSINESS, Refusal, Route
from relay.model.numbers import KINDS
from relay.model.outcomes import (
    BUSINESS_BUSY,
    FREQUENCY_CALLER,
    NUMBER_BUSY,
)
from relay.policy.evaluate import CapCount
from relay.policy.rules import NO_LIMIT, Cap, Hours, PilotDates, Quotas, Recent
from tests.policy.cases import BOUND, FOREIGN, ID, NOW_S, C, found, judged, outcome
from tests.support.stored import NOW_MS, A, B, X, Y

ALL = read_parties(NumbersTable(parties=KINDS, countries=("GB",), extensions=("1000-1999",)), [])


@pytest.mark.parametrize(
    ("mode", "party", "y", "last_caller", "target", "shown", "direction"),
    [
        ("AXB", "a", None, None, B, X, "a_to_b"),
        ("AXB", "b", None, None, A, X, "b_to_a"),
        ("AXYB", "a", Y, None, B, Y, "a_to_b"),
        ("AXYB", "b", Y, None, A, X, "b_to_a"),
        ("GXB", "g", None, None, B, X, "a_to_b"),
        ("GXB", "b", None, C, C, X, "b_to_a"),
        ("GXB", "b", None, None, A, X, "b_to_a"),
        ("GXYB", "g", Y, None, B, Y, "a_to_b"),
        ("GXYB", "b", Y, C, C, X, "b_to_a"),
        ("GXYB", "b", Y, None, A, X, "b_to_a"),
        ("AXN", "*", None, None, A, X, "b_to_a"),
        ("AXN", "a", None, C, C, X, "a_to_b"),
        ("AXN", "a", None, None, B, X, "a_to_b"),
    ],
)
def test_each_mode_calls_the_party_of_its_table(
    mode: str, party: str, y: str | None, last_caller: str | None, target: str, shown: str, direction: str
) -> None:
    case = found(mode=mode, party=party, y=y, last_caller=last_caller)
    route = judged(case, caller="8613600000009")
    assert route == Route("b1", mode, "firm", "order-1", target, shown, direction=direction, industrial_id=ID)


@pytest.mark.parametrize(
    ("mode", "party"), [("GXB", "b"), ("GXYB", "b"), ("AXN", "a")], ids=["of a group", "of two numbers", "of anybody"]
)
def test_a_call_back_without_a_last_caller_is_refused(mode: str, party: str) -> None:
    case = found(mode=mode, party=party, a=None if party == "b" else A, b=None if party == "a" else B)
    assert judged(case, caller="8613600000009") == Refusal(
        "no_callee", 480, 20, None, "b1", mode, "firm", "order-1", industrial_id=ID
    )


def test_a_call_to_oneself_is_refused() -> None:
    assert outcome(judged(found(mode="GXB", party="g"), caller=B)) == "own_number"


def test_the_route_carries_the_limits_of_the_binding() -> None:
    case = found(max_call_s=60, ring_timeout_s=30, live_events=1, legacy=1, record=1)
    route = judged(case, phase="transition", verify=True)
    assert isinstance(route, Route)
    assert (route.max_call_s, route.ring_timeout_s) == (60, 30)
    assert route.live_events and route.legacy and route.verify and route.record


def test_the_route_carries_the_limits_on_concurrent_calls() -> None:
    route = judged(found(max_calls=9), max_calls_per_number=4)
    assert isinstance(route, Route)
    assert route.caps == (("business firm", 9, BUSINESS_BUSY), (f"number {X}", 4, NUMBER_BUSY))
    assert getattr(judged(found(max_calls=0)), "caps", None) == (("business firm", 0, BUSINESS_BUSY),)


def test_route_and_refusal_carry_the_qualification() -> None:
    for case in (found(qualification=3), found(qualification=3, entry="black"), found(qualification=3, ended_at=1)):
        assert judged(case).qualification == (None if case.bound and case.bound.ended_at else 3)


@pytest.mark.parametrize(
    ("business", "own", "most"), [("firm", None, 7), ("firm", 9, 9), ("firm", NO_LIMIT, None), ("default", None, None)]
)
def test_a_business_user_without_its_own_quota_has_the_configured_one(
    business: str, own: int | None, most: int | None
) -> None:
    route = judged(found(business=business, max_calls=own), quotas=Quotas(max_calls=7))
    caps = () if most is None else ((f"business {business}", most, BUSINESS_BUSY),)
    assert isinstance(route, Route) and route.caps == caps


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"locked": None}, ("number_unknown", 404, 1)),
        ({"locked": 4}, ("number_locked", 480, 31)),
        ({"legacy": 1}, ("legacy_ended", 410, 22)),
        ({"in_force": False}, ("no_binding", 403, 21)),
        ({"ended_at": NOW_MS - 1}, ("no_binding", 403, 21)),
        ({"expires_at": NOW_MS}, ("expired", 403, 21)),
        ({"expires_at": NOW_MS, "in_force": False}, ("expired", 403, 21)),
        ({"expires_at": NOW_MS, "ended_at": NOW_MS - 5}, ("no_binding", 403, 21)),
        ({"business_state": "applied"}, ("business_suspended", 403, 21)),
        ({"business_state": "suspended"}, ("business_suspended", 403, 21)),
        ({"business_state": None}, ("business_suspended", 403, 21)),
        ({"business_state": "revoked"}, ("business_revoked", 403, 21)),
        ({"direction": "b_to_a"}, ("direction_barred", 403, 21)),
        ({"entry": "black"}, ("caller_blacklisted", 403, 21)),
        ({"white_only": 1}, ("caller_not_listed", 403, 21)),
        ({"business_white_only": 1}, ("caller_not_listed", 403, 21)),
        ({"hours": "08:01-22:00"}, ("outside_hours", 480, 31)),
        ({"business_hours": "22:00-08:00"}, ("outside_hours", 480, 31)),
        ({"b": None}, ("no_callee", 480, 20)),
        ({"b": A}, ("own_number", 403, 21)),
    ],
)
def test_refusals(changes: dict[str, object], refusal: tuple[str, int, int]) -> None:
    answer = judged(found(**changes))
    assert isinstance(answer, Refusal)
    assert answer[:3] == refusal
    named = (answer.binding_id, answer.mode, answer.business, answer.order_id)
    assert named == ((None,) * 4 if answer.outcome == "no_binding" else ("b1", "AXB", "firm", "order-1"))
    assert answer.industrial_id == (None if answer.outcome == "no_binding" else ID)


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_at": NOW_MS + 1},
        {"direction": "a_to_b"},
        {"direction": "b_to_a", "party": "b", "a": B, "b": A},
        {"direction": "b_to_a", "mode": "AXN", "party": "*", "a": B},
        {"direction": "a_to_b", "mode": "GXB", "party": "g"},
        {"entry": "white", "white_only": 1, "business_white_only": 1},
        {"entry": "white"},
        {"hours": "08:00-08:01", "business_hours": "22:00-08:01"},
        {"hours": "", "business_hours": ""},
    ],
)
def test_granted_calls(changes: dict[str, object]) -> None:
    assert outcome(judged(found(**changes))) == "granted"


def test_a_caller_without_a_route_has_no_binding() -> None:
    assert judged(found()._replace(bound=None)) == Refusal("no_binding", 403, 21)


@pytest.mark.parametrize(
    ("caller", "rules", "expected"),
    [
        ("", {}, "caller_anonymous"),
        ("", {"anonymous_allowed": True}, "granted"),
        (FOREIGN, {}, "caller_international"),
        (FOREIGN, {"international_allowed": True}, "granted"),
        (C, {}, "granted"),
        ("1001", {}, "granted"),  # an extension
        (Y, {}, "no_binding"),  # a 700 number is never a caller
        (Y, {"international_allowed": True}, "no_binding"),
    ],
)
def test_callers_that_are_not_a_party(caller: str, rules: dict[str, object], expected: str) -> None:
    case = found(mode="AXN", party="*", is_own=False)
    assert outcome(judged(case, caller=caller, **rules)) == expected


LANDLINE = "861088886666"


@pytest.mark.parametrize(
    ("caller", "rules", "expected"),
    [
        (FOREIGN, {}, "caller_international"),
        (FOREIGN, {"international_allowed": True}, "caller_international"),  # a party, not just any caller
        (FOREIGN, {"parties": ALL}, "granted"),
        (LANDLINE, {}, "party_not_allowed"),
        (LANDLINE, {"parties": ALL}, "granted"),
        ("1001", {}, "party_not_allowed"),
        ("1001", {"parties": ALL}, "granted"),
        ("2001", {"parties": ALL}, "party_not_allowed"),
    ],
)
def test_a_party_calls_and_is_called_only_while_it_may_be_bound(
    caller: str, rules: dict[str, object], expected: str
) -> None:
    """The binding may be older than the configuration."""
    assert outcome(judged(found(a=caller), caller=caller, **rules)) == expected
    called = expected.replace("caller_international", "party_not_allowed")
    answer = judged(found(party="b", a=caller), caller=B, **rules)
    assert outcome(answer) == called
    if isinstance(answer, Refusal):
        assert answer[:3] == ("party_not_allowed", 403, 21)
        assert (answer.binding_id, answer.order_id) == ("b1", "order-1")


NO_PARTIES = [FOREIGN, LANDLINE, "1001", "110", "8695588", "700100000010001"]


@pytest.mark.parametrize("last_caller", NO_PARTIES)
def test_a_call_back_skips_a_last_caller_that_may_not_be_a_party(last_caller: str) -> None:
    """Anybody may call an AXN without being a party."""
    answer = judged(found(mode="AXN", last_caller=last_caller), caller="8613600000009")
    assert isinstance(answer, Route) and answer.callee == B
    assert outcome(judged(found(mode="AXN", last_caller=last_caller, b=None))) == "no_callee"


@pytest.mark.parametrize("mode", ["GXB", "GXYB"])
@pytest.mark.parametrize("last_caller", NO_PARTIES)
def test_a_call_back_to_a_member_that_may_no_longer_be_a_party_is_refused(mode: str, last_caller: str) -> None:
    case = found(mode=mode, party="b", last_caller=last_caller)
    assert outcome(judged(case, caller="8613600000009")) == "party_not_allowed"


def test_anybody_may_call_an_axn_from_a_landline() -> None:
    assert outcome(judged(found(mode="AXN", party="*", is_own=False), caller=LANDLINE)) == "granted"


def test_a_700_number_as_caller_learns_nothing_of_the_number() -> None:
    answer = judged(found(mode="AXN", party="*", is_own=False), caller=Y)
    assert answer == Refusal("no_binding", 403, 21)
    assert judged(found(is_own=False)._replace(bound=None), caller=Y) == answer


@pytest.mark.parametrize("caller", ["", FOREIGN])
def test_anonymous_and_foreign_callers_get_the_same_refusal_on_any_number(caller: str) -> None:
    case = found(is_own=False)._replace(bound=None)
    assert outcome(judged(case, caller=caller)) == ("caller_international" if caller else "caller_anonymous")


@pytest.mark.parametrize(
    ("phase", "until_ms", "expected"),
    [
        ("preparation", None, "granted"),
        ("transition", None, "granted"),
        ("transition", NOW_MS + 1, "granted"),
        ("transition", NOW_MS, "legacy_ended"),
        ("pilot", None, "legacy_ended"),
        ("pilot", NOW_MS + 1, "legacy_ended"),
    ],
)
def test_legacy_numbers_work_until_their_date_or_the_pilot(phase: str, until_ms: int | None, expected: str) -> None:
    answer = judged(found(legacy=1), phase=phase, legacy_until_ms=until_ms)
    assert outcome(answer) == expected
    assert isinstance(answer, Refusal) or answer.legacy


def test_by_the_dates_legacy_numbers_end_with_the_first_millisecond_of_the_pilot() -> None:
    for dates, expected in (
        (PilotDates(pilot_ms=NOW_MS + 1), "granted"),
        (PilotDates(pilot_ms=NOW_MS), "legacy_ended"),
    ):
        assert outcome(judged(found(legacy=1), phase="auto", dates=dates)) == expected


def test_after_the_pilot_live_bindings_work_until_their_expiry_and_those_without_one_are_refused() -> None:
    over, soon = PilotDates(ends_ms=NOW_MS), PilotDates(ends_ms=NOW_MS + 1)
    assert outcome(judged(found(expires_at=NOW_MS + 1), dates=over)) == "granted"
    assert outcome(judged(found(expires_at=NOW_MS), dates=over)) == "expired"
    assert outcome(judged(found(), dates=over)) == "phase_over"
    assert outcome(judged(found(), dates=soon)) == "granted"


def test_the_operator_s_hours_apply_to_all_bindings() -> None:
    assert outcome(judged(found(), hours=Hours(480, 1_320))) == "granted"
    assert outcome(judged(found(hours="00:00-24:00"), hours=Hours(481, 1_320))) == "outside_hours"
    night = datetime(2026, 1, 1, 14, 0, tzinfo=UTC).timestamp()  # 22:00 in China
    assert outcome(judged(found(), at_s=night, hours=Hours(480, 1_320))) == "outside_hours"


@pytest.mark.parametrize(
    ("locked", "expected"),
    [(1, "number_locked"), (2, "number_locked"), (4, "number_locked"), (8, "granted"), (9, "number_locked")],
)
def test_a_number_that_is_only_held_from_bindings_takes_calls(locked: int, expected: str) -> None:
    assert outcome(judged(found(locked=locked))) == expected


REASONS: list[tuple[str, dict[str, object]]] = [
    ("number_locked", {"locked": 1}),
    ("legacy_ended", {"legacy": 1}),
    ("caller_international", {"is_own": False}),
    ("expired", {"expires_at": 1}),
    ("business_suspended", {"business_state": "suspended"}),
    ("direction_barred", {"direction": "b_to_a"}),
    ("caller_blacklisted", {"entry": "black"}),
    ("outside_hours", {"hours": "09:00-10:00"}),
    ("caller_international", {}),
    ("no_callee", {"b": None}),
]


@pytest.mark.parametrize("place", range(len(REASONS)))
def test_the_first_applying_refusal_is_given(place: int) -> None:
    """With all refusals from one on applying, the first is given."""
    changes: dict[str, object] = {}
    for _, change in REASONS[place:]:
        changes |= change
    rules = {"parties": ALL} if REASONS[place][0] == "no_callee" else {}
    assert outcome(judged(found(**changes), caller=FOREIGN, **rules)) == REASONS[place][0]


# -- frequency caps


def test_the_caller_s_cap_is_checked_before_the_number_s() -> None:
    recent = Recent()
    for _ in range(3):
        recent.note(1, NOW_S - 299)
        recent.note(2, NOW_S - 299)
    caps = (Cap(3, 300),)
    assert outcome(judged(found(), recent=recent, caller_caps=caps, number_caps=caps)) == "frequency_caller"
    assert outcome(judged(found(), recent=recent, number_caps=caps)) == "frequency_number"
    assert outcome(judged(found(), recent=recent, caller_caps=(Cap(4, 300),))) == "granted"
    assert outcome(judged(found(), recent=recent, at_s=NOW_S + 1, caller_caps=caps, number_caps=caps)) == "granted"


def test_each_cap_has_its_own_window() -> None:
    recent = Recent()
    recent.note(1, NOW_S - 599)
    recent.note(1, NOW_S - 10)
    assert outcome(judged(found(), recent=recent, caller_caps=(Cap(2, 300), Cap(3, 600)))) == "granted"
    assert outcome(judged(found(), recent=recent, caller_caps=(Cap(2, 300), Cap(2, 600)))) == "frequency_caller"


def test_long_windows_add_the_store_s_count() -> None:
    recent = Recent()
    recent.note(1, NOW_S - 800)
    caps = (Cap(9, 600), Cap(10, 86_400), Cap(20, 43_200))
    assert outcome(judged(found(earlier_by_caller=(8, 8)), recent=recent, caller_caps=caps)) == "granted"
    assert outcome(judged(found(earlier_by_caller=(9, 9)), recent=recent, caller_caps=caps)) == "frequency_caller"
    assert outcome(judged(found(earlier_by_caller=(0, 19)), recent=recent, caller_caps=caps)) == "frequency_caller"
    assert outcome(judged(found(earlier_by_number=(10,)), recent=recent, number_caps=caps[1:2])) == "frequency_number"


def test_other_refusals_come_before_frequency_caps() -> None:
    recent = Recent()
    recent.note(1, NOW_S)
    assert outcome(judged(found(entry="black"), recent=recent, caller_caps=(Cap(1, 60),))) == "caller_blacklisted"


def test_the_default_case_is_granted() -> None:
    assert judged(found()) == Route("b1", "AXB", "firm", "order-1", B, X, direction="a_to_b", industrial_id=ID)
    assert BOUND.party == "a"


# -- the probe


def test_caps_hours_and_hook_do_not_hold_for_the_probe() -> None:
    caps, night = (Cap(0, 300),), Hours(481, 482)
    for rules in ({"caller_caps": caps}, {"number_caps": caps}, {"hours": night}):
        assert outcome(judged(found(), **rules)) != "granted"
        assert outcome(judged(found(business=PROBE_BUSINESS), **rules)) == "granted"
    counted = CapCount((), FREQUENCY_CALLER)  # by a server
    for business, expected in (("firm", "frequency_caller"), (PROBE_BUSINESS, "granted")):
        case = found(business=business)._replace(counted=counted)
        assert outcome(judged(case, caller_caps=caps)) == expected
    route = judged(found(business=PROBE_BUSINESS), verify=True)
    assert isinstance(route, Route) and not route.verify


def test_other_refusals_hold_for_the_probe() -> None:
    assert outcome(judged(found(business=PROBE_BUSINESS, business_state="suspended"))) == "business_suspended"
    assert outcome(judged(found(business=PROBE_BUSINESS, hours="09:00-10:00"))) == "outside_hours"
