"""Making, changing, renewing and ending bindings, effective from the next INVITE; calls that are up continue.

All of it runs in one unit of work. The store has one writer at a time, so of two conflicting requests the second is
refused. `relay.service.placement` chooses the numbers.

Parties and limits are one row, which each call reads: a change rewrites that row, and the routes of parties that join
or leave. Earlier versions are kept for tracebacks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from relay.defence.limits import Rates
from relay.errors import Refused
from relay.model.binding import GROUP_MODES, TWO_NUMBER_MODES, Binding
from relay.policy.rules import DEFAULT_BUSINESS, quota
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.businesses import raised_by
from relay.service.fields import invalid
from relay.service.filings import check_filing, note_unfiled
from relay.service.placement import (
    SWEEP,
    BindRules,
    NumberRequest,
    check_group,
    check_parties,
    place,
    release,
    release_due,
)
from relay.store.allocation import (
    HashedLine,
    add_routes,
    cool_down_ms,
    lines_of,
    member_lines,
    pair_of,
    rest,
    rest_callers,
    set_pair,
    turn_route,
)
from relay.store.bindings import find_binding, history, keep_past, update
from relay.store.businesses import Business
from relay.store.connection import Connection
from relay.store.groups import member_hashes
from relay.store.sealing.sealer import Sealer
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


# -- changes

_CHANGEABLE = (
    *("a", "b", "group_id", "expires_at", "direction", "max_call_s", "ring_timeout_s", "white_only", "hours"),
    *("user_data", "record", "industrial_id"),
)


class BindingChange(NamedTuple):
    """Fields of a binding to change. None keeps a field; "" or 0 clears an optional one."""

    a: str | None = None
    b: str | None = None
    group_id: str | None = None
    expires_in: str | None = None  # a duration from now, or a time; "": no expiry
    direction: str | None = None
    max_call_s: int | None = None
    ring_timeout_s: int | None = None
    white_only: bool | None = None
    hours: str | None = None
    user_data: str | None = None
    record: bool | None = None
    industrial_id: str | None = None
    version: int | None = None  # must be the current version


class Step(NamedTuple):
    """One event in the life of a binding. `at` is Unix milliseconds."""

    action: Literal["made", "changed", "ended"]
    at: int
    by: str | None  # None: ended before the actor was recorded
    changed: list[str]  # names of fields


def get(act: UnitOfWork, binding_id: str) -> Binding:
    """The binding. Raises Refused if it does not exist or is not visible to the actor."""
    printable = binding_id.isprintable()
    binding = find_binding(act.connection, act.sealer, binding_id, act.actor.business) if printable else None
    if binding is None:
        raise Refused("not_found", "binding", "there is no such binding: see the list of bindings")
    return binding


def change(act: UnitOfWork, binding_id: str, asked: BindingChange, rules: BindRules) -> Binding:
    """Change a live binding. Raises Refused, also if a new party is already bound on its number."""
    release_due(act, rules)
    old = _live(act, binding_id)
    if asked.version not in (None, old.version):
        problem = f"must be the current version, {old.version}: read the binding again"
        raise Refused("state_conflict", "version", problem)
    changed = _changed(act, old, asked, rules)
    if changed == old:
        return old
    check_parties(act, changed)
    other_a = (old.a, old.group_id) != (changed.a, changed.group_id)
    if other_a:
        check_filing(act, changed, rules)
    new = changed._replace(version=old.version + 1, changed_at=act.now_ms, changed_by=act.actor.name)
    keep_past(act, old, new)
    if (old.a, old.b, old.group_id) != (new.a, new.b, new.group_id):
        _reroute(act, old, new, rules)
    update(act, new)
    act.audit("binding.change", binding_id, business=old.business, details={"changed": _differing(old, new)})
    if other_a:
        note_unfiled(act, new, rules)
    return new


def renew(act: UnitOfWork, binding_id: str, expires_in: str, rules: BindRules) -> Binding:
    """Set a new expiry of a live binding: a duration from now, or a time. Raises Refused."""
    if not expires_in.strip():
        raise fields.invalid("expires_in", "required")
    return change(act, binding_id, BindingChange(expires_in=expires_in), rules)


def end(act: UnitOfWork, binding_id: str, rules: BindRules, reason: str = "") -> Binding:
    """Unbind: the next call is refused, a call that is up continues. Raises Refused."""
    binding = get(act, binding_id)
    if binding.ended_at is not None:
        raise Refused("ended", "binding", "already unbound")
    released_at = binding.released_at or act.now_ms
    ended = binding._replace(ended_at=act.now_ms, ended_by=act.actor.name, released_at=released_at)
    if binding.released_at is None:
        release(act, binding, rules)
    update(act, ended)
    act.audit("binding.end", binding_id, business=binding.business, reason=fields.reason(reason))
    return ended


def steps(connection: Connection, sealer: Sealer, binding: Binding) -> list[Step]:
    """The life of a binding, oldest event first."""
    found = [Step("made", binding.created_at, binding.created_by, [])]
    # Ignore changes made after `binding` was read.
    past = [form for form in history(connection, sealer, binding.binding_id) if form.version < binding.version]
    for old, new in pairwise([*past, binding]):
        at, by = new.changed_at or new.created_at, new.changed_by or new.created_by
        found.append(Step("changed", at, by, _differing(old, new)))
    if binding.ended_at is not None:
        found.append(Step("ended", binding.ended_at, binding.ended_by, []))
    return found


def _differing(old: Binding, new: Binding) -> list[str]:
    return [name for name in _CHANGEABLE if getattr(old, name) != getattr(new, name)]


def _live(act: UnitOfWork, binding_id: str) -> Binding:
    binding = get(act, binding_id)
    if not binding.is_live(act.now_ms):
        how = "expired" if binding.ended_at is None else "unbound"
        raise Refused("ended", "binding", f"already {how}: make a new one")
    return binding


def _changed(act: UnitOfWork, old: Binding, asked: BindingChange, rules: BindRules) -> Binding:
    """The binding with the new fields in normal form."""
    checks: dict[str, Callable[[Any], Any]] = {
        "a": partial(fields.party, "a", parties=rules.parties, required=old.group_id is None),
        "b": partial(fields.party, "b", parties=rules.parties, required=old.mode != "AXN"),
        "group_id": partial(fields.text, "group_id", longest=fields.LONGEST_GROUP),
        "expires_in": partial(fields.expiry, now_ms=act.now_ms),
        "direction": fields.direction,
        "max_call_s": lambda given: fields.seconds("max_call_s", given or None, fields.MAX_CALL_S),
        "ring_timeout_s": lambda given: fields.seconds("ring_timeout_s", given or None, fields.RING_TIMEOUT_S),
        "white_only": bool,
        "hours": fields.hours,
        "user_data": partial(fields.text, "user_data", longest=fields.LONGEST_USER_DATA),
        "record": partial(fields.record, possible=rules.recording),
        "industrial_id": fields.industrial_id,
    }
    given = asked._asdict()
    new = {name: check(given[name]) for name, check in checks.items() if given[name] is not None}
    return old._replace(**{"expires_at" if name == "expires_in" else name: value for name, value in new.items()})


def _reroute(act: UnitOfWork, old: Binding, new: Binding, rules: BindRules) -> None:
    """Update the routes: leaving callers cool down on the number, staying ones get the new ends, new ones are added."""
    if old.group_id != new.group_id:
        check_group(act, new)
    before, after = _routes(act, old, new), _routes(act, new, old)
    gone = before.keys() - after.keys()
    for number in {number for number, _ in gone}:
        free_at = act.now_ms + cool_down_ms(act, number, rules.cool_down_ms)
        leaving = [caller_hash for of_number, caller_hash in gone if of_number == number]
        rest_callers(act, old.binding_id, number, leaving, free_at)
        rest(act, number, free_at)
    pair = pair_of(act.sealer, new)
    set_pair(act, old.binding_id, pair)
    for key in before.keys() & after.keys():
        if before[key].party != after[key].party:
            turn_route(act, old.binding_id, after[key])
    add_routes(act, new, pair, [line for key, line in after.items() if key not in before])


def _routes(act: UnitOfWork, binding: Binding, other: Binding) -> dict[tuple[str, bytes], HashedLine]:
    """The routes of a binding by (number, caller). Members are omitted if `other` has the same group."""
    lines = lines_of(act.sealer, binding)
    if binding.group_id is not None and binding.group_id != other.group_id:
        lines += member_lines(binding, member_hashes(act.connection, act.sealer, binding.group_id))
    return {(line.number, line.caller_hash): line for line in lines}
