"""How the record of an ended call is laid out in the table `call_record`: sealed whole, beside what finds it.

It owns the columns and the encoding. Calls that are up, transactions, the chain's order and queries are in the modules
beside it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import chain, repeat
from typing import Any, Final, NamedTuple

import msgspec

from relay.call.numbers import is_700
from relay.call.record import CallRecord
from relay.errors import StoreError
from relay.store.chain import EMPTY, Head
from relay.store.connection import Connection
from relay.store.sealing import Sealer

Row = tuple[Any, ...]

_FINDING: Final = (
    *("call_id", "number_dialled", "number_shown", "received_at", "ended_at"),
    *("dialled_hash", "caller_hash", "callee_hash"),
)
COLUMNS: Final = (*_FINDING, "sealed", "chain_seq", "chain_hash")

INSERT: Final = f"INSERT INTO call_record ({', '.join(COLUMNS)}) VALUES"
SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM call_record"
MOST_ROWS: Final = 32  # of one statement: each size is a statement of its own that SQLite keeps prepared

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[Any, ...]).decode
# The two legs' Call-IDs, which may be no UTF-8, stand apart.
_LEGS: Final = CallRecord._fields.index("caller_leg_call_id")
_VERSION: Final = b"\x05"
# Without the legs' two. What was added to the form since is left out of its end where it is None, as a relay of the
# version before writes and reads it.
_LEAST: Final = CallRecord._fields.index("recording") - 1
_CONTEXT: Final = b"record"


class StoredRecord(NamedTuple):
    """A row, opened: the record, its encoding as the chain hashes it, and its link in the chain."""

    record: CallRecord
    encoded: bytes
    chain_seq: int
    chain_hash: bytes


def row_of(sealer: Sealer, record: CallRecord, audit: Head | None = None) -> tuple[Row, bytes]:
    """The row without its two chain columns, and the encoded record, which the chain hashes.

    `audit`: where the audit log ended, for the first record of a batch to hold.
    """
    encoded = encode_record(record, audit)
    return (*_finding(sealer, record), sealer.seal(encoded, _CONTEXT)), encoded


def open_row(sealer: Sealer, row: Row) -> StoredRecord:
    """Reads a row of `SELECT`. Raises StoreError naming the record where it was altered."""
    *finding, sealed, seq, link = row
    try:
        encoded = sealer.open_(sealed, _CONTEXT)
        record = decode_record(encoded)
    except StoreError:
        raise StoreError(f"call record {finding[0]} was altered") from None
    # This binds the columns to what is sealed: each is worked out anew.
    if tuple(finding) != _finding(sealer, record):
        raise StoreError(f"call record {finding[0]} was altered: it would be found by what is not its own")
    return StoredRecord(record, encoded, seq, link)


def encode_record(record: CallRecord, audit: Head | None = None) -> bytes:
    """A record, ended or not, as bytes: the version of this form, then msgpack."""
    callee_leg = record.callee_leg_call_id
    legs = (
        # A peer's Call-ID may hold bytes that are no UTF-8, which came in as surrogates.
        record.caller_leg_call_id.encode("utf-8", "surrogatepass"),
        None if callee_leg is None else callee_leg.encode("utf-8", "surrogatepass"),
    )
    fields = list(record)
    del fields[_LEGS : _LEGS + 2]
    while fields[-1] is None and len(fields) > _LEAST:
        del fields[-1]
    return _VERSION + _encode((fields, *legs) if audit is None else (fields, *legs, *audit))


def decode_record(encoded: bytes) -> CallRecord:
    """What `encode_record` made. Raises StoreError where it did not."""
    try:
        fields, caller_leg, callee_leg, *_ = _decode(encoded.removeprefix(_VERSION))
        legs = (_text(caller_leg), None if callee_leg is None else _text(callee_leg))
        return CallRecord._make((*fields[:_LEGS], *legs, *fields[_LEGS:], *_left_out(len(fields))))
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError):
        raise StoreError("a call record cannot be read") from None


def anchor_of(encoded: bytes) -> Head:
    """Where the audit log ended when an encoded record was written; EMPTY where it does not say."""
    audit = _decode(encoded.removeprefix(_VERSION))[3:]
    return Head(*audit) if audit else EMPTY


def _left_out(found: int) -> Iterable[None]:
    """What a record of so many fields, without the legs' two, lacks at its end; nothing where it is no record."""
    return repeat(None, len(CallRecord._fields) - 2 - found) if found >= _LEAST else ()


def insert(connection: Connection, statement: str, rows: list[Row]) -> None:
    """Executes `statement` (up to VALUES) with rows of one length, in their order.

    `executemany` would take and give the interpreter's lock for each row, a context switch of both threads each time.
    """
    for start in range(0, len(rows), MOST_ROWS):
        part = rows[start : start + MOST_ROWS]
        connection.execute(_with_values(statement, len(part[0]), len(part)), list(chain.from_iterable(part)))


@cache
def _with_values(statement: str, columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"{statement} {', '.join([row] * rows)}"


def ended_since(connection: Connection, seq: int) -> set[str]:
    """The ids of the calls whose records stand in the chain behind that place."""
    rows = connection.execute("SELECT call_id FROM call_record WHERE chain_seq > ?", (seq,))
    return {call_id for (call_id,) in rows.fetchall()}


def _finding(sealer: Sealer, record: CallRecord) -> Row:
    """The columns that find a record. 700 numbers are plain, others are keyed hashes or not there."""
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
