"""Whose desk works on a shared store: one at a time, by a lock that the server lets go of when its holder is gone."""

from __future__ import annotations

import asyncio
from typing import Final

import asyncpg

from relay.errors import StoreError
from relay.store.nodes import SERVER_FAULTS
from relay.store.server import Server

DESK_LOCK: Final = 700_000_003  # of pg_try_advisory_lock
LOOK_S: Final = 1.0
PATIENCE_S: Final = 3.0


class Turn:
    """Of one desk among those of all nodes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection: asyncpg.Connection | None = None

    async def come(self) -> None:
        """Returns once it is ours, however long that takes. Whoever has it may be slow, or the server away."""
        while True:
            if await self._takes():
                return
            await asyncio.sleep(LOOK_S)

    async def keep(self) -> None:
        """Raises StoreError once it is not ours any more."""
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
