"""The index of ended calls: searches find call records by it, and frequency caps over hours count in it.

Owns the table `record_index` and its keys. The follower writes rows in the order of the chain, some seconds after the
records (`relay.events.call_index`). `relay.store.records` searches them, and reads the records behind their cursor; the
look-up counts in them.

A row is (key, received_at, chain_seq). A key is a signed number of 64 bits:

    00, 40 bits of a 700 number, 22 bits    number_key, beside_key
    01, 62 bits of a keyed hash             number_key of a number dialled that is no 700 number
    10, 62 bits of a keyed hash             beside_key of such a number; order_key, business_key
    11, 60 bits of a call_id                call_key

A pair_key has the first 26 bits of its number_key, and 38 that also depend on the caller. So the rows of one number lie
together, as do those of one time: a call writes to few pages. Hashes are keyed: without the key file no real number
can be read from a key, or tried. Should two things ever have one key, a search ends in an error instead of another's
records, and a cap counts one call too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

from relay.model.numbers import is_700
from relay.store.connection import Connection
from relay.store.record_rows import StoredRecord, insert
from relay.store.sealing.sealer import Sealer

IndexRow = tuple[int, int, int]  # key, at, record

DELETE: Final = "DELETE FROM record_index WHERE key = ? AND at = ? AND record = ?"
_INSERT: Final = "INSERT INTO record_index (key, at, record) VALUES"

# Rows of `cursor`: the chain_seq of the last record that is indexed, and of the last that is followed.
CURSOR: Final = "record_index"
FOLLOWED: Final = "followed"
SET_CURSOR: Final = "INSERT INTO cursor (name, at) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET at = ?2"
SELECT_CURSOR: Final = f"SELECT coalesce((SELECT at FROM cursor WHERE name = '{CURSOR}'), 0)"

_READ_CURSOR: Final = "SELECT coalesce((SELECT at FROM cursor WHERE name = ?1), ?2)"
_FOLLOWED: Final = f"SELECT coalesce((SELECT at FROM cursor WHERE name = '{FOLLOWED}'), 0)"

_BESIDE: Final = (1 << 22) - 1  # last bits of beside_key; those of number_key are 0
_SPREAD: Final = 0x9E3779B97F  # odd: a product modulo 2^40 is another for each number
_38_BITS: Final = (1 << 38) - 1
_40_BITS: Final = (1 << 40) - 1
_60_BITS: Final = (1 << 60) - 1
_NO_700: Final = 1 << 62
_HASHED: Final = -(1 << 63)
_CALLS: Final = -(1 << 62)

_unpack_64_bits: Final = Struct(">Q").unpack_from


def number_key(sealer: Sealer, number: str) -> int:
    """A granted call to this number (frequency caps, searches)."""
    if is_700(number):
        return _key_of_700(number)
    return _NO_700 + _62_bits(sealer.lookup_hash(number))


def pair_key(number_key: int, caller_hash: bytes) -> int:
    """A granted call of this caller to the number (frequency caps)."""
    last = number_key + int.from_bytes(caller_hash[-5:])
    return number_key - (number_key & _38_BITS) + (last & _38_BITS)


def beside_key(sealer: Sealer, number: str) -> int:
    """Any other role of a 700 number or a party in a record (searches)."""
    return _beside_key(number, b"" if is_700(number) else sealer.lookup_hash(number))


def order_key(sealer: Sealer, order_id: str) -> int:
    return _HASHED + _62_bits(sealer.lookup_hash(f"order {order_id}"))


@lru_cache(maxsize=256)
def business_key(sealer: Sealer, business: str) -> int:
    return _HASHED + _62_bits(sealer.lookup_hash(f"business {business}"))


def call_key(call_id: str) -> int:
    """A record by its id. Others may have the key, too: a search compares the id."""
    try:
        return _CALLS + (int(call_id[:15], 16) & _60_BITS)
    except ValueError:
        return _CALLS  # not the id of a record


def index_rows(sealer: Sealer, stored: StoredRecord) -> list[IndexRow]:
    """All index rows of one record. One may be there twice: `add_index` ignores the second."""
    record, dialled = stored.record, stored.record.number_dialled
    keys = [call_key(record.call_id)]
    if record.is_granted:
        key = number_key(sealer, dialled)
        keys += (key, pair_key(key, stored.caller_hash))
    else:
        keys.append(beside_key(sealer, dialled))
    if record.number_shown and record.number_shown != dialled:
        keys.append(beside_key(sealer, record.number_shown))
    if record.caller and record.caller != dialled:
        keys.append(_beside_key(record.caller, stored.caller_hash))
    if record.callee and record.callee != dialled and stored.callee_hash:
        keys.append(_beside_key(record.callee, stored.callee_hash))
    if record.order_id:
        keys.append(order_key(sealer, record.order_id))
    if record.business:
        keys.append(business_key(sealer, record.business))
    at, seq = record.received_at, stored.chain_seq
    return [(key, at, seq) for key in keys]


def read_cursor(connection: Connection, name: str, default: int) -> int:
    """The value of a row of `cursor`; `default` if there is none."""
    (at,) = connection.execute(_READ_CURSOR, (name, default)).fetchone()
    return int(at)


def followed(connection: Connection) -> int:
    """The chain_seq of the last record that is followed."""
    (at,) = connection.execute(_FOLLOWED).fetchone()
    return int(at)


def add_index(connection: Connection, rows: Sequence[IndexRow]) -> None:
    """Add rows. Existing ones are ignored."""
    insert(connection, _INSERT, rows, "ON CONFLICT DO NOTHING")


def _key_of_700(number: str) -> int:
    return (int(number[3:]) * _SPREAD & _40_BITS) << 22


def _beside_key(number: str, lookup_hash: bytes) -> int:
    return _key_of_700(number) + _BESIDE if is_700(number) else _HASHED + _62_bits(lookup_hash)


def _62_bits(lookup_hash: bytes) -> int:
    (bits,) = _unpack_64_bits(lookup_hash, 1)
    return int(bits) >> 2
