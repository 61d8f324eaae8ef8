"""The backend: the process beside the relay for HTTP, the record follower, webhooks and timers.

A composition root; it decides nothing. The relay starts and restarts it, and no call waits for it. They share the store
and the admin socket. Commands come on standard input: "stop" shuts down in order, "reload" reads the configuration
again; end of file means that the relay died, and the process exits at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import uvloop
from fastapi import FastAPI
from structlog.typing import FilteringBoundLogger

from relay.api.app import make_app
from relay.api.backend import ApiSettings, Control, RequestCounts
from relay.api.middleware import SMALL, HttpMiddleware
from relay.api.server import Address, HttpServer
from relay.config import Config, load_config
from relay.config.files import hep_agent
from relay.config.kept import configured_at
from relay.console.app import mount_console
from relay.errors import ConfigError, Refused, RelayError, StoreError
from relay.events.delivery import DeliveryTask
from relay.events.follower import Follower
from relay.events.ledger_watch import LedgerWatch, RightsWatch
from relay.events.probe import ProbeTask
from relay.events.recordings import RecordingIntake
from relay.events.timers import ResealTask, Timers, TrimTask
from relay.log import configure, reporter, take_over_stderr
from relay.metrics import text, with_zeros
from relay.model.capture import CapturedCall
from relay.model.settings import PROBE_PEER
from relay.net.bell import Bell
from relay.net.capture import Ring
from relay.net.control import ControlClient, SharedAnswers, control_path
from relay.net.spans import Spans
from relay.net.supervisor import RELOAD, STOP
from relay.policy.fraud import Watch
from relay.reports.explain import PolicyConfiguration
from relay.service.complaints import ComplaintRate, high_complaints
from relay.service.filings import EXPIRING_MS
from relay.service.papers import ENDING_MS
from relay.service.phase import PhaseNow, phase_now
from relay.store.capture_arms import Arms
from relay.store.captures import Captures
from relay.store.chain import AnchorFile
from relay.store.connection import Connection as StoreConnection
from relay.store.connection import Place, PostgresServer
from relay.store.database import Reader, open_store, reading
from relay.store.files import StoreFiles, open_lock, try_lock
from relay.store.filings import count_expiring
from relay.store.numbers import usage
from relay.store.papers import count_ends
from relay.store.postgres.nodes import LeaderLock, nodes_up
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, Actor, UnitOfWork
from relay.store.webhooks import count_events
from relay.store.writer import GroupWriter, now_ms
from relay.trace.capture import CaptureKeeper
from relay.trace.hep import HepSender

T = TypeVar("T")

LOOK_S = 1.0  # interval of the check that the store's files are in place
LOOKS = 3  # failed checks before exit if the WAL was deleted, and there is another: its content is in the store
STORED_FRESH_S = 10.0  # how old counts of the store may be on a page: they read one index entry per number
FINISH_S = 4.0  # limit for open requests, the last records and deliveries at shutdown; the relay waits for 5 s
KEEP_S = 4.0  # limit for the captures of the last calls, from then: the relay may kill this process first
FRESH_S = {"state": 0.2, "statistics": 0.2, "live": 0.5, "peers": 0.2}  # cache lifetime of the relay's answers
# Objects made, less those freed, until Python searches the new ones for cycles. Records and captures that wait are many
# new objects: at its own threshold, 700 or 2,000, the searches are 6% of the backend's instructions for a call.
NEW_OBJECTS = 50_000
PREDECESSOR_S = 10.0  # limit for the backend of a relay that died to exit


def serve(config: Config, path: Path | None, memory: int | None = None, bells: tuple[int, int] | None = None) -> int:
    """Run until the relay sends "stop" or exits. Returns the exit status: 1 if it could not start, or failed.

    `path`: the configuration file, read again on "reload". `memory`: the descriptor of what the relay captures.
    `bells`: descriptors of the bells that the relay rings, for captures and for records.
    """
    log = configure(config.log.format, config.log.level)
    gc.set_threshold(NEW_OBJECTS)
    take_over_stderr()
    try:
        with _hold_lock(config.store.local), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_run(config, path, log, memory, bells))
    except RelayError as error:  # such as of a store that is away; the relay starts it again
        log.error("backend.failed", reason=str(error))
    except Exception:
        log.exception("backend.failed")
    return 1


async def _run(
    config: Config, path: Path | None, log: FilteringBoundLogger, memory: int | None, bells: tuple[int, int] | None
) -> int:
    stop, reload = asyncio.Event(), asyncio.Event()
    await _watch_relay(stop, reload)
    sealer = open_store(config.store.path, config.store.key_file)
    in_force = _Configuration(config, path, reload, log)
    tasks = [asyncio.create_task(in_force.run())]
    captured, written = (None, None) if bells is None else map(Bell, bells)
    keeper = None if memory is None else _keeper(config, sealer, memory, log, captured)
    keeping = None
    if keeper is not None:  # on each node, also while another node's backend works
        in_force.apply.append(lambda config: keeper.apply_config(config.capture))
        keeping = asyncio.create_task(keeper.run(stop))
        if config.hep is not None:
            tasks.append(asyncio.create_task(_sender(config, keeper, log).run()))
    try:
        return await _serve(in_force, log, sealer, keeper, written, stop)
    finally:
        if keeping is not None:
            await asyncio.wait([keeping], timeout=KEEP_S if stop.is_set() else 0)
            tasks.append(keeping)
        for task in tasks:
            task.cancel()


async def _serve(
    in_force: _Configuration,
    log: FilteringBoundLogger,
    sealer: Sealer,
    keeper: CaptureKeeper | None,
    written: Bell | None,
    stop: asyncio.Event,
) -> int:
    place = in_force.config.store.path
    leader_lock = LeaderLock(place, reporter(log)) if isinstance(place, PostgresServer) else None
    backend = BackendProcess(in_force.config, log, leader_lock, sealer, keeper, written)
    in_force.apply.append(backend.apply_config)
    try:
        if backend.leads:
            backend.check_anchor()
        return await backend.run(stop)
    finally:
        in_force.apply.remove(backend.apply_config)
        await backend.close()


class _Configuration:
    """The configuration in force: the file is read again on each "reload"; the relay has checked it before."""

    def __init__(self, config: Config, path: Path | None, wanted: asyncio.Event, log: FilteringBoundLogger) -> None:
        self.config = config
        self.apply: list[Callable[[Config], None]] = []
        self._path = path
        self._wanted = wanted
        self._log = log

    async def run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                self.config = load_config(self._path)
                for apply in self.apply:
                    apply(self.config)
            except ConfigError as error:  # edited again since the relay's check
                self._log.warning("backend.reload_refused", problems=error.problems)
            else:
                self._log.info("backend.reloaded")


class _StoreFigures(NamedTuple):
    """Figures of the store, for the metrics."""

    counts: Mapping[str, Any]
    short_pools: Mapping[str, int]  # percent free by id
    complaints: Mapping[str, ComplaintRate]  # high rates by business user


_Parts = dict[str, Coroutine[None, None, None]]  # by name


def _begin(parts: _Parts) -> dict[str, asyncio.Task[None]]:
    return {name: asyncio.create_task(part, name=name) for name, part in parts.items()}


class _RingingWriter(GroupWriter):
    """Rings a bell after each unit of work of a client: it may have queued events. The relay's own are in no hurry."""

    def __init__(self, path: Place, sealer: Sealer, bell: Bell | None) -> None:
        super().__init__(path, sealer)
        self._bell = bell

    async def run(self, actor: Actor, do: Callable[[UnitOfWork], T]) -> T:
        answer = await super().run(actor, do)
        if self._bell is not None and actor != RELAY:
            self._bell.ring()
        return answer


class BackendProcess:
    """The backend's parts, shared resources and life cycle. The API's view of it is `relay.api.backend.Backend`."""

    def __init__(
        self,
        config: Config,
        log: FilteringBoundLogger,
        leader_lock: LeaderLock | None = None,
        sealer: Sealer | None = None,
        keeper: CaptureKeeper | None = None,
        written: Bell | None = None,
    ) -> None:
        """`leader_lock`: for a store shared with other nodes. `keeper`: of captures, if the relay captures.

        `written`: rung by the relay for records and events. Raises StoreError.
        """
        self._config = config
        self._leader_lock = leader_lock
        self._log = log
        self.leads = leader_lock is None
        self._stored_lately, self._stored_until_s = _StoreFigures({}, {}, {}), 0.0
        self._complained: set[str] = set()  # business users whose high rate of complaints was logged
        self._phase_warning: tuple[int | None, int | None] = (None, None)  # end, and the days last warned of
        self._servers: dict[str, HttpServer] = {}  # by the name of its part
        self.path: Place = config.store.path
        self.sealer = sealer or open_store(config.store.path, config.store.key_file)
        self.keeper = keeper
        self.capture = config.capture
        self.captures = Captures(self.path, self.sealer, reporter(log))
        self.reader = Reader(self.path)
        # Nobody rings for what other nodes write to a server: there follower and deliverer poll.
        queued = Bell() if isinstance(self.path, Path) else None
        self.writer: GroupWriter = _RingingWriter(self.path, self.sealer, queued)
        self.control: Control = SharedAnswers(ControlClient(control_path(config.store.local)), FRESH_S)
        self.settings = _api_settings(config)
        self.requests = RequestCounts()
        self.spans = None if config.otlp is None else Spans()
        common = (self.path, self.sealer, self.writer, log)
        if queued is None:
            self._follower = Follower(*common, Watch(config.fraud))
        else:
            self._follower = Follower(*common, Watch(config.fraud), bell=written, told=queued.ring)
        self._deliverer = DeliveryTask(*common, config.webhooks, spans=self.spans, bell=queued)
        kept_in = config.recordings.kept_in
        self._timers = Timers(*common, config.numbers, config.retention, config.purge_at_minute, kept_in)
        self._taker = RecordingIntake(*common, config.recordings)
        self._trimmer = TrimTask(self.captures, config.capture, config.retention, self.reader, self.writer, log)
        self._resealer = ResealTask(self.path, self.sealer, log)
        self._ledger_watch = LedgerWatch(self.path, self.sealer, log, self._follower.uses)
        self._prober = ProbeTask(config.probe, config.numbers, self.writer, self.control.ask, log)

    def apply_config(self, config: Config) -> None:
        """Apply a new configuration, except for settings that need a restart (`relay.config`).

        Raises ConfigError if the certificate cannot be used; then nothing is applied.
        """
        for server in self._servers.values():
            server.load_certificate()
        self._config = config
        self.settings = _api_settings(config)
        self._follower.apply_config(config.fraud)
        self._deliverer.apply_config(config.webhooks)
        self._timers.apply_config(config.numbers, config.retention, config.purge_at_minute)
        self._trimmer.apply_config(config.capture, config.retention)
        self._taker.apply_config(config.recordings)
        self.capture = config.capture
        self._prober.apply_config(config.probe, config.numbers)

    async def pending_capture(self, call_id: str) -> CapturedCall | None:
        """The capture so far of a call that is up, or was until some seconds ago."""
        keeper = self.keeper
        if keeper is None:
            return None
        with contextlib.suppress(Refused):  # the relay does not answer
            if (await self.control.ask("give_capture", call_id=call_id))["held"]:
                await keeper.caught_up()
        return keeper.pending(call_id)

    def configured_at(self, connection: StoreConnection, at_ms: int) -> PolicyConfiguration:
        """The configuration in force at a time. Raises StoreError."""
        return configured_at(connection, self.sealer, self._config, at_ms)

    async def metrics(self) -> bytes:
        """Metrics of the backend, and of relay and store if they answer, in Prometheus' text format."""
        try:
            stored = await asyncio.to_thread(self._stored if self.leads else self._seen_by_a_standby)
        except StoreError:
            stored = _StoreFigures({"store_up": 0}, {}, {})
        known = await self._statistics(stored)
        peers = [name for name in self.settings.peers or () if name != PROBE_PEER]  # its calls are not counted
        return text(with_zeros(known, peers) if known["up"] else known)

    async def statistics(self) -> dict[str, Any]:
        """As `metrics`, and `short_pools`, percent free, and `high_complaints`. Counts of the store are seconds old."""
        if time.monotonic() >= self._stored_until_s:
            self._stored_lately = await asyncio.to_thread(self._stored)
            self._stored_until_s = time.monotonic() + STORED_FRESH_S
        return {
            **await self._statistics(self._stored_lately),
            "short_pools": self._stored_lately.short_pools,
            "high_complaints": self._stored_lately.complaints,
        }

    async def _statistics(self, stored: _StoreFigures) -> dict[str, Any]:
        try:
            relay = {"up": 1, **await self.control.ask("statistics")}
        except Refused:
            relay = {"up": 0}
        ours = {"changes_waiting": self.writer.backlog, "sealing_key": self.sealer.key_id, **stored.counts}
        if isinstance(self.path, PostgresServer):
            ours["leader"] = {self.path.node: int(self.leads)}
        parts: dict[str, Any] = self.requests.statistics() | ({} if self.keeper is None else self.keeper.statistics())
        if self.leads:  # those of the store are the leader's alone, so that sums over nodes count them once
            parts |= self._follower.statistics() | self._deliverer.statistics() | self._taker.statistics()
            parts |= self._ledger_watch.statistics() | self._prober.statistics()
        return relay | parts | ours

    def _stored(self) -> _StoreFigures:
        with reading(self.path) as connection:
            waiting, dead = count_events(connection)
            now = now_ms()
            expiring = count_expiring(connection, None, now, now + EXPIRING_MS)
            papers = {
                "papers_expiring": count_ends(connection, now, now + ENDING_MS),
                "papers_expired": count_ends(connection, 0, now),
            }
            complaints = high_complaints(connection, now, self.settings.complaint_ppm)
            short = {pool.pool_id: 100 - pool.percent for pool in usage(connection, now) if pool.warning}
            nodes = self._nodes(connection)
        counts = {"outbox_waiting": waiting, "outbox_dead": dead, "pools_short": len(short), **nodes}
        counts |= {"filings_expiring": expiring, "complaints_high": len(complaints), **papers}
        with contextlib.suppress(StoreError):  # of the captures, which are in another file
            kept = self.captures.sizes()
            counts |= {"captures_stored": kept.rows, "captures_stored_bytes": kept.size}
        self._log_complaints(complaints)
        phase = phase_now(self.settings.rules, now)
        self._log_end_of_phase(phase, now)
        if (days := phase.days_left(now)) is not None:
            counts["phase_days_left"] = days
        return _StoreFigures(counts, short, complaints)

    def _seen_by_a_standby(self) -> _StoreFigures:
        with reading(self.path) as connection:
            return _StoreFigures(self._nodes(connection), {}, {})

    def _nodes(self, connection: StoreConnection) -> dict[str, Any]:
        """That the store can be read, and of one with nodes, which of them are up."""
        nodes = {"node_up": nodes_up(connection)} if isinstance(self.path, PostgresServer) else {}
        return {"store_up": 1, **nodes}

    def _log_complaints(self, complaints: Mapping[str, ComplaintRate]) -> None:
        """Log each business user whose rate has become high."""
        for business in complaints.keys() - self._complained:
            rate = complaints[business]
            figures = {"complaints": rate.complaints, "answered": rate.answered, "percent": rate.percent}
            self._log.warning("complaints.high", business=business, **figures)
        self._complained = set(complaints)

    def _log_end_of_phase(self, phase: PhaseNow, at_ms: int) -> None:
        """Warn once 30, 7 and 1 days before a phase ends."""
        warning = (phase.ends_ms, phase.warned_days(at_ms))
        if warning[1] is not None and warning != self._phase_warning:
            self._log.warning("phase.ends", phase=phase.phase, days=phase.days_left(at_ms))
        self._phase_warning = warning

    async def run(self, stop: asyncio.Event) -> int:
        """Run all parts, those of the leader once it is this one. Returns 0 after `stop`, 1 if a part failed."""
        api = self._config.api
        app = make_app(self)
        streams = mount_console(app, self)
        server = HttpServer(app, Address(api.host, api.port, api.certificate, api.key), self._log)
        self._servers = {"api": server, **self._compat(app)}
        stopped = asyncio.create_task(stop.wait())
        tasks = _begin({name: server.run() for name, server in self._servers.items()} | self._parts_of_each_node())
        if self._leader_lock is not None:
            tasks |= _begin({"leadership": self._await_leadership(self._leader_lock)})
            await asyncio.wait([stopped, *tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            if tasks["leadership"].done() and tasks["leadership"].exception() is None:
                del tasks["leadership"]
        if self.leads:
            tasks |= _begin(self._parts_of_the_leader())
            self._log.info("backend.ready", pid=os.getpid())
        await asyncio.wait([stopped, *tasks.values()], return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in tasks.values() if task.done()]
        if not failed:
            for server in self._servers.values():
                server.finish()
            for part in (streams, self._follower, self._deliverer):
                part.finish()
            finishing = tasks.keys() & {*self._servers, "follower", "deliverer"}
            await asyncio.wait([tasks[name] for name in finishing], timeout=FINISH_S)
        for task in (stopped, *tasks.values()):
            task.cancel()
        await asyncio.wait([stopped, *tasks.values()])
        for task in failed:
            error = task.exception()
            why = {"reason": str(error)} if isinstance(error, RelayError) else {"exc_info": error}
            self._log.error("backend.part_failed", part=task.get_name(), **why)
        return 1 if failed else 0

    async def _await_leadership(self, leader_lock: LeaderLock) -> None:
        """Stand by until this backend is the one that works. Raises StoreError if the store was put back meanwhile."""
        self._log.info("backend.stands_by")
        await leader_lock.acquire()
        await asyncio.to_thread(self.check_anchor)
        self.leads = True

    def check_anchor(self) -> None:
        """Raise StoreError if the store was put back, perhaps since the relay started."""
        with reading(self.path) as reader:
            AnchorFile(self._config.store.local, self.sealer).check(reader)

    def _compat(self, api: FastAPI) -> dict[str, HttpServer]:
        """The servers of other providers' APIs, which share the limits of ours."""
        if self._config.alibaba is None:
            return {}
        from relay.compat.actions import ActionService
        from relay.compat.app import AlibabaApp

        service = ActionService(
            self.reader,
            self.writer,
            self.sealer,
            rules=lambda: self.settings.rules,
            limits=api.state.limits,
            binds=api.state.binds,
            pages=api.state.pages,
            public_url=lambda: self.settings.public_url,
            clock=time.time,
        )
        settings = self.settings._replace(max_body=SMALL)  # a body is read before its key is known
        app = HttpMiddleware(AlibabaApp(service), settings, self.requests, self.spans)
        address = Address(*self._config.alibaba, self._config.api.certificate, self._config.api.key)
        return {"alibaba": HttpServer(app, address, self._log, "compat.alibaba.listen")}

    def _parts_of_each_node(self) -> _Parts:
        watch = RightsWatch(self.path, self.sealer)
        parts: _Parts = {"files": self._watch_files(), "writer": self.writer.ended(), "rights": watch.run()}
        if self._config.otlp is not None and self.spans is not None:
            from relay.events.otlp import SpanExporter

            ask = None if self._config.verify is None else self.control.ask
            parts["spans"] = SpanExporter(self._config.otlp, self.spans, ask, self._log).run()
        return parts

    def _parts_of_the_leader(self) -> _Parts:
        parts: _Parts = {
            "follower": self._follower.run(),
            "deliverer": self._deliverer.run(),
            "timers": self._timers.run(),
            "recordings": self._taker.run(),
            "trimmer": self._trimmer.run(),
            "resealer": self._resealer.run(),
            "ledger": self._ledger_watch.run(),
            "probe": self._prober.run(),
        }
        return (
            parts if self._leader_lock is None else {**parts, "leader_lock": self._leader_lock.hold(self.check_anchor)}
        )

    async def close(self) -> None:
        await self.writer.close()
        self.reader.close()
        self.captures.close()
        if self._leader_lock is not None:
            self._leader_lock.close()

    async def _watch_files(self) -> None:
        """Raise StoreError if the store's WAL was deleted: open connections would keep writing to the unlinked file.

        If the store file itself is missing, nothing is written until it is back.
        """
        files = self.reader.read(lambda connection: _files_of(connection, self.path))
        looks = 0
        while True:
            await asyncio.sleep(LOOK_S)
            displaced = files.displaced()
            looks = looks + 1 if displaced is not None and displaced.is_log and displaced.file.exists() else 0
            if displaced is not None and looks >= LOOKS:
                raise displaced


def _keeper(config: Config, sealer: Sealer, memory: int, log: FilteringBoundLogger, bell: Bell | None) -> CaptureKeeper:
    captures = Captures(config.store.path, sealer, reporter(log))
    arms = Arms(config.store.path, sealer, reporter(log))
    return CaptureKeeper(Ring(memory), config.capture, config.settings.listeners, captures, log, arms, bell=bell)


def _sender(config: Config, keeper: CaptureKeeper, log: FilteringBoundLogger) -> HepSender:
    assert config.hep is not None
    sender = HepSender(config.hep, hep_agent(config), log)
    keeper.subscribers.append(sender)
    return sender


def _files_of(connection: StoreConnection, path: Place) -> StoreFiles:
    connection.execute("SELECT 1 FROM business LIMIT 1").fetchone()  # opens the files
    return StoreFiles(path)


def _api_settings(config: Config) -> ApiSettings:
    return ApiSettings(
        config.api.requests_per_s,
        config.api.burst,
        rules=config.numbers,
        peers=tuple(peer.name for peer in config.settings.peers),
        complaint_ppm=config.complaint_ppm,
        kept_in=config.recordings.kept_in,
        public_url=config.api.public_url,
    )


# -- commands of the relay


async def _watch_relay(stop: asyncio.Event, reload: asyncio.Event) -> None:
    """Set `stop` on SIGTERM, SIGINT or "stop", and `reload` on "reload"; exit at the end of standard input."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGINT, stop.set)
    await loop.connect_read_pipe(lambda: _Relay(stop, reload), sys.stdin)


class _Relay(asyncio.Protocol):
    def __init__(self, stop: asyncio.Event, reload: asyncio.Event) -> None:
        self._events = {STOP: stop, RELOAD: reload}
        self._read = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._read = (self._read + data).split(b"\n")
        for line in lines:
            self._events[line + b"\n"].set()

    def eof_received(self) -> None:
        """Exit at once: the next backend, which may be starting already, redoes whatever is not committed."""
        os._exit(1)


@contextlib.contextmanager
def _hold_lock(store: Path) -> Iterator[None]:
    """Hold the backend's lock on a store: two backends would deliver every event twice. Raises StoreError.

    Waits up to `PREDECESSOR_S` for the backend of a relay that died.
    """
    until_s = time.monotonic() + PREDECESSOR_S
    lock = open_lock(store, ".backend.lock")
    try:
        while not try_lock(lock):
            if time.monotonic() > until_s:
                raise StoreError(f"another backend uses {store}: stop it first")
            time.sleep(0.05)
        yield
    finally:
        os.close(lock)
