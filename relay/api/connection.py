"""One HTTP connection to the API, and the bounds that uvicorn does not set: on heads, on time, on how many there are.

It knows nothing of requests. Whoever passes a bound is disconnected: who does so means no good, or is gone.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_CONNECTIONS = 1_000
MOST_FROM_ONE = 100  # address, but this machine's: a proxy in front of us is there
MAX_HEAD = 1 << 16  # bytes until a head is complete, and what was read with them
MAX_REQUEST = 1 << 24  # bytes of a request with its chunks' own: more than the largest body has (`ApiSettings`)
REQUEST_S = 30.0  # from the first byte of a request to the last, and before the first
STALLED_S = 60.0  # that an answer waits for a client to read


class Connection(HttpToolsProtocol):
    """Give it to uvicorn as its `http`."""

    _arriving: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = True
    _read = 0  # bytes of this request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        full = len(self.connections) >= MOST_CONNECTIONS - 1  # where there are as many, uvicorn answers 503 to all
        super().connection_made(transport)
        if full or self._are_too_many():
            transport.abort()
            return
        self._await_request()

    def _are_too_many(self) -> bool:
        host = self.client[0] if self.client else ""
        if not host or ip_address(host.partition("%")[0]).is_loopback:
            return False
        connections: set[Any] = self.connections
        return len([each for each in connections if each.client is not None and each.client[0] == host]) > MOST_FROM_ONE

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel()
        self.resume_writing()
        super().connection_lost(exc)

    # -- requests

    def data_received(self, data: bytes) -> None:
        if self._arriving is None:
            self._await_request()
        self._read += len(data)
        super().data_received(data)
        if self._read > (MAX_HEAD if self._in_head else MAX_REQUEST):
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._in_head, self._read = True, 0
        if self._arriving is None:
            self._await_request()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head, self._read = True, 0
        self._cancel()
        super().on_message_complete()

    def _await_request(self) -> None:
        self._cancel()
        self._arriving = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _cancel(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    # -- answers

    def pause_writing(self) -> None:
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()
