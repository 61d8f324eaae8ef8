"""Reads all call records, ended and up, and proves that their chain is intact. Writes nothing.

`relay.store.record_pages` searches records by number, order or business.
"""

from __future__ import annotations

import heapq
import hmac
from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

from relay.errors import StoreError
from relay.model.call import CallRecord
from relay.store.chain import AUDIT, EMPTY, RECORDS, Head, anchor_fault, next_link, read_head
from relay.store.checkpoints import read_checkpoint
from relay.store.connection import DATABASE_ERRORS, Connection, each_row
from relay.store.database import one_moment
from relay.store.journal_rows import SELECT as SELECT_LIVE
from relay.store.journal_rows import open_live
from relay.store.record_rows import COLUMNS, SELECT, Row, StoredRecord, anchor_of, open_row
from relay.store.sealing import Sealer

# An attempt ends after it was received, so the index on ended_at serves both.
_SINCE = f"{SELECT} WHERE ended_at >= ?1 AND received_at >= ?1 ORDER BY received_at, chain_seq"
_COUNT = "SELECT count(*) FROM call_record WHERE ended_at >= ? AND ended_at < ?"
_CHAINED = f"{SELECT} ORDER BY chain_seq"
_FROM = f"{SELECT} WHERE chain_seq >= ? ORDER BY chain_seq"
_LINK = "SELECT chain_hash FROM call_record WHERE chain_seq = ?"
LATE_MS = 86_400_000  # how far records may be out of order by end time, after an outage or a clock step
_ARRIVAL = attrgetter("received_at")
_CHAIN_SEQ = COLUMNS.index("chain_seq")


class Verdict(NamedTuple):
    """The result of `verify_records`. `broken` names the first fault; the `intact` records before it are good."""

    intact: int
    live: int
    head: Head
    broken: str | None
    purged: int = 0  # records purged from the start of the chain
    recorded: tuple[CallRecord, ...] = ()  # the intact records of calls that have a recording


def all_records(
    connection: Connection, sealer: Sealer, since_ms: int = 0, *, live: bool = False
) -> Iterator[CallRecord]:
    """Records of calls received since `since_ms`, in order of arrival; with `live` only calls that are up."""
    with one_moment(connection):
        calls = live_calls(connection, sealer)
        up = sorted((record for record in calls if record.received_at >= since_ms), key=_ARRIVAL)
        rows = () if live else each_row(connection, _SINCE, (since_ms,))
        ended = (open_row(sealer, row).record for row in rows)
        yield from heapq.merge(ended, up, key=_ARRIVAL)


def verify_records(connection: Connection, sealer: Sealer) -> Verdict:
    """Verify every record, in the state of the store when the reading began."""
    with one_moment(connection):
        return _verify(connection, sealer)


def _verify(connection: Connection, sealer: Sealer) -> Verdict:
    purged = head = EMPTY
    live: set[str] = set()
    recorded: list[CallRecord] = []
    broken: str | None = None
    try:
        live = {record.call_id for record in live_calls(connection, sealer)}
    except (StoreError, *DATABASE_ERRORS) as error:
        broken = str(error)
    try:
        purged = head = read_checkpoint(connection, sealer, RECORDS)
        for row in each_row(connection, _CHAINED):
            link, stored = follow(sealer, head, row)
            record = stored.record
            found = f"record {link.seq} ({record.call_id})"
            if record.call_id in live:
                raise StoreError(f"{found} has ended and is also listed as up")
            if fault := anchor_fault(connection, AUDIT, anchor_of(stored.encoded), f"when {found} was written"):
                raise StoreError(fault)
            head = link
            if record.recording is not None:
                recorded.append(record)
        if (last := read_head(connection, sealer, RECORDS)) != head:
            raise StoreError(f"records {head.seq + 1} to {last.seq} were cut off the end")
    except (StoreError, *DATABASE_ERRORS) as error:
        broken = str(error)
    return Verdict(head.seq - purged.seq, len(live), head, broken, purged.seq, tuple(recorded))


def ended_between(
    connection: Connection, sealer: Sealer, since_ms: int, until_ms: int
) -> Iterator[tuple[Head, StoredRecord]]:
    """Records of calls that ended from `since_ms` to before `until_ms`, each with the link before it.

    Reads link by link; trusts no index and no plain column. Raises StoreError if a record is missing, was altered,
    or does not follow its predecessor.
    """
    purged = read_checkpoint(connection, sealer, RECORDS)
    last = read_head(connection, sealer, RECORDS)
    first = _first_since(connection, sealer, purged.seq + 1, last.seq, since_ms - LATE_MS)
    link = connection.execute(_LINK, (first - 1,)).fetchone()
    head = purged if first == purged.seq + 1 or link is None else Head(first - 1, link[0])
    for row in each_row(connection, _FROM, (first,)):
        before, (head, stored) = head, follow(sealer, head, row)
        ended_at = stored.record.ended_at or 0
        if since_ms <= ended_at < until_ms:
            yield before, stored
        if ended_at >= until_ms + LATE_MS:
            return
    if head != last:
        raise StoreError(f"records {head.seq + 1} to {last.seq} were cut off the end")


def _first_since(connection: Connection, sealer: Sealer, low: int, high: int, since_ms: int) -> int:
    """Search for a link before which no call ended since `since_ms`. Opens records: plain columns may be forged."""
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(f"{SELECT} WHERE chain_seq = ?", (middle,)).fetchone()
        if row is None:
            raise StoreError(f"record {middle} is missing")
        if (open_row(sealer, row).record.ended_at or 0) < since_ms:
            low = middle + 1
        else:
            high = middle
    return low


def count_ended(connection: Connection, since_ms: int, until_ms: int) -> int:
    """The number of calls that ended from `since_ms` to before `until_ms`."""
    (count,) = connection.execute(_COUNT, (since_ms, until_ms)).fetchone()
    return int(count)


def live_calls(connection: Connection, sealer: Sealer) -> Iterator[CallRecord]:
    """The answered calls that are up. Raises StoreError if one was altered."""
    for row in connection.execute(SELECT_LIVE).fetchall():
        yield open_live(sealer, row).record


def follow(sealer: Sealer, head: Head, row: Row) -> tuple[Head, StoredRecord]:
    """The next link of the chain, from a row of `SELECT`. Raises StoreError if it does not follow `head`."""
    seq = row[_CHAIN_SEQ]
    if seq != head.seq + 1:
        raise StoreError(f"record {head.seq + 1} is missing: the next one is {seq}")
    try:
        stored = open_row(sealer, row)
    except StoreError as error:
        raise StoreError(f"record {seq}: {error}") from None
    link = next_link(sealer, head, stored.encoded, stored.chain_hash)
    if not hmac.compare_digest(link.hash, stored.chain_hash):
        found = f"record {seq} ({stored.record.call_id})"
        raise StoreError(f"{found} does not follow its predecessor: one of them was replaced")
    return link, stored
