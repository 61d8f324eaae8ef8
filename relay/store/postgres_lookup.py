"""The look-up of a call in a store on a PostgreSQL server: one statement, in a separate connection pool.

It reads the caller's own route and the one for any caller together, since each statement is a round trip. It caches
nothing, so every node sees changes of the others with the next call, and fails closed: an error or a timeout is a
Refusal.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import asyncpg

from relay.errors import StoreError
from relay.model.call import Refusal
from relay.policy.evaluate import Counted, LookupResult
from relay.policy.rules import STORE_FAILED, Rules
from relay.store.connection import Server
from relay.store.ledger_tables import SERVER
from relay.store.lookup import FILING, Opener, Row, decode, has_route, is_in_force, proven_rows, rests
from relay.store.nodes import SERVER_FAULTS
from relay.store.outage import LookupOutage, Report
from relay.store.postgres_caps import GIVE_BACK, SWEEP, Counting, sweep_parts
from relay.store.sealing import Sealer

CONNECTIONS: Final = 8  # look-ups at once
PATIENCE_S: Final = 2.0
# A generic plan: each part is a search by key, and planning for each call would take longer than that.
# synchronous_commit is off since only counts are written: others see them at once, and calls do not wait for the disk.
SETTINGS: Final = {
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "synchronous_commit": "off",
    "default_transaction_isolation": "read committed",
}

# As in `relay.store.lookup`, with one row for each of the two routes. `counted_by`: columns for counting the call.
_FOUND: Final = """
SELECT (SELECT revision FROM ledger_head WHERE id = 1), last.caller_hash, last.sealed, {found},
       whose.place AS place{counted_by}
FROM (VALUES (1, $2::bytea), (2, ''::bytea)) AS whose (place, hash)
LEFT JOIN number ON number.number = $1
LEFT JOIN route ON route.number = $1 AND route.caller_hash = whose.hash
LEFT JOIN binding ON binding.id = route.binding_id
LEFT JOIN business ON business.id = binding.business
LEFT JOIN list_entry AS of_binding ON of_binding.owner = 'binding ' || route.binding_id AND of_binding.caller_hash = $2
LEFT JOIN list_entry AS of_business ON of_business.owner = 'business ' || binding.business
    AND of_business.caller_hash = $2
LEFT JOIN last_caller AS last ON last.binding_id = route.binding_id
LEFT JOIN route AS back ON back.number = last.number AND back.caller_hash = last.caller_hash
    AND back.binding_id = route.binding_id AND back.free_at IS NULL
{filing}"""
_COUNTED_BY: Final = """,
       number.locked AS locked, route.party IS NOT NULL AS has_route, route.free_at AS free_at,
       binding.expires_at AS expires_at, binding.ended_at AS ended_at, business.state AS state"""
_LOOK_UP: Final = "{found}ORDER BY place"
_COUNTING: Final = "WITH found AS MATERIALIZED ({found}),{tables}\nSELECT found.*, {columns} FROM found ORDER BY place"


class ServerRouteReader:
    """The look-up of one event loop, in which it must be opened. Lost connections are replaced."""

    def __init__(self, server: Server, sealer: Sealer, rules: Rules, report: Report) -> None:
        """Of the rules only the frequency caps are used, and whether A numbers must be filed.

        `report(event, fields)` gets outages, recoveries and altered rows.
        """
        self._server = server
        self._sealer = sealer
        self._outage = LookupOutage(server, report)
        self._opener = Opener(sealer)
        self._good = False  # whether the last look-up succeeded
        self._pool: asyncpg.Pool | None = None
        self._parts = sweep_parts()
        self.follow(rules)

    def follow(self, rules: Rules) -> None:
        """Apply these rules from the next call on."""
        self._opener.follow(rules._replace(caller_caps=(), number_caps=()))  # its rows have no counts here
        self._counting = Counting(rules) if rules.caller_caps or rules.number_caps else None
        self._statement = _statement(self._counting, filing=rules.filing_required)

    async def open(self) -> None:
        """Raises StoreError if the server cannot be reached."""
        try:
            self._pool = await asyncpg.create_pool(
                self._server.url,
                min_size=1,
                max_size=CONNECTIONS,
                timeout=PATIENCE_S,
                server_settings=SETTINGS,
                reset=_leaves_nothing,
            )
        except SERVER_FAULTS as error:
            raise StoreError(f"the store {self._server} failed: {error}") from error

    async def fetch(
        self, number: str, caller: str, unix_s: float, patience_s: float = PATIENCE_S
    ) -> LookupResult | Refusal:
        """Look up a call to `number`. `caller`: E.164 without "+", "" if anonymous."""
        caller_hash = self._sealer.lookup_hash(caller)
        revision = self._opener.revision
        try:
            async with asyncio.timeout(patience_s):
                own, anybodys, counted = await self._ask(number, caller, caller_hash, unix_s)
            row = _row(own)
            if not is_in_force(row) and not rests(row, unix_s):
                other = _row(anybodys)
                if is_in_force(other) or not has_route(row):
                    row = other
            found = self._opener.found(number, caller_hash, row, revision, counted)
        except StoreError as error:
            self._outage.altered(str(error))
            return STORE_FAILED
        except SERVER_FAULTS as error:
            self._good = False
            self._outage.failed(str(error) or "no answer in time")
            return STORE_FAILED
        self._good = True
        return found

    async def _ask(
        self, number: str, caller: str, caller_hash: bytes, unix_s: float
    ) -> tuple[asyncpg.Record, asyncpg.Record, Counted | None]:
        """The row of the caller's own route, the row of the route for any caller, and the counts."""
        assert self._pool is not None  # open() made it
        while True:
            statement, counting = self._statement, self._counting
            if counting is None:
                own, anybodys = await self._pool.fetch(statement, number, caller_hash)
                counted = None
            else:
                keys = counting.keys(self._sealer, number, caller)
                own, anybodys = await self._pool.fetch(statement, number, caller_hash, int(unix_s * 1000), *keys)
                counted = counting.read(own[-counting.width :], keys)
            if statement is self._statement:  # else the rules have changed meanwhile, and the columns with them
                return own, anybodys, counted

    async def give_back(self, counted: Counted) -> None:
        """Undo the count of a call that was not granted. If the server fails, it stays counted."""
        for key, slice_ms in counted.under:  # in separate transactions, so that two row locks are never held at once
            await self._write(GIVE_BACK, key, slice_ms)

    async def sweep(self) -> None:
        """Delete expired counts in one part of the table. Call it every few seconds."""
        await self._write(SWEEP, *next(self._parts))

    async def _write(self, statement: str, *values: object) -> None:
        with suppress(*SERVER_FAULTS):
            if self._pool is not None:
                await self._pool.execute(statement, *values, timeout=PATIENCE_S)

    def look(self) -> None:
        """Check, once a second, whether an outage is over."""
        if self._good:
            self._outage.is_over()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None


async def _leaves_nothing(connection: asyncpg.Connection) -> None:
    """Skip the pool's reset of a connection after use, which costs as much as a look-up: there is no state to reset."""


def _row(record: asyncpg.Record) -> Row:
    revision, last_hash, last_sealed, found = record[:4]
    return revision, last_hash, last_sealed, decode(found)


def _statement(counting: Counting | None, *, filing: bool) -> str:
    """The look-up statement. $1: the number; $2: the caller's hash; from $3: the arguments of `Counting`."""
    columns = SERVER.json(*SERVER.proven(proven_rows(filing=filing)), "last.number")
    join = FILING.format(caller="$2") if filing else ""
    if counting is None:
        return _LOOK_UP.format(found=_FOUND.format(found=columns, counted_by="", filing=join))
    found = _FOUND.format(found=columns, counted_by=_COUNTED_BY, filing=join)
    return _COUNTING.format(found=found, tables=counting.tables, columns=counting.columns)
