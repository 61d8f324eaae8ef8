"""TLS hand-shakes of the API: so many at once, and for one more the oldest goes of whoever has the most.

Until a hand-shake is over uvicorn and `Connection` know nothing of a connection, and it is where a stranger costs most.
It decides nothing about connections that are up.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial

from relay.call.bans import source_of

MOST_HANDSHAKES = 200
HANDSHAKE_S = 10.0
_BACKLOG = 2_048
_AT_ONCE = 100  # connections that are accepted before others have their turn
_PAUSE_S = 1.0  # where there is no descriptor left


class TlsListener:
    """Accepts until it is closed. uvicorn has it among its `servers`."""

    def __init__(self, listening: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self._listening = listening
        self._make = make
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[asyncio.Task[None], str] = {}  # whose each is, in the order of arrival
        self._closed = False
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._go_on()

    def close(self) -> None:
        """Accepts no more."""
        self._closed = True
        self._loop.remove_reader(self._listening)
        for task in self._under_way:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connected, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_PAUSE_S, self._go_on)
                return
            if len(self._under_way) >= MOST_HANDSHAKES:
                self._make_room()
            task = self._loop.create_task(self._shake_hands(connected))
            self._under_way[task] = source_of(address[0])
            task.add_done_callback(partial(self._done, connected))

    def _make_room(self) -> None:
        had = Counter(self._under_way.values())
        oldest = max(self._under_way, key=lambda task: had[self._under_way[task]])
        oldest.cancel()
        del self._under_way[oldest]

    def _done(self, connected: socket.socket, task: asyncio.Task[None]) -> None:
        self._under_way.pop(task, None)
        if task.cancelled():
            connected.close()  # the loop has not, where the task had not begun

    async def _shake_hands(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        with contextlib.suppress(OSError):  # TLS that failed or took too long, or nobody there
            await self._loop.connect_accepted_socket(
                self._make, connected, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )
