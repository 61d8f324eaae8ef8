"""A local address of the replay: one UDP socket for all calls of a side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Protocol

import asyncio_dgram

from relay.errors import ParseError, RelayError
from relay.model.numbers import number_of_uri_user
from relay.replay.trace import Endpoint
from relay.sip.message import Message, Request, parse_message
from relay.sip.uri import SipUri


class Receiver(Protocol):
    async def receive(self, message: Message, data: bytes, source: Endpoint) -> None: ...


class LineBusy(RelayError):
    """The address cannot be bound."""


class Line:
    """Dispatches datagrams to calls by Call-ID, and new INVITEs by the number called."""

    def __init__(self, stream: asyncio_dgram.DatagramServer, address: Endpoint) -> None:
        self._stream = stream
        self.address = address
        self.strays = 0  # datagrams that match no call or are not SIP
        self._calls: dict[str, Receiver] = {}
        self._expected: dict[str, Receiver] = {}

    def expect(self, number: str, receiver: Receiver) -> None:
        """Register the receiver of the next INVITE to a number (E.164 without "+")."""
        self._expected[number] = receiver

    def join(self, call_id: str, receiver: Receiver) -> None:
        self._calls[call_id] = receiver

    async def send(self, data: bytes, destination: Endpoint) -> None:
        await self._stream.send(data, tuple(destination))

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                data, source = await self._stream.recv()
            except OSError:  # an ICMP error to an earlier datagram: the waiting step will time out
                continue
            await self._receive(data, _endpoint(source))

    async def _receive(self, data: bytes, source: Endpoint) -> None:
        try:
            message = parse_message(data)
            receiver = self._calls.get(message.call_id) or self._newcomer(message)
        except ParseError:
            receiver = None
        if receiver is None:
            self.strays += 1
        else:
            await receiver.receive(message, data, source)

    def _newcomer(self, message: Message) -> Receiver | None:
        if not isinstance(message, Request) or message.method != "INVITE" or message.to_tag:
            return None
        uri = message.request_uri
        number = number_of_uri_user(uri.user or "") if isinstance(uri, SipUri) else ""
        receiver = self._expected.pop(number, None)
        if receiver is not None:
            self.join(message.call_id, receiver)
        return receiver


@contextlib.asynccontextmanager
async def open_line(address: Endpoint) -> AsyncIterator[Line]:
    """Bind, and read until the block ends. Port 0: any free port. Raises LineBusy."""
    try:
        stream = await asyncio_dgram.bind(tuple(address))
    except OSError as error:
        raise LineBusy(f"{address} cannot be used: {error.strerror or error}") from error
    line = Line(stream, _endpoint(stream.sockname))
    reading = asyncio.create_task(line.run())
    try:
        yield line
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        stream.close()


def _endpoint(name: object) -> Endpoint:
    """The endpoint of a socket name, which has four parts for IPv6."""
    assert isinstance(name, tuple)
    return Endpoint(name[0], name[1])
