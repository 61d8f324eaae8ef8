"""The look-up of a call in a store on a PostgreSQL server: one statement, in a separate connection pool.

It reads the caller's own route and the one for any caller together, since each statement is a round trip. It caches
nothing, so every node sees changes of the others with the next call, and fails closed: an error or a timeout is a
Refusal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import asyncpg

from relay.errors import Report, StoreError
from relay.model.call import Refusal
from relay.model.numbers import NO_CALLS
from relay.policy.evaluate import Counted, LookupResult
from relay.policy.figures import Counts
from relay.policy.rules import FREQUENCY_CALLER, FREQUENCY_NUMBER, MEMORY_S, STORE_FAILED, Cap, Rules
from relay.store.connection import LookupOutage, PostgresServer
from relay.store.database import one_moment, reading
from relay.store.ledger import HEAD, open_ledger_head
from relay.store.ledger_tables import POSTGRES
from relay.store.lookup import Opener, Syntax, decides, decoded, fallback, statement
from relay.store.postgres.nodes import SERVER_FAULTS
from relay.store.postgres.objects import PIN, PINNED, VERSION
from relay.store.record_index import number_key, pair_key
from relay.store.schema_look import SchemaLook
from relay.store.sealing.sealer import Sealer

CONNECTIONS: Final = 8  # look-ups at once
PATIENCE_S: Final = 2.0
# A generic plan: each part is a search by key, and planning for each call would take longer than that.
# synchronous_commit is off since only counts are written: others see them at once, and calls do not wait for the disk.
SETTINGS: Final = {
    **PINNED,
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
    "enable_seqscan": "off",
    "synchronous_commit": "off",
    "default_transaction_isolation": "read committed",
}

# $1: the number; $2: the caller's hash; from $3: the arguments of `Counting`.
_SYNTAX: Final = Syntax(
    POSTGRES, "$1", "$2", "(VALUES (1, $2::bytea), (2, ''::bytea)) AS whose (place, hash)", "whose.hash", ""
)
_PLACE: Final = ", whose.place AS place"
# Columns for counting the call.
_COUNTED_BY: Final = """, number.locked AS locked, route.party IS NOT NULL AS has_route, route.free_at AS free_at,
       binding.expires_at AS expires_at, binding.ended_at AS ended_at, business.state AS state"""
_LOOK_UP: Final = "{found}ORDER BY place"
_COUNTING: Final = "WITH found AS MATERIALIZED ({found}),{tables}\nSELECT found.*, {columns} FROM found ORDER BY place"


class PostgresRouteReader:
    """The look-up of one event loop, in which it must be opened. Lost connections are replaced."""

    def __init__(self, server: PostgresServer, sealer: Sealer, rules: Rules, report: Report) -> None:
        """Of the rules only the frequency caps are used, and whether A numbers must be filed.

        `report(event, fields)` gets outages, recoveries and altered rows.
        """
        self._server = server
        self._sealer = sealer
        self._outage = LookupOutage(server, report)
        self._opener = Opener(sealer)
        self._schema = SchemaLook(sealer)
        self._good = False  # whether the last look-up succeeded
        self._pool: asyncpg.Pool | None = None
        self._parts = sweep_parts()
        self.apply_config(rules)

    def apply_config(self, rules: Rules) -> None:
        """Apply these rules from the next call on."""
        self._opener.apply_config(rules._replace(caller_caps=(), number_caps=()))  # its rows have no counts here
        self._counting = Counting(rules) if rules.caller_caps or rules.number_caps else None
        self._statement = _statement(self._counting, filing=rules.filing_required)

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
        await self.look_at_schema()
        await self.learn_head()

    async def fetch(
        self, number: str, caller: str, unix_s: float, patience_s: float = PATIENCE_S
    ) -> LookupResult | Refusal:
        """Look up a call to `number`. `caller`: E.164 without "+", "" if anonymous."""
        caller_hash = self._sealer.lookup_hash(caller)
        revision = self._opener.revision
        try:
            async with asyncio.timeout(patience_s):
                own, anybodys, counted = await self._ask(number, caller, caller_hash, unix_s)
            row = decoded(*own[:4])
            if not decides(row, unix_s):
                row = fallback(row, decoded(*anybodys[:4]))
            found = self._opener.found(caller_hash, row, revision, counted)
        except StoreError as error:
            self._outage.altered(str(error))
            await self.learn_head()
            return STORE_FAILED
        except SERVER_FAULTS as error:
            self._good = False
            self._outage.failed(str(error) or "no answer in time")
            return STORE_FAILED
        if row[0] != self._opener.revision:  # the first call after a change
            await self.learn_head()
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
                more = counting.index_keys(self._sealer, number, caller_hash)
                own, anybodys = await self._pool.fetch(statement, number, caller_hash, int(unix_s * 1000), *keys, *more)
                counted = counting.read(own[-counting.width :], keys)
            if statement is self._statement:  # else the rules have changed meanwhile, and the columns with them
                return own, anybodys, counted

    async def peek(
        self, number: str, caller: str, unix_s: float, rules: Rules
    ) -> tuple[LookupResult | Refusal, Counts | None]:
        """As `fetch`, without counting the call: the counts so far, by these rules. None if the look-up failed."""
        caller_hash, revision = self._sealer.lookup_hash(caller), self._opener.revision
        assert self._pool is not None  # open() made it
        try:
            async with asyncio.timeout(PATIENCE_S):
                query = _statement(None, filing=rules.filing_required)
                own, anybodys = await self._pool.fetch(query, number, caller_hash)
                counts = [await self._peek_at(capped, number, caller, unix_s) for capped in capped_by(rules)]
            row = decoded(*own[:4])
            if not decides(row, unix_s):
                row = fallback(row, decoded(*anybodys[:4]))
            return self._opener.found(caller_hash, row, revision), Counts(*counts)
        except (StoreError, *SERVER_FAULTS):
            return STORE_FAILED, None

    async def _peek_at(self, capped: Capped, number: str, caller: str, unix_s: float) -> list[int]:
        """The calls counted towards each cap."""
        assert self._pool is not None
        if not capped.caps:
            return []
        values: list[object] = [capped.key(self._sealer, number, caller), int(unix_s * 1000)]
        if capped.long:
            values.append(capped.index_key(self._sealer, number, self._sealer.lookup_hash(caller)))
        return list(await self._pool.fetchrow(peek_statement(capped.caps), *values))

    async def give_back(self, counted: Counted) -> None:
        """Undo the count of a call that was not granted. If the server fails, it stays counted."""
        for key, slice_ms in counted.under:  # in separate transactions, so that two row locks are never held at once
            await self._write(GIVE_BACK, key, slice_ms)

    async def sweep(self) -> None:
        """Delete expired counts in one part of the table. Call it every few seconds."""
        await self._write(SWEEP, *next(self._parts))

    async def learn_head(self) -> None:
        """Rows found altered by another node grant nothing here either. Call it once a second."""
        assert self._pool is not None  # open() made it
        before = self._opener.revision
        try:
            row = await self._pool.fetchrow(HEAD, timeout=PATIENCE_S)
            if row is not None:
                self._opener.know(open_ledger_head(self._sealer, *row).revision, before)
        except StoreError as error:
            self._outage.altered(str(error))
        except SERVER_FAULTS:  # the next look-up reports it
            pass

    async def look_at_schema(self) -> None:
        """Grant nothing while the schema is not relay700's own. Call it once a second."""
        assert self._pool is not None  # open() made it
        with suppress(StoreError, *SERVER_FAULTS):  # the next look-up reports it
            version = tuple(await self._pool.fetchrow(VERSION, timeout=PATIENCE_S))
            if self._schema.is_due(version):
                await asyncio.to_thread(self._check_schema, version)

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


def _statement(counting: Counting | None, *, filing: bool) -> str:
    if counting is None:
        return _LOOK_UP.format(found=statement(_SYNTAX, filing=filing, more=_PLACE))
    found = statement(_SYNTAX, filing=filing, more=_PLACE + _COUNTED_BY)
    return _COUNTING.format(found=found, tables=counting.tables, columns=counting.columns)


# -- Frequency caps, counted by the look-up's statement
#
# If the statement finds a binding in force, it counts the call at once under two keys, (number, caller) and number,
# unless a cap is reached. A look-up that finds a row locked waits for the other to commit, and uses the new count (ON
# CONFLICT DO UPDATE, at READ COMMITTED). So concurrent look-ups of several nodes never exceed a cap. All times are
# those of the server, so the clocks of nodes may differ.
#
# If the call is refused for another reason before it is routed, by the call policy, a hook or a limit, its count is
# given back. After any other failure it stays.
#
# If a cap allows few calls, each is counted with its time in milliseconds. If it allows many, the calls of a time slice
# are counted together until the whole slice has left the window, so that a row stays small for any call rate.

FEW: Final = 100  # calls; caps above that count in slices
SLICES: Final = 32  # per shortest window
MOST_SLICES: Final = 512  # per key
# How far a node's clock may be behind the server's. Older calls are counted in record_index, by the clocks of nodes.
_CLOCKS_MS: Final = 5_000
_MEMORY_MS: Final = 1_000 * MEMORY_S
_KEPT_MS: Final = 2 * _MEMORY_MS  # how long an idle row is kept
# The statement found no binding in force: if the call policy found one all the same, the call must be refused.
_NOT_COUNTED: Final = Counted((), STORE_FAILED)
SWEPT: Final = 256  # parts of the table, by the first byte of a hash

# $3 is the time of the call by the node's clock, against which bindings expire. At most one row.
_CANDIDATE: Final = """
candidate AS MATERIALIZED (
    SELECT CAST(extract(epoch FROM now()) * 1000 AS bigint) AS at{left}
    FROM found
    WHERE has_route AND free_at IS NULL AND locked & {no_calls} = 0 AND state = 'approved'
        AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > $3::bigint)
        AND (place = 1 OR NOT EXISTS (
            SELECT FROM found AS own
            WHERE own.place = 1 AND own.has_route AND (own.free_at IS NULL OR own.free_at > $3::bigint)))
)"""
# The least number of calls that a cap with a window longer than the memory still allows within the memory's time.
_LEFT: Final = """,
        least({caps}) AS {name}_left"""
_LEFT_BY: Final = """{most} - (
            SELECT count(*) FROM record_index
            WHERE key = {key}::bigint AND at > $3::bigint - {window_ms} AND at <= $3::bigint - {memory_ms})"""
# Only the differences of `granted` and `before` matter, so a row may start at any number: it starts at `left`.
_COUNTED: Final = """
{name} AS (
    INSERT INTO frequency AS was (key, granted, begun, before)
    SELECT {key}, {left} + 1, ARRAY[at], ARRAY[CAST({left} AS bigint)] FROM candidate WHERE {first}
    ON CONFLICT (key) DO UPDATE SET
        granted = was.granted + 1,
        begun = CASE WHEN {same} THEN was.begun ELSE (was.begun || excluded.begun){kept} END,
        before = CASE WHEN {same} THEN was.before ELSE (was.before || was.granted){kept} END
    WHERE {room}
    RETURNING begun[cardinality(begun)] AS slice
)"""
_SAME_SLICE: Final = "excluded.begun[1] - was.begun[cardinality(was.begun)] < {slice_ms}"
_KEPT: Final = "[width_bucket(excluded.begun[1] - {ms}, was.begun) + 1:]"
# The calls since a time: all except those before the first slice that reaches past it.
_SINCE: Final = "was.granted - coalesce(was.before[width_bucket(excluded.begun[1] - {ms}, was.begun) + 1], was.granted)"

# $1: the key; $2: the time of the call by the node's clock; $3, with long caps: the key in the index. One column for
# each cap.
_PEEK: Final = """
SELECT {counts} FROM (SELECT CAST(extract(epoch FROM now()) * 1000 AS bigint) AS at) AS clock
LEFT JOIN frequency AS was ON was.key = $1 AND $2::bigint > 0
"""
_EARLIER: Final = """
(SELECT count(*) FROM record_index
    WHERE key = $3::bigint AND at > $2::bigint - {window_ms} AND at <= $2::bigint - {memory_ms})
"""
# $1: the key; $2: the slice of the count.
GIVE_BACK: Final = """
UPDATE frequency SET
    granted = granted - 1,
    before = ARRAY(
        SELECT calls - CAST(at > $2 AS integer)
        FROM unnest(begun, before) WITH ORDINALITY AS slice (at, calls, place) ORDER BY place)
WHERE key = $1
"""
# $1 and $2: the first key, and the end of the range. Waits for no look-up, and blocks none for long.
SWEEP: Final = f"""
DELETE FROM frequency WHERE key IN (
    SELECT key FROM frequency
    WHERE key >= $1 AND key < $2
        AND begun[cardinality(begun)] < CAST(extract(epoch FROM now()) * 1000 AS bigint) - {_KEPT_MS}
    FOR UPDATE SKIP LOCKED)
"""


_BY_CALLER: Final = "by_caller"


class Capped(NamedTuple):
    """The caps on one kind of key."""

    name: str  # of the part of the statement that counts
    caps: Sequence[Cap]
    over: Refusal  # for a call beyond a cap

    @property
    def long(self) -> list[Cap]:
        """The caps with windows longer than the memory."""
        return [cap for cap in self.caps if cap.window_s > MEMORY_S]

    def key(self, sealer: Sealer, number: str, caller: str) -> bytes:
        """That of a row of `frequency`."""
        return sealer.lookup_hash(f"{number} {caller}" if self.name == _BY_CALLER else number)

    def index_key(self, sealer: Sealer, number: str, caller_hash: bytes) -> int:
        """That of rows of `record_index`."""
        key = number_key(sealer, number)
        return pair_key(key, caller_hash) if self.name == _BY_CALLER else key


class Counting:
    """The counting part of the look-up statement for the caps of some rules, and the decoding of its columns."""

    def __init__(self, rules: Rules) -> None:
        """The statement takes the time of the call as $3, followed by the results of `keys` and `index_keys`."""
        self._capped = [capped for capped in capped_by(rules) if capped.caps]
        self.width = 1 + len(self._capped)
        names = [capped.name for capped in self._capped]
        self.columns = ", ".join(["(SELECT at FROM candidate)", *(f"(SELECT slice FROM {name})" for name in names)])
        self._long = [capped for capped in self._capped if capped.long]
        after = 4 + len(self._capped)
        left = "".join(_left(capped, f"${after + place}") for place, capped in enumerate(self._long))
        parts = (counting_part(capped, f"${4 + place}", *names[:place]) for place, capped in enumerate(self._capped))
        self.tables = ",".join((_CANDIDATE.format(left=left, no_calls=NO_CALLS), *parts))

    def keys(self, sealer: Sealer, number: str, caller: str) -> list[bytes]:
        """The keys under which a call is counted."""
        return [capped.key(sealer, number, caller) for capped in self._capped]

    def index_keys(self, sealer: Sealer, number: str, caller_hash: bytes) -> list[int]:
        """The keys under which the index has earlier calls."""
        return [capped.index_key(sealer, number, caller_hash) for capped in self._long]

    def read(self, columns: Sequence[int | None], keys: Sequence[bytes]) -> Counted:
        """Decode the columns."""
        if columns[0] is None:
            return _NOT_COUNTED
        under: list[tuple[bytes, int]] = []
        for capped, key, slice_ms in zip(self._capped, keys, columns[1:], strict=True):
            if slice_ms is None:
                return Counted(under, capped.over)
            under.append((key, slice_ms))
        return Counted(under, None)


def capped_by(rules: Rules) -> tuple[Capped, Capped]:
    """The caps by kind of key. All look-ups lock their rows in this order, since the number is counted after the
    caller."""
    return (
        Capped(_BY_CALLER, rules.caller_caps, FREQUENCY_CALLER),
        Capped("by_number", rules.number_caps, FREQUENCY_NUMBER),
    )


def _left(capped: Capped, key: str) -> str:
    """The column with the calls that the long caps still allow; empty without long caps."""
    caps = [
        _LEFT_BY.format(most=most, key=key, window_ms=1000 * window_s, memory_ms=_MEMORY_MS)
        for most, window_s in capped.long
    ]
    return _LEFT.format(caps=", ".join(caps), name=capped.name) if caps else ""


def counting_part(capped: Capped, key: str, after: str = "") -> str:
    """The part of the statement that counts under a key. `after`: a part that must have counted first."""
    slice_ms = slice_ms_of(capped.caps)
    short = [(most, 1000 * window_s) for most, window_s in capped.caps if window_s <= MEMORY_S]
    room = [f"{_SINCE.format(ms=window_ms + slice_ms - 1)} < {most}" for most, window_ms in short]
    first = [f"EXISTS (SELECT FROM {after})"] if after else []
    longest_ms = max((window_ms for _, window_ms in short), default=0)
    left = "0"
    if capped.long:
        longest_ms = _MEMORY_MS + _CLOCKS_MS
        left = f"{capped.name}_left"
        first.append(f"{left} > 0")
        room.append(f"{_SINCE.format(ms=longest_ms + slice_ms - 1)} < excluded.before[1]")
    return _COUNTED.format(
        name=capped.name,
        key=key,
        left=left,
        first=" AND ".join(first) or "true",
        same=_SAME_SLICE.format(slice_ms=slice_ms),
        kept=_KEPT.format(ms=longest_ms + slice_ms - 1),
        room=" AND ".join(room),
    )


def peek_statement(caps: Sequence[Cap]) -> str:
    """The statement that reads the counts of caps as the look-up would compare them, and counts nothing."""
    slice_ms = slice_ms_of(caps)
    since = _SINCE.replace("excluded.begun[1]", "clock.at")
    counts = []
    for _, window_s in caps:
        if window_s <= MEMORY_S:
            counts.append(f"coalesce({since.format(ms=1000 * window_s + slice_ms - 1)}, 0)")
        else:
            recent = since.format(ms=_MEMORY_MS + _CLOCKS_MS + slice_ms - 1)
            earlier = _EARLIER.format(window_ms=1000 * window_s, memory_ms=_MEMORY_MS)
            counts.append(f"coalesce({recent}, 0) + {earlier}")
    return _PEEK.format(counts=", ".join(counts))


def slice_ms_of(caps: Sequence[Cap]) -> int:
    """The length of a slice; 1: each call is counted by itself."""
    if max(cap.most for cap in caps) <= FEW:
        return 1
    shortest_s = min(min(cap.window_s for cap in caps), MEMORY_S)
    return max(1000 * shortest_s // SLICES, _MEMORY_MS // MOST_SLICES)


def sweep_parts() -> Iterator[tuple[bytes, bytes]]:
    """The key ranges for `SWEEP`, through the whole table again and again."""
    while True:
        for part in range(SWEPT):
            yield bytes([1, part]), bytes([1, part + 1]) if part + 1 < SWEPT else bytes([2])
