"""What tests write into a store by SQL, vouched for: as if relay700 had written it."""

from __future__ import annotations

from contextlib import closing

from relay.store.connection import Connection, transaction
from relay.store.database import connect
from relay.store.ledger import sign_all
from relay.store.sealing import Sealer
from relay.store.server import Place


def vouch(place: Place, sealer: Sealer) -> None:
    """Every row as it is now."""
    with closing(connect(place)) as connection:
        vouch_by(connection, sealer)


def vouch_by(connection: Connection, sealer: Sealer) -> None:
    """The same over a connection that is open already."""
    with transaction(connection):
        sign_all(connection, sealer)
