"""Graceful shutdown: refuse new calls, hang up live ones at the limit, then unregister from trunks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from relay.call.engine import Engine
from relay.net.driver import Driver

POLL_S = 0.05
HANG_UP_S = 5.0  # limit for the answers to our BYEs
UNREGISTER_S = 2.0  # limit for the trunks' answers to our de-registration
_UNDER_WAY = ("calls_up", "calls_setting_up", "messages", "pending_media", "pending_commits")  # keys of the statistics


class Drain:
    """One drain. Setting `at_once` ends every wait."""

    def __init__(self, engine: Engine, driver: Driver, at_once: asyncio.Event, log: FilteringBoundLogger) -> None:
        self._engine = engine
        self._driver = driver
        self._at_once = at_once
        self._log = log

    async def run(self, limit_s: float) -> bool:
        """Refuse new calls; hang up live ones after `limit_s`. Returns False if calls are still up at the end."""
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
        """Remove our registrations, so that trunks send no more calls."""
        now = time.monotonic()
        self._engine.unregister(now)
        self._driver.perform(now)
        await self._wait_while(lambda: self._engine.leaving, UNREGISTER_S)

    async def _calls_gone(self, limit_s: float) -> bool:
        """Wait for the last call, at most `limit_s` or until `at_once`. Returns whether none is left."""
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
        """Calls, and legs with an unanswered BYE, which only we can retransmit."""
        return self._calls() + self._engine.statistics()["legs"]
