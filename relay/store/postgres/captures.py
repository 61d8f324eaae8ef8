"""The captures of all nodes of a server: the table `capture`, with a partition for each day (UTC), made on demand.

The size of the ring is that of its rows. The disk gets the room of a day back when its partition is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from relay.store.connection import Connection, PostgresServer
from relay.store.database import connect

_DAY_US: Final = 86_400_000_000
_LOCK: Final = 700_000_005  # for pg_advisory_xact_lock, while a partition is made
_ROW: Final = 128  # bytes of a row beside what is sealed
_FIND: Final = "SELECT CAST(to_regclass(?) AS text)"
_USED: Final = f"SELECT coalesce(sum(length(sealed) + {_ROW}), 0) FROM capture"
_PARTITIONS: Final = """
SELECT relname, CAST(CAST(inhrelid AS regclass) AS text) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
WHERE inhparent = CAST('capture' AS regclass) ORDER BY relname
"""


class CapturePartitions:
    """As `relay.store.captures.CaptureStatements`."""

    begin = "BEGIN READ WRITE"
    size = "length(sealed)"

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def is_there(self) -> bool:
        return True

    def is_current(self) -> bool:
        return True

    def connect(self) -> Connection:
        return connect(self._server)

    def damage(self, error: Exception) -> str | None:
        return None

    def remove(self) -> None:
        pass

    def make_room(self, connection: Connection, times_us: Iterable[int]) -> None:
        for day in sorted({at // _DAY_US for at in times_us}):
            if connection.execute(_FIND, (_name(day),)).fetchone() == (None,):
                connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
                for statement in _partition(day):
                    connection.execute(statement)

    def used(self, connection: Connection) -> int:
        (found,) = connection.execute(_USED).fetchone()
        return int(found)

    def give_back(self, connection: Connection, max_bytes: int, oldest_us: int) -> None:
        oldest = _name(oldest_us // _DAY_US)
        for name, quoted in connection.execute(_PARTITIONS).fetchall():
            if name < oldest:
                connection.execute(f"DROP TABLE {quoted}")


def _name(day: int) -> str:
    """The name of the partition of a day since 1970. Names sort by day."""
    return f"capture_{datetime.fromtimestamp(day * 86_400, UTC):%Y%m%d}"


def _partition(day: int) -> Iterator[str]:
    # Sealed bytes do not compress, and are kept apart: a sum over the rows need not read them.
    yield (
        f"CREATE TABLE IF NOT EXISTS {_name(day)} PARTITION OF capture"
        f" FOR VALUES FROM ({day * _DAY_US}) TO ({(day + 1) * _DAY_US}) WITH (toast_tuple_target = 128)"
    )
    yield f"ALTER TABLE {_name(day)} ALTER COLUMN sealed SET STORAGE EXTERNAL"
