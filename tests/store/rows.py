"""Writes rows of the service's tables one by one, so that a test defines the content of the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import count
from typing import Any

from relay.policy.rules import LastCaller
from relay.store.database import connect
from relay.store.journal.rows import PUT_CALLERS, caller_row
from relay.store.record_index import add_index, number_key, pair_key
from relay.store.record_rows import insert
from relay.store.sealing.rows import ANY_CALLER, Secret, seal_binding
from tests.store.conftest import Disk
from tests.support.stored import NOW_MS, A, B, X
from tests.support.vouched import vouch_by

_BINDING = (
    "INSERT INTO binding (id, mode, business, pool, x, y, sealed, created_at, created_by) "
    "VALUES (?, ?, ?, '', ?, ?, ?, ?, 'test')"
)


class Rows:
    """A connection that writes any rows, valid or not."""

    def __init__(self, disk: Disk) -> None:
        self.sealer = disk.sealer
        self._connection = connect(disk.path)
        self._connection.execute("PRAGMA foreign_keys = OFF")
        self._serial = count(1)

    def run(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Write as an attacker who has the database but not the key."""
        return self._connection.execute(statement, values)

    def write(self, statement: str, *values: Any) -> None:
        """Write as relay700."""
        self.run(statement, *values)
        vouch_by(self._connection, self.sealer)

    def number(self, number: str, *, locked: int = 0, legacy: int = 0) -> None:
        self.write(
            "INSERT INTO number (number, prefix, pool, locked, legacy) VALUES (?, '', '', ?, ?)", number, locked, legacy
        )

    def business(self, business: str, **columns: object) -> None:
        self.write(
            "INSERT INTO business (id, state, name, created_at, updated_at) VALUES (?, 'approved', '', 0, 0)", business
        )
        self.change("business", business, **columns)

    def change(self, table: str, row_id: str, **columns: object) -> None:
        for name, value in columns.items():
            self.write(f"UPDATE {table} SET {name} = ? WHERE id = ?", value, row_id)

    def binding(
        self,
        binding_id: str = "b1",
        mode: str = "AXB",
        *,
        x: str = X,
        y: str | None = None,
        a: str | None = A,
        b: str | None = B,
        members: Sequence[str] = (),
        business: str = "default",
        **columns: object,
    ) -> None:
        """Add the binding and the routes that its mode compiles to."""
        sealed = seal_binding(self.sealer, binding_id, mode, x, y, Secret(a, b, "order-1", industrial_id="88.101.1/7"))
        self.write(_BINDING, binding_id, mode, business, x, y, sealed, NOW_MS)
        self.change("binding", binding_id, **columns)
        if mode == "AXN":
            self.route(x, None, binding_id, "*")
        for member in members:
            self.route(x, member, binding_id, "g")
        if mode in ("AXB", "AXYB", "AXN") and a is not None:
            self.route(x, a, binding_id, "a")
        if mode != "AXN" and b is not None:
            self.route(y or x, b, binding_id, "b")

    def route(self, number: str, caller: str | None, binding_id: str, party: str, free_at: int | None = None) -> None:
        """Add a route. `caller` None: for any caller."""
        caller_hash = ANY_CALLER if caller is None else self.sealer.lookup_hash(caller)
        self.write(
            "INSERT OR REPLACE INTO route VALUES (?, ?, ?, ?, x'', ?)",
            *(number, caller_hash, binding_id, party, free_at),
        )

    def free(self, caller: str, free_at: int = NOW_MS + 1) -> None:
        """Add the cooling route of an ended binding or a former party."""
        self.write("UPDATE route SET free_at = ? WHERE caller_hash = ?", free_at, self.sealer.lookup_hash(caller))

    def entry(self, owner: str, caller: str, kind: str) -> None:
        self.write(
            "INSERT INTO list_entry VALUES (?, ?, ?, x'', 0, 'test')", owner, self.sealer.lookup_hash(caller), kind
        )

    def last_caller(self, binding_id: str, number: str, caller: str) -> None:
        insert(self._connection, PUT_CALLERS, [caller_row(self.sealer, LastCaller(binding_id, number, caller, NOW_MS))])

    def granted(self, number: str, caller: str, at_ms: int) -> None:
        """Add the index rows of a past call, as the follower writes them."""
        called = number_key(self.sealer, number)
        for key in (pair_key(called, self.sealer.lookup_hash(caller)), called):
            add_index(self._connection, [(key, at_ms, next(self._serial))])

    def close(self) -> None:
        self._connection.close()
