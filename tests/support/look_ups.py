"""Synchronous look-ups in a store of either kind; those in PostgreSQL run in their own event loop."""

from __future__ import annotations

import asyncio

from relay.model.call import Refusal
from relay.policy.evaluate import LookupResult
from relay.policy.rules import Rules
from relay.store.connection import Place, PostgresServer
from relay.store.postgres.lookup import PostgresRouteReader
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.lookup import RouteReader


class LookUps:
    """The interface of `RouteReader`."""

    def __init__(self, place: Place, sealer: Sealer, rules: Rules | None = None) -> None:
        rules = rules or Rules()
        self._loop: asyncio.AbstractEventLoop | None = None
        if isinstance(place, PostgresServer):
            self._loop = asyncio.new_event_loop()
            self._on_server = PostgresRouteReader(place, sealer, rules, lambda event, fields: None)
            self._loop.run_until_complete(self._on_server.open())
        else:
            self._in_file = RouteReader(place, sealer, rules, lambda event, fields: None)

    def fetch(self, number: str, caller: str, unix_s: float) -> LookupResult | Refusal:
        if self._loop is None:
            return self._in_file.fetch(number, caller, unix_s)
        return self._loop.run_until_complete(self._on_server.fetch(number, caller, unix_s))

    def look(self) -> None:
        """Learn which rows are refused or were changed, as once a second in a relay."""
        if self._loop is None:
            self._in_file.look()
        else:
            self._loop.run_until_complete(self._on_server.look_at_store())

    def apply_config(self, rules: Rules) -> None:
        (self._in_file if self._loop is None else self._on_server).apply_config(rules)

    def close(self) -> None:
        if self._loop is None:
            self._in_file.close()
        else:
            self._on_server.close()
            self._loop.close()
