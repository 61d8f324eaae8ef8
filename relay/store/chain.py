"""The chains of call records and of the audit log: each link carries a keyed hash over itself and its predecessor.

The oldest links go when their time is over: a checkpoint then keeps the last one that went, and the chain is verified
from there on.

What it shows (`verify`, with the key): a record changed, removed, inserted or moved, and an end cut off. What it cannot
show: a live record removed, or the whole file put back as it was at an earlier time. Against the latter note the head
that `verify` prints somewhere else.
"""

from __future__ import annotations

import hmac
from typing import Any, Final, NamedTuple

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.sealing import Sealer

SELECT_CHECKPOINT: Final = "SELECT seq, hash, mac FROM checkpoint WHERE chain = ?"
UPDATE_CHECKPOINT: Final = (
    "INSERT INTO checkpoint (chain, seq, hash, at, mac) VALUES (?1, ?2, ?3, ?4, ?5)"
    " ON CONFLICT (chain) DO UPDATE SET seq = ?2, hash = ?3, at = ?4, mac = ?5"
)
HeadRow = tuple[int, bytes, bytes]  # seq, hash, mac


class Chain(NamedTuple):
    """One of the two: where its links and its head stand."""

    name: str  # of its checkpoint
    words: str  # for people
    table: str
    seq: str  # the column of a link's place in it
    head_table: str
    head_salt: bytes  # of the head's MAC


RECORDS: Final = Chain("record", "the chain of call records", "call_record", "chain_seq", "chain_head", b"head")
AUDIT: Final = Chain("audit", "the audit log", "audit", "seq", "audit_head", b"audit head")


class Head(NamedTuple):
    """The last link: its place, counted from 1, and its hash. A chain without links has `EMPTY`."""

    seq: int
    hash: bytes


EMPTY: Final = Head(0, b"")


def next_link(sealer: Sealer, head: Head, encoded: bytes, like: bytes = b"") -> Head:
    """The link that an encoded record or entry makes behind `head`; `like`: its stored hash, to be compared with."""
    return Head(head.seq + 1, sealer.chain_hash(head.hash, encoded, like))


def write_head(connection: Connection, chain: Chain, row: HeadRow) -> None:
    """`row` as `head_row` gives it, in the transaction that adds its link."""
    connection.execute(
        f"INSERT INTO {chain.head_table} (id, seq, hash, mac) VALUES (1, ?1, ?2, ?3)"
        " ON CONFLICT (id) DO UPDATE SET seq = ?1, hash = ?2, mac = ?3",
        row,
    )


def head_row(sealer: Sealer, chain: Chain, head: Head) -> HeadRow:
    return (head.seq, head.hash, _mac(sealer, chain, head))


def read_head(connection: Connection, sealer: Sealer, chain: Chain) -> Head:
    """The stored head. Raises StoreError where it is missing, forged, or older than the links or the checkpoint."""
    purged = read_checkpoint(connection, sealer, chain)
    last = f"SELECT coalesce(max({chain.seq}), 0) FROM {chain.table}"
    row: tuple[Any, ...] | None = connection.execute(
        f"SELECT seq, hash, mac, ({last}) FROM {chain.head_table}"
    ).fetchone()
    if row is None:
        if purged != EMPTY or connection.execute(last).fetchone() != (0,):
            raise StoreError(_broken_head(chain))
        return EMPTY
    head = Head(row[0], row[1])
    if head.seq < max(row[3], purged.seq):
        raise StoreError(_broken_head(chain))
    return checked_head(sealer, chain, (*head, row[2]))


def checked_head(sealer: Sealer, chain: Chain, row: HeadRow) -> Head:
    """Of a row as `head_row` gives it. Raises StoreError where it is forged."""
    head = Head(row[0], row[1])
    if not hmac.compare_digest(row[2], _mac(sealer, chain, head, row[2])):
        raise StoreError(_broken_head(chain))
    return head


def read_checkpoint(connection: Connection, sealer: Sealer, chain: Chain) -> Head:
    """The last link that was purged; EMPTY where none was. Raises StoreError where it is forged.

    One that was removed shows as links that are missing: the first that is left is not number 1.
    """
    row: tuple[Any, ...] | None = connection.execute(SELECT_CHECKPOINT, (chain.name,)).fetchone()
    if row is None:
        return EMPTY
    head = Head(row[0], row[1])
    if not hmac.compare_digest(row[2], _checkpoint_mac(sealer, chain, head, row[2])):
        raise StoreError(f"the checkpoint of {chain.words} was altered")
    return head


def write_checkpoint(connection: Connection, sealer: Sealer, chain: Chain, head: Head, now_ms: int) -> None:
    """`head` is the last link that goes in the same transaction."""
    mac = _checkpoint_mac(sealer, chain, head)
    connection.execute(UPDATE_CHECKPOINT, (chain.name, *head, now_ms, mac))


def reseal_head(connection: Connection, sealer: Sealer, chain: Chain) -> None:
    """Has the MACs of the head and of the checkpoint made anew with the key in use. Raises StoreError for a forged one.

    Within the caller's transaction; a head that was moved on meanwhile stays as it was.
    """
    row = connection.execute(f"SELECT seq, hash, mac FROM {chain.head_table}").fetchone()
    if row is not None:
        mac = _mac(sealer, chain, checked_head(sealer, chain, row))
        connection.execute(f"UPDATE {chain.head_table} SET mac = ? WHERE mac = ?", (mac, row[2]))
    if (purged := read_checkpoint(connection, sealer, chain)) != EMPTY:
        mac = _checkpoint_mac(sealer, chain, purged)
        connection.execute("UPDATE checkpoint SET mac = ? WHERE chain = ?", (mac, chain.name))


def _broken_head(chain: Chain) -> str:
    return f"the head of {chain.words} was altered or removed"


def _mac(sealer: Sealer, chain: Chain, head: Head, like: bytes = b"") -> bytes:
    return sealer.chain_hash(chain.head_salt, f"{head.seq} ".encode() + head.hash, like)


def _checkpoint_mac(sealer: Sealer, chain: Chain, head: Head, like: bytes = b"") -> bytes:
    return sealer.chain_hash(b"checkpoint", f"{chain.name} {head.seq} ".encode() + head.hash, like)
