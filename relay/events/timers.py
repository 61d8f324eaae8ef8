"""Timers of the backend: resealing after a change of the sealing key, the size and age of captures and of the outbox,
expired bindings, the nightly purge, and events about filings that expire.

While the key file has several keys, a resealing pass runs at each start and each day, for rows that an interrupted
pass left.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from structlog.typing import FilteringBoundLogger

from relay.errors import RelayError
from relay.log import Outage
from relay.model.capture import CaptureRules
from relay.service.filings import tell_expiring
from relay.service.papers import suspend_expired, tell_ending
from relay.service.placement import SWEEP, BindRules, release_due
from relay.service.retention import Retention, purge, purge_captures
from relay.store.bindings import idle_due, note_used
from relay.store.captures import Captures
from relay.store.connection import Connection, Place
from relay.store.database import Reader
from relay.store.journal.rows import SELECT, open_all
from relay.store.maintenance import reseal
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY
from relay.store.webhooks import AT_ONCE, remove_dead, remove_events, removed_webhooks, too_many_dead
from relay.store.writer import GroupWriter, Writer, now_ms

LOOK_S: Final = 1.0
AGAIN_S: Final = 86_400.0  # a command that ran during the change may have sealed with the former key
RETRY_S: Final = 60.0
IDLE_AHEAD_MS: Final = 5_000  # before its expiry: other calls of the binding must not be refused until the next look


class ResealTask:
    """The resealing task of the backend: `run` it until it is cancelled. It uses the key of the backend's writer."""

    def __init__(self, path: Place, sealer: Sealer, log: FilteringBoundLogger) -> None:
        self._path = path
        self._sealer = sealer
        self._log = log
        self._outage = Outage("reseal", log)
        self._ending = threading.Event()

    async def run(self) -> None:
        """Make a pass after each change of the key, and each day."""
        clock = asyncio.get_running_loop().time
        sealed_with, due = 0, 0.0
        try:
            while True:
                key_id, now = self._sealer.key_id, clock()
                if key_id != sealed_with or now >= due:
                    sealed_with, due = key_id, now + await self.make_pass()
                await asyncio.sleep(LOOK_S)
        finally:
            self._ending.set()

    async def make_pass(self) -> float:
        """Make one pass in a thread, with a separate writer. Returns the seconds until the next."""
        if len(self._sealer.key_ids) == 1:
            return AGAIN_S
        try:
            rows = await asyncio.to_thread(reseal, self._path, self._sealer, lambda: not self._ending.is_set())
        except RelayError as error:
            self._outage.failed(error)
            return RETRY_S
        self._outage.over()
        self._log.info("reseal.done", key=self._sealer.key_id, rows=rows)
        return AGAIN_S


TRIM_S: Final = 10.0
MOST_TRIMMED: Final = 20_000  # events of one webhook, some seconds of small units of work; the rest 10 s later


class TrimTask:
    """The task that keeps captures, and events for webhooks, to their size and age: `run` it until it is cancelled."""

    def __init__(
        self,
        captures: Captures,
        rules: CaptureRules,
        retention: Retention,
        reader: Reader,
        writer: GroupWriter,
        log: FilteringBoundLogger,
    ) -> None:
        self._captures = captures
        self._rules = rules
        self._retention = retention
        self._reader = reader
        self._writer = writer
        self._log = log
        self._outage = Outage("captures.trim", log)
        self._outbox_outage = Outage("outbox.trim", log)

    def apply_config(self, rules: CaptureRules, retention: Retention) -> None:
        self._rules, self._retention = rules, retention

    async def run(self) -> None:
        while True:
            await self.trim()
            await self.trim_outbox()
            await asyncio.sleep(TRIM_S)

    async def trim(self) -> None:
        """Runs also while nothing is captured: earlier captures still grow old."""
        try:
            await asyncio.to_thread(purge_captures, self._captures, self._rules, self._retention, now_ms())
        except RelayError as error:
            self._outage.failed(error)
        else:
            self._outage.over()

    async def trim_outbox(self) -> None:
        """Delete the events of removed webhooks, and the oldest dead letters beyond the most that a webhook keeps."""
        try:
            for webhook in await asyncio.to_thread(self._reader.read, removed_webhooks):
                await self._delete(remove_events, webhook, MOST_TRIMMED)
            for webhook, surplus in await asyncio.to_thread(self._reader.read, too_many_dead):
                count = await self._delete(remove_dead, webhook, min(surplus, MOST_TRIMMED))
                self._log.warning("webhook.dead_letters_deleted", webhook=webhook, events=count)
        except RelayError as error:
            self._outbox_outage.failed(error)
        else:
            self._outbox_outage.over()

    async def _delete(self, delete: Callable[..., int], webhook: str, most: int) -> int:
        """Delete up to `most` events, AT_ONCE in a unit of work. Returns their number."""
        total, deleted = 0, 1
        while deleted and total < most:
            chunk = partial(delete, webhook=webhook, most=min(AT_ONCE, most - total))
            deleted = await self._writer.run(RELAY, chunk)
            total += deleted
        return total


# -- Timers

TICK_S = 1.0
DAY_MIN = 1440
_CHINA_MIN = 480  # UTC+8
MOST_SET_MS = 3_600_000  # change of the clock since the start that stops purges, which cannot be undone


class Timers:
    """The timer task of the backend: `run` it until it is cancelled."""

    def __init__(
        self,
        path: Place,
        sealer: Sealer,
        writer: GroupWriter,
        log: FilteringBoundLogger,
        rules: BindRules,
        retention: Retention,
        purge_at_min: int,
        kept_in: Path,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        """`purge_at_min`: minute of the day in China; `kept_in`: folder of recordings."""
        self._path = path
        self._sealer = sealer
        self._reader = Reader(path)
        self._writer = writer
        self._log = log
        self._outage = Outage("release", log)
        self._rules = rules
        self._retention = retention
        self._purge_at_min = purge_at_min
        self._kept_in = kept_in
        self._clock_ms = clock_ms
        self._ending = threading.Event()
        self._started_ms = self._clock_ms() - _steady_ms()
        self._day_purged = self._day()  # no purge at a start after its time: it may be the tenth today

    def apply_config(self, rules: BindRules, retention: Retention, purge_at_min: int) -> None:
        """Apply these from now on. Today's purge is made if its new time is still to come."""
        self._rules, self._retention = rules, retention
        if purge_at_min != self._purge_at_min:
            self._purge_at_min = purge_at_min
            self._day_purged = self._day()

    async def run(self) -> None:
        """Release every second; purge once a day."""
        purging: asyncio.Task[None] | None = None
        try:
            while True:
                await self.release()
                if (day := self._day()) != self._day_purged:
                    self._day_purged = day
                    if purging is None or purging.done():
                        purging = asyncio.create_task(self.purge())
                await asyncio.sleep(TICK_S)
        finally:
            self._ending.set()
            self._reader.close()
            if purging is not None:
                purging.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await purging

    async def release(self) -> int:
        """Release the numbers of all expired bindings. Returns the number of bindings."""
        total = 0
        try:
            await self._keep_used()
            while released := await self._writer.run(RELAY, lambda unit: release_due(unit, self._rules)):
                total += released
                if released < SWEEP:
                    break
        except RelayError as error:
            self._outage.failed(error)
        else:
            self._outage.over()
        return total

    async def _keep_used(self) -> None:
        """Move the expiry, once it is near, of bindings that end some time after their last call and have one up."""
        if used := await asyncio.to_thread(self._used):
            await self._writer.run(RELAY, lambda unit: note_used(unit, dict.fromkeys(used, unit.now_ms)))

    def _used(self) -> list[str]:
        def read(connection: Connection) -> list[str]:
            if not (due := idle_due(connection, self._clock_ms() + IDLE_AHEAD_MS)):
                return []
            # An altered row, which a start reports, must not hold up the release of all others.
            up = open_all(self._sealer, connection.execute(SELECT), lambda *_: None)
            return sorted(due & {call.record.binding_id for call in up})

        return self._reader.read(read)

    async def purge(self) -> None:
        """Purge in a thread, with a separate writer: small transactions with gaps between them.

        Skipped if the clock was set since the start, since it may be wrong. `relay700 purge` and a restart trust it.
        """
        set_by_ms = self._clock_ms() - _steady_ms() - self._started_ms
        if abs(set_by_ms) > MOST_SET_MS:
            reason = f"the clock was set by {set_by_ms // 1000} s since the start: check it, then restart"
            self._log.error("purge.not_made", reason=reason, effect="nothing is purged until the next start")
            return
        try:
            await asyncio.to_thread(self._purge)
        except RelayError as error:
            self._log.error("purge.failed", reason=str(error))

    def _purge(self) -> None:
        with contextlib.closing(Writer(self._path, self._sealer, clock_ms=self._clock_ms)) as writer:
            writer.run(RELAY, tell_expiring)
            for paper, days in writer.run(RELAY, tell_ending):
                self._log.warning("paper.expiring", paper=paper.id, owner=paper.owner, kind=paper.kind, days=days)
            if self._rules.suspends_expired:
                for business in writer.run(RELAY, lambda unit: suspend_expired(unit, self._rules.papers)):
                    self._log.warning("paper.expired", business=business, effect="the business user is suspended")
            now, going_on = self._clock_ms(), lambda: not self._ending.is_set()
            purged = purge(writer, self._retention, self._kept_in, now, going_on=going_on)
        self._log.info("purge.done", **purged._asdict())

    def _day(self) -> int:
        """Number of the day, counted from the purge's time in China."""
        return (self._clock_ms() // 60_000 + _CHINA_MIN - self._purge_at_min) // DAY_MIN


def _steady_ms() -> int:
    """Milliseconds of the monotonic clock."""
    return time.monotonic_ns() // 1_000_000
