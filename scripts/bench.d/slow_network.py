"""A network with a round trip of a given time: a TCP proxy that delays each direction by half of it.

It runs as a process of its own: `slow_network.py HOST PORT SOCKET ROUND_TRIP_MS`, to the server at that Unix socket.
Bytes wait in a queue with the time at which each is due, so that many can be under way: the delay costs no throughput.
"""

from __future__ import annotations

import asyncio
import ctypes
import selectors
import sys
from collections import deque

_PR_SET_TIMERSLACK = 29
_SLACK_NS = 1_000  # Linux gives 50,000


class _Direction(asyncio.Protocol):
    """One direction: passes on data, and its end, to the other side's transport `to`, `delay_s` later."""

    def __init__(self, delay_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._delay_s = delay_s
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._is_armed = False
        self.connected: asyncio.Future[asyncio.Transport] = self._loop.create_future()
        self.to: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.connected.set_result(transport)

    def data_received(self, data: bytes) -> None:
        self._waiting.append((self._loop.time() + self._delay_s, data))
        self._arm()

    def connection_lost(self, error: Exception | None) -> None:
        self.data_received(b"")

    def _arm(self) -> None:
        if self._waiting and self.to is not None and not self._is_armed:
            self._is_armed = True
            self._loop.call_at(self._waiting[0][0], self._pass_on)

    def pass_to(self, transport: asyncio.Transport) -> None:
        """Begin to pass on, also what came before."""
        self.to = transport
        self._arm()

    def _pass_on(self) -> None:
        assert self.to is not None
        self._is_armed = False
        now = self._loop.time()
        while self._waiting and self._waiting[0][0] <= now:
            data = self._waiting.popleft()[1]
            if data:
                self.to.write(data)
            else:
                self.to.close()
        self._arm()


async def _serve(host: str, port: int, socket: str, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    joining: set[asyncio.Task[None]] = set()

    async def join(client: _Direction) -> None:
        transport, server = await loop.create_unix_connection(lambda: _Direction(delay_s), socket)
        server.pass_to(await client.connected)
        client.pass_to(transport)

    def accept() -> _Direction:
        client = _Direction(delay_s)
        task = loop.create_task(join(client))
        joining.add(task)
        task.add_done_callback(joining.discard)
        return client

    await (await loop.create_server(accept, host, port)).serve_forever()


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop with timers as exact as select(): epoll, and uvloop, have a resolution of 1 ms."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_serve(sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4]) / 2_000))
