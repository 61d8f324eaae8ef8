"""Waiting for what nothing tells of, such as what another process does: it is looked at again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 60.0
PAUSE_S = 0.01


async def until(is_so: Callable[[], object]) -> None:
    """Raises TimeoutError after a minute."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():  # noqa: ASYNC110 (nothing tells when)
            await asyncio.sleep(PAUSE_S)


async def until_seen(is_so: Callable[[], object]) -> None:
    """The same where looking takes a while, in a thread. Raises TimeoutError after a minute."""
    async with asyncio.timeout(PATIENCE_S):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 (nothing tells when)
            await asyncio.sleep(PAUSE_S)
