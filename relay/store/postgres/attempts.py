"""The attempts of a node where other nodes see them: a call that rings is ended by another one if its node stays away.

The file beside the node has each attempt before its first message is sent. The store gets attempts that last: every
SHARE_S one statement writes new ones and one deletes those that are over, so most calls that are refused or answered
at once never get there. Rows need not outlive a crash of the server: the node writes them again.

One node owns a row, and only that one ends the attempt. A takeover changes the owner. A start asks who owns what is in
its file, before it looks for records: a row is deleted after the record is committed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final

import asyncpg
import msgspec

from relay.call.recovery import KeptAttempt
from relay.errors import Report, StoreError
from relay.model.call import CallRecord
from relay.store.connection import PostgresServer, one_moment, select_rows
from relay.store.database import reading
from relay.store.journal.attempts import AttemptFile
from relay.store.postgres.nodes import NOT_IDLE_FOR_EVER, SERVER_FAULTS
from relay.store.postgres.objects import PIN
from relay.store.record_rows import decode_record, encode_record
from relay.store.sealing.sealer import Sealer

SHARE_S: Final = 0.1
AGAIN_S: Final = 1.0  # after a failure
PATIENCE_S: Final = 3.0
MOST_PUT: Final = 1_000  # rows of one statement
SETTINGS: Final = {**NOT_IDLE_FOR_EVER, "synchronous_commit": "off", "jit": "off"}

# FOR KEY SHARE: a takeover and a start, which lock the row FOR UPDATE, wait for us, or we find the new epoch and write
# nothing. The journal, which writes the batch number to that row until its records are on disk, and we do not wait for
# each other.
_PUT: Final = """
WITH own AS MATERIALIZED (SELECT 1 FROM node WHERE name = $1 AND epoch = $2 FOR KEY SHARE)
INSERT INTO attempt (call_id, node, sealed)
SELECT call_id, $1, sealed FROM unnest($3::text[], $4::bytea[]) AS put (call_id, sealed) WHERE EXISTS (SELECT FROM own)
ON CONFLICT (call_id) DO UPDATE SET sealed = excluded.sealed, node = excluded.node
"""
_DELETE: Final = "DELETE FROM attempt WHERE node = $1 AND call_id = ANY($2::text[])"
_OWN: Final = "SELECT call_id, sealed FROM attempt WHERE node = ?"
_OWNERS: Final = "SELECT call_id, node FROM attempt WHERE call_id IN ({keys})"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes, tuple[str, ...]]).decode

_Attempt = tuple[CallRecord, bytes, tuple[str, ...]]  # record, state, `KeptAttempt.sent_by`


class SharedAttempts:
    """As `relay.net.driver.AttemptNotes`. Blocks for as long as the disk does, never for the server."""

    def __init__(
        self, file: AttemptFile, server: PostgresServer, sealer: Sealer, sent_by: tuple[str, ...], report: Report
    ) -> None:
        """`sent_by`: see KeptAttempt, of this node's listeners. `report(event, fields)` gets altered rows."""
        self.is_ready = file.is_ready
        self.has_room = file.has_room
        self._file = file
        self._server = server
        self._sealer = sealer
        self._sent_by = sent_by
        self._report = report
        self._epoch = 0
        self._new: dict[str, _Attempt] = {}  # to be written
        self._shared: dict[str, _Attempt] = {}  # with a row, or about to have one
        self._over: list[str] = []  # rows to be deleted
        self._due = asyncio.Event()
        self._connection: asyncpg.Connection | None = None
        self._sharing: asyncio.Task[None] | None = None

    def open(self) -> list[KeptAttempt]:
        """Return the attempts of an earlier process of this node, except those that another node has taken over.

        It must have joined the nodes: from then on nobody takes over from it. Raises StoreError.
        """
        left = {attempt.record.call_id: attempt for attempt in self._file.open()}
        with reading(self._server) as connection, one_moment(connection):
            rows = connection.execute(_OWN, (self._server.node,)).fetchall()
            taken = [id_ for id_, node in select_rows(connection, _OWNERS, list(left)) if node != self._server.node]
        self._file.drop(taken)
        shared = {attempt.record.call_id: attempt for attempt in self.opened(rows)}
        self.adopt(shared.values())
        return list((shared | {id_: attempt for id_, attempt in left.items() if id_ not in taken}).values())

    def opened(self, rows: Iterable[tuple[str, bytes]]) -> list[KeptAttempt]:
        """Open rows (call_id, sealed). Altered ones are reported, left out, and deleted."""
        attempts: list[KeptAttempt] = []
        for call_id, sealed in rows:
            try:
                encoded, state, sent_by = _decode(self._sealer.open_(sealed, _context(call_id)))
                attempts.append(KeptAttempt(decode_record(encoded), state, None, sent_by))
            except (StoreError, msgspec.DecodeError) as error:
                self._report("attempts.altered", {"call_id": call_id, "reason": str(error)})
                self._delete(call_id)
        return attempts

    def adopt(self, attempts: Iterable[KeptAttempt]) -> None:
        """These rows are this node's: it deletes them when the attempts are dropped."""
        self._shared |= {each.record.call_id: (each.record, each.state, each.sent_by) for each in attempts}

    def keep(self, record: CallRecord, state: bytes) -> None:
        """As `AttemptFile.keep`; the store gets it within SHARE_S."""
        self._file.keep(record, state)
        self._new[record.call_id] = (record, state, self._sent_by)
        self._due.set()

    def drop(self, call_ids: Iterable[str]) -> None:
        """Remove attempts. Unknown ids are ignored."""
        self._file.drop(call_ids)
        for call_id in call_ids:
            self._new.pop(call_id, None)
            if self._shared.pop(call_id, None) is not None:
                self._delete(call_id)

    def _delete(self, call_id: str) -> None:
        self._over.append(call_id)
        self._due.set()

    # -- writing to the store

    def begin(self, epoch: int) -> None:
        """Write to the store from now on. `epoch`: of this node."""
        self._epoch = epoch
        self._sharing = asyncio.create_task(self._share(), name="attempts")
        self._sharing.add_done_callback(self._ended)

    def _ended(self, sharing: asyncio.Task[None]) -> None:
        if not sharing.cancelled() and (error := sharing.exception()) is not None:
            effect = "if this node stays away, what rings there ends when it is back"
            self._report("attempts.not_shared", {"reason": repr(error), "exc_info": error, "effect": effect})

    async def finish(self) -> None:
        """Delete what is over, then end."""
        if self._sharing is not None:
            self._sharing.cancel()
            await asyncio.wait([self._sharing])
            with contextlib.suppress(*SERVER_FAULTS):  # the next start does it
                await self._write()
        self._disconnect()

    def close(self) -> None:
        self._file.close()

    async def _share(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(SHARE_S)
            self._due.clear()
            try:
                await self._write()
            except SERVER_FAULTS:  # reported by the node's heartbeats
                self._disconnect()
                self._new = self._shared | self._new  # a server that takes over may lack the latest
                self._due.set()
                await asyncio.sleep(AGAIN_S)

    async def _write(self) -> None:
        """Raises SERVER_FAULTS; it can be repeated."""
        if self._connection is None and (self._new or self._over):
            self._connection = await asyncpg.connect(
                self._server.url, timeout=PATIENCE_S, command_timeout=PATIENCE_S, server_settings=SETTINGS
            )
            await self._connection.execute(PIN)
        connection = self._connection
        while self._new and connection is not None:
            some = dict(list(self._new.items())[:MOST_PUT])
            self._new = {call_id: each for call_id, each in self._new.items() if call_id not in some}
            self._shared |= some  # before it is awaited: what is over meanwhile is to be deleted
            sealed = [self._sealed(call_id, attempt) for call_id, attempt in some.items()]
            await connection.execute(_PUT, self._server.node, self._epoch, list(some), sealed)
        if self._over and connection is not None:
            over = list(self._over)
            await connection.execute(_DELETE, self._server.node, over)
            del self._over[: len(over)]

    def _sealed(self, call_id: str, attempt: _Attempt) -> bytes:
        record, state, sent_by = attempt
        return self._sealer.seal(_encode((encode_record(record), state, sent_by)), _context(call_id))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _context(call_id: str) -> bytes:
    return f"shared attempt {call_id}".encode()
