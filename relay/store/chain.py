"""The chains of call records and of the audit log: each link carries a keyed hash over itself and its predecessor.

The oldest links are purged after their retention. A checkpoint (`relay.store.checkpoints`) keeps the last purged link,
and the chain is verified from there.

With the key, a chain shows every record that was changed, removed, inserted or moved. Each link also holds the head of
the other chain at that time, so that a truncated end shows too. The removal of a live record does not show.
"""

from __future__ import annotations

import hmac
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.sealing import Sealer

HeadRow = tuple[int, bytes, bytes]  # seq, hash, mac


class Chain(NamedTuple):
    """The tables and columns of one of the two chains."""

    name: str  # the key of its checkpoint
    words: str  # its name in messages
    table: str
    seq: str  # the column with the sequence number of a link
    hash: str  # the column with its hash
    head_table: str
    head_salt: bytes  # the salt of the MAC of the head


RECORDS: Final = Chain(
    "record", "the chain of call records", "call_record", "chain_seq", "chain_hash", "chain_head", b"head"
)
AUDIT: Final = Chain("audit", "the audit log", "audit", "seq", "hash", "audit_head", b"audit head")


class Head(NamedTuple):
    """The last link: its sequence number, from 1, and its hash. The head of an empty chain is `EMPTY`."""

    seq: int
    hash: bytes


EMPTY: Final = Head(0, b"")


def next_link(sealer: Sealer, head: Head, encoded: bytes, like: bytes = b"") -> Head:
    """The link of an encoded record or entry after `head`; `like`: its stored hash, to compare with."""
    return Head(head.seq + 1, sealer.chain_hash(head.hash, encoded, like))


def write_head(connection: Connection, chain: Chain, row: HeadRow) -> None:
    """Store the result of `head_row`, in the transaction that adds its link."""
    connection.execute(
        f"INSERT INTO {chain.head_table} (id, seq, hash, mac) VALUES (1, ?1, ?2, ?3)"
        " ON CONFLICT (id) DO UPDATE SET seq = ?1, hash = ?2, mac = ?3",
        row,
    )


def head_row(sealer: Sealer, chain: Chain, head: Head) -> HeadRow:
    return (head.seq, head.hash, _mac(sealer, chain, head))


def read_head(connection: Connection, sealer: Sealer, chain: Chain) -> Head:
    """The stored head. Raises StoreError if it is missing, forged, or older than the links or the checkpoint."""
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
    """The stored head, unverified; EMPTY if there is none."""
    row = connection.execute(f"SELECT seq, hash FROM {chain.head_table}").fetchone()
    return EMPTY if row is None else Head(*row)


def checked_head(sealer: Sealer, chain: Chain, row: HeadRow) -> Head:
    """The head in a row that `head_row` made. Raises StoreError if it is forged."""
    head = Head(row[0], row[1])
    if not hmac.compare_digest(row[2], _mac(sealer, chain, head, row[2])):
        raise StoreError(_broken_head(chain))
    return head


def anchor_fault(connection: Connection, chain: Chain, anchor: Head, holder: str) -> str | None:
    """The fault in a chain that once had the head `anchor`; None if it still has that link, or purged it.

    `holder` says when that was, such as "when record 5 was written".
    """
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
    """Renew the MAC of the head with the key in use. Raises StoreError if it is forged.

    Within the caller's transaction; a head that has moved on meanwhile is left alone.
    """
    row = connection.execute(f"SELECT seq, hash, mac FROM {chain.head_table}").fetchone()
    if row is not None:
        mac = _mac(sealer, chain, checked_head(sealer, chain, row))
        connection.execute(f"UPDATE {chain.head_table} SET mac = ? WHERE mac = ?", (mac, row[2]))


def _broken_head(chain: Chain) -> str:
    return f"the head of {chain.words} was altered or removed"


def _mac(sealer: Sealer, chain: Chain, head: Head, like: bytes = b"") -> bytes:
    return sealer.chain_hash(chain.head_salt, f"{head.seq} ".encode() + head.hash, like)
