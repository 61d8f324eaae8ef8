"""Evaluation of one call: an ordered list of checks on the look-up's result. The first refusal wins.

Stateless, without store or clock. Counts over several calls are kept by `Recent`, `Rates` and the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from relay.model.binding import GROUP_MODES
from relay.model.call import PROBE_BUSINESS, ConcurrencyCap, Refusal, Route
from relay.model.numbers import NO_CALLS, is_700, is_foreign
from relay.model.outcomes import (
    BUSINESS_BUSY,
    BUSINESS_REVOKED,
    BUSINESS_SUSPENDED,
    CALLER_ANONYMOUS,
    CALLER_BLACKLISTED,
    CALLER_INTERNATIONAL,
    CALLER_NOT_LISTED,
    DIRECTION_BARRED,
    EXPIRED,
    FREQUENCY_CALLER,
    FREQUENCY_NUMBER,
    LEGACY_ENDED,
    NO_BINDING,
    NO_CALLEE,
    NOT_FILED,
    NUMBER_BUSY,
    NUMBER_LOCKED,
    NUMBER_UNKNOWN,
    OUTSIDE_HOURS,
    OWN_NUMBER,
    PARTY_NOT_ALLOWED,
    PHASE_OVER,
)
from relay.policy.rules import MEMORY_S, Cap, Recent, Rules, parse_hours, quota

ALWAYS_MS: Final = 1 << 62


class BindingContext(NamedTuple):
    """The caller's binding on the number, and its business. Parties are E.164 without "+"; times are Unix ms."""

    in_force: int  # 0: a former binding
    party: str  # the caller's role: a, b, g (a member of the group), * (anybody)
    binding_id: str
    mode: str
    business: str
    x: str
    y: str | None
    direction: str  # both, a_to_b, b_to_a
    max_call_s: int | None
    ring_timeout_s: int | None
    white_only: int
    hours: str | None
    expires_at: int | None
    ended_at: int | None
    record: int
    business_state: str | None
    max_calls: int | None  # concurrent, of the business
    max_cps: int | None
    business_white_only: int
    business_hours: str | None
    language: str | None  # of the business
    live_events: int
    qualification: int | None  # of the business: the last approved version
    hook: int | None  # 1: that of the business is asked
    entry: str | None  # the caller's list entry, "black" or "white": the binding's, else the business's
    a: str | None
    b: str | None
    order_id: str | None
    last_caller: str | None  # if still reachable through this binding
    industrial_id: str | None = None
    # Until when the A number of this call is filed; ALWAYS_MS: it need not be, 0: it is not.
    filed_until: int = ALWAYS_MS


class CapCount(NamedTuple):
    """The counts towards frequency caps that a shared store made during the look-up."""

    under: Sequence[tuple[bytes, int]]  # (key, time slice) counted for this call; undone if it is not granted
    over: Refusal | None  # the refusal of an exceeded cap


class LookupResult(NamedTuple):
    """The result of a look-up."""

    caller_hash: bytes
    locked: int | None  # lock bits of the number (`NO_CALLS`); None: no such number
    legacy: int
    is_own: bool  # the caller is a party; False: a route for any caller
    bound: BindingContext | None
    earlier_by_caller: Sequence[int]  # granted calls older than MEMORY_S, one count per `Rules.caller_windows_s`
    earlier_by_number: Sequence[int]
    counted: CapCount | None = None  # None: this process counts, in `Recent`


class DialledCall:
    """The call to be evaluated."""

    __slots__ = ("caller", "caller_key", "number", "number_key", "unix_s")

    def __init__(self, number: str, caller: str, unix_s: float, caller_key: int, number_key: int) -> None:
        self.number = number  # dialled
        self.caller = caller  # E.164 without "+", "" where anonymous
        self.unix_s = unix_s
        self.caller_key = caller_key  # (number, caller) in `Recent`
        self.number_key = number_key


def evaluate(found: LookupResult, asked: DialledCall, rules: Rules, recent: Recent) -> Route | Refusal:
    """Evaluate a call: a route, or the refusal."""
    bound = found.bound
    for check in _OF_NUMBER:
        refusal = check(found, asked, rules)
        if refusal is not None:
            return refusal if bound is None or refusal is NO_BINDING else with_binding(refusal, bound)
    if bound is None:
        return NO_BINDING
    rules = rules_of(bound, rules)
    for check_bound in _OF_BINDING:
        refusal = check_bound(bound, asked, rules)
        if refusal is not None:
            return refusal if refusal is NO_BINDING else with_binding(refusal, bound)
    target = find_callee(bound, asked, rules)
    if isinstance(target, Refusal):
        return with_binding(target, bound)
    over = over_frequency_cap(found, asked, rules, recent)
    if over is not None:
        return with_binding(over, bound)
    return _route(found, bound, asked, rules, target)


def rules_of(bound: BindingContext, rules: Rules) -> Rules:
    """The rules for calls of a binding. The probe calls between the operator's own numbers, at all hours, every few
    minutes, and the verification hook does not know its order."""
    if bound.business != PROBE_BUSINESS:
        return rules
    return rules._replace(caller_caps=(), number_caps=(), hours=None, verify=False)


def with_binding(refusal: Refusal, bound: BindingContext) -> Refusal:
    """Add the binding's fields, for the call record."""
    return refusal._replace(
        binding_id=bound.binding_id,
        mode=bound.mode,
        business=bound.business,
        order_id=bound.order_id,
        language=bound.language or "",
        qualification=bound.qualification,
        industrial_id=bound.industrial_id,
    )


# -- of the number and the caller


def _number(found: LookupResult, asked: DialledCall, rules: Rules) -> Refusal | None:
    if found.locked is None:
        return NUMBER_UNKNOWN
    return NUMBER_LOCKED if found.locked & NO_CALLS else None


def _legacy(found: LookupResult, asked: DialledCall, rules: Rules) -> Refusal | None:
    if not found.legacy:
        return None
    until_ms, at_ms = rules.legacy_until_ms, int(asked.unix_s * 1000)
    over = rules.phase_at(at_ms) == "pilot" or (until_ms is not None and at_ms >= until_ms)
    return LEGACY_ENDED if over else None


def _caller(found: LookupResult, asked: DialledCall, rules: Rules) -> Refusal | None:
    """The rules for callers that are not a party; parties are checked by `_party`. A 700 number is never a caller."""
    if found.is_own:
        return None
    if is_700(asked.caller):
        return NO_BINDING
    if not asked.caller:
        return None if rules.anonymous_allowed else CALLER_ANONYMOUS
    return CALLER_INTERNATIONAL if is_foreign(asked.caller) and not rules.international_allowed else None


# By the name that `relay.policy.explain` shows, in the order of evaluation.
OF_NUMBER: Final = {"number": _number, "legacy number": _legacy, "caller": _caller}
_OF_NUMBER: Final = tuple(OF_NUMBER.values())


# -- of the binding


def _in_force(bound: BindingContext, asked: DialledCall, rules: Rules) -> Refusal | None:
    if bound.ended_at is not None:
        return NO_BINDING
    if bound.expires_at is None:
        if asked.unix_s * 1000 >= rules.dates.ends_ms:  # it has no end of its own, so it ends with the pilot
            return PHASE_OVER
    elif bound.expires_at <= asked.unix_s * 1000:
        return EXPIRED
    return None if bound.in_force else NO_BINDING


def _business(bound: BindingContext, asked: DialledCall, rules: Rules) -> Refusal | None:
    if bound.business_state == "approved":
        return None
    return BUSINESS_REVOKED if bound.business_state == "revoked" else BUSINESS_SUSPENDED


def _direction(bound: BindingContext, asked: DialledCall, rules: Rules) -> Refusal | None:
    return None if bound.direction in ("both", direction_of(bound)) else DIRECTION_BARRED


def _lists(bound: BindingContext, asked: DialledCall, rules: Rules) -> Refusal | None:
    if bound.entry == "black":
        return CALLER_BLACKLISTED
    if (bound.white_only or bound.business_white_only) and bound.entry != "white":
        return CALLER_NOT_LISTED
    return None


def _hours(bound: BindingContext, asked: DialledCall, rules: Rules) -> Refusal | None:
    """All configured hours must hold. Raises ParseError for an invalid stored text."""
    if rules.hours is not None and not rules.hours.hold(asked.unix_s):
        return OUTSIDE_HOURS
    for text in (bound.business_hours, bound.hours):
        if text and not parse_hours(text).hold(asked.unix_s):
            return OUTSIDE_HOURS
    return None


def _party(bound: BindingContext, asked: DialledCall, rules: Rules) -> Refusal | None:
    """A party must still be allowed: the binding may be older than the configuration."""
    if bound.party == "*" or rules.parties.allow(asked.caller):
        return None
    return CALLER_INTERNATIONAL if is_foreign(asked.caller) else PARTY_NOT_ALLOWED


def _filing(bound: BindingContext, asked: DialledCall, rules: Rules) -> Refusal | None:
    if bound.filed_until > asked.unix_s * 1000 or _target(bound, rules) is None:
        return None
    return NOT_FILED


OF_BINDING: Final = {
    "binding in force": _in_force,
    "business": _business,
    "direction": _direction,
    "lists": _lists,
    "hours": _hours,
    "caller as party": _party,
    "filing": _filing,
}
_OF_BINDING: Final = tuple(OF_BINDING.values())


def direction_of(bound: BindingContext) -> str:
    return "b_to_a" if bound.party in ("b", "*") else "a_to_b"


def _target(bound: BindingContext, rules: Rules) -> str | None:
    """The called party, by the mode of the binding (docs/GLOSSARY.md).

    Anybody may call an AXN, so its last caller is skipped if he may not be a party. A group's last caller is a member;
    if the rules have changed since, `find_callee` refuses.
    """
    match bound.party:
        case "a":
            last = bound.last_caller if bound.mode == "AXN" else None
            return last if last is not None and rules.parties.allow(last) else bound.b
        case "g":
            return bound.b
        case "b":
            return (bound.last_caller or bound.a) if bound.mode in GROUP_MODES else bound.a
        case _:
            return bound.a


def find_callee(bound: BindingContext, asked: DialledCall, rules: Rules) -> str | Refusal:
    """The called party, if it may be a party today, or the refusal."""
    target = _target(bound, rules)
    if target is None:
        return NO_CALLEE
    if not rules.parties.allow(target):
        return PARTY_NOT_ALLOWED
    return OWN_NUMBER if target == asked.caller else target


# -- how often, and how many at once


def over_frequency_cap(found: LookupResult, asked: DialledCall, rules: Rules, recent: Recent) -> Refusal | None:
    if found.counted is not None:
        return found.counted.over if rules.caller_caps or rules.number_caps else None
    if _is_over(rules.caller_caps, asked.caller_key, found.earlier_by_caller, asked.unix_s, recent):
        return FREQUENCY_CALLER
    if _is_over(rules.number_caps, asked.number_key, found.earlier_by_number, asked.unix_s, recent):
        return FREQUENCY_NUMBER
    return None


def _is_over(caps: tuple[Cap, ...], key: int, earlier: Sequence[int], unix_s: float, recent: Recent) -> bool:
    """Whether one more call would exceed a cap: as `counts_under`, which takes 0.3 us longer for each cap."""
    place = 0
    for most, window_s in caps:
        if window_s <= MEMORY_S:
            count = recent.count(key, unix_s - window_s)
        else:
            count = recent.count(key, unix_s - MEMORY_S) + earlier[place]
            place += 1
        if count >= most:
            return True
    return False


def counts_under(caps: tuple[Cap, ...], key: int, earlier: Sequence[int], unix_s: float, recent: Recent) -> list[int]:
    """The granted calls in the window of each cap. `earlier` holds counts for caps with windows above MEMORY_S."""
    counts: list[int] = []
    place = 0
    for cap in caps:
        if cap.window_s <= MEMORY_S:
            counts.append(recent.count(key, unix_s - cap.window_s))
        else:
            counts.append(recent.count(key, unix_s - MEMORY_S) + earlier[place])
            place += 1
    return counts


def _route(found: LookupResult, bound: BindingContext, asked: DialledCall, rules: Rules, target: str) -> Route:
    direction = direction_of(bound)
    fields = (
        bound.binding_id,
        bound.mode,
        bound.business,
        bound.order_id,
        target,
        (bound.y or bound.x) if direction == "a_to_b" else bound.x,
        bound.max_call_s,
        bound.ring_timeout_s,
        direction,
        bool(found.legacy),
        _caps(bound, asked.number, rules),
        bool(bound.live_events),
        rules.verify,
        bool(bound.record),
        bound.language or "",
        bound.qualification,
        bound.industrial_id,
        bool(bound.hook),
        "",
    )
    return tuple.__new__(Route, fields)  # faster than keywords, as in `OpenRecord`


def _caps(bound: BindingContext, number: str, rules: Rules) -> tuple[ConcurrencyCap, ...]:
    """The limits on concurrent calls, which the engine enforces."""
    max_calls = quota(bound.business, bound.max_calls, rules.quotas.max_calls)
    most_of_number = rules.max_calls_per_number
    if max_calls is None and not most_of_number:
        return ()
    caps: list[ConcurrencyCap] = []
    if max_calls is not None:
        caps.append((f"business {bound.business}", max_calls, BUSINESS_BUSY))
    if most_of_number:
        caps.append((f"number {number}", most_of_number, NUMBER_BUSY))
    return tuple(caps)
