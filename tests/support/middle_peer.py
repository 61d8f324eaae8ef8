"""A SIP peer between the relay and one callee, as a carrier is: it passes calls on, and what a test makes it change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from tests.support.addresses import Address

Change = Callable[[bytes], bytes]


def as_is(data: bytes) -> bytes:
    return data


class MiddlePeer(asyncio.DatagramProtocol):
    """It adds its Via and its own Contact. `to_callee` and `to_caller` change what goes on; b"" is not sent."""

    def __init__(self, at: Address, callee: Address, to_callee: Change = as_is, to_caller: Change = as_is) -> None:
        self.at = at
        self.to_callee = to_callee
        self.to_caller = to_caller
        self._callee = callee
        self._relay: Any = None
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport is not None
        at = str(self.at).encode()
        if data.startswith(b"SIP/2.0"):
            head, via, rest = data.partition(b"Via: SIP/2.0/UDP %b" % at)
            data = self.to_caller(head + rest.partition(b"\r\n")[2] if via else data)
            data = data.replace(str(self._callee).encode(), at)
            self._send(data, self._relay)
        else:
            self._relay = addr
            line, _, rest = data.partition(b"\r\n")
            via = b"Via: SIP/2.0/UDP %b;branch=z9hG4bKmiddle%d\r\n" % (at, hash(rest) & 0xFFFFFF)
            self._send(self.to_callee(line + b"\r\n" + via + rest), self._callee)

    def _send(self, data: bytes, to: Any) -> None:
        if data and self._transport is not None:
            self._transport.sendto(data, to)


class Tap(asyncio.DatagramProtocol):
    """Between a caller and the relay: it passes all on, and keeps what the caller sent."""

    def __init__(self, at: Address, relay: Address) -> None:
        self.at = at
        self.sent = bytearray()
        self._relay = relay
        self._caller: Any = None
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport is not None
        if tuple(addr) == tuple(self._relay):
            self._transport.sendto(data, self._caller)
        else:
            self._caller = addr
            self.sent += data
            self._transport.sendto(data, self._relay)


P = TypeVar("P", MiddlePeer, Tap)


@asynccontextmanager
async def serving(peer: P) -> AsyncIterator[P]:
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: peer, local_addr=peer.at)
    try:
        yield peer
    finally:
        transport.close()
