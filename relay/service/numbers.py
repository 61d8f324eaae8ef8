"""The rules of the platform's numbers: loading of assigned prefixes, pools, and locks.

Only operators change them. Changes are effective from the next INVITE.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TypedDict

from relay.errors import ParseError, Refused
from relay.model.numbers import HELD, LOCKED_BY_OPERATOR, LOCKED_FOR_FRAUD, is_700, normalise_700, normalise_party
from relay.service import fields
from relay.service.businesses import get as get_business
from relay.service.fields import invalid
from relay.store import allocation
from relay.store.connection import Connection
from relay.store.ledger import require_proofs
from relay.store.numbers import (
    LEGACY_POOL,
    LONGEST_COOL_DOWN_MS,
    Number,
    Pool,
    Prefix,
    PrefixState,
    find_number,
    find_pool,
    find_prefix,
    insert_legacy,
    insert_pool,
    insert_prefix,
    move_number,
    proven_pool,
    proven_prefix,
    set_locks,
    update_pool,
    update_prefix,
)
from relay.store.unit_of_work import UnitOfWork

DEFAULT_POOL = "default"
PREFIX_STATES: tuple[PrefixState, ...] = ("active", "locked", "returned")
MOST_BINDINGS = range(1, 5_001)
WARN_PERCENT = range(1, 101)


class PrefixChange(TypedDict, total=False):
    """The fields of a prefix that a change gives, as `Prefix` has them."""

    peer: str
    state: PrefixState
    cool_down_ms: int | None


class PoolChange(TypedDict, total=False):
    """The fields of a pool that a change gives, as `Pool` has them."""

    business: str | None
    area: str
    max_bindings: int
    warn_percent: int


# -- prefixes


def new_prefix(digits: str, peer: str = "", cool_down_ms: int | None = None) -> Prefix:
    """A prefix to load."""
    return Prefix(digits, digits[3:4], digits[4:], peer, "active", cool_down_ms, created_at=0)


def load_prefix(
    unit: UnitOfWork, wanted: Prefix, pool: str = DEFAULT_POOL, peers: Collection[str] | None = None
) -> int:
    """Load a prefix with its 10,000 numbers into a pool. Returns the count of new numbers. Raises Refused.

    `peers`: the names of the configured peers; None: unknown.
    """
    _operator(unit)
    fields.prefix(wanted.prefix)
    if find_prefix(unit.connection, wanted.prefix) is not None:
        raise Refused("state_conflict", "prefix", "already loaded")
    _require_pool(unit, pool)
    prefix = wanted._replace(
        peer=_peer(wanted.peer, peers), cool_down_ms=_cool_down(wanted.cool_down_ms), created_at=unit.now_ms
    )
    loaded = insert_prefix(unit, prefix, pool)
    details: dict[str, object] = {"pool": pool, "peer": prefix.peer, "cool_down_ms": prefix.cool_down_ms}
    unit.audit("prefix.load", prefix.prefix, details=details)
    return loaded


def _peer(asked: str, peers: Collection[str] | None) -> str:
    """The name of a configured peer, or "". Raises Refused for an unknown name."""
    peer = fields.text("peer", asked, 64) or ""
    if peer and peers is not None and peer not in peers:
        configured = f"it has {', '.join(sorted(peers))}" if peers else "it has none"
        raise Refused("not_found", "peer", f"the configuration has no [[peer]] of that name: {configured}")
    return peer


def change_prefix(
    unit: UnitOfWork, prefix: str, asked: PrefixChange, reason: str = "", peers: Collection[str] | None = None
) -> Prefix:
    """Change peer, state or cool-down of a prefix. `returned` is final. Raises Refused. `peers`: as `load_prefix`."""
    _operator(unit)
    old = get_prefix(unit, prefix)
    new = old._replace(**asked)
    if "peer" in asked:
        new = new._replace(peer=_peer(new.peer, peers))
    _cool_down(new.cool_down_ms)
    if old.state == "returned" and new.state != "returned":
        raise Refused("state_conflict", "state", "the prefix was returned to the ministry, which is final")
    update_prefix(unit, new)
    details = {name: value for name, value in new._asdict().items() if value != getattr(old, name)}
    unit.audit("prefix.change", prefix, reason=fields.reason(reason), details=details)
    return new


def get_prefix(unit: UnitOfWork, prefix: str) -> Prefix:
    """The prefix. Raises Refused if it is not loaded."""
    found = proven_prefix(unit, prefix) if prefix.isprintable() else None
    if found is None:
        raise Refused("not_found", "prefix", "not loaded: see the list of prefixes")
    return found


def ensure_numbers(unit: UnitOfWork, prefixes: Iterable[str], legacy: Iterable[str] = ()) -> int:
    """Load the configured prefixes and legacy numbers (normal form) that the store does not have yet.

    Once loaded, the store's values apply. Returns the count of new numbers.
    """
    new = 0
    for prefix in prefixes:
        if find_prefix(unit.connection, prefix) is None:
            new += load_prefix(unit, new_prefix(prefix))
    added = [number for number in legacy if insert_legacy(unit, number)]
    if added:
        unit.audit("number.legacy", added[0], details={"added": len(added)})
    return new + len(added)


def lacks_numbers(connection: Connection, prefixes: Iterable[str], legacy: Iterable[str]) -> bool:
    """Whether `ensure_numbers` would load anything."""
    return any(find_prefix(connection, prefix) is None for prefix in prefixes) or any(
        find_number(connection, number, 0) is None for number in legacy
    )


# -- numbers


def get_number(unit: UnitOfWork, number: str) -> Number:
    """A number of the platform, in any notation. Raises Refused if it is not one."""
    for parse in (normalise_700, normalise_party):
        try:
            found = find_number(unit.connection, parse(number), unit.now_ms)
        except ParseError:
            continue
        if found is not None:
            return found
    raise _unknown()


def _unknown() -> Refused:
    return Refused("number_unknown", "number", "not a number of this platform")


def lock(unit: UnitOfWork, number: str, reason: str) -> Number:
    """Lock a number: its calls are refused, and it gets no new bindings. Raises Refused."""
    _operator(unit)
    return _change_locks(unit, get_number(unit, number), "number.lock", reason, add=LOCKED_BY_OPERATOR)


def unlock(unit: UnitOfWork, number: str, reason: str = "") -> Number:
    """Release the operator's lock and the fraud lock. A lock of the prefix remains. Raises Refused."""
    _operator(unit)
    locks = LOCKED_BY_OPERATOR | LOCKED_FOR_FRAUD
    return _change_locks(unit, get_number(unit, number), "number.unlock", reason, clear=locks)


def hold(unit: UnitOfWork, number: str, reason: str = "") -> Number:
    """Keep a number from new bindings, while its bindings and calls go on. Raises Refused.

    A business user may hold the numbers of its own pools.
    """
    return _change_locks(unit, _own_number(unit, number), "number.hold", reason, add=HELD)


def unhold(unit: UnitOfWork, number: str, reason: str = "") -> Number:
    """Let a held number get bindings again. Raises Refused."""
    return _change_locks(unit, _own_number(unit, number), "number.unhold", reason, clear=HELD)


def _own_number(unit: UnitOfWork, number: str) -> Number:
    """The number. Raises Refused to a business user if its pool is not of that business user."""
    found, business = get_number(unit, number), unit.actor.business
    if business is not None:
        require_proofs(unit.connection, unit.sealer, "number", [found.number])
        require_proofs(unit.connection, unit.sealer, "pool", [found.pool])
        found = get_number(unit, found.number)
    pool = find_pool(unit.connection, found.pool, business)
    if pool is None:
        raise _unknown()
    if business not in (None, pool.business):
        raise Refused("forbidden", "number", "is of a pool that others use as well: ask the operator")
    return found


def _change_locks(unit: UnitOfWork, found: Number, action: str, reason: str, *, clear: int = 0, add: int = 0) -> Number:
    set_locks(unit, found.number, clear=clear, add=add)
    named = found.number if is_700(found.number) else "legacy"
    unit.audit(action, named, business=unit.actor.business, reason=fields.reason(reason))
    return get_number(unit, found.number)


def move(unit: UnitOfWork, numbers: Iterable[str], pool: str) -> int:
    """Move numbers to another pool; their bindings remain. Returns the count of numbers. Raises Refused."""
    _operator(unit)
    _require_pool(unit, pool)
    found = [get_number(unit, number) for number in numbers]
    for number in found:
        if number.legacy:
            raise invalid("numbers", "must be 700 numbers: a legacy number cannot be moved to a pool")
        move_number(unit, number.number, pool)
    if found:
        unit.audit("number.move", found[0].number, details={"pool": pool, "moved": len(found)})
    return len(found)


def end_rest(unit: UnitOfWork, reason: str) -> int:
    """End the cool-down that a restored store began. Returns the count of numbers. Raises Refused without a reason.

    Numbers in the cool-down of a binding rest on.
    """
    _operator(unit)
    reason = fields.reason(reason, required=True)
    ended = allocation.end_rest(unit)
    unit.audit("number.end_rest", "store", reason=reason, details={"rested": ended})
    return ended


# -- pools


def new_pool(
    pool_id: str, business: str | None = None, area: str = "", max_bindings: int = 200, warn_percent: int = 80
) -> Pool:
    """A pool to make. Without a business it is common: for all business users that have no pool."""
    return Pool(pool_id, business, area, max_bindings, warn_percent, created_at=0)


def make_pool(unit: UnitOfWork, wanted: Pool) -> Pool:
    """Make an empty pool. Raises Refused."""
    _operator(unit)
    fields.name("id", wanted.pool_id)
    if find_pool(unit.connection, wanted.pool_id) is not None or wanted.pool_id == LEGACY_POOL:
        raise Refused("state_conflict", "id", "taken by another pool: choose another id")
    pool = _checked(unit, wanted._replace(created_at=unit.now_ms))
    insert_pool(unit, pool)
    details = pool._asdict()
    del details["created_at"]
    unit.audit("pool.make", pool.pool_id, business=pool.business, details=details)
    return pool


def change_pool(unit: UnitOfWork, pool_id: str, asked: PoolChange) -> Pool:
    """Change the given fields of a pool. Raises Refused."""
    _operator(unit)
    old = proven_pool(unit, pool_id) if pool_id.isprintable() else None
    if old is None or pool_id == LEGACY_POOL:
        raise Refused("not_found", "pool", "there is no such pool")
    pool = _checked(unit, old._replace(**asked))
    update_pool(unit, pool)
    unit.audit("pool.change", pool_id, business=pool.business, details=dict(asked))
    return pool


def _checked(unit: UnitOfWork, pool: Pool) -> Pool:
    if pool.business is not None:
        get_business(unit, pool.business)
    for field, value, allowed in (
        ("max_bindings", pool.max_bindings, MOST_BINDINGS),
        ("warn_percent", pool.warn_percent, WARN_PERCENT),
    ):
        if value not in allowed:
            raise invalid(field, f"must be {allowed.start} to {allowed.stop - 1}")
    return pool._replace(area=fields.text("area", pool.area, 64) or "")


# -- shared checks


def _require_pool(unit: UnitOfWork, pool: str) -> None:
    """Raise Refused unless numbers may be put into the pool."""
    if find_pool(unit.connection, pool) is None or pool == LEGACY_POOL:
        raise Refused("not_found", "pool", "there is no such pool: make it first")


def _operator(unit: UnitOfWork) -> None:
    if unit.actor.business is not None:
        raise Refused("forbidden", "", "numbers, prefixes and pools require an operator key")


def _cool_down(value: int | None) -> int | None:
    if value is not None and not 0 <= value <= LONGEST_COOL_DOWN_MS:
        raise invalid("cool_down", "must be 0 to 365 days")
    return value
