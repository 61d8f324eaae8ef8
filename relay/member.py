"""One worker as its parent has it, through all its lives: started, told, asked, watched, and replaced where it ends.

Its successor begins when all is durable that it had to say, and goes on with its calls (DESIGN 4.2). What comes for it
by a stream meanwhile waits here, and datagrams in its sockets.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from structlog.typing import FilteringBoundLogger

from relay.call.actions import Commit
from relay.call.bans import Bans
from relay.call.record import CallRecord
from relay.config import Config
from relay.errors import ConfigError, Refused
from relay.net.channel import Channel
from relay.net.control import Answer
from relay.policy.last_caller import LastCaller
from relay.sip.flow import Flow
from relay.store.journal import Journal

if TYPE_CHECKING:
    from relay.net.locate import Located

ASK_S: Final = 0.9  # the control socket's clients wait for a second
RELOAD_S: Final = 10.0
SILENT_S: Final = 10.0  # a worker that says nothing for so long is killed
STARTING_S: Final = 60.0  # one that takes up calls may be silent for so long
PROVEN_S: Final = 10.0  # one that lived so long is replaced at once
FIRST_PAUSE_S: Final = 0.5
LAST_PAUSE_S: Final = 30.0
MOST_KEPT: Final = 10_000  # messages of streams for a worker that is being replaced


@dataclass(slots=True)
class Common:
    """What all workers of a relay have in common."""

    config: Config
    journal: Journal
    log: FilteringBoundLogger
    workers: int
    secret: bytes  # of what they make and check for each other
    descriptors: Callable[[int], Mapping[str, Any]]  # what the worker of that index inherits
    carry: Callable[[bytes, Flow], None]  # sends by a stream
    bans: Bans
    located: Located = field(default_factory=dict)
    # What one worker knows and the others must: where each peer is that has registered, by its name.
    registered: dict[str, Sequence[Any]] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    drain_until: float | None = None  # loop time


class Member:
    """One worker. `ready` has how many calls it took up, or why it could not start.

    `drained`: whether no call was left to a restart. `lives` is done once it is gone for ever, and all it said durable.
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
        self._silent_at = 0.0  # loop time
        self._kept: deque[tuple[bytes, Flow]] = deque(maxlen=MOST_KEPT)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._serial = 0
        self.lives = asyncio.create_task(self._live_on(), name=f"worker {index}")

    # -- words to it

    def tell(self, name: str, *fields: object) -> None:
        """Nothing is told while it is being replaced: its successor learns what is in force at its start."""
        if self._channel is not None:
            self._channel.tell(name, *fields)

    def receive(self, frame: bytes, flow: Flow) -> None:
        """A message that a stream has brought for it. Nobody would send it again."""
        if self._channel is None:
            self._kept.append((frame, flow))
        else:
            self._channel.tell("receive", frame, flow)

    async def ask(self, name: str, fields: Mapping[str, object], patience_s: float = ASK_S) -> Answer:
        """Raises Refused: its words, "relay_unavailable" where it does not answer in time."""
        self._serial += 1
        serial, answered = self._serial, asyncio.get_running_loop().create_future()
        self._asked[serial] = answered
        self.tell("ask", serial, name, fields)
        try:
            async with asyncio.timeout(patience_s):
                reply = await answered
        except TimeoutError:
            raise Refused("relay_unavailable", "", f"worker {self.index} does not answer") from None
        finally:
            del self._asked[serial]
        if "error" in reply:
            raise Refused(reply["error"], "", reply["problem"])
        answer: Answer = reply["answer"]
        return answer

    def check(self) -> None:
        """To be called once a second: kills it where it has not answered to the last ten of these."""
        now = asyncio.get_running_loop().time()
        if self._process is not None and now > self._silent_at:
            self._log.error("worker.silent", pid=self.pid, effect="it is killed and replaced")
            self._process.kill()
            self._silent_at = now + SILENT_S
        self.tell("ping")

    async def end(self) -> None:
        """It is not replaced any more, and killed where it is still there."""
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
            if self.drained.done():
                return
            if not self.ready.done():
                self.ready.set_exception(ConfigError([f"worker {self.index} did not start: the log says why"]))
                return
            pause_s = 0.0 if clock() - began > PROVEN_S else min(max(2 * pause_s, FIRST_PAUSE_S), LAST_PAUSE_S)
            self._log.error("worker.ended", pid=self.pid, status=status, again_in_s=pause_s)
            await asyncio.sleep(pause_s)

    async def _live(self) -> int | str:
        """Its exit status, or why it could not be started."""
        ours, theirs = socket.socketpair()
        gone = asyncio.Event()
        channel = Channel(self._handlers(), gone.set)
        with theirs:
            start = self._start(theirs.fileno())
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "relay", "worker", str(theirs.fileno())),
                    pass_fds=_descriptors_in(start),
                    stdin=DEVNULL,
                    start_new_session=True,  # Ctrl-C in a terminal is for us
                )
            except OSError as error:
                ours.close()
                return str(error)
        self.pid, self._silent_at = self._process.pid, asyncio.get_running_loop().time() + STARTING_S
        await channel.open(ours)
        channel.tell("start", start)
        self._channel = channel
        for frame, flow in self._kept:
            channel.tell("receive", frame, flow)
        self._kept.clear()
        status = await self._process.wait()
        self._channel = self._process = None
        await gone.wait()  # its last words are read
        await self._common.journal.flushed()  # and durable, before anybody takes up its calls
        return status

    def _start(self, channel: int) -> dict[str, Any]:
        common = self._common
        return {
            "channel": channel,
            "index": self.index,
            "workers": common.workers,
            "name": common.config.name,
            "text": common.config.text,
            "secret": common.secret,
            "located": encode_located(common.located),
            "registered": list(common.registered.values()),
            "bans": [(ban.source, ban.until, ban.reason) for ban in common.bans.in_force()],
            **common.descriptors(self.index),
        }

    # -- words from it

    def _handlers(self) -> Mapping[str, Callable[..., None]]:
        return {
            "ready": self._ready,
            "commit": self._commit,
            "tell": self._told,
            "remember": self._remember,
            "send": self._send,
            "registered": self._registered,
            "banned": self._banned,
            "unbanned": self._unbanned,
            "answer": self._answer,
            "pong": self._pong,
            "drained": self._drained,
        }

    def _ready(self, restored: int) -> None:
        self._log.info("worker.ready", pid=self.pid, calls_restored=restored)
        self._silent_at = asyncio.get_running_loop().time() + SILENT_S
        if not self.ready.done():
            self.ready.set_result(restored)
        if self._common.drain_until is not None:
            self.drain(self._common.drain_until)

    def drain(self, until: float) -> None:
        """Has it refuse new calls, and go when the others are over or that loop time has come."""
        self.tell("drain", max(until - asyncio.get_running_loop().time(), 0.0))

    def _commit(self, token: int, record: list[Any], dialogs: bytes | None) -> None:
        self._common.journal.append(Commit(token, CallRecord(*record), dialogs), partial(self.tell, "committed"))

    def _told(self, kind: str, record: list[Any]) -> None:
        self._common.journal.tell(kind, CallRecord(*record))

    def _remember(self, last: list[Any]) -> None:
        self._common.journal.remember(LastCaller(*last))

    def _send(self, data: bytes, flow: list[Any]) -> None:
        self._common.carry(data, Flow(*flow))

    def _registered(self, peer: str, contact: str, flow: list[Any], expires_at: float | None) -> None:
        """It has let a peer register, or has found it gone: the others go by that."""
        registered = self._common.registered
        if expires_at is not None:
            registered[peer] = (peer, contact, flow, expires_at)
        elif registered.get(peer, ())[1:3] == (contact, flow):  # else it has registered anew meanwhile
            del registered[peer]
        self._tell_mates("registered", peer, contact, flow, expires_at)

    def _banned(self, source: str, until: float, reason: str) -> None:
        with suppress(ValueError):  # a stream's far end that is known
            self._common.bans.ban(source, until, time.monotonic(), reason, here=False)
        self._tell_mates("banned", source, until, reason)

    def _unbanned(self, source: str, *ban: object) -> None:
        self._common.bans.lift(source, here=False)
        self._tell_mates("unbanned", source, *ban)

    def _tell_mates(self, name: str, *fields: object) -> None:
        for member in self._common.members:
            if member is not self:
                member.tell(name, *fields)

    def _answer(self, serial: int, reply: Answer) -> None:
        asking = self._asked.get(serial)
        if asking is not None and not asking.done():
            asking.set_result(reply)

    def _pong(self) -> None:
        self._silent_at = max(self._silent_at, asyncio.get_running_loop().time() + SILENT_S)

    def _drained(self, clean: bool) -> None:
        self.drained.set_result(clean)


def encode_located(located: Located) -> dict[str, list[tuple[Any, ...]]]:
    """As `relay.worker` reads it."""
    return {peer: [astuple(target) for target in targets] for peer, targets in located.items()}


def _descriptors_in(start: Mapping[str, Any]) -> list[int]:
    return [start["channel"], start["own"], start["region"], *start["mates"], *start["sockets"].values()]
