"""Rows that tests write by SQL, vouched for as if written by relay700."""

from __future__ import annotations

from contextlib import closing

from relay.store.connection import Connection, Place, transaction
from relay.store.database import connect
from relay.store.ledger import sign_all
from relay.store.sealing.sealer import Sealer


def vouch(place: Place, sealer: Sealer) -> None:
    """Vouch for every row as it is now."""
    with closing(connect(place)) as connection:
        vouch_by(connection, sealer)


def vouch_by(connection: Connection, sealer: Sealer) -> None:
    """The same over an open connection."""
    with transaction(connection):
        sign_all(connection, sealer)
