"""The HTTP server of the API: uvicorn on one address, with limits on TLS handshakes and connections.

A new handshake evicts the oldest of the source with the most: it is the dearest step that an unknown client can cause.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from structlog.typing import FilteringBoundLogger
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from relay.defence.bans import source_of
from relay.net.hosts import family_of
from relay.net.tls import identity_context

LISTEN_AGAIN_S = 2.0
DATE_S = 1.0
GRACEFUL_S = 3  # for requests under way at shutdown


class Address(NamedTuple):
    host: str
    port: int
    certificate: Path | None = None  # PEM files; None: no TLS
    key: Path | None = None


class HttpServer:
    """A server that serves from `run` until `finish`."""

    def __init__(self, app: ASGIApp, address: Address, log: FilteringBoundLogger, setting: str = "api.listen") -> None:
        """`setting`: where the address is configured, for the log."""
        self._address = address
        self._setting = setting
        self._log = log
        self._finishing = asyncio.Event()
        self._server = _Server(
            self._finishing,
            uvicorn.Config(
                app,
                loop="none",
                http=HttpConnection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # its warnings report every malformed request from the internet
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=MOST_CONNECTIONS,
                timeout_graceful_shutdown=GRACEFUL_S,
                ssl_certfile=address.certificate,
                ssl_keyfile=address.key,
            ),
        )

    def load_certificate(self) -> None:
        """Read the certificate again, for new connections. Raises ConfigError; the one in use then stays."""
        _, _, certificate, key = self._address
        if certificate is not None and key is not None:
            self._server.config.ssl = identity_context("api", certificate, key)

    def finish(self) -> None:
        """Make `run` return once the requests under way are answered."""
        self._server.should_exit = True
        self._finishing.set()

    async def run(self) -> None:
        listening = await self._listen()
        if listening is not None:
            with listening:
                await self._server.serve([listening])

    async def _listen(self) -> socket.socket | None:
        """Bind the address, retrying while it is in use; None if `finish` comes first."""
        host, port, logged = self._address.host, self._address.port, False
        while not self._finishing.is_set():
            try:
                listening = socket.create_server((host, port), family=family_of(host))
            except OSError as error:
                if not logged:
                    reason = os.strerror(error.errno or 0)
                    effect = f"no HTTP API until the address is free: change {self._setting}, or free it"
                    self._log.error("api.cannot_listen", host=host, port=port, reason=reason, effect=effect)
                    logged = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._finishing.wait(), LISTEN_AGAIN_S)
            else:
                self._log.info("api.listening", host=host, port=port)
                return listening
        return None


class _Server(uvicorn.Server):
    """uvicorn's server without signal handlers, and with `TlsListener` for TLS."""

    def __init__(self, finishing: asyncio.Event, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._finishing = finishing

    async def main_loop(self) -> None:
        """Renew the header Date each second. uvicorn's own looks ten times a second whether it should exit."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finishing.wait(), DATE_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.ssl is None:
            await super().startup(sockets)
            return
        await super().startup([])
        for listening in sockets or ():
            self.servers.append(TlsListener(listening, self._protocol, self.config))  # type: ignore[arg-type]

    def _protocol(self) -> asyncio.Protocol:
        return HttpConnection(self.config, self.server_state, self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


# -- TLS connections of the API

MOST_HANDSHAKES = 200
HANDSHAKE_S = 10.0
_BACKLOG = 2_048
_AT_ONCE = 100  # connections accepted in one turn of the event loop
_PAUSE_S = 1.0  # before the next accept when file descriptors have run out


class TlsListener:
    """A listening socket that accepts TLS until it is closed; one of uvicorn's `servers`."""

    def __init__(self, listening: socket.socket, make: Callable[[], asyncio.Protocol], config: uvicorn.Config) -> None:
        """Each connection takes the TLS context that `config` has then."""
        self._listening = listening
        self._make = make
        self._config = config
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
                self._make, connected, ssl=self._config.ssl, ssl_handshake_timeout=HANDSHAKE_S
            )


# -- One HTTP connection to the API

MOST_CONNECTIONS = 1_000
# Connections of one IPv4 address or IPv6 /64. Loopback is exempt: a reverse proxy connects from there.
MOST_FROM_ONE = 100
MAX_HEAD = 1 << 16  # bytes read before a head is complete
MAX_REQUEST = 1 << 24  # bytes of a request with chunk framing: more than the largest body (`ApiSettings`)
REQUEST_S = 30.0  # to receive a request, and to wait for its first byte
STALLED_S = 60.0  # to wait for a client that does not read its answer

_arrivals = count()


class HttpConnection(HttpToolsProtocol):
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
