"""The routes of bindings, which calls look up, and the cool-down of former routes.

A route is (number, caller). Its primary key refuses a second use while it is bound, and afterwards until `free_at`,
except by the same two ends. Owns the table `route`. To be used inside a unit of work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from relay.call.binding import Binding, Party, compile_lines, ends
from relay.call.numbers import mask_number
from relay.errors import Refused
from relay.store.act import Act
from relay.store.binding_seal import ANY_CALLER
from relay.store.sealing import Sealer

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
    return sealer.lookup_hash(" ".join(ends(binding)))


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


def add_routes(act: Act, binding: Binding, pair: bytes, lines: Sequence[HashedLine]) -> None:
    """Add routes. Raises Refused for the first caller already on the number (conflict) or resting (number_cooling)."""
    binding_id = binding.binding_id
    for line in lines:
        row = (*line[:2], binding_id, line.party, pair, act.now_ms)
        if act.connection.execute(_ADD, row).rowcount == 0:
            raise _in_the_way(act, line)


def _in_the_way(act: Act, line: HashedLine) -> Refused:
    (free_at,) = act.connection.execute(_FREE_AT, line[:2]).fetchone()
    field = _FIELDS[line.party]
    if free_at is None:
        problem = f"{line.whose} is bound on {line.number} already: unbind it or take another number"
        return Refused("conflict", field, problem)
    problem = f"{line.whose} used {line.number} with another party and is in cool-down: take another number, or wait"
    return Refused("number_cooling", field, problem)


def rest_routes(act: Act, binding_id: str, number: str, free_at: int) -> int:
    """Start the cool-down, until `free_at`, of all routes of a binding on a number. Return their number."""
    return act.connection.execute(_REST_ALL, (free_at, binding_id, number)).rowcount


def rest_callers(act: Act, binding_id: str, number: str, hashes: Iterable[bytes], free_at: int) -> None:
    """Start the cool-down, until `free_at`, of the routes of some callers."""
    act.connection.executemany(_REST, [(free_at, number, caller_hash, binding_id) for caller_hash in hashes])


def set_pair(act: Act, binding_id: str, pair: bytes) -> None:
    """Set the two ends that the binding joins."""
    act.connection.execute(_PAIR, (pair, binding_id))


def turn_route(act: Act, binding_id: str, line: HashedLine) -> None:
    """Make the line's caller another party of the same binding."""
    act.connection.execute(_TURN, (line.party, line.number, line.caller_hash, binding_id))
