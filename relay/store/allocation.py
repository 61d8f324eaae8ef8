"""Which 700 number a binding gets, and how numbers are taken and given back.

It owns the counters of the table `number`. A number whose last binding ended rests until `cools_until`, which is never
earlier than the `free_at` of any of its routes: so on a number without bindings that has rested nobody can be in the
way. It must be used inside an act: SQLite's one writer makes choosing and taking one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.errors import Refused
from relay.store.act import Act
from relay.store.connection import Connection

MOST_CANDIDATES = 16  # shared numbers that are tried for a group, each with a look at its members

# Both are searches of a covering index (number_choice, number_held) in its order: no sort, no row of the table.
_RESTED = """
SELECT number FROM number
WHERE pool = :pool AND locked = 0 AND exclusive = 0 AND bindings = 0 AND cools_until <= :now
  AND number IS DISTINCT FROM :not_this
ORDER BY cools_until LIMIT 1
"""
_SHARED = """
SELECT number FROM number
WHERE pool = :pool AND holder = :holder AND locked = 0 AND exclusive = 0 AND bindings > 0 AND bindings < :cap
  AND number IS DISTINCT FROM :not_this
  AND NOT EXISTS (
    SELECT 1 FROM route WHERE route.number = number.number AND caller_hash IN (:first, :second)
      AND (free_at IS NULL OR free_at > :now))
ORDER BY bindings, cools_until LIMIT :most
"""
_MEETS_MEMBER = """
SELECT 1 FROM group_member CROSS JOIN route
WHERE route.number = ?1 AND route.caller_hash = group_member.hash AND group_id = ?2
  AND (free_at IS NULL OR free_at > ?3) LIMIT 1
"""

_TAKE = """
UPDATE number SET bindings = bindings + 1, exclusive = :exclusive, holder = :holder
WHERE number = :number AND locked = 0 AND exclusive = 0 AND bindings < :cap AND (:exclusive = 0 OR bindings = 0)
  AND (holder = :holder OR (bindings = 0 AND cools_until <= :now))
  AND (bindings > 0 OR cools_until <= :now
    OR (SELECT min(CASE WHEN pair = :pair THEN 1 ELSE 0 END) FROM route
      WHERE route.number = number.number AND free_at > :now) = 1)
"""
_STATE = "SELECT locked, exclusive, bindings, holder FROM number WHERE number = ?"
_COOL_DOWN = "SELECT cool_down_ms FROM number JOIN prefix USING (prefix) WHERE number = ?"
_REST = "UPDATE number SET cools_until = ?2 WHERE number = ?1 AND cools_until < ?2"
_GIVE_BACK = """
UPDATE number SET bindings = bindings - 1, exclusive = 0,
  cools_until = CASE WHEN cools_until < ?2 THEN ?2 ELSE cools_until END
WHERE number = ?1 RETURNING bindings
"""


class Wish(NamedTuple):
    """Whose binding it is, and who will dial the number: at most two parties (keyed hashes), and a group's members."""

    business: str
    callers: Sequence[bytes] = ()
    group_id: str | None = None
    exclusive: bool = False  # any caller will reach somebody: nobody else may be on it


def choose(connection: Connection, pool: str, cap: int, wish: Wish, not_this: str | None, now_ms: int) -> str | None:
    """Chooses a number of the pool, other than `not_this`. None where none is left.

    It is the free one that has rested longest. Where none is free, it is the one with the fewest bindings, less than
    `cap`, among those that the business holds and that none of the callers is on. O(log n + u), u being the numbers
    that these callers hold or rest on.
    """
    first, second = (*wish.callers, None, None)[:2]
    asked = {"pool": pool, "cap": cap, "now": now_ms, "not_this": not_this, "first": first, "second": second}
    asked["holder"] = wish.business
    row = connection.execute(_RESTED, asked).fetchone()
    if row is not None or wish.exclusive:
        return row and str(row[0])
    asked["most"] = 1 if wish.group_id is None else MOST_CANDIDATES
    for (number,) in connection.execute(_SHARED, asked).fetchall():
        if wish.group_id is None or not _meets_member(connection, number, wish.group_id, now_ms):
            return str(number)
    return None


def _meets_member(connection: Connection, number: str, group_id: str, now_ms: int) -> bool:
    return connection.execute(_MEETS_MEMBER, (number, group_id, now_ms)).fetchone() is not None


def take(act: Act, field: str, number: str, business: str, cap: int, pair: bytes, *, exclusive: bool) -> None:
    """Counts one more binding on the number. Raises Refused for `field`: number_locked, number_full, number_cooling.

    Whom others have bound on the number makes no difference. `pair` stands for the two ends that the binding joins: a
    number on which nobody else rests may be taken by the same two at once.
    """
    asked = {"number": number, "cap": cap, "pair": pair, "exclusive": exclusive, "now": act.now_ms, "holder": business}
    if act.connection.execute(_TAKE, asked).rowcount == 0:
        raise _why_not(act, field, number, business, exclusive=exclusive)


def _why_not(act: Act, field: str, number: str, business: str, *, exclusive: bool) -> Refused:
    row = act.connection.execute(_STATE, (number,)).fetchone()
    if row is None:
        return Refused("number_unknown", field, "there is no such number")
    locked, taken, bindings, holder = row
    if locked:
        return Refused("number_locked", field, "the number is locked: unlock it or take another")
    if bindings and holder != business:
        return Refused("number_full", field, "another business user has the number now: take another")
    if taken:
        return Refused("number_full", field, "an AXN binding has the number for itself: take another")
    if bindings and exclusive:
        return Refused(
            "number_full", field, "an AXN binding needs a number for itself, and others are bound on this one"
        )
    if bindings:
        return Refused("number_full", field, "no more bindings go on this number: take another")
    return Refused("number_cooling", field, "the number rests after its last binding: take another, or wait")


def cool_down_ms(act: Act, number: str, configured_ms: int) -> int:
    """How long the number rests: its prefix's own time, else the configured one."""
    row = act.connection.execute(_COOL_DOWN, (number,)).fetchone()
    return configured_ms if row is None or row[0] is None else int(row[0])


def rest(act: Act, number: str, free_at: int) -> None:
    """Has the number rest until `free_at` at least after its last binding: somebody who was on it rests as long."""
    act.connection.execute(_REST, (number, free_at))


def give_back(act: Act, number: str, free_at: int) -> bool:
    """Counts one binding less. Returns whether it was the last, so that the number rests now."""
    (left,) = act.connection.execute(_GIVE_BACK, (number, free_at)).fetchone()
    return bool(left == 0)
