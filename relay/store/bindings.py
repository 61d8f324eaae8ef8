"""Bindings and their routes in SQLite: written together, found again long after they ended.

It owns the SQL and the sealing of these two tables. Which bindings are allowed is not its business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from relay.call.binding import Binding, compile_lines
from relay.call.numbers import is_700
from relay.errors import StoreError
from relay.store.binding_seal import Secret, open_binding, route_mac, seal_binding
from relay.store.database import connect, store_errors, transaction
from relay.store.sealing import Sealer

Taken = Literal["a", "b"]  # the party that already has a route on the number it would dial

_ADD_BINDING = """
INSERT INTO binding (
    id, mode, business, pool, x, y, a_hash, b_hash, order_hash, sealed, created_at, created_by, expires_at
) VALUES (?, ?, ?, 'default', ?, ?, ?, ?, ?, ?, ?, 'cli', ?)
"""

# The unique key refuses a caller bound twice on one number; an expired route makes room.
_ADD_ROUTE = """
INSERT INTO route (number, caller_hash, binding_id, party, pair, mac) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (number, caller_hash) DO UPDATE SET binding_id = ?3, party = ?4, pair = ?5, free_at = NULL, mac = ?6
WHERE EXISTS (SELECT 1 FROM binding WHERE id = route.binding_id AND expires_at <= ?7)
"""

_IS_TAKEN = """
SELECT EXISTS (
    SELECT 1 FROM route JOIN binding ON binding.id = route.binding_id
    WHERE number = ?1 AND caller_hash = ?2 AND (expires_at IS NULL OR expires_at > ?3)
) OR EXISTS (SELECT 1 FROM number WHERE number = ?1 AND locked <> 0)
"""

_COLUMNS = "SELECT id, mode, business, x, y, sealed, created_at, expires_at, ended_at FROM binding"
_LIVE = "ended_at IS NULL AND (expires_at IS NULL OR expires_at > :now)"
_IN_FORCE = "created_at <= :at AND min(ifnull(ended_at, :at + 1), ifnull(expires_at, :at + 1)) > :at"
# One SELECT an index: OR between two of them would read the whole table.
_OF_NUMBER = f"{_COLUMNS} WHERE x = :number {{and_}} UNION ALL {_COLUMNS} WHERE y = :number {{and_}}"
_OF_PARTY = f"{_COLUMNS} WHERE (a_hash = :hash OR b_hash = :hash) {{and_}}"

_Routes = list[tuple[Any, ...]]


class Bindings:
    """The bindings of one store, over a connection of its own. Errors of the store are raised as StoreError."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        with store_errors(path):
            self._connection = connect(path)

    def add(self, bindings: Sequence[Binding], now_ms: int) -> list[Taken | None]:
        """Adds each binding with its routes, all or nothing of each, in one durable transaction.

        The answers are in the order of `bindings`: None, or the party whose route is taken.
        """
        prepared = [self._rows(binding) for binding in bindings]  # before the lock is taken: sealing is half the work
        with store_errors(self._path), transaction(self._connection):
            return [self._insert(row, routes, now_ms) for row, routes in prepared]

    def _rows(self, binding: Binding) -> tuple[tuple[Any, ...], _Routes]:
        lookup_hash = self._sealer.lookup_hash
        hashes = {"a": lookup_hash(binding.a), "b": lookup_hash(binding.b)}
        order_hash = None if binding.order_id is None else lookup_hash(f"order {binding.order_id}")
        row = (
            *(binding.binding_id, binding.mode, binding.business, binding.x, binding.y),
            *(hashes["a"], hashes["b"], order_hash, self._seal(binding)),
            *(binding.created_at, binding.expires_at),
        )
        pair = lookup_hash(" ".join(sorted((binding.a, binding.b))))
        routes: _Routes = []
        for line in compile_lines(binding):
            caller_hash = hashes[line.party]
            mac = route_mac(self._sealer, line.number, caller_hash, binding.binding_id, line.party)
            routes.append((line.number, caller_hash, binding.binding_id, line.party, pair, mac))
        return row, routes

    def _seal(self, binding: Binding) -> bytes:
        secret = Secret(binding.a, binding.b, binding.order_id)
        return seal_binding(self._sealer, binding.binding_id, binding.mode, binding.x, binding.y, secret)

    def _insert(self, row: tuple[Any, ...], routes: _Routes, now_ms: int) -> Taken | None:
        execute = self._connection.execute
        execute("SAVEPOINT binding")
        execute(_ADD_BINDING, row)
        parties: tuple[Taken, Taken] = ("a", "b")
        for party, route in zip(parties, routes, strict=True):
            if execute(_ADD_ROUTE, (*route, now_ms)).rowcount == 0:
                execute("ROLLBACK TO binding")
                execute("RELEASE binding")
                return party
        execute("RELEASE binding")
        return None

    def is_taken(self, number: str, caller: str, now_ms: int) -> bool:
        """Whether `caller` cannot be bound on `number`: it has a route there that is not expired, or it is locked."""
        with store_errors(self._path):
            row = self._connection.execute(_IS_TAKEN, (number, self._sealer.lookup_hash(caller), now_ms)).fetchone()
        return bool(row[0])

    def business_state(self, business: str) -> str | None:
        """applied, approved, suspended or revoked; None where there is no such business user."""
        with store_errors(self._path):
            row = self._connection.execute("SELECT state FROM business WHERE id = ?", (business,)).fetchone()
        return row and str(row[0])

    def end(self, binding_id: str, now_ms: int) -> Binding | None:
        """Unbinds: the routes go, the binding stays for traces. Gives it as it was before; None where there is none."""
        with store_errors(self._path), transaction(self._connection):
            binding = self.get(binding_id)
            if binding is None or binding.ended_at is not None:
                return binding
            self._connection.execute("UPDATE binding SET ended_at = ? WHERE id = ?", (now_ms, binding_id))
            self._connection.executemany(
                "DELETE FROM route WHERE number = ? AND caller_hash = ? AND binding_id = ?",
                [(line.number, self._sealer.lookup_hash(line.caller), binding_id) for line in compile_lines(binding)],
            )
        return binding

    def get(self, binding_id: str) -> Binding | None:
        """The binding, in force or not; None where there is none."""
        return next(self._select(f"{_COLUMNS} WHERE id = :id", {"id": binding_id}), None)

    def all(self, live_at_ms: int | None = None) -> Iterator[Binding]:
        """Every binding in the order they were made; with `live_at_ms` only those that are in force then."""
        if live_at_ms is None:
            return self._select(f"{_COLUMNS} ORDER BY id", {})
        return self._select(f"{_COLUMNS} WHERE {_LIVE} ORDER BY id", {"now": live_at_ms})

    def of_number(self, number: str, at_ms: int | None = None) -> Iterator[Binding]:
        """Those of a 700 number or a party (in the normal form); with `at_ms` only those in force at that moment."""
        and_ = "" if at_ms is None else f"AND {_IN_FORCE}"
        if is_700(number):
            return self._select(_OF_NUMBER.format(and_=and_), {"number": number, "at": at_ms})
        return self._select(_OF_PARTY.format(and_=and_), {"hash": self._sealer.lookup_hash(number), "at": at_ms})

    def _select(self, query: str, parameters: dict[str, Any]) -> Iterator[Binding]:
        with store_errors(self._path):
            for row in self._connection.execute(query, parameters):
                yield self._binding(row)

    def _binding(self, row: Iterable[Any]) -> Binding:
        binding_id, mode, business, x, y, sealed, created_at, expires_at, ended_at = row
        a, b, order_id, _, _ = open_binding(self._sealer, binding_id, mode, x, y, sealed)
        if a is None or b is None:
            raise StoreError("a binding without its parties")
        return Binding(binding_id, mode, business, order_id, x, y, a, b, created_at, expires_at, ended_at)

    def close(self) -> None:
        self._connection.close()
