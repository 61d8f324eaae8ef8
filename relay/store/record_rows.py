"""The row of an ended call in the table `call_record`, and its rows in the index of calls.

Owns the columns and the encoding of the record, which is sealed, beside the columns for searches; and the keys of the
index, for searches of records and for the counts of frequency caps. Calls that are up, transactions, the order of the
chain and queries are in the neighbouring modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
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
_CONTEXT: Final = b"record"


class StoredRecord(NamedTuple):
    """An opened row: the record, its encoding, which the chain hashes, and its link in the chain."""

    record: CallRecord
    encoded: bytes
    chain_seq: int
    chain_hash: bytes


def row_of(sealer: Sealer, record: CallRecord, audit: Head | None = None) -> tuple[Row, bytes]:
    """Return the row without its two chain columns, and the encoded record, which the chain hashes.

    `audit`: the head of the audit log, stored in the first record of a batch.
    """
    encoded = encode_record(record, audit)
    return (*_finding(sealer, record), sealer.seal(encoded, _CONTEXT)), encoded


def open_row(sealer: Sealer, row: Row) -> StoredRecord:
    """Open a row of `SELECT`. Raises StoreError naming the record if it was altered."""
    *finding, sealed, seq, link = row
    try:
        encoded = sealer.open_(sealed, _CONTEXT)
        record = decode_record(encoded)
    except StoreError:
        raise StoreError(f"call record {finding[0]} was altered") from None
    # Recomputing the plain columns binds them to the sealed record.
    if tuple(finding) != _finding(sealer, record):
        raise StoreError(f"call record {finding[0]} was altered: its search columns do not match its content")
    return StoredRecord(record, encoded, seq, link)


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
        if len(fields) >= _LEAST:
            fields += [None] * (len(CallRecord._fields) - 2 - len(fields))  # those left off the end
        fields[_LEGS:_LEGS] = (_text(caller_leg), None if callee_leg is None else _text(callee_leg))
        return CallRecord._make(fields)
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):
        raise StoreError("a call record cannot be read") from None


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


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


# -- The index of ended calls
#
# The follower writes its rows, in the order of the chain, some seconds after the records (`relay.events.call_index`).
# `relay.store.records` searches it, and reads the records behind its cursor; the look-up counts in it. A row is (key,
# received_at, chain_seq). Keys are look-up hashes of
#     "NUMBER CALLER"     pair_key: a granted call of this caller to this number (frequency caps)
#     "NUMBER"            number_key: a granted call to this number (frequency caps, searches)
#     "beside NUMBER"     beside_key: any other role of a 700 number or a party in a record (searches)
#     "call CALL_ID", "order ORDER_ID", "business ID"    searches

# Rows of `cursor`: the chain_seq of the last record that is indexed, and of the last that is followed. A relay of an
# earlier version knows only the first, goes on from there, and counts some calls again after a kill.
INDEX_CURSOR = "call_record"
FOLLOWED = "followed"
INSERT_INDEX = "INSERT INTO call_index (key, at, record) VALUES"
DELETE_INDEX = "DELETE FROM call_index WHERE key = ? AND at = ? AND record = ?"
SET_CURSOR = "INSERT INTO cursor (name, at) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET at = ?2"
SELECT_INDEX_CURSOR = "SELECT coalesce((SELECT at FROM cursor WHERE name = 'call_record'), 0)"

IndexRow = tuple[bytes, int, int]  # key, at, record


def pair_key(sealer: Sealer, number: str, caller: str) -> bytes:
    return sealer.lookup_hash(f"{number} {caller}")


def number_key(sealer: Sealer, number: str) -> bytes:
    return sealer.lookup_hash(number)


def beside_key(sealer: Sealer, number: str) -> bytes:
    return sealer.lookup_hash(f"beside {number}")


def call_key(sealer: Sealer, call_id: str) -> bytes:
    return sealer.lookup_hash(f"call {call_id}")


def order_key(sealer: Sealer, order_id: str) -> bytes:
    return sealer.lookup_hash(f"order {order_id}")


@lru_cache(maxsize=256)
def business_key(sealer: Sealer, business: str) -> bytes:
    return sealer.lookup_hash(f"business {business}")


def add_index(connection: Connection, rows: Sequence[IndexRow]) -> None:
    """Add rows of the index. Those that are there are ignored."""
    insert(connection, INSERT_INDEX, rows, "ON CONFLICT DO NOTHING")


def index_rows(sealer: Sealer, record: CallRecord, chain_seq: int) -> list[IndexRow]:
    """All index rows of one record."""
    number, caller = record.number_dialled, record.caller
    parts = {part for part in (number, record.number_shown, caller, record.callee) if part}
    keys = [call_key(sealer, record.call_id)]
    if record.routed_at is not None:
        keys += (pair_key(sealer, number, caller), number_key(sealer, number))
        parts.discard(number)
    keys += (beside_key(sealer, part) for part in parts)
    if record.order_id:
        keys.append(order_key(sealer, record.order_id))
    if record.business:
        keys.append(business_key(sealer, record.business))
    return [(key, record.received_at, chain_seq) for key in keys]
