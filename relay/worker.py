"""One of several workers: a process with a switch of its own. Its parent (`relay.crew`) has the journal and streams.

It inherits its sockets and gets everything else over a channel from the parent. When the parent dies it ends at once:
nothing could be committed any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvloop
from structlog.typing import FilteringBoundLogger

from relay.call.actions import Commit, Registered
from relay.call.bans import Ban, Bans, Known
from relay.call.settings import Listener, Settings, Target
from relay.config import Config, parse_config
from relay.config.passwords import with_passwords
from relay.errors import ConfigError, Refused, StoreError
from relay.far_records import FarRecords
from relay.log import STANDARD_OUTPUT, configure, reporter
from relay.net.channel import Channel
from relay.net.control import Answer, Handlers, answer_to
from relay.net.datagrams import Datagrams
from relay.net.mates import Mates
from relay.net.pace import Pace
from relay.net.resolve import Resolver
from relay.net.rlimits import die_with_parent
from relay.net.settings import TlsFiles
from relay.net.shared import SharedCounts
from relay.net.tasks import Tasks
from relay.sip.flow import Flow
from relay.store.database import open_store
from relay.store.live_rows import LiveCall, laid_over, read_live
from relay.store.record_rows import decode_record
from relay.switch import Switch, WorkerContext, owner_of, sounds_of

if TYPE_CHECKING:
    from relay.net.locate import Located

# Service managers and operators may send these to all processes of a relay: it is the parent that goes by them.
_FOR_THE_PARENT: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def serve(channel: int) -> int:
    """Serve until the parent says drain. `channel`: the descriptor of our end of it. Returns the exit status."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(channel))


async def _serve(channel: int) -> int:
    return await Worker().run(_socket(channel))


class WorkerNetwork:
    """How a worker sends and receives: its own UDP sockets, what its mates hand over, its parent's streams."""

    def __init__(self, listeners: Sequence[Listener], channel: Channel, start: Mapping[str, Any]) -> None:
        """`start`: the parent's first message."""
        self._listeners = listeners
        self._channel = channel
        self._sockets = {int(index): _socket(descriptor) for index, descriptor in start["sockets"].items()}
        self._mates = Mates(start["index"], _socket(start["own"]), [_socket(mate) for mate in start["mates"]])
        self._datagrams: Datagrams
        self.receive: Callable[[bytes, Flow], None]
        self.failed: Callable[[Flow], None]

    async def open(
        self, receive: Callable[[bytes, Flow], None], failed: Callable[[Flow], None], bans: Bans, pace: Pace
    ) -> None:
        """As `Transports.open`."""
        self.receive, self.failed = receive, failed
        resolver = Resolver()
        bans.spare(lambda: Known((), resolver.addresses()))
        self._datagrams = Datagrams(resolver, failed, pace)
        self._mates.open(receive, self._datagrams.unreachable, pace)
        for index, bound in self._sockets.items():
            listener = self._listeners[index]
            host, port, mates = listener.host, listener.port, self._mates
            await self._datagrams.listen(index, host, port, mates.receive, bound, mates.unreachable)

    def send(self, data: bytes, flow: Flow) -> None:
        """As `Transports.send`."""
        if flow.transport == "udp":
            self._datagrams.send(data, flow)
        else:
            self._channel.tell("send", data, flow)

    def send_all(self, messages: list[bytes], flow: Flow) -> None:
        """As `Transports.send_all`."""
        if flow.transport == "udp":
            self._datagrams.send_all(messages, flow)
        else:
            self._channel.tell("send", b"".join(messages), flow)

    def hold(self) -> None:
        """As `Transports.hold`."""
        self._datagrams.hold()

    def release(self) -> None:
        """As `Transports.release`."""
        self._datagrams.release()

    def reload(self, settings: Settings, tls: TlsFiles | None, located: Located) -> None:
        """The parent has reloaded the streams."""

    def locate(self, located: Located) -> None:
        """The parent tells the streams."""

    def sweep(self, now: float) -> None:
        """The parent sweeps the streams."""

    def statistics(self) -> dict[str, int]:
        """As `Transports.statistics`, without those of the streams, which the parent has."""
        return {
            **self._datagrams.statistics(),
            **self._mates.statistics(),
        }

    async def close(self) -> None:
        """As `Transports.close`."""
        self._mates.close()
        await self._datagrams.close()


class Worker:
    """This process."""

    def __init__(self) -> None:
        self._started: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._until_open: list[Callable[[], None]] = []  # what comes meanwhile
        self._restored: set[str] = set()  # the call_id of each call that was taken up at the start
        self._is_open = False
        self._draining: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._at_once = asyncio.Event()
        self._leaving = asyncio.Event()
        self._tasks = Tasks()
        self._channel = Channel(self._handlers(), _parent_is_gone)
        self._records = FarRecords(self._channel)
        self._switch: Switch
        self._network: WorkerNetwork

    def _handlers(self) -> Mapping[str, Callable[..., None]]:
        once_open: dict[str, Callable[..., None]] = {
            "receive": lambda data, flow: self._network.receive(data, Flow(*flow)),
            "failed": lambda flow: self._network.failed(Flow(*flow)),
            "committed": lambda *durable: self._records.committed(*durable),
            "locate": lambda located: self._switch.locate(_decode_located(located)),
            "take_over": self._take_over,
            "registered": lambda *told: self._switch.registered(_registered(*told)),
            "mates_know": lambda token: self._switch.mates_know(token),
            "banned": self._ban,
            "unbanned": self._lift,
            "ask": lambda *question: self._tasks.begin(self._answer(*question)),
            "drain": self._drain,
            "leave": self._leaving.set,
            "stop": self._stop,
        }
        return {
            "start": self._started.set_result,
            "ping": lambda: self._channel.tell("pong"),
            **{name: partial(self._when_open, handle) for name, handle in once_open.items()},
        }

    def _drain(self, limit_s: float) -> None:
        if not self._draining.done():  # told again after a start
            self._draining.set_result(limit_s)

    def _stop(self) -> None:
        self._at_once.set()
        self._leaving.set()

    def _when_open(self, handle: Callable[..., None], *fields: Any) -> None:
        if self._is_open:
            handle(*fields)
        else:
            self._until_open.append(partial(handle, *fields))

    async def run(self, end: socket.socket) -> int:
        """Returns the exit status: 0 unless live calls were left to a restart."""
        for each in _FOR_THE_PARENT:
            signal.signal(each, signal.SIG_IGN)
        die_with_parent()
        await self._channel.open(end)
        start = await self._started
        config = parse_config(start["text"], start["name"])
        log = configure(config.log.format, config.log.level).bind(worker=start["index"])
        try:
            await self._open(with_passwords(config), log, start)
        except (ConfigError, StoreError) as error:
            log.error("worker.not_started", reason=str(error))
            return 1
        limit_s = await self._draining
        clean = await self._switch.drain(limit_s, self._at_once)
        self._channel.tell("drained", clean)
        await self._leaving.wait()  # till then new calls get a 503, while mates still have calls
        await self._switch.close()
        STANDARD_OUTPUT.flush()
        self._channel.close()
        return 0 if clean else 1

    async def _open(self, config: Config, log: FilteringBoundLogger, start: Mapping[str, Any]) -> None:
        sealer = open_store(config.store.path, config.store.key_file)
        self._network = WorkerNetwork(config.settings.listeners, self._channel, start)
        self._switch = Switch(config, sealer, self._records, self._network, log, STANDARD_OUTPUT, self._context(start))
        self._switch.engine.bans.listeners.append(self._tell_ban)
        self._switch.engine.bans.agree = partial(self._channel.tell, "found")
        for ban in start["bans"]:
            self._ban(*ban)
        unwritten = [Commit(0, decode_record(record), dialogs) for record, dialogs in start["unwritten"]]
        live = laid_over(read_live(config.store.path, sealer, reporter(log)), unwritten)
        ours = [call for call in live if owner_of(call, start["workers"]) == start["index"]]
        self._restored.update(call.record.call_id for call in ours)
        streams = [Flow(*flow) for flow in start["streams"]]
        known = [call.record for call in live] + [commit.record for commit in unwritten]
        await self._switch.open(ours, known, _decode_located(start["located"]), streams)
        self._is_open = True
        self._channel.tell("ready", len(ours))
        for handle in self._until_open:
            handle()
        self._until_open.clear()

    def _take_over(self, record: bytes, dialogs: bytes) -> None:
        """A call of a node that is gone, unless we have found it in the store at our start."""
        call = LiveCall(decode_record(record), dialogs)
        if call.record.call_id not in self._restored:
            self._switch.take_over([call])

    def _context(self, start: Mapping[str, Any]) -> WorkerContext:
        counts = SharedCounts(start["region"], start["index"], start["workers"])
        told = [_registered(*each) for each in start["registered"]]
        return WorkerContext(counts, start["secret"], self._tell_registered, told)

    def _tell_registered(self, told: Registered) -> None:
        contact = told.contact.encode("utf-8", "surrogateescape")  # a peer's text
        self._channel.tell("registered", told.token, told.peer, contact, told.flow, told.expires_at)

    def _tell_ban(self, event: str, ban: Ban) -> None:
        """Tells the others whose ban has ended here."""
        if ban.here and event == "unbanned":
            self._channel.tell("unbanned", ban.source, ban.until, ban.reason)

    def _ban(self, source: str, until: float, reason: str) -> None:
        try:
            self._switch.engine.bans.ban(source, until, time.monotonic(), reason, here=False)
        except ValueError:  # it has become known here meanwhile
            self._channel.tell("unbanned", source)

    def _known(self, sources: list[str]) -> Answer:
        """Those sources, as far as this worker knows, that are never banned."""
        now = time.monotonic()
        return {"known": [source for source in sources if self._switch.engine.bans.knows(source, now)]}

    def _lift(self, source: str, *_: object) -> None:
        self._switch.engine.bans.lift(source, here=False)

    async def _answer(self, serial: int, name: str, fields: Answer) -> None:
        self._channel.tell("answer", serial, await answer_to(self._answers(), name, fields))

    def _answers(self) -> Handlers:
        return {**self._switch.answers(), "known": self._known, "check": self._check, "reload": self._reload}

    def _check(self, name: str, text: str, **_: object) -> Answer:
        """Whether a reload would succeed. Raises Refused if not."""
        with _refused():
            sounds_of(with_passwords(parse_config(text, name)))
        return {}

    async def _reload(self, name: str, text: str, located: Answer) -> Answer:
        with _refused():
            await self._switch.reload(with_passwords(parse_config(text, name)), _decode_located(located))
        return {}


def _parent_is_gone() -> None:
    os._exit(1)


@contextmanager
def _refused() -> Iterator[None]:
    """Raises a ConfigError as a Refused, for whoever asked."""
    try:
        yield
    except ConfigError as error:
        raise Refused("invalid", "", "\n".join(error.problems)) from None


def _decode_located(located: Mapping[str, Sequence[Sequence[Any]]]) -> Located:
    return {peer: tuple(Target(*target) for target in targets) for peer, targets in located.items()}


def _registered(peer: str, contact: bytes, flow: Sequence[Any], expires_at: float | None) -> Registered:
    return Registered(peer, contact.decode("utf-8", "surrogateescape"), Flow(*flow), expires_at)


def _socket(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)
