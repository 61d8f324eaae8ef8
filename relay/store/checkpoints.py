"""The last purged link of each chain, from which the rest is verified. Owns the table `checkpoint`."""

from __future__ import annotations

from typing import Final

from relay.store.chain import EMPTY, Chain, Head
from relay.store.connection import Connection
from relay.store.ledger import require
from relay.store.sealing import Sealer
from relay.store.unit_of_work import UnitOfWork

_SELECT: Final = "SELECT seq, hash FROM checkpoint WHERE chain = ?"
_PUT: Final = (
    "INSERT INTO checkpoint (chain, seq, hash, at) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (chain) DO UPDATE SET seq = ?2, hash = ?3, at = ?4"
)


def read_checkpoint(connection: Connection, sealer: Sealer, chain: Chain) -> Head:
    """The last purged link; EMPTY if none was. Raises StoreError if it was changed from outside.

    If it was deleted, the links before the first one left show as missing.
    """
    require(connection, sealer, "checkpoint", [chain.name])
    row = connection.execute(_SELECT, (chain.name,)).fetchone()
    return EMPTY if row is None else Head(*row)


def write_checkpoint(act: UnitOfWork, chain: Chain, head: Head) -> None:
    """Set the checkpoint to `head`, the last link purged in this transaction. Call it before deleting the links."""
    act.connection.execute(_PUT, (chain.name, *head, act.now_ms))
