"""The chain of call records: each ended record carries a keyed hash over itself and its predecessor.

The oldest records go when their time is over: a checkpoint then keeps the last link that went, and the chain is
verified from there on. The audit log is chained alike (`relay.store.audit`), with a checkpoint of its own.

What it shows (`verify`, with the key): a record changed, removed, inserted or moved, and an end cut off. What it cannot
show: a live record removed, or the whole file put back as it was at an earlier time. Against the latter note the head
that `verify` prints somewhere else.
"""

from __future__ import annotations

import hmac
import sqlite3
from typing import Any, Literal, NamedTuple

from relay.errors import StoreError
from relay.store.sealing import Sealer

SELECT_HEAD = "SELECT seq, hash, mac, EXISTS (SELECT 1 FROM call_record WHERE chain_seq > seq) FROM chain_head"
SELECT_ANY_LINK = "SELECT EXISTS (SELECT 1 FROM call_record)"
SELECT_CHECKPOINT = "SELECT seq, hash, mac FROM checkpoint WHERE chain = ?"
UPDATE_CHECKPOINT = (
    "INSERT INTO checkpoint (chain, seq, hash, at, mac) VALUES (?1, ?2, ?3, ?4, ?5)"
    " ON CONFLICT (chain) DO UPDATE SET seq = ?2, hash = ?3, at = ?4, mac = ?5"
)
UPDATE_HEAD = (
    "INSERT INTO chain_head VALUES (1, ?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET seq = ?1, hash = ?2, mac = ?3"
)
BROKEN_HEAD = "the head of the chain of call records was altered or removed"
CHAINS = {"record": "call records", "audit": "the audit log"}
Chain = Literal["record", "audit"]
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
    """The stored head. Raises StoreError where it is missing, forged, or older than the records or the checkpoint."""
    purged = read_checkpoint(connection, sealer, "record")
    row: tuple[Any, ...] | None = connection.execute(SELECT_HEAD).fetchone()
    if row is None:
        if purged != EMPTY or connection.execute(SELECT_ANY_LINK).fetchone() != (0,):
            raise StoreError(BROKEN_HEAD)
        return EMPTY
    head = Head(row[0], row[1])
    if row[3] or head.seq < purged.seq or not hmac.compare_digest(row[2], _mac(sealer, head)):
        raise StoreError(BROKEN_HEAD)
    return head


def read_checkpoint(connection: sqlite3.Connection, sealer: Sealer, chain: Chain) -> Head:
    """The last link that was purged; EMPTY where none was. Raises StoreError where it is forged.

    One that was removed shows as links that are missing: the first that is left is not number 1.
    """
    row: tuple[Any, ...] | None = connection.execute(SELECT_CHECKPOINT, (chain,)).fetchone()
    if row is None:
        return EMPTY
    head = Head(row[0], row[1])
    if not hmac.compare_digest(row[2], _checkpoint_mac(sealer, chain, head)):
        raise StoreError(f"the checkpoint of {CHAINS[chain]} was altered")
    return head


def write_checkpoint(connection: sqlite3.Connection, sealer: Sealer, chain: Chain, head: Head, now_ms: int) -> None:
    """`head` is the last link that goes in the same transaction."""
    connection.execute(UPDATE_CHECKPOINT, (chain, *head, now_ms, _checkpoint_mac(sealer, chain, head)))


def _mac(sealer: Sealer, head: Head) -> bytes:
    return sealer.chain_hash(b"head", f"{head.seq} ".encode() + head.hash)


def _checkpoint_mac(sealer: Sealer, chain: Chain, head: Head) -> bytes:
    return sealer.chain_hash(b"checkpoint", f"{chain} {head.seq} ".encode() + head.hash)
