"""The places of readers: how much of one kind each may have under way, and how many worker threads it may use.

A reader is a business user, or an operator's key. No reader's requests keep another waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple, TypeVar

import anyio
import anyio.to_thread

from relay.errors import Refused

T = TypeVar("T")


class Size(NamedTuple):
    """How many places and threads there are, and how many of them one reader may have."""

    workers: int
    workers_of_one: int
    most: int
    most_of_one: int  # and no more than are left for others


PAGES: Final = Size(workers=16, workers_of_one=4, most=512, most_of_one=128)  # each a request that waits
# Files and reports on whole days: each may have a file open and some seconds of sound in memory.
DOWNLOADS: Final = Size(workers=4, workers_of_one=2, most=32, most_of_one=8)


class Places:
    """The places of what is read, made or sent."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._by_reader: Counter[str] = Counter()
        self._workers = anyio.CapacityLimiter(size.workers)
        self._workers_of: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(size.workers_of_one)
        )

    def begin(self, reader: str) -> None:
        """Raises Refused if there are too many."""
        if self._by_reader[reader] >= min(self._size.most_of_one, self._size.most - self._by_reader.total()):
            raise Refused("rate_limited", "", "too many such requests at once: retry when one is complete")
        self._by_reader[reader] += 1

    def end(self, reader: str) -> None:
        self._by_reader[reader] -= 1
        if not self._by_reader[reader]:
            del self._by_reader[reader]
            self._workers_of.pop(reader, None)

    async def turn(self, reader: str, do: Callable[[], T]) -> T:
        """Do a part of what the reader has a place for, in a worker thread."""
        async with self._workers_of[reader]:
            return await anyio.to_thread.run_sync(do, limiter=self._workers)

    async def work(self, reader: str, do: Callable[[], T]) -> T:
        """Do something in one turn. Raises Refused if the reader has no place left, and what `do` raises."""
        with self.place(reader):
            return await self.turn(reader, do)

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
