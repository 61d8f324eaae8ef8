"""The composition root: one relay from its configuration, from start to drain. It decides nothing of calls."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvloop
from structlog.typing import FilteringBoundLogger

from relay.call.engine import Engine
from relay.call.settings import Listener
from relay.config import Config
from relay.log import configure, ended_calls
from relay.net.driver import Driver
from relay.net.transports import Transports
from relay.store.database import open_store
from relay.store.journal import Journal
from relay.store.lookup import RouteReader
from relay.tokens import tokens

TICK_S = 1.0
DRAIN_POLL_S = 0.05
HANG_UP_S = 5.0  # for the answers to the BYEs that we send when the drain's time is over


def serve(config: Config, path: Path | None) -> int:
    """Run the relay until it is told to stop. Returns the exit status. Raises ConfigError and StoreError at first."""
    log = configure(config.log.format, config.log.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Relay(config, path, log).run())


class Relay:
    """One running relay."""

    def __init__(self, config: Config, path: Path | None, log: FilteringBoundLogger) -> None:
        """`path` is where the configuration came from, for words to the operator alone. Raises StoreError."""
        self._config = config
        self._path = path
        self._log = log
        sealer = open_store(config.store.path, config.store.key_file)
        self._reader = RouteReader(config.store.path, sealer)
        self._journal = Journal(config.store.path, sealer, self._report)
        self._engine = Engine(config.settings, tokens().__next__, time.time() - time.monotonic())
        self._transports = Transports(config.settings, config.streams, config.tls)
        log_ended = ended_calls(log, config.log.format, config.log.level)
        self._driver = Driver(
            self._engine, self._transports.send, self._reader.look_up, self._journal.append, log, log_ended
        )
        self._stop = asyncio.Event()
        self._stop_at_once = asyncio.Event()

    async def run(self) -> int:
        """Serve, drain, and go. 0 unless live calls were left to a restart."""
        await self._journal.open()
        try:
            restored = await self._restore()
            await self._transports.open(self._driver.receive, self._driver.transport_failed)
            self._driver.start()
            ticker = asyncio.create_task(self._tick())
            self._handle_signals()
            self._tell_ready(restored)
            _collect_by_hand()
            await self._stop.wait()
            clean = await self._drain()
            ticker.cancel()
        finally:
            await self._journal.close()
            self._driver.close()
            await self._transports.close()
            self._reader.close()
        self._log.info("relay.stopped", clean=clean)
        return 0 if clean else 1

    async def _restore(self) -> int:
        """Take up the calls that were live when the last process ended (DESIGN 4.2)."""
        live = self._journal.live()
        for record, dialogs in live:
            self._engine.restore(record, dialogs, time.monotonic())
        return len(live)

    async def _drain(self) -> bool:
        """New calls are refused, live ones go on up to the limit and are hung up then. False: stopped before that."""
        self._engine.drain()
        self._log.info("relay.draining", calls=self._calls(), limit_s=self._config.drain_s)
        if await self._calls_gone(self._config.drain_s):
            return True
        if not self._stop_at_once.is_set():
            self._log.warning("relay.hanging_up", calls=self._calls())
            now = time.monotonic()
            self._engine.hang_up_all(now)
            self._driver.perform(now)
            return await self._calls_gone(HANG_UP_S)
        return False

    async def _calls_gone(self, limit_s: float) -> bool:
        """Wait until no call is left, the limit has passed, or a second signal has come."""
        deadline = time.monotonic() + limit_s
        while self._busy() and time.monotonic() < deadline and not self._stop_at_once.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop_at_once.wait(), DRAIN_POLL_S)
        return not self._calls()

    def _calls(self) -> int:
        counts = self._engine.statistics()
        return counts["calls_up"] + counts["calls_setting_up"] + counts["pending_commits"]

    def _busy(self) -> int:
        """Calls, and legs whose BYE is not answered yet: what is lost of it nobody else would send again."""
        return self._calls() + self._engine.statistics()["legs"]

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._driver.set_clock()
            self._transports.sweep(loop.time())
            sys.stdout.flush()  # the lines of `ended_calls`
            gc.collect(2 if self._engine.is_idle else 0)
            await asyncio.sleep(TICK_S)

    # Words to the operator

    def _report(self, event: str, fields: dict[str, object]) -> None:
        self._log.error(event, **fields)

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
        self._log.info(
            "relay.statistics",
            **self._engine.statistics(),
            **self._transports.statistics(),
            journal_backlog=self._journal.backlog,
            bugs=self._driver.bugs,
            rss_bytes=_rss_bytes(),
        )

    # Signals

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._stop_signal,
            signal.SIGINT: self._stop_signal,
            signal.SIGUSR1: self._tell_statistics,
        }
        for number, handler in handlers.items():
            loop.add_signal_handler(number, handler)

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


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _collect_by_hand() -> None:
    """No collection in the middle of a call: with a minute's worth of calls in memory one stops the relay for 200 ms.

    References alone free what a call was (tests/call/test_garbage.py); `_tick` sees to the youngest objects, in which
    an exception may have left a cycle, and to all of them whenever there is no call.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
