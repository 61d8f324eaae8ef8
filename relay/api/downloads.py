"""What takes long to make or to send: files, and reports on whole days. Each reader may have a few at once.

A reader is a business user, or an operator's key.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from relay.errors import Refused

T = TypeVar("T")

WORKERS: Final = 4  # threads, so that short reads do not wait for long ones
WORKERS_OF_ONE: Final = 2
MOST: Final = 32  # of all readers: each may have a file open and some seconds of sound in memory
MOST_OF_ONE: Final = 8  # reader; and as many as are left for others
STALL_S = 60.0  # longest wait for a receiver to take a part: one that does not would keep its place for ever


class Downloads:
    """The places of what is being made or sent."""

    def __init__(self) -> None:
        self._by_reader: Counter[str] = Counter()
        self._workers = anyio.CapacityLimiter(WORKERS)
        self._workers_of: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(WORKERS_OF_ONE))

    def begin(self, reader: str) -> None:
        """Raises Refused if there are too many."""
        if self._by_reader[reader] >= min(MOST_OF_ONE, MOST - self._by_reader.total()):
            raise Refused("rate_limited", "", "too many files and reports at once: retry when one is complete")
        self._by_reader[reader] += 1

    def end(self, reader: str) -> None:
        self._by_reader[reader] -= 1
        self._by_reader += Counter()  # forgets those at 0

    async def turn(self, reader: str, do: Callable[[], T]) -> T:
        """Do a part of what the reader has a place for, in a worker thread."""
        async with self._workers_of[reader]:
            return await anyio.to_thread.run_sync(do, limiter=self._workers)

    @contextmanager
    def place(self, reader: str) -> Iterator[None]:
        """Keep a place during the block. Raises Refused."""
        self.begin(reader)
        try:
            yield
        finally:
            self.end(reader)

    @contextmanager
    def kept_by(self, reader: str) -> Iterator[Callable[[], None]]:
        """Keep a place beyond the block, which gets what frees it; an error in the block frees it. Raises Refused."""
        self.begin(reader)
        end = partial(self.end, reader)
        try:
            yield end
        except BaseException:
            end()
            raise


class Download(StreamingResponse):
    """A file that is made while it is sent. Calls `over` when it ends, however it does, also if it never began."""

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        over: Callable[[], None],
        *,
        status: int = 200,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(parts, status, headers, media_type)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(STALL_S):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            self._over()
