"""The HTTP server of the API: uvicorn on one address."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI
from structlog.typing import FilteringBoundLogger

from relay.api.connections import MOST_CONNECTIONS, Connection, TlsListener
from relay.net.hosts import family_of

LISTEN_AGAIN_S = 2.0
GRACEFUL_S = 3  # for requests under way at shutdown


class Address(NamedTuple):
    host: str
    port: int
    certificate: Path | None = None  # PEM files; None: no TLS
    key: Path | None = None


class HttpServer:
    """A server that serves from `run` until `finish`."""

    def __init__(self, app: FastAPI, address: Address, log: FilteringBoundLogger) -> None:
        self._address = address
        self._log = log
        self._finishing = asyncio.Event()
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",
                http=Connection,
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
            )
        )

    def finish(self) -> None:
        """Make `run` return once the requests under way are answered."""
        self._finishing.set()
        self._server.should_exit = True

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
                    effect = "no HTTP API until the address is free: change api.listen, or free it"
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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        context = self.config.ssl
        if context is None:
            await super().startup(sockets)
            return
        await super().startup([])
        for listening in sockets or ():
            self.servers.append(TlsListener(listening, self._protocol, context))  # type: ignore[arg-type]

    def _protocol(self) -> asyncio.Protocol:
        return Connection(self.config, self.server_state, self.lifespan.state)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
