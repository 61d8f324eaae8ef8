"""The one look-up of a call in a store on a PostgreSQL server: in one statement, by connections of its own.

It asks for the caller's own route and for the one of any caller at once, since each question is a round trip. It keeps
no answer, so what any node has bound is found by each with the next call, and fails closed: whatever goes wrong, or
takes too long, is a Refusal.
"""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from relay.call.routing import Refusal
from relay.errors import StoreError
from relay.policy.judge import Found
from relay.policy.rules import STORE_FAILED, Rules
from relay.store.ledger_tables import SERVER
from relay.store.lookup import FILING, Opener, Row, decode, has_route, is_in_force, proven_rows, rests
from relay.store.nodes import SERVER_FAULTS
from relay.store.outage import LookupOutage, Report
from relay.store.sealing import Sealer
from relay.store.server import Server

CONNECTIONS: Final = 8  # look-ups at once
PATIENCE_S: Final = 2.0
# The plan is made once, whatever the values are: each part is a search by key, and planning takes longer than that.
SETTINGS: Final = {"plan_cache_mode": "force_generic_plan", "jit": "off", "enable_seqscan": "off"}

# As in `relay.store.lookup`, with the two whose route it may be.
_LOOK_UP: Final = """
SELECT (SELECT revision FROM ledger_head WHERE id = 1), last.caller_hash, last.sealed, {found}
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
{filing}{keys}ORDER BY whose.place
"""
_COUNT: Final = "(SELECT count(*) FROM call_index WHERE key = ${key} AND at > ${since}::bigint AND at <= $5::bigint)"

_KEYS: Final = (
    "WHERE $3::bytea IS NOT NULL AND $4::bytea IS NOT NULL\n"  # so that each has a type where one is not used
)


class ServerRouteReader:
    """Open it in the loop that it is used in. A connection that is lost is made anew."""

    def __init__(self, server: Server, sealer: Sealer, rules: Rules, report: Report) -> None:
        """Of the rules only the caps whose windows are longer than the memory matter here: their calls are counted.

        `report(event, fields)` is told of outages and their end, and of rows that were altered.
        """
        self._server = server
        self._sealer = sealer
        self._outage = LookupOutage(server, report)
        self._opener = Opener(sealer)
        self._good = False  # the last look-up was
        self._pool: asyncpg.Pool | None = None
        self.follow(rules)

    def follow(self, rules: Rules) -> None:
        """Counts for the caps of these rules from now on."""
        self._opener.follow(rules)
        self._statement = _statement(len(rules.caller_windows_s), len(rules.number_windows_s), rules.filing_required)

    async def open(self) -> None:
        """Raises StoreError where the server cannot be reached."""
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

    async def fetch(self, number: str, caller: str, unix_s: float, patience_s: float = PATIENCE_S) -> Found | Refusal:
        """What is known of a call to `number`; `caller` is E.164 without "+", "" where anonymous."""
        caller_hash = self._sealer.lookup_hash(caller)
        revision = self._opener.revision
        assert self._pool is not None  # open() made it
        try:
            async with asyncio.timeout(patience_s):
                statement = ""
                while statement is not self._statement:  # else other rules have come meanwhile, with another form
                    statement = self._statement
                    counted = self._opener.counted(number, caller, unix_s)
                    own, anybodys = await self._pool.fetch(statement, number, caller_hash, *counted)
            row = _row(own)
            if not is_in_force(row) and not rests(row, unix_s):
                other = _row(anybodys)
                if is_in_force(other) or not has_route(row):
                    row = other
            found = self._opener.found(number, caller_hash, row, revision)
        except StoreError as error:
            self._outage.altered(str(error))
            return STORE_FAILED
        except SERVER_FAULTS as error:
            self._good = False
            self._outage.failed(str(error) or "no answer in time")
            return STORE_FAILED
        self._good = True
        return found

    def look(self) -> None:
        """Once a second: whether an outage is over."""
        if self._good:
            self._outage.is_over()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None


async def _leaves_nothing(connection: asyncpg.Connection) -> None:
    """What a pool has the server forget after each use, which costs as much as a look-up, none of these leaves."""


def _row(record: asyncpg.Record) -> Row:
    revision, last_hash, last_sealed, found = record
    return revision, last_hash, last_sealed, decode(found)


def _statement(caller_windows: int, number_windows: int, filing: bool) -> str:
    """$3 and $4: the keys of the pair and of the number; $5: where the memory begins; $6 on: where each window does."""
    keys = [3] * caller_windows + [4] * number_windows
    counts = [_COUNT.format(key=key, since=6 + place) for place, key in enumerate(keys)]
    found = SERVER.json(*SERVER.proven(proven_rows(filing=filing)), "last.number", *counts)
    join = FILING.format(caller="$2") if filing else ""
    return _LOOK_UP.format(found=found, filing=join, keys=_KEYS if keys else "")
