"""The rows that the journal writes beside records: events of calls under way, and last callers.

Owns their columns and sealing. `relay.events.follower` reads the events, `relay.store.lookup` the callers.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from relay.call.record import CallRecord
from relay.errors import StoreError
from relay.policy.last_caller import LastCaller
from relay.store.connection import Connection
from relay.store.record_rows import Row, decode_record, encode_record
from relay.store.sealed_rows import SealedRows
from relay.store.sealing import Sealer

INSERT_EVENTS: Final = "INSERT INTO call_event (call_id, kind, sealed) VALUES"
PUT_CALLERS: Final = "INSERT OR REPLACE INTO last_caller (binding_id, number, caller_hash, sealed, at) VALUES"
_SELECT_EVENTS: Final = "SELECT seq, call_id, kind, sealed FROM call_event WHERE seq > ? ORDER BY seq LIMIT ?"

EventRow = tuple[int, str, str, bytes]  # seq, call_id, kind, sealed


class Told(NamedTuple):
    """An event of a call under way: `kind` is received, ringing or answered; the record as of that event."""

    kind: str
    record: CallRecord


def event_row(sealer: Sealer, told: Told) -> Row:
    call_id = told.record.call_id
    return (call_id, told.kind, sealer.seal(encode_record(told.record), _event_context(call_id, told.kind)))


def event_rows(connection: Connection, after: int, most: int) -> list[EventRow]:
    """A page of rows for `open_event`, in order, after the seq `after`."""
    return connection.execute(_SELECT_EVENTS, (after, most)).fetchall()


def open_event(sealer: Sealer, row: EventRow) -> Told:
    """Open a row of `event_rows`. Raises StoreError if it was altered."""
    _, call_id, kind, sealed = row
    try:
        return Told(kind, decode_record(sealer.open_(sealed, _event_context(call_id, kind))))
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
