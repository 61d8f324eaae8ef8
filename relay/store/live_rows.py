"""The row of a call that is up, in the table `live_call`: sealed whole, so that a restart can resume the call.

Owns the columns and the encoding. The journal adds and deletes rows: when a call ends, its record moves to
`call_record`, which is append-only in the order of the chain.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from relay.call.actions import Commit
from relay.call.record import CallRecord
from relay.errors import StoreError
from relay.store.connection import Connection
from relay.store.database import connect_reader, store_errors
from relay.store.outage import Report
from relay.store.record_rows import Row, decode_record, encode_record
from relay.store.sealing import Sealer
from relay.store.server import Place, Server

PUT: Final = "INSERT OR REPLACE INTO live_call (id, call_id, sealed) VALUES"
SELECT: Final = "SELECT id, call_id, sealed FROM live_call ORDER BY id"
_SELECT_OF_NODE: Final = "SELECT id, call_id, sealed FROM live_call WHERE node = ? ORDER BY id, call_id"
_PLACES: Final = "SELECT call_id, id FROM live_call"

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode


class LiveCall(NamedTuple):
    """An opened row: the record of a call that is up, and its dialogs (opaque), which a restart resumes."""

    record: CallRecord
    dialogs: bytes


def live_row(sealer: Sealer, place: int, record: CallRecord, dialogs: bytes) -> Row:
    """Build the row of a call that is up. The sealed part is bound to the other two columns."""
    call_id = record.call_id
    return (place, call_id, sealer.seal(_encode((encode_record(record), dialogs)), _context(place, call_id)))


def open_live(sealer: Sealer, row: Row) -> LiveCall:
    """Open a row of `SELECT`. Raises StoreError naming the record if it was altered."""
    place, call_id, sealed = row
    try:
        encoded, dialogs = _decode(sealer.open_(sealed, _context(place, call_id)))
        return LiveCall(decode_record(encoded), dialogs)
    except (StoreError, msgspec.DecodeError):
        raise StoreError(f"call record {call_id} was altered") from None


def read_live(place: Place, sealer: Sealer, report: Report) -> list[LiveCall]:
    """Read the calls that are up, on a server those of this node, with their dialogs. Raises StoreError.

    Altered rows are reported and left out.
    """
    with store_errors(place), closing(connect_reader(place)) as connection:
        if isinstance(place, Server):
            return open_all(sealer, connection.execute(_SELECT_OF_NODE, (place.node,)), report)
        return open_all(sealer, connection.execute(SELECT), report)


def open_all(sealer: Sealer, rows: Iterable[tuple[Any, ...]], report: Report) -> list[LiveCall]:
    """Open rows of `SELECT`. Altered rows are reported and left out."""
    calls: list[LiveCall] = []
    for row in rows:
        try:
            calls.append(open_live(sealer, row))
        except StoreError as error:
            report("journal.record_altered", {"call_id": row[1], "reason": str(error)})
    return calls


def laid_over(calls: Iterable[LiveCall], commits: Iterable[Commit]) -> list[LiveCall]:
    """The calls that are up after `commits`, which the store may have taken after `calls` were read."""
    up = {call.record.call_id: call for call in calls}
    for commit in commits:
        if commit.record.ended_at is None:
            up[commit.record.call_id] = LiveCall(commit.record, commit.dialogs or b"")
        else:
            up.pop(commit.record.call_id, None)
    return list(up.values())


class Places:
    """The row of each call that is up. A new call reuses the row of one that ended, so that fewer pages are written."""

    def __init__(self, connection: Connection) -> None:
        self._taken: dict[str, int] = dict(connection.execute(_PLACES).fetchall())
        self._next = max(self._taken.values(), default=0) + 1
        self._free = sorted(set(range(1, self._next)) - set(self._taken.values()), reverse=True)

    def vacate(self, call_id: str) -> int | None:
        """Release the row of a call that has ended. None if it had none."""
        return self._taken.pop(call_id, None)

    def of(self, call_id: str, vacated: list[int]) -> int:
        """The row of a call: its present one, else one popped from `vacated`, else a free one."""
        place = self._taken.get(call_id)
        if place is None:
            if not vacated and not self._free:
                self._free.append(self._next)
                self._next += 1
            self._taken[call_id] = place = (vacated or self._free).pop()
        return place

    def free(self, vacated: list[int]) -> None:
        """Return deleted rows for later use."""
        self._free += vacated


def delete_live(connection: Connection, places: list[int]) -> None:
    """Delete rows in one statement, padded to a power of two, so that there are few prepared statements."""
    count = 1 << (len(places) - 1).bit_length()
    connection.execute(_delete(count), places + places[-1:] * (count - len(places)))


@cache
def _delete(count: int) -> str:
    return f"DELETE FROM live_call WHERE id IN ({', '.join('?' * count)})"


def _context(place: int, call_id: str) -> bytes:
    return f"live {place} {call_id}".encode()
