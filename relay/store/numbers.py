"""The numbers, prefixes and pools of the platform: loading, locking, moving between pools, and state.

Owns the tables `prefix`, `number` and `pool`, except for the counters, which `relay.store.allocation` owns. The state
of a number (locked, bound, cooling, free) is derived when it is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from relay.model.numbers import HELD, LOCKED_BY_OPERATOR, LOCKED_FOR_FRAUD, LOCKED_WITH_PREFIX
from relay.store.connection import Connection, Rows, Statement
from relay.store.ledger import require_proofs
from relay.store.unit_of_work import UnitOfWork

State = Literal["locked", "bound", "cooling", "free"]
PrefixState = Literal["active", "locked", "returned"]

Lock = Literal["operator", "fraud", "prefix", "hold"]
_LOCKS: dict[int, Lock] = {
    LOCKED_BY_OPERATOR: "operator",
    LOCKED_FOR_FRAUD: "fraud",
    LOCKED_WITH_PREFIX: "prefix",
    HELD: "hold",
}

LEGACY_POOL = "legacy"  # no number is chosen from it
SERIAL_DIGITS = 4  # the last of a 700 number, after the prefix
SERIALS = 10_000
LONGEST_COOL_DOWN_MS = 365 * 24 * 3_600_000

_STATE = """CASE WHEN locked <> 0 THEN 'locked' WHEN bindings > 0 THEN 'bound'
WHEN cools_until > :now THEN 'cooling' ELSE 'free' END"""
_NUMBERS = (
    f"SELECT number, prefix, pool, {_STATE} AS state, locked, exclusive, bindings, cools_until, legacy FROM number"
)
_BY_NUMBER = f"{_NUMBERS} WHERE number = :number"
_HOLDER = "SELECT holder FROM number WHERE number = :number AND (bindings > 0 OR cools_until > :now)"
_PREFIXES = "SELECT prefix, operator, platform, peer, state, cool_down_ms, created_at FROM prefix"
_ADD_PREFIX = (
    "INSERT INTO prefix (prefix, operator, platform, peer, state, cool_down_ms, created_at) VALUES (?,?,?,?,?,?,?)"
)
# One statement per prefix: single rows from Python would take ten times as long.
_ADD_NUMBERS = """
INSERT INTO number (number, prefix, pool, locked)
WITH RECURSIVE serial (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM serial WHERE n < 9999)
SELECT ?1 || substr(CAST(10000 + n AS TEXT), 2), ?1, ?2, ?3 FROM serial
"""
_ADD_LEGACY = "INSERT INTO number (number, prefix, pool, legacy) VALUES (?, '', ?, 1) ON CONFLICT DO NOTHING"
_ADD_LEGACY_POOL = "INSERT INTO pool (id, area, created_at) VALUES (?, '', ?) ON CONFLICT DO NOTHING"
_CHANGE_PREFIX = "UPDATE prefix SET peer = ?2, state = ?3, cool_down_ms = ?4 WHERE prefix = ?1"
_LOCK_PREFIX = "UPDATE number SET locked = (locked & ~?3) | ?2 WHERE prefix = ?1 AND locked & ?3 <> ?2"
_LOCK = "UPDATE number SET locked = (locked & ~?2) | ?3 WHERE number = ?1"
_MOVE = "UPDATE number SET pool = ? WHERE number = ?"


class Prefix(NamedTuple):
    """The 11 digits that the ministry assigns, with 10,000 numbers under them."""

    prefix: str
    operator: str  # its 4th digit
    platform: str  # its 5th to 11th
    peer: str  # the carrier
    state: PrefixState
    cool_down_ms: int | None  # None: the configured one
    created_at: int


class Number(NamedTuple):
    """A number with its present state. `locked` holds the LOCKED_ bits; times are Unix milliseconds."""

    number: str
    prefix: str  # "" for an old middle number
    pool: str
    state: State
    locked: int
    exclusive: bool
    bindings: int
    cools_until: int
    legacy: bool

    @property
    def locked_by(self) -> list[Lock]:
        """The reasons for its lock; empty if it is not locked."""
        return [lock for bit, lock in _LOCKS.items() if self.locked & bit]


class NumberQuery(NamedTuple):
    """A filter of numbers; None matches any."""

    pool: str | None = None
    prefix: str | None = None
    state: str | None = None
    business: str | None = None  # numbers in the pools of this business


# -- inside a unit of work


def insert_prefix(unit: UnitOfWork, prefix: Prefix, pool: str) -> int:
    """Add a prefix and its 10,000 numbers, in one statement (20 ms). Return their number."""
    unit.connection.execute(_ADD_PREFIX, prefix)
    locked = 0 if prefix.state == "active" else LOCKED_WITH_PREFIX
    unit.connection.execute(_ADD_NUMBERS, (prefix.prefix, pool, locked))
    return SERIALS  # sqlite3 has no rowcount for a statement that begins with WITH


def update_prefix(unit: UnitOfWork, prefix: Prefix) -> None:
    """Write peer, state and cool-down. Any state but active locks all its numbers from the next INVITE on."""
    unit.connection.execute(_CHANGE_PREFIX, (prefix.prefix, prefix.peer, prefix.state, prefix.cool_down_ms))
    locked = 0 if prefix.state == "active" else LOCKED_WITH_PREFIX
    unit.connection.execute(_LOCK_PREFIX, (prefix.prefix, locked, LOCKED_WITH_PREFIX))


def insert_legacy(unit: UnitOfWork, number: str) -> bool:
    """Add an old middle number (normal form). Return whether it is new."""
    unit.connection.execute(_ADD_LEGACY_POOL, (LEGACY_POOL, unit.now_ms))
    return unit.connection.execute(_ADD_LEGACY, (number, LEGACY_POOL)).rowcount == 1


def set_locks(unit: UnitOfWork, number: str, *, clear: int = 0, add: int = 0) -> None:
    """Clear and set LOCKED_ bits, effective with the next INVITE."""
    unit.connection.execute(_LOCK, (number, clear, add))


def move_number(unit: UnitOfWork, number: str, pool: str) -> None:
    unit.connection.execute(_MOVE, (pool, number))


def proven_prefix(unit: UnitOfWork, prefix: str) -> Prefix | None:
    """As `find_prefix`. Raises StoreError if its row is not proven."""
    is_there = require_proofs(unit.connection, unit.sealer, "prefix", [prefix])
    return find_prefix(unit.connection, prefix) if is_there else None


def proven_pool(unit: UnitOfWork, pool_id: str) -> Pool | None:
    """As `find_pool`. Raises StoreError if its row is not proven."""
    is_there = require_proofs(unit.connection, unit.sealer, "pool", [pool_id])
    return find_pool(unit.connection, pool_id) if is_there else None


# -- reading


def find_prefix(connection: Connection, prefix: str) -> Prefix | None:
    row = connection.execute(f"{_PREFIXES} WHERE prefix = ?", (prefix,)).fetchone()
    return row and Prefix._make(row)


def find_prefixes(connection: Connection, after: str, most: int) -> list[Prefix]:
    """A page of prefixes, after the prefix `after`."""
    rows = connection.execute(f"{_PREFIXES} WHERE prefix > ? ORDER BY prefix LIMIT ?", (after, most)).fetchall()
    return [Prefix._make(row) for row in rows]


def find_number(connection: Connection, number: str, now_ms: int) -> Number | None:
    row = connection.execute(_BY_NUMBER, {"number": number, "now": now_ms}).fetchone()
    return None if row is None else _number(row)


def is_held_by(connection: Connection, number: str, business: str | None, now_ms: int) -> bool:
    """Whether bindings of this business user are on the number, or rest on it. One row by its key, whatever the answer.

    Once it has rested it is free, whether another business user has got it or not.
    """
    row = connection.execute(_HOLDER, {"number": number, "now": now_ms}).fetchone()
    return row is not None and bool(business) and row[0] == business


def find_numbers(connection: Connection, query: NumberQuery, now_ms: int, after: str, most: int) -> list[Number]:
    """A page of numbers, after the number `after`."""
    wanted = {
        "pool = :pool": query.pool,
        "number BETWEEN :prefix AND :prefix || ':'": query.prefix,  # ":" is the character after "9"
        f"{_STATE} = :state": query.state,
        "pool IN (SELECT id FROM pool WHERE business = :business)": query.business,
    }
    conditions = [condition for condition, value in wanted.items() if value is not None]
    where = " AND ".join(["number > :after", *conditions])
    asked = query._asdict() | {"after": after, "most": most, "now": now_ms}
    rows = connection.execute(f"{_NUMBERS} WHERE {where} ORDER BY number LIMIT :most", asked).fetchall()
    return [_number(row) for row in rows]


def _number(row: tuple[str, str, str, State, int, int, int, int, int]) -> Number:
    number, prefix, pool, state, locked, exclusive, bindings, cools_until, legacy = row
    return Number(number, prefix, pool, state, locked, bool(exclusive), bindings, cools_until, bool(legacy))


# -- Pools

_COLUMNS = "SELECT id, business, area, max_bindings, warn_percent, created_at FROM pool"
_ADD = "INSERT INTO pool (id, business, area, max_bindings, warn_percent, created_at) VALUES (?, ?, ?, ?, ?, ?)"
_CHANGE = "UPDATE pool SET business = ?2, area = ?3, max_bindings = ?4, warn_percent = ?5 WHERE id = ?1"
_PAGE = f"{_COLUMNS} WHERE (:business IS NULL OR business = :business) AND id > :after ORDER BY id LIMIT :most"
# The pools of a business, else the common ones.
_OF_BUSINESS = f"""{_COLUMNS}
WHERE business IS NOT DISTINCT FROM (SELECT max(business) FROM pool WHERE business = :business)
  AND id <> '{LEGACY_POOL}'
ORDER BY area <> '', id
"""
# Sums over ranges of the covering index number_choice.
_USAGE = """
SELECT count(*), count(*) FILTER (WHERE locked <> 0), count(*) FILTER (WHERE locked = 0 AND bindings > 0),
       count(*) FILTER (WHERE locked = 0 AND bindings = 0 AND cools_until > ?2), coalesce(sum(bindings), 0)
FROM number WHERE pool = ?1
"""
_BINDINGS_OF = "SELECT coalesce(sum(bindings), 0) FROM number WHERE pool = ? AND holder = ? AND bindings > 0"

_ALL = 1 << 31


class Pool(NamedTuple):
    """A set of numbers. `max_bindings`: limit for one number; `warn_percent`: of the numbers in use."""

    pool_id: str
    business: str | None  # None: for all businesses without a pool
    area: str
    max_bindings: int
    warn_percent: int
    created_at: int


class PoolUsage(NamedTuple):
    """The use of a pool, in numbers. total = free + bound + cooling + locked."""

    pool_id: str
    business: str | None
    total: int
    free: int
    bound: int
    cooling: int
    locked: int
    bindings: int  # an AXYB counts twice, once for each of its numbers
    percent: int  # of the unlocked numbers that are not free; 100 if all are locked
    warning: bool


def insert_pool(unit: UnitOfWork, pool: Pool) -> None:
    unit.connection.execute(_ADD, pool)


def update_pool(unit: UnitOfWork, pool: Pool) -> None:
    unit.connection.execute(_CHANGE, pool[:5])


def find_pool(connection: Connection, pool_id: str, business: str | None = None) -> Pool | None:
    """The pool; None if there is none, or, with `business`, none that it may use."""
    row = connection.execute(f"{_COLUMNS} WHERE id = ?", (pool_id,)).fetchone()
    pool = row and Pool._make(row)
    if pool is None or business is None:
        return pool
    return pool if pool in pools_of(connection, business) else None


def find_pools(connection: Connection, business: str | None, after: str, most: int) -> list[Pool]:
    """A page of pools by id, after the id `after`; with `business`, only its own."""
    asked = {"business": business, "after": after, "most": most}
    return [Pool._make(row) for row in connection.execute(_PAGE, asked).fetchall()]


def pools_of(connection: Connection, business: str) -> list[Pool]:
    """The pools that a business may use: its own, else the common ones. Pools without an area come first."""
    return [Pool._make(row) for row in connection.execute(_OF_BUSINESS, {"business": business}).fetchall()]


def select_choice(business: str, numbers: Iterable[str], pools: Iterable[str], now_ms: int) -> list[Statement]:
    """The statements of `pools_of`, of `find_number` for each number, and of `find_pool` for each pool."""
    return [
        (_OF_BUSINESS, {"business": business}),
        *((_BY_NUMBER, {"number": number, "now": now_ms}) for number in numbers),
        *((f"{_COLUMNS} WHERE id = ?", (pool_id,)) for pool_id in pools),
    ]


def found_choice(found: Sequence[Rows], numbers: int) -> tuple[list[Pool], list[Number], list[Pool]]:
    """The results of `select_choice`: the pools of the business, the numbers, and the pools asked for by id.

    `numbers`: how many numbers were asked for.
    """
    own, *each = found
    return (
        [Pool._make(row) for row in own],
        [_number(row) for rows in each[:numbers] for row in rows],
        [Pool._make(row) for rows in each[numbers:] for row in rows],
    )


def usage(connection: Connection, now_ms: int) -> list[PoolUsage]:
    """The use of every pool. Reads one index entry per number: 100 ms for a million."""
    return [usage_of(connection, pool, now_ms) for pool in find_pools(connection, None, "", _ALL)]


def number_seen_by(connection: Connection, number: Number, pool: Pool, business: str | None, now_ms: int) -> Number:
    """The number as the business user may see it: in a common pool it seems free, unless it is the business user's."""
    if business in (None, pool.business) or is_held_by(connection, number.number, business, now_ms):
        return number
    return number._replace(state="free", locked=0, exclusive=False, cools_until=0)


def usage_seen_by(connection: Connection, pool: Pool, business: str | None, now_ms: int) -> PoolUsage:
    """As `usage_of`. In a common pool a business user sees its own bindings, and whole percents of the numbers.

    Exact counts would show each binding of the others. `bound` includes the numbers that are cooling.
    """
    whole = usage_of(connection, pool, now_ms)
    if business in (None, pool.business):
        return whole
    (bindings,) = connection.execute(_BINDINGS_OF, (pool.pool_id, business)).fetchone()
    locked = whole.total * (100 * whole.locked // max(whole.total, 1)) // 100
    usable = whole.total - locked
    bound = usable * whole.percent // 100
    return whole._replace(free=usable - bound, bound=bound, cooling=0, locked=locked, bindings=bindings)


def usage_of(connection: Connection, pool: Pool, now_ms: int) -> PoolUsage:
    total, locked, bound, cooling, bindings = connection.execute(_USAGE, (pool.pool_id, now_ms)).fetchone()
    usable = total - locked
    percent = 100 * (bound + cooling) // usable if usable else 100
    free = usable - bound - cooling
    warning = total > 0 and percent >= pool.warn_percent
    return PoolUsage(pool.pool_id, pool.business, total, free, bound, cooling, locked, bindings, percent, warning)
