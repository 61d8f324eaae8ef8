"""The composition root: one relay from its configuration, from start to drain. It decides nothing of calls.

Beside it runs the desk (`relay.desk`), a process of its own: nothing that HTTP clients or webhooks do waits for a call,
nor a call for them. It asks us by the control socket.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from structlog.typing import FilteringBoundLogger

from relay.answers import Answers
from relay.call.engine import Engine
from relay.call.record import CallRecord
from relay.call.settings import Listener
from relay.config import Config, load_config
from relay.config.files import check_files
from relay.config.passwords import with_passwords
from relay.config.reload import what_is_fixed
from relay.drain import Drain
from relay.errors import ConfigError, StoreError
from relay.log import configure, ended_calls
from relay.net.child import RELOAD, Child
from relay.net.control import ControlServer, control_path
from relay.net.driver import Driver
from relay.net.notify import Notifier
from relay.net.private import read_secret
from relay.net.resolve import is_literal
from relay.net.rtpengine import Rtpengine
from relay.net.sounds import read_sounds
from relay.net.transports import Transports
from relay.policy.gate import Gate
from relay.service.numbers import ensure_numbers
from relay.store.act import RELAY
from relay.store.database import open_store
from relay.store.journal import Journal
from relay.store.lookup import Granted, RouteReader, granted_since
from relay.store.writer import Writer
from relay.tokens import tokens

if TYPE_CHECKING:
    from relay.net.locate import Located, Locator
    from relay.net.verify import Verifier

TICK_S = 1.0
LOCATE_S = 3.0  # for the names of peers at the start; what takes longer comes later


def serve(config: Config, path: Path | None) -> int:
    """Run the relay until it is told to stop. Returns the exit status. Raises ConfigError and StoreError at first."""
    check_files(config)
    log = configure(config.log.format, config.log.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Relay(with_passwords(config), path, log).run())


class Relay:
    """One running relay."""

    def __init__(self, config: Config, path: Path | None, log: FilteringBoundLogger) -> None:
        """`path` is where the configuration came from, for words to the operator alone. Raises StoreError."""
        self._config = config
        self._path = path
        self._log = log
        self._sealer = open_store(config.store.path, config.store.key_file)
        self._load_numbers(config)
        self._reader = RouteReader(config.store.path, self._sealer, config.rules)
        self._journal = Journal(config.store.path, self._sealer, self._report)
        self._gate = Gate(self._reader.fetch, config.rules, self._journal.remember)
        self._engine = Engine(config.settings, tokens().__next__, time.time() - time.monotonic())
        self._transports = Transports(config.settings, config.streams, config.tls)
        log_ended = ended_calls(log, config.log.format, config.log.level)
        self._verifier = _verifier(config)
        self._rtpengine = Rtpengine(config.rtpengine, self._warn, _sounds(config)) if config.rtpengine else None
        self._driver = Driver(
            self._engine,
            self._transports.send,
            self._gate.look_up,
            self._journal.append,
            self._journal.tell if config.api.enabled else _tell_nobody,
            log,
            log_ended,
            self._verifier.ask if self._verifier else None,
            self._rtpengine.mediate if self._rtpengine else None,
        )
        self._locator = _locator(config, self._located, log)
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._answers = Answers(
            self._engine,
            self._driver,
            self._transports,
            self._journal,
            self._rtpengine,
            self._verifier,
            self._stop.is_set,
            self.reload,
        )
        self._control = ControlServer(control_path(config.store.path), self._answers.by_name())
        self._desk = Child("desk", _desk_command(path), log) if config.api.enabled else None
        self._notifier = Notifier(os.environ, log)
        self._reloading = asyncio.Lock()
        self._reload_task: asyncio.Task[None] | None = None

    def _load_numbers(self, config: Config) -> None:
        """Those of the configuration that the store has not seen yet: calls reach no others."""
        prefixes, legacy = config.settings.prefixes, config.settings.legacy
        with closing(Writer(config.store.path, self._sealer)) as writer:
            writer.run(RELAY, lambda act: ensure_numbers(act, prefixes, legacy))

    async def reload(self) -> None:
        """Reads the configuration anew and goes by it; calls that are there keep their peers.

        Raises ConfigError with every fault, and StoreError where the numbers of a new prefix cannot be entered: all is
        as it was then.
        """
        async with self._reloading:
            config = load_config(self._path)
            if fixed := what_is_fixed(self._config, config):
                raise ConfigError(fixed)
            check_files(config)
            config = with_passwords(config)
            await asyncio.to_thread(self._load_numbers, config)
            locator = _locator(config, self._located, self._log, self._locator)
            if locator is not None:
                await locator.start(LOCATE_S)
            try:
                await self._take(config, locator)
            except ConfigError:  # a file has changed since it was checked
                if locator is not None:
                    await locator.close()
                raise
            self._log.info("relay.reloaded", peers=[peer.name for peer in config.settings.peers])

    async def _take(self, config: Config, locator: Locator | None) -> None:
        located = {} if locator is None else locator.located()
        sounds = _sounds(config)  # what can fail comes first
        self._transports.reload(config.settings, config.tls, located)
        was_counting = self._gate.recall_s > 0
        former, self._locator, self._config = self._locator, locator, config
        now = time.monotonic()
        if self._rtpengine is not None:
            self._rtpengine.sounds = sounds
        self._engine.reload(config.settings, located, now)
        self._reader.follow(config.rules)
        self._gate.follow(config.rules)
        if not was_counting:
            self._recall(self._engine.live())
        self._driver.perform(now)
        if self._desk is not None:
            self._desk.tell(RELOAD)
        if former is not None:
            await former.close()

    async def run(self) -> int:
        """Serve, drain, and go. 0 unless live calls were left to a restart."""
        await self._journal.open()
        try:
            if self._verifier is not None:
                await self._verifier.open()
            if self._rtpengine is not None:
                await self._rtpengine.open()
            restored = await self._restore()
            await self._locate()
            await self._transports.open(self._driver.receive, self._driver.transport_failed)
            self._driver.start()
            await self._control.open()
            if self._desk is not None:
                self._desk.start()
            ticker = asyncio.create_task(self._tick())
            self._handle_signals()
            self._tell_ready(restored)
            self._notifier.serving()
            _collect_the_young()
            await self._stop.wait()
            self._notifier.stopping()
            drain = Drain(self._engine, self._driver, self._stop_at_once, self._log)
            clean = await drain.run(self._config.drain_s)
            await drain.unregister()
            ticker.cancel()
        finally:
            await self._journal.close()
            if self._desk is not None:  # now that it can have read the last record
                await self._desk.stop()
            await self._control.close()
            if self._verifier is not None:
                await self._verifier.close()
            if self._rtpengine is not None:
                await self._rtpengine.close()
            if self._locator is not None:
                await self._locator.close()
            self._driver.close()
            await self._transports.close()
            self._reader.close()
        self._log.info("relay.stopped", clean=clean)
        return 0 if clean else 1

    async def _locate(self) -> None:
        """Before the first call: where the peers are whose uris have names."""
        if self._locator is not None:
            await self._locator.start(LOCATE_S)
        self._located({} if self._locator is None else self._locator.located())

    def _located(self, located: Located) -> None:
        now = time.monotonic()
        self._transports.locate(located)
        self._engine.locate(located, now)
        self._driver.perform(now)

    async def _restore(self) -> int:
        """Take up the calls that were live when the last process ended (DESIGN 4.2)."""
        live = self._journal.live()
        for record, dialogs in live:
            self._engine.restore(record, dialogs, time.monotonic())
        self._recall([record for record, _ in live])
        return len(live)

    def _recall(self, live: list[CallRecord]) -> None:
        """Have what was granted before the start count against the caps."""
        if not self._gate.recall_s:
            return
        since_ms = int((time.time() - self._gate.recall_s) * 1000)
        granted = granted_since(self._config.store.path, self._sealer, since_ms)
        for record in live:
            if record.received_at >= since_ms:
                caller_hash = self._sealer.lookup_hash(record.caller)
                granted.append(Granted(record.received_at, record.number_dialled, caller_hash))
        for at_ms, number, caller_hash in sorted(granted):
            self._gate.recall(number, caller_hash, at_ms / 1000)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._notifier.alive()
            self._driver.set_clock()
            self._transports.sweep(loop.time())
            sys.stdout.flush()  # the lines of `ended_calls`
            if self._engine.is_idle:
                gc.collect()
            await asyncio.sleep(TICK_S)

    # Words to the operator

    def _report(self, event: str, fields: dict[str, object]) -> None:
        self._log.error(event, **fields)

    def _warn(self, event: str, fields: dict[str, object]) -> None:
        self._log.warning(event, **fields)

    def _tell_ready(self, restored: int) -> None:
        listen = [_place(listener) for listener in self._config.settings.listeners]
        peers = [peer.name for peer in self._config.settings.peers]
        self._log.info("relay.ready", listen=listen, peers=peers, calls_restored=restored, pid=os.getpid())
        if not peers:
            self._log.warning("relay.no_peers", reason="no [[peer]] is configured: every call will be refused")
        if self._config.log.format == "console":
            option = f" -c {self._path}" if self._path else ""
            command = sys.argv[0] if Path(sys.argv[0]).name == "relay700" else "relay700"
            sys.stdout.write(_NEXT.format(command=command, option=option))
            sys.stdout.flush()

    def _tell_statistics(self) -> None:
        self._log.info("relay.statistics", **self._answers.statistics())

    # Signals

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stop_signal,
            signal.SIGINT: self._stop_signal,
            signal.SIGUSR1: self._tell_statistics,
            signal.SIGHUP: self._reload_signal,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)

    def _reload_signal(self) -> None:
        self._reload_task = asyncio.create_task(self._reload_or_say_why())

    async def _reload_or_say_why(self) -> None:
        try:
            await self.reload()
        except (ConfigError, StoreError) as error:
            problems = error.problems if isinstance(error, ConfigError) else [str(error)]
            self._log.warning("relay.reload_refused", problems=problems)

    def _stop_signal(self) -> None:
        """The first one drains, the second one ends at once; records are written in either case."""
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()


_NEXT = """
The relay runs; stop it with Ctrl-C. In another terminal, in this folder, let two numbers reach each other:
    {command} bind{option} AXB --a 13800000001 --b 13900000002
It prints the 700 number that each of the two dials to reach the other. README.md, "A first call", goes on from there.

"""


def _place(listener: Listener) -> str:
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    return f"{listener.transport}:{host}:{listener.port}"


def _locator(
    config: Config,
    located: Callable[[Located], None],
    log: FilteringBoundLogger,
    former: Locator | None = None,
) -> Locator | None:
    """None where every peer has addresses."""
    if all(is_literal(target.host) for peer in config.settings.peers for target in peer.targets):
        return None
    from relay.net.locate import Locator  # a DNS library is of no use to a relay without names

    return Locator(config.settings, config.dns, located, log, former=former)


def _sounds(config: Config) -> dict[tuple[str, str], bytes]:
    return {} if config.sounds is None else read_sounds(config.sounds)


def _verifier(config: Config) -> Verifier | None:
    """Raises ConfigError."""
    hook = config.verify
    if hook is None:
        return None
    from relay.net.verify import Verifier  # an HTTP client is of no use to a relay without a hook

    secret = read_secret("verify.secret_file", hook.secret_file)
    return Verifier(hook.url, secret, hook.timeout_s, fail_open=hook.fail == "open")


def _desk_command(config: Path | None) -> list[str]:
    """-P: the desk of this relay, not of a folder `relay` where it was started."""
    return [sys.executable, "-P", "-m", "relay", "desk", *(["-c", str(config)] if config else [])]


def _tell_nobody(kind: str, record: CallRecord) -> None:
    """Without a desk nobody would read the events of calls under way, nor delete them."""


def _collect_the_young() -> None:
    """No full collection while there are calls: with a minute's worth of them in memory one stops the relay for 200 ms.

    References alone free what a call was (tests/call/test_garbage.py). The youngest objects, in which an exception may
    have left a cycle, are looked through some 0.3 ms at a time, and all of them by `_tick` whenever there is no call.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 1_000_000, 1_000_000)
