"""The TLS listener of the API. It limits concurrent handshakes: a new one evicts the oldest of the largest source.

uvicorn and `Connection` first see a connection after its handshake, which is the dearest step an unknown client can
cause. Established connections are not its concern.
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
_AT_ONCE = 100  # connections accepted in one turn of the event loop
_PAUSE_S = 1.0  # before the next accept when file descriptors have run out


class TlsListener:
    """A listening socket that accepts TLS until it is closed; one of uvicorn's `servers`."""

    def __init__(self, listening: socket.socket, make: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self._listening = listening
        self._make = make
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[asyncio.Task[None], str] = {}  # handshake -> source, in the order of arrival
        self._closed = False
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._go_on()

    def close(self) -> None:
        """Stop accepting, and cancel the handshakes under way."""
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
            connected.close()  # the loop closes it only if the task had started

    async def _shake_hands(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        with contextlib.suppress(OSError):  # failed or slow handshake, or client gone
            await self._loop.connect_accepted_socket(
                self._make, connected, ssl=self._context, ssl_handshake_timeout=HANDSHAKE_S
            )
