"""Leader election among the backends of a shared store, by a PostgreSQL advisory lock.

The server releases the lock when its holder dies.
"""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from relay.errors import StoreError
from relay.store.nodes import SERVER_FAULTS
from relay.store.server import Server

DESK_LOCK: Final = 700_000_003  # for pg_try_advisory_lock
LOOK_S: Final = 1.0
PATIENCE_S: Final = 3.0


class Turn:
    """The leader lock, as one backend sees it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: asyncpg.Connection | None = None

    async def come(self) -> None:
        """Return once the lock is ours. Retries for ever, also while the server is down."""
        while True:
            if await self._takes():
                return
            await asyncio.sleep(LOOK_S)

    async def keep(self) -> None:
        """Check the lock every second. Raises StoreError once it is lost."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                assert self._connection is not None  # come() made it
                await self._connection.fetchval("SELECT 1", timeout=PATIENCE_S)
            except SERVER_FAULTS as error:
                raise StoreError(f"the store {self._server} failed: {error}") from error

    async def _takes(self) -> bool:
        try:
            if self._connection is None:
                self._connection = await asyncpg.connect(self._server.url, timeout=PATIENCE_S)
            took = await self._connection.fetchval(f"SELECT pg_try_advisory_lock({DESK_LOCK})", timeout=PATIENCE_S)
            return bool(took)
        except SERVER_FAULTS:
            self.close()
            return False

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
