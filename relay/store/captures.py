"""Captures of calls at rest: sealed rows in a ring that is bounded by size and age.

With a store in a file they are in a file of their own beside it (`relay.store.sqlite.captures`); on a server, in the
table `capture`, a partition a day (`relay.store.postgres.captures`). Call id, time of the first message and share of
the room (a keyed hash) are in clear; all else is compressed and sealed to the call id. A call may have several rows,
each a part of its messages.

Captures are no evidence: the ledger does not prove them, and a file that is damaged or missing holds none. It is made
anew with the next call to save.
"""

from __future__ import annotations

import threading
import zlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, chain
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from relay.errors import AlteredError, Report, StoreError
from relay.model.capture import CapturedCall, decode, encode
from relay.store.capture_shares import cut_amounts, read_share, share_of, stored_share
from relay.store.connection import DATABASE_ERRORS, Connection, Place, PostgresServer
from relay.store.database import store_errors
from relay.store.postgres.captures import CapturePartitions
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.captures import CaptureFile

T = TypeVar("T")

MOST_PARTS: Final = 500  # rows that `load` joins: the newest, as registrations of a peer never end
MOST_LOADED: Final = 4_000_000  # bytes of messages that it joins: a peer may register as often as it likes
_LEVEL: Final = 1  # of zlib: 8 kB of SIP in 60 us; level 6 saves 5% more and takes twice as long
_PAGE: Final = 200  # rows

_PUT: Final = "INSERT INTO capture (call_id, at, sealed, share) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_LOAD: Final = "SELECT sealed FROM capture WHERE call_id = ? ORDER BY at DESC LIMIT ?"
_COUNT: Final = "SELECT count(*) FROM capture"
_OLDEST: Final = "SELECT min(at) FROM capture"
_COUNT_OLD: Final = "SELECT count(*) FROM capture WHERE at < ?"
_DELETE_OLD: Final = "DELETE FROM capture WHERE at < ?"
_SHARES: Final = "SELECT share, sum({}) FROM capture GROUP BY share"
_OLDEST_OF_SHARE: Final = "SELECT at, length(sealed) FROM capture WHERE share = ? ORDER BY at LIMIT ?"
_DELETE_OF_SHARE: Final = "DELETE FROM capture WHERE share = ? AND at <= ?"
_PAGE_AFTER: Final = "SELECT call_id, at, sealed FROM capture WHERE (call_id, at) > (?, ?) ORDER BY call_id, at LIMIT ?"
_KEYS: Final = "SELECT substr(sealed, 1, 1), count(*) FROM capture GROUP BY substr(sealed, 1, 1)"
_RESEAL: Final = "UPDATE capture SET sealed = ? WHERE call_id = ? AND at = ?"


class CaptureStatements(Protocol):
    """Statements on captures that differ between SQLite and PostgreSQL."""

    begin: str  # the statement that begins a write transaction
    size: str  # the expression for the bytes of a row that are sealed

    def is_there(self) -> bool: ...
    def connect(self) -> Connection:
        """Open it, and make what is missing."""

    def is_current(self) -> bool:
        """Whether the open connection is to the file in place."""

    def damage(self, error: Exception) -> str | None:
        """The reason why the file cannot be used; None for any other error."""

    def remove(self) -> None:
        """Delete a damaged file."""

    def make_room(self, connection: Connection, times_us: Iterable[int]) -> None:
        """Prepare for rows of these times."""

    def used(self, connection: Connection) -> int:
        """The bytes of all rows."""

    def give_back(self, connection: Connection, max_bytes: int, oldest_us: int) -> None:
        """Give back to the disk what exceeds `max_bytes`, or held only rows before `oldest_us`."""


class CaptureSizes(NamedTuple):
    """The extent of all captures."""

    rows: int
    size: int  # bytes


class Captures:
    """The captures beside one store. Threads may share it. Each method raises StoreError if the store fails."""

    def __init__(self, place: Place, sealer: Sealer, report: Report = lambda event, fields: None) -> None:
        self._sealer = sealer
        self._report = report
        self._table: CaptureStatements
        self._place = place
        if isinstance(place, PostgresServer):
            self._table = CapturePartitions(place)
        else:
            self._table = file = CaptureFile(place)
            self._place = file.path
        self._connection: Connection | None = None
        self._damage: str | None = None  # that a reader met
        self._lock = threading.Lock()

    def save(self, calls: Sequence[CapturedCall]) -> None:
        """Add calls, or further parts of calls. A call without messages is left out."""
        rows = [self._row(call) for call in calls if call.messages]
        if not rows:
            return

        def put(connection: Connection) -> None:
            self._table.make_room(connection, (at for _, at, *_ in rows))
            connection.executemany(_PUT, rows)

        self._write(put)

    def load(self, call_id: str) -> CapturedCall | None:
        """All that is kept of a call, or the newest MOST_LOADED bytes of it. Raises StoreError if it was altered."""
        sealed: list[bytes] = self._read(lambda connection: _newest(connection, call_id), [])
        parts: list[CapturedCall] = []
        size = 0
        for each in sealed:
            if size > MOST_LOADED:
                break
            parts.insert(0, self._opened(call_id, each))
            size += sum(len(message.data) for message in parts[0].messages)
        return joined(parts) if parts else None

    def trim(self, max_bytes: int, before_ms: int) -> int:
        """Delete captures that began before `before_ms`, then, above `max_bytes`, the oldest of the largest shares.

        Return the number of rows.
        """
        if not self._is_there():
            return 0
        return self._write(lambda connection: self._trimmed(connection, max_bytes, before_ms * 1000))

    def count_before(self, before_ms: int) -> int:
        """The number of rows that began before `before_ms`."""
        return self._read(lambda connection: _first(connection, _COUNT_OLD, before_ms * 1000), 0)

    def sizes(self) -> CaptureSizes:
        def read(connection: Connection) -> CaptureSizes:
            return CaptureSizes(_first(connection, _COUNT), self._table.used(connection))

        return self._read(read, CaptureSizes(0, 0))

    # -- keys

    def reseal(self, going_on: Callable[[], bool] = lambda: True) -> int:
        """Reseal with the key in use. Return the number of rows. One that cannot be opened stays."""
        total = 0
        for page in self._pages():
            if not going_on():
                break
            old = [row for row in page if row[2][:1] != bytes([self._sealer.key_id])]
            new = [(self._resealed(call_id, sealed), call_id, at) for call_id, at, sealed in old]
            rows = [row for row in new if row[0]]
            if rows:
                self._write(partial(_update, rows=rows))
            total += len(rows)
        return total

    def needs(self) -> dict[int, int]:
        """The number of rows that need each key, by its id."""
        rows: list[tuple[bytes, int]] = self._read(lambda connection: connection.execute(_KEYS).fetchall(), [])
        return {first[0] if first else 0: count for first, count in rows}

    def verify(self) -> tuple[int, list[str]]:
        """The number of intact rows, and the fault of each other one. Whether its call has a record is not asked."""
        self._damage = None
        intact, faults = 0, []
        for page in self._pages():
            for call_id, _, sealed in page:
                try:
                    self._opened(call_id, sealed)
                except StoreError as error:
                    faults.append(str(error))
                else:
                    intact += 1
        return intact, faults if self._damage is None else [*faults, f"the captures {self._place}: {self._damage}"]

    def close(self) -> None:
        with self._lock:
            self._disconnect()

    # -- rows

    def _row(self, call: CapturedCall) -> tuple[str, int, bytes, bytes]:
        sealed = self._sealer.seal(zlib.compress(encode(call), _LEVEL), _context(call.call_id))
        return call.call_id, call.messages[0].at_us, sealed, stored_share(self._sealer, share_of(call))

    def _opened(self, call_id: str, sealed: bytes) -> CapturedCall:
        try:
            return decode(zlib.decompress(self._sealer.open_(sealed, _context(call_id))))
        except (StoreError, zlib.error, msgspec.MsgspecError) as error:
            raise AlteredError(f"the capture of {call_id} cannot be opened: {error}") from None

    def _resealed(self, call_id: str, sealed: bytes) -> bytes:
        """Empty if it cannot be opened."""
        context = _context(call_id)
        try:
            return self._sealer.seal(self._sealer.open_(sealed, context), context)
        except StoreError:
            return b""

    def _pages(self) -> Iterator[list[Any]]:
        """All rows by key, in pages. No transaction stays open between pages."""
        page: list[Any] = [("", 0)]
        while page := self._read(partial(_page_after, place=page[-1][:2]), []):
            yield page

    def _trimmed(self, connection: Connection, max_bytes: int, before_us: int) -> int:
        deleted = connection.execute(_DELETE_OLD, (before_us,)).rowcount
        while (used := self._table.used(connection)) > max_bytes:
            rows = connection.execute(_SHARES.format(self._table.size)).fetchall()
            if not rows:
                break
            stored = {read_share(share): share for share, _ in rows}
            sizes = {read_share(share): int(size) for share, size in rows}
            above = -(-sum(sizes.values()) * (used - max_bytes) // used)  # rows take more room than what is sealed
            for share, size in cut_amounts(sizes, above).items():
                deleted += _cut(connection, stored[share], size)
        (oldest_us,) = connection.execute(_OLDEST).fetchone()
        self._table.give_back(connection, max_bytes, before_us if oldest_us is None else oldest_us)
        return deleted

    # -- the connection

    def _is_there(self) -> bool:
        with store_errors(self._place):
            return self._table.is_there()

    def _read(self, query: Callable[[Connection], T], absent: T) -> T:
        with self._lock, self._errors():
            if not self._table.is_there():
                return absent
            try:
                return query(self._connected())
            except DATABASE_ERRORS as error:
                self._damage = self._table.damage(error)
                if self._damage is None:
                    raise
                self._disconnect()
                return absent

    def _write(self, do: Callable[[Connection], T]) -> T:
        with self._lock, self._errors():
            try:
                return self._in_transaction(do)
            except DATABASE_ERRORS as error:
                reason = self._table.damage(error)
                if reason is None:
                    raise
                self._disconnect()
                self._table.remove()
                self._report("captures.made_anew", {"file": str(self._place), "reason": reason})
                return self._in_transaction(do)

    def _in_transaction(self, do: Callable[[Connection], T]) -> T:
        connection = self._connected()
        connection.execute(self._table.begin)
        try:
            done = do(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return done

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with store_errors(self._place):
                yield
        except StoreError:
            self._disconnect()
            raise

    def _connected(self) -> Connection:
        if self._connection is not None and not self._table.is_current():
            self._disconnect()
        if self._connection is None:
            self._connection = self._table.connect()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _context(call_id: str) -> bytes:
    return f"capture {call_id}".encode()


def _update(connection: Connection, rows: list[tuple[bytes, str, int]]) -> None:
    connection.executemany(_RESEAL, rows)


def _page_after(connection: Connection, place: tuple[str, int]) -> list[Any]:
    return connection.execute(_PAGE_AFTER, (*place, _PAGE)).fetchall()


def _cut(connection: Connection, share: bytes, size: int) -> int:
    """Delete at least `size` bytes of a share, the oldest first. Return the number of rows."""
    deleted = 0
    while size > 0 and (rows := connection.execute(_OLDEST_OF_SHARE, (share, _PAGE)).fetchall()):
        sums = list(accumulate(each for _, each in rows))
        last = min(bisect_left(sums, size), len(rows) - 1)
        deleted += connection.execute(_DELETE_OF_SHARE, (share, rows[last][0])).rowcount
        size -= sums[last]
    return deleted


def _newest(connection: Connection, call_id: str) -> list[bytes]:
    """The rows of a call, the newest first, of somewhat more than MOST_LOADED bytes."""
    found: list[bytes] = []
    size = 0
    for (sealed,) in connection.execute(_LOAD, (call_id, MOST_PARTS)):
        found.append(sealed)
        size += len(sealed)
        if size > MOST_LOADED:
            break
    return found


def _first(connection: Connection, query: str, *parameters: int) -> int:
    (found,) = connection.execute(query, parameters).fetchone()
    return int(found)


def joined(parts: Sequence[CapturedCall]) -> CapturedCall:
    """The parts of one call as one."""
    return CapturedCall(
        parts[0].call_id,
        tuple(dict.fromkeys(chain.from_iterable(part.dialogs for part in parts))),
        tuple(sorted(chain.from_iterable(part.messages for part in parts), key=attrgetter("at_us"))),
        tuple(sorted(chain.from_iterable(part.marks for part in parts), key=attrgetter("at_us"))),
        sum(part.lost for part in parts),
        max(part.business for part in parts),
        any(part.is_armed for part in parts),
    )
