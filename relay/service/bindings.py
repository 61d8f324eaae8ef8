"""Making bindings: a request is validated, completed with numbers and stored, or refused with field and fix.

All of it runs in one unit of work. The store has one writer at a time, so of two conflicting requests the second is
refused. `relay.service.placement` chooses the numbers.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from relay.defence.limits import Rates
from relay.errors import Refused
from relay.model.binding import GROUP_MODES, TWO_NUMBER_MODES, Binding
from relay.policy.rules import DEFAULT_BUSINESS, quota
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.businesses import raised_by
from relay.service.fields import invalid
from relay.service.filings import check_filing, note_unfiled
from relay.service.placement import NumberRequest, check_parties, place
from relay.service.releases import SWEEP, BindRules, release_due
from relay.store.businesses import Business
from relay.store.unit_of_work import UnitOfWork

# Refusals that may be due to an expired binding that the sweep has not released yet.
_HELD = frozenset(["conflict", "pool_empty", "number_full", "quota"])


class BindingRequest(NamedTuple):
    """A binding to make, in the caller's notation. "" and None: not given."""

    mode: str
    a: str = ""  # G modes: the callee of b until a member has called
    b: str = ""  # AXN: the callee of a until someone has called
    x: str = ""
    y: str = ""
    expires_in: str = ""  # a duration from now, or a time
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


def bind(act: UnitOfWork, request: BindingRequest, rules: BindRules, rates: Rates | None = None) -> Binding:
    """Make one binding. Raises Refused.

    `rates` counts new bindings by business user per second; None: no limit on the rate.
    """
    release_due(act, rules)
    binding = _bind(act, request, rules, rates)
    details: dict[str, object] = {"mode": binding.mode, "x": binding.x, "y": binding.y}
    act.audit("binding.make", binding.binding_id, business=binding.business, details=details)
    return binding


def bind_all(
    act: UnitOfWork, requests: Sequence[BindingRequest], rules: BindRules, rates: Rates | None = None
) -> list[Binding | Refused]:
    """Make many bindings in one unit of work, each independently. Results are in the order of the requests.

    A hundred take about 15 ms, during which the store is locked for other writers: split larger numbers.
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


def _bind(act: UnitOfWork, request: BindingRequest, rules: BindRules, rates: Rates | None) -> Binding:
    binding = _placed(act, request, rules, rates)
    note_unfiled(act, binding, rules)
    return binding


def _placed(act: UnitOfWork, request: BindingRequest, rules: BindRules, rates: Rates | None) -> Binding:
    business = _business(act, request)
    _check_rate(act, business, rules, rates)
    wanted = _checked(act, request, rules, business)
    asked = NumberRequest(request.x, request.y, request.pool, request.area)
    try:
        return place(act, wanted, asked, rules, business)
    except Refused as refused:
        if refused.kind not in _HELD or not release_due(act, rules):
            raise
    while release_due(act, rules) == SWEEP:
        pass
    return place(act, wanted, asked, rules, business)


# -- the request


def _checked(act: UnitOfWork, request: BindingRequest, rules: BindRules, business: Business) -> Binding:
    """The requested binding, still without numbers."""
    mode = fields.mode(request.mode)
    if mode not in business.modes:
        allowed = ", ".join(business.modes)
        raise Refused("mode_not_allowed", "mode", f"must be one of the modes of this business user: {allowed}")
    if request.y.strip() and mode not in TWO_NUMBER_MODES:
        raise invalid("y", f"not used in mode {mode}: omit it, or use AXYB or GXYB")
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


def _business(act: UnitOfWork, request: BindingRequest) -> Business:
    fields.mode(request.mode)
    business = get_business(act, request.business.strip() or act.actor.business or DEFAULT_BUSINESS)
    if business.state != "approved":
        problem = f"the business user is {business.state}: it must be approved to bind numbers"
        raise Refused("business_not_approved", "business", problem)
    return business


def _check_rate(act: UnitOfWork, business: Business, rules: BindRules, rates: Rates | None) -> None:
    """Limit the rate of a business user's own keys. Raises Refused."""
    if rates is None or act.actor.business is None:
        return
    most = quota(business.id, business.max_binds_per_s, rules.quotas.max_binds_per_s)
    if not rates.admit(business.id, most, act.now_ms / 1000):
        raise Refused(
            "rate_limited", "business", f"limited to {most} new bindings a second: {raised_by('max_binds_per_s')}"
        )


def _check_order(act: UnitOfWork, binding: Binding, rules: BindRules) -> None:
    """Require an order in the pilot phase, except for trials of `default` on the command line. Raises Refused."""
    by_hand = act.actor.name.startswith("cli:") and binding.business == DEFAULT_BUSINESS
    if binding.order_id is None and rules.phase == "pilot" and not by_hand:
        raise invalid("order_id", "required: in the pilot phase every binding belongs to an order")
