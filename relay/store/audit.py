"""Reads, verifies and purges the audit log; keeps the last purged link of each chain, from which the rest is verified.

Owns the table `checkpoint`. `relay.store.unit_of_work` writes the entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from relay.errors import StoreError
from relay.store.chain import AUDIT, EMPTY, RECORDS, Chain, Head, anchor_fault, count_over, number_over, read_head
from relay.store.connection import DATABASE_ERRORS, Connection, each_row
from relay.store.database import one_moment
from relay.store.ledger import require_proofs
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import SELECT, Entry, UnitOfWork, anchor_of, follow_entry, open_entry

# An object is an id, or one with its kind before it: "call 019…".
_OF_OBJECT = "object = :object_ OR substr(object, length(object) - length(:object_)) = ' ' || :object_"
_OF = (
    "(:actor IS NULL OR actor = :actor) AND (:action IS NULL OR action = :action)"
    f" AND (:object_ IS NULL OR {_OF_OBJECT}) AND (:business IS NULL OR business = :business)"
    " AND (:since_ms IS NULL OR at >= :since_ms) AND (:until_ms IS NULL OR at < :until_ms)"
)
_NEWEST = f"{SELECT} WHERE {_OF} AND (:before IS NULL OR seq < :before) ORDER BY seq DESC LIMIT :most"
_OLDEST = f"{SELECT} WHERE {_OF} AND seq > :after ORDER BY seq LIMIT :most"
_COUNT = f"SELECT count(*) FROM audit WHERE {_OF}"
_CHAINED = f"{SELECT} ORDER BY seq"
_AT = 1
_PAGE = 500  # entries


class AuditQuery(NamedTuple):
    """A filter of entries; None matches any. Times are Unix milliseconds. `object_` may be its last word."""

    actor: str | None = None
    action: str | None = None
    object_: str | None = None
    business: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class LoggedEntry(NamedTuple):
    """An entry and its sequence number in the log."""

    seq: int
    entry: Entry
    records: int = 0  # the last record in the chain when it was written; 0: none, or not read


class AuditCheck(NamedTuple):
    """The result of `verify_audit`. `broken` names the first fault; the `intact` entries before it are good."""

    intact: int
    head: Head
    broken: str | None


def newest_entries(
    connection: Connection, sealer: Sealer, query: AuditQuery, before: int | None, most: int
) -> list[LoggedEntry]:
    """Matching entries, newest first, before the entry `before`. Raises StoreError if one was altered."""
    rows = connection.execute(_NEWEST, query._asdict() | {"before": before, "most": most}).fetchall()
    return [LoggedEntry(row[0], open_entry(sealer, row)) for row in rows]


def all_entries(connection: Connection, sealer: Sealer, query: AuditQuery) -> Iterator[LoggedEntry]:
    """Matching entries, oldest first, read a page at a time.

    No snapshot lasts while the reader is slow, such as a pager: the write-ahead log would grow.
    """
    after, asked = 0, query._asdict() | {"most": _PAGE}
    while rows := connection.execute(_OLDEST, asked | {"after": after}).fetchall():
        yield from (LoggedEntry(row[0], open_entry(sealer, row)) for row in rows)
        after = rows[-1][0]


def count_entries(connection: Connection, query: AuditQuery) -> int:
    (count,) = connection.execute(_COUNT, query._asdict()).fetchone()
    return int(count)


def verify_audit(connection: Connection, sealer: Sealer) -> AuditCheck:
    """Verify every entry, in the state of the log when the reading began."""
    with one_moment(connection):
        return _verify(connection, sealer)


def _verify(connection: Connection, sealer: Sealer) -> AuditCheck:
    intact = 0
    head = EMPTY
    try:
        head = read_checkpoint(connection, sealer, AUDIT)
        for row in each_row(connection, _CHAINED):
            open_entry(sealer, row)
            link = follow_entry(sealer, head, row)
            fault = anchor_fault(connection, RECORDS, anchor_of(sealer, row), f"when entry {link.seq} was written")
            if fault:
                raise StoreError(fault)
            head = link
            intact += 1
        if (stored := read_head(connection, sealer, AUDIT)) != head:
            raise StoreError(f"entries {head.seq + 1} to {stored.seq} of the audit log were cut off the end")
    except (StoreError, *DATABASE_ERRORS) as error:
        return AuditCheck(intact, head, str(error))
    return AuditCheck(intact, head, None)


def purge_audit(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` entries older than `before_ms`, oldest first. Return their number.

    Each is verified first: a purge must not hide an alteration. Raises StoreError.
    """
    head = read_checkpoint(unit.connection, unit.sealer, AUDIT)
    rows = unit.connection.execute(f"{_CHAINED} LIMIT ?", (most,)).fetchall()
    links = ((row[0], row[_AT]) for row in rows)
    gone = rows[: number_over(unit.connection, AUDIT, links, before_ms, unit.now_ms)]
    for row in gone:
        head = follow_entry(unit.sealer, head, row)
    if gone:
        write_checkpoint(unit, AUDIT, head)
        unit.connection.execute("DELETE FROM audit WHERE seq <= ?", (head.seq,))
    return len(gone)


def count_audit(connection: Connection, before_ms: int, now_ms: int) -> int:
    """The number of entries that a purge would delete."""
    return count_over(connection, AUDIT, before_ms, now_ms)


# -- Checkpoints: the last purged link of each chain

_SELECT: Final = "SELECT seq, hash FROM checkpoint WHERE chain = ?"
_PUT: Final = (
    "INSERT INTO checkpoint (chain, seq, hash, at) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (chain) DO UPDATE SET seq = ?2, hash = ?3, at = ?4"
)


def read_checkpoint(connection: Connection, sealer: Sealer, chain: Chain) -> Head:
    """The last purged link; EMPTY if none was. Raises StoreError if it was changed from outside.

    If it was deleted, the links before the first one left show as missing.
    """
    require_proofs(connection, sealer, "checkpoint", [chain.name])
    row = connection.execute(_SELECT, (chain.name,)).fetchone()
    return EMPTY if row is None else Head(*row)


def write_checkpoint(unit: UnitOfWork, chain: Chain, head: Head) -> None:
    """Set the checkpoint to `head`, the last link purged in this transaction. Call it before deleting the links."""
    unit.connection.execute(_PUT, (chain.name, *head, unit.now_ms))
