"""Explains a call: every check in the order of a real one, with its figures, up to the first that refuses it.

The checks are those of `relay.call.admission`, `CallPolicy` and `evaluate`, called here one by one. Nothing is counted,
noted, remembered or sent. Without a running relay, its figures are "not known". Figures hold no real number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from relay.call import admission
from relay.call.engine import Engine
from relay.model import outcomes
from relay.model.call import Refusal, Route, refusal_on_route
from relay.model.numbers import CHINA, mask_number
from relay.model.outcomes import (
    BUSINESS_RATE,
    CALLER_NOT_OF_PEER,
    DRAINING,
    FREQUENCY_CALLER,
    FREQUENCY_NUMBER,
    NO_BINDING,
    NO_PEER,
    OVER_LIMIT,
    REFUSED_TOO_OFTEN,
    STRANGER,
)
from relay.model.settings import Peer, Settings, may_call_as
from relay.peers.peers import Peers
from relay.peers.targets import TargetChoice
from relay.policy.call_policy import CallPolicy, count_keys
from relay.policy.evaluate import (
    OF_BINDING,
    OF_NUMBER,
    BindingContext,
    CapCount,
    DialledCall,
    LookupResult,
    counts_under,
    evaluate,
    find_callee,
    over_frequency_cap,
    rules_of,
    with_binding,
)
from relay.policy.figures import (
    FIGURES_OF_BINDING,
    FIGURES_OF_NUMBER,
    ROLES,
    CapCounts,
    figures_of_callee,
    figures_of_caps,
)
from relay.policy.rules import Recent, Rules, quota

Verdict = Literal["pass", "fail", "not reached", "not known", "not applicable", "not asked"]
NOT_OF_ONE: Final = "the INVITE itself decides"


class TrialCall(NamedTuple):
    """The call to explain. `peer`: its sender; None: not given, so no check of the peer applies.

    `unknown_source`: `CallRecord.source` of a recorded call that came from no peer; "": any other call.
    """

    number: str  # dialled, in the normal form
    caller: str  # E.164 without "+", "" if anonymous
    unix_s: float
    peer: Peer | None = None
    unknown_source: str = ""


class Check(NamedTuple):
    """One check."""

    name: str
    verdict: Verdict
    figures: str = ""


class Explanation(NamedTuple):
    """The checks and their result. `targets`: those of a granted call, in an order that it could try them in."""

    checks: tuple[Check, ...]
    answer: Route | Refusal
    targets: tuple[TargetChoice, ...] = ()


class Running(NamedTuple):
    """A running relay: what it holds in memory. `now`: monotonic seconds."""

    policy: CallPolicy
    engine: Engine
    now: float


def count_one_more(counts: CapCounts, rules: Rules) -> CapCount:
    """Frequency-cap result for one more call, from the given counts."""
    both = (
        (rules.caller_caps, counts.by_caller, FREQUENCY_CALLER),
        (rules.number_caps, counts.by_number, FREQUENCY_NUMBER),
    )
    for caps, used, over in both:
        if any([count >= cap.most for cap, count in zip(caps, used, strict=True)]):
            return CapCount((), over)
    return CapCount((), None)


def explain(
    call: TrialCall,
    found: LookupResult | Refusal,
    rules: Rules,
    settings: Settings,
    running: Running | None,
    *,
    counts: CapCounts | None = None,
    why_not_known: str = "the relay does not run",
) -> Explanation:
    """`found`: the look-up. `counts`: None: the running relay's. `settings`: in force at that time.

    `why_not_known`: said of what only a running relay knows.
    """
    checks = _Checks(why_not_known)
    _before_look_up(checks, call, settings, running)
    if checks.refusal() is None and not admission.is_ours(settings, call.number):
        return _forwarded(checks, call, settings, running)
    if counts is not None and isinstance(found, LookupResult):
        found = found._replace(counted=count_one_more(counts, rules))
    answer = _looked_up(checks, call, found, rules, running, counts)
    if isinstance(answer, Refusal):
        checks.rest(AFTER_BINDING)
        return Explanation(tuple(checks.lines), answer)
    return _routed(checks, answer, settings, running)


class _Checks:
    """The checks so far. After the first refusal all others are not reached."""

    def __init__(self, why_not_known: str) -> None:
        self.lines: list[Check] = []
        self._refusal: Refusal | None = None
        self._why_not_known = why_not_known

    def refusal(self) -> Refusal | None:
        """The refusal of the first check that failed. A method: mypyc would assume that an attribute survives `add`."""
        return self._refusal

    def add(self, name: str, refusal: Refusal | None, figures: str = "") -> None:
        """Add the result of a check."""
        if self._refusal is not None:
            self.lines.append(Check(name, "not reached"))
            return
        self._refusal = refusal
        self.lines.append(Check(name, "pass" if refusal is None else "fail", figures))

    def say(self, name: str, verdict: Verdict, figures: str = "") -> None:
        """Add a check that is not made."""
        self.lines.append(Check(name, verdict, figures) if self._refusal is None else Check(name, "not reached"))

    def not_known(self, name: str) -> None:
        self.say(name, "not known", self._why_not_known)

    def rest(self, names: Sequence[str]) -> None:
        """Add the names that are missing, as not reached."""
        known = {check.name for check in self.lines}
        self.lines += [Check(name, "not reached") for name in names if name not in known]


# -- before the look-up

SOURCE: Final = "source"
PAUSES: Final = "pauses"
CLAIM: Final = "caller of the peer"
AFTER_BINDING: Final = (
    *(
        "binding",
        *OF_BINDING,
        "callee",
        "frequency caps",
        "business rate",
        "business hook",
        "verification hook",
        "calls at once",
        "targets",
    ),
)


def _before_look_up(checks: _Checks, call: TrialCall, settings: Settings, running: Running | None) -> None:
    peer = call.peer
    if call.unknown_source:
        checks.add(SOURCE, STRANGER, f"{call.unknown_source} is in no peer's sources")
    elif peer is None:
        checks.say(SOURCE, "not applicable", "no peer given")
    else:
        checks.add(SOURCE, None, f"peer {peer.name}")
    checks.say("request", "not applicable", f"Max-Forwards, loop, Require, Contact, sips: {NOT_OF_ONE}")
    if running is None:
        checks.not_known("limits of the relay")
    else:
        _limits(checks, peer, running)
    checks.add("number dialled", admission.refusal_of_number(settings, call.number), _form(settings, call.number))
    if not admission.is_ours(settings, call.number):
        return  # a forwarded call; or refused, and then `rest` adds the others
    if peer is None:
        checks.say(PAUSES, "not applicable", "no peer given")
        checks.say(CLAIM, "not applicable", "no peer given")
        return
    if running is None:
        checks.not_known(PAUSES)
    else:
        _pauses(checks, call, peer, running)
    is_of_peer = may_call_as(peer.numbers, call.caller)
    checks.add(CLAIM, None if is_of_peer else CALLER_NOT_OF_PEER, _claim(call, peer))


def _limits(checks: _Checks, peer: Peer | None, running: Running) -> None:
    engine = running.engine
    if engine.is_draining:
        checks.add("limits of the relay", DRAINING, "it is draining")
        return
    if peer is None:
        checks.say("limits of the relay", "not applicable", "no peer given")
        return
    limits = engine.limits(peer, running.now)
    is_over = any([limit.is_over for limit in limits])
    figures = "; ".join([f"{limit.what}: {_of(limit.used, limit.most)}" for limit in limits])
    checks.add("limits of the relay", OVER_LIMIT if is_over else None, figures)


def _of(count: int, most: int) -> str:
    return f"{count} of {most}"


def _form(settings: Settings, number: str) -> str:
    if admission.is_ours(settings, number):
        return "a legacy number" if number in settings.legacy else "a 700 number"
    refusal = admission.refusal_of_number(settings, number)
    if refusal is None:
        return "another number: forwarded"
    return "too short" if refusal is outcomes.TOO_SHORT else "not a number of the platform"


def _pauses(checks: _Checks, call: TrialCall, peer: Peer, running: Running) -> None:
    pause_s = running.policy.refused_attempts.pause_s(peer.name, call.number, call.caller, call.unix_s)
    if pause_s > 0:
        wait_s = math.ceil(pause_s)
        checks.add(PAUSES, REFUSED_TOO_OFTEN._replace(retry_after_s=wait_s), f"{wait_s} s left, after refused attempts")
    else:
        checks.add(PAUSES, None, "none")


def _claim(call: TrialCall, peer: Peer) -> str:
    if not call.caller:
        return "anonymous"
    if peer.numbers is None:
        return "any"
    return "among its numbers" if peer.numbers.allow(call.caller) else "not among its numbers"


def _forwarded(checks: _Checks, call: TrialCall, settings: Settings, running: Running | None) -> Explanation:
    """A call to a number that is not of the platform: no binding, nothing hidden."""
    peer = call.peer
    if peer is not None:
        may_forward = admission.may_forward_as(settings, peer, call.caller)
        checks.add(CLAIM, None if may_forward else CALLER_NOT_OF_PEER, _claim(call, peer))
    if (refusal := checks.refusal()) is not None:
        return Explanation(tuple(checks.lines), refusal)
    return _targets(checks, admission.forwarding_route(call.number, call.caller), settings, running)


# -- the look-up, and the evaluation of its result


def _looked_up(
    checks: _Checks,
    call: TrialCall,
    found: LookupResult | Refusal,
    rules: Rules,
    running: Running | None,
    counts: CapCounts | None,
) -> Route | Refusal:
    if (refusal := checks.refusal()) is not None:
        checks.rest((PAUSES, CLAIM, "look-up", *OF_NUMBER))
        return refusal
    checks.add("look-up", found if isinstance(found, Refusal) else None)
    if isinstance(found, Refusal):
        checks.rest(tuple(OF_NUMBER))
        return found
    recent = Recent() if running is None else running.policy.recent
    asked = DialledCall(call.number, call.caller, call.unix_s, *count_keys(call.number, found.caller_hash))
    for name, check in OF_NUMBER.items():
        checks.add(name, check(found, asked, rules), _figures(name, found, asked, rules, call.peer))
    bound = found.bound
    if bound is None:
        may_bind = "; a hook that is not asked here may make one" if rules.bind_unknown else ""
        checks.add("binding", NO_BINDING, f"none of this caller on this number{may_bind}")
        refusal = checks.refusal()
        assert refusal is not None
        return refusal
    if (own := rules_of(bound, rules)) is not rules:
        rules, counts = own, None
    checks.add("binding", None, f"{bound.binding_id}, {bound.mode}, the caller is {ROLES[bound.party]}")
    for name, check_bound in OF_BINDING.items():
        if checks.refusal() is None:
            checks.add(name, check_bound(bound, asked, rules), FIGURES_OF_BINDING[name](bound, asked, rules))
    if checks.refusal() is None:
        target = find_callee(bound, asked, rules)
        checks.add("callee", target if isinstance(target, Refusal) else None, figures_of_callee(target, rules))
    if checks.refusal() is None:
        over = over_frequency_cap(found, asked, rules, recent)
        used = _used(found, asked, rules, recent) if counts is None else counts
        checks.add("frequency caps", over, figures_of_caps(rules, used))
    answer = evaluate(found, asked, rules, recent)
    return answer if isinstance(answer, Refusal) else _within_rate(checks, answer, bound, call, rules, running)


def _figures(name: str, found: LookupResult, asked: DialledCall, rules: Rules, peer: Peer | None) -> str:
    """The figures of a check of the number. For an anonymous caller also the identity header of its peer."""
    figures = FIGURES_OF_NUMBER[name](found, asked, rules)
    if name != "caller" or asked.caller or peer is None:
        return figures
    header = "From" if peer.identity == "from" else "P-Asserted-Identity"
    return f'{figures}; no number in {header} (identity = "{peer.identity}")'


def _used(found: LookupResult, asked: DialledCall, rules: Rules, recent: Recent) -> CapCounts:
    return CapCounts(
        counts_under(rules.caller_caps, asked.caller_key, found.earlier_by_caller, asked.unix_s, recent),
        counts_under(rules.number_caps, asked.number_key, found.earlier_by_number, asked.unix_s, recent),
    )


def _within_rate(
    checks: _Checks, route: Route, bound: BindingContext, call: TrialCall, rules: Rules, running: Running | None
) -> Route | Refusal:
    max_cps = quota(bound.business, bound.max_cps, rules.quotas.max_cps)
    name = "business rate"
    if max_cps is None:
        checks.add(name, None, "no limit")
    elif running is None:
        checks.not_known(name)
    else:
        rates = running.policy.rates
        refusal = None if rates.has_room(bound.business, max_cps, call.unix_s) else with_binding(BUSINESS_RATE, bound)
        checks.add(name, refusal, f"{max_cps} per s: {rates.used(bound.business, call.unix_s)} used")
    return checks.refusal() or route


# -- behind the policy


def _routed(checks: _Checks, route: Route, settings: Settings, running: Running | None) -> Explanation:
    if route.hook:
        checks.say("business hook", "not asked", "it may refuse or change the call")
    else:
        checks.say("business hook", "not applicable", "none")
    if route.verify:
        checks.say("verification hook", "not asked", "it may refuse or change the call")
    else:
        checks.say("verification hook", "not applicable", "none configured")
    if not route.caps:
        checks.add("calls at once", None, "no limit")
    elif running is None:
        checks.not_known("calls at once")
    else:
        used = [(key, most, running.engine.calls_under(key), refusal) for key, most, refusal in route.caps]
        over = [refusal_on_route(refusal, route) for _, most, count, refusal in used if count >= most]
        figures = "; ".join([f"{key}: {_of(count, most)}" for key, most, count, _ in used])
        checks.add("calls at once", over[0] if over else None, figures)
    if (refused_by := checks.refusal()) is not None:
        checks.rest(("targets",))
        return Explanation(tuple(checks.lines), refused_by)
    return _targets(checks, route, settings, running)


def _in_e164(number: str) -> str:
    """The masked number with its country code, as prefixes of routes are written."""
    country = CHINA if number.startswith(CHINA) and len(number) > 10 else ""
    return f"{country}{mask_number(number)}"


def _targets(checks: _Checks, route: Route, settings: Settings, running: Running | None) -> Explanation:
    if running is None:
        candidates = Peers(settings).candidates(route.callee, 0.0, lambda: "0")
        targets = tuple([TargetChoice.of(target, "") for target in candidates])
        figures = f"{len(targets)} by configuration; their state is not known"
    else:
        targets = tuple(running.engine.targets(route.callee, running.now))
        up = sum([target.state == "up" and not target.is_full for target in targets])
        figures = f"{up} of {len(targets)} up and below their quota"
    if not any([route.callee.startswith(known.prefix) for known in settings.routes]):
        figures = f"no route for {_in_e164(route.callee)}"
    answer: Route | Refusal = route
    if not targets:
        answer = refusal_on_route(Refusal(NO_PEER.name, NO_PEER.status, NO_PEER.q850_cause), route)
    elif all([target.is_full for target in targets]):
        answer = refusal_on_route(OVER_LIMIT, route)
    checks.add("targets", answer if isinstance(answer, Refusal) else None, figures)
    return Explanation(tuple(checks.lines), answer, targets)
