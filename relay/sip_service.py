"""The SIP service: engine, call policy, look-ups, sockets, rtpengine and hooks, wired together; its drain.

`relay.server` starts and stops it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from relay.admin import AdminHandlers, PeekLookUp
from relay.call.engine import Engine
from relay.call.recovery import KeptAttempt
from relay.config import Config
from relay.config.engine import read_sounds
from relay.defence.limits import SharedLimits
from relay.errors import Report
from relay.log import STANDARD_OUTPUT, ended_calls, reporter
from relay.model.actions import CallEvent, LookUp
from relay.model.call import CallRecord, Refusal, Route
from relay.net.capture import Capture
from relay.net.control import BanLog
from relay.net.driver import AttemptNotes, Driver
from relay.net.rtpengine import Rtpengine
from relay.net.runtime import collect_all, collect_samples, take_huge_pages
from relay.net.tls import read_secret
from relay.net.tokens import tokens
from relay.net.transports import Transports
from relay.policy.call_policy import CallPolicy
from relay.policy.decision import Bounds
from relay.policy.evaluate import LookupResult
from relay.policy.figures import CapCounts
from relay.policy.rules import MEMORY_S, Rules
from relay.store.journal.queue import JournalQueue
from relay.store.journal.rows import LiveCall
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.lookup import GrantedCall, RouteReader, granted_since
from relay.store.writer import now_ms

if TYPE_CHECKING:
    from relay.call_hooks import CallHooks
    from relay.net.locate import Located
    from relay.postgres_look_ups import PostgresLookUps

TICK_S = 1.0
COLLECT_ALL_S = 60.0  # least interval between two collections of all objects
CLOCK_STEP_S = 1.0  # a larger change of the wall clock within one tick is a step, not drift


class SipService:
    """Serves calls from `open` to `close`."""

    def __init__(
        self,
        config: Config,
        sealer: Sealer,
        records: JournalQueue,
        attempts: AttemptNotes,
        log: FilteringBoundLogger,
        capture: Capture | None = None,
    ) -> None:
        """`attempts`: what keeps attempts under way. `capture`: None without a backend to read it.

        Raises ConfigError for an unusable configured file.
        """
        self._config = config
        self._sealer = sealer
        self._log = log
        self._capture = capture
        self._transports = Transports(config.settings, config.streams, config.tls)
        self._reader = _reader(config, sealer, log)
        self._hooks = _hooks(config, sealer, self._warn, self._look_up_again, self._not_bound)
        decide = self._hooks.decide if self._hooks else None
        reader = self._reader
        give_back = None if isinstance(reader, RouteReader) else reader.give_back
        policy = self._policy = CallPolicy(reader.fetch, config.rules, records.remember, self._warn, decide, give_back)
        look_up = policy.route if isinstance(reader, RouteReader) else partial(reader.look_up, policy)
        offset_s = time.time() - time.monotonic()
        self._engine = Engine(config.settings, tokens().__next__, offset_s, nonce_key=sealer.nonce_key)
        self._engine.bans.listeners.append(BanLog(log))
        self._rtpengine = Rtpengine(config.rtpengine, self._warn, _sounds(config)) if config.rtpengine else None
        self._driver = Driver(
            self._engine,
            self._transports,
            look_up,
            records.append,
            records.emit if config.api.enabled else _drop_event,
            attempts,
            log,
            ended_calls(log, config.log.format, config.log.level),
            self._rtpengine.mediate if self._rtpengine else None,
            answers_wait=config.settings.answer_wait_s < math.inf,
        )
        self.answers = AdminHandlers(
            self._engine,
            self._driver,
            self._transports.statistics,
            self._rtpengine,
            self._hooks,
            policy,
            _peek_in_file(reader) if isinstance(reader, RouteReader) else reader.peek,
            capture,
        )
        self.limits = _shared_limits(self._engine, self._policy)
        self._collector: asyncio.Task[None] | None = None
        self._next_tick: asyncio.Handle | None = None
        self._collected_at = 0.0  # all objects, by the loop's clock

    async def open(
        self,
        live: Sequence[LiveCall],
        known: Iterable[CallRecord],
        located: Located,
        kept: Sequence[KeptAttempt],
    ) -> None:
        """Resume the live calls, listen and serve. Raises ConfigError.

        `known`: records of live calls, and of calls whose end may not be in the store yet. `kept`: attempts that were
        under way at the crash; they are ended.
        """
        if self._hooks is not None:
            await self._hooks.open()
        if self._rtpengine is not None:
            await self._rtpengine.open()
        if not isinstance(self._reader, RouteReader):
            await self._reader.open()
        self._capture_if_wanted()
        self._restore(live, kept)
        lost = [attempt.record for attempt in kept if attempt.stored is None]
        self._recall([*known, *lost])
        self.locate(located)
        take_huge_pages()
        driver = self._driver
        await self._transports.open(driver.receive, driver.transport_failed, self._engine.bans, driver.pace)
        driver.start()
        loop = asyncio.get_running_loop()
        self._collector = loop.create_task(collect_samples())
        self._collected_at = loop.time()
        self._next_tick = loop.call_soon(self._tick)

    def _capture_if_wanted(self) -> None:
        capture, keep, has_hep = self._capture, self._config.capture.keep, self._config.hep is not None
        if capture is not None and (has_hep or keep == "all"):
            capture.pass_all()
        elif capture is not None:
            capture.hold(keeps_failed=keep == "failed")
        self._driver.capture_to(capture if has_hep or keep != "off" else None)

    def _restore(self, live: Sequence[LiveCall], kept: Sequence[KeptAttempt]) -> None:
        attempts = {attempt.record.call_id: attempt for attempt in kept}
        for record, dialogs in live:
            self._engine.restore(record, dialogs, time.monotonic(), attempts.pop(record.call_id, None))
        for attempt in attempts.values():
            self._engine.end_attempt(attempt, time.monotonic())
        if attempts:
            effect = "each was recorded, its caller answered and its callees cancelled"
            self._log.warning("attempts.ended", attempts=len(attempts), effect=effect)

    def take_over(self, calls: Sequence[LiveCall], kept: Sequence[KeptAttempt]) -> None:
        """Resume the calls of a lost node, and end its attempts; calls that lost a leg as well are ended."""
        self._restore(calls, kept)
        self._driver.perform(time.monotonic())

    def locate(self, located: Located) -> None:
        """Apply the resolved targets of peers configured by host name."""
        now = time.monotonic()
        self._transports.locate(located)
        self._engine.locate(located, now)
        self._driver.perform(now)

    async def reload(self, config: Config, locate: Callable[[], Located]) -> None:
        """Apply a new configuration. Raises ConfigError and StoreError; the old one then stays in force.

        `locate` returns the targets of peers configured by host name, as they are when they are applied.
        """
        is_counting = bool(config.rules.caller_caps or config.rules.number_caps)
        granted = await self._granted_until_now() if is_counting and not self._policy.recall_s else []
        sounds, located = _sounds(config), locate()  # first the steps that can fail
        self._transports.reload(config.settings, config.tls, located)
        self._config = config
        now = time.monotonic()
        if self._rtpengine is not None:
            self._rtpengine.sounds = sounds
        self._engine.reload(config.settings, located, now)
        self._reader.apply_config(config.rules)
        self._policy.apply_config(config.rules)
        if self._hooks is not None:
            self._hooks.apply_config(config.numbers, _bounds(config))
        self._count(granted)
        self._capture_if_wanted()
        self._driver.perform(now)

    async def drain(self, limit_s: float, at_once: asyncio.Event) -> bool:
        """Drain and unregister. Returns False if calls are still up: the next start resumes them."""
        drain = Drain(self._engine, self._driver, at_once, self._log)
        clean = await drain.run(limit_s)
        await drain.unregister()
        self._engine.close()  # before the journal: a record that comes later would not be written
        return clean

    async def close(self) -> None:
        """Release everything; call it after the journal is closed."""
        if self._next_tick is not None:
            self._next_tick.cancel()
        if self._collector is not None:
            self._collector.cancel()
            with suppress(asyncio.CancelledError):
                await self._collector
        if self._hooks is not None:
            await self._hooks.close()
        if self._rtpengine is not None:
            await self._rtpengine.close()
        self._driver.close()
        await self._transports.close()
        self._reader.close()

    def _recall(self, known: Iterable[CallRecord]) -> None:
        """Count the calls granted before the start towards the caps. `known`: as for `granted_since`.

        PostgreSQL keeps the counts itself.
        """
        place = self._config.store.path
        if self._policy.recall_s and isinstance(place, Path):
            self._count(granted_since(place, self._sealer, now_ms() - 1000 * self._policy.recall_s, known))

    async def _granted_until_now(self) -> list[GrantedCall]:
        """The calls granted within `MEMORY_S`, as in `_recall`. A thread reads them: there may be 100,000."""
        place, until_ms = self._config.store.path, now_ms()
        if not isinstance(place, Path):
            return []
        since_ms, live = until_ms - 1000 * MEMORY_S, self._engine.live()
        earlier = await asyncio.to_thread(granted_since, place, self._sealer, since_ms, live)
        meanwhile = granted_since(place, self._sealer, until_ms, self._engine.live())
        return [each for each in earlier if each.at_ms < until_ms] + meanwhile

    def _count(self, granted: Iterable[GrantedCall]) -> None:
        latest_ms = now_ms()  # the clock may have been set back since
        for at_ms, number, caller_hash in granted:
            self._policy.recall(number, caller_hash, min(at_ms, latest_ms) / 1000)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_tick = loop.call_later(TICK_S, self._tick)  # first: the loop logs an exception, and goes on
        self._set_clock()
        self._transports.sweep(loop.time())
        self._engine.bans.expire(time.monotonic())
        STANDARD_OUTPUT.flush()  # buffered lines of `ended_calls`
        STANDARD_OUTPUT.report_lost(self._report_lost)
        self._reader.look()
        if self._engine.is_idle and loop.time() - self._collected_at >= COLLECT_ALL_S:
            collect_all()
            self._collected_at = loop.time()

    def _report_lost(self, lines: int) -> None:
        reason = "standard output did not take them: a full disk, or a reader that stands still?"
        self._log.error("log.lines_lost", lines=lines, reason=reason)

    def _set_clock(self) -> None:
        by_s = self._driver.set_clock()
        if abs(by_s) > CLOCK_STEP_S:
            self._policy.clock_was_set(by_s)
            effect = "live calls are recorded by the old clock; bindings expire by the new one"
            self._log.warning("clock.was_set", by_s=round(by_s, 1), effect=effect)

    async def _look_up_again(self, asked: LookUp) -> Route | Refusal:
        """Look up a call for which a binding was made."""
        reader, unix_s = self._reader, time.time()
        if isinstance(reader, RouteReader):
            return self._policy.look_up(asked.number, asked.caller, unix_s, asked.peer, asked)
        return await reader.look_up_again(self._policy, asked, unix_s)

    def _not_bound(self, asked: LookUp) -> Refusal:
        return self._policy.not_bound(asked, time.time())

    def _warn(self, event: str, fields: dict[str, object]) -> None:
        self._log.warning(event, **fields)


def _peek_in_file(reader: RouteReader) -> PeekLookUp:
    """A look-up in a file counts none by itself."""

    async def peek(
        number: str, caller: str, unix_s: float, rules: Rules
    ) -> tuple[LookupResult | Refusal, CapCounts | None]:
        return reader.fetch(number, caller, unix_s), None

    return peek


def _shared_limits(engine: Engine, policy: CallPolicy) -> SharedLimits:
    """The limits that apply across all nodes of a store."""
    tallies, rates = engine.limited()
    timed = {what: (each, time.monotonic) for what, each in rates.items()}
    return SharedLimits(tallies, timed | {"rate": (policy.rates, time.time)}, policy.refused_attempts, time.time)


def _sounds(config: Config) -> dict[tuple[str, str], bytes]:
    """Announcements by (language, name). Raises ConfigError."""
    return {} if config.sounds is None else read_sounds(config.sounds)


def _reader(config: Config, sealer: Sealer, log: FilteringBoundLogger) -> RouteReader | PostgresLookUps:
    place = config.store.path
    if isinstance(place, Path):
        return RouteReader(place, sealer, config.rules, reporter(log))
    from relay.postgres_look_ups import PostgresLookUps

    return PostgresLookUps(place, sealer, config.rules, reporter(log))


def _hooks(
    config: Config,
    sealer: Sealer,
    report: Report,
    look_up_again: Callable[[LookUp], Awaitable[Route | Refusal]],
    not_bound: Callable[[LookUp], Refusal],
) -> CallHooks | None:
    """Raises ConfigError."""
    if config.verify is None and config.hooks is None:
        return None
    from relay.call_hooks import CallHooks, HookLimits, HookStore
    from relay.net.hook_client import HookClient, HookEndpoint
    from relay.net.spans import Spans

    verify = hooks = None
    if config.verify is not None:
        hook = HookEndpoint("", config.verify.url, read_secret("verify.secret_file", config.verify.secret_file))
        limits = HookLimits(config.verify.timeout_s, config.verify.fail == "open", config.verify.unknown_callers)
        verify = hook, limits
    if config.hooks is not None:
        hooks = HookLimits(config.hooks.timeout_s, config.hooks.fail == "open", config.hooks.unknown_callers)
    client = HookClient(report, None if config.otlp is None or not config.api.enabled else Spans())
    store = HookStore(config.store.path, sealer, config.numbers)
    return CallHooks(client, store, _bounds(config), report, look_up_again, not_bound, verify, hooks)


def _bounds(config: Config) -> Bounds:
    settings = config.settings
    return Bounds(config.numbers.parties, config.numbers.recording, settings.max_call_s, settings.ring_timeout_s)


def _drop_event(event: CallEvent) -> None:
    """Drop live-call events: without a backend nothing would read or delete them."""


# -- Graceful shutdown: refuse new calls, hang up live ones at the limit, then unregister from trunks

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
