"""One rtpengine instance: commands over UDP with retransmission, and deletions still to be delivered."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress

import asyncio_dgram

from relay.net import ng
from relay.net.settings import RtpengineAddress

# Waits for an answer; a command is retransmitted after each. rtpengine recognises a retransmission by its cookie.
WAITS_S = (0.2, 0.3, 0.5)
MOST_UNTOLD = 10_000  # undelivered deletions; beyond them, rtpengine's own time-outs end the oldest calls


class NoAnswer(Exception):
    """No answer in time, or an invalid one."""


class Instance:
    """One rtpengine. `open` it in the loop that uses it."""

    def __init__(self, address: RtpengineAddress) -> None:
        self.name = address.name
        self.up = True  # until an offer or a ping goes unanswered
        self._untold: dict[str, None] = {}  # calls that it may still hold, to be deleted; oldest first
        self._address = address
        self._stream: asyncio_dgram.aio.DatagramClient | None = None
        self._asked: dict[bytes, asyncio.Future[bytes]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect. Without a route to the instance, commands go unanswered until a later `open` succeeds."""
        if self._stream is not None:
            return
        try:
            self._stream = await asyncio_dgram.connect((self._address.host, self._address.port))
        except OSError:  # no route: the network may not be up yet
            return
        self._reader = asyncio.create_task(self._read(self._stream), name=f"rtpengine {self.name}")

    async def ask(self, message: dict[str, object]) -> ng.Answer:
        """Send a command and await its answer. Raises NoAnswer after at most a second."""
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
        """Schedule the deletion of a call that was not deleted, or not confirmed."""
        if len(self._untold) >= MOST_UNTOLD:
            del self._untold[next(iter(self._untold))]
        self._untold[call] = None

    def has(self, call: str) -> None:
        """Cancel the scheduled deletion: the instance holds the call."""
        self._untold.pop(call, None)

    async def forget_untold(self) -> None:
        """Delete the scheduled calls. Raises NoAnswer; the rest stay scheduled."""
        for call in list(self._untold):
            await self.ask(deletion(call))
            self._untold.pop(call, None)

    async def _send_first(self, data: bytes) -> None:
        """Send twice if needed: the first send may report an earlier datagram's error instead of sending."""
        with suppress(OSError):
            await self._send(data)
            return
        await self._send(data)

    async def _send(self, data: bytes) -> None:
        """Raises OSError if an earlier datagram was refused."""
        if self._stream is None:
            raise OSError("no route to it")
        await self._stream.send(data)

    async def _read(self, stream: asyncio_dgram.aio.DatagramClient) -> None:
        while True:
            try:
                data, _ = await stream.recv()
            except asyncio_dgram.TransportClosed:
                return
            except OSError:  # an ICMP error to an earlier datagram: its `ask` retransmits
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
    return {"command": "delete", "call-id": call, "delete-delay": 0}  # frees the ports at once
