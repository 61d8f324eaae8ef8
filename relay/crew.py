"""The parent of several workers: each is a process with a switch of its own, and all serve the same addresses.

The parent owns what exists only once: the way to the journal, TCP and TLS connections, and the UDP sockets, which
outlive the workers. It decides nothing about calls.

A worker that ends, or that has not answered for 10 s, is replaced by one that takes up its calls, as a restart does.
Before a reload all workers are asked whether they can use the file; one that then fails to is killed, and its successor
uses it. While a worker is slow or being replaced, connections that have brought it much are not read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from structlog.typing import FilteringBoundLogger

from relay.call.bans import Ban, Bans
from relay.call.settings import Settings
from relay.config import Config
from relay.drain import ENDING_S
from relay.errors import ConfigError, Refused
from relay.member import RELOAD_S, Common, Member, all_know, encode_located
from relay.net.bans import BanAnswers, BanLog, is_known, read_source
from relay.net.control import Answer
from relay.net.inherited import Inherited
from relay.net.resolve import Resolver
from relay.net.steering import owner
from relay.net.streams import Streams
from relay.net.tasks import Tasks
from relay.net.transports import why_not
from relay.sip.flow import Flow
from relay.store.journal import Journal
from relay.store.live_rows import LiveCall
from relay.switch import owner_of
from relay.totals import all_live, all_peers, all_statistics, who_has_it

if TYPE_CHECKING:
    from relay.net.locate import Located
    from relay.store.server_journal import ServerJournal

TICK_S: Final = 1.0
HURRY_S: Final = 2.0  # for workers that are to go at once

_TOTALS: Final[Mapping[str, Callable[..., Answer]]] = {
    "statistics": all_statistics,
    "live": all_live,
    "peers": all_peers,
    "call": who_has_it,
    "hang_up": who_has_it,
}


class Crew:
    """The workers of one relay; it implements `relay.app.Calls`."""

    def __init__(
        self, config: Config, journal: Journal | ServerJournal, log: FilteringBoundLogger, workers: int
    ) -> None:
        """`workers`: 2 to 16, since each marks its tokens with one hexadecimal digit."""
        self._workers = workers
        self._bans = Bans(config.settings.limits)  # of streams, and all that workers tell
        self._ban_log = BanLog(log)
        self._bans.listeners += [self._ban_log, self._tell_ban]
        self._bans.agree = self._agree
        self._follow(config.settings)
        self._streams = Streams(
            config.settings, config.streams, config.tls, Resolver(), self._received, self._failed, self._bans
        )
        self._common = Common(config, journal, log, workers, Inherited(workers), self._streams, self._bans)
        self._members: list[Member] = self._common.members
        self._ban_answers = BanAnswers(self._bans).by_name()
        self._agreeing = Tasks()
        self._ticker: asyncio.Task[None] | None = None

    async def start(self, located: Located) -> int:
        """As `relay.app.Calls.start`."""
        self._take_located(located)
        await self._listen()
        self._members += [Member(index, self._common) for index in range(self._workers)]
        self._ticker = asyncio.create_task(self._tick())
        return sum(await asyncio.gather(*(member.ready for member in self._members)))

    def locate(self, located: Located) -> None:
        """As `Switch.locate`."""
        self._take_located(located)
        self._tell_all("locate", encode_located(located))

    def _take_located(self, located: Located) -> None:
        self._common.located = {**self._common.located, **located}
        self._streams.locate(located)

    def take_over(self, calls: Sequence[LiveCall]) -> None:
        """As `Switch.take_over`. A worker that is being replaced finds them in the store."""
        for call in calls:
            self._members[owner_of(call, self._workers)].take_over(call)

    async def reload(self, config: Config, located: Located) -> None:
        """As `Switch.reload`."""
        told = {"name": config.name, "text": config.text, "located": encode_located(located)}
        await self._check(told)
        self._streams.reload(config.settings, config.tls)
        self._common.config, self._common.located = config, {}
        self._take_located(located)
        self._follow(config.settings)
        # The first is the last: it tells the others where peers register, which they know by then.
        for member in reversed(self._members):
            await member.reload(told)

    def _follow(self, settings: Settings) -> None:
        peers_log_in = any(peer.login is not None for peer in settings.peers)
        self._bans.follow(settings.limits, time.monotonic(), believes=not peers_log_in)

    async def _check(self, told: Mapping[str, object]) -> None:
        """Raises ConfigError if a worker cannot use the configuration: a file has changed since we looked."""
        checks = (member.ask("check", told, RELOAD_S) for member in self._members)
        for answer in await asyncio.gather(*checks, return_exceptions=True):
            if isinstance(answer, Refused) and answer.kind == "invalid":
                raise ConfigError([answer.problem])

    async def ask(self, name: str, **fields: object) -> Answer:
        """As `relay.app.Calls.ask`."""
        if name in self._ban_answers:
            return await self._answer_of_bans(name, **fields)
        answers: list[Any] = await asyncio.gather(
            *(member.ask(name, fields) for member in self._members), return_exceptions=True
        )
        total = _TOTALS[name](answers, **fields)
        if name != "statistics":
            return total
        return all_statistics([total, {**self._streams.statistics(), "tasks": len(asyncio.all_tasks())}])

    def pids(self) -> list[int]:
        """As `relay.app.Calls.pids`."""
        return [member.pid for member in self._members]

    async def drain(self, limit_s: float, at_once: asyncio.Event) -> bool:
        """As `Switch.drain`."""
        until = self._common.drain_until = asyncio.get_running_loop().time() + limit_s
        for member in self._members:
            member.drain(until)
        hurry = asyncio.create_task(self._hurry(at_once))
        gone = asyncio.create_task(self._gone())
        await asyncio.wait([gone, hurry], timeout=limit_s + ENDING_S, return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        hurry.cancel()
        return all(member.drained.done() and member.drained.result() for member in self._members)

    async def _gone(self) -> None:
        for member in self._members:
            either: list[asyncio.Future[Any]] = [member.drained, member.lives]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for member in self._members:
            member.tell("leave")
        await asyncio.wait([member.lives for member in self._members])

    async def _hurry(self, at_once: asyncio.Event) -> None:
        """Once told to, stops all at once. Returns when they have had the time to end."""
        await at_once.wait()
        self._common.stops_at_once = True
        for member in self._members:
            member.stop()
        await asyncio.sleep(HURRY_S)

    async def close(self) -> None:
        """As `Switch.close`."""
        if self._ticker is not None:
            self._ticker.cancel()
        for member in self._members:
            await member.end()
        await self._streams.close()
        self._common.inherited.close()

    # -- sockets

    async def _listen(self) -> None:
        """Raises ConfigError with every listener that cannot be opened."""
        problems = []
        for index, listener in enumerate(self._common.config.settings.listeners):
            try:
                if listener.transport == "udp":
                    await self._common.inherited.listen(index, listener, self._common.log)
                else:
                    self._streams.listen(index)
            except OSError as error:
                problems.append(f"sip.listen[{index}]: {why_not(listener, error)}")
        if problems:
            raise ConfigError(problems)

    def _received(self, frame: bytes, flow: Flow) -> None:
        """A message from a stream. What belongs to no call goes to the first worker."""
        member = self._members[owner(frame, self._workers) or 0]
        member.receive(frame, flow)
        if member.is_behind:
            self._streams.hold(flow)

    def _failed(self, flow: Flow) -> None:
        self._tell_all("failed", flow)

    def _tell_ban(self, event: str, ban: Ban) -> None:
        if ban.here and event in ("banned", "unbanned"):
            self._tell_all(event, ban.source, ban.until, ban.reason)

    async def _answer_of_bans(self, name: str, **fields: object) -> Answer:
        """Whoever bans or lifts a ban can rely on the answer: all workers know by then."""
        if name == "ban" and await self._known([read_source(str(fields.get("address")))]):
            raise is_known()
        answer = self._ban_answers[name](**fields)
        if name != "bans":
            await all_know(self._members)
        return answer

    def _agree(self, found: list[Ban]) -> None:
        """As `Bans.agree`."""
        self._agreeing.begin(self._ban_unknown(found))

    async def _ban_unknown(self, found: list[Ban]) -> None:
        """Begins the first ban whose source no worker knows. Another worker may have found the same meanwhile."""
        known = await self._known([ban.source for ban in found])
        for ban in found:
            if self._bans.is_in_force(ban.source):
                return
            if ban.source not in known and not self._bans.knows(ban.source, ban.since):
                self._bans.ban(ban.source, ban.until, ban.since, ban.reason, proven=ban.proven)
                return
        self._ban_log("spared", found[-1])

    async def _known(self, sources: list[str]) -> set[str]:
        """The sources that some worker knows. If one does not answer, its successor lifts bans of those it knows."""
        asking = (member.ask("known", {"sources": sources}) for member in self._members)
        answers = await asyncio.gather(*asking, return_exceptions=True)
        return {source for answer in answers if isinstance(answer, dict) for source in answer["known"]}

    def _tell_all(self, name: str, *fields: object) -> None:
        for member in self._members:
            member.tell(name, *fields)

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._streams.sweep(loop.time())
            self._bans.expire(time.monotonic())
            for member in self._members:
                member.check()
            await asyncio.sleep(TICK_S)
