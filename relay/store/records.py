"""Reading call records: lists, what was up at a moment, and whether the chain is intact. It writes nothing."""

from __future__ import annotations

import heapq
import hmac
import sqlite3
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from relay.call.record import CallRecord
from relay.errors import StoreError
from relay.store.chain import EMPTY, Head, next_link, read_checkpoint, read_head
from relay.store.database import connect_reader, one_moment, store_errors
from relay.store.live_rows import SELECT as SELECT_LIVE
from relay.store.live_rows import open_live
from relay.store.record_rows import COLUMNS, SELECT, Row, open_row
from relay.store.sealing import Sealer

LONGEST_CALL_MS = 7 * 24 * 3_600_000  # how far behind a moment the calls that were up then may have ended

_OF_NUMBER = "(number_dialled = :number OR number_shown = :number OR :hash IN (dialled_hash, caller_hash, callee_hash))"
# An attempt ends after it was received, so the index on ended_at serves both.
_SINCE = "ended_at >= :since AND received_at >= :since"
_UP_AT = "ended_at BETWEEN :at AND :latest AND received_at <= :at"
_CHAINED = f"{SELECT} ORDER BY chain_seq"
_ARRIVAL = attrgetter("received_at")
_CHAIN_SEQ = COLUMNS.index("chain_seq")


class Verdict(NamedTuple):
    """What `verify` found. `broken` names the first fault; the records before it, `intact` of them, are good."""

    intact: int
    live: int
    head: Head
    broken: str | None
    purged: int = 0  # records before the first that is kept


class Records:
    """The call records of one store, over a reading connection of its own. Errors are raised as StoreError."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self._path = path
        self._sealer = sealer
        with store_errors(path):
            self._connection = connect_reader(path)

    def find(
        self, number: str | None = None, since_ms: int | None = None, *, live: bool = False
    ) -> Iterator[CallRecord]:
        """In the order of their arrival. `number`: a 700 number or a party, in the normal form, in any role."""
        conditions = ["NOT :live"]
        if number is not None:
            conditions.append(_OF_NUMBER)
        if since_ms is not None:
            conditions.append(_SINCE)
        parameters = {"live": live, "since": since_ms, **self._number(number or "")}

        def is_found(record: CallRecord) -> bool:
            return _is_of(record, number) and (since_ms is None or record.received_at >= since_ms)

        return self._select(conditions, parameters, is_found)

    def up_at(self, number: str, at_ms: int) -> Iterator[CallRecord]:
        """The attempts and calls of a number that were going on at a moment."""
        parameters = {"at": at_ms, "latest": at_ms + LONGEST_CALL_MS, **self._number(number)}

        def is_found(record: CallRecord) -> bool:
            return _is_of(record, number) and record.received_at <= at_ms

        return self._select([_UP_AT, _OF_NUMBER], parameters, is_found)

    def _number(self, number: str) -> dict[str, Any]:
        return {"number": number, "hash": self._sealer.lookup_hash(number)}

    def _select(
        self, conditions: list[str], parameters: dict[str, Any], is_found: Callable[[CallRecord], bool]
    ) -> Iterator[CallRecord]:
        """The ended ones, selected by SQL, and the live ones, which are sealed whole and selected by `is_found`."""
        query = f"{SELECT} WHERE {' AND '.join(conditions)} ORDER BY received_at, chain_seq"
        with store_errors(self._path), one_moment(self._connection):
            live = sorted(filter(is_found, self._live()), key=_ARRIVAL)
            rows = self._connection.execute(query, parameters)
            ended = (open_row(self._sealer, row).record for row in rows)
            yield from heapq.merge(ended, live, key=_ARRIVAL)

    def _live(self) -> Iterator[CallRecord]:
        for row in self._connection.execute(SELECT_LIVE):
            yield open_live(self._sealer, row).record

    def verify(self) -> Verdict:
        """Reads every record. A store that is being written to is seen as it was when this began."""
        with store_errors(self._path), one_moment(self._connection):
            return self._verify()

    def _verify(self) -> Verdict:
        purged = head = EMPTY
        live: set[str] = set()
        broken: str | None = None
        try:
            for record in self._live():
                live.add(record.call_id)
        except (StoreError, sqlite3.DatabaseError) as error:
            broken = str(error)
        try:
            purged = head = read_checkpoint(self._connection, self._sealer, "record")
            for row in self._connection.execute(_CHAINED):
                link, record = follow(self._sealer, head, row)
                if record.call_id in live:
                    found = f"record {link.seq} ({record.call_id})"
                    raise StoreError(f"{found} has ended and is among the live ones as well")
                head = link
            if (stored := read_head(self._connection, self._sealer)) != head:
                raise StoreError(f"records {head.seq + 1} to {stored.seq} were cut off the end")
        except (StoreError, sqlite3.DatabaseError) as error:
            broken = str(error)
        return Verdict(head.seq - purged.seq, len(live), head, broken, purged.seq)

    def close(self) -> None:
        self._connection.close()


def follow(sealer: Sealer, head: Head, row: Row) -> tuple[Head, CallRecord]:
    """The next link of the chain, from a row of `SELECT`. Raises StoreError where it does not fit behind `head`."""
    seq = row[_CHAIN_SEQ]
    if seq != head.seq + 1:
        raise StoreError(f"record {head.seq + 1} is missing: the next one is {seq}")
    try:
        stored = open_row(sealer, row)
    except StoreError as error:
        raise StoreError(f"record {seq}: {error}") from None
    link = next_link(sealer, head, stored.encoded)
    if not hmac.compare_digest(link.hash, stored.chain_hash):
        found = f"record {seq} ({stored.record.call_id})"
        raise StoreError(f"{found} does not follow its predecessor: one of them was replaced")
    return link, stored.record


def _is_of(record: CallRecord, number: str | None) -> bool:
    roles = (record.number_dialled, record.number_shown, record.caller, record.callee)
    return number is None or number in roles
