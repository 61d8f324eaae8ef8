"""The configurations that a relay has had in force: their texts, sealed, since they hold numbers of logins.

Owns the table `configuration`: a row for each change, of each node. `relay.config.kept` writes and reads it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from relay.store.connection import Connection, Place, PostgresServer
from relay.store.sealing.rows import SealedRows
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_LATEST: Final = "SELECT hash FROM configuration WHERE node = ? ORDER BY at DESC LIMIT 1"
_ADD: Final = "INSERT INTO configuration (node, at, hash, sealed) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
# Rows of a store in a file stay as they are when it moves to a server.
_AT: Final = "SELECT node, at, sealed FROM configuration WHERE node IN (?, '') AND at <= ? ORDER BY at DESC LIMIT 1"
# A configuration whose successor is past its retention as well was not in force at any time that is kept.
_PURGE: Final = """
DELETE FROM configuration WHERE (node, at) IN (
    SELECT node, at FROM configuration AS former WHERE at < ?1 AND EXISTS (
        SELECT 1 FROM configuration AS later WHERE later.node = former.node AND later.at > former.at AND later.at < ?1)
    LIMIT ?2)
"""


class KeptConfiguration(NamedTuple):
    """A configuration, in force from `at_ms` on."""

    at_ms: int
    text: str


def node_of(place: Place) -> str:
    """The node in whose name configurations of this store are kept."""
    return place.node if isinstance(place, PostgresServer) else ""


def is_in_force(connection: Connection, sealer: Sealer, node: str, text: str) -> bool:
    """Whether the text is the one that was kept last."""
    row = connection.execute(_LATEST, (node,)).fetchone()
    return row is not None and bytes(row[0]) == _hash(sealer, text)


def put_configuration(unit: UnitOfWork, node: str, text: str) -> None:
    """Keep the text as in force from now on."""
    sealed = unit.sealer.seal(text.encode(), _context(node, unit.now_ms))
    unit.connection.execute(_ADD, (node, unit.now_ms, _hash(unit.sealer, text), sealed))


def find_configuration(connection: Connection, sealer: Sealer, node: str, at_ms: int) -> KeptConfiguration | None:
    """The configuration in force at a time; None if none was kept. Raises StoreError if it was altered."""
    row = connection.execute(_AT, (node, at_ms)).fetchone()
    return None if row is None else KeptConfiguration(row[1], sealer.open_(row[2], _context(row[0], row[1])).decode())


def purge_configurations(unit: UnitOfWork, before_ms: int, most: int) -> int:
    """Delete at most `most` configurations that were not in force since `before_ms`. Return their number."""
    return unit.connection.execute(_PURGE, (before_ms, most)).rowcount


def _hash(sealer: Sealer, text: str) -> bytes:
    return sealer.lookup_hash(f"configuration {text}")


def _context(node: str, at: int) -> bytes:
    return f"configuration {node} {at}".encode()


SEALED_CONFIGURATIONS = SealedRows("configuration", ("node", "at"), ("node", "at"), _context)
