"""The row of an ended call in the table `call_record`.

Owns the columns and the encoding of the record, which is sealed, beside the columns for searches. The index of records,
calls that are up, transactions, the order of the chain and queries are in the neighbouring modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import Any, Final, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.model.call import CallRecord
from relay.model.numbers import is_700
from relay.store.chain import EMPTY, Head
from relay.store.connection import Connection
from relay.store.sealing.sealer import Sealer

Row = tuple[Any, ...]

_FINDING: Final = (
    *("call_id", "number_dialled", "number_shown", "received_at", "ended_at"),
    *("dialled_hash", "caller_hash", "callee_hash"),
)
COLUMNS: Final = (*_FINDING, "sealed", "chain_seq", "chain_hash")

INSERT: Final = f"INSERT INTO call_record ({', '.join(COLUMNS)}) VALUES"
SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM call_record"
MOST_ROWS: Final = 32  # per statement: SQLite keeps one prepared statement for each size

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[Any, ...]).decode
# The Call-IDs of both legs may not be valid UTF-8, and are encoded apart.
_LEGS: Final = CallRecord._fields.index("caller_leg_call_id")
_VERSION: Final = b"\x05"
# Without the two Call-IDs. Fields added later are left off the end while None, which is the form that the previous
# version writes and reads.
_LEAST: Final = CallRecord._fields.index("recording") - 1
_ENCODED: Final = len(CallRecord._fields) - 2
_LEFT_OFF: Final = {count: (None,) * (_ENCODED - count) for count in range(_LEAST, _ENCODED + 1)}  # by those not
_CONTEXT: Final = b"record"
_HASH_BYTES: Final = 17  # of `Sealer.lookup_hash`


class StoredRecord(NamedTuple):
    """An opened row: the record, its encoding, which the chain hashes, its link in the chain, its look-up hashes."""

    record: CallRecord
    encoded: bytes
    chain_seq: int
    chain_hash: bytes
    caller_hash: bytes
    callee_hash: bytes | None


def row_of(sealer: Sealer, record: CallRecord, audit: Head | None = None) -> tuple[Row, bytes]:
    """Return the row without its two chain columns, and the encoded record, which the chain hashes.

    `audit`: the head of the audit log, stored in the first record of a batch.
    """
    encoded = encode_record(record, audit)
    return (*_finding(sealer, record), sealer.seal(encoded, _CONTEXT)), encoded


def open_row(sealer: Sealer, row: Row) -> StoredRecord:
    """Open a row of `SELECT`. Raises StoreError naming the record if it was altered."""
    stored = open_written_row(sealer, row)
    # Recomputing the plain columns binds them to the sealed record.
    if row[:-3] != _finding(sealer, stored.record):
        call_id = stored.record.call_id
        raise StoreError(f"call record {call_id} was altered: its search columns do not match its content")
    return stored


def open_written_row(sealer: Sealer, row: Row) -> StoredRecord:
    """As `open_row`, but believe the journal that the search columns are those of the record: no hash is computed.

    Only for the follower, which reads each record once, soon after it was written. A change of a row is found by the
    watch and by `verify`.
    """
    call_id, *_, caller_hash, callee_hash, sealed, seq, link = row
    try:
        encoded = sealer.open_(sealed, _CONTEXT)
        record = decode_record(encoded)
    except StoreError:
        raise StoreError(f"call record {call_id} was altered") from None
    if record.call_id != call_id:  # another one's content would be followed twice
        raise StoreError(f"call record {call_id} was altered: it holds another record")
    if not _is_hash(caller_hash) or not (callee_hash is None or _is_hash(callee_hash)):
        raise StoreError(f"call record {call_id} was altered: its search columns do not match its content")
    if not isinstance(link, bytes):
        raise StoreError(f"call record {call_id} was altered: its link in the chain has another type")
    return tuple.__new__(StoredRecord, (record, encoded, seq, link, caller_hash, callee_hash))


def encode_record(record: CallRecord, audit: Head | None = None) -> bytes:
    """Encode a record, ended or not: a version byte, then msgpack."""
    callee_leg = record.callee_leg_call_id
    legs = (
        # Bytes of a peer's Call-ID that are not UTF-8 were decoded to surrogates.
        record.caller_leg_call_id.encode("utf-8", "surrogatepass"),
        None if callee_leg is None else callee_leg.encode("utf-8", "surrogatepass"),
    )
    fields = list(record)
    del fields[_LEGS : _LEGS + 2]
    while fields[-1] is None and len(fields) > _LEAST:
        del fields[-1]
    return _VERSION + _encode((fields, *legs) if audit is None else (fields, *legs, *audit))


def decode_record(encoded: bytes) -> CallRecord:
    """Decode the result of `encode_record`. Raises StoreError for anything else."""
    try:
        fields, caller_leg, callee_leg, *_ = _decode(encoded.removeprefix(_VERSION))
        if len(fields) < _LEAST:
            raise ValueError
        legs = (_text(caller_leg), None if callee_leg is None else _text(callee_leg))
        values = (*fields[:_LEGS], *legs, *fields[_LEGS:], *_LEFT_OFF[len(fields)])
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError, LookupError):
        raise StoreError("a call record cannot be read") from None
    return tuple.__new__(CallRecord, values)  # half the instructions of `_make`, which is not compiled


def anchor_of(encoded: bytes) -> Head:
    """The head of the audit log when the record was written; EMPTY if the record holds none."""
    audit = _decode(encoded.removeprefix(_VERSION))[3:]
    return Head(*audit) if audit else EMPTY


def insert(connection: Connection, statement: str, rows: Sequence[Row], end: str = "") -> None:
    """Execute `statement` (up to VALUES) with rows of equal length, in order; `end` follows the rows.

    `executemany` would release and take the GIL for each row, at the cost of two context switches.
    """
    for start in range(0, len(rows), MOST_ROWS):
        part = rows[start : start + MOST_ROWS]
        connection.execute(_with_values(statement, len(part[0]), len(part), end), list(chain.from_iterable(part)))


@cache
def _with_values(statement: str, columns: int, rows: int, end: str) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{statement} {', '.join([row] * rows)} {end}"


def _finding(sealer: Sealer, record: CallRecord) -> Row:
    """The search columns of a record. 700 numbers are plain; others are keyed hashes or absent."""
    dialled, shown, callee = record.number_dialled, record.number_shown, record.callee
    plain = is_700(dialled)
    return (
        record.call_id,
        dialled if plain else None,
        shown if shown is not None and is_700(shown) else None,
        record.received_at,
        record.ended_at,
        None if plain else sealer.lookup_hash(dialled),
        sealer.lookup_hash(record.caller),
        None if callee is None else sealer.lookup_hash(callee),
    )


def _is_hash(value: object) -> bool:
    """Whether the value may be a look-up hash: a file can be made to hold values of any type."""
    return isinstance(value, bytes) and len(value) == _HASH_BYTES


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogatepass")
