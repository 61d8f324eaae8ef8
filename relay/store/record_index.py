"""The index of ended calls: what call records are found by, and what frequency caps over hours count.

Owns the table `record_index` and its keys. The follower writes rows in the order of the chain, some seconds after the
records (`relay.events.call_index`). `relay.store.records` searches them, and reads the records behind their cursor; the
look-up counts in them.

A row is (key, received_at, chain_seq). A key is a signed number of 64 bits:

    0, 40 bits of a 700 number, 22 bits    number_key, pair_keys, beside_key: by the last bits
    01, 40 bits of a hash, 22 bits         the same of a number dialled that is no 700 number
    10, 62 bits of a keyed hash            beside_key of any other number; order_key, business_key
    11, 60 bits of a call_id               call_key

The rows of one number are on one page, those of one time too, so that a call writes to few pages. Hashes are keyed:
without the key file no real number can be read from a key, or tried. Two things with one key are not expected within
the life of a store, but change little: a search ends in an error instead of the records of another number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from relay.model.numbers import is_700
from relay.store.connection import Connection
from relay.store.record_rows import StoredRecord, insert
from relay.store.sealing.sealer import Sealer

IndexRow = tuple[int, int, int]  # key, at, record

DELETE: Final = "DELETE FROM record_index WHERE key = ? AND at = ? AND record = ?"
_INSERT: Final = "INSERT INTO record_index (key, at, record) VALUES"

# Rows of `cursor`: the chain_seq of the last record that is indexed, of the last that is followed, and of the last that
# the previous version, which uses another table, has indexed and may have followed.
CURSOR: Final = "record_index"
FOLLOWED: Final = "followed"
PREVIOUS_CURSOR: Final = "call_record"
SET_CURSOR: Final = "INSERT INTO cursor (name, at) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET at = ?2"
SELECT_CURSOR: Final = f"SELECT coalesce((SELECT at FROM cursor WHERE name = '{CURSOR}'), 0)"

_FOLLOWED: Final = f"SELECT coalesce(max(at), 0) FROM cursor WHERE name IN ('{FOLLOWED}', '{PREVIOUS_CURSOR}')"

_LOW_BITS: Final = 22
_BESIDE: Final = (1 << _LOW_BITS) - 1  # low bits of beside_key; those of number_key are 0
_SPREAD: Final = 0x9E3779B97F  # odd: a product modulo 2^40 is another for each number
_40_BITS: Final = (1 << 40) - 1
_60_BITS: Final = (1 << 60) - 1
_NO_700: Final = 1 << 62
_HASHED: Final = -(1 << 63)
_CALLS: Final = -(1 << 62)


def number_key(sealer: Sealer, number: str) -> int:
    """A granted call to this number (frequency caps, searches)."""
    if is_700(number):
        return _key_of_700(number)
    return _NO_700 + (int.from_bytes(sealer.lookup_hash(number)[1:6]) << _LOW_BITS)


def pair_key(number_key: int, caller_hash: bytes) -> int:
    """A granted call of this caller to the number (frequency caps)."""
    return number_key + 1 + int.from_bytes(caller_hash[-3:]) % (_BESIDE - 1)


def beside_key(sealer: Sealer, number: str) -> int:
    """Any other role of a 700 number or a party in a record (searches)."""
    return _beside_key(number, b"" if is_700(number) else sealer.lookup_hash(number))


def order_key(sealer: Sealer, order_id: str) -> int:
    return _key_of_hash(sealer.lookup_hash(f"order {order_id}"))


@lru_cache(maxsize=256)
def business_key(sealer: Sealer, business: str) -> int:
    return _key_of_hash(sealer.lookup_hash(f"business {business}"))


def call_key(call_id: str) -> int:
    """A record by its id. Others may have the key, too: a search compares the id."""
    try:
        return _CALLS + (int(call_id[:15], 16) & _60_BITS)
    except ValueError:
        return _CALLS  # not the id of a record


def index_rows(sealer: Sealer, stored: StoredRecord) -> list[IndexRow]:
    """All index rows of one record."""
    record, dialled = stored.record, stored.record.number_dialled
    keys = {call_key(record.call_id)}
    if record.routed_at is None:
        keys.add(beside_key(sealer, dialled))
    else:
        key = number_key(sealer, dialled)
        keys.update((key, pair_key(key, stored.caller_hash)))
    if record.number_shown and record.number_shown != dialled:
        keys.add(beside_key(sealer, record.number_shown))
    if record.caller:
        keys.add(_beside_key(record.caller, stored.caller_hash))
    if record.callee and stored.callee_hash:
        keys.add(_beside_key(record.callee, stored.callee_hash))
    if record.order_id:
        keys.add(order_key(sealer, record.order_id))
    if record.business:
        keys.add(business_key(sealer, record.business))
    return [(key, record.received_at, stored.chain_seq) for key in keys]


def followed(connection: Connection) -> int:
    """The chain_seq of the last record that is followed."""
    (at,) = connection.execute(_FOLLOWED).fetchone()
    return int(at)


def add_index(connection: Connection, rows: Sequence[IndexRow]) -> None:
    """Add rows. Those that are there are ignored."""
    insert(connection, _INSERT, rows, "ON CONFLICT DO NOTHING")


def _key_of_700(number: str) -> int:
    return (int(number[3:]) * _SPREAD & _40_BITS) << _LOW_BITS


def _key_of_hash(lookup_hash: bytes) -> int:
    return _HASHED + (int.from_bytes(lookup_hash[1:9]) >> 2)


def _beside_key(number: str, lookup_hash: bytes) -> int:
    return _key_of_700(number) + _BESIDE if is_700(number) else _key_of_hash(lookup_hash)
