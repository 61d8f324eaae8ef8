"""Rows that the journal writes beside records: call events, last callers, and live calls.

Owns their columns and sealing. `relay.events.follower` reads the events, `relay.store.lookup` the callers, a start the
live calls.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, suppress
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from relay.errors import Report, StoreError
from relay.model.actions import CallEvent, Commit
from relay.model.call import CallRecord
from relay.policy.rules import LastCaller
from relay.store.connection import Connection, Place, PostgresServer, select_rows
from relay.store.database import connect, reading, store_errors
from relay.store.record_index import SELECT_CURSOR, call_key
from relay.store.record_rows import SELECT as SELECT_RECORD
from relay.store.record_rows import Row, decode_record, encode_record, open_row
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer

INSERT_EVENTS: Final = "INSERT INTO call_event (call_id, kind, sealed) VALUES"
PUT_CALLERS: Final = "INSERT OR REPLACE INTO last_caller (binding_id, number, caller_hash, sealed, at) VALUES"
_SELECT_EVENTS: Final = "SELECT seq, call_id, kind, sealed FROM call_event ORDER BY seq LIMIT ?"

EventRow = tuple[int, str, str, bytes]  # seq, call_id, kind, sealed


def event_row(sealer: Sealer, event: CallEvent) -> Row:
    call_id = event.record.call_id
    return (call_id, event.kind, sealer.seal(encode_record(event.record), _event_context(call_id, event.kind)))


def event_rows(connection: Connection, most: int) -> list[EventRow]:
    """The oldest rows for `open_event`, in order. The follower deletes those that it has followed."""
    return connection.execute(_SELECT_EVENTS, (most,)).fetchall()


def open_event(sealer: Sealer, row: EventRow) -> CallEvent:
    """Open a row of `event_rows`. Raises StoreError if it was altered."""
    _, call_id, kind, sealed = row
    try:
        return CallEvent(kind, decode_record(sealer.open_(sealed, _event_context(call_id, kind))))
    except StoreError:
        raise StoreError(f"the event {kind} of call {call_id} was altered") from None


def caller_row(sealer: Sealer, last: LastCaller) -> Row:
    sealed = sealer.seal(last.caller.encode(), _caller_context(last.binding_id, last.number))
    return (last.binding_id, last.number, sealer.lookup_hash(last.caller), sealed, last.at_ms)


def open_caller(sealer: Sealer, binding_id: str, number: str, sealed: bytes) -> str:
    """The last caller of the binding's `number`. Raises StoreError if the row was altered."""
    return sealer.open_(sealed, _caller_context(binding_id, number)).decode()


def _event_context(call_id: str, kind: str) -> bytes:
    return f"event {call_id} {kind}".encode()


def _caller_context(binding_id: str, number: str) -> bytes:
    return f"last caller {binding_id} {number}".encode()


SEALED_CALLERS: Final = SealedRows("last_caller", ("binding_id",), ("binding_id", "number"), _caller_context)


# -- The row of a call that is up

PUT: Final = "INSERT OR REPLACE INTO live_call (id, call_id, sealed) VALUES"
SELECT: Final = "SELECT id, call_id, sealed FROM live_call ORDER BY id"
SELECT_OF_CALL: Final = "SELECT id, call_id, sealed FROM live_call WHERE call_id = ?"
_SELECT_OF_NODE: Final = "SELECT id, call_id, sealed FROM live_call WHERE node = ? ORDER BY id, call_id"
_ROW_IDS: Final = "SELECT call_id, id FROM live_call"
_INDEXED: Final = f"{SELECT_RECORD} WHERE chain_seq IN (SELECT record FROM record_index WHERE key IN ({{keys}}))"
_NOT_INDEXED: Final = f"""
{SELECT_RECORD} WHERE call_id IN ({{keys}}) AND chain_seq > ({SELECT_CURSOR})
AND chain_seq > (SELECT seq FROM chain_head) - 10000
"""

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode


class LiveCall(NamedTuple):
    """An opened row: the record of a call that is up, and its dialogs (opaque), which a restart resumes."""

    record: CallRecord
    dialogs: bytes


def live_row(sealer: Sealer, row_id: int, record: CallRecord, dialogs: bytes) -> Row:
    """Build the row of a call that is up. The sealed part is bound to the other two columns."""
    call_id = record.call_id
    return (row_id, call_id, sealer.seal(_encode((encode_record(record), dialogs)), _context(row_id, call_id)))


def open_live(sealer: Sealer, row: Row) -> LiveCall:
    """Open a row of `SELECT`. Raises StoreError naming the record if it was altered."""
    row_id, call_id, sealed = row
    try:
        encoded, dialogs = _decode(sealer.open_(sealed, _context(row_id, call_id)))
        return LiveCall(decode_record(encoded), dialogs)
    except (StoreError, TypeError, msgspec.DecodeError):  # TypeError: the row has NULL, or a value of another type
        raise StoreError(f"call record {call_id} was altered") from None


def read_live(place: Place, sealer: Sealer, report: Report) -> list[LiveCall]:
    """Read the calls that are up, on a server those of this node, with their dialogs. Raises StoreError.

    Altered rows are reported and left out.
    """
    with reading(place) as connection:
        if isinstance(place, PostgresServer):
            calls = open_all(sealer, connection.execute(_SELECT_OF_NODE, (place.node,)), report)
        else:
            calls = open_all(sealer, connection.execute(SELECT), report)
    return without_ended(place, sealer, calls, report)


def not_ours(place: Place, call_ids: list[str], seq: int) -> set[str]:
    """Select the calls of the overflow log that need no record from it any more. Raises StoreError.

    They have a record that follows `seq` in the chain, or another node has taken them over and ends them: when it has,
    it deletes its row. So rows are read before records.
    """
    found: set[str] = set()
    with reading(place) as connection:
        if isinstance(place, PostgresServer):
            for table in ("live_call", "attempt"):
                rows = select_rows(
                    connection, f"SELECT call_id, node FROM {table} WHERE call_id IN ({{keys}})", call_ids
                )
                found.update(call_id for call_id, node in rows if node != place.node)
        ended = connection.execute("SELECT call_id FROM call_record WHERE chain_seq > ?", (seq,))
        found.update(call_id for (call_id,) in ended.fetchall())
    return found


def open_all(sealer: Sealer, rows: Iterable[tuple[Any, ...]], report: Report) -> list[LiveCall]:
    """Open rows of `SELECT`. Altered rows are reported and left out."""
    calls: list[LiveCall] = []
    for row in rows:
        try:
            calls.append(open_live(sealer, row))
        except StoreError as error:
            report("journal.record_altered", {"call_id": row[1], "reason": str(error)})
    return calls


def without_ended(place: Place, sealer: Sealer, calls: list[LiveCall], report: Report) -> list[LiveCall]:
    """Leave out, report and delete the calls that have a record: their rows were put back after the end.

    Searches the index of calls and the latest records: reading all would take minutes. Raises StoreError.
    """
    if not calls:
        return []
    up = {call.record.call_id: call for call in calls}
    with reading(place) as connection:
        by_index = select_rows(connection, _INDEXED, [call_key(call_id) for call_id in up])
        rows = [*by_index, *select_rows(connection, _NOT_INDEXED, list(up))]
    for row in rows:
        with suppress(StoreError):  # an altered record ends no call; a row that cannot be deleted is found again
            call_id = open_row(sealer, row).record.call_id
            if up.pop(call_id, None) is not None:
                report("journal.live_call_has_ended", {"call_id": call_id, "effect": "it is not resumed"})
                _delete_call(place, call_id)
    return list(up.values())


def _delete_call(place: Place, call_id: str) -> None:
    with store_errors(place), closing(connect(place)) as connection:
        connection.execute("DELETE FROM live_call WHERE call_id = ?", (call_id,))


def laid_over(calls: Iterable[LiveCall], commits: Iterable[Commit]) -> list[LiveCall]:
    """The calls that are up after `commits`, which the store may have taken after `calls` were read."""
    up = {call.record.call_id: call for call in calls}
    for commit in commits:
        if commit.record.ended_at is None:
            up[commit.record.call_id] = LiveCall(commit.record, commit.dialogs or b"")
        else:
            up.pop(commit.record.call_id, None)
    return list(up.values())


class LiveRows:
    """The row of each call that is up. A new call reuses the row of one that ended, so that fewer pages are written."""

    def __init__(self, connection: Connection) -> None:
        self._taken: dict[str, int] = dict(connection.execute(_ROW_IDS).fetchall())
        self._next = max(self._taken.values(), default=0) + 1
        self._free = sorted(set(range(1, self._next)) - set(self._taken.values()), reverse=True)

    def vacate(self, call_id: str) -> int | None:
        """Release the row of a call that has ended. None if it had none."""
        return self._taken.pop(call_id, None)

    def of(self, call_id: str, vacated: list[int]) -> int:
        """The row of a call: its present one, else one popped from `vacated`, else a free one."""
        row_id = self._taken.get(call_id)
        if row_id is None:
            if not vacated and not self._free:
                self._free.append(self._next)
                self._next += 1
            self._taken[call_id] = row_id = (vacated or self._free).pop()
        return row_id

    def free(self, vacated: list[int]) -> None:
        """Return deleted rows for later use."""
        self._free += vacated


def delete_live(connection: Connection, row_ids: list[int]) -> None:
    """Delete rows in one statement, padded to a power of two, so that there are few prepared statements."""
    count = 1 << (len(row_ids) - 1).bit_length()
    connection.execute(_delete(count), row_ids + row_ids[-1:] * (count - len(row_ids)))


@cache
def _delete(count: int) -> str:
    return f"DELETE FROM live_call WHERE id IN ({', '.join('?' * count)})"


def _context(row_id: int, call_id: str) -> bytes:
    return f"live {row_id} {call_id}".encode()


# -- The closed records of a journal

# The latest ended calls are enough: the engine forgets a call seconds after its end, and a restart restores none whose
# end is on disk. A unique index on call_id would cost a page write for each call.
REMEMBERED = 20_000


class ClosedRecords:
    """The closed records of one journal. `report(event, fields)` gets each commit for a closed record."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._ended: set[str] = set()
        self._ended_before: set[str] = set()

    def take(self, commits: list[Commit]) -> list[Commit]:
        """Return the commits whose records are still open. A commit that ends a call closes its record."""
        still_open = []
        for commit in commits:
            call_id = commit.record.call_id
            if call_id in self._ended or call_id in self._ended_before:
                self._report("journal.record_closed_before", {"call_id": call_id})
                continue
            still_open.append(commit)
            if commit.record.ended_at is not None:
                self._ended.add(call_id)
        if len(self._ended) > REMEMBERED:
            self._ended, self._ended_before = set(), self._ended
        return still_open
