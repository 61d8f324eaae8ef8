"""A store with call records, some of them indexed by the follower. No relay, journal or backend runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from relay.model.call import CallRecord
from relay.store.chain import RECORDS, head_row, next_link, read_head, write_head
from relay.store.database import connect
from relay.store.record_index import CURSOR, FOLLOWED, SET_CURSOR, add_index
from relay.store.record_rows import INSERT, insert, row_of
from relay.store.sealing.sealer import Sealer
from tests.support.stored import NOW_MS, ended_record, rows_of


class Shelf:
    """Records are added and followed one by one."""

    def __init__(self, path: Path, sealer: Sealer) -> None:
        self.path = path
        self.sealer = sealer
        self.connection: sqlite3.Connection = connect(path)
        self.records: list[CallRecord] = []

    def add(self, *records: CallRecord) -> None:
        for record in records:
            row, encoded = row_of(self.sealer, record)
            head = next_link(self.sealer, read_head(self.connection, self.sealer, RECORDS), encoded)
            insert(self.connection, INSERT, [(*row, *head)])
            write_head(self.connection, RECORDS, head_row(self.sealer, RECORDS, head))
            self.records.append(record)

    def follow(self, to: int | None = None) -> None:
        """Let the follower read up to record `to`, counted from 1."""
        last = len(self.records) if to is None else to
        for seq in range(1, last + 1):
            add_index(self.connection, rows_of(self.sealer, self.records[seq - 1], seq))
        self.connection.executemany(SET_CURSOR, [(FOLLOWED, last), (CURSOR, last)])


def call(n: int, **changes: object) -> CallRecord:
    """A call received n seconds after NOW_MS that lasted half a second."""
    times = {"received_at": NOW_MS + 1_000 * n, "ended_at": NOW_MS + 1_000 * n + 500}
    return ended_record(f"c{n}", **(times | changes))


REFUSED = {"routed_at": None, "callee": None, "number_shown": None, "business": None, "order_id": None}
