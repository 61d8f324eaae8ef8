"""The journal's writer to a PostgreSQL server, where several relays write one chain.

Each transaction first raises the batch number in this node's row. That fails if another node has taken over our calls,
and shows, after a COMMIT whose answer was lost, whether it is on disk. Last, the transaction locks the head of the
chain and writes the links behind it in one statement; no other node can add links until it is committed. So the records
of all nodes have one order, and none appears before a record that the follower has already read.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
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

_BATCH: Final = "UPDATE node SET batch = $3, seen_at = now() WHERE name = $1 AND epoch = $2"
_WRITTEN: Final = "SELECT batch FROM node WHERE name = $1 AND epoch = $2 FOR UPDATE"
_LINK: Final = "SELECT chain_hash FROM call_record WHERE chain_seq = $1"
_BEGUN: Final = """
SELECT EXISTS (SELECT 1 FROM call_record) OR EXISTS (SELECT 1 FROM checkpoint WHERE chain = 'record')
"""
_HEAD: Final = "SELECT seq, hash, mac FROM chain_head WHERE id = 1 FOR UPDATE"
_AUDIT: Final = "SELECT seq, hash FROM audit_head WHERE id = 1"
_PUT: Final = """
INSERT INTO live_call (call_id, node, sealed)
SELECT call_id, $1, sealed FROM unnest($2::text[], $3::bytea[]) AS put (call_id, sealed)
ON CONFLICT (call_id) DO UPDATE SET sealed = excluded.sealed, node = excluded.node
"""
_TYPES: Final = {"received_at": "bigint", "ended_at": "bigint", "chain_seq": "bigint"} | dict.fromkeys(
    ("dialled_hash", "caller_hash", "callee_hash", "sealed", "chain_hash"), "bytea"
)
_ADD_EVENTS: Final = """
INSERT INTO call_event (call_id, kind, sealed)
SELECT call_id, kind, sealed
FROM unnest($1::text[], $2::text[], $3::bytea[]) WITH ORDINALITY AS told (call_id, kind, sealed, place) ORDER BY place
"""
# $1 to $3: as in _ADD_EVENTS; $4 to $6: the head; from $7: the columns of the records.
_ADD: Final = """
WITH events AS ({events}),
    head AS (
        INSERT INTO chain_head (id, seq, hash, mac) VALUES (1, $4, $5, $6)
        ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash, mac = excluded.mac
    ),
    gone AS (DELETE FROM live_call WHERE call_id = ANY(${call_ids}::text[]))
INSERT INTO call_record ({columns}) SELECT * FROM unnest({arrays})
""".format(
    events=_ADD_EVENTS,
    call_ids=7 + COLUMNS.index("call_id"),
    columns=", ".join(COLUMNS),
    arrays=", ".join(f"${place}::{_TYPES.get(name, 'text')}[]" for place, name in enumerate(COLUMNS, 7)),
)
_PUT_CALLERS: Final = """
INSERT INTO last_caller (binding_id, number, caller_hash, sealed, at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bytea[], $5::bigint[])
ON CONFLICT (binding_id) DO UPDATE SET number = excluded.number, caller_hash = excluded.caller_hash,
    sealed = excluded.sealed, at = excluded.at
"""


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
        self._link: Head | None = None  # the last link that the latest try for this batch added

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
        if self._link is not None:
            self.seq = self._link.seq
        self._batch, self._link = self._batch + 1, None

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
        """After a lost connection: whether the COMMIT in doubt is on disk. Waits for one that is still under way.

        Records are looked for by their last link, since anyone with the database can write a batch number.
        """
        batch = await connection.fetchval(_WRITTEN, self._node.name, self._node.epoch)
        if batch is None:
            raise self._taken_over()
        if batch != self._batch or self._link is None:
            return bool(batch == self._batch)
        return bool(await connection.fetchval(_LINK, self._link.seq) == self._link.hash)

    async def _transact(self, batch: Batch, *, is_in_doubt: bool) -> None:
        connection = self._live_connection()
        row = await connection.fetchrow(_AUDIT)
        audit = EMPTY if row is None else Head(*row)
        put = [live_row(self._sealer, 0, commit.record, commit.dialogs or b"") for commit in batch.up]
        ended = [
            row_of(self._sealer, commit.record, None if place else audit) for place, commit in enumerate(batch.ended)
        ]
        events = [event_row(self._sealer, event) for event in batch.events]
        callers = [caller_row(self._sealer, caller) for caller in batch.callers]
        async with connection.transaction():
            if is_in_doubt and await self._is_written(connection):
                return
            if await connection.execute(_BATCH, self._node.name, self._node.epoch, self._batch) != "UPDATE 1":
                raise self._taken_over()
            if put:
                await connection.execute(_PUT, self._node.name, *_columns([row[1:] for row in put]))
            if callers:
                await connection.execute(_PUT_CALLERS, *_columns(callers))
            if ended:
                await self._add(connection, ended, events)
            elif events:
                await self._locked_head(connection)
                await connection.execute(_ADD_EVENTS, *_columns(events))

    def _taken_over(self) -> TakenOver:
        self.is_taken_over = True
        return TakenOver(f"another node has taken over the calls of {self._node.name}")

    async def _locked_head(self, connection: asyncpg.Connection) -> Head:
        """Lock and read the head of the chain until we commit. Raises StoreError if it was altered or removed."""
        row = await connection.fetchrow(_HEAD)
        if row is None:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", HEAD_LOCK)
            row = await connection.fetchrow(_HEAD)
        if row is None:
            if await connection.fetchval(_BEGUN):
                raise StoreError(broken_head(RECORDS))
            return EMPTY
        return checked_head(self._sealer, RECORDS, (row[0], row[1], row[2]))

    async def _add(self, connection: asyncpg.Connection, ended: list[tuple[Row, bytes]], events: Sequence[Row]) -> None:
        head = await self._locked_head(connection)
        rows: list[Row] = []
        for row, encoded in ended:
            head = next_link(self._sealer, head, encoded)
            rows.append((*row, *head))
        self._link = head
        new: HeadRow = head_row(self._sealer, RECORDS, head)
        await connection.execute(_ADD, *(_columns(events) or ([], [], [])), *new, *_columns(rows))

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


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
