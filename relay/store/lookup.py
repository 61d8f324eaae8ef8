"""The one look-up of a call: which route is in force for (number dialled, caller).

It reads synchronously in the caller's thread, keeps no answer, and fails closed: whatever goes wrong is a Refusal.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from relay.call.routing import Refusal, Route
from relay.errors import StoreError
from relay.store.binding_seal import check_route, open_binding
from relay.store.database import connect_reader
from relay.store.sealing import Sealer

STORE_FAILED = Refusal("store_failed", 503, 41, retry_after_s=5)  # Q.850 41: temporary failure
NO_BINDING = Refusal("no_binding", 403, 21)  # Q.850 21: call rejected
NUMBER_LOCKED = Refusal("number_locked", 480, 31)  # Q.850 31: normal, unspecified

_LOOK_UP = """
SELECT number.locked, business.state, route.binding_id, route.party, route.mac,
       mode, binding.business, x, y, sealed, direction, expires_at
FROM (SELECT ?1 AS number) AS dialled
LEFT JOIN number ON number.number = dialled.number
LEFT JOIN route ON route.number = dialled.number AND route.caller_hash = ?2 AND route.free_at IS NULL
LEFT JOIN binding ON binding.id = route.binding_id
LEFT JOIN business ON business.id = binding.business
"""
_BARRED = {("a", "b_to_a"), ("b", "a_to_b")}  # party, direction


class RouteReader:
    """A connection of its own for look-ups. After an error it is opened anew at the next look-up."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        self._connection: sqlite3.Connection | None = None

    def look_up(self, number: str, caller: str, now_wall_s: float) -> Route | Refusal:
        """The route for a call to the 700 number `number`; `caller` is E.164 without "+", "" where anonymous."""
        caller_hash = self._sealer.lookup_hash(caller)
        try:
            if self._connection is None:
                self._connection = connect_reader(self._path)
            # fetchall: a statement left open would hold the WAL's read mark and stop checkpoints.
            (row,) = self._connection.execute(_LOOK_UP, (number, caller_hash)).fetchall()
            return self._judge(number, caller_hash, row, now_wall_s * 1000)
        except StoreError:
            return STORE_FAILED
        except sqlite3.Error:
            self.close()
            return STORE_FAILED

    def _judge(self, number: str, caller_hash: bytes, row: tuple[Any, ...], now_ms: float) -> Route | Refusal:
        locked, state, binding_id, party, mac, mode, business, x, y, sealed, direction, expires_at = row
        if binding_id is None:
            return NUMBER_LOCKED if locked else NO_BINDING
        if mode is None:
            raise StoreError("a route without its binding")
        check_route(self._sealer, mac, number, caller_hash, binding_id, party)
        a, b, order_id, _, _ = open_binding(self._sealer, binding_id, mode, x, y, sealed)
        if a is None or b is None:
            raise StoreError("a binding without its parties")
        target, shown = (b, y or x) if party == "a" else (a, x)
        if locked:
            refusal = NUMBER_LOCKED
        elif expires_at is not None and expires_at <= now_ms:
            refusal = Refusal("expired", 403, 21)
        elif (party, direction) in _BARRED:
            refusal = Refusal("direction_barred", 403, 21)
        elif state != "approved":
            refusal = Refusal("business_suspended", 403, 21)
        else:
            return Route(binding_id, mode, business, order_id, target, shown)
        return refusal._replace(binding_id=binding_id, mode=mode, business=business, order_id=order_id)

    def close(self) -> None:
        """Closes the connection; a later look-up opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
