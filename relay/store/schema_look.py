"""Stops a process from granting anything while the schema has objects that relay700 did not make.

It looks about once a second at a value that changes with the schema, and at the objects themselves if it has changed;
at times in any case: anyone can write that value in a file, and on a server a column's NOT NULL does not change it.
There it is a hash over the catalogs, and the objects take 25 ms of the server's CPU. Transactions check the schema by
themselves.
"""

from __future__ import annotations

from typing import Final

from relay.errors import StoreError
from relay.store.connection import Connection, one_moment
from relay.store.ledger import read_ledger_head
from relay.store.ledger_tables import dialect_of
from relay.store.schema_check import different_objects, foreign_objects, schema_version
from relay.store.scripts import is_newer
from relay.store.sealing.sealer import Sealer

CHECK_EACH: Final = 5  # looks
CHECK_SERVER_EACH: Final = 60


class SchemaLook:
    """The looks of one process, or of one of its threads."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._check_each = CHECK_EACH
        self._version: object = None  # at the last check
        self._looks = 0

    def look(self, connection: Connection) -> None:
        """Set `Sealer.stopped`. Raises DATABASE_ERRORS."""
        with one_moment(connection):
            version = schema_version(connection)
            if self.is_due(version):
                self.conclude(self.reason(connection), version)

    def is_due(self, version: object) -> bool:
        """Whether the objects must be looked at, with this version of the schema."""
        self._looks += 1
        return version != self._version or self._looks % self._check_each == 0 or bool(self._sealer.stopped)

    def reason(self, connection: Connection) -> str:
        """Look at the objects. Returns the reason to grant nothing, "" if all are relay700's own. Raises
        DATABASE_ERRORS."""
        self._check_each = CHECK_SERVER_EACH if dialect_of(connection).is_server else CHECK_EACH
        try:
            found = foreign_objects(connection, read_ledger_head(connection, self._sealer).vouched)
        except StoreError:  # the head was altered
            found = [] if is_newer(connection) else different_objects(connection)
        return _reason(found) if found else ""

    def conclude(self, reason: str, version: object) -> None:
        """Set `Sealer.stopped`. `reason`: of the objects at this version of the schema."""
        self._sealer.stopped, self._version = reason, version


def _reason(found: list[str]) -> str:
    return (
        f"the store is not as relay700 made it, and grants nothing until that is corrected: {', '.join(found[:3])}."
        " `relay700 verify` shows more"
    )
