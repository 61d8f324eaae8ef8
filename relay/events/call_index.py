"""The rows of the index of calls that wait until there are many, and their transactions.

Each row of a record lies on another page, which is read and written as a whole. The rows of thousands of records share
pages, so they are written together, neighbours first, a few seconds later. Until then searches read the records
themselves, from the cursor of the index on; after a kill the next process does so for the rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

from relay.store.record_index import CURSOR, SET_CURSOR, IndexRow, add_index, followed
from relay.store.record_rows import MOST_ROWS
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.writer import GroupWriter

MOST_WAITING = 4_000  # records: a search reads each of them, for some 10 to 30 us
INTERVAL_S = 10.0  # shortest between two writes, but for MOST_WAITING; so a record waits no longer
SLICE_S = 0.004  # of one transaction, which blocks the journal
_PART = 8 * MOST_ROWS
_GROUP_BITS = 10


class Overtaken(Exception):
    """The store's cursors are not those that were read: it was put back, or another backend follows."""


class CallIndex:
    """Rows that the follower adds to the index.

    `cursor`: behind the records of all rows; None if it is to be read anew. `followed`: the last record that is
    followed, which is further on while the index catches up.
    """

    def __init__(self, writer: GroupWriter, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._writer = writer
        self._clock_s = clock_s
        self._rows: list[IndexRow] = []
        self._records = 0
        self._due_s = -math.inf  # at once after a start: caps over hours count in the index alone
        self.cursor: int | None = None
        self.followed = 0

    def begin(self, rows: Sequence[IndexRow], records: int, cursor: int, followed: int) -> None:
        """Replace the waiting rows by these."""
        self._rows, self._records = [*rows], records
        self.cursor, self.followed = cursor, followed

    def add(self, rows: Sequence[IndexRow], records: int, cursor: int) -> None:
        """Add the rows of further records. Nothing is written yet.

        While the index is behind, they are dropped: it comes to their records later.
        """
        if self.is_behind:
            self.followed = cursor
            return
        self._rows += rows
        self._records += records
        self.cursor = self.followed = cursor

    def is_to_read(self, followed: int) -> bool:
        """Whether to read rows from the store: others have followed records, or the index is behind and none wait."""
        return followed != self.followed or (self.is_behind and not self._records)

    @property
    def is_behind(self) -> bool:
        """Whether there are followed records without rows, beside those whose rows wait."""
        return self.cursor != self.followed

    @property
    def is_due(self) -> bool:
        return self._records >= MOST_WAITING or (self._records > 0 and self._clock_s() >= self._due_s)

    async def write(self) -> None:
        """Write the waiting rows, in short transactions. Raises StoreError; they all go on waiting then.

        They are dropped if the store's cursor has become another one.
        """
        if not self._records or self.cursor is None:
            return
        write = partial(_write, rows=_by_page(self._rows), cursor=self.cursor, followed_to=self.followed)
        place: int | None = 0
        try:
            while place is not None:
                place = await self._writer.run(RELAY, partial(write, place=place))
        except Overtaken:
            self.cursor = None
        self._rows, self._records = [], 0
        self._due_s = self._clock_s() + INTERVAL_S


def _write(unit: UnitOfWork, rows: Sequence[IndexRow], cursor: int, followed_to: int, place: int) -> int | None:
    """Write rows from `place` on. Returns the place behind them; None: that was all, and the cursor is written, too.

    Raises Overtaken.
    """
    if followed(unit.connection) != followed_to:
        raise Overtaken
    until_s = time.monotonic() + SLICE_S
    while True:
        add_index(unit.connection, rows[place : place + _PART])
        place += _PART
        if place >= len(rows):
            unit.connection.execute(SET_CURSOR, (CURSOR, cursor))
            return None
        if time.monotonic() >= until_s:
            return place


def _by_page(rows: Sequence[IndexRow]) -> list[IndexRow]:
    """Group rows by the first bits of their key, so that rows of one page are adjacent.

    A full sort costs more than it saves.
    """
    groups: list[list[IndexRow]] = [[] for _ in range(1 << _GROUP_BITS)]
    for row in rows:
        groups[row[0] >> 64 - _GROUP_BITS].append(row)  # a negative key is one of a group in the second half
    return list(chain.from_iterable(groups))
