"""How far the oldest links of a chain were purged: it is verified from there on. It owns the table `checkpoint`."""

from __future__ import annotations

from typing import Final

from relay.store.act import Act
from relay.store.chain import EMPTY, Chain, Head
from relay.store.connection import Connection
from relay.store.ledger import require
from relay.store.sealing import Sealer

_SELECT: Final = "SELECT seq, hash FROM checkpoint WHERE chain = ?"
_PUT: Final = (
    "INSERT INTO checkpoint (chain, seq, hash, at) VALUES (?1, ?2, ?3, ?4)"
    " ON CONFLICT (chain) DO UPDATE SET seq = ?2, hash = ?3, at = ?4"
)


def read_checkpoint(connection: Connection, sealer: Sealer, chain: Chain) -> Head:
    """The last link that was purged; EMPTY where none was. Raises StoreError where somebody else wrote it.

    One that was removed shows as links that are missing: the first that is left is not number 1.
    """
    require(connection, sealer, "checkpoint", [chain.name])
    row = connection.execute(_SELECT, (chain.name,)).fetchone()
    return EMPTY if row is None else Head(*row)


def write_checkpoint(act: Act, chain: Chain, head: Head) -> None:
    """`head` is the last link that goes in the same transaction. To be called before they are deleted."""
    act.connection.execute(_PUT, (chain.name, *head, act.now_ms))
