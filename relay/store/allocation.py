"""Which number a binding gets, and the routes on it, which calls look up; the cool-down of former routes.

A route is (number, caller). Its primary key refuses a second use while it is bound, and afterwards until `free_at`,
except by the same two ends. Owns the table `route`. To be used inside a unit of work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from relay.errors import Refused, StoreError
from relay.model.binding import Binding, Party, compile_lines, ends_of_binding
from relay.model.numbers import is_700, mask_number
from relay.store.connection import Connection, fetch_together
from relay.store.ledger import require_each
from relay.store.ledger_tables import dialect_of
from relay.store.numbers import LONGEST_COOL_DOWN_MS, SERIAL_DIGITS
from relay.store.proofs import proofs_of
from relay.store.sealing.rows import ANY_CALLER
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_ADD = """
INSERT INTO route (number, caller_hash, binding_id, party, pair) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (number, caller_hash) DO UPDATE SET binding_id = ?3, party = ?4, pair = ?5, free_at = NULL
WHERE route.free_at <= ?6 OR (route.free_at IS NOT NULL AND route.pair = ?5)
"""
_FREE_AT = "SELECT free_at FROM route WHERE number = ? AND caller_hash = ?"
_REST_ALL = "UPDATE route SET free_at = ? WHERE binding_id = ? AND number = ? AND free_at IS NULL"
_REST = "UPDATE route SET free_at = ?1 WHERE number = ?2 AND caller_hash = ?3 AND binding_id = ?4 AND free_at IS NULL"
_TURN = "UPDATE route SET party = ?1 WHERE number = ?2 AND caller_hash = ?3 AND binding_id = ?4"
_PAIR = "UPDATE route SET pair = ? WHERE binding_id = ? AND free_at IS NULL"
_FIELDS: dict[Party, str] = {"a": "a", "b": "b", "g": "group_id", "*": "x"}


class HashedLine(NamedTuple):
    """A route of a binding with its caller hashed, and masked for messages."""

    number: str
    caller_hash: bytes
    party: Party
    whose: str


def pair_of(sealer: Sealer, binding: Binding) -> bytes:
    """The two ends of a binding, as a keyed hash."""
    return sealer.lookup_hash(" ".join(ends_of_binding(binding)))


def lines_of(sealer: Sealer, binding: Binding) -> list[HashedLine]:
    """The lines of a binding, except those of the members of its group."""
    return [
        HashedLine(number, ANY_CALLER, party, "any caller")
        if caller is None
        else HashedLine(number, sealer.lookup_hash(caller), party, mask_number(caller))
        for number, caller, party in compile_lines(binding)
    ]


def member_lines(binding: Binding, hashes: Iterable[bytes]) -> list[HashedLine]:
    """The lines of members of the binding's group."""
    return [HashedLine(binding.x, caller_hash, "g", "a member of the group") for caller_hash in hashes]


def add_routes(unit: UnitOfWork, binding: Binding, pair: bytes, lines: Sequence[HashedLine]) -> None:
    """Add routes. Raises Refused for the first caller already on the number (conflict) or resting (number_cooling)."""
    binding_id = binding.binding_id
    rows = [(_ADD, (*line[:2], binding_id, line.party, pair, unit.now_ms)) for line in lines]
    for line, added in zip(lines, fetch_together(unit.connection, *rows), strict=True):
        if added.rowcount == 0:
            raise _in_the_way(unit, line)


def _in_the_way(unit: UnitOfWork, line: HashedLine) -> Refused:
    (free_at,) = unit.connection.execute(_FREE_AT, line[:2]).fetchone()
    field = _FIELDS[line.party]
    if free_at is None:
        problem = f"{line.whose} is bound on {line.number} already: unbind it or take another number"
        return Refused("conflict", field, problem)
    problem = f"{line.whose} used {line.number} with another party and is in cool-down: take another number, or wait"
    return Refused("number_cooling", field, problem)


def rest_routes(unit: UnitOfWork, binding_id: str, number: str, free_at: int) -> int:
    """Start the cool-down, until `free_at`, of all routes of a binding on a number. Return their number."""
    return unit.connection.execute(_REST_ALL, (free_at, binding_id, number)).rowcount


def rest_callers(unit: UnitOfWork, binding_id: str, number: str, hashes: Iterable[bytes], free_at: int) -> None:
    """Start the cool-down, until `free_at`, of the routes of some callers."""
    unit.connection.executemany(_REST, [(free_at, number, caller_hash, binding_id) for caller_hash in hashes])


def set_pair(unit: UnitOfWork, binding_id: str, pair: bytes) -> None:
    """Set the two ends that the binding joins."""
    unit.connection.execute(_PAIR, (pair, binding_id))


def turn_route(unit: UnitOfWork, binding_id: str, line: HashedLine) -> None:
    """Make the line's caller another party of the same binding."""
    unit.connection.execute(_TURN, (line.party, line.number, line.caller_hash, binding_id))


# -- Allocation

MOST_CANDIDATES = 16  # shared numbers tried for a group, each with a check of its members

# These search a covering index (number_choice, number_held) in its order: no sort, no access to the table.
_RESTED = """
SELECT number FROM number
WHERE pool = :pool AND locked = 0 AND exclusive = 0 AND bindings = 0 AND cools_until <= :now
  AND number IS DISTINCT FROM :not_this
ORDER BY cools_until LIMIT 1
"""
_NEXT_RESTED = """
SELECT min(cools_until) FROM number
WHERE pool = :pool AND locked = 0 AND exclusive = 0 AND bindings = 0 AND cools_until > :now
"""
# With NOT EXISTS, PostgreSQL would read all routes to choose one number.
_SHARED = """
SELECT number FROM number
WHERE pool = :pool AND holder = :holder AND locked = 0 AND exclusive = 0 AND bindings > 0 AND bindings < :cap
  AND number IS DISTINCT FROM :not_this
  AND 0 = (
    SELECT count(*) FROM route WHERE route.number = number.number AND caller_hash IN (:first, :second)
      AND (free_at IS NULL OR free_at > :now))
ORDER BY bindings, cools_until LIMIT :most
"""
_MEETS_MEMBER = """
SELECT 1 FROM group_member CROSS JOIN route
WHERE route.number = ?1 AND route.caller_hash = group_member.hash AND group_id = ?2
  AND (free_at IS NULL OR free_at > ?3) LIMIT 1
"""

# Whether the pair, and no other, rests on a number. One on which none rests was put to rest by `rest_all`.
_RESTS_ALONE = """
SELECT min(CASE WHEN pair = :pair THEN 1 ELSE 0 END) = 1 FROM route
WHERE route.number = number.number AND free_at > :now
"""

# The search of a pair's last number looks at the last 50 bindings of b.
_LAST = """
SELECT number.number, number.pool, number.bindings
FROM (SELECT {field} AS had, a_hash, business, group_id, created_at FROM binding
    WHERE b_hash = :b ORDER BY created_at DESC LIMIT 50) AS earlier
JOIN number ON number.number = earlier.had
WHERE earlier.a_hash = :a AND earlier.business = :business AND earlier.group_id IS NULL
  AND number.holder = :business AND locked = 0 AND exclusive = 0 AND number.number IS DISTINCT FROM :not_this
  AND (bindings > 0 OR cools_until <= :now OR ({rests_alone}))
  AND NOT EXISTS (
    SELECT 1 FROM route WHERE route.number = number.number AND caller_hash IN (:first, :second)
      AND (free_at IS NULL OR (free_at > :now AND pair <> :pair)))
ORDER BY earlier.created_at DESC LIMIT 1
"""
_LAST_OF: dict[str, str] = {field: _LAST.format(field=field, rests_alone=_RESTS_ALONE) for field in ("x", "y")}
_TAKE = f"""
UPDATE number SET bindings = bindings + 1, exclusive = :exclusive, holder = :holder
WHERE number = :number AND locked = 0 AND exclusive = 0 AND bindings < :cap AND (:exclusive = 0 OR bindings = 0)
  AND (holder = :holder OR (bindings = 0 AND cools_until <= :now))
  AND (bindings > 0 OR cools_until <= :now OR ({_RESTS_ALONE}))
"""
_STATE = "SELECT locked, exclusive, bindings, holder FROM number WHERE number = ?"
_COOL_DOWN = "SELECT cool_down_ms FROM prefix WHERE prefix = ?"
_START_COOL_DOWN = "UPDATE number SET cools_until = ?2 WHERE number = ?1 AND cools_until < ?2"
_REST_ALL_FREE = """
UPDATE number SET cools_until = ?1 + coalesce((SELECT cool_down_ms FROM prefix WHERE prefix.prefix = number.prefix), ?2)
WHERE bindings = 0
  AND cools_until < ?1 + coalesce((SELECT cool_down_ms FROM prefix WHERE prefix.prefix = number.prefix), ?2)
"""
_END_REST = """
UPDATE number SET cools_until = ?1 WHERE bindings = 0 AND cools_until > ?1
  AND NOT EXISTS (SELECT 1 FROM route WHERE route.number = number.number AND free_at > ?1)
"""
_GIVE_BACK = """
UPDATE number SET bindings = bindings - 1, exclusive = 0,
  cools_until = CASE WHEN cools_until < ?2 THEN ?2 ELSE cools_until END
WHERE number = ?1 RETURNING bindings
"""


class Wish(NamedTuple):
    """The request for a number. Its callers: at most two parties (keyed hashes), and the members of a group."""

    business: str
    callers: Sequence[bytes] = ()
    group_id: str | None = None
    exclusive: bool = False  # for an AXN, which any caller may dial: no other binding may share the number
    pair: tuple[bytes, bytes, bytes] | None = None  # a and b, and `pair_of` both: they get the same number again


class LastNumber(NamedTuple):
    """The number that the two of a wish had last."""

    number: str
    pool: str
    bindings: int


def last_number(connection: Connection, field: str, wish: Wish, not_this: str | None, now_ms: int) -> LastNumber | None:
    """The number, other than `not_this`, that the wish's pair had last as x or y, if they may have it again."""
    if wish.pair is None:
        return None
    a, b, pair = wish.pair
    first, second = (*wish.callers, None)[:2]
    asked: dict[str, object] = {"a": a, "b": b, "pair": pair, "first": first, "second": second}
    asked |= {"business": wish.business, "not_this": not_this, "now": now_ms}
    row = connection.execute(_LAST_OF[field], asked).fetchone()
    return row and LastNumber._make(row)


def choose_number(
    connection: Connection, pool: str, cap: int, wish: Wish, not_this: str | None, now_ms: int
) -> str | None:
    """Choose a number of the pool, other than `not_this`; None if none is left.

    The free number that has rested longest. If none is free, the one with the fewest bindings, below `cap`, among those
    of the business on which no caller has a route. On a server it is locked, and one that another unit of work has
    locked is no choice. O(log n + u), where u is the number of routes of these callers.
    """
    first, second = (*wish.callers, None, None)[:2]
    asked = {"pool": pool, "cap": cap, "now": now_ms, "not_this": not_this, "first": first, "second": second}
    asked["holder"] = wish.business
    claim = dialect_of(connection).claim
    row = connection.execute(_RESTED + claim, asked).fetchone()
    if row is not None or wish.exclusive:
        return row and str(row[0])
    asked["most"] = 1 if wish.group_id is None else MOST_CANDIDATES
    for (number,) in connection.execute(_SHARED + claim, asked).fetchall():
        if wish.group_id is None or not _meets_member(connection, number, wish.group_id, now_ms):
            return str(number)
    return None


def next_rested(connection: Connection, pool: str, now_ms: int) -> int | None:
    """The time when the pool's first cooling number becomes free, in Unix ms; None if none cools down."""
    (at_ms,) = connection.execute(_NEXT_RESTED, {"pool": pool, "now": now_ms}).fetchone()
    return at_ms if at_ms is None else int(at_ms)


def _meets_member(connection: Connection, number: str, group_id: str, now_ms: int) -> bool:
    return connection.execute(_MEETS_MEMBER, (number, group_id, now_ms)).fetchone() is not None


def count_use(
    unit: UnitOfWork, field: str, number: str, business: str, cap: int, pair: bytes, *, exclusive: bool
) -> None:
    """Count one more binding on the number. Raises Refused for `field`: number_locked, number_full, number_cooling.

    The parties of other bindings make no difference. `pair`: the two ends that the binding joins; they may take a
    number again during its cool-down if no one else rests on it.
    """
    asked = {"number": number, "cap": cap, "pair": pair, "exclusive": exclusive, "now": unit.now_ms, "holder": business}
    if unit.connection.execute(_TAKE, asked).rowcount == 0:
        raise _why_not(unit, field, number, business, exclusive=exclusive)


def _why_not(unit: UnitOfWork, field: str, number: str, business: str, *, exclusive: bool) -> Refused:
    row = unit.connection.execute(_STATE, (number,)).fetchone()
    if row is None:
        return Refused("number_unknown", field, "there is no such number")
    locked, taken, bindings, holder = row
    if locked:
        return Refused("number_locked", field, "the number is locked: unlock it or take another")
    if bindings and holder != business:
        return Refused("number_full", field, "another business user has the number now: take another")
    if taken:
        return Refused("number_full", field, "an AXN binding has exclusive use of the number: take another")
    if bindings and exclusive:
        return Refused("number_full", field, "an AXN binding needs a number without other bindings: take another")
    if bindings:
        return Refused("number_full", field, "the number has reached its limit of bindings: take another")
    return Refused("number_cooling", field, "the number is cooling down: take another, or wait")


def cool_down_ms(unit: UnitOfWork, number: str, configured_ms: int) -> int:
    """The cool-down of the number: that of its prefix, else the configured one.

    The longest if the row of the prefix is not proven, or was removed: the number is released all the same.
    """
    if not is_700(number):
        return configured_ms
    prefix = number[:-SERIAL_DIGITS]
    try:
        (count,), (rows,) = require_each(unit.connection, unit.sealer, [("prefix", [prefix])], (_COOL_DOWN, (prefix,)))
    except StoreError:
        return LONGEST_COOL_DOWN_MS
    if not count:
        return LONGEST_COOL_DOWN_MS if proofs_of(unit.connection, "prefix", [prefix]) else configured_ms
    (found,) = rows.fetchone()
    return configured_ms if found is None else int(found)


def rest_number(unit: UnitOfWork, number: str, free_at: int) -> None:
    """Extend the cool-down of the number to `free_at`, when the last of its former routes becomes free."""
    unit.connection.execute(_START_COOL_DOWN, (number, free_at))


def rest_all(unit: UnitOfWork, configured_ms: int) -> int:
    """Start the cool-down of every number without a binding: bindings may be lost. Return the count.

    `configured_ms`: as for `cool_down_ms`.
    """
    return unit.connection.execute(_REST_ALL_FREE, (unit.now_ms, configured_ms)).rowcount


def end_rest(unit: UnitOfWork) -> int:
    """End the rest of the numbers that `rest_all` put to rest. Return their count.

    A number on which a former party rests keeps its cool-down.
    """
    return unit.connection.execute(_END_REST, (unit.now_ms,)).rowcount


def give_back(unit: UnitOfWork, number: str, free_at: int) -> bool:
    """Count one binding less. Return whether it was the last, so that the cool-down begins."""
    (left,) = unit.connection.execute(_GIVE_BACK, (number, free_at)).fetchone()
    return bool(left == 0)
