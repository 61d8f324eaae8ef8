"""One HTTP connection to the API, and the bounds that uvicorn does not set: on heads, on time, on how many there are.

It knows nothing of requests. Whoever passes a bound is disconnected: who does so means no good, or is gone. What an
address leaves unused of the connections others may have, until it wants it: where there are as many as there may be, a
new one takes the place of one that is idle, or half open, of the address with the most.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from ipaddress import ip_address
from itertools import count
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from relay.call.bans import source_of

MOST_CONNECTIONS = 1_000
# From one address or IPv6 network of 64 bits. This machine's have no such bound: a proxy in front of us is there.
MOST_FROM_ONE = 100
MAX_HEAD = 1 << 16  # bytes until a head is complete, and what was read with them
MAX_REQUEST = 1 << 24  # bytes of a request with its chunks' own: more than the largest body has (`ApiSettings`)
REQUEST_S = 30.0  # from the first byte of a request to the last, and before the first
STALLED_S = 60.0  # that an answer waits for a client to read

_places = count()


class Connection(HttpToolsProtocol):
    """Give it to uvicorn as its `http`."""

    source = ""  # who has it: an IPv4 address, or an IPv6 network of 64 bits
    _arriving: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = True
    _read = 0  # bytes of this request
    _place = 0  # in the order of arrival

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        self.source = source_of(host) if host else ""
        self._place = next(_places)
        if self._are_too_many(host) or not self._has_room():
            self.connections.discard(self)
            transport.abort()
            return
        self._await_request()

    def _are_too_many(self, host: str) -> bool:
        if not host or ip_address(host.partition("%")[0]).is_loopback:
            return False
        connections: set[Any] = self.connections
        return len([each for each in connections if each.source == self.source]) > MOST_FROM_ONE

    def _has_room(self) -> bool:
        """Whether there are fewer than there may be, or one that goes for it: of whoever has the most, the oldest."""
        connections: set[Any] = self.connections
        if len(connections) < MOST_CONNECTIONS:  # where there are as many, uvicorn answers 503 to all
            return True
        had = Counter(each.source for each in connections)
        others = [each for each in connections if each.source != self.source and each.may_go]
        chosen = max(others, key=lambda each: (had[each.source], -each._place), default=None)
        if chosen is None or had[chosen.source] < had[self.source]:
            return False
        connections.discard(chosen)
        chosen.transport.abort()
        return True

    @property
    def may_go(self) -> bool:
        """Whether it waits for its client: for the rest of a request, for the next one, or to have an answer read."""
        is_answered = self.cycle is None or self.cycle.response_complete
        return is_answered or self._arriving is not None or self._stalled is not None

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
