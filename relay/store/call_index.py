"""The index of ended calls: keyed hashes, for searches of records and for the counts of frequency caps.

Owns the keys. The follower writes the rows, in the order of the chain, together with its cursor.
`relay.store.record_pages` searches the index, `relay.store.lookup` counts in it.

A row is (key, received_at, chain_seq). Keys are look-up hashes of
    "NUMBER CALLER"     pair_key: a granted call of this caller to this number (frequency caps)
    "NUMBER"            number_key: a granted call to this number (frequency caps, searches)
    "beside NUMBER"     beside_key: any other role of a 700 number or a party in a record (searches)
    "call CALL_ID", "order ORDER_ID", "business ID"    searches
"""

from __future__ import annotations

from relay.model.call import CallRecord
from relay.store.sealing import Sealer

CURSOR = "call_record"  # the row of `cursor` with the chain_seq of the last indexed record
ADD = "INSERT INTO call_index (key, at, record) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
DELETE = "DELETE FROM call_index WHERE key = ? AND at = ? AND record = ?"
SELECT_CURSOR = "SELECT coalesce((SELECT at FROM cursor WHERE name = 'call_record'), 0)"

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


def business_key(sealer: Sealer, business: str) -> bytes:
    return sealer.lookup_hash(f"business {business}")


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
