"""What workers inherit from their parent, which keeps it open while it serves: it outlives every one of them."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from itertools import chain
from typing import Any, Final

from structlog.typing import FilteringBoundLogger

from relay.call.settings import Listener
from relay.net.mates import make_pairs
from relay.net.ports import open_ports
from relay.net.shared import make_region

FREED_S: Final = 2.0
AGAIN_S: Final = 0.1


class Inherited:
    """The sockets of the UDP listeners, those between the workers, and the memory that they share."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pairs = make_pairs(workers)
        self._region = make_region(workers)
        self._ports: dict[int, list[socket.socket]] = {}  # of each UDP listener, one a worker

    async def listen(self, index: int, listener: Listener, log: FilteringBoundLogger) -> None:
        """Raises OSError. Workers of a relay that has just died may hold the address for a moment."""
        clock = asyncio.get_running_loop().time
        until = clock() + FREED_S
        while index not in self._ports:
            try:
                self._ports[index] = open_ports(listener, self._workers, log)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or clock() > until:
                    raise
                await asyncio.sleep(AGAIN_S)

    def by_use(self, worker: int) -> dict[str, Any]:
        """The descriptors of a worker, as `relay.worker.WorkerNetwork` takes them."""
        return {
            "sockets": {str(index): ports[worker].fileno() for index, ports in self._ports.items()},
            "own": self._pairs[worker][0].fileno(),
            "mates": [writing.fileno() for _, writing in self._pairs],
            "region": self._region,
        }

    def descriptors(self, worker: int) -> list[int]:
        """The same, to be passed on."""
        own = self.by_use(worker)
        return [own["own"], own["region"], *own["mates"], *own["sockets"].values()]

    def close(self) -> None:
        for each in chain(*self._pairs, *self._ports.values()):
            each.close()
        os.close(self._region)
