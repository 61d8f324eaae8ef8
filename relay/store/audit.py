"""The audit log of changes and of access to real numbers: actor, action, time, reason. It is a chain, as the records.

Owns the format of an entry and its link in the chain. Each entry holds the head of the chain of records at that time.
Reason and details are sealed, since operators may write anything there. `relay.store.audit_log` reads, verifies and
purges the log.
"""

from __future__ import annotations

import hmac
from typing import Any, NamedTuple

import msgspec

from relay.errors import StoreError
from relay.store.chain import AUDIT, EMPTY, RECORDS, Head, head_row, next_link, read_head, stored_head, write_head
from relay.store.connection import Connection
from relay.store.sealing import Sealer

_ADD = """
INSERT INTO audit (seq, at, actor, action, object, business, sealed, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""

SELECT = "SELECT seq, at, actor, action, object, business, sealed, hash FROM audit"
AuditRow = tuple[Any, ...]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[Any, ...]).decode


class Entry(NamedTuple):
    """An entry of the log. `at` is in Unix milliseconds."""

    at: int
    actor: str
    action: str
    object_: str
    business: str | None
    reason: str
    details: dict[str, object]


def add_entry(connection: Connection, sealer: Sealer, entry: Entry) -> None:
    """Add an entry in the caller's transaction. Raises StoreError if the head of the log was altered."""
    head = read_head(connection, sealer, AUDIT)
    seq = head.seq + 1
    records = stored_head(connection, RECORDS)
    sealed = sealer.seal(_encode((entry.reason, entry.details, *records)), _context(seq))
    row = (seq, entry.at, entry.actor, entry.action, entry.object_, entry.business, sealed)
    link = _link(sealer, head, row)
    connection.execute(_ADD, (*row, link.hash))
    write_head(connection, AUDIT, head_row(sealer, AUDIT, link))


def open_entry(sealer: Sealer, row: AuditRow) -> Entry:
    """Open a row of `SELECT`. Raises StoreError if it was altered."""
    seq, at, actor, action, object_, business, sealed, _ = row
    try:
        reason, details = _opened(sealer, seq, sealed)[:2]
    except (StoreError, msgspec.DecodeError):
        raise StoreError(f"entry {seq} of the audit log was altered") from None
    return Entry(at, actor, action, object_, business, reason, details)


def anchor_of(sealer: Sealer, row: AuditRow) -> Head:
    """The head of the chain of records when a row of `SELECT` was written; EMPTY if the row holds none."""
    seq, *_, sealed, _ = row
    found = _opened(sealer, seq, sealed)[2:]
    return Head(*found) if found else EMPTY


def _opened(sealer: Sealer, seq: int, sealed: bytes) -> tuple[Any, ...]:
    return _decode(sealer.open_(sealed, _context(seq)))


def follow_entry(sealer: Sealer, head: Head, row: AuditRow) -> Head:
    """The link of the next row of `SELECT`. Raises StoreError if it does not follow `head`."""
    seq = row[0]
    if seq != head.seq + 1:
        raise StoreError(f"entry {head.seq + 1} of the audit log is missing: the next one is {seq}")
    link = _link(sealer, head, row[:-1], row[-1])
    if not hmac.compare_digest(link.hash, row[-1]):
        raise StoreError(f"entry {seq} of the audit log was altered, or does not follow its predecessor")
    return link


def _link(sealer: Sealer, head: Head, row: AuditRow, like: bytes = b"") -> Head:
    return next_link(sealer, head, b"audit " + _encode(row), like)


def _context(seq: int) -> bytes:
    return f"audit {seq}".encode()
