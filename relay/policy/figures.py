"""The figures of each check of a call, as `relay.policy.explain` shows them. None holds a real number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from relay.model.call import Refusal
from relay.model.numbers import LOCKED_BY_OPERATOR, LOCKED_FOR_FRAUD, LOCKED_WITH_PREFIX, Parties
from relay.policy.evaluate import BindingContext, DialledCall, LookupResult, direction_of
from relay.policy.rules import Cap, Hours, Rules, minute_in_china, parse_hours

ROLES: Final = {"a": "a", "b": "b", "g": "a member of its group", "*": "anybody"}
_UNITS: Final = ((3600, "h"), (60, "min"), (1, "s"))
_LOCKS: Final = ((LOCKED_BY_OPERATOR, "operator"), (LOCKED_FOR_FRAUD, "fraud"), (LOCKED_WITH_PREFIX, "prefix"))


def _number(found: LookupResult, asked: DialledCall, rules: Rules) -> str:
    if found.locked is None:
        return "no such number"
    locks = [by for bit, by in _LOCKS if found.locked & bit]
    if locks:
        return f"locked by {' and '.join(locks)}"
    return "held from new bindings" if found.locked else "not locked or held"


def _legacy(found: LookupResult, asked: DialledCall, rules: Rules) -> str:
    if not found.legacy:
        return "no"
    phase = rules.phase_at(int(asked.unix_s * 1000))
    if rules.legacy_until_ms is None:
        return f"yes; phase {phase}"
    return f"yes; phase {phase}, until {format_second(rules.legacy_until_ms)}"


def _caller(found: LookupResult, asked: DialledCall, rules: Rules) -> str:
    if found.is_own:
        return "has its own route on the number"
    if not asked.caller:
        return f"anonymous; allowed: {_yes(rules.anonymous_allowed)}"
    return f"without a route of its own; other countries allowed: {_yes(rules.international_allowed)}"


def _in_force(bound: BindingContext, asked: DialledCall, rules: Rules) -> str:
    if bound.ended_at is not None:
        return f"unbound at {format_second(bound.ended_at)}"
    if bound.expires_at is None:
        if rules.dates.ends_ms <= asked.unix_s * 1000:
            return f"no expiry; the pilot ended at {format_second(rules.dates.ends_ms)}"
        return "no expiry" if bound.in_force else "a former route"
    at = format_second(bound.expires_at)
    return f"expires {at}" if bound.expires_at > asked.unix_s * 1000 else f"expired {at}"


def _business(bound: BindingContext, asked: DialledCall, rules: Rules) -> str:
    return f"{bound.business}: {bound.business_state or 'unknown'}"


def _direction(bound: BindingContext, asked: DialledCall, rules: Rules) -> str:
    return f"{direction_of(bound)}; allowed: {bound.direction}"


def _lists(bound: BindingContext, asked: DialledCall, rules: Rules) -> str:
    white_only = bool(bound.white_only or bound.business_white_only)
    entry = f"list: {bound.entry}" if bound.entry else "on no list"
    return f"{entry}; only white callers" if white_only else entry


def _hours(bound: BindingContext, asked: DialledCall, rules: Rules) -> str:
    texts = [text for text in (bound.business_hours, bound.hours) if text]
    hours = ([] if rules.hours is None else [rules.hours]) + [parse_hours(text) for text in texts]
    return f"hours {' and '.join(map(_span, hours)) or 'any'}, now {_clock(minute_in_china(asked.unix_s))} in China"


def _party(bound: BindingContext, asked: DialledCall, rules: Rules) -> str:
    return "anybody may call" if bound.party == "*" else _kind(rules.parties, asked.caller)


def _filing(bound: BindingContext, asked: DialledCall, rules: Rules) -> str:
    if not rules.filing_required:
        return "not required"
    return "A number filed" if bound.filed_until > asked.unix_s * 1000 else "A number not filed"


def figures_of_callee(target: str | Refusal, rules: Rules) -> str:
    """The kind of the called party's number, or why there is none."""
    if isinstance(target, str):
        return _kind(rules.parties, target)
    return {"no_callee": "none", "own_number": "the caller itself"}.get(target.outcome, "may not be a party")


def _kind(parties: Parties, number: str) -> str:
    return parties.kind_of(number) or "may not be a party"


class CapCounts(NamedTuple):
    """Granted calls that count towards the caps on frequency: one count for each cap, in its order."""

    by_caller: Sequence[int] = ()
    by_number: Sequence[int] = ()


def figures_of_caps(rules: Rules, counts: CapCounts) -> str:
    """How much of each cap on frequency is used."""
    of_caller = [_cap(cap, used, "caller") for cap, used in zip(rules.caller_caps, counts.by_caller, strict=True)]
    of_number = [_cap(cap, used, "number") for cap, used in zip(rules.number_caps, counts.by_number, strict=True)]
    return "; ".join(of_caller + of_number) or "no cap"


def _cap(cap: Cap, used: int, what: str) -> str:
    size, unit = next((size, unit) for size, unit in _UNITS if cap.window_s % size == 0)
    span = f"{cap.window_s // size} {unit}"
    if what == "caller":
        return f"caller {cap.most} per {span}: {used} used"
    return f"number {cap.most} per {span}: {used} used"


def _span(hours: Hours) -> str:
    return f"{_clock(hours.from_min)}-{_clock(hours.to_min)}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


def format_second(moment_ms: int) -> str:
    """RFC 3339 in UTC, to the second."""
    return f"{datetime.fromtimestamp(moment_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


_OfNumber = Callable[[LookupResult, DialledCall, Rules], str]
_OfBinding = Callable[[BindingContext, DialledCall, Rules], str]
# By the names of `relay.policy.evaluate`.
FIGURES_OF_NUMBER: Final[dict[str, _OfNumber]] = {"number": _number, "legacy number": _legacy, "caller": _caller}
FIGURES_OF_BINDING: Final[dict[str, _OfBinding]] = {
    "binding in force": _in_force,
    "business": _business,
    "direction": _direction,
    "lists": _lists,
    "hours": _hours,
    "caller as party": _party,
    "filing": _filing,
}
