"""The numbers of a binding: placement, and release when it is ended, or by the sweep after it has expired.

Requested numbers are used if they are allowed, others are chosen from the pools. A refused placement undoes its own
changes. A released number cools down, and so does each party of the binding on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Literal, NamedTuple

from relay.errors import Refused, StoreError
from relay.model.binding import GROUP_MODES, LATE_MODES, TWO_NUMBER_MODES, Binding
from relay.model.numbers import MOBILES_ALONE, Parties, is_700, normalise_700
from relay.policy.rules import NEVER_MS, Phase, PhaseSetting, PilotDates, Quotas, Rules, quota
from relay.service.businesses import raised_by
from relay.service.fields import format_moment, invalid, parsed
from relay.store.allocation import (
    Wish,
    add_routes,
    choose_number,
    cool_down_ms,
    count_use,
    give_back,
    last_number,
    lines_of,
    member_lines,
    next_rested,
    pair_of,
    rest_routes,
)
from relay.store.bindings import count_of_group, find_binding, find_due, insert, set_released
from relay.store.business_counts import count_binding, discount_binding
from relay.store.businesses import Business
from relay.store.connection import Connection
from relay.store.groups import find_group, is_member, member_hashes
from relay.store.ledger import CHANGED_MEANWHILE, is_locking, require_each
from relay.store.numbers import Pool, find_number, find_pool, found_choice, pools_of, select_choice
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import queue_event

Filing = Literal["off", "warn", "require"]
AreaMatch = Literal["strict", "loose"]
SWEEP = 100  # bindings of one sweep: some 20 ms
# Routes or members that one unit of work writes, give or take those of one binding. Each takes 40 to 80 us with its
# proof, and call records wait meanwhile.
MOST_ROUTES = 1_000


class BindRules(NamedTuple):
    """The configured rules of bindings."""

    phase: PhaseSetting = Rules().phase  # "auto": by `dates`
    cool_down_ms: int = 24 * 3_600_000  # of numbers whose prefix sets none
    max_bindings: int = 200  # per number; its pool may allow fewer
    legacy_until_ms: int | None = None  # legacy numbers are bound until this time only, and never in the pilot phase
    recording: bool = False  # call recording is configured
    parties: Parties = MOBILES_ALONE  # kinds of numbers that may be bound
    quotas: Quotas = Quotas()  # of business users that set none
    hooks: bool = False  # business users may have hooks
    filing: Filing = "off"  # an unfiled A number is bound (off), bound with a warning (warn), or refused (require)
    dates: PilotDates = PilotDates()
    papers: tuple[str, ...] = ()  # kinds that an approval needs; "express:KIND" of one scenario only
    suspends_expired: bool = False  # a business user whose required paper has ended is suspended

    def phase_at(self, at_ms: int) -> Phase:
        """The phase at a time, in Unix milliseconds."""
        return self.dates.phase_at(at_ms, self.phase)

    def legacy_ends_ms(self) -> int:
        """The end of service of legacy numbers by date, in Unix milliseconds; NEVER_MS without a date."""
        ends = [self.dates.pilot_ms] if self.phase == "auto" else []
        return min([*ends, *([] if self.legacy_until_ms is None else [self.legacy_until_ms])], default=NEVER_MS)


class PlacementRequest(NamedTuple):
    """A binding to make (`fields.binding`), and how."""

    binding: Binding
    area: str = ""  # of the pool to choose numbers from; "": any
    area_match: AreaMatch = "strict"  # loose: the other pools serve too, after those of the area
    late: bool = False  # party a comes later, by a change


def release_due(unit: UnitOfWork, rules: BindRules) -> int:
    """Release the numbers of at most SWEEP expired bindings, oldest first, and emit their events. Returns the count.

    Stops early at MOST_ROUTES routes, as with large groups. Correctness does not depend on how often it runs: making a
    binding runs it as well.
    """
    released = routes = 0
    for binding in find_due(unit, SWEEP):
        if routes >= MOST_ROUTES:
            break
        routes += release_numbers(unit, binding, rules)
        set_released(unit, binding.binding_id)
        released += 1
        data: dict[str, object] = {"binding_id": binding.binding_id, "mode": binding.mode, "order_id": binding.order_id}
        data |= {"industrial_id": binding.industrial_id, "user_data": binding.user_data}
        data |= {"expired_at": format_moment(binding.expires_at or unit.now_ms)}
        with suppress(StoreError):  # a row that someone gave to another business user tells them nothing
            proven = find_binding(unit.connection, unit.sealer, binding.binding_id, binding.business)
            if proven is not None:
                queue_event(unit, proven.business, "binding.expired", f"{binding.binding_id}.expired", data)
    return released


def release_numbers(unit: UnitOfWork, binding: Binding, rules: BindRules) -> int:
    """Release the numbers of a binding that still holds them. Returns the count of its routes, now cooling down.

    The caller writes the time to the binding (`released_at`).
    """
    routes = 0
    for number in filter(None, (binding.x, binding.y)):
        free_at = unit.now_ms + cool_down_ms(unit, number, rules.cool_down_ms)
        routes += rest_routes(unit, binding.binding_id, number, free_at)
        if give_back(unit, number, free_at):
            data = {"number": number, "binding_id": binding.binding_id, "cools_until": format_moment(free_at)}
            queue_event(unit, binding.business, "number.cooling", f"{number}.{unit.now_ms}", dict(data))
    discount_binding(unit, binding.business)
    return routes


# -- placement


def check_parties(unit: UnitOfWork, binding: Binding, *, late: bool = True) -> None:
    """Raise Refused if a party is missing, or parties, group and numbers of a binding exclude each other.

    `late`: nobody need be a of an AXB or AXYB yet.
    Checks that do not depend on the parties come first. Otherwise a change that fails anyway would reveal whether a
    guess of the other party is right.
    """
    if binding.a is None and binding.mode not in GROUP_MODES and not (late and binding.mode in LATE_MODES):
        raise invalid("a", "required")
    if binding.b is None and binding.mode != "AXN":
        raise invalid("b", "required")
    if (binding.group_id is not None) != (binding.mode in GROUP_MODES):
        problem = "required" if binding.group_id is None else f"not used in mode {binding.mode}: omit it"
        raise invalid("group_id", problem)
    group_id = binding.group_id
    if group_id is not None and find_group(unit.connection, unit.sealer, group_id, binding.business) is None:
        raise Refused("not_found", "group_id", "this business user has no such group")
    if binding.a == binding.b:
        raise invalid("b", "must differ from a: a binding joins two parties")
    numbers = [number for number in (binding.x, binding.y) if number]
    # A legacy number looks like a party. As a party it would be shown to the other side.
    if any(party in numbers for party in (binding.a, binding.b) if party):
        raise invalid("x", "must not be one of the parties: choose another number")
    if group_id is None:
        return
    for field, number in [("b", binding.b), *(("x", number) for number in numbers)]:
        if number and is_member(unit.connection, group_id, unit.sealer.lookup_hash(number)):
            raise invalid(field, "must not be a member of the group")


def check_group(unit: UnitOfWork, binding: Binding, before: str | None = None) -> None:
    """Raise Refused if the group has MOST_ROUTES bindings, as a new member needs a route in each; or more members,
    together with those of the group `before`, which lose their routes.
    """
    if binding.group_id is None:
        return
    if count_of_group(unit, binding.group_id) >= MOST_ROUTES:
        raise Refused("quota", "group_id", f"limited to {MOST_ROUTES} bindings: use another group")
    groups = (find_group(unit.connection, unit.sealer, id_) for id_ in (binding.group_id, before) if id_)
    if sum(group.size for group in groups if group) > MOST_ROUTES:
        if before:
            problem = f"limited to {MOST_ROUTES} members of both groups: end the binding and make another"
        else:
            problem = f"limited to {MOST_ROUTES} members of its group: use smaller groups"
        raise Refused("quota", "group_id", problem)


def place_binding(unit: UnitOfWork, wanted: PlacementRequest, rules: BindRules, business: Business) -> Binding:
    """Allocate the numbers and store the binding, or neither. Raises Refused.

    The binding of `wanted` has the requested numbers and pool, if any.
    """
    with undone_if_refused(unit.connection):
        found = _numbers(unit, wanted, rules)
        _require_found(unit, wanted.binding.business, found)
        x, y = found[0].number, found[1].number if len(found) > 1 else None
        if x == y:
            raise invalid("y", "must differ from x: choose another number")
        binding = wanted.binding._replace(x=x, y=y, pool=found[0].pool.pool_id)
        check_parties(unit, binding)
        allocate_and_store(unit, binding, [_cap(one.pool, rules) for one in found], _allowed(business, rules))
    return binding


class BindingQuotas(NamedTuple):
    """The quotas of a business user: live bindings, and new ones per day. None: unlimited."""

    live: int | None = None
    today: int | None = None


_ANY = BindingQuotas()


def _allowed(business: Business, rules: BindRules) -> BindingQuotas:
    return BindingQuotas(
        quota(business.id, business.max_bindings, rules.quotas.max_bindings),
        quota(business.id, business.max_binds_per_day, rules.quotas.max_binds_per_day),
    )


def allocate_and_store(unit: UnitOfWork, binding: Binding, caps: Sequence[int], allowed: BindingQuotas = _ANY) -> None:
    """Allocate the numbers of a binding and store it. `caps`: the maximum bindings on x and y. Raises Refused."""
    pair = pair_of(unit.sealer, binding)
    numbers = (("x", binding.x), ("y", binding.y))
    for (field, number), cap in zip(numbers, caps, strict=False):
        count_use(unit, field, number or "", binding.business, cap, pair, exclusive=binding.mode == "AXN")
    _count(unit, binding.business, allowed)
    check_group(unit, binding)
    insert(unit, binding)
    members = member_hashes(unit.connection, unit.sealer, binding.group_id) if binding.group_id else ()
    add_routes(unit, binding, pair, lines_of(unit.sealer, binding) + member_lines(binding, members))


def _count(unit: UnitOfWork, business: str, allowed: BindingQuotas) -> None:
    """Count a binding against the quotas of its business user. Raises Refused if one is exhausted."""
    match count_binding(unit, business, allowed.live, allowed.today):
        case "max_bindings":
            problem = f"limited to {allowed.live} bindings: end some, or {raised_by('max_bindings')}"
            raise Refused("quota", "business", problem)
        case "max_binds_per_day":
            problem = f"limited to {allowed.today} new bindings a day: {raised_by('max_binds_per_day')}"
            raise Refused("quota", "business", problem)


class _FreeNumber(NamedTuple):
    number: str
    pool: Pool


def _numbers(unit: UnitOfWork, wanted: PlacementRequest, rules: BindRules) -> list[_FreeNumber]:
    """The number x, and y if the mode has one."""
    binding = wanted.binding
    find = partial(_number, unit, _pools(unit, wanted), rules)
    wish_x, wish_y = _wishes(unit, binding)
    given_x, given_y = _given(unit, "x", binding.x, rules), _given(unit, "y", binding.y, rules)
    x = find("x", given_x, wish_x, given_y)
    if binding.mode not in TWO_NUMBER_MODES:
        return [x]
    try:
        return [x, find("y", given_y, wish_y, x.number)]
    except Refused as refused:
        if given_x is not None or refused.kind != "pool_empty":
            raise
    y = find("y", None, wish_y, None)  # the only number left for y may be the one chosen for x: choose y first
    return [find("x", None, wish_x, y.number), y]


def _require_found(unit: UnitOfWork, business: str, found: Sequence[_FreeNumber]) -> None:
    """Raise StoreError unless the numbers and their pools are proven, and on a server still as they were read."""
    numbers, pools = [one.number for one in found], {one.pool.pool_id: one.pool for one in found}
    wanted = (("number", numbers), ("pool", list(pools)))
    again = select_choice(business, numbers, pools, unit.now_ms) if is_locking(unit.connection) else []
    counts, rows = require_each(unit.connection, unit.sealer, wanted, *again)
    if counts != [len(set(keys)) for _, keys in wanted]:
        raise StoreError(CHANGED_MEANWHILE)
    if not again:
        return
    own, numbers_now, pools_now = found_choice(rows, len(numbers))
    by_number = {each.number: each for each in numbers_now}
    for number, pool in found:
        now = by_number.get(number)
        is_of_pool = now is not None and now.pool == pool.pool_id and (now.legacy or pool in own)
        if not is_of_pool or pool not in pools_now:
            raise StoreError(CHANGED_MEANWHILE)


def _wishes(unit: UnitOfWork, wanted: Binding) -> tuple[Wish, Wish]:
    """The requirements of x and y: their callers, and whether they may be shared."""
    a, b = ([] if party is None else [unit.sealer.lookup_hash(party)] for party in (wanted.a, wanted.b))
    wish = Wish(wanted.business)
    if wanted.group_id is None and a and b:
        wish = wish._replace(pair=(a[0], b[0], pair_of(unit.sealer, wanted)))
    match wanted.mode:
        case "AXN":
            return Wish(wanted.business, exclusive=True), wish
        case "AXB":
            return wish._replace(callers=a + b), wish
        case "AXYB":
            return wish._replace(callers=a), wish._replace(callers=b)
        case "GXB":
            return wish._replace(callers=b, group_id=wanted.group_id), wish
        case "GXYB":
            return wish._replace(group_id=wanted.group_id), wish._replace(callers=b)


def _pools(unit: UnitOfWork, wanted: PlacementRequest) -> list[Pool]:
    """The pools to choose from, in order of preference. Raises Refused for an unknown pool or area."""
    pools, pool_id, area = pools_of(unit.connection, wanted.binding.business), wanted.binding.pool, wanted.area
    if pool_id:
        pool = find_pool(unit.connection, pool_id) if pool_id.isprintable() else None
        if pool not in pools:
            raise Refused("not_found", "pool", "this business user has no such pool")
        pools = [pool]
    if area and wanted.area_match == "loose":
        pools.sort(key=lambda pool: pool.area != area)
    elif area:
        pools = [pool for pool in pools if pool.area == area]
        if not pools:
            problem = "this business user has no pool of this area: see the list of pools, or set area_match to loose"
            raise Refused("not_found", "area", problem)
    return pools


def _given(unit: UnitOfWork, field: str, number: str | None, rules: BindRules) -> str | None:
    """The requested number: a 700 number, or a legacy number while these may be bound. Raises Refused."""
    if not number or is_700(number):
        return number or None
    found = find_number(unit.connection, number, unit.now_ms)
    if found is None or not found.legacy:
        return parsed(field, number, normalise_700)
    over = rules.legacy_until_ms is not None and rules.legacy_until_ms <= unit.now_ms
    if rules.phase_at(unit.now_ms) == "pilot" or over:
        raise invalid(field, "must be a 700 number: legacy numbers are no longer bound")
    return number


def _number(
    unit: UnitOfWork,
    pools: Sequence[Pool],
    rules: BindRules,
    field: str,
    given: str | None,
    wish: Wish,
    not_this: str | None,
) -> _FreeNumber:
    """The requested number, if the business user may use it. Without a request, the number that a and b had last, else
    a free one."""
    if given is not None:
        return _FreeNumber(given, _pool_of(unit, field, given, pools))
    last = last_number(unit.connection, field, wish, not_this, unit.now_ms)
    if last is not None:
        for pool in pools:
            if last.pool == pool.pool_id and last.bindings < _cap(pool, rules):
                return _FreeNumber(last.number, pool)
    for pool in pools:
        number = choose_number(unit.connection, pool.pool_id, _cap(pool, rules), wish, not_this, unit.now_ms)
        if number is not None:
            return _FreeNumber(number, pool)
    # In a common pool the time is the end of another business user's binding.
    shown = [pool for pool in pools if pool.business or unit.actor.business is None]
    rested = [next_rested(unit.connection, pool.pool_id, unit.now_ms) for pool in shown]
    problem = "no number is free for these parties: end bindings, whose numbers then cool down, or load a prefix"
    if at_ms := min((each for each in rested if each is not None), default=0):
        end = format_moment(at_ms)
        problem = f"no number is free for these parties: the next cools down until {end}; wait, or load a prefix"
    raise Refused("pool_empty", field, problem)


def _pool_of(unit: UnitOfWork, field: str, given: str, pools: Sequence[Pool]) -> Pool:
    number = find_number(unit.connection, given, unit.now_ms)
    for pool in pools:
        if number is not None and pool.pool_id == number.pool:
            return pool
    if number is not None and number.legacy and (pool_of_legacy := find_pool(unit.connection, number.pool)):
        return pool_of_legacy
    raise Refused("number_unknown", field, "must be under an assigned prefix that this business user may use")


def _cap(pool: Pool, rules: BindRules) -> int:
    return min(pool.max_bindings, rules.max_bindings)


@contextmanager
def undone_if_refused(connection: Connection) -> Iterator[None]:
    """Undo the changes of the block if it raises, such as Refused. Not to be nested."""
    connection.execute("SAVEPOINT one")
    try:
        yield
    except Exception:
        if connection.in_transaction:
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
        raise
    connection.execute("RELEASE one")
