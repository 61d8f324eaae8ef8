"""The channel between the relay's parent process and a worker: named messages both ways over a socket pair.

It owns framing and encoding (MessagePack) and knows no message. Messages arrive in the order they were sent in; what is
told within one turn of the loop leaves in one write.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

_LENGTH: Final = struct.Struct("=I")  # of what follows it, in bytes: both ends are on one machine

MOST_UNSENT: Final = 1024 * 1024  # bytes that wait for the other end, before it counts as behind

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder().decode


class Channel(asyncio.Protocol):
    """One end. `handlers` take a message's fields by its name, tuples as lists; `closed` is told of the end.

    `is_behind` says that the other end does not take what is sent; `relieved` is told when it does again.
    """

    def __init__(
        self,
        handlers: Mapping[str, Callable[..., None]],
        closed: Callable[[], None],
        relieved: Callable[[], None] = lambda: None,
    ) -> None:
        self.is_behind = False
        self._handlers = handlers
        self._closed = closed
        self._relieved = relieved
        self._transport: asyncio.Transport | None = None
        self._waiting: list[bytes] = []
        self._is_leaving = False  # at the end of this turn
        self._unread = b""

    async def open(self, end: socket.socket) -> None:
        """Takes the end of a socket pair over."""
        end.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def tell(self, name: str, *fields: object) -> None:
        """Send one message; nothing is sent once the channel is closed."""
        self.keep(name, *fields)
        if not self._is_leaving and self._transport is not None:
            self._is_leaving = True
            asyncio.get_running_loop().call_soon(self.flush)

    def keep(self, name: str, *fields: object) -> None:
        """As `tell`, but the message waits for the next one that is told, or for `flush`."""
        if self._transport is not None:
            data = _encode((name, *fields))
            self._waiting += (_LENGTH.pack(len(data)), data)

    def flush(self) -> None:
        """Write what waits."""
        self._is_leaving = False
        waiting, self._waiting = self._waiting, []
        if waiting and self._transport is not None:
            self._transport.write(b"".join(waiting))

    def close(self) -> None:
        """Close after what waits is delivered."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MOST_UNSENT)

    def pause_writing(self) -> None:
        """More than MOST_UNSENT wait."""
        self.is_behind = True

    def resume_writing(self) -> None:
        """A quarter of that is left."""
        self.is_behind = False
        self._relieved()

    def data_received(self, data: bytes) -> None:
        """Whole messages go to their handlers, the rest waits for more."""
        data = self._unread + data if self._unread else data
        start, end = 0, len(data)
        while end - start >= _LENGTH.size:
            begin = start + _LENGTH.size
            (length,) = _LENGTH.unpack_from(data, start)
            if end - begin < length:
                break
            start = begin + length
            name, *fields = cast(list[Any], _decode(data[begin:start]))
            self._handlers[name](*fields)
        self._unread = data[start:]

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is closed or gone."""
        self._transport = None
        self._closed()
