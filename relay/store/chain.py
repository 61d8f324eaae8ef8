"""The chain of call records: each ended record carries a keyed hash over itself and its predecessor.

What it shows (`verify`, with the key): a record changed, removed, inserted or moved, and an end cut off. What it cannot
show: a live record removed, or the whole file put back as it was at an earlier time. Against the latter note the head
that `verify` prints somewhere else.
"""

from __future__ import annotations

import hmac
import sqlite3
from typing import Any, NamedTuple

from relay.errors import StoreError
from relay.store.sealing import Sealer

SELECT_HEAD = "SELECT seq, hash, mac, EXISTS (SELECT 1 FROM call_record WHERE chain_seq > seq) FROM chain_head"
SELECT_ANY_LINK = "SELECT EXISTS (SELECT 1 FROM call_record)"
UPDATE_HEAD = (
    "INSERT INTO chain_head VALUES (1, ?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET seq = ?1, hash = ?2, mac = ?3"
)
BROKEN_HEAD = "the head of the chain of call records was altered or removed"
HeadRow = tuple[int, bytes, bytes]  # seq, hash, mac


class Head(NamedTuple):
    """The last link: its place, counted from 1, and its hash. A chain without links has `EMPTY`."""

    seq: int
    hash: bytes


EMPTY = Head(0, b"")


def next_link(sealer: Sealer, head: Head, encoded: bytes) -> Head:
    """The link that an encoded record makes behind `head`."""
    return Head(head.seq + 1, sealer.chain_hash(head.hash, encoded))


def head_row(sealer: Sealer, head: Head) -> HeadRow:
    """The parameters of UPDATE_HEAD."""
    return (head.seq, head.hash, _mac(sealer, head))


def read_head(connection: sqlite3.Connection, sealer: Sealer) -> Head:
    """The stored head. Raises StoreError where it is missing, forged, or older than the records."""
    row: tuple[Any, ...] | None = connection.execute(SELECT_HEAD).fetchone()
    if row is None:
        if connection.execute(SELECT_ANY_LINK).fetchone() != (0,):
            raise StoreError(BROKEN_HEAD)
        return EMPTY
    head = Head(row[0], row[1])
    if row[3] or not hmac.compare_digest(row[2], _mac(sealer, head)):
        raise StoreError(BROKEN_HEAD)
    return head


def _mac(sealer: Sealer, head: Head) -> bytes:
    return sealer.chain_hash(b"head", f"{head.seq} ".encode() + head.hash)
