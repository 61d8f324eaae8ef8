"""What carries calls: engine, gate, look-up, sockets, rtpengine and hook, put together and kept going.

A relay has one in its own process, or one in each of its workers. Its owner decides where records go, and when it
starts and ends.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from structlog.typing import FilteringBoundLogger

from relay.answers import Answers
from relay.call.actions import Commit, Registered
from relay.call.bans import Bans
from relay.call.counts import Counts
from relay.call.engine import Engine
from relay.call.lost import KeptAttempt
from relay.call.record import CallRecord
from relay.call.settings import Settings
from relay.call.state import load_call
from relay.config import Config
from relay.drain import Drain
from relay.errors import StoreError
from relay.garbage import collect_the_young
from relay.log import WholeLines, ended_calls, reporter
from relay.net.bans import BanLog
from relay.net.control import Answer
from relay.net.driver import Driver, Outlet
from relay.net.huge_pages import take_huge_pages
from relay.net.pace import Pace
from relay.net.private import read_secret
from relay.net.rtpengine import Rtpengine
from relay.net.settings import TlsFiles
from relay.net.sounds import read_sounds
from relay.policy.gate import Gate
from relay.policy.last_caller import LastCaller
from relay.sip.flow import Flow
from relay.store.attempts import AttemptFile
from relay.store.live_rows import LiveCall
from relay.store.lookup import RouteReader, granted_since
from relay.store.sealing import Sealer
from relay.tokens import tokens

if TYPE_CHECKING:
    from relay.net.locate import Located
    from relay.net.verify import Verifier
    from relay.server_look_ups import ServerLookUps

TICK_S = 1.0
CLOCK_STEP_S = 1.0  # of what is more within a second the clock does not drift

Sounds = dict[tuple[str, str], bytes]


class Records(Protocol):
    """Where records go: a journal's queue, or in a worker the way to its parent's."""

    def append(self, commit: Commit, done: Callable[[int], None]) -> None: ...
    def tell(self, kind: str, record: CallRecord) -> None: ...
    def remember(self, last: LastCaller) -> None: ...


class Network(Outlet, Protocol):
    """How messages come and go: `relay.net.transports.Transports`, or a worker's `WorkerNetwork`."""

    async def open(
        self, receive: Callable[[bytes, Flow], None], failed: Callable[[Flow], None], bans: Bans, pace: Pace
    ) -> None: ...
    def reload(self, settings: Settings, tls: TlsFiles | None, located: Located) -> None: ...
    def locate(self, located: Located) -> None: ...
    def sweep(self, now: float) -> None: ...
    def statistics(self) -> dict[str, int]: ...
    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What a switch has to know as one of several workers."""

    counts: Counts
    secret: bytes  # as `Engine` takes it
    registered: Callable[[Registered], None]  # tells the others; then `Switch.mates_know` is called
    told: Sequence[Registered]  # what they have told before


class Switch:
    """It serves once `open` has returned."""

    def __init__(
        self,
        config: Config,
        sealer: Sealer,
        records: Records,
        network: Network,
        log: FilteringBoundLogger,
        output: WholeLines,
        context: WorkerContext | None = None,
        attempts: AttemptFile | None = None,
    ) -> None:
        """`output`: where the log is written. `context`: None unless this is one of several workers. `attempts`: where
        attempts under way are noted; None: nowhere.

        Raises ConfigError if a file of the configuration cannot be used any more.
        """
        self._config = config
        self._sealer = sealer
        self._log = log
        self._network = network
        self._output = output
        self._reader = _reader(config, sealer, log)
        granted = context.counts.granted if context else None
        self._gate = Gate(self._reader.fetch, config.rules, records.remember, granted, self._warn)
        self.engine = _engine(config, context)
        self.engine.bans.listeners.append(BanLog(log))
        if attempts is not None:
            self.engine.keep_attempts()
        self._verifier = _verifier(config)
        self._rtpengine = Rtpengine(config.rtpengine, self._warn, sounds_of(config)) if config.rtpengine else None
        self.driver = Driver(
            self.engine,
            self._network,
            self._gate.look_up,
            records.append,
            records.tell if config.api.enabled else _tell_nobody,
            log,
            ended_calls(log, config.log.format, config.log.level, output),
            self._verifier.ask if self._verifier else None,
            self._rtpengine.mediate if self._rtpengine else None,
            context.registered if context else None,
            None if isinstance(self._reader, RouteReader) else partial(self._reader.look_up, self._gate),
            attempts,
        )
        self._answers = Answers(
            self.engine, self.driver, network.statistics, self._rtpengine, self._verifier, self._gate.statistics
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def open(
        self,
        ours: Sequence[LiveCall],
        known: Iterable[CallRecord],
        located: Located,
        streams: Iterable[Flow] = (),
        kept: Sequence[KeptAttempt] = (),
    ) -> None:
        """Takes up our share of the live calls (DESIGN 4.2), listens and serves. Raises ConfigError.

        `known`: the records of all calls that are up, and of those whose end may not be in the store yet. `streams`:
        connections that are open already. `kept`: attempts that were under way, which are ended (4.3).
        """
        if self._verifier is not None:
            await self._verifier.open()
        if self._rtpengine is not None:
            await self._rtpengine.open()
        if not isinstance(self._reader, RouteReader):
            await self._reader.open()
        self._restore(ours, kept, {flow._replace(connection=0): flow for flow in streams})
        lost = [attempt.record for attempt in kept if attempt.stored is None]
        self._recall([*known, *lost])
        self.locate(located)
        take_huge_pages()
        await self._network.open(self.driver.receive, self.driver.transport_failed, self.engine.bans, self.driver.pace)
        self.driver.start()
        self._tasks = [asyncio.create_task(self._tick()), asyncio.create_task(collect_the_young())]

    def _restore(self, ours: Sequence[LiveCall], kept: Sequence[KeptAttempt], streams: Mapping[Flow, Flow]) -> None:
        attempts = {attempt.record.call_id: attempt for attempt in kept}
        for record, dialogs in ours:
            self.engine.restore(record, dialogs, time.monotonic(), streams, attempts.pop(record.call_id, None))
        for attempt in attempts.values():
            self.engine.end_attempt(attempt, time.monotonic())
        if attempts:
            effect = "each has its record, its caller an answer, and its callees stop ringing"
            self._log.warning("attempts.ended", attempts=len(attempts), effect=effect)

    def take_over(self, calls: Sequence[LiveCall]) -> None:
        """Carries on with the calls of a node that is gone, and ends those of which a side is gone too."""
        now = time.monotonic()
        for record, dialogs in calls:
            self.engine.restore(record, dialogs, now, {})
        self.driver.perform(now)

    def answers(self) -> Mapping[str, Callable[..., Answer]]:
        """The answers to questions about calls, by name."""
        return self._answers.by_name()

    def locate(self, located: Located) -> None:
        """Learns where the peers are whose URIs have names."""
        now = time.monotonic()
        self._network.locate(located)
        self.engine.locate(located, now)
        self.driver.perform(now)

    def registered(self, told: Registered) -> None:
        """Another worker says where a peer is."""
        now = time.monotonic()
        self.engine.registered(told, now)
        self.driver.perform(now)

    def mates_know(self, token: int) -> None:
        """As `Engine.mates_know`."""
        now = time.monotonic()
        self.engine.mates_know(token, now)
        self.driver.perform(now)

    async def reload(self, config: Config, located: Located) -> None:
        """Goes by this configuration from now on. Raises ConfigError, and then nothing has changed."""
        sounds = sounds_of(config)  # what can fail comes first
        self._network.reload(config.settings, config.tls, located)
        was_counting, self._config = self._gate.recall_s > 0, config
        now = time.monotonic()
        if self._rtpengine is not None:
            self._rtpengine.sounds = sounds
        self.engine.reload(config.settings, located, now)
        self._reader.follow(config.rules)
        self._gate.follow(config.rules)
        if not was_counting:
            self._recall(self.engine.live())
        self.driver.perform(now)

    async def drain(self, limit_s: float, at_once: asyncio.Event) -> bool:
        """Ends the service. Returns False if calls were left to a restart."""
        drain = Drain(self.engine, self.driver, at_once, self._log)
        clean = await drain.run(limit_s)
        await drain.unregister()
        return clean

    async def close(self) -> None:
        """To be called when nothing more is to be written."""
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if self._verifier is not None:
            await self._verifier.close()
        if self._rtpengine is not None:
            await self._rtpengine.close()
        self.driver.close()
        await self._network.close()
        self._reader.close()

    def _recall(self, known: Iterable[CallRecord]) -> None:
        """Counts what was granted before the start towards the caps. `known`: as for `granted_since`."""
        if not self._gate.recall_s:
            return
        now_ms = int(time.time() * 1000)
        since_ms = now_ms - 1000 * self._gate.recall_s
        for at_ms, number, caller_hash in granted_since(self._config.store.path, self._sealer, since_ms, known):
            self._gate.recall(number, caller_hash, min(at_ms, now_ms) / 1000)  # the clock may have been set back

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._set_clock()
            self._reader.look()
            self._network.sweep(loop.time())
            self.engine.bans.expire(time.monotonic())
            self._output.flush()  # the lines of `ended_calls`
            if lost := self._output.take_lost():
                self._log.error("log.lines_lost", lines=lost, reason="what takes the log did not take them")
            if self.engine.is_idle:
                gc.collect()
            await asyncio.sleep(TICK_S)

    def _set_clock(self) -> None:
        by_s = self.driver.set_clock()
        if abs(by_s) > CLOCK_STEP_S:
            self._gate.clock_was_set(by_s)
            effect = "records of calls that are up keep to the clock as it was; bindings expire by the clock as it is"
            self._log.warning("clock.was_set", by_s=round(by_s, 1), effect=effect)

    def _warn(self, event: str, fields: dict[str, object]) -> None:
        self._log.warning(event, **fields)


def owner_of(call: LiveCall, workers: int) -> int:
    """The index of the worker that a live call belongs to: the one that made its tags.

    A call whose dialogs cannot be read goes to the first worker, which closes it.
    """
    try:
        tag = load_call(call.dialogs).caller.dialog.local_tag
        return int(tag[0], 16) % workers
    except (StoreError, ValueError):
        return 0


def _engine(config: Config, context: WorkerContext | None) -> Engine:
    now = time.monotonic()
    if context is None:
        return Engine(config.settings, tokens().__next__, time.time() - now)
    engine = Engine(
        config.settings, tokens(context.counts.index).__next__, time.time() - now, context.counts, context.secret
    )
    for told in context.told:
        engine.registered(told, now)
    return engine


def sounds_of(config: Config) -> Sounds:
    """The sounds there are to play, by language and name. Raises ConfigError."""
    return {} if config.sounds is None else read_sounds(config.sounds)


def _reader(config: Config, sealer: Sealer, log: FilteringBoundLogger) -> RouteReader | ServerLookUps:
    place = config.store.path
    if isinstance(place, Path):
        return RouteReader(place, sealer, config.rules, reporter(log))
    from relay.server_look_ups import ServerLookUps  # a driver that a store in a file does without

    return ServerLookUps(place, sealer, config.rules, reporter(log))


def _verifier(config: Config) -> Verifier | None:
    """Raises ConfigError."""
    hook = config.verify
    if hook is None:
        return None
    from relay.net.verify import Verifier  # an HTTP client is of no use to a relay without a hook

    secret = read_secret("verify.secret_file", hook.secret_file)
    return Verifier(hook.url, secret, hook.timeout_s, fail_open=hook.fail == "open")


def _tell_nobody(kind: str, record: CallRecord) -> None:
    """Without a desk nobody would read the events of calls under way, or delete them."""
