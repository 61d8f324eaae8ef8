"""Reads call records: all of them, ended and up, with the proof that their chain is intact; or page by page.

A page has records of a number, party, call, order or business, or of a time alone. Searches use the index of calls,
which the follower fills some seconds later. Records not indexed yet are read one by one, so results are complete
however far it is behind. Each record found is checked against the query after it is opened, so a forged index reveals
nothing. Each page is one snapshot, and nothing stays open between pages, so a slow reader blocks no one.

Writes nothing.
"""

from __future__ import annotations

import heapq
import hmac
from array import array
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from relay.errors import StoreError
from relay.model.call import CallRecord
from relay.model.numbers import is_700
from relay.store.audit import read_checkpoint
from relay.store.chain import AUDIT, EMPTY, RECORDS, Head, anchor_fault, next_link, read_head, stored_link
from relay.store.connection import DATABASE_ERRORS, Connection, each_row
from relay.store.database import one_moment
from relay.store.journal.rows import SELECT as SELECT_LIVE
from relay.store.journal.rows import SELECT_OF_CALL as SELECT_LIVE_OF_CALL
from relay.store.journal.rows import open_live
from relay.store.record_index import (
    SELECT_CURSOR,
    beside_key,
    business_key,
    call_key,
    number_key,
    order_key,
)
from relay.store.record_rows import COLUMNS, SELECT, Row, StoredRecord, anchor_of, open_row
from relay.store.sealing.sealer import Sealer

_COUNT = "SELECT count(*) FROM call_record WHERE ended_at >= ? AND ended_at < ?"
# "+ 0": else PostgreSQL looks for the first one along its primary key, from the oldest record.
_SPAN = "SELECT min(chain_seq + 0), max(chain_seq + 0) FROM call_record WHERE ended_at >= ? AND ended_at < ?"
_CHAINED = f"{SELECT} ORDER BY chain_seq"
_FROM = f"{SELECT} WHERE chain_seq >= ? ORDER BY chain_seq"
_LINK = "SELECT chain_hash FROM call_record WHERE chain_seq = ?"
LATE_MS = 86_400_000  # how far records may be out of order by end time, after an outage or a clock step
_CHAIN_SEQ = COLUMNS.index("chain_seq")


class RecordsCheck(NamedTuple):
    """The result of `verify_records`. `broken` names the first fault; the `intact` records before it are good."""

    intact: int
    live: int
    head: Head
    broken: str | None
    purged: int = 0  # records purged from the start of the chain
    recorded: tuple[CallRecord, ...] = ()  # the intact records of calls that have a recording


def verify_records(
    connection: Connection, sealer: Sealer, see: Callable[[StoredRecord], None] = lambda stored: None
) -> RecordsCheck:
    """Verify every record, in the state of the store when the reading began. `see` gets the intact ones."""
    with one_moment(connection):
        return _verify(connection, sealer, see)


def _verify(connection: Connection, sealer: Sealer, see: Callable[[StoredRecord], None]) -> RecordsCheck:
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
            link, stored = follow_link(sealer, head, row)
            record = stored.record
            found = f"record {link.seq} ({record.call_id})"
            if record.call_id in live:
                raise StoreError(f"{found} has ended and is also listed as up")
            if fault := anchor_fault(connection, AUDIT, anchor_of(stored.encoded), f"when {found} was written"):
                raise StoreError(fault)
            head = link
            see(stored)
            if record.recording is not None:
                recorded.append(record)
        if (last := read_head(connection, sealer, RECORDS)) != head:
            raise StoreError(f"records {head.seq + 1} to {last.seq} were cut off the end")
    except (StoreError, *DATABASE_ERRORS) as error:
        broken = str(error)
    return RecordsCheck(head.seq - purged.seq, len(live), head, broken, purged.seq, tuple(recorded))


class Stretch(NamedTuple):
    """A verified part of the chain: the last record read, 0 at the end of the chain; and the fault that ended it."""

    last: int
    broken: str | None


def verify_stretch(connection: Connection, sealer: Sealer, after: int, most: int) -> Stretch:
    """Verify at most `most` records behind the one `after`, the first against the stored link before it.

    Call it within `one_moment`. Behind a bad record a next stretch goes on.
    """
    try:
        purged = read_checkpoint(connection, sealer, RECORDS)
        after = max(after, purged.seq)
        head = _link_before(connection, purged, after + 1)
        rows = connection.execute(f"{_FROM} LIMIT ?", (after + 1, most)).fetchall()
    except StoreError as error:
        return Stretch(0, str(error))
    for row in rows:
        try:
            head, _ = follow_link(sealer, head, row)
        except StoreError as error:
            return Stretch(row[_CHAIN_SEQ], str(error))
    if len(rows) == most:
        return Stretch(head.seq, None)
    try:
        last = read_head(connection, sealer, RECORDS)
    except StoreError as error:
        return Stretch(0, str(error))
    return Stretch(0, None if last == head else f"records {head.seq + 1} to {last.seq} were cut off the end")


def ended_between(
    connection: Connection, sealer: Sealer, since_ms: int, until_ms: int
) -> Iterator[tuple[Head, StoredRecord]]:
    """Records of calls that ended from `since_ms` to before `until_ms`, each with the link before it.

    Reads link by link. The plain column can only widen what is read: to records more than `LATE_MS` out of order, of a
    clock that was wrong or a call closed long after its end. Raises StoreError if a record is missing, was altered, or
    does not follow its predecessor.
    """
    with one_moment(connection):  # a record written meanwhile is behind the head
        purged = read_checkpoint(connection, sealer, RECORDS)
        last = read_head(connection, sealer, RECORDS)
        first = _first_since(connection, sealer, purged, last.seq, since_ms - LATE_MS)
        first_there, last_there = connection.execute(_SPAN, (since_ms, until_ms)).fetchone()
        if first_there is not None:
            first = min(first, max(first_there, purged.seq + 1))
        head = _link_before(connection, purged, first)
        for row in each_row(connection, _FROM, (first,)):
            before, (head, stored) = head, follow_link(sealer, head, row)
            ended_at = stored.record.ended_at or 0
            if since_ms <= ended_at < until_ms:
                yield before, stored
            if ended_at >= until_ms + LATE_MS and head.seq >= (last_there or 0):
                return
        if head != last:
            raise StoreError(f"records {head.seq + 1} to {last.seq} were cut off the end")


def _first_since(connection: Connection, sealer: Sealer, purged: Head, last: int, since_ms: int) -> int:
    """Search for a link before which no call ended since `since_ms`.

    Each record looked at is opened, since plain columns may be forged, and its place is verified: a record of another
    place would lead the search past others.
    """
    low, high = purged.seq + 1, last
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(f"{SELECT} WHERE chain_seq = ?", (middle,)).fetchone()
        if row is None:
            raise StoreError(f"record {middle} is missing")
        _, stored = follow_link(sealer, _link_before(connection, purged, middle), row)
        if (stored.record.ended_at or 0) < since_ms:
            low = middle + 1
        else:
            high = middle
    return low


def _link_before(connection: Connection, purged: Head, seq: int) -> Head:
    """The link before record `seq`, not verified. Raises StoreError if it is missing."""
    if seq == purged.seq + 1:
        return purged
    link = connection.execute(_LINK, (seq - 1,)).fetchone()
    if link is None:
        raise StoreError(f"record {seq - 1} is missing")
    return stored_link(seq - 1, link[0])


def count_ended(connection: Connection, since_ms: int, until_ms: int) -> int:
    """The number of calls that ended from `since_ms` to before `until_ms`."""
    (count,) = connection.execute(_COUNT, (since_ms, until_ms)).fetchone()
    return int(count)


def live_calls(connection: Connection, sealer: Sealer) -> Iterator[CallRecord]:
    """The answered calls that are up. Raises StoreError if one was altered."""
    for row in connection.execute(SELECT_LIVE).fetchall():
        yield open_live(sealer, row).record


def find_live_call(connection: Connection, sealer: Sealer, call_id: str) -> CallRecord | None:
    """The answered call with this id, if it is up. Raises StoreError if it was altered."""
    row = connection.execute(SELECT_LIVE_OF_CALL, (call_id,)).fetchone()
    return None if row is None else open_live(sealer, row).record


def follow_link(sealer: Sealer, head: Head, row: Row) -> tuple[Head, StoredRecord]:
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


# -- Ended call records, page by page

Position = tuple[int, int]  # the sort key of the pages: time in Unix milliseconds, chain_seq

LAST_MS = 1 << 53
# No call ends later after its arrival: [sip] max_call_s is 7 days at most, from the answer.
LONGEST_CALL_MS = 8 * 24 * 3_600_000
_MOST_UNREAD = 10_000  # if more records are not indexed, the index is not used

_PLACES = """
SELECT at, record FROM record_index AS found
WHERE key = {key} AND at >= :low AND at < :high AND (at, record) {beyond} (:place_at, :place_seq)
AND record <= :indexed AND EXISTS (SELECT 1 FROM call_record WHERE chain_seq = record{call})
"""
_HAS_TOO = "AND EXISTS (SELECT 1 FROM record_index WHERE key IN ({keys}) AND at = found.at AND record = found.record)"
_UNREAD = f"{SELECT} WHERE chain_seq > :indexed AND received_at >= :since AND received_at < :until {{parts}}"
_RECEIVED_IN = "received_at >= :since AND received_at < :until"
# Most calls received before a time have ended ten minutes after it. The others have an index of their own.
_LONG_MS = 600_000
_SOON = "ended_at >= :low AND ended_at < :soon"
_LATE = f"ended_at >= :late AND ended_at < :high AND ended_at - received_at >= {_LONG_MS}"
_IN_TIME = f"""
{SELECT} WHERE {{ended}} AND {_RECEIVED_IN} AND (ended_at, chain_seq) {{beyond}} (:place_at, :place_seq) {{parts}}
"""
_ORDERED = "ORDER BY ended_at {order}, chain_seq {order} LIMIT :limit"

_COUNT_UNREAD = f"SELECT coalesce((SELECT seq FROM chain_head), 0) - ({SELECT_CURSOR})"
_HAS_PART = """
AND (number_dialled = :{name} OR number_shown = :{name} OR :{name}_hash IN (dialled_hash, caller_hash, callee_hash)
{or_})
"""
_OR_SHOWN = "OR number_shown IS NULL"  # of no column, as an old middle number, or none


class RecordFilter(NamedTuple):
    """A filter of records; None matches any. Numbers are in the normal form, times Unix milliseconds."""

    number: str | None = None  # a 700 number or a party, in any role
    party: str | None = None  # a second number
    numbers: tuple[str, ...] | None = None  # one of these, in any role
    call_id: str | None = None
    order_id: str | None = None
    business: str | None = None
    since_ms: int = 0  # received at or after
    until_ms: int = LAST_MS  # received before

    def fits(self, record: CallRecord) -> bool:
        roles = (record.number_dialled, record.number_shown, record.caller, record.callee)
        return (
            (self.number is None or self.number in roles)
            and (self.party is None or self.party in roles)
            and (self.numbers is None or not {*self.numbers}.isdisjoint(roles))
            and self.call_id in (None, record.call_id)
            and self.order_id in (None, record.order_id)
            and self.business in (None, record.business)
            and self.since_ms <= record.received_at < self.until_ms
        )


class FoundRecord(NamedTuple):
    """A record, and its position, after which the next page starts."""

    position: Position
    stored: StoredRecord


def read_page(
    connection: Connection,
    sealer: Sealer,
    wanted: RecordFilter,
    after: Position | None,
    limit: int,
    *,
    newest_first: bool = False,
) -> list[FoundRecord]:
    """A page of at most `limit` records; the last one has fewer. Ordered by arrival, or by end for a time filter alone.

    Raises StoreError if one was altered.
    """
    reading = _PageQuery(connection, sealer, wanted, _Order(newest_first, after), limit)
    criteria = _criteria(sealer, wanted)
    with one_moment(connection):
        if not needs_index(wanted):
            return _by_time(reading)
        (indexed,) = connection.execute(SELECT_CURSOR).fetchone()
        sources = (_indexed(reading, criteria, indexed), _unread(reading, indexed))
        merged = heapq.merge(*sources, key=lambda found: found.position, reverse=newest_first)
        return [found for found, _ in zip(merged, range(limit), strict=False)]


def read_all(
    connection: Connection, sealer: Sealer, wanted: RecordFilter, page: int = 1_000, *, newest_first: bool = False
) -> Iterator[CallRecord]:
    """All matching records, oldest or newest first, with one page in memory."""
    return (stored.record for stored in read_stored(connection, sealer, wanted, page, newest_first=newest_first))


def read_stored(
    connection: Connection, sealer: Sealer, wanted: RecordFilter, page: int = 1_000, *, newest_first: bool = False
) -> Iterator[StoredRecord]:
    """As `read_all`, with the links in the chain.

    If the index is far behind, as without a follower, all records of the time span are read instead.
    """
    indexed = is_indexed(connection)
    after: Position | None = None
    while True:
        if indexed:
            found = read_page(connection, sealer, wanted, after, page, newest_first=newest_first)
        else:
            found = _by_time(_PageQuery(connection, sealer, wanted, _Order(newest_first, after), page))
        yield from (one.stored for one in found if wanted.fits(one.stored.record))
        if len(found) < page:
            return
        after = found[-1].position


def needs_index(wanted: RecordFilter) -> bool:
    """Whether `read_page` uses the index: for all but a time alone."""
    return wanted._replace(since_ms=0, until_ms=LAST_MS) != RecordFilter()


def is_indexed(connection: Connection) -> bool:
    """Whether the index is complete enough to be worth using."""
    (unread,) = connection.execute(_COUNT_UNREAD).fetchone()
    return bool(unread <= _MOST_UNREAD)


_PLACE = "SELECT received_at, chain_seq FROM call_record WHERE"
_RECEIVED = f"""
{_PLACE} {_SOON} AND {_RECEIVED_IN} UNION ALL {_PLACE} {_LATE} AND {_RECEIVED_IN} ORDER BY received_at, chain_seq
"""


def read_received(
    connection: Connection, sealer: Sealer, since_ms: int, until_ms: int, page: int = 500
) -> Iterator[list[CallRecord]]:
    """The records received in a span of time, in pages, in the order of their arrival. Each page is of one moment.

    It keeps 8 bytes for each record. Raises StoreError if one was altered.
    """
    span = {"since": since_ms, "until": until_ms} | _ends(since_ms, until_ms + LONGEST_CALL_MS, until_ms)
    with one_moment(connection):
        places = array("q", (seq for _, seq in each_row(connection, _RECEIVED, span)))
    for start in range(0, len(places), page):
        with one_moment(connection):
            wanted = places[start : start + page]
            rows = (connection.execute(f"{SELECT} WHERE chain_seq = ?", (seq,)).fetchone() for seq in wanted)
            yield [open_row(sealer, row).record for row in rows if row is not None]  # None: purged meanwhile


class _Order(NamedTuple):
    newest_first: bool
    after: Position | None

    def is_beyond(self, position: Position) -> bool:
        return self.after is None or (position < self.after if self.newest_first else position > self.after)

    def words(self) -> dict[str, str]:
        return {"beyond": "<", "order": "DESC"} if self.newest_first else {"beyond": ">", "order": "ASC"}

    def parameters(self, low: int, high: int) -> dict[str, Any]:
        """The remaining part of the time span from `low` to before `high`, and the position to continue from."""
        if self.after is None:
            at, seq = (LAST_MS, 0) if self.newest_first else (-1, 0)
        else:
            at, seq = self.after
            low, high = (low, min(high, at + 1)) if self.newest_first else (max(low, at), high)
        return {"low": low, "high": high, "place_at": at, "place_seq": seq}


class _PageQuery(NamedTuple):
    """The arguments of reading one page."""

    connection: Connection
    sealer: Sealer
    wanted: RecordFilter
    order: _Order
    limit: int


def _criteria(sealer: Sealer, wanted: RecordFilter) -> list[tuple[int, ...]]:
    """The index keys: a record must have one key of each tuple. The most selective tuple comes first."""
    criteria: list[tuple[int, ...]] = []
    if wanted.call_id is not None:
        criteria.append((call_key(wanted.call_id),))
    if wanted.order_id is not None:
        criteria.append((order_key(sealer, wanted.order_id),))
    criteria += (
        (number_key(sealer, number), beside_key(sealer, number))
        for number in (wanted.party, wanted.number)
        if number is not None
    )
    if wanted.numbers is not None:
        criteria.append(tuple(key(sealer, number) for number in wanted.numbers for key in (number_key, beside_key)))
    if wanted.business is not None:
        criteria.append((business_key(sealer, wanted.business),))
    return criteria


def _times(wanted: RecordFilter) -> dict[str, Any]:
    return {"since": wanted.since_ms, "until": wanted.until_ms}


def _indexed(reading: _PageQuery, criteria: list[tuple[int, ...]], indexed: int) -> Iterator[FoundRecord]:
    connection, sealer, wanted, order, limit = reading
    query = _indexed_query(order, [len(keys) for keys in criteria], is_of_call=wanted.call_id is not None)
    keys = {f"key_{row}_{column}": key for row, keys in enumerate(criteria) for column, key in enumerate(keys)}
    parameters = keys | order.parameters(wanted.since_ms, wanted.until_ms) | {"limit": limit, "indexed": indexed}
    if wanted.call_id is not None:
        parameters["call_id"] = wanted.call_id
    for position in connection.execute(query, parameters).fetchall():
        row = connection.execute(f"{SELECT} WHERE chain_seq = ?", (position[1],)).fetchone()
        stored = open_row(sealer, row)
        if not wanted.fits(stored.record):
            raise StoreError(f"the index of calls was altered: it lists record {position[1]} under a wrong key")
        yield FoundRecord(position, stored)


def _indexed_query(order: _Order, sizes: list[int], *, is_of_call: bool) -> str:
    """The query: index ranges of the keys of the first criterion, merged, and one key of each other criterion.

    `is_of_call`: the first key is that of a call; other calls may have it.
    """
    names = [[f":key_{row}_{column}" for column in range(size)] for row, size in enumerate(sizes)]
    others = " ".join(_HAS_TOO.format(keys=", ".join(row)) for row in names[1:])
    words = order.words() | {"call": " AND call_id = :call_id" if is_of_call else ""}
    # One of several numbers may be dialled, and another shown: such a record is in two ranges.
    union = " UNION " if sizes[0] > 2 else " UNION ALL "
    ranges = union.join(f"{_PLACES.format(key=name, **words)} {others}" for name in names[0])
    return f"{ranges} ORDER BY 1 {words['order']}, 2 {words['order']} LIMIT :limit"


def _unread(reading: _PageQuery, indexed: int) -> list[FoundRecord]:
    """The records that are not indexed yet."""
    connection, sealer, wanted, order, limit = reading
    parts, values = _parts(sealer, wanted)
    rows = connection.execute(_UNREAD.format(parts=parts), _times(wanted) | values | {"indexed": indexed})
    opened = (open_row(sealer, row) for row in rows)
    found = (FoundRecord((stored.record.received_at, stored.chain_seq), stored) for stored in opened)
    fitting = (one for one in found if order.is_beyond(one.position) and wanted.fits(one.stored.record))
    choose = heapq.nlargest if order.newest_first else heapq.nsmallest
    return choose(limit, fitting, key=lambda one: one.position)


def _by_time(reading: _PageQuery) -> list[FoundRecord]:
    """A page by the columns of the records: time and numbers. The caller checks the other criteria."""
    connection, sealer, wanted, order, limit = reading
    # A call ends after its arrival.
    places = order.parameters(wanted.since_ms, wanted.until_ms + LONGEST_CALL_MS)
    places |= _ends(places.pop("low"), places.pop("high"), wanted.until_ms)
    parts, values = _parts(sealer, wanted)
    found = []
    for row in connection.execute(_time_query(order, parts), _times(wanted) | places | values | {"limit": limit}):
        stored = open_row(sealer, row)
        assert stored.record.ended_at is not None  # the column is NOT NULL, and was checked
        found.append(FoundRecord((stored.record.ended_at, stored.chain_seq), stored))
    return found


def _time_query(order: _Order, parts: str) -> str:
    words = order.words() | {"parts": parts}
    soon, late = (_IN_TIME.format(ended=ended, **words) for ended in (_SOON, _LATE))
    return f"{soon} UNION ALL {late} {_ORDERED.format(**words)}"


def _ends(low: int, high: int, until_ms: int) -> dict[str, Any]:
    """The bounds of _SOON and _LATE for calls that ended from `low` to before `high`, and came before `until_ms`."""
    soon = until_ms + _LONG_MS
    return {"low": low, "soon": min(high, soon), "late": max(low, soon), "high": high}


def _parts(sealer: Sealer, wanted: RecordFilter) -> tuple[str, dict[str, Any]]:
    """Conditions on the columns of a record beside its times, and their values.

    They let records through that do not fit.
    """
    numbers = {name: number for name in ("number", "party") if (number := getattr(wanted, name)) is not None}
    hashes = {f"{name}_hash": sealer.lookup_hash(number) for name, number in numbers.items()}
    parts = [_HAS_PART.format(name=name, or_="" if is_700(number) else _OR_SHOWN) for name, number in numbers.items()]
    if wanted.call_id is None:
        return " ".join(parts), numbers | hashes
    return " ".join((*parts, "AND call_id = :call_id")), numbers | hashes | {"call_id": wanted.call_id}
