"""One rtpengine: commands and their answers over UDP, and what it is still to be told to forget.

It knows nothing of a call but its id, and decides nothing about one.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

import asyncio_dgram

from relay.net import ng
from relay.net.settings import RtpengineAddress

# A command is sent again after each of these but the last. rtpengine knows a repetition by its cookie.
WAITS_S = (0.2, 0.3, 0.5)
MOST_UNTOLD = 10_000  # calls that an instance is still to be told to forget; the oldest it will drop by itself


class NoAnswer(Exception):
    """An instance did not answer a command in time, or not in the words of the protocol."""


class Instance:
    """One rtpengine. Open it in the loop that it is used in."""

    def __init__(self, address: RtpengineAddress) -> None:
        self.name = address.name
        self.up = True  # until it leaves a new call or a ping unanswered
        self._untold: dict[str, None] = {}  # calls that it may have and nobody else has any more, the oldest first
        self._address = address
        self._stream: asyncio_dgram.aio.DatagramClient | None = None
        self._asked: dict[bytes, asyncio.Future[bytes]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """If there is no way there yet, commands go unanswered until there is."""
        if self._stream is not None:
            return
        try:
            self._stream = await asyncio_dgram.connect((self._address.host, self._address.port))
        except OSError:  # no way there: the network may come yet
            return
        self._reader = asyncio.create_task(self._read(self._stream), name=f"rtpengine {self.name}")

    async def ask(self, message: dict[str, object]) -> ng.Answer:
        """Raises NoAnswer, after a second at the latest."""
        cookie = secrets.token_hex(8).encode()
        data = b"%b %b" % (cookie, ng.encode(message))
        answered = self._asked[cookie] = asyncio.get_running_loop().create_future()
        try:
            await self._send_first(data)
            for wait_s in WAITS_S:
                await asyncio.wait([answered], timeout=wait_s)
                if answered.done():
                    return ng.decode(answered.result())
                await self._send(data)
        except (OSError, ValueError) as error:
            raise NoAnswer(str(error)) from error
        finally:
            del self._asked[cookie]
        raise NoAnswer("no answer")

    def forget_later(self, call: str) -> None:
        """It was not told to forget the call, or did not say that it has."""
        if len(self._untold) >= MOST_UNTOLD:
            del self._untold[next(iter(self._untold))]
        self._untold[call] = None

    def has(self, call: str) -> None:
        """It has taken the call after all."""
        self._untold.pop(call, None)

    async def forget_untold(self) -> None:
        """Tells it which calls to forget. Raises NoAnswer; then it is told again the next time."""
        for call in list(self._untold):
            await self.ask(deletion(call))
            self._untold.pop(call, None)

    async def _send_first(self, data: bytes) -> None:
        """An error that the socket still has to report is that of an earlier datagram."""
        with suppress(OSError):
            await self._send(data)
            return
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        """Raises OSError if an earlier datagram reached nobody."""
        if self._stream is None:
            raise OSError("no way there")
        await self._stream.send(data)

    async def _read(self, stream: asyncio_dgram.aio.DatagramClient) -> None:
        while True:
            try:
                data, _ = await stream.recv()
            except asyncio_dgram.TransportClosed:
                return
            except OSError:  # of a datagram that came to nobody: whoever waits for its answer sends again
                continue
            cookie, _, answer = data.partition(b" ")
            waiting = self._asked.get(cookie)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def close(self) -> None:
        if self._reader is not None and self._stream is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])
            self._stream.close()


def deletion(call: str) -> dict[str, object]:
    return {"command": "delete", "call-id": call, "delete-delay": 0}  # its ports are free at once
