"""How a call record is laid out in the table `call_record`: what is plain, what is sealed, what finds it again.

It owns the columns and the encodings. Transactions, the chain's order and queries are in the modules beside it.
"""

from __future__ import annotations

import sqlite3
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from relay.call.numbers import is_700
from relay.call.record import CallRecord
from relay.errors import StoreError
from relay.store.sealing import Sealer

_PLAIN = (
    *("call_id", "binding_id", "mode", "business", "number_dialled", "number_shown", "peer_in", "peer_out"),
    *("received_at", "routed_at", "ringing_at", "answered_at", "ended_at", "duration_ms", "sip_status", "q850_cause"),
    *("outcome", "ended_by", "end_reason"),
)
_KEPT = (*_PLAIN, "dialled_hash", "caller_hash", "callee_hash", "sealed", "dialogs")
COLUMNS = (*_KEPT, "chain_seq", "chain_hash")

_ROW = f"({', '.join('?' * len(COLUMNS))})"
_UPSERT = f"""
INSERT INTO call_record ({", ".join(COLUMNS)}) VALUES {{}}
ON CONFLICT (call_id) DO UPDATE SET {", ".join(f"{column} = excluded.{column}" for column in COLUMNS[1:])}
WHERE call_record.ended_at IS NULL
"""
# Statements for 64, 32, … 1 rows: a batch takes few of them, and each gives the interpreter's lock away once.
_UPSERTS = [(1 << power, _UPSERT.format(", ".join([_ROW] * (1 << power)))) for power in range(6, -1, -1)]
SELECT = f"SELECT {', '.join(COLUMNS)} FROM call_record"

_encode = msgspec.msgpack.Encoder().encode
_Secret = tuple[str, str | None, str | None, str | None, str | None, bytes, bytes | None]
_decode = msgspec.msgpack.Decoder(_Secret).decode
_SEALED_AT = _KEPT.index("sealed")
_DIALOGS_AT = _KEPT.index("dialogs")
_HASHES = slice(len(_PLAIN), _SEALED_AT)


def upsert(connection: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> int:
    """Writes rows of live and ended calls in their order; how many were: a row that has ended stays as it is.

    `executemany` would take and give the interpreter's lock for each row, a context switch of both threads each time.
    """
    written = done = 0
    for size, statement in _UPSERTS:
        while len(rows) - done >= size:
            values = list(chain.from_iterable(rows[done : done + size]))
            written += connection.execute(statement, values).rowcount
            done += size
    return written


class StoredRecord(NamedTuple):
    """A row, opened: the record, what a restart needs to go on with a live call, and its link in the chain."""

    record: CallRecord
    dialogs: bytes | None
    chain_seq: int | None
    chain_hash: bytes | None


def row_of(sealer: Sealer, record: CallRecord, dialogs: bytes | None) -> tuple[Any, ...]:
    """The row without its two chain columns. The sealed part is bound to all plain ones."""
    (call_id, binding_id, mode, business, order_id, dialled, shown, caller, callee), times = record[:9], record[9:22]
    plain_dialled: str | None = dialled
    plain_shown = shown
    dialled_hash = hidden_dialled = hidden_shown = None
    if not is_700(dialled):
        plain_dialled, hidden_dialled, dialled_hash = None, dialled, sealer.lookup_hash(dialled)
    if shown is not None and not is_700(shown):
        plain_shown, hidden_shown = None, shown
    plain = (call_id, binding_id, mode, business, plain_dialled, plain_shown, *times)
    secret: _Secret = (caller, callee, order_id, hidden_dialled, hidden_shown, *_call_ids(record))
    return (
        *plain,
        dialled_hash,
        sealer.lookup_hash(caller),
        None if callee is None else sealer.lookup_hash(callee),
        sealer.seal(_encode(secret), _context(plain)),
        None if dialogs is None else sealer.seal(dialogs, b"dialogs " + call_id.encode()),
    )


def open_row(sealer: Sealer, row: tuple[Any, ...]) -> StoredRecord:
    """Reads a row of `SELECT`. Raises StoreError naming the record where it was altered."""
    plain = row[: len(_PLAIN)]
    call_id, binding_id, mode, business, dialled, shown, *times = plain
    try:
        secret = _decode(sealer.open_(row[_SEALED_AT], _context(plain)))
        caller, callee, order_id, hidden_dialled, hidden_shown, caller_leg, callee_leg = secret
        sealed_dialogs = row[_DIALOGS_AT]
        dialogs = None if sealed_dialogs is None else sealer.open_(sealed_dialogs, b"dialogs " + call_id.encode())
    except (StoreError, msgspec.DecodeError):
        raise StoreError(f"call record {call_id} was altered") from None
    # "" is a number as well: an anonymous caller's, shown where a call is forwarded.
    numbers = (hidden_dialled or dialled or "", shown if hidden_shown is None else hidden_shown, caller, callee)
    legs = (_text(caller_leg), None if callee_leg is None else _text(callee_leg))
    record = CallRecord._make((call_id, binding_id, mode, business, order_id, *numbers, *times, *legs))
    if row[_HASHES] != _hashes(sealer, record):
        raise StoreError(f"call record {call_id} was altered: its keyed hashes are those of other numbers")
    return StoredRecord(record, dialogs, row[-2], row[-1])


def encode_record(record: CallRecord) -> bytes:
    """The record as the chain hashes it: its version, then msgpack of its fields in their order."""
    return b"\x01" + _encode((*record[:22], *_call_ids(record)))


def _hashes(sealer: Sealer, record: CallRecord) -> tuple[bytes | None, bytes, bytes | None]:
    return (
        None if is_700(record.number_dialled) else sealer.lookup_hash(record.number_dialled),
        sealer.lookup_hash(record.caller),
        None if record.callee is None else sealer.lookup_hash(record.callee),
    )


def _context(plain: tuple[Any, ...]) -> bytes:
    return b"record " + _encode(plain)


def _call_ids(record: CallRecord) -> tuple[bytes, bytes | None]:
    """A peer's Call-ID may hold bytes that are no UTF-8, which came in as surrogates."""
    callee_leg = record.callee_leg_call_id
    return (
        record.caller_leg_call_id.encode("utf-8", "surrogatepass"),
        None if callee_leg is None else callee_leg.encode("utf-8", "surrogatepass"),
    )


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
