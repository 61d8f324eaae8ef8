"""DNS for peers configured by name, ahead of any call (`relay.net.dns`).

Answers are refreshed in the background when their time to live ends; while DNS does not answer, the last ones hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from structlog.typing import FilteringBoundLogger

from relay.model.settings import Settings, Target
from relay.net.dns import MOST_TARGETS, NotLocated, Search
from relay.net.hosts import is_literal
from relay.sip.flow import transport_address

Located = Mapping[str, tuple[Target, ...]]

LONGEST_S = 15.0  # limit for one name; the names due with it wait
LEAST_S = 5.0  # shortest interval between two look-ups of a name, whatever its time to live
AGAIN = 3  # interval after a failure, in units of LEAST_S
MOST_S = 3600.0  # longest interval


@dataclass(slots=True)
class _Name:
    """One target configured by host name."""

    peer: str
    target: Target
    found: list[Target] | None  # None: not looked up yet
    due: float  # loop time
    is_lost: bool = False  # the last look-up failed


class Locator:
    """Keeps the names of all peers resolved. `changed` gets all targets of each peer whose addresses changed."""

    def __init__(
        self,
        settings: Settings,
        servers: Sequence[tuple[str, int]],
        changed: Callable[[Located], None],
        log: FilteringBoundLogger,
        least_s: float = LEAST_S,
        former: Locator | None = None,
    ) -> None:
        """`servers`: addresses and ports of DNS servers; empty: those of the system, then its own resolver.

        `former`: the locator of the previous configuration; its results hold until refreshed.
        """
        self._search = Search(settings.listeners, servers)
        self._changed = changed
        self._log = log
        self._least_s = least_s
        self._targets = {peer.name: peer.targets for peer in settings.peers}
        self._names = [
            _Name(peer, target, None if former is None else former.found(target), 0.0)
            for peer, targets in self._targets.items()
            for target in targets
            if not is_literal(target.host)
        ]
        self._first = asyncio.Event()
        self._is_followed = False
        self._task: asyncio.Task[None] | None = None

    def found(self, target: Target) -> list[Target] | None:
        """The addresses found for a target; None if not looked up yet."""
        return next((name.found for name in self._names if name.target == target), None)

    async def start(self, limit_s: float) -> None:
        """Return when each name was looked up once, or after `limit_s`. Only then is `changed` called."""
        if not self._names:
            return
        self._task = asyncio.create_task(self._run(), name="locator")
        waiting = asyncio.create_task(self._first.wait())
        await asyncio.wait([waiting, self._task], timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._is_followed = True

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def located(self) -> Located:
        """The targets of each peer configured by name: as resolved, or as configured if never resolved."""
        named = {name.peer for name in self._names}
        return {peer: self._of(peer) for peer in self._targets if peer in named}

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(max(min(name.due for name in self._names) - loop.time(), 0))
            due = [name for name in self._names if name.due <= loop.time()]
            before = {name.peer: self._of(name.peer) for name in due}
            await asyncio.gather(*[self._look_up(name) for name in due])
            after = {peer: self._of(peer) for peer in before}
            changes = {peer: targets for peer, targets in after.items() if targets != before[peer]}
            if changes:
                self._report(changes)
            self._first.set()

    def _report(self, changes: Located) -> None:
        for peer, targets in changes.items():
            addresses = [transport_address(target.transport, target.host, target.port) for target in targets]
            self._log.info("peer.located", peer=peer, targets=addresses)
        if self._is_followed:
            self._changed(changes)

    async def _look_up(self, name: _Name) -> None:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(LONGEST_S):
                found, ttl_s = await self._search.find(name.target)
        except (NotLocated, TimeoutError) as error:
            if not name.is_lost:
                reason = str(error) or f"no answer within {LONGEST_S:g} s"
                self._log.warning("peer.not_located", peer=name.peer, name=name.target.host, reason=reason)
            name.is_lost, name.due = True, now + AGAIN * self._least_s
            return
        if not found and name.found != []:
            self._log.warning("peer.not_located", peer=name.peer, name=name.target.host, reason="no address")
        name.is_lost, name.found = False, sorted(found, key=_order)[:MOST_TARGETS]
        name.due = now + min(max(ttl_s, self._least_s), MOST_S)

    def _of(self, peer: str) -> tuple[Target, ...]:
        found = {name.target: name.found for name in self._names if name.peer == peer}
        targets = (found.get(target) if found.get(target) is not None else [target] for target in self._targets[peer])
        return tuple(chain.from_iterable(each or () for each in targets))


def _order(target: Target) -> tuple[int, int, str, int]:
    return target.priority, -target.weight, target.host, target.port
