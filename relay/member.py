"""One worker as its parent sees it, through all its lives: it is started, told, asked, watched, and replaced.

A successor starts once everything that its predecessor had reported is durable, and carries on its calls (DESIGN 4.2).
What streams bring for it meanwhile waits here, and datagrams wait in its sockets.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from structlog.typing import FilteringBoundLogger

from relay.call.bans import Ban, Bans
from relay.config import Config
from relay.errors import ConfigError, Refused
from relay.far_records import NearRecords
from relay.net.channel import MOST_UNSENT, Channel
from relay.net.control import Answer
from relay.net.inherited import Inherited
from relay.net.streams import Streams
from relay.net.tasks import Tasks
from relay.sip.flow import Flow
from relay.store.journal import Journal
from relay.store.live_rows import LiveCall
from relay.store.record_rows import encode_record

if TYPE_CHECKING:
    from relay.net.locate import Located
    from relay.store.server_journal import ServerJournal

ASK_S: Final = 0.9  # the control socket's clients wait for a second
RELOAD_S: Final = 10.0
MATES_S: Final = 0.4  # until a REGISTER is answered all the same: before it is sent again (T1)
SILENT: Final = 10  # of our pings, one a second, may go unanswered: a worker that hangs is killed
STARTING: Final = 60  # of those to one that takes up calls
PROVEN_S: Final = 10.0  # one that lived so long is replaced at once
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 30.0


@dataclass(slots=True)
class Common:
    """What all workers of a relay have in common."""

    config: Config
    journal: Journal | ServerJournal
    log: FilteringBoundLogger
    workers: int
    inherited: Inherited
    streams: Streams
    bans: Bans
    secret: bytes = field(default_factory=partial(secrets.token_bytes, 32))  # of the nonces that they make and check
    located: Located = field(default_factory=dict)
    # What one worker knows and the others must: where each peer is that has registered, by its name.
    registered: dict[str, Sequence[Any]] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    drain_until: float | None = None  # loop time
    stops_at_once: bool = False  # and whoever ends now is not replaced

    def start(self, index: int) -> dict[str, Any]:
        """What the worker of that index is told at its start: everything that is in force."""
        return {
            "index": index,
            "workers": self.workers,
            "name": self.config.name,
            "text": self.config.text,
            "secret": self.secret,
            "located": encode_located(self.located),
            "registered": list(self.registered.values()),
            "streams": self.streams.flows(),
            "bans": [(ban.source, ban.until, ban.reason) for ban in self.bans.in_force()],
            "unwritten": [(encode_record(each.record), each.dialogs) for each in self.journal.queue.unwritten()],
            **self.inherited.by_use(index),
        }

    def others(self, member: Member) -> list[Member]:
        return [each for each in self.members if each is not member]

    def read_on(self) -> None:
        """Has streams bring messages again, unless a worker is still behind."""
        if not any(member.is_behind for member in self.members):
            self.streams.go_on()


class Member:
    """One worker. `ready` gives how many calls it took up, or why it could not start.

    `drained`: whether it ended without leaving calls to a restart. `lives` is done once it is gone for good and
    everything that it had reported is durable.
    """

    def __init__(self, index: int, common: Common) -> None:
        self.index = index
        self.ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.drained: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.pid = 0
        self._common = common
        self._log = common.log.bind(worker=index)
        self._process: Process | None = None
        self._channel: Channel | None = None
        self._pings_left = 0
        self._kept: list[tuple[bytes, Flow]] = []
        self._kept_bytes = 0
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._serial = 0
        self._telling = Tasks()
        self.lives = asyncio.create_task(self._live_on(), name=f"worker {index}")

    # -- words to it

    def tell(self, name: str, *fields: object) -> None:
        """Does nothing while the worker is being replaced: its successor is told at its start what is in force."""
        if self._channel is not None:
            self._channel.tell(name, *fields)

    def receive(self, frame: bytes, flow: Flow) -> None:
        """A message that a stream has brought for it. It waits for a successor: nobody would send it again."""
        if self._channel is None:
            self._kept.append((frame, flow))
            self._kept_bytes += len(frame)
        else:
            self._channel.tell("receive", frame, flow)

    def take_over(self, call: LiveCall) -> None:
        """A call of a node that is gone. A successor finds it in the store."""
        self.tell("take_over", encode_record(call.record), call.dialogs)

    @property
    def is_behind(self) -> bool:
        """Whether so much waits for it that streams should bring no more until `Common.read_on`."""
        return self._kept_bytes > MOST_UNSENT if self._channel is None else self._channel.is_behind

    async def ask(self, name: str, fields: Mapping[str, object], patience_s: float = ASK_S) -> Answer:
        """Raises Refused: in the worker's words, or "relay_unavailable" if it does not answer in time or ends."""
        if self._channel is None:
            raise self._unavailable()
        self._serial += 1
        serial, answered = self._serial, asyncio.get_running_loop().create_future()
        self._asked[serial] = answered
        self.tell("ask", serial, name, fields)
        try:
            async with asyncio.timeout(patience_s):
                reply = await answered
        except TimeoutError:
            raise self._unavailable() from None
        finally:
            del self._asked[serial]
        if "error" in reply:
            raise Refused(reply["error"], "", reply["problem"])
        answer: Answer = reply["answer"]
        return answer

    def _unavailable(self) -> Refused:
        return Refused("relay_unavailable", "", f"worker {self.index} does not answer")

    async def reload(self, told: Mapping[str, object]) -> None:
        """Has it go by the configuration now in force. If it cannot, it is killed: its successor does."""
        try:
            await self.ask("reload", told, RELOAD_S)
        except Refused as refused:
            if self._process is not None:
                self._log.error("worker.not_reloaded", reason=refused.problem, effect="it is killed and replaced")
                self._process.kill()

    def check(self) -> None:
        """To be called once a second: pings it, and kills it if it has answered none of the last ten pings.

        Pings are counted, not timed: if this process was held up itself, the worker is not to blame.
        """
        if self._process is not None and not self._pings_left:
            self._log.error("worker.silent", pid=self.pid, effect="it is killed and replaced")
            self._process.kill()
        self._pings_left = max(self._pings_left - 1, 0)
        self.tell("ping")

    def stop(self) -> None:
        """Ends it at once, and leaves its calls to a restart."""
        if self._channel is None:
            self.lives.cancel()
        else:
            self.tell("stop")

    async def end(self) -> None:
        """Ends it for good, by force if it is still there."""
        self.lives.cancel()
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
        await asyncio.wait([self.lives])

    # -- its lives

    async def _live_on(self) -> None:
        clock = asyncio.get_running_loop().time
        pause_s = 0.0
        while not self.drained.done():
            began = clock()
            status = await self._live()
            if self.drained.done() or self._common.stops_at_once:
                return
            if not self.ready.done():
                self.ready.set_exception(ConfigError([f"worker {self.index} did not start: the log says why"]))
                return
            pause_s = 0.0 if clock() - began > PROVEN_S else min(max(2 * pause_s, FIRST_PAUSE_S), LAST_PAUSE_S)
            self._log.error("worker.ended", pid=self.pid, status=status, again_in_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _live(self) -> int | str:
        """One life. Returns its exit status, or why it could not be started."""
        gone = asyncio.Event()
        channel = Channel(self._handlers(), gone.set, self._common.read_on)
        try:
            self._process = await _spawn(channel, self._common.inherited.descriptors(self.index))
        except OSError as error:  # no descriptor, no memory, ...
            return str(error)
        self.pid, self._pings_left = self._process.pid, STARTING
        channel.tell("start", self._common.start(self.index))
        self._channel = channel  # what changes from now on it is told
        for frame, flow in self._kept:
            channel.tell("receive", frame, flow)
        self._kept.clear()
        self._kept_bytes = 0
        self._common.read_on()
        status = await self._process.wait()
        self._channel = self._process = None
        await gone.wait()  # its last words are read
        for asking in self._asked.values():
            if not asking.done():
                asking.set_exception(self._unavailable())
        await self._common.journal.queue.flushed()  # and durable, be it in the spill, before anybody takes up its calls
        return status

    # -- words from it

    def _handlers(self) -> Mapping[str, Callable[..., None]]:
        return {
            "ready": self._ready,
            **NearRecords(self._common.journal.queue, self.tell).handlers(),
            "send": self._send,
            "registered": self._registered,
            "found": self._found,
            "unbanned": self._unbanned,
            "answer": self._answer,
            "pong": self._pong,
            "drained": self._drained,
        }

    def _ready(self, restored: int) -> None:
        self._log.info("worker.ready", pid=self.pid, calls_restored=restored)
        self._pings_left = SILENT
        if not self.ready.done():
            self.ready.set_result(restored)
        if self._common.drain_until is not None:
            self.drain(self._common.drain_until)

    def drain(self, until: float) -> None:
        """Has it refuse new calls, and say when the others are over, or hung up at that loop time; "leave" ends it."""
        self.tell("drain", max(until - asyncio.get_running_loop().time(), 0.0))

    def _send(self, data: bytes, flow: list[Any]) -> None:
        self._common.streams.send(data, Flow(*flow))

    def _registered(self, token: int, peer: str, contact: bytes, flow: list[Any], expires_at: float | None) -> None:
        """A peer has registered there, or is gone. The others are told, and it is told when they know."""
        registered = self._common.registered
        if expires_at is not None:
            registered[peer] = (peer, contact, flow, expires_at)
        elif registered.get(peer, ())[1:3] == (contact, flow):  # else it has registered anew meanwhile
            del registered[peer]
        for mate in self._common.others(self):
            mate.tell("registered", peer, contact, flow, expires_at)
        if token and self._channel is not None:
            self._telling.begin(self._tell_that_mates_know(self._channel, token))

    async def _tell_that_mates_know(self, life: Channel, token: int) -> None:
        await all_know(self._common.others(self), MATES_S)
        life.tell("mates_know", token)

    def _found(self, bans: list[list[Any]]) -> None:
        """It would ban these sources: others may know who is there."""
        self._common.bans.agree([Ban(*each) for each in bans])

    def _unbanned(self, source: str, *ban: object) -> None:
        self._common.bans.lift(source, here=False)
        for mate in self._common.others(self):
            mate.tell("unbanned", source, *ban)

    def _answer(self, serial: int, reply: Answer) -> None:
        asking = self._asked.get(serial)
        if asking is not None and not asking.done():
            asking.set_result(reply)

    def _pong(self) -> None:
        self._pings_left = max(self._pings_left, SILENT)

    def _drained(self, clean: bool) -> None:
        self.drained.set_result(clean)


async def all_know(members: Iterable[Member], patience_s: float = ASK_S) -> None:
    """Returns once all have heard what they were told, save those that do not say so in time or are being replaced."""
    asking = (member.ask("known", {"sources": []}, patience_s) for member in members)
    await asyncio.gather(*asking, return_exceptions=True)


def encode_located(located: Located) -> dict[str, list[tuple[Any, ...]]]:
    """In the form that `relay.worker` reads."""
    return {peer: [astuple(target) for target in targets] for peer, targets in located.items()}


async def _spawn(channel: Channel, inherited: Sequence[int]) -> Process:
    """Starts the process and opens the channel to it. Raises OSError."""
    ours, theirs = socket.socketpair()
    await channel.open(ours)
    with theirs:
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "relay", "worker", str(theirs.fileno())),
                pass_fds=[theirs.fileno(), *inherited],
                stdin=DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for us
            )
        except OSError:
            channel.close()
            raise
