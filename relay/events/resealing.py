"""Resealing of current rows in the background after a change of the sealing key.

While the key file has several keys, a pass runs at each start and each day, for rows that an interrupted pass left.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from structlog.typing import FilteringBoundLogger

from relay.errors import RelayError
from relay.events.outage import Outage
from relay.store.reseal import reseal
from relay.store.sealing import Sealer
from relay.store.server import Place

LOOK_S: Final = 1.0
AGAIN_S: Final = 86_400.0  # a command that ran during the change may have sealed with the former key
RETRY_S: Final = 60.0


class Resealer:
    """The resealing task of the backend: `run` it until it is cancelled. It uses the key of the backend's writer."""

    def __init__(self, path: Place, sealer: Sealer, log: FilteringBoundLogger) -> None:
        self._path = path
        self._sealer = sealer
        self._log = log
        self._outage = Outage("reseal", log)
        self._ending = threading.Event()

    async def run(self) -> None:
        """Make a pass after each change of the key, and each day."""
        clock = asyncio.get_running_loop().time
        sealed_with, due = 0, 0.0
        try:
            while True:
                key_id, now = self._sealer.key_id, clock()
                if key_id != sealed_with or now >= due:
                    sealed_with, due = key_id, now + await self.make_pass()
                await asyncio.sleep(LOOK_S)
        finally:
            self._ending.set()

    async def make_pass(self) -> float:
        """Make one pass in a thread, with a separate writer. Returns the seconds until the next."""
        if len(self._sealer.key_ids) == 1:
            return AGAIN_S
        try:
            rows = await asyncio.to_thread(reseal, self._path, self._sealer, lambda: not self._ending.is_set())
        except RelayError as error:
            self._outage.failed(error)
            return RETRY_S
        self._outage.over()
        self._log.info("reseal.done", key=self._sealer.key_id, rows=rows)
        return AGAIN_S
