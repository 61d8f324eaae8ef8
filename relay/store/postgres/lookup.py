"""Look-ups of calls in a store on a PostgreSQL server: one statement for those that wait, in a connection pool.

Most of what a look-up costs the server is the begin and the end of its statement: eight together cost it less than
three alone. Nothing is cached, so every node sees changes of the others with the next call, and each look-up fails
closed: an error or a timeout is a Refusal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final, NamedTuple

import asyncpg

from relay.errors import Report, StoreError
from relay.model.call import Refusal
from relay.model.outcomes import STORE_FAILED
from relay.policy.evaluate import CapCount, LookupResult
from relay.policy.figures import CapCounts
from relay.policy.rules import Rules
from relay.store.connection import LookupOutage, PostgresServer
from relay.store.database import one_moment, reading
from relay.store.ledger import HEAD, LedgerHead, open_ledger_head
from relay.store.ledger_tables import POSTGRES
from relay.store.lookup import LookupDecoder, Row, Syntax, decode_row, lookup_statement
from relay.store.postgres.frequency import GIVE_BACK, SWEEP, CapGroup, Counting, capped_by, peek_statement, sweep_parts
from relay.store.postgres.nodes import SERVER_FAULTS
from relay.store.postgres.objects import PIN, PINNED, VERSION
from relay.store.recent_changes import NEWER_BY_ASYNCPG, newer_changes, take_changes
from relay.store.schema_look import SchemaLook
from relay.store.sealing.sealer import Sealer

CONNECTIONS: Final = 8  # look-ups at once
PATIENCE_S: Final = 2.0
# A generic plan: each part is a search by key, and planning for each call would take longer than that. Joins of keys
# in the order of the statement need no other kind of join, whatever the server expects of its tables.
# synchronous_commit is off since only counts are written: others see them at once, and calls do not wait for the disk.
SETTINGS: Final = {
    **PINNED,
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "join_collapse_limit": "1",
    **dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_memoize"), "off"),
    "enable_material": "off",
    "synchronous_commit": "off",
    "default_transaction_isolation": "read committed",
}

# Parameters of each call: number, caller's hash, time (`unix_s`, in ms); then `Counting.given`; its place.
_GIVEN: Final = (("number", "text"), ("caller", "bytea"), ("asked_at", "bigint"))
# The route that is looked up: the caller's own, if it decides, else the one for any caller, if it is in force. So say
# `own_route_decides` and `choose_row` of `relay.store.lookup`, too.
_ROUTES: Final = """(
    SELECT given.*, (
        SELECT caller_hash FROM route
        WHERE route.number = given.number AND caller_hash IN (given.caller, ''::bytea)
        ORDER BY CASE
            WHEN caller_hash <> ''::bytea THEN CASE WHEN free_at IS NULL OR free_at > asked_at THEN 1 ELSE 3 END
            WHEN free_at IS NULL THEN 2 ELSE 4 END
        LIMIT 1
    ) AS route_hash
    FROM {given}
) AS asked"""
_SYNTAX: Final = Syntax(POSTGRES, "asked.number", "asked.caller", "", "asked.route_hash", "")
_PLACE: Final = ", asked.place AS place"
# Columns for counting the call.
_COUNTED_BY: Final = """, asked.asked_at, number.locked AS locked, route.party IS NOT NULL AS has_route,
    route.free_at AS free_at, binding.expires_at AS expires_at, binding.ended_at AS ended_at, business.state AS state"""
_LOOK: Final = f"SELECT schema.*, head.* FROM ({VERSION}) AS schema LEFT JOIN ({HEAD}) AS head ON true"
_COUNTING: Final = "WITH found AS MATERIALIZED ({found}),{tables}\nSELECT found.*, {columns} FROM found {joins}"


class LookupRequest(NamedTuple):
    """A call to be looked up. `caller`: E.164 without "+", "" if anonymous."""

    number: str
    caller: str
    unix_s: float


class _Statements(NamedTuple):
    """The statements of some rules: for one call, and for several, which costs more than the first for one."""

    counting: Counting | None
    for_one: str
    for_several: str


class PostgresRouteReader:
    """The look-up of one event loop, in which it must be opened. Lost connections are replaced."""

    def __init__(self, server: PostgresServer, sealer: Sealer, rules: Rules, report: Report) -> None:
        """`rules`: only frequency caps are used, and whether A numbers must be filed.

        `report(event, fields)` gets outages, recoveries and altered rows.
        """
        self._server = server
        self._sealer = sealer
        self._outage = LookupOutage(server, report)
        self._opener = LookupDecoder(sealer)
        self._schema = SchemaLook(sealer)
        self._good = False  # whether the last look-up succeeded
        self._pool: asyncpg.Pool | None = None
        self._parts = sweep_parts()
        self.apply_config(rules)

    def apply_config(self, rules: Rules) -> None:
        """Apply these rules from the next call on."""
        self._opener.apply_config(rules._replace(caller_caps=(), number_caps=()))  # its rows have no counts here
        self._statements = _statements(rules)

    async def open(self) -> None:
        """Raises StoreError if the server cannot be reached."""
        logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)  # it warns at each try; `LookupOutage` reports once
        try:
            self._pool = await asyncpg.create_pool(
                self._server.url,
                min_size=1,
                max_size=CONNECTIONS,
                timeout=PATIENCE_S,
                command_timeout=PATIENCE_S,  # else the cancellation of a look-up waits for ever on a frozen server
                server_settings=SETTINGS,
                init=_pin,
                reset=_leaves_nothing,
            )
        except SERVER_FAULTS as error:
            raise StoreError(f"the store {self._server} failed: {error}") from error
        await self.look_at_store()

    @property
    def counts(self) -> bool:
        """Whether look-ups count: then no two of one `fetch_all` may be of the same number."""
        return self._statements.counting is not None

    async def fetch(
        self, number: str, caller: str, unix_s: float, patience_s: float = PATIENCE_S
    ) -> LookupResult | Refusal:
        """Look up a call, as `fetch_all`."""
        (found,) = await self.fetch_all([LookupRequest(number, caller, unix_s)], patience_s)
        return found

    async def fetch_all(
        self, asked: Sequence[LookupRequest], patience_s: float = PATIENCE_S
    ) -> Sequence[LookupResult | Refusal]:
        """Look up calls together, in one statement."""
        hashes = [self._sealer.lookup_hash(each.caller) for each in asked]
        revision = self._opener.known
        try:
            async with asyncio.timeout(patience_s):
                rows = await self._ask(asked, hashes)
        except SERVER_FAULTS as error:
            self._good = False
            self._outage.failed(str(error) or "no answer in time")
            return [STORE_FAILED] * len(asked)
        found = [self._found(caller_hash, *row, revision) for caller_hash, row in zip(hashes, rows, strict=True)]
        # An altered row, or the first call after a change.
        if STORE_FAILED in found or any(row[0] != self._opener.revision for row, _ in rows):
            await self.learn_head()
        self._good |= STORE_FAILED not in found
        return found

    def _found(self, caller_hash: bytes, row: Row, counted: CapCount | None, revision: int) -> LookupResult | Refusal:
        try:
            return self._opener.found(caller_hash, row, revision, counted)
        except StoreError as error:
            self._outage.altered(str(error))
            return STORE_FAILED

    async def _ask(self, asked: Sequence[LookupRequest], hashes: Sequence[bytes]) -> list[tuple[Row, CapCount | None]]:
        """The row and the counts of each call."""
        assert self._pool is not None  # open() made it
        while True:
            statements, counting = self._statements, self._statements.counting
            values = [
                [each.number, caller_hash, int(each.unix_s * 1000)]
                + ([] if counting is None else counting.values(self._sealer, each.number, each.caller, caller_hash))
                for each, caller_hash in zip(asked, hashes, strict=True)
            ]
            if len(asked) == 1:
                rows = await self._pool.fetch(statements.for_one, *values[0])
            else:
                rows = await self._pool.fetch(statements.for_several, *map(list, zip(*values, strict=True)))
            if statements is self._statements:  # else the rules have changed meanwhile, and the columns with them
                return [_read(row, counting, of) for row, of in zip(_in_order(rows), values, strict=True)]

    async def peek(
        self, number: str, caller: str, unix_s: float, rules: Rules
    ) -> tuple[LookupResult | Refusal, CapCounts | None]:
        """As `fetch`, without counting the call: the counts so far, by these rules. None if the look-up failed."""
        caller_hash, revision = self._sealer.lookup_hash(caller), self._opener.known
        assert self._pool is not None  # open() made it
        try:
            async with asyncio.timeout(PATIENCE_S):
                query = _statements(rules._replace(caller_caps=(), number_caps=())).for_one
                row = await self._pool.fetchrow(query, number, caller_hash, int(unix_s * 1000))
                counts = [await self._peek_at(capped, number, caller, unix_s) for capped in capped_by(rules)]
            return self._opener.found(caller_hash, decode_row(*row[:4]), revision), CapCounts(*counts)
        except (StoreError, *SERVER_FAULTS):
            return STORE_FAILED, None

    async def _peek_at(self, capped: CapGroup, number: str, caller: str, unix_s: float) -> list[int]:
        """The calls counted towards each cap."""
        assert self._pool is not None
        if not capped.caps:
            return []
        values: list[object] = [capped.key(self._sealer, number, caller), int(unix_s * 1000)]
        if capped.long:
            values.append(capped.index_key(self._sealer, number, self._sealer.lookup_hash(caller)))
        return list(await self._pool.fetchrow(peek_statement(capped.caps), *values))

    async def give_back(self, counted: CapCount) -> None:
        """Undo the count of a call that was not granted. If the server fails, it stays counted."""
        for key, slice_ms in counted.under:  # in separate transactions, so that two row locks are never held at once
            await self._write(GIVE_BACK, key, slice_ms)

    async def sweep(self) -> None:
        """Delete expired counts in one part of the table. Call it every few seconds."""
        await self._write(SWEEP, *next(self._parts))

    async def learn_head(self) -> None:
        """Rows found altered by another node grant nothing here either. Raises nothing: the next look-up reports it."""
        assert self._pool is not None  # open() made it
        before = self._opener.known
        try:
            row = await self._pool.fetchrow(HEAD, timeout=PATIENCE_S)
            if row is not None:
                self._know(before, *row)
        except SERVER_FAULTS:
            pass

    async def look_at_store(self) -> None:
        """`learn_head`, and which rows were changed lately; grant nothing while the schema is not relay700's own.

        Call it once a second.
        """
        assert self._pool is not None  # open() made it
        before = self._opener.known
        with suppress(*SERVER_FAULTS):  # the next look-up reports it
            *version, revision, sealed = await self._pool.fetchrow(_LOOK, timeout=PATIENCE_S)
            if revision is not None and (head := self._know(before, revision, sealed)) is not None:
                await self._learn_changes(head)
            if self._schema.is_due(tuple(version)):
                with suppress(StoreError):
                    await asyncio.to_thread(self._check_schema, tuple(version))

    def _know(self, before: int, revision: int, sealed: bytes) -> LedgerHead | None:
        """Open a head that was read after the revision `before` was known. None: it was altered."""
        try:
            head = open_ledger_head(self._sealer, revision, sealed)
        except StoreError as error:
            self._outage.altered(str(error))
            return None
        self._opener.know(head.revision, before)
        return head

    async def _learn_changes(self, head: LedgerHead) -> None:
        assert self._pool is not None
        if (wanted := newer_changes(self._sealer, head.changes)) is not None:
            rows = await self._pool.fetch(NEWER_BY_ASYNCPG, *wanted, timeout=PATIENCE_S)
            take_changes(self._sealer, head.changes, rows)

    def _check_schema(self, version: object) -> None:
        # Another node's script may run between two statements of a look: what is found counts if it is found again.
        for _ in range(2):
            with reading(self._server) as connection, one_moment(connection):
                reason = self._schema.reason(connection)
            if not reason:
                break
        self._schema.conclude(reason, version)

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


async def _pin(connection: asyncpg.Connection) -> None:
    await connection.execute(PIN)


async def _leaves_nothing(connection: asyncpg.Connection) -> None:
    """Skip the pool's reset of a connection after use, which costs as much as a look-up: there is no state to reset."""


def _statements(rules: Rules) -> _Statements:
    counting = Counting(rules) if rules.caller_caps or rules.number_caps else None
    given = [*_GIVEN, *(counting.given if counting is not None else ())]
    names = ", ".join([*(name for name, _ in given), "place"])
    arrays = ", ".join(f"${place}::{kind}[]" for place, (_, kind) in enumerate(given, 1))
    values = ", ".join(f"${place}::{kind}" for place, (_, kind) in enumerate(given, 1))
    sources = (f"(VALUES ({values}, 1)) AS given ({names})", f"unnest({arrays}) WITH ORDINALITY AS given ({names})")
    return _Statements(counting, *(_statement(source, counting, filing=rules.filing_required) for source in sources))


def _statement(source: str, counting: Counting | None, *, filing: bool) -> str:
    syntax = _SYNTAX._replace(routes=_ROUTES.format(given=source))
    if counting is None:
        return lookup_statement(syntax, filing=filing, more=_PLACE)
    keys = "".join(f", asked.{name}" for name, _ in counting.given)
    found = lookup_statement(syntax, filing=filing, more=_PLACE + keys + _COUNTED_BY)
    return _COUNTING.format(found=found, tables=counting.tables, columns=counting.columns, joins=counting.joins)


def _in_order(rows: list[asyncpg.Record]) -> list[asyncpg.Record]:
    return rows if len(rows) == 1 else sorted(rows, key=itemgetter("place"))


def _read(row: asyncpg.Record, counting: Counting | None, values: Sequence[Any]) -> tuple[Row, CapCount | None]:
    """`values`: those that were asked with."""
    counted = None
    if counting is not None:
        keys = values[len(_GIVEN) : len(_GIVEN) + counting.width - 1]
        counted = counting.read(row[-counting.width :], keys)
    return decode_row(*row[:4]), counted
