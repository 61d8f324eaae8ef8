"""Wakes a task of the backend when there is work, so that it need not poll ten times a second.

A bell is rung within the process, or by the relay through an eventfd(2) that both processes have. Several rings before
the task looks count as one.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress


def make_bell() -> int:
    """The descriptor of a bell for two processes."""
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def ring(descriptor: int) -> None:
    """Ring the bell of another process. It never blocks."""
    with suppress(BlockingIOError):  # it was rung 2**64 times, and nobody came
        os.eventfd_write(descriptor, 1)


class Bell:
    """The hearing end of a bell, for one task at a time."""

    def __init__(self, descriptor: int | None = None) -> None:
        """`descriptor`: of `make_bell`; None: it is rung in this process only."""
        self._descriptor = descriptor
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Ring it, in the event loop of the task."""
        self._rung.set()

    async def wait(self, timeout_s: float) -> None:
        """Wait for a ring, `timeout_s` at most. Returns at once if it was rung since the last time."""
        loop = asyncio.get_running_loop()
        if self._descriptor is not None:
            loop.add_reader(self._descriptor, self._hear, self._descriptor)
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), timeout_s)
        finally:
            if self._descriptor is not None:
                loop.remove_reader(self._descriptor)
        self._rung.clear()

    def _hear(self, descriptor: int) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(descriptor)
        self._rung.set()
