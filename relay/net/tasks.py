"""Tasks that nobody awaits. The loop itself has but weak references to them, so somebody must keep them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Tasks:
    """Those of one owner that have not ended yet."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """To be called in the loop. An exception of it is told by the loop's own handler."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def cancel(self) -> None:
        """Returns once all have ended."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
