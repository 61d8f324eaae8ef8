"""Pools: sets of numbers, each for one business, or for all businesses without a pool.

Owns the table `pool`, and counts the use of each.
"""

from __future__ import annotations

from typing import NamedTuple

from relay.store.act import Act
from relay.store.connection import Connection
from relay.store.numbers import LEGACY_POOL

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


def insert_pool(act: Act, pool: Pool) -> None:
    act.connection.execute(_ADD, pool)


def update_pool(act: Act, pool: Pool) -> None:
    act.connection.execute(_CHANGE, pool[:5])


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


def usage(connection: Connection, now_ms: int) -> list[PoolUsage]:
    """The use of every pool. Reads one index entry per number: 100 ms for a million."""
    return [usage_of(connection, pool, now_ms) for pool in find_pools(connection, None, "", _ALL)]


def usage_of(connection: Connection, pool: Pool, now_ms: int) -> PoolUsage:
    total, locked, bound, cooling, bindings = connection.execute(_USAGE, (pool.pool_id, now_ms)).fetchone()
    usable = total - locked
    percent = 100 * (bound + cooling) // usable if usable else 100
    free = usable - bound - cooling
    warning = total > 0 and percent >= pool.warn_percent
    return PoolUsage(pool.pool_id, pool.business, total, free, bound, cooling, locked, bindings, percent, warning)
