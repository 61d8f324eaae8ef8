"""One HTTP connection to the API, with the limits that uvicorn lacks: size of heads, duration, number of connections.

It does not interpret requests. A client over a limit is disconnected without an answer: it is hostile or gone. When all
connections are in use, a new one replaces an idle or half-open one of the address that has the most.
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
# Connections of one IPv4 address or IPv6 /64. Loopback is exempt: a reverse proxy connects from there.
MOST_FROM_ONE = 100
MAX_HEAD = 1 << 16  # bytes read before a head is complete
MAX_REQUEST = 1 << 24  # bytes of a request with chunk framing: more than the largest body (`ApiSettings`)
REQUEST_S = 30.0  # to receive a request, and to wait for its first byte
STALLED_S = 60.0  # to wait for a client that does not read its answer

_arrivals = count()


class Connection(HttpToolsProtocol):
    """The protocol class for uvicorn's option `http`."""

    source = ""  # IPv4 address or IPv6 /64
    _arriving: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _in_head = True
    _read = 0  # bytes of this request
    _arrival = 0  # number in the order of arrival

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        self.source = source_of(host) if host else ""
        self._arrival = next(_arrivals)
        if self._is_over_share(host) or not self._make_room():
            self.connections.discard(self)
            transport.abort()
            return
        self._await_request()

    def _is_over_share(self, host: str) -> bool:
        if not host or ip_address(host.partition("%")[0]).is_loopback:
            return False
        connections: set[Any] = self.connections
        return len([each for each in connections if each.source == self.source]) > MOST_FROM_ONE

    def _make_room(self) -> bool:
        """Whether the connection may stay, after evicting the oldest idle one of the largest source if all are used."""
        connections: set[Any] = self.connections
        if len(connections) < MOST_CONNECTIONS:  # at this number uvicorn answers 503 to everyone
            return True
        had = Counter(each.source for each in connections)
        others = [each for each in connections if each.source != self.source and each.may_go]
        chosen = max(others, key=lambda each: (had[each.source], -each._arrival), default=None)
        if chosen is None or had[chosen.source] < had[self.source]:
            return False
        connections.discard(chosen)
        chosen.transport.abort()
        return True

    @property
    def may_go(self) -> bool:
        """Whether the connection waits for its client: for a request, for the rest of one, or to read an answer."""
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
