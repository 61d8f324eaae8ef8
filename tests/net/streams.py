"""`StreamTransport` with one listener, and their far ends, over real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_network

from relay.defence.bans import Bans
from relay.model.settings import Limits, Peer, StreamLimits, TlsFiles
from relay.net.hosts import Resolver
from relay.net.streams import StreamTransport
from relay.sip.message import Flow
from tests.net.support import address_of, settings_for, until
from tests.support.addresses import Address, free
from tests.support.targets import target_at

PEER_HOST, STRANGER = "127.0.0.11", "127.0.0.66"
PEER = Peer("pbx", (target_at(PEER_HOST, transport="tcp"),), False, (ip_network("127.0.0.11/32"),))


def message(body: str = "", name: str = "OPTIONS sip:x SIP/2.0") -> bytes:
    return f"{name}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class Heard:
    """`StreamTransport` with one listener, and their reports."""

    def __init__(self, transport: str, limits: StreamLimits, tls: TlsFiles | None, host: str, peer: Peer) -> None:
        self.messages: asyncio.Queue[tuple[bytes, Flow]] = asyncio.Queue()
        self.failed: asyncio.Queue[Flow] = asyncio.Queue()
        self.settings = settings = settings_for(transport, host=host, peers=(peer,))
        self.transport = transport
        self.address = address_of(settings)
        self.bans = Bans(Limits())
        self.streams = StreamTransport(
            settings,
            limits,
            tls,
            Resolver(),
            lambda data, flow: self.messages.put_nowait((data, flow)),
            self.failed.put_nowait,
            self.bans,
        )

    def flow_to(self, address: Address) -> Flow:
        return Flow(0, self.transport, *address)

    async def heard(self) -> tuple[bytes, Flow]:
        return await asyncio.wait_for(self.messages.get(), 10)

    async def failure(self) -> Flow:
        return await asyncio.wait_for(self.failed.get(), 10)

    async def settled(self, count: int) -> None:
        """Wait until `count` connections are open."""
        await until(lambda: self.streams.statistics()["streams"] == count)

    async def connect(
        self, source: str = PEER_HOST, tls: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            *self.address, local_addr=(source, 0), ssl=tls, server_hostname=self.address.host if tls else None
        )


@asynccontextmanager
async def listening(
    transport: str = "tcp", tls: TlsFiles | None = None, host: str = "127.0.0.10", peer: Peer = PEER, **limits: float
) -> AsyncIterator[Heard]:
    made = Heard(transport, StreamLimits(**limits), tls, host, peer)  # type: ignore[arg-type]
    made.streams.listen(0)
    try:
        yield made
    finally:
        await made.streams.close()


class FarEnd:
    """A listening peer, with its received messages and its connections."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with suppress(OSError):
            while data := await reader.read(65_536):
                self.lines.put_nowait(data)

    @classmethod
    @asynccontextmanager
    async def at(cls, host: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[FarEnd, Address]]:
        made, address = cls(), free(host)
        server = await asyncio.start_server(made._serve, *address, ssl=tls)
        try:
            yield made, address
        finally:
            server.close()
            for writer in made.writers:
                writer.transport.abort()

    async def heard(self) -> bytes:
        return await asyncio.wait_for(self.lines.get(), 10)


async def ended(reader: asyncio.StreamReader) -> bool:
    with suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 10) == b""
    return True


async def read_all(reader: asyncio.StreamReader) -> bytes:
    data = bytearray()
    with suppress(ConnectionError):
        while part := await reader.read(65_536):
            data += part
    return bytes(data)
