"""The composition root: one relay, from its configuration to its drain. It decides nothing about calls.

It has the store's journal and lock, the control socket, and the words for the service manager. A switch in this
process carries the calls (`relay.switch`). Beside it runs the desk (`relay.desk`), a process of its own, so that no
call waits for HTTP clients or webhooks, and they wait for no call. It asks this process over the control socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from structlog.typing import FilteringBoundLogger

from relay.config import Config, load_config
from relay.config.files import check_files
from relay.config.passwords import with_passwords
from relay.config.reload import what_is_fixed
from relay.errors import ConfigError, Refused, StoreError
from relay.events.ledger_watch import LedgerWatch
from relay.log import configure, reporter
from relay.net.addresses import is_literal
from relay.net.child import RELOAD, Child
from relay.net.control import Answer, ControlServer, Handlers, control_path
from relay.net.notify import Notifier
from relay.net.rlimits import SPARE, leave_no_core, take_descriptors
from relay.net.tasks import Tasks
from relay.service.numbers import ensure_numbers, lacks_numbers
from relay.sip.flow import transport_address
from relay.store.act import RELAY
from relay.store.anchor import AnchorFile
from relay.store.attempts import AttemptFile, with_records
from relay.store.database import connect_reader, open_store, store_errors
from relay.store.journal import Journal
from relay.store.sealing import Sealer
from relay.store.server import Place
from relay.store.writer import Writer
from relay.switch import Switch

if TYPE_CHECKING:
    from relay.net.locate import Located, Locator
    from relay.store.server_journal import ServerJournal

ALIVE_S = 1.0  # between two words to the service manager
LOCATE_S = 3.0  # for the names of peers at the start; what takes longer comes later


def serve(config: Config, path: Path | None) -> int:
    """Run the relay until it is told to stop. Returns the exit status.

    Raises ConfigError and StoreError if it cannot start.
    """
    check_files(config)
    log = configure(config.log.format, config.log.level)
    leave_no_core()
    if (descriptors := take_descriptors()) < config.streams.max_connections + SPARE:
        log.warning("relay.few_descriptors", limit=descriptors, max_connections=config.streams.max_connections)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Relay(with_passwords(config), path, log).run())


class Relay:
    """One running relay."""

    def __init__(self, config: Config, path: Path | None, log: FilteringBoundLogger) -> None:
        """`path`: where the configuration came from; it is only shown to the operator. Raises StoreError."""
        self._config = config
        self._path = path
        self._log = log
        self._sealer = open_store(config.store.path, config.store.key_file)
        self._check_anchor(config)
        self._load_numbers(config)
        self._journal = _journal(config.store.path, self._sealer, log)
        file = config.store.local
        self._attempts = AttemptFile(file.with_name(file.name + ".attempts"), self._sealer, reporter(log))
        self._switch = Switch(config, self._sealer, self._journal.queue, self._attempts, log)
        self._locator = _locator(config, self._switch.locate, log)
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()
        self._control = ControlServer(control_path(config.store.local), self._answers())
        self._desk = Child("desk", _desk_command(path), log) if config.api.enabled else None
        self._notifier = Notifier(os.environ, log)
        self._reloading = asyncio.Lock()
        self._tasks = Tasks()

    def _check_anchor(self, config: Config) -> None:
        """Raises StoreError where the store holds less than it did."""
        place = config.store.path
        with store_errors(place), closing(connect_reader(place)) as reader:
            AnchorFile(config.store.local, self._sealer).check(reader)

    def _keep_anchor(self) -> None:
        """Now that the last record is written. Without it the next start compares with what was some seconds before."""
        place = self._config.store.path
        try:
            with store_errors(place), closing(connect_reader(place)) as reader:
                AnchorFile(self._config.store.local, self._sealer).keep(reader)
        except StoreError as error:
            self._log.warning("ledger.anchor_not_kept", reason=str(error))

    def _load_numbers(self, config: Config) -> None:
        """Enters the configured numbers that the store does not have yet: calls reach no others."""
        place, prefixes, legacy = config.store.path, config.settings.prefixes, config.settings.legacy
        with store_errors(place), closing(connect_reader(place)) as reader:
            if not lacks_numbers(reader, prefixes, legacy):
                return  # a store that takes nothing is served too
        with closing(Writer(place, self._sealer)) as writer:
            writer.run(RELAY, lambda act: ensure_numbers(act, prefixes, legacy))

    async def reload(self) -> None:
        """Reads the configuration again and goes by it; calls that are up keep their peers.

        Raises ConfigError with every fault, and StoreError if the numbers of a new prefix cannot be entered. Then
        nothing has changed.
        """
        async with self._reloading:
            config = load_config(self._path)
            if fixed := what_is_fixed(self._config, config):
                raise ConfigError(fixed)
            check_files(config)
            config = with_passwords(config)
            await asyncio.to_thread(self._load_numbers, config)
            locator = _locator(config, self._switch.locate, self._log, self._locator)
            if locator is not None:
                await locator.start(LOCATE_S)
            try:
                await self._switch.reload(config, {} if locator is None else locator.located())
            except ConfigError:  # a file has changed since it was checked
                if locator is not None:
                    await locator.close()
                raise
            former, self._locator, self._config = self._locator, locator, config
            if self._desk is not None:
                self._desk.tell(RELOAD)
            if former is not None:
                await former.close()
            self._log.info("relay.reloaded", peers=[peer.name for peer in config.settings.peers])
            self._tell_warnings()

    async def run(self) -> int:
        """Serve, drain, and end. Returns 0 unless live calls were left to a restart."""
        await self._journal.open()
        try:
            restored = await self._begin_to_serve()
            if not isinstance(self._journal, Journal):
                self._journal.watch(self._switch.take_over, self._switch.limits)
            await self._control.open()
            if self._desk is not None:
                self._desk.start()
            else:
                self._tasks.begin(LedgerWatch(self._config.store.path, self._sealer, self._log).run())
            alive = asyncio.create_task(self._tell_alive())
            self._handle_signals()
            self._tell_ready(restored)
            self._notifier.serving()
            await self._stop.wait()
            self._notifier.stopping()
            clean = await self._switch.drain(self._config.drain_s, self._stop_at_once)
            alive.cancel()
            await self._tasks.cancel()
        finally:
            await self._journal.close()
            await asyncio.to_thread(self._keep_anchor)
            if self._desk is not None:  # now that it can have read the last record
                await self._desk.stop()
            await self._control.close()
            if self._locator is not None:
                await self._locator.close()
            await self._switch.close()
            self._attempts.close()
        self._log.info("relay.stopped", clean=clean)
        return 0 if clean else 1

    async def _begin_to_serve(self) -> int:
        """Returns how many calls were taken up. Raises ConfigError."""
        located = await self._located()
        live = self._journal.live()
        unwritten = [commit.record for commit in self._journal.queue.unwritten()]
        kept = with_records(self._config.store.path, self._sealer, self._attempts.open(), unwritten)
        await self._switch.open(live, [call.record for call in live] + unwritten, located, kept)
        return len(live)

    async def _located(self) -> Located:
        """Where the peers are whose URIs have names, before the first call."""
        if self._locator is None:
            return {}
        await self._locator.start(LOCATE_S)
        return self._locator.located()

    async def _tell_alive(self) -> None:
        while True:
            self._notifier.alive()
            await asyncio.sleep(ALIVE_S)

    # What is asked by the control socket

    def _answers(self) -> Handlers:
        return {
            **self._switch.answers.by_name(),
            "state": self._state,
            "statistics": self._statistics,
            "reload": self._reload_asked,
            "sealing_keys": self._sealing_keys,
        }

    def _state(self) -> Answer:
        return {"state": "draining" if self._stop.is_set() else "serving", "pid": os.getpid()}

    def _statistics(self) -> Answer:
        return {
            **self._switch.answers.statistics(),
            "journal_backlog": self._journal.queue.backlog,
            "rss_bytes": _rss_bytes(),
        }

    def _sealing_keys(self) -> Answer:
        """Raises Refused if the key file is not good."""
        try:
            self._sealer.refresh()
        except StoreError as error:
            raise Refused("invalid", "", str(error)) from None
        return {"ids": self._sealer.key_ids}

    async def _reload_asked(self) -> Answer:
        """Raises Refused, with every fault on a line of its own."""
        try:
            await self.reload()
        except ConfigError as error:
            raise Refused("invalid", "", "\n".join(error.problems)) from None
        except StoreError as error:
            raise Refused("store_busy", "", str(error)) from None
        return {"pid": os.getpid()}

    # Words to the operator

    def _tell_ready(self, restored: int) -> None:
        listen = [transport_address(it.transport, it.host, it.port) for it in self._config.settings.listeners]
        peers = [peer.name for peer in self._config.settings.peers]
        self._log.info("relay.ready", listen=listen, peers=peers, calls_restored=restored, pid=os.getpid())
        self._tell_warnings()
        if not peers:
            self._log.warning("relay.no_peers", reason="no [[peer]] is configured: every call will be refused")
        if self._config.log.format == "console" and not self._notifier.is_heard:  # a terminal's, and no journal
            option = f" -c {self._path}" if self._path else ""
            command = sys.argv[0] if Path(sys.argv[0]).name == "relay700" else "relay700"
            sys.stdout.write(_NEXT.format(command=command, option=option))
            sys.stdout.flush()

    def _tell_warnings(self) -> None:
        for warning in self._config.warnings:
            self._log.warning("config.warning", problem=warning)

    def _tell_statistics(self) -> None:
        self._log.info("relay.statistics", **self._statistics())

    # Signals

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop_signal)
        loop.add_signal_handler(signal.SIGINT, self._stop_signal)
        loop.add_signal_handler(signal.SIGUSR1, self._tell_statistics)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._tasks.begin(self._reload_or_say_why()))

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


def _journal(place: Place, sealer: Sealer, log: FilteringBoundLogger) -> Journal | ServerJournal:
    if isinstance(place, Path):
        return Journal(place, sealer, reporter(log))
    from relay.store.server_journal import ServerJournal  # a driver that a store in a file does without

    return ServerJournal(place, sealer, reporter(log))


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _locator(
    config: Config,
    located: Callable[[Located], None],
    log: FilteringBoundLogger,
    former: Locator | None = None,
) -> Locator | None:
    """None if all peers are given by address."""
    if all(is_literal(target.host) for peer in config.settings.peers for target in peer.targets):
        return None
    from relay.net.locate import Locator  # a DNS library is of no use to a relay without names

    return Locator(config.settings, config.dns, located, log, former=former)


def _desk_command(config: Path | None) -> list[str]:
    """With -P: the desk of this relay, and not of a folder `relay` in the working directory."""
    return [sys.executable, "-P", "-m", "relay", "desk", *(["-c", str(config)] if config else [])]
