"""The chains of call records and of the audit log: each link carries a keyed hash over itself and its predecessor.

The oldest links go when their time is over: a checkpoint (`relay.store.checkpoints`) then keeps the last one that went,
and the chain is verified from there on.

What it shows with the key: a record changed, removed, inserted or moved. Each chain also holds where the other one
ended when a link was added, so that an end that was cut off shows too. What it cannot show: a live record removed.
"""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.sealing import Sealer

HeadRow = tuple[int, bytes, bytes]  # seq, hash, mac


class Chain(NamedTuple):
    """One of the two: where its links and its head stand."""

    name: str  # of its checkpoint
    words: str  # for people
    table: str
    seq: str  # the column of a link's place in it
    hash: str  # the column of its hash
    head_table: str
    head_salt: bytes  # of the head's MAC


RECORDS: Final = Chain(
    "record", "the chain of call records", "call_record", "chain_seq", "chain_hash", "chain_head", b"head"
)
AUDIT: Final = Chain("audit", "the audit log", "audit", "seq", "hash", "audit_head", b"audit head")


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
    last, purged = connection.execute(
        f"SELECT coalesce(max({chain.seq}), 0), coalesce((SELECT seq FROM checkpoint WHERE chain = ?), 0)"
        f" FROM {chain.table}",
        (chain.name,),
    ).fetchone()
    row = connection.execute(f"SELECT seq, hash, mac FROM {chain.head_table}").fetchone()
    if row is None and not last and not purged:
        return EMPTY
    if row is None or row[0] < max(last, purged):
        raise StoreError(_broken_head(chain))
    return checked_head(sealer, chain, row)


def stored_head(connection: Connection, chain: Chain) -> Head:
    """The head as it stands there, for who does not go by it; EMPTY where there is none."""
    row = connection.execute(f"SELECT seq, hash FROM {chain.head_table}").fetchone()
    return EMPTY if row is None else Head(*row)


def checked_head(sealer: Sealer, chain: Chain, row: HeadRow) -> Head:
    """Of a row as `head_row` gives it. Raises StoreError where it is forged."""
    head = Head(row[0], row[1])
    if not hmac.compare_digest(row[2], _mac(sealer, chain, head, row[2])):
        raise StoreError(_broken_head(chain))
    return head


def anchor_fault(connection: Connection, chain: Chain, anchor: Head, holder: str) -> str | None:
    """What is wrong where this chain once ended with `anchor`; `holder` says when, as "when record 5 was written"."""
    if anchor == EMPTY:
        return None
    row = connection.execute(
        f"SELECT (SELECT {chain.hash} FROM {chain.table} WHERE {chain.seq} = ?1),"
        " coalesce((SELECT seq FROM checkpoint WHERE chain = ?2), 0)",
        (anchor.seq, chain.name),
    ).fetchone()
    if row[0] == anchor.hash or (row[0] is None and anchor.seq <= row[1]):
        return None
    now = "none" if row[0] is None else "another"
    return f"{chain.words} had the link {anchor.seq} {holder}, and has {now} now"


def reseal_head(connection: Connection, sealer: Sealer, chain: Chain) -> None:
    """Has the head's MAC made anew with the key in use. Raises StoreError for a forged one.

    Within the caller's transaction; a head that was moved on meanwhile stays as it was.
    """
    row = connection.execute(f"SELECT seq, hash, mac FROM {chain.head_table}").fetchone()
    if row is not None:
        mac = _mac(sealer, chain, checked_head(sealer, chain, row))
        connection.execute(f"UPDATE {chain.head_table} SET mac = ? WHERE mac = ?", (mac, row[2]))


def _broken_head(chain: Chain) -> str:
    return f"the head of {chain.words} was altered or removed"


def _mac(sealer: Sealer, chain: Chain, head: Head, like: bytes = b"") -> bytes:
    return sealer.chain_hash(chain.head_salt, f"{head.seq} ".encode() + head.hash, like)
