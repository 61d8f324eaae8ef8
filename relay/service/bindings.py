"""Making, changing, renewing and ending bindings, effective from the next INVITE; calls that are up continue.

Audit entries have the industrial id of a binding, which outlives binding and call records there.

All of it runs in one unit of work. The store has one writer at a time, so of two conflicting requests the second is
refused. `relay.service.placement` chooses the numbers.

Parties and limits are one row, which each call reads: a change rewrites that row, and the routes of parties that join
or leave. Earlier versions are kept for tracebacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from relay.defence.limits import Rates
from relay.errors import Refused
from relay.model.binding import LATE_MODES, TWO_NUMBER_MODES, Binding, BindingChange, after_use
from relay.model.call import PROBE_BUSINESS
from relay.policy.rules import DEFAULT_BUSINESS, NEVER_MS, quota
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.businesses import raised_by
from relay.service.fields import invalid
from relay.service.filings import check_filing, note_unfiled
from relay.service.placement import (
    BindRules,
    PlacementRequest,
    check_group,
    check_parties,
    place_binding,
    release_due,
    release_numbers,
)
from relay.store.allocation import (
    HashedLine,
    add_routes,
    cool_down_ms,
    lines_of,
    member_lines,
    pair_of,
    rest_callers,
    rest_number,
    set_pair,
    turn_route,
)
from relay.store.bindings import find_binding, history, keep_past, update
from relay.store.businesses import Business
from relay.store.connection import Connection
from relay.store.groups import member_hashes
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork

# Refusals that may be due to an expired binding that the sweep has not released yet.
_HELD = frozenset(["conflict", "pool_empty", "number_full", "quota"])
MOST_SWEEPS = 2  # of one request, which may make many bindings


class _Sweeps:
    """Releases expired bindings for one request, but not all: others wait meanwhile. The timer releases the rest."""

    def __init__(self, unit: UnitOfWork, rules: BindRules) -> None:
        self._unit = unit
        self._rules = rules
        self._left = MOST_SWEEPS

    def run(self) -> int:
        """Release some if any are due. Returns the count."""
        if not self._left:
            return 0
        self._left -= 1
        return release_due(self._unit, self._rules)


def bind(unit: UnitOfWork, wanted: PlacementRequest, rules: BindRules, rates: Rates | None = None) -> Binding:
    """Make one binding. Raises Refused.

    `rates` counts new bindings by business user per second; None: no limit on the rate.
    """
    sweeps = _Sweeps(unit, rules)
    sweeps.run()
    binding = _bind(unit, wanted, rules, rates, sweeps)
    details: dict[str, object] = {"mode": binding.mode, "x": binding.x, "y": binding.y}
    if binding.industrial_id is not None:
        details["industrial_id"] = binding.industrial_id
    unit.audit("binding.make", binding.binding_id, business=binding.business, details=details)
    return binding


def bind_all(
    unit: UnitOfWork, asked: Sequence[PlacementRequest | Refused], rules: BindRules, rates: Rates | None = None
) -> list[Binding | Refused]:
    """Make many bindings in one unit of work, each independently. Results are in the order of the requests.

    Requests that are `Refused` already stay so. A hundred bindings take about 15 ms, during which the store is locked
    for other writers: split larger numbers.
    """
    sweeps = _Sweeps(unit, rules)
    sweeps.run()
    answers: list[Binding | Refused] = []
    for one in asked:
        try:
            answers.append(one if isinstance(one, Refused) else _bind(unit, one, rules, rates, sweeps))
        except Refused as refused:
            answers.append(refused)
    made = [answer for answer in answers if isinstance(answer, Binding)]
    if made:
        last = made[-1].binding_id
        details: dict[str, object] = {"made": len(made), "refused": len(answers) - len(made), "last": last}
        if named := [f"{each.binding_id} {each.industrial_id}" for each in made if each.industrial_id is not None]:
            details["industrial_ids"] = named
        unit.audit("binding.make_many", made[0].binding_id, business=unit.actor.business, details=details)
    unit.audit_refusals(answer for answer in answers if isinstance(answer, Refused))
    return answers


def _bind(
    unit: UnitOfWork, wanted: PlacementRequest, rules: BindRules, rates: Rates | None, sweeps: _Sweeps
) -> Binding:
    binding = _placed(unit, wanted, rules, rates, sweeps)
    note_unfiled(unit, binding, rules)
    return binding


def _placed(
    unit: UnitOfWork, wanted: PlacementRequest, rules: BindRules, rates: Rates | None, sweeps: _Sweeps
) -> Binding:
    business = _business(unit, wanted.binding)
    _check_rate(unit, business, rules, rates)
    allowed = wanted._replace(binding=_allowed(unit, wanted, rules, business))
    try:
        return place_binding(unit, allowed, rules, business)
    except Refused as refused:
        if refused.kind not in _HELD or not sweeps.run():
            raise
    return place_binding(unit, allowed, rules, business)


def _allowed(unit: UnitOfWork, wanted: PlacementRequest, rules: BindRules, business: Business) -> Binding:
    """The binding with id and creation. Raises Refused if the rules do not allow it."""
    mode = wanted.binding.mode
    if mode not in business.modes:
        allowed = ", ".join(business.modes)
        raise Refused("mode_not_allowed", "mode", f"must be one of the modes of this business user: {allowed}")
    if wanted.binding.y is not None and mode not in TWO_NUMBER_MODES:
        raise invalid("y", f"not used in mode {mode}: omit it, or use AXYB or GXYB")
    if wanted.late and mode not in LATE_MODES:
        raise invalid("late", f"not used in mode {mode}: omit it, or use AXB or AXYB")
    binding = wanted.binding._replace(
        binding_id=unit.new_id(),
        business=business.id,
        created_at=unit.now_ms,
        created_by=unit.actor.name,
    )
    if binding.idle_ttl_s is not None:
        binding = after_use(binding._replace(max_expires_at=binding.expires_at), unit.now_ms)
    if business.id != PROBE_BUSINESS:
        check_pilot(unit, rules)
    _check_recording(binding.record, rules)
    check_parties(unit, binding, late=wanted.late)
    check_filing(unit, binding, rules)
    _check_order(unit, binding, rules)
    return binding


def check_pilot(unit: UnitOfWork, rules: BindRules) -> None:
    """Refuse after the pilot's end what would be new. Raises Refused."""
    if unit.now_ms >= rules.dates.ends_ms:
        ended = fields.format_moment(rules.dates.ends_ms)
        problem = f"the pilot ended at {ended}: nothing new is bound, unless an operator moves pilot.ends"
        raise Refused("phase_over", "", problem)


def _check_recording(wanted: bool, rules: BindRules) -> None:
    if wanted and not rules.recording:
        raise invalid("record", "must be false: call recording is not configured on this relay")


def _business(unit: UnitOfWork, wanted: Binding) -> Business:
    business = get_business(unit, wanted.business or unit.actor.business or DEFAULT_BUSINESS)
    if business.id == PROBE_BUSINESS and unit.actor != RELAY:
        raise invalid("business", "reserved for the probe, which binds its own numbers: name another one")
    if business.state != "approved":
        problem = f"the business user is {business.state}: it must be approved to bind numbers"
        raise Refused("business_not_approved", "business", problem)
    return business


def _check_rate(unit: UnitOfWork, business: Business, rules: BindRules, rates: Rates | None) -> None:
    """Limit the rate of a business user's own keys. Raises Refused."""
    if rates is None or unit.actor.business is None:
        return
    most = quota(business.id, business.max_binds_per_s, rules.quotas.max_binds_per_s)
    if not rates.admit(business.id, most, unit.now_ms / 1000):
        raise Refused(
            "rate_limited", "business", f"limited to {most} new bindings a second: {raised_by('max_binds_per_s')}"
        )


def _check_order(unit: UnitOfWork, binding: Binding, rules: BindRules) -> None:
    """Require an order in the pilot phase, except for trials of `default` on the command line. Raises Refused."""
    by_hand = unit.actor.name.startswith("cli:") and binding.business == DEFAULT_BUSINESS
    if binding.order_id is None and rules.phase_at(unit.now_ms) == "pilot" and not by_hand:
        raise invalid("order_id", "required: in the pilot phase every binding belongs to an order")


# -- changes

_CHANGEABLE = tuple(BindingChange.__annotations__)


class HistoryEntry(NamedTuple):
    """One event in the life of a binding. `at` is Unix milliseconds."""

    action: Literal["made", "changed", "ended"]
    at: int
    by: str | None  # None: ended before the actor was recorded
    changed: list[str]  # names of fields


def get(unit: UnitOfWork, binding_id: str) -> Binding:
    """The binding. Raises Refused if it does not exist or is not visible to the actor."""
    printable = binding_id.isprintable()
    binding = find_binding(unit.connection, unit.sealer, binding_id, unit.actor.business) if printable else None
    if binding is None:
        raise Refused("not_found", "binding", "there is no such binding: see the list of bindings")
    return binding


def change(
    unit: UnitOfWork, binding_id: str, asked: BindingChange, rules: BindRules, version: int | None = None
) -> Binding:
    """Change a live binding. Raises Refused, also if a new party is already bound on its number.

    `version`, if given, must be the current version.
    """
    release_due(unit, rules)
    old = _live(unit, binding_id)
    if version not in (None, old.version):
        problem = f"must be the current version, {old.version}: read the binding again"
        raise Refused("state_conflict", "version", problem)
    return change_live(unit, old, asked, rules)


def change_live(unit: UnitOfWork, old: Binding, asked: BindingChange, rules: BindRules) -> Binding:
    """Change a binding that is live and visible to the actor. Raises Refused; the caller then undoes its writes."""
    _check_recording(asked.get("record", False), rules)
    changed = _with_expiry(old, asked, unit.now_ms)
    if changed == old:
        return old
    check_parties(unit, changed)
    if _outlasts(changed, old) or (old.a, old.b, old.group_id) != (changed.a, changed.b, changed.group_id):
        check_pilot(unit, rules)
    other_a = (old.a, old.group_id) != (changed.a, changed.group_id)
    if other_a:
        check_filing(unit, changed, rules)
    new = changed._replace(version=old.version + 1, changed_at=unit.now_ms, changed_by=unit.actor.name)
    keep_past(unit, old, new)
    if (old.a, old.b, old.group_id) != (new.a, new.b, new.group_id):
        _reroute(unit, old, new, rules)
    update(unit, new)
    details: dict[str, object] = {"changed": _differing(old, new), "version": new.version}
    if old.industrial_id != new.industrial_id:
        details["industrial_id"] = new.industrial_id
    unit.audit("binding.change", old.binding_id, business=old.business, details=details)
    if other_a:
        note_unfiled(unit, new, rules)
    return new


def _outlasts(changed: Binding, old: Binding) -> bool:
    """Whether a change gives a binding a later end, or none."""
    latest = [each.expires_at if each.idle_ttl_s is None else each.max_expires_at for each in (changed, old)]
    until, before = [NEVER_MS if each is None else each for each in latest]
    return until > before


def _with_expiry(old: Binding, asked: BindingChange, now_ms: int) -> Binding:
    """The changed binding. If it ends some time after its last call, `expires_at` gives the latest end."""
    changed = old._replace(**asked)
    if old.idle_ttl_s is None and changed.idle_ttl_s is None:
        return changed
    if not asked.keys() & {"expires_at", "idle_ttl_s"}:
        return changed
    before = old.expires_at if old.idle_ttl_s is None else old.max_expires_at
    latest = asked.get("expires_at", before)
    if changed.idle_ttl_s is None:
        return changed._replace(expires_at=latest, max_expires_at=None)
    return after_use(changed._replace(max_expires_at=latest), now_ms)


def renew(unit: UnitOfWork, binding_id: str, expires_at: int | None, rules: BindRules) -> Binding:
    """Set a new expiry of a live binding, in Unix milliseconds. Raises Refused, also for None."""
    if expires_at is None:
        raise fields.invalid("expires_in", "required")
    return change(unit, binding_id, {"expires_at": expires_at}, rules)


def end(unit: UnitOfWork, binding_id: str, rules: BindRules, reason: str = "") -> Binding:
    """Unbind: the next call is refused, a call that is up continues. Raises Refused."""
    binding = get(unit, binding_id)
    if binding.ended_at is not None:
        raise Refused("ended", "binding", "already unbound")
    released_at = binding.released_at or unit.now_ms
    ended = binding._replace(ended_at=unit.now_ms, ended_by=unit.actor.name, released_at=released_at)
    if binding.released_at is None:
        release_numbers(unit, binding, rules)
    update(unit, ended)
    unit.audit("binding.end", binding_id, business=binding.business, reason=fields.reason(reason))
    return ended


def steps(connection: Connection, sealer: Sealer, binding: Binding) -> list[HistoryEntry]:
    """The life of a binding, oldest event first."""
    found = [HistoryEntry("made", binding.created_at, binding.created_by, [])]
    # Ignore changes made after `binding` was read.
    past = [form for form in history(connection, sealer, binding.binding_id) if form.version < binding.version]
    for old, new in pairwise([*past, binding]):
        at, by = new.changed_at or new.created_at, new.changed_by or new.created_by
        found.append(HistoryEntry("changed", at, by, _differing(old, new)))
    if binding.ended_at is not None:
        found.append(HistoryEntry("ended", binding.ended_at, binding.ended_by, []))
    return found


def _differing(old: Binding, new: Binding) -> list[str]:
    # With an idle TTL calls move `expires_at`, and a change gives the latest end.
    is_moved = old.idle_ttl_s is not None and new.idle_ttl_s is not None
    fields_of = dict(zip(_CHANGEABLE, _CHANGEABLE, strict=True)) | (
        {"expires_at": "max_expires_at"} if is_moved else {}
    )
    return [name for name, field in fields_of.items() if getattr(old, field) != getattr(new, field)]


def _live(unit: UnitOfWork, binding_id: str) -> Binding:
    binding = get(unit, binding_id)
    if not binding.is_live(unit.now_ms):
        is_unbound = binding.ended_at is not None
        problem = "already unbound: make a new one" if is_unbound else "already expired: make a new one"
        raise Refused("ended", "binding", problem)
    return binding


def _reroute(unit: UnitOfWork, old: Binding, new: Binding, rules: BindRules) -> None:
    """Update the routes: leaving callers cool down on the number, staying ones get the new ends, new ones are added."""
    if old.group_id != new.group_id:
        check_group(unit, new, old.group_id)
    before, after = _routes(unit, old, new), _routes(unit, new, old)
    gone = before.keys() - after.keys()
    for number in {number for number, _ in gone}:
        free_at = unit.now_ms + cool_down_ms(unit, number, rules.cool_down_ms)
        leaving = [caller_hash for of_number, caller_hash in gone if of_number == number]
        rest_callers(unit, old.binding_id, number, leaving, free_at)
        rest_number(unit, number, free_at)
    pair = pair_of(unit.sealer, new)
    set_pair(unit, old.binding_id, pair)
    for key in before.keys() & after.keys():
        if before[key].party != after[key].party:
            turn_route(unit, old.binding_id, after[key])
    add_routes(unit, new, pair, [line for key, line in after.items() if key not in before])


def _routes(unit: UnitOfWork, binding: Binding, other: Binding) -> dict[tuple[str, bytes], HashedLine]:
    """The routes of a binding by (number, caller). Members are omitted if `other` has the same group."""
    lines = lines_of(unit.sealer, binding)
    if binding.group_id is not None and binding.group_id != other.group_id:
        lines += member_lines(binding, member_hashes(unit.connection, unit.sealer, binding.group_id))
    return {(line.number, line.caller_hash): line for line in lines}
