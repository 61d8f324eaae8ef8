"""Reads, verifies and purges the audit log.

A purge leaves the last deleted link as a checkpoint; the log is verified from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from relay.errors import StoreError
from relay.store.audit import SELECT, Entry, anchor_of, follow_entry, open_entry
from relay.store.chain import AUDIT, EMPTY, RECORDS, Head, anchor_fault, read_head
from relay.store.checkpoints import read_checkpoint, write_checkpoint
from relay.store.connection import DATABASE_ERRORS, Connection, each_row
from relay.store.database import one_moment
from relay.store.sealing import Sealer
from relay.store.unit_of_work import UnitOfWork

_OF = (
    "(:actor IS NULL OR actor = :actor) AND (:action IS NULL OR action = :action)"
    " AND (:object_ IS NULL OR object = :object_) AND (:business IS NULL OR business = :business)"
    " AND (:since_ms IS NULL OR at >= :since_ms) AND (:until_ms IS NULL OR at < :until_ms)"
)
_NEWEST = f"{SELECT} WHERE {_OF} AND (:before IS NULL OR seq < :before) ORDER BY seq DESC LIMIT :most"
_OLDEST = f"{SELECT} WHERE {_OF} ORDER BY seq"
_COUNT = f"SELECT count(*) FROM audit WHERE {_OF}"
_CHAINED = f"{SELECT} ORDER BY seq"
_COUNT_OLD = """
SELECT count(*) FROM audit WHERE seq < coalesce((SELECT min(seq) FROM audit WHERE at >= ?), 4611686018427387904)
"""
_AT = 1


class AuditQuery(NamedTuple):
    """A filter of entries; None matches any. Times are Unix milliseconds."""

    actor: str | None = None
    action: str | None = None
    object_: str | None = None
    business: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None


class Logged(NamedTuple):
    """An entry and its sequence number in the log."""

    seq: int
    entry: Entry


class AuditVerdict(NamedTuple):
    """The result of `verify_audit`. `broken` names the first fault; the `intact` entries before it are good."""

    intact: int
    head: Head
    broken: str | None


def newest_entries(
    connection: Connection, sealer: Sealer, query: AuditQuery, before: int | None, most: int
) -> list[Logged]:
    """Matching entries, newest first, before the entry `before`. Raises StoreError if one was altered."""
    rows = connection.execute(_NEWEST, query._asdict() | {"before": before, "most": most}).fetchall()
    return [Logged(row[0], open_entry(sealer, row)) for row in rows]


def all_entries(connection: Connection, sealer: Sealer, query: AuditQuery) -> Iterator[Logged]:
    """Matching entries, oldest first, read lazily from one snapshot."""
    with one_moment(connection):
        for row in each_row(connection, _OLDEST, query._asdict()):
            yield Logged(row[0], open_entry(sealer, row))


def count_entries(connection: Connection, query: AuditQuery) -> int:
    (count,) = connection.execute(_COUNT, query._asdict()).fetchone()
    return int(count)


def verify_audit(connection: Connection, sealer: Sealer) -> AuditVerdict:
    """Verify every entry, in the state of the log when the reading began."""
    with one_moment(connection):
        return _verify(connection, sealer)


def _verify(connection: Connection, sealer: Sealer) -> AuditVerdict:
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
        return AuditVerdict(intact, head, str(error))
    return AuditVerdict(intact, head, None)


def purge_audit(act: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` entries older than `before_ms`, oldest first. Return their number.

    Each is verified first: a purge must not hide an alteration. Raises StoreError.
    """
    head = read_checkpoint(act.connection, act.sealer, AUDIT)
    rows = act.connection.execute(f"{_CHAINED} LIMIT ?", (most,)).fetchall()
    gone = list(takewhile(lambda row: row[_AT] < before_ms, rows))
    for row in gone:
        head = follow_entry(act.sealer, head, row)
    if gone:
        write_checkpoint(act, AUDIT, head)
        act.connection.execute("DELETE FROM audit WHERE seq <= ?", (head.seq,))
    return len(gone)


def count_audit(connection: Connection, before_ms: int) -> int:
    """The number of entries that a purge would delete."""
    (count,) = connection.execute(_COUNT_OLD, (before_ms,)).fetchone()
    return int(count)
