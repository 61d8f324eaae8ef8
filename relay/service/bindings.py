"""How bindings are made: what is asked for is checked, completed with numbers and made, or refused with field and fix.

Everything happens inside one act, and SQLite's one writer makes of two requests for the same the first and the refused
one. Which numbers it gets is the business of `relay.service.placement`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from relay.call.binding import GROUP_MODES, TWO_NUMBER_MODES, Binding
from relay.call.rates import Rates
from relay.errors import Refused
from relay.policy.quotas import DEFAULT_BUSINESS, quota
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.businesses import raised_by
from relay.service.fields import invalid
from relay.service.filings import check_filing, note_unfiled
from relay.service.placement import Asked, check_parties, place
from relay.service.releases import SWEEP, BindRules, release_due
from relay.store.act import Act
from relay.store.businesses import Business

# What an expired binding can be the reason of, which the sweep has not come to.
_HELD = frozenset(["conflict", "pool_empty", "number_full", "quota"])


class BindingRequest(NamedTuple):
    """A binding as it is asked for, in the words of the asker. "" and None are: not given."""

    mode: str
    a: str = ""  # G modes: whom b reaches while no member has called
    b: str = ""  # AXN: whom a reaches while nobody has called
    x: str = ""
    y: str = ""
    expires_in: str = ""  # a duration, or a moment
    order_id: str = ""
    business: str = ""
    group_id: str = ""
    pool: str = ""
    area: str = ""
    direction: str = ""  # both, a_to_b, b_to_a
    max_call_s: int | None = None
    ring_timeout_s: int | None = None
    consent: str = ""
    user_data: str = ""
    white_only: bool = False
    hours: str = ""
    record: bool = False
    industrial_id: str = ""


def bind(act: Act, request: BindingRequest, rules: BindRules, rates: Rates | None = None) -> Binding:
    """Makes one binding. Raises Refused.

    `rates`: how many each business user has asked for in the last second, of whoever has many ask at once.
    """
    release_due(act, rules)
    binding = _bind(act, request, rules, rates)
    details: dict[str, object] = {"mode": binding.mode, "x": binding.x, "y": binding.y}
    act.audit("binding.make", binding.binding_id, business=binding.business, details=details)
    return binding


def bind_all(
    act: Act, requests: Sequence[BindingRequest], rules: BindRules, rates: Rates | None = None
) -> list[Binding | Refused]:
    """Makes many in one act. Each stands for itself; the answers are in the order of the requests.

    A hundred take some 15 ms, for which nobody else can write: make more in several acts.
    """
    release_due(act, rules)
    answers: list[Binding | Refused] = []
    for request in requests:
        try:
            answers.append(_bind(act, request, rules, rates))
        except Refused as refused:
            answers.append(refused)
    made = [answer.binding_id for answer in answers if isinstance(answer, Binding)]
    if made:
        details: dict[str, object] = {"made": len(made), "refused": len(answers) - len(made), "last": made[-1]}
        act.audit("binding.make_many", made[0], business=act.actor.business, details=details)
    return answers


def _bind(act: Act, request: BindingRequest, rules: BindRules, rates: Rates | None) -> Binding:
    binding = _placed(act, request, rules, rates)
    note_unfiled(act, binding, rules)
    return binding


def _placed(act: Act, request: BindingRequest, rules: BindRules, rates: Rates | None) -> Binding:
    business = _business(act, request)
    _check_rate(act, business, rules, rates)
    wanted = _checked(act, request, rules, business)
    asked = Asked(request.x, request.y, request.pool, request.area)
    try:
        return place(act, wanted, asked, rules, business)
    except Refused as refused:
        if refused.kind not in _HELD or not release_due(act, rules):
            raise
    while release_due(act, rules) == SWEEP:
        pass
    return place(act, wanted, asked, rules, business)


# -- what is asked for


def _checked(act: Act, request: BindingRequest, rules: BindRules, business: Business) -> Binding:
    """The binding that is wanted, all but its numbers."""
    mode = fields.mode(request.mode)
    if mode not in business.modes:
        raise Refused("mode_not_allowed", "mode", f"this business user may bind {', '.join(business.modes)} alone")
    if request.y.strip() and mode not in TWO_NUMBER_MODES:
        raise invalid("y", f"an {mode} has x alone: leave it out, or take another mode")
    binding = Binding(
        binding_id=f"{act.now_ms:012x}{secrets.token_hex(6)}",
        mode=mode,
        business=business.id,
        order_id=fields.text("order_id", request.order_id, fields.LONGEST_ORDER),
        x="",
        y=None,
        a=fields.party("a", request.a, rules.parties, required=mode not in GROUP_MODES),
        b=fields.party("b", request.b, rules.parties, required=mode != "AXN"),
        created_at=act.now_ms,
        expires_at=fields.expiry(request.expires_in, act.now_ms),
        group_id=fields.text("group_id", request.group_id, fields.LONGEST_GROUP),
        direction=fields.direction(request.direction),
        max_call_s=fields.seconds("max_call_s", request.max_call_s, fields.MAX_CALL_S),
        ring_timeout_s=fields.seconds("ring_timeout_s", request.ring_timeout_s, fields.RING_TIMEOUT_S),
        white_only=request.white_only,
        hours=fields.hours(request.hours),
        consent=fields.text("consent", request.consent, fields.LONGEST_CONSENT),
        user_data=fields.text("user_data", request.user_data, fields.LONGEST_USER_DATA),
        created_by=act.actor.name,
        record=fields.record(request.record, possible=rules.recording),
        industrial_id=fields.industrial_id(request.industrial_id),
    )
    check_parties(act, binding)
    check_filing(act, binding, rules)
    _check_order(act, binding, rules)
    return binding


def _business(act: Act, request: BindingRequest) -> Business:
    fields.mode(request.mode)
    business = get_business(act, request.business.strip() or act.actor.business or DEFAULT_BUSINESS)
    if business.state != "approved":
        problem = f"the business user is {business.state}: only an approved one may bind numbers"
        raise Refused("business_not_approved", "business", problem)
    return business


def _check_rate(act: Act, business: Business, rules: BindRules, rates: Rates | None) -> None:
    """Of business users' own keys alone."""
    if rates is None or act.actor.business is None:
        return
    most = quota(business.id, business.max_binds_per_s, rules.quotas.max_binds_per_s)
    if not rates.admit(business.id, most, act.now_ms / 1000):
        raise Refused(
            "rate_limited", "business", f"it may bind {most} numbers a second: {raised_by('max_binds_per_s')}"
        )


def _check_order(act: Act, binding: Binding, rules: BindRules) -> None:
    """In the pilot every binding serves an order. A first try by hand, for `default`, needs none."""
    by_hand = act.actor.name.startswith("cli:") and binding.business == DEFAULT_BUSINESS
    if binding.order_id is None and rules.phase == "pilot" and not by_hand:
        raise invalid("order_id", "it is missing: in the pilot phase each binding serves an order")
