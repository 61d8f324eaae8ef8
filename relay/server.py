"""The composition root: one relay, from configuration to drain. It decides nothing about calls.

It owns the journal (which locks the store), the admin socket and the notifications to systemd. The SIP service
(`relay.sip_service`) carries the calls in this process. The backend (`relay.backend`) runs in a second process, so
that calls never wait for HTTP clients or webhooks; it queries this one over the admin socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import uvloop
from structlog.typing import FilteringBoundLogger

from relay.config import Config, load_config, what_is_fixed
from relay.config.files import check_files, with_passwords
from relay.config.kept import keep_configuration
from relay.errors import ConfigError, Refused, StoreError
from relay.events.ledger_watch import LedgerWatch
from relay.log import configure, reporter, take_over_stderr
from relay.net.bell import make_bell, ring
from relay.net.capture import Capture, Ring, make_memory
from relay.net.control import Answer, ControlServer, Handlers, control_path
from relay.net.hosts import is_literal
from relay.net.runtime import SPARE, take_descriptors
from relay.net.supervisor import RELOAD, Child, Tasks
from relay.net.systemd import Notifier
from relay.service.numbers import ensure_numbers, lacks_numbers
from relay.sip.message import transport_address
from relay.sip_service import SipService
from relay.store.chain import AnchorFile
from relay.store.database import empty_log, open_store, reading
from relay.store.journal.attempts import AttemptFile, with_records
from relay.store.journal.journal import Journal
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.journal import sqlite_journal
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer

if TYPE_CHECKING:
    from relay.net.locate import Located, Locator
    from relay.store.postgres.attempts import SharedAttempts

ALIVE_S = 1.0  # interval of the watchdog notification
CLOSE_S = 10.0  # for what follows the drain, at most
LOCATE_S = 3.0  # limit for the DNS look-ups of peers at start-up; slower ones finish in the background


def serve(config: Config, path: Path | None) -> int:
    """Run the relay until SIGTERM or SIGINT. Returns the exit status. Raises ConfigError and StoreError at start-up."""
    check_files(config)
    log = configure(config.log.format, config.log.level)
    take_over_stderr()
    if (descriptors := take_descriptors()) < config.streams.max_connections + SPARE:
        log.warning("relay.few_descriptors", limit=descriptors, max_connections=config.streams.max_connections)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Server(with_passwords(config), path, log).run())


class Server:
    """One running relay."""

    def __init__(self, config: Config, path: Path | None, log: FilteringBoundLogger) -> None:
        """`path`: the configuration file, read again on reload. Raises StoreError."""
        self._config = config
        self._path = path
        self._log = log
        self._sealer = open_store(config.store.path, config.store.key_file)
        self._check_anchor(config)
        self._load_numbers(config)
        self._keep_configuration(config)
        shared = _Shared(make_memory(), make_bell(), make_bell()) if config.api.enabled else None
        told = _no_one if shared is None else partial(ring, shared.written)
        self._attempts, self._journal = _durable(config, self._sealer, log, told)
        self._shared = shared
        self._capture = None if shared is None else Capture(Ring(shared.memory), partial(ring, shared.captured))
        self._sip_service = SipService(config, self._sealer, self._journal.queue, self._attempts, log, self._capture)
        self._locator = _locator(config, self._sip_service.locate, log)
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._control = ControlServer(control_path(config.store.local), self._handlers())
        self._backend = None if shared is None else Child("backend", _backend_command(path, shared), log, shared)
        self._notifier = Notifier(os.environ, log)
        self._reloading = asyncio.Lock()
        self._tasks = Tasks()

    def _check_anchor(self, config: Config) -> None:
        """Raise StoreError if the store holds fewer records than the anchor file says."""
        place = config.store.path
        with reading(place) as reader:
            AnchorFile(config.store.local, self._sealer).check(reader)

    def _keep_anchor(self) -> None:
        """Write the anchor after the last record. If this fails, the next start checks against a slightly older one."""
        place = self._config.store.path
        try:
            with reading(place) as reader:
                AnchorFile(self._config.store.local, self._sealer).keep(reader)
        except StoreError as error:
            self._log.warning("ledger.anchor_not_kept", reason=str(error))

    def _load_numbers(self, config: Config) -> None:
        """Add the configured numbers that the store lacks: only stored numbers can be called."""
        place, prefixes, legacy = config.store.path, config.settings.prefixes, config.settings.legacy
        with reading(place) as reader:
            if not lacks_numbers(reader, prefixes, legacy):
                return  # a relay must start on a read-only store
        with closing(Writer(place, self._sealer)) as writer:
            writer.run(RELAY, lambda unit: ensure_numbers(unit, prefixes, legacy))

    def _keep_configuration(self, config: Config) -> None:
        """Keep it for explanations of past calls. If this fails, they say that it is not known."""
        try:
            keep_configuration(config, self._sealer)
        except StoreError as error:
            self._log.warning("config.not_kept", reason=str(error))

    async def reload(self) -> None:
        """Read the configuration again and apply it. Live calls keep their peers.

        Raises ConfigError with every fault, and StoreError if the numbers of a new prefix cannot be added; the running
        configuration then stays in force.
        """
        async with self._reloading:
            config = await asyncio.to_thread(self._read_configuration)
            await asyncio.to_thread(self._load_numbers, config)
            locator = _locator(config, self._sip_service.locate, self._log, self._locator)
            if locator is not None:
                await locator.start(LOCATE_S)
            try:
                await self._sip_service.reload(config, dict if locator is None else locator.located)
            except (ConfigError, StoreError):  # such as a file that changed after `check_files`
                if locator is not None:
                    await locator.close()
                raise
            former, self._locator, self._config = self._locator, locator, config
            if self._backend is not None:
                self._backend.tell(RELOAD)
            if former is not None:
                await former.close()
            await asyncio.to_thread(self._keep_configuration, config)
            self._log.info("relay.reloaded", peers=[peer.name for peer in config.settings.peers])
            self._log_warnings()

    def _read_configuration(self) -> Config:
        """The file's configuration with its passwords, checked. Raises ConfigError with every fault."""
        config = load_config(self._path)
        if fixed := what_is_fixed(self._config, config):
            raise ConfigError([f"{config.name}: {problem}" for problem in fixed])
        check_files(config)
        return with_passwords(config)

    async def run(self) -> int:
        """Serve, drain and close. Returns 0, or 1 if calls were still up at the end: the next start resumes them."""
        await self._journal.open()
        try:
            restored = await self._begin_to_serve()
            self._journal.writer.watch(self._sip_service.take_over, self._sip_service.limits)
            await self._control.open()
            if self._backend is not None:
                self._backend.start()
            else:
                self._tasks.begin(LedgerWatch(self._config.store.path, self._sealer, self._log).run())
            alive = asyncio.create_task(self._keep_alive())
            self._handle_signals()
            self._log_ready(restored)
            self._notifier.serving()
            await self._stop.wait()
            self._notifier.stopping(self._config.drain_s + CLOSE_S)
            clean = await self._sip_service.drain(self._config.drain_s, self._stop_at_once)
            alive.cancel()
            await self._tasks.cancel()
        finally:
            await self._journal.close()
            await asyncio.to_thread(self._keep_anchor)
            if self._capture is not None:
                self._capture.flush()
            if self._backend is not None:  # last, so that it can read the final records
                self._ring_bells()
                await self._backend.stop()
            await self._control.close()
            if self._locator is not None:
                await self._locator.close()
            await self._sip_service.close()
            self._attempts.close()
            with suppress(StoreError):  # the next start reports it
                await asyncio.to_thread(empty_log, self._config.store.path)
        self._log.info("relay.stopped", clean=clean)
        return 0 if clean else 1

    def _ring_bells(self) -> None:
        """Let no task of the backend wait for its bell while it is to stop."""
        if self._shared is not None:
            ring(self._shared.written)
            ring(self._shared.captured)

    async def _begin_to_serve(self) -> int:
        """Open the SIP service with the stored calls. Returns the number of calls resumed. Raises ConfigError."""
        located = await self._located()
        live = self._journal.live()
        unwritten = [commit.record for commit in self._journal.queue.unwritten()]
        kept = with_records(self._config.store.path, self._sealer, self._attempts.open(), unwritten)
        await self._sip_service.open(live, [call.record for call in live] + unwritten, located, kept)
        return len(live)

    async def _located(self) -> Located:
        """Resolve peers configured by host name, before the first call."""
        if self._locator is None:
            return {}
        await self._locator.start(LOCATE_S)
        return self._locator.located()

    async def _keep_alive(self) -> None:
        while True:
            self._notifier.alive()
            await asyncio.sleep(ALIVE_S)

    # Admin socket

    def _handlers(self) -> Handlers:
        return {
            **self._sip_service.answers.by_name(),
            "state": self._state,
            "statistics": self._statistics,
            "reload": self._reload_on_request,
            "sealing_keys": self._sealing_keys,
        }

    def _state(self) -> Answer:
        return {"state": "draining" if self._stop.is_set() else "serving", "pid": os.getpid()}

    def _statistics(self) -> Answer:
        return {
            **self._sip_service.answers.statistics(),
            "journal_backlog": self._journal.queue.backlog,
            "backend_starts": 0 if self._backend is None else self._backend.starts,
            "rss_bytes": _rss_bytes(),
        }

    def _sealing_keys(self) -> Answer:
        """Raises Refused if the key file cannot be used."""
        try:
            self._sealer.refresh()
        except StoreError as error:
            raise Refused("invalid", "", str(error)) from None
        return {"ids": self._sealer.key_ids}

    async def _reload_on_request(self) -> Answer:
        """Raises Refused with one fault per line."""
        try:
            await self.reload()
        except ConfigError as error:
            raise Refused("invalid", "", "\n".join(error.problems)) from None
        except StoreError as error:
            raise Refused("store_busy", "", str(error)) from None
        return {"pid": os.getpid()}

    # Messages to the operator

    def _log_ready(self, restored: int) -> None:
        listen = [transport_address(it.transport, it.host, it.port) for it in self._config.settings.listeners]
        peers = [peer.name for peer in self._config.settings.peers]
        self._log.info("relay.ready", listen=listen, peers=peers, calls_restored=restored, pid=os.getpid())
        self._log_warnings()
        if self._config.log.format == "console" and not self._notifier.is_heard:  # interactive, not under systemd
            option = f" -c {self._path}" if self._path else ""
            command = sys.argv[0] if Path(sys.argv[0]).name == "relay700" else "relay700"
            sys.stdout.write(_FIRST_STEPS.format(command=command, option=option))
            sys.stdout.flush()

    def _log_warnings(self) -> None:
        for warning in self._config.warnings:
            self._log.warning("config.warning", problem=warning)

    def _log_statistics(self) -> None:
        self._log.info("relay.statistics", **self._statistics())

    # Signals

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop_signal)
        loop.add_signal_handler(signal.SIGINT, self._stop_signal)
        loop.add_signal_handler(signal.SIGUSR1, self._log_statistics)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.begin(self._reload_on_signal()))

    async def _reload_on_signal(self) -> None:
        try:
            await self.reload()
        except (ConfigError, StoreError) as error:
            problems = error.problems if isinstance(error, ConfigError) else [str(error)]
            self._log.warning("relay.reload_refused", problems=problems)

    def _stop_signal(self) -> None:
        """The first signal drains, the second stops at once. Records are written in both cases."""
        if self._stop.is_set():
            self._stop_at_once.set()
        self._stop.set()


_FIRST_STEPS = """
The relay is running; stop it with Ctrl-C. To connect two numbers, run in this folder in another terminal:
    {command} bind{option} AXB --a 13800000001 --b 13900000002 --expires-in 2h
It prints the 700 number that each of the two dials to reach the other. Continue with "A first call" in README.md.

"""


class _Shared(NamedTuple):
    """Descriptors that relay and backend both have."""

    memory: int  # of the ring for captures
    captured: int  # a bell: there is something in it
    written: int  # a bell: the journal has written records or events


def _no_one() -> None:
    """There is no backend to tell."""


def _durable(
    config: Config, sealer: Sealer, log: FilteringBoundLogger, told: Callable[[], None]
) -> tuple[AttemptFile | SharedAttempts, Journal]:
    """The store of attempts under way, and the journal of records. `told`: as for `sqlite_journal`."""
    place, local, report = config.store.path, config.store.local, reporter(log)
    file = AttemptFile(local.with_name(local.name + ".attempts"), sealer, report)
    if isinstance(place, Path):
        return file, sqlite_journal(place, sealer, report, told)
    from relay.store.postgres.attempts import SharedAttempts
    from relay.store.postgres.journal import postgres_journal

    sent_by = tuple(listener.sent_by for listener in config.settings.listeners)
    attempts = SharedAttempts(file, place, sealer, sent_by, report)
    return attempts, postgres_journal(place, sealer, report, attempts)


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _locator(
    config: Config,
    located: Callable[[Located], None],
    log: FilteringBoundLogger,
    former: Locator | None = None,
) -> Locator | None:
    """None if every peer is configured by IP address."""
    if all(is_literal(target.host) for peer in config.settings.peers for target in peer.targets):
        return None
    from relay.net.locate import Locator

    return Locator(config.settings, config.dns, located, log, former=former)


def _backend_command(config: Path | None, shared: _Shared) -> list[str]:
    """-P: import the installed package, not a folder `relay` in the working directory."""
    options = ["--capture", str(shared.memory), "--bells", str(shared.captured), str(shared.written)]
    command = [sys.executable, "-P", "-m", "relay", "backend", *options]
    return [*command, "-c", str(config)] if config else command
