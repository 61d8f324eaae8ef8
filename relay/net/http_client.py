"""Bounded name look-ups and bounded answers for the relay's own HTTP requests.

Business users name the hosts: a name server may be silent, and a server hostile. It knows neither hooks nor webhooks.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

from relay.defence.limits import is_within_share

# -- Host names

MOST_LOOK_UPS = 100  # concurrent ones; a thread each
MOST_OF_OWNER = 20  # of one business user: it may have as many webhooks
OWNER: ContextVar[str] = ContextVar("owner", default="")  # the business user whose request looks up a name

_Found = list[tuple[Any, ...]]


class SystemResolver(AbstractResolver):
    """The system's resolver in threads of its own. Close it after its connector.

    The loop has few (uvloop: four), which peers' names need as well. A name server that never answers holds a thread
    for many seconds, also after the request has ended: a look-up counts until then.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_LOOK_UPS, "resolver")
        self._under_way: list[tuple[str, Future[_Found]]] = []  # with their owners

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Raises OSError, also if too many look-ups of the owner are under way."""
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
        found = await asyncio.wrap_future(self._begin(OWNER.get(), look_up))
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=numeric)
            for kind, _, protocol, _, address in found
        ]

    def _begin(self, owner: str, look_up: Callable[[], _Found]) -> Future[_Found]:
        """All but the first of each owner share half of the threads, so that some are left for others."""
        self._under_way = [(its, future) for its, future in self._under_way if not future.done()]
        mine, in_all = sum(its == owner for its, _ in self._under_way) + 1, len(self._under_way) + 1
        if mine > 1 and (mine > MOST_OF_OWNER or not is_within_share(mine, in_all, MOST_LOOK_UPS // 2)):
            raise OSError(errno.EAGAIN, "too many look-ups are under way")
        future = self._threads.submit(look_up)
        self._under_way.append((owner, future))
        return future

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


# -- Answers

LONGEST_HEAD: Final = 8_192  # bytes, with all interim answers (1xx) before it


class AnswerTooLong(aiohttp.ClientPayloadError):
    """A server's answer exceeds its limit of bytes."""

    def __init__(self) -> None:
        super().__init__("the answer is too long")


class BoundedConnector(aiohttp.TCPConnector):
    """A pool of connections, each with an upper limit of bytes per answer. aiohttp has limits for single lines only."""

    def __init__(self, longest_body: int, **options: Any) -> None:
        super().__init__(**options)
        connection: Callable[[asyncio.AbstractEventLoop, int], ResponseHandler] = _Connection
        self._factory = partial(connection, self._loop, longest_body)  # aiohttp has no public way to name the class


class _Connection(ResponseHandler):
    """Parses an answer in pieces, until it is complete or too long, and closes when more comes.

    A piece is parsed in one go, in which the loop serves nothing else: 8 KiB of the shortest answers take 4 ms.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, longest_body: int) -> None:
        super().__init__(loop)
        self._longest = LONGEST_HEAD + longest_body
        self._received = 0  # bytes since the request
        self._content: StreamReader | None = None  # of the final answer

    def set_response_params(self, **params: Any) -> None:
        """A request begins."""
        self._received, self._content = 0, None
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if not data:  # the reader has caught up
            super().data_received(data)
        while data and self.is_connected():
            room = self._room()
            if not room:
                self._refuse()
                return
            piece, data = data[:room], data[room:]
            self._received += len(piece)
            super().data_received(piece)

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """A head was parsed."""
        message, content = data
        if message.code >= 200:
            self._content = content
        super().feed_data(data, size)

    def _room(self) -> int:
        """How many more bytes to parse in one go. None after an answer: only a request has one."""
        if self._content is None:
            return LONGEST_HEAD - self._received
        if self._content.is_eof():
            return 0
        return min(LONGEST_HEAD, self._longest - self._received)

    def _refuse(self) -> None:
        """Fail an answer that is still being received. A complete answer that was not read yet stays good."""
        error, content = AnswerTooLong(), self._content
        assert self.transport is not None
        self.transport.abort()
        self.close()
        self.set_exception(error)
        if content is not None and not content.is_eof():
            content.set_exception(error)
