"""The audit log: who did what, or read real numbers, when and what for. Chained like the call records, only added to.

It owns the tables `audit` and `audit_head`. Reason and details are sealed: an operator may write anything there.
"""

from __future__ import annotations

import hmac
import sqlite3
from typing import NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.chain import EMPTY, Head
from relay.store.sealing import Sealer

_SELECT_HEAD = "SELECT seq, hash, mac, EXISTS (SELECT 1 FROM audit WHERE seq > audit_head.seq) FROM audit_head"
_SELECT_ANY = "SELECT EXISTS (SELECT 1 FROM audit)"
_UPDATE_HEAD = (
    "INSERT INTO audit_head VALUES (1, ?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET seq = ?1, hash = ?2, mac = ?3"
)
_ADD = "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
BROKEN_HEAD = "the head of the audit log was altered or removed"

_encode = msgspec.msgpack.Encoder().encode


class Entry(NamedTuple):
    """One line of the log. `at` is in Unix milliseconds."""

    at: int
    actor: str
    action: str
    object_: str
    business: str | None
    reason: str
    details: dict[str, object]


def add_entry(connection: sqlite3.Connection, sealer: Sealer, entry: Entry) -> None:
    """Within the caller's transaction. Raises StoreError where the end of the log was tampered with."""
    head = read_audit_head(connection, sealer)
    seq = head.seq + 1
    sealed = sealer.seal(_encode((entry.reason, entry.details)), _context(seq))
    plain = (seq, entry.at, entry.actor, entry.action, entry.object_, entry.business)
    link = Head(seq, sealer.chain_hash(head.hash, b"audit " + _encode((*plain, sealed))))
    connection.execute(_ADD, (*plain, sealed, link.hash))
    connection.execute(_UPDATE_HEAD, (*link, _mac(sealer, link)))


def read_audit_head(connection: sqlite3.Connection, sealer: Sealer) -> Head:
    """The last link. Raises StoreError where it is missing, forged, or older than the entries."""
    row = connection.execute(_SELECT_HEAD).fetchone()
    if row is None:
        if connection.execute(_SELECT_ANY).fetchone() != (0,):
            raise StoreError(BROKEN_HEAD)
        return EMPTY
    head = Head(row[0], row[1])
    if row[3] or not hmac.compare_digest(row[2], _mac(sealer, head)):
        raise StoreError(BROKEN_HEAD)
    return head


def _mac(sealer: Sealer, head: Head) -> bytes:
    return sealer.chain_hash(b"audit head", f"{head.seq} ".encode() + head.hash)


def _context(seq: int) -> bytes:
    return f"audit {seq}".encode()
