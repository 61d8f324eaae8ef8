"""Fills a history of rights from the audit log.

The entries are verified one by one, each with the link before it: an entry that was altered or removed is named, and
those behind it still count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from relay.errors import StoreError
from relay.store.audit import LoggedEntry, read_checkpoint
from relay.store.chain import AUDIT, EMPTY, Head, read_head, stored_link
from relay.store.connection import Connection
from relay.store.history import ENDS, OWN, History
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import SELECT, AuditRow, anchor_of, follow_entry, open_entry

CHUNK: Final = 10_000  # entries read at once
_LINKS: Final = f"{SELECT} WHERE seq >= ? AND seq <= ? ORDER BY seq"
_HASH: Final = "SELECT hash FROM audit WHERE seq = ?"


@dataclass(slots=True)
class LogReader:
    """Fills a history from the log: new entries at once, older ones in chunks, the latest first."""

    sealer: Sealer
    history: History = field(default_factory=History)
    faults: list[str] = field(default_factory=list)  # of the log itself
    _head: Head = EMPTY  # the last entry read
    _first: int | None = None  # the oldest entry read; None: none was
    is_complete: bool = False  # whether all entries were read

    def take_faults(self) -> list[str]:
        """The faults found since the last time: of the log, and uses of keys after their ends."""
        found = [*self.faults, *self.history.faults]
        self.faults.clear()
        self.history.faults.clear()
        return found

    def read_new(self, connection: Connection) -> None:
        """Read what was added. Within `one_moment`, before `History.contradictions`. Raises StoreError."""
        last = read_head(connection, self.sealer, AUDIT)
        if self._first is None:
            self._first, self._head = last.seq + 1, last
        while self._head.seq < last.seq:
            until = min(self._head.seq + CHUNK, last.seq)
            self._read(connection, self._head, until)
            self._head = _link(connection, until)

    def read_older(self, connection: Connection, *, all_: bool = False) -> None:
        """Read one chunk of older entries, or all. Raises StoreError."""
        while not self.is_complete and self._first is not None:
            purged = read_checkpoint(connection, self.sealer, AUDIT)
            begin = max(self._first - 1 - CHUNK, purged.seq)
            before = purged if begin == purged.seq else _link(connection, begin)
            self._read(connection, before, self._first - 1)
            self._first = begin + 1
            self.is_complete = begin == purged.seq
            if not all_:
                return

    def _read(self, connection: Connection, before: Head, last: int) -> None:
        rows = connection.execute(_LINKS, (before.seq + 1, last)).fetchall()
        for logged in read_links(self.sealer, before, rows, self.faults):
            self.history.take(logged)
        if (rows[-1][0] if rows else before.seq) < last:
            self.faults.append(f"entry {last} of the audit log is missing")


def _link(connection: Connection, seq: int) -> Head:
    """The stored link of an entry. A missing entry, which is a fault, gives a link that nothing follows."""
    row = connection.execute(_HASH, (seq,)).fetchone()
    return stored_link(seq, None if row is None else row[0])


def read_links(sealer: Sealer, before: Head, rows: Sequence[AuditRow], faults: list[str]) -> Iterator[LoggedEntry]:
    """The entries of rows of `SELECT`, each verified with the link before it, that a history needs.

    An altered one is named in `faults`, and left out.
    """
    for row in rows:
        seq, _, actor, action, *_, hash_ = row
        try:
            follow_entry(sealer, before, row)
            if action in OWN or actor.startswith("key:"):
                yield LoggedEntry(seq, open_entry(sealer, row), anchor_of(sealer, row).seq if action in ENDS else 0)
        except StoreError as error:
            faults.append(str(error))
        before = stored_link(seq, hash_)
