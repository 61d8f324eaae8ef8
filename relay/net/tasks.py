"""Fire-and-forget tasks. The event loop keeps only weak references, so an owner must hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Tasks:
    """The running tasks of one owner."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def begin(self, work: Coroutine[None, None, None]) -> None:
        """Start a task; call it in the loop. Exceptions go to the loop's exception handler."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def cancel(self) -> None:
        """Cancel all tasks, and return when they have ended."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
