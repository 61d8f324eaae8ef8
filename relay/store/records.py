"""Reading call records: lists, what was up at a moment, and whether the chain is intact. It writes nothing."""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from relay.call.record import CallRecord
from relay.errors import StoreError
from relay.store.chain import EMPTY, Head, next_link, read_head
from relay.store.database import connect_reader, store_errors
from relay.store.record_rows import COLUMNS, SELECT, open_row
from relay.store.sealing import Sealer

LONGEST_CALL_MS = 7 * 24 * 3_600_000  # how far before a moment the calls that were up then may have begun

_OF_NUMBER = "(number_dialled = :number OR number_shown = :number OR :hash IN (dialled_hash, caller_hash, callee_hash))"
_UP_AT = "received_at BETWEEN :earliest AND :at AND (ended_at IS NULL OR ended_at >= :at)"
_CHAINED = f"{SELECT} WHERE ended_at IS NOT NULL OR chain_seq IS NOT NULL ORDER BY chain_seq"
_CALL_ID = COLUMNS.index("call_id")
_ENDED_AT = COLUMNS.index("ended_at")


class Verdict(NamedTuple):
    """What `verify` found. `broken` names the first fault; the records before it, `intact` of them, are good."""

    intact: int
    live: int
    head: Head
    broken: str | None


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
        conditions = ["TRUE"]
        if number is not None:
            conditions.append(_OF_NUMBER)
        if since_ms is not None:
            conditions.append("received_at >= :since")
        if live:
            conditions.append("ended_at IS NULL")
        return self._select(conditions, {"since": since_ms, **self._number(number or "")})

    def up_at(self, number: str, at_ms: int) -> Iterator[CallRecord]:
        """The attempts and calls of a number that were going on at a moment."""
        moment = {"at": at_ms, "earliest": at_ms - LONGEST_CALL_MS}
        return self._select([_UP_AT, _OF_NUMBER], {**moment, **self._number(number)})

    def _number(self, number: str) -> dict[str, Any]:
        return {"number": number, "hash": self._sealer.lookup_hash(number)}

    def _select(self, conditions: list[str], parameters: dict[str, Any]) -> Iterator[CallRecord]:
        query = f"{SELECT} WHERE {' AND '.join(conditions)} ORDER BY received_at, id"
        with store_errors(self._path):
            for row in self._connection.execute(query, parameters):
                yield open_row(self._sealer, row).record

    def verify(self) -> Verdict:
        """Reads every record. A store that is being written to is seen as it was when this began."""
        with store_errors(self._path):
            self._connection.execute("BEGIN")
            try:
                return self._verify()
            finally:
                self._connection.execute("ROLLBACK")

    def _verify(self) -> Verdict:
        head = EMPTY
        live = 0
        try:
            for row in self._connection.execute(_CHAINED):
                head = self._follow(head, row)
            live = self._verify_live()
            if (stored := read_head(self._connection, self._sealer)) != head:
                raise StoreError(f"records {head.seq + 1} to {stored.seq} were cut off the end")
        except (StoreError, sqlite3.DatabaseError) as error:
            return Verdict(head.seq, live, head, str(error))
        return Verdict(head.seq, live, head, None)

    def _follow(self, head: Head, row: tuple[Any, ...]) -> Head:
        """The link of the next record in the chain. Raises StoreError where it does not fit behind `head`."""
        seq, chain_hash = row[-2:]
        if seq is None:
            raise StoreError(f"call record {row[_CALL_ID]} is not in the chain: it was inserted, or its place removed")
        if seq != head.seq + 1:
            raise StoreError(f"record {head.seq + 1} is missing: the next one is {seq}")
        if row[_ENDED_AT] is None:
            raise StoreError(f"record {seq} ({row[_CALL_ID]}) was altered: it is in the chain and has no end")
        try:
            link = next_link(self._sealer, head, open_row(self._sealer, row).record)
        except StoreError as error:
            raise StoreError(f"record {seq}: {error}") from None
        if not hmac.compare_digest(link.hash, chain_hash or b""):
            raise StoreError(
                f"record {seq} ({row[_CALL_ID]}) does not follow its predecessor: one of them was replaced"
            )
        return link

    def _verify_live(self) -> int:
        live = 0
        for row in self._connection.execute(f"{SELECT} WHERE ended_at IS NULL"):
            open_row(self._sealer, row)
            live += 1
        return live

    def close(self) -> None:
        self._connection.close()
