"""Polling, for conditions of other processes that no event signals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 60.0
PAUSE_S = 0.01
LOOK_S = 0.05  # a look takes up to 0.03 s of CPU


async def until(is_so: Callable[[], object]) -> None:
    """Wait until `is_so`. Raises TimeoutError after a minute."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(PAUSE_S)


async def until_seen(is_so: Callable[[], object]) -> None:
    """The same in a thread, for slow conditions. Raises TimeoutError after a minute."""
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 (no event to wait for)
            await asyncio.sleep(LOOK_S)
