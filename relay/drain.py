"""The end of the service: calls that are up go on for a while and are hung up then; trunks send no more here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from relay.call.engine import Engine
from relay.net.driver import Driver

POLL_S = 0.05
HANG_UP_S = 5.0  # for the answers to the BYEs that we send when the time of the calls is over
UNREGISTER_S = 2.0  # for the answers of trunks that we were registered at
_UNDER_WAY = ("calls_up", "calls_setting_up", "messages", "pending_media", "pending_commits")  # of the statistics


class Drain:
    """The one drain of a switch. It stops waiting as soon as `at_once` is set."""

    def __init__(self, engine: Engine, driver: Driver, at_once: asyncio.Event, log: FilteringBoundLogger) -> None:
        self._engine = engine
        self._driver = driver
        self._at_once = at_once
        self._log = log

    async def run(self, limit_s: float) -> bool:
        """Refuses new calls, and hangs up live ones at the limit. Returns False if it was stopped before that."""
        self._engine.drain()
        self._log.info("relay.draining", calls=self._calls(), limit_s=limit_s)
        if await self._calls_gone(limit_s):
            return True
        if self._at_once.is_set():
            return False
        self._log.warning("relay.hanging_up", calls=self._calls())
        now = time.monotonic()
        self._engine.hang_up_all(now)
        self._driver.perform(now)
        return await self._calls_gone(HANG_UP_S)

    async def unregister(self) -> None:
        """Has the trunks where we are registered send no more calls here."""
        now = time.monotonic()
        self._engine.unregister(now)
        self._driver.perform(now)
        await self._wait_while(lambda: self._engine.leaving, UNREGISTER_S)

    async def _calls_gone(self, limit_s: float) -> bool:
        """Waits until no call is left, the limit has passed, or everything has to end at once."""
        await self._wait_while(self._busy, limit_s)
        return not self._calls()

    async def _wait_while(self, goes_on: Callable[[], int], limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while goes_on() and time.monotonic() < deadline and not self._at_once.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), POLL_S)

    def _calls(self) -> int:
        counts = self._engine.statistics()
        return sum(counts[name] for name in _UNDER_WAY)

    def _busy(self) -> int:
        """Calls, and legs whose BYE is not answered yet: if it was lost, nobody else would send it again."""
        return self._calls() + self._engine.statistics()["legs"]
