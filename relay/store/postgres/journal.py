"""The journal's writer to a PostgreSQL server, where several relays write one chain.

One statement writes a batch. It first locks the head of the chain, if it is still the one that the new links follow,
then raises the batch number in this node's row. That fails if another node has taken over our calls, and shows, after
an answer that was lost, whether the batch is on disk. No other node can add links until it is. So the records of all
nodes have one order, and none appears before a record that the follower has already read.

The head was read just before, without a lock. If another node was faster nothing is written; then this batch, and those
after it for a while, lock the head in a transaction before they read it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from itertools import count, islice
from typing import Any, Final

import asyncpg

from relay.defence.limits import SharedLimits
from relay.errors import Report, StoreError
from relay.store.chain import EMPTY, RECORDS, Head, HeadRow, broken_head, checked_head, head_row, next_link, read_head
from relay.store.connection import PostgresServer
from relay.store.database import reading
from relay.store.journal.journal import Batch, Journal
from relay.store.journal.overflow import Overflow
from relay.store.journal.rows import caller_row, event_row, live_row
from relay.store.postgres.attempts import SharedAttempts
from relay.store.postgres.nodes import NOT_IDLE_FOR_EVER, SERVER_FAULTS, Node, Take
from relay.store.postgres.objects import PIN
from relay.store.record_rows import COLUMNS, Row, row_of
from relay.store.sealing.sealer import Sealer

EFFECT: Final = (
    "new calls are refused; records of calls that end go to the overflow log after one second, while it has room; calls"
    " that are answered wait for the store; writing is retried"
)
PATIENCE_S: Final = 5.0  # to connect, and for each statement
SETTINGS: Final = {
    **NOT_IDLE_FOR_EVER,
    "synchronous_commit": "on",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
HEAD_LOCK: Final = 700_000_002  # for pg_advisory_xact_lock, while there is no head row to lock

_WRITTEN: Final = "SELECT batch FROM node WHERE name = $1 AND epoch = $2 FOR UPDATE"
_LINK: Final = "SELECT chain_hash FROM call_record WHERE chain_seq = $1"
_BEGUN: Final = """
SELECT EXISTS (SELECT 1 FROM call_record) OR EXISTS (SELECT 1 FROM checkpoint WHERE chain = 'record')
"""
_HEADS: Final = """
SELECT chain_head.seq, chain_head.hash, chain_head.mac, audit_head.seq, audit_head.hash
FROM chain_head LEFT JOIN audit_head ON audit_head.id = 1 WHERE chain_head.id = 1
"""
_LOCKED_HEADS: Final = _HEADS + "FOR UPDATE OF chain_head"
_AUDIT: Final = "SELECT seq, hash FROM audit_head WHERE id = 1"
_FIRST_HEAD: Final = "INSERT INTO chain_head (id, seq, hash, mac) VALUES (1, $1, $2, $3)"
CONTENDED: Final = 20  # batches that lock the head at once, after another node was faster

# -- The statement that writes a batch, of the parts that it needs. All of it is done or nothing, and no part if another
# node has our calls, or was faster and the head of the chain is not the one that we expect.

_TYPES: Final = {"received_at": "bigint", "ended_at": "bigint", "chain_seq": "bigint"} | dict.fromkeys(
    ("dialled_hash", "caller_hash", "callee_hash", "sealed", "chain_hash"), "bytea"
)
_OURS: Final = "EXISTS (SELECT FROM own)"
# $1, $2, $3: our name, epoch, and the number of the batch. A try whose connection was lost may still wait on the
# server: it finds that number, and writes nothing.
_OWN: Final = """
own AS (
    UPDATE node SET batch = $3, seen_at = now() WHERE name = $1 AND epoch = $2 AND batch < $3{seen} RETURNING 1
)"""
_SEEN: Final = """
seen AS MATERIALIZED (SELECT 1 FROM chain_head WHERE id = 1 AND seq = {0} AND hash = {1} AND mac = {2} FOR UPDATE),"""
_PUT: Final = f""",
put AS (
    INSERT INTO live_call (call_id, node, sealed)
    SELECT call_id, $1, sealed FROM unnest({{0}}::text[], {{1}}::bytea[]) AS put (call_id, sealed) WHERE {_OURS}
    ON CONFLICT (call_id) DO UPDATE SET sealed = excluded.sealed, node = excluded.node
)"""
_PUT_CALLERS: Final = f""",
callers AS (
    INSERT INTO last_caller (binding_id, number, caller_hash, sealed, at)
    SELECT * FROM unnest({{0}}::text[], {{1}}::text[], {{2}}::bytea[], {{3}}::bytea[], {{4}}::bigint[]) WHERE {_OURS}
    ON CONFLICT (binding_id) DO UPDATE SET number = excluded.number, caller_hash = excluded.caller_hash,
        sealed = excluded.sealed, at = excluded.at
)"""
_ADD_EVENTS: Final = f""",
events AS (
    INSERT INTO call_event (call_id, kind, sealed)
    SELECT call_id, kind, sealed
    FROM unnest({{0}}::text[], {{1}}::text[], {{2}}::bytea[]) WITH ORDINALITY AS told (call_id, kind, sealed, place)
    WHERE {_OURS} ORDER BY place
)"""
_ADD: Final = f""",
head AS (UPDATE chain_head SET seq = {{0}}, hash = {{1}}, mac = {{2}} WHERE id = 1 AND {_OURS}),
gone AS (DELETE FROM live_call WHERE call_id = ANY({{call_ids}}::text[]) AND {_OURS}),
added AS (INSERT INTO call_record ({", ".join(COLUMNS)}) SELECT * FROM unnest({{arrays}}) WHERE {_OURS})"""


@cache
def _statement(sees_head: bool, put: bool, callers: bool, ended: bool, events: bool) -> str:
    """The statement for a batch with these parts; its values are in this order, after the head that is expected.

    It returns whether that is still the head, and whether the batch was written.
    """
    places = (f"${place}" for place in count(4))
    text = seen = ""
    if sees_head:
        text, seen = _SEEN.format(*islice(places, 3)), " AND EXISTS (SELECT FROM seen)"
    text += _OWN.format(seen=seen)
    if put:
        text += _PUT.format(*islice(places, 2))
    if callers:
        text += _PUT_CALLERS.format(*islice(places, 5))
    if ended:
        head, columns = list(islice(places, 3)), dict(zip(COLUMNS, places, strict=False))
        arrays = ", ".join(f"{place}::{_TYPES.get(name, 'text')}[]" for name, place in columns.items())
        text += _ADD.format(*head, call_ids=columns["call_id"], arrays=arrays)
    if events:
        text += _ADD_EVENTS.format(*islice(places, 3))
    return f"WITH{text}\nSELECT {'EXISTS (SELECT FROM seen)' if seen else 'true'}, {_OURS}"


class TakenOver(StoreError):
    """Another node has taken over our calls: this node must not write any more."""


def postgres_journal(
    server: PostgresServer, sealer: Sealer, report: Report, attempts: SharedAttempts | None = None
) -> Journal:
    """The journal of a node, beside the journals of other nodes.

    While the server is down the overflow log keeps the records of calls that end. It keeps no answer: a node that took
    over the call could not see it, and would end the call as one that rings.
    """
    overflow = Overflow(server.local.with_name(server.local.name + ".overflow"), sealer)
    return Journal(server, sealer, PostgresWriter(server, sealer, report, attempts), report, overflow)


class PostgresWriter:
    """As `relay.store.journal.journal.BatchWriter`."""

    def __init__(
        self, server: PostgresServer, sealer: Sealer, report: Report, attempts: SharedAttempts | None = None
    ) -> None:
        """`attempts`: written from `watch` until `close`."""
        self.effect = EFFECT
        self.faults: tuple[type[Exception], ...] = (*SERVER_FAULTS, StoreError)
        self.is_taken_over = False
        self.seq = 0  # the chain may be longer: of the nodes' records we know those before our last one
        self._server = server
        self._sealer = sealer
        self._report = report
        self._node = Node(server, sealer, report)
        self._attempts = attempts
        self._connection: asyncpg.Connection | None = None
        self._batch = 1  # number of the next batch to be durable
        self._links: list[Head] = []  # the last links that the tries for this batch added
        self._contended = 0  # batches that lock the head at once

    async def open(self, wake: Callable[[], None]) -> None:
        try:
            await self._node.open()
            await self._connect()
        except SERVER_FAULTS as error:
            raise StoreError(f"the store {self._server} failed: {error}") from error

    async def write(self, batch: Batch) -> None:
        """Raises TakenOver: this node writes nothing any more, and acknowledges nothing until it ends."""
        is_in_doubt = self._connection is None
        if is_in_doubt:
            await self._connect()
        await self._transact(batch, is_in_doubt=is_in_doubt)
        if self._links:
            self.seq = min(link.seq for link in self._links)
        self._batch, self._links = self._batch + 1, []

    async def failed(self, error: Exception) -> None:
        self._disconnect()

    def watch(self, take: Take, limits: SharedLimits) -> None:
        """Also ends this process if another node takes over its calls."""
        if self._attempts is not None:
            self._attempts.begin(self._node.epoch)
        self._node.watch(take, self._lost, limits, self._attempts)

    def _lost(self) -> None:
        """Exit at once: anything still sent would disturb calls that another node now carries."""
        self._report("node.lost", {"node": self._node.name, "effect": "this relay ends: another node has its calls"})
        sys.stdout.flush()
        os._exit(1)

    async def close(self) -> None:
        self._disconnect()
        if self._attempts is not None:
            await self._attempts.finish()
        await self._node.close()

    async def _is_written(self, connection: asyncpg.Connection) -> bool:
        """Whether a try whose answer was lost is on disk. Waits for one that is still under way. Raises TakenOver.

        The last link of the chain tells it for records, since anyone with the database can write a batch number. If
        the number was altered, this batch gets a higher one.
        """
        batch: int | None = await connection.fetchval(_WRITTEN, self._node.name, self._node.epoch)
        if batch is None:
            raise self._taken_over()
        if batch < self._batch:
            return False
        is_written = batch == self._batch
        for link in self._links:
            if is_written := bool(await connection.fetchval(_LINK, link.seq) == link.hash):
                break
        if not is_written:
            self._batch = batch + 1
        return is_written

    async def _transact(self, batch: Batch, *, is_in_doubt: bool) -> None:
        connection = self._live_connection()
        if is_in_doubt and await self._is_written(connection):
            return
        rows = _BatchRows(self._sealer, batch)
        if not rows.has_records and not rows.events:
            await self._write(connection, rows)
            return
        if self._contended:
            self._contended -= 1
        else:
            found = await connection.fetchrow(_HEADS)
            if found is not None and await self._write(connection, rows, *self._checked(found)):
                return
            self._contended = CONTENDED
        async with connection.transaction():
            await self._write(connection, rows, *await self._locked_heads(connection, begins=rows.has_records))

    def _taken_over(self) -> TakenOver:
        self.is_taken_over = True
        return TakenOver(f"another node has taken over the calls of {self._node.name}")

    def _checked(self, found: asyncpg.Record) -> tuple[HeadRow, Head]:
        """The head of the chain, and that of the audit log. Raises StoreError if the first was altered."""
        head: HeadRow = (found[0], found[1], found[2])
        checked_head(self._sealer, RECORDS, head)
        return head, EMPTY if found[3] is None else Head(found[3], found[4])

    async def _locked_heads(self, connection: asyncpg.Connection, *, begins: bool) -> tuple[HeadRow | None, Head]:
        """Lock the head of the chain until we commit, and read it; without one, begin a chain if it `begins`.

        Raises StoreError if it was altered or removed.
        """
        found = await connection.fetchrow(_LOCKED_HEADS)
        if found is None:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", HEAD_LOCK)
            found = await connection.fetchrow(_LOCKED_HEADS)
        if found is not None:
            return self._checked(found)
        if await connection.fetchval(_BEGUN):
            raise StoreError(broken_head(RECORDS))
        if not begins:
            return None, EMPTY
        first = head_row(self._sealer, RECORDS, EMPTY)
        await connection.execute(_FIRST_HEAD, *first)
        audit = await connection.fetchrow(_AUDIT)
        return first, EMPTY if audit is None else Head(*audit)

    async def _write(
        self, connection: asyncpg.Connection, rows: _BatchRows, head: HeadRow | None = None, audit: Head = EMPTY
    ) -> bool:
        """Write the batch in one statement. False if `head` is not the head of the chain any more.

        True also if an earlier try has written it meanwhile. Raises TakenOver.
        """
        values: list[object] = [self._node.name, self._node.epoch, self._batch, *(head or ()), *_columns(rows.put)]
        values += _columns(rows.callers)
        if rows.has_records and head is not None:
            link, records = rows.records(Head(head[0], head[1]), audit)
            self._links.append(link)
            values += [*head_row(self._sealer, RECORDS, link), *_columns(records)]
        values += _columns(rows.events)
        is_head, is_written = await connection.fetchrow(rows.statement(sees_head=head is not None), *values)
        if not is_written and is_head and not await self._is_written(connection):
            raise StoreError(f"the number of the last batch of node {self._node.name} was altered")
        return bool(is_head)

    # -- the connection

    async def _connect(self) -> None:
        self._connection = await asyncpg.connect(
            self._server.url,
            timeout=PATIENCE_S,
            command_timeout=PATIENCE_S,
            server_settings=SETTINGS,
        )
        await self._connection.execute(PIN)
        await asyncio.to_thread(self._check_head)

    def _check_head(self) -> None:
        """Raises StoreError if the head of the chain was altered."""
        with reading(self._server) as connection:
            self.seq = max(self.seq, read_head(connection, self._sealer, RECORDS).seq)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    def _live_connection(self) -> asyncpg.Connection:
        assert self._connection is not None  # _connect made it
        return self._connection


class _BatchRows:
    """The rows of a batch. The first record is sealed with the head of the audit log, and so at each try."""

    def __init__(self, sealer: Sealer, batch: Batch) -> None:
        self._sealer = sealer
        self._first = [commit.record for commit in batch.ended[:1]]
        self._others = [row_of(sealer, commit.record) for commit in batch.ended[1:]]
        self.put = [live_row(sealer, 0, commit.record, commit.dialogs or b"")[1:] for commit in batch.up]
        self.callers = [caller_row(sealer, caller) for caller in batch.callers]
        self.events = [event_row(sealer, event) for event in batch.events]

    @property
    def has_records(self) -> bool:
        return bool(self._first)

    def statement(self, *, sees_head: bool) -> str:
        parts = (bool(rows) for rows in (self.put, self.callers, self._first, self.events))
        return _statement(sees_head, *parts)

    def records(self, head: Head, audit: Head) -> tuple[Head, list[Row]]:
        """The last link, and the rows of the records, which follow `head` in the chain."""
        rows: list[Row] = []
        for row, encoded in [*(row_of(self._sealer, record, audit) for record in self._first), *self._others]:
            head = next_link(self._sealer, head, encoded)
            rows.append((*row, *head))
        return head, rows


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
