"""The unit of work: one change of the store by one actor, inside a write transaction; and its entry in the audit log.

Code that changes the store takes an `UnitOfWork`, and writes through it the rows, the audit entry and the events
(`relay.store.webhooks`) that belong together. It never begins, commits or rolls back: `relay.store.writer` does. Do not
keep it beyond its transaction. Entries and counts are written at the end of the transaction, once for all its units.

The audit log has changes and access to real numbers: actor, action, time, reason. It is a chain, as the records are.
Owns the format of an entry and its link; `relay.store.audit` reads the log. Each entry holds the head of the chain of
records at that time. Reason and details are sealed, since operators may write anything there.
"""

from __future__ import annotations

import getpass
import hashlib
import hmac
import secrets
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from relay.errors import Refused, StoreError
from relay.store.chain import AUDIT, EMPTY, RECORDS, Head, head_row, next_link, put_head, read_head, stored_head
from relay.store.connection import Connection, Naming, Statement, fetch_together
from relay.store.sealing.sealer import Sealer

BusinessScope = Literal[
    "bindings:read",
    "bindings:write",
    "numbers:read",
    "calls:read",
    "calls:hangup",
    "recordings:read",
    "parties:read",
    "webhooks",
    "hooks",
    "lists",
    "filings",
    "papers",
    "reports",
    "keys",
]
Scope = Literal[BusinessScope, "trace", "operator"]
BUSINESS_SCOPES: frozenset[str] = frozenset(get_args(BusinessScope))
OPERATOR: frozenset[str] = frozenset(get_args(Scope))  # all scopes, as the commands on this machine have them


class Actor(NamedTuple):
    """The author of a change: "key:ID", "cli:USER" or "relay". Without a business it is an operator."""

    name: str
    business: str | None
    scopes: frozenset[str]

    def must_have(self, rights: frozenset[str], field: str) -> None:
        """Raises Refused for `field` unless the actor has all `rights`: a key cannot grant, change or revoke others.

        The scope "operator" is one right among others and implies none of them.
        """
        if lacking := rights - self.scopes:
            raise Refused("forbidden", field, f"the key itself lacks the scope {min(lacking)}: use one that has it")


RELAY = Actor("relay", None, OPERATOR)


def operator_cli() -> Actor:
    """The user who runs a command on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user id has no name
        user = "unknown"
    return Actor(f"cli:{user}", None, OPERATOR)


_serials = count()
_serial_key = secrets.token_bytes(16)


class UnitOfWork(NamedTuple):
    """A unit of work. Times are Unix milliseconds."""

    connection: Connection
    sealer: Sealer
    actor: Actor
    now_ms: int

    def new_id(self) -> str:
        """A new id of 24 hexadecimal digits: time, serial (12 bits), randomness. The first 15 are its number for
        clients that take numbers only (`relay.model.binding.number_of`), unique in what one process makes.

        Serials of a millisecond follow each other, but where they begin is secret: from one id to the next they would
        count what other business users make.
        """
        first = hashlib.blake2b(self.now_ms.to_bytes(8, "big"), digest_size=2, key=_serial_key).digest()
        serial = (int.from_bytes(first, "big") + next(_serials)) & 0xFFF
        return f"{self.now_ms:012x}{serial:03x}{secrets.randbits(36):09x}"

    def audit(
        self,
        action: str,
        object_: str,
        *,
        business: str | None = None,
        reason: str = "",
        details: dict[str, object] | None = None,
    ) -> None:
        """Add an entry to the audit log. `object_` is stored in clear: an id or a 700 number, never a real number."""
        entry = Entry(self.now_ms, self.actor.name, action, object_, business, reason, details or {})
        add_entry(self.connection, self.sealer, entry)

    def audit_refusals(self, refusals: Iterable[Refused]) -> None:
        """Add an entry for each refused step of a business user, and one with the count of all else.

        A key could try numbers, since an existing one is answered differently. The relay's own steps are not counted.
        """
        kinds, tried = set(), 0
        for refused in refusals:
            if (attempt := refused.attempt) is not None:
                asked: dict[str, object] = {"action": attempt.action, "kinds": [refused.kind]}
                self.audit(
                    "change.refused", attempt.business, business=attempt.business, reason=attempt.reason, details=asked
                )
            elif refused.kind != "rate_limited":
                kinds.add(refused.kind)
                tried += refused.tried
        if kinds and self.actor != RELAY:
            business = self.actor.business
            details: dict[str, object] = {"refused": tried, "kinds": sorted(kinds)}
            self.audit("change.refused", business or self.actor.name, business=business, details=details)


# -- Entries of the audit log

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
    """Add an entry in the caller's transaction, at its end if it is one of units of work.

    Raises StoreError if the head of the log was altered.
    """
    naming: Naming | None = getattr(connection, "naming", None)
    if naming is None:
        write_entries(connection, sealer, [entry])
    else:
        naming.at_end.append(entry)


def write_entries(connection: Connection, sealer: Sealer, entries: Sequence[Entry]) -> None:
    """Add entries in the caller's transaction. Raises StoreError if the head of the log was altered."""
    heads = read_head(connection, sealer, AUDIT), stored_head(connection, RECORDS)
    _, statements = put_entries(sealer, entries, *heads)
    fetch_together(connection, *statements)


def put_entries(sealer: Sealer, entries: Sequence[Entry], head: Head, records: Head) -> tuple[Head, list[Statement]]:
    """The new head of the log, and the statements that add entries after `head`."""
    rows = []
    for entry in entries:
        seq = head.seq + 1
        sealed = sealer.seal(_encode((entry.reason, entry.details, *records)), _context(seq))
        row = (seq, entry.at, entry.actor, entry.action, entry.object_, entry.business, sealed)
        head = _link(sealer, head, row)
        rows.append((*row, head.hash))
    return head, [*((_ADD, row) for row in rows), put_head(AUDIT, head_row(sealer, AUDIT, head))]


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
