"""The audit log: who did what, or read real numbers, when and what for. Chained like the call records, only added to.

It owns the form of an entry, its link and the head. Reason and details are sealed: an operator may write anything
there. Reading the log, verifying and purging it is the business of `relay.store.audit_log`.
"""

from __future__ import annotations

import hmac
import sqlite3
from typing import Any, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.chain import EMPTY, Head, read_checkpoint
from relay.store.sealing import Sealer

_SELECT_HEAD = "SELECT seq, hash, mac, EXISTS (SELECT 1 FROM audit WHERE seq > audit_head.seq) FROM audit_head"
_SELECT_ANY = "SELECT EXISTS (SELECT 1 FROM audit)"
_UPDATE_HEAD = (
    "INSERT INTO audit_head VALUES (1, ?1, ?2, ?3) ON CONFLICT (id) DO UPDATE SET seq = ?1, hash = ?2, mac = ?3"
)
_ADD = "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
BROKEN_HEAD = "the head of the audit log was altered or removed"

SELECT = "SELECT seq, at, actor, action, object, business, sealed, hash FROM audit"
AuditRow = tuple[Any, ...]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[str, dict[str, Any]]).decode


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
    row = (seq, entry.at, entry.actor, entry.action, entry.object_, entry.business, sealed)
    link = _link(sealer, head, row)
    connection.execute(_ADD, (*row, link.hash))
    connection.execute(_UPDATE_HEAD, (*link, _mac(sealer, link)))


def open_entry(sealer: Sealer, row: AuditRow) -> Entry:
    """Reads a row of `SELECT`. Raises StoreError where it was altered."""
    seq, at, actor, action, object_, business, sealed, _ = row
    try:
        reason, details = _decode(sealer.open_(sealed, _context(seq)))
    except (StoreError, msgspec.DecodeError):
        raise StoreError(f"entry {seq} of the audit log was altered") from None
    return Entry(at, actor, action, object_, business, reason, details)


def follow_entry(sealer: Sealer, head: Head, row: AuditRow) -> Head:
    """The link of the next row of `SELECT`. Raises StoreError where it does not fit behind `head`."""
    seq = row[0]
    if seq != head.seq + 1:
        raise StoreError(f"entry {head.seq + 1} of the audit log is missing: the next one is {seq}")
    link = _link(sealer, head, row[:-1])
    if not hmac.compare_digest(link.hash, row[-1]):
        raise StoreError(f"entry {seq} of the audit log was altered, or does not follow its predecessor")
    return link


def read_audit_head(connection: sqlite3.Connection, sealer: Sealer) -> Head:
    """The last link. Raises StoreError where it is missing, forged, or older than the entries."""
    row = connection.execute(_SELECT_HEAD).fetchone()
    if row is None:
        if read_checkpoint(connection, sealer, "audit") != EMPTY or connection.execute(_SELECT_ANY).fetchone() != (0,):
            raise StoreError(BROKEN_HEAD)
        return EMPTY
    head = Head(row[0], row[1])
    if row[3] or not hmac.compare_digest(row[2], _mac(sealer, head)):
        raise StoreError(BROKEN_HEAD)
    return head


def _link(sealer: Sealer, head: Head, row: AuditRow) -> Head:
    return Head(head.seq + 1, sealer.chain_hash(head.hash, b"audit " + _encode(row)))


def _mac(sealer: Sealer, head: Head) -> bytes:
    return sealer.chain_hash(b"audit head", f"{head.seq} ".encode() + head.hash)


def _context(seq: int) -> bytes:
    return f"audit {seq}".encode()
