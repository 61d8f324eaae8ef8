"""The nodes of a shared store: heartbeats, and the takeover of calls and attempts from nodes that have failed.

Each node writes a heartbeat every second, by the server's clock, with the sealing keys it has and its counts of what is
limited over all nodes. If a node is silent for DEAD_S, another takes over its calls, exactly once: by one statement
that raises its epoch. A node that was only slow finds its writes refused, since its epoch is outdated, and must exit at
once: its calls belong to another node.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Annotated, Final, Protocol

import asyncpg
import msgspec

from relay.call.recovery import KeptAttempt
from relay.defence.limits import SharedLimits, Told
from relay.errors import Report, StoreError
from relay.store.connection import Connection, PostgresError, PostgresServer
from relay.store.journal.attempts import with_records
from relay.store.journal.rows import LiveCall, open_all, without_ended
from relay.store.postgres.objects import PIN, PINNED
from relay.store.sealing.keys import IN_USE, KeySwitch
from relay.store.sealing.sealer import Sealer

BEAT_S: Final = 1.0
DEAD_S: Final = 5.0
PATIENCE_S: Final = 3.0  # for one heartbeat, and for one step of a takeover
MOST_COUNT: Final = 10**12  # of one kind and name on another node; more was forged, and would overflow
MOST_TAKEN: Final = 1_000  # calls resumed at once, so that heartbeats go on between
# In ms: a machine that freezes or is cut off within a transaction must not keep its locks, which block all nodes. A
# node that was only slow finds its connection closed, and retries.
NOT_IDLE_FOR_EVER: Final = {**PINNED, "idle_in_transaction_session_timeout": "1000"}
# In ms, for a session that holds a lock: a machine that vanishes closes no connection, and would keep the lock until
# TCP gives it up, hours later. One that lives asks each second, and ends if it has no answer for PATIENCE_S, before
# another gets the lock.
SILENT: Final = {"idle_session_timeout": "5000"}

# FOR UPDATE here and in _TAKE: see `relay.store.postgres.attempts`.
_JOIN: Final = """
WITH earlier AS MATERIALIZED (SELECT epoch FROM node WHERE name = $1 FOR UPDATE)
INSERT INTO node (name, epoch, seen_at, sealing_keys) SELECT $1, 1 + coalesce(max(epoch), 0), now(), $2 FROM earlier
ON CONFLICT (name) DO UPDATE SET epoch = node.epoch + 1, seen_at = now(), sealing_keys = excluded.sealing_keys,
    taken_by = NULL, stopped_at = NULL, batch = 0
RETURNING epoch
"""
NODE_LOCK: Final = 700_000_006  # for pg_try_advisory_lock, with the hash of a node's name: its heartbeats hold it
_HOLD: Final = f"SELECT pg_try_advisory_lock({NODE_LOCK}, hashtext($1))"
_IS_BEATING: Final = """
SELECT EXISTS (SELECT 1 FROM node
WHERE name = $1 AND stopped_at IS NULL AND seen_at >= now() - make_interval(secs => $2))
"""
# Who has failed. $1: us, $3: see DEAD_S; so in _BEAT and _TAKE.
_GONE: Final = "name <> $1 AND taken_by IS NULL AND stopped_at IS NULL AND seen_at < now() - make_interval(secs => $3)"
# One statement, once a second: the heartbeat, our counts ('' for none) as far as they have changed, and what we want to
# know. A row for each other node that beats, or a single one; none if another node has taken over our calls.
_BEAT: Final = f"""
WITH own AS (
    UPDATE node SET seen_at = now(), sealing_keys = $4 WHERE name = $1 AND epoch = $2 RETURNING name
), told AS (
    INSERT INTO node_count (node, counts) SELECT name, $5 FROM own WHERE $5 <> ''
    ON CONFLICT (node) DO UPDATE SET counts = excluded.counts WHERE node_count.counts <> excluded.counts
), others AS (
    SELECT node_count.node, counts FROM node_count JOIN node ON node.name = node_count.node
    WHERE node <> $1 AND taken_by IS NULL AND stopped_at IS NULL AND seen_at >= now() - make_interval(secs => $3)
)
SELECT ({IN_USE}), EXISTS (SELECT 1 FROM node WHERE {_GONE}), others.node, others.counts
FROM own LEFT JOIN others ON true
"""
_TAKER: Final = "SELECT taken_by FROM node WHERE name = $1"
_STOP: Final = """
UPDATE node SET stopped_at = now()
WHERE name = $1 AND epoch = $2 AND NOT EXISTS (SELECT 1 FROM live_call WHERE node = $1)
    AND NOT EXISTS (SELECT 1 FROM attempt WHERE node = $1)
"""
_TAKE: Final = f"""
WITH gone AS MATERIALIZED (
    SELECT name FROM node
    WHERE {_GONE}
        AND EXISTS (SELECT 1 FROM node AS taker WHERE taker.name = $1 AND taker.epoch = $2)
    ORDER BY name FOR UPDATE
)
UPDATE node SET epoch = epoch + 1, taken_by = $1 FROM gone WHERE node.name = gone.name
RETURNING node.name
"""
_TAKE_CALLS: Final = "UPDATE live_call SET node = $1 WHERE node = ANY($2::text[]) RETURNING call_id"
_TAKE_ATTEMPTS: Final = "UPDATE attempt SET node = $1 WHERE node = ANY($2::text[]) RETURNING call_id"
# FOR SHARE waits for a COMMIT that is still under way, although its connection was lost.
_TAKEN: Final = """
WITH taken AS MATERIALIZED (SELECT id, call_id, sealed, node FROM live_call WHERE call_id = ANY($2::text[]) FOR SHARE)
SELECT id, call_id, sealed FROM taken WHERE node = $1
"""
_TAKEN_ATTEMPTS: Final = """
WITH taken AS MATERIALIZED (SELECT call_id, sealed, node FROM attempt WHERE call_id = ANY($2::text[]) FOR SHARE)
SELECT call_id, sealed FROM taken WHERE node = $1
"""
# A node that was killed and has not come back for a day was taken away for good.
_UP: Final = f"""
SELECT name, CASE WHEN taken_by IS NULL AND seen_at >= now() - make_interval(secs => {DEAD_S}) THEN 1 ELSE 0 END
FROM node WHERE stopped_at IS NULL AND seen_at >= now() - make_interval(days => 1)
"""

# InternalClientError: losing a connection in use at times leaves asyncpg in an inconsistent state.
SERVER_FAULTS: Final = (
    *(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError),
    asyncpg.InternalClientError,
)


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, dict[str, Annotated[int, msgspec.Meta(ge=0, le=MOST_COUNT)]]]).decode


Take = Callable[[list[LiveCall], list[KeptAttempt]], None]  # resumes calls, and ends attempts


class NodeAttempts(Protocol):
    """The attempts of this node in the store."""

    def opened(self, rows: Iterable[tuple[str, bytes]]) -> list[KeptAttempt]:
        """Open rows of `attempt`."""

    def adopt(self, attempts: Iterable[KeptAttempt]) -> None:
        """These rows are ours: they are to be deleted with their attempts."""


class Node:
    """This node. Open it before the journal, whose transactions check its epoch."""

    def __init__(self, server: PostgresServer, sealer: Sealer, report: Report, *, dead_s: float = DEAD_S) -> None:
        self.name = server.node
        self.epoch = 0
        self._server = server
        self._sealer = sealer
        self._turning = KeySwitch(sealer, report)
        self._report = report
        self._dead_s = dead_s
        self._connection: asyncpg.Connection | None = None
        self._watching: asyncio.Task[None] | None = None
        self._take_up: Take | None = None  # None until `watch`
        self._attempts: NodeAttempts | None = None
        self._limits: SharedLimits | None = None
        self._taken: list[str] = []  # calls and attempts of failed nodes, ours or in doubt, not passed to `take` yet
        self._unreadable: set[str] = set()  # nodes whose counts were reported
        self._holds_name = False  # NODE_LOCK
        self._has_gone = False  # whether there was a node to take over from, at the last heartbeat

    async def open(self) -> None:
        """Join with a new epoch, so that an earlier process of this name can write no more. Raises StoreError.

        An earlier process that still beats, as of a copied machine, keeps its name. Heartbeats start at once: what a
        start does before `watch` may take longer than DEAD_S.
        """
        try:
            await self._connect()
            if not self._holds_name and await self._ask(_IS_BEATING, self.name, self._dead_s):
                raise StoreError(
                    f'another relay700 is node "{self.name}" of the store {self._server}: choose another store.node'
                )
            self.epoch = await self._ask(_JOIN, self.name, self._turning.known())
        except SERVER_FAULTS as error:
            raise StoreError(f"the store {self._server} failed: {error}") from error
        self._watching = asyncio.create_task(self._watch(), name="node")

    def watch(
        self,
        take: Take,
        lost: Callable[[], None],
        limits: SharedLimits | None = None,
        attempts: NodeAttempts | None = None,
    ) -> None:
        """Pass the calls of failed nodes to `take` from now on, and what `attempts` opens of their attempts.

        `lost` is called once another node has taken over our calls, or will, since the heartbeats have ended by a bug.
        `limits` exchanges counts with the other nodes.
        """
        assert self._watching is not None  # open() made it
        self._take_up, self._limits, self._attempts = take, limits, attempts
        self._watching.add_done_callback(partial(self._ended, lost))

    async def close(self) -> None:
        """Stop. If calls are left, another node takes them over after DEAD_S; if none, mark this node as stopped."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        if self._connection is None:
            return
        with contextlib.suppress(*SERVER_FAULTS):
            await self._connection.execute(_STOP, self.name, self.epoch, timeout=PATIENCE_S)
        self._connection.terminate()

    def _ended(self, lost: Callable[[], None], watching: asyncio.Task[None]) -> None:
        if watching.cancelled():
            return
        if (error := watching.exception()) is not None:
            self._report("node.stopped", {"node": self.name, "reason": repr(error), "exc_info": error})
        lost()

    async def _watch(self) -> None:
        """Return once another node has taken over our calls.

        Take over others only after beating for DEAD_S ourselves: after an outage of the server every node looks dead
        until its next heartbeat.
        """
        loop = asyncio.get_running_loop()
        since = loop.time()
        while True:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if self._connection is None:
                        await self._connect()
                    if not await self._beat():
                        await self._report_if_altered()
                        return
                if self._take_up is not None and (self._taken or loop.time() - since > self._dead_s + BEAT_S):
                    async with asyncio.timeout(PATIENCE_S):
                        taken = await self._take()
                    self._take_up(*taken)
            except (*SERVER_FAULTS, StoreError) as error:
                self._report("node.beat_failed", {"node": self.name, "reason": str(error)})
                since = loop.time()
                self._disconnect()
                await asyncio.sleep(BEAT_S)
            else:
                await asyncio.sleep(0 if self._taken else BEAT_S)

    async def _beat(self) -> bool:
        """Write a heartbeat. False if another node has taken over our calls."""
        assert self._connection is not None
        if not self._holds_name:  # an earlier connection of ours, cut off, may have it for SILENT
            self._holds_name = bool(await self._ask(_HOLD, self.name))
        own = "" if self._limits is None else _encode(self._limits.own()).decode()
        rows = await self._connection.fetch(_BEAT, self.name, self.epoch, self._dead_s, self._turning.known(), own)
        if not rows:
            return False
        self._turning.to(rows[0][0])
        self._has_gone = rows[0][1]
        if self._limits is not None:
            self._limits.hear(self._told(rows))
        return True

    async def _report_if_altered(self) -> None:
        """A takeover names the taker, and no start of this name gets past our lock: all else has altered the row."""
        assert self._connection is not None
        if self._holds_name and not await self._connection.fetchval(_TAKER, self.name):
            effect = "this relay ends, and a start takes its calls up again"
            self._report("node.altered", {"node": self.name, "effect": effect})

    def _told(self, rows: Iterable[asyncpg.Record]) -> list[Told]:
        """The counts of the others, from the rows of _BEAT. Each node's unreadable row is reported once."""
        others: list[Told] = []
        for _, _, name, counts in rows:
            if name is None:
                continue
            try:
                others.append(_decode(counts))
            except msgspec.DecodeError as error:
                if name not in self._unreadable:
                    self._unreadable.add(name)
                    self._report("node.counts_altered", {"node": name, "reason": str(error)})
        return others

    async def _take(self) -> tuple[list[LiveCall], list[KeptAttempt]]:
        """Calls of failed nodes, up or under way, MOST_TAKEN at most. A call that was just answered may be both."""
        assert self._connection is not None
        if self._has_gone and not self._taken:
            await self._take_over()
        if not self._taken:
            return [], []
        some = self._taken[:MOST_TAKEN]
        rows = await self._connection.fetch(_TAKEN, self.name, some)
        calls = open_all(self._sealer, map(tuple, rows), self._report)
        calls = await asyncio.to_thread(without_ended, self._server, self._sealer, calls, self._report)
        attempts: list[KeptAttempt] = []
        if self._attempts is not None:
            attempts = self._attempts.opened(await self._connection.fetch(_TAKEN_ATTEMPTS, self.name, some))
            attempts = await asyncio.to_thread(with_records, self._server, self._sealer, attempts, ())
            self._attempts.adopt(attempts)
        del self._taken[:MOST_TAKEN]
        return calls, attempts

    async def _take_over(self) -> None:
        """Make the calls of failed nodes ours. Their ids are noted first, since the answer to COMMIT may be lost."""
        assert self._connection is not None
        async with self._connection.transaction():
            gone = [row[0] for row in await self._connection.fetch(_TAKE, self.name, self.epoch, self._dead_s)]
            calls = await self._connection.fetch(_TAKE_CALLS, self.name, gone) if gone else []
            attempts = await self._connection.fetch(_TAKE_ATTEMPTS, self.name, gone) if gone else []
            self._taken = list(dict.fromkeys(row[0] for row in (*calls, *attempts)))
        for name in gone:
            taken = {"calls": len(calls), "attempts": len(attempts)}
            self._report("node.taken_over", {"node": name, "by": self.name, **taken})

    async def _connect(self) -> None:
        self._connection = await asyncpg.connect(
            self._server.url,
            timeout=PATIENCE_S,
            command_timeout=PATIENCE_S,  # also bounds the ROLLBACK after a timeout
            server_settings=NOT_IDLE_FOR_EVER | SILENT,
        )
        await self._connection.execute(PIN)
        self._holds_name = bool(await self._ask(_HOLD, self.name))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ask(self, statement: str, *values: object) -> int:
        assert self._connection is not None
        answer: int = await self._connection.fetchval(statement, *values, timeout=PATIENCE_S)
        return answer


def nodes_up(connection: Connection) -> dict[str, int]:
    """By the name of each node that has not stopped: 1 if it sends heartbeats, 0 if it is missing, for up to a day."""
    return dict(connection.execute(_UP).fetchall())


# -- Leader election among the backends of a shared store

BACKEND_LOCK: Final = 700_000_003  # for pg_try_advisory_lock
LOOK_S: Final = 1.0
MOST_TRIES: Final = 2  # to take a lost lock again: a session of ours that the server has not ended yet may have it


class LeaderLock:
    """The leader lock, as one backend sees it."""

    def __init__(self, server: PostgresServer, report: Report) -> None:
        """`report(event, fields)` gets failures to ask for the lock, each reason once."""
        self._server = server
        self._report = report
        self._reason = ""  # of the last failure; "": the server answered
        self._connection: asyncpg.Connection | None = None

    async def acquire(self) -> None:
        """Return once the lock is ours. Retries for ever, also while the server is down."""
        while True:
            if await self._takes():
                return
            await asyncio.sleep(LOOK_S)

    async def hold(self, check: Callable[[], None]) -> None:
        """Check the lock every second. Raises StoreError once another backend has it.

        While the server is away nobody works. When it is back the lock is taken again, and `check`, in a thread, says
        whether the store is still the one that it was; it raises StoreError.
        """
        is_ours, tries = True, 0
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if is_ours and self._connection is not None:
                    await self._connection.fetchval("SELECT 1", timeout=PATIENCE_S)
                    continue
            except SERVER_FAULTS as error:
                self.close()
                self._failed(str(error) or "no answer in time")
            is_ours = await self._takes()
            if is_ours:
                try:
                    await asyncio.to_thread(check)
                except StoreError as error:
                    if not isinstance(error.__cause__, PostgresError):
                        raise
                    self.close()  # it is away again
            elif not self._reason and tries == MOST_TRIES:
                raise StoreError(f"another backend works on the store {self._server} now")
            tries = 0 if is_ours or self._reason else tries + 1

    async def _takes(self) -> bool:
        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(
                    self._server.url, timeout=PATIENCE_S, server_settings=PINNED | SILENT
                )
                await self._connection.execute(PIN)
            took = await self._connection.fetchval(f"SELECT pg_try_advisory_lock({BACKEND_LOCK})", timeout=PATIENCE_S)
        except SERVER_FAULTS as error:
            self.close()
            self._failed(str(error) or "no answer in time")
            return False
        self._reason = ""
        return bool(took)

    def _failed(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            effect = "this backend does not work, and asks again each second"
            self._report("leader_lock.failed", {"store": str(self._server), "reason": reason, "effect": effect})

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
