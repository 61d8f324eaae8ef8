"""Connections of the relay's own HTTP requests, which go to servers that may be hostile: bounded answers.

It knows neither hooks nor webhooks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import RawResponseMessage
from aiohttp.streams import StreamReader

LONGEST_HEAD: Final = 8_192  # bytes, with all interim answers (1xx) before it


class AnswerTooLong(aiohttp.ClientPayloadError):
    """A server sends more than its answer may have."""

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
        """Fail what is still read. A complete answer that was not read yet stays good."""
        error, content = AnswerTooLong(), self._content
        assert self.transport is not None
        self.transport.abort()
        self.close()
        self.set_exception(error)
        if content is not None and not content.is_eof():
            content.set_exception(error)
