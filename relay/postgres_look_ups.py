"""Asynchronous route look-ups in PostgreSQL, queued fairly by peer; the call policy runs when the row is there."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from relay.defence.limits import FairQueue, is_within_share
from relay.errors import Report
from relay.model.actions import LookUp
from relay.model.call import Refusal, Route
from relay.net.process import Tasks
from relay.policy.call_policy import CallPolicy, OnRouted
from relay.policy.evaluate import Counted, LookupResult
from relay.policy.rules import STORE_FAILED, Rules
from relay.store.connection import PostgresServer
from relay.store.postgres.lookup import CONNECTIONS, PATIENCE_S, PostgresRouteReader
from relay.store.sealing.sealer import Sealer

SWEEP_EACH: Final = 5  # seconds between two deletions of expired counts
MOST_WAITING: Final = 1_000  # queued look-ups; above it, or above a peer's fair share of it, calls are refused


class _Waiting(NamedTuple):
    policy: CallPolicy
    asked: LookUp
    unix_s: float
    routed: OnRouted
    since: float  # loop time


class PostgresLookUps:
    """The counterpart of `RouteReader` for PostgreSQL. `open` it in the loop that uses it."""

    def __init__(self, server: PostgresServer, sealer: Sealer, rules: Rules, report: Report) -> None:
        self._reader = PostgresRouteReader(server, sealer, rules, report)
        self._waiting: FairQueue[_Waiting] = FairQueue()
        self._asking = Tasks()
        self._askers = 0  # tasks that serve the queue, at most CONNECTIONS
        self.apply_config = self._reader.apply_config
        self.open = self._reader.open
        self.close = self._reader.close
        self.peek = self._reader.peek
        self._looks = 0

    def fetch(self, number: str, caller: str, unix_s: float) -> Refusal:
        """Never used: fills the `CallPolicy`'s synchronous interface, in place of which `look_up` below is called."""
        return STORE_FAILED

    def look(self) -> None:
        """Check for the end of an outage, for refused rows, and at the schema; call it once a second.

        Every `SWEEP_EACH` expired counts are deleted.
        """
        self._reader.look()
        self._asking.begin(self._reader.learn_head())
        self._asking.begin(self._reader.look_at_schema())
        self._looks += 1
        if self._looks % SWEEP_EACH == 0:
            self._asking.begin(self._reader.sweep())

    def look_up(self, policy: CallPolicy, asked: LookUp, unix_s: float, routed: OnRouted) -> None:
        """Look up a route and evaluate it by `policy`. `routed` is always called, later, from the loop."""
        loop, waiting = asyncio.get_running_loop(), self._waiting
        refusal = policy.refuse_unasked(asked.number, asked.caller, unix_s, asked.peer)
        if refusal is not None:
            loop.call_soon(routed, asked.token, refusal)
            return
        name = "" if asked.peer is None else asked.peer.name
        if not is_within_share(waiting.count(name) + 1, len(waiting) + 1, MOST_WAITING):
            loop.call_soon(routed, asked.token, STORE_FAILED)
            return
        waiting.put(name, _Waiting(policy, asked, unix_s, routed, loop.time()))
        if self._askers < CONNECTIONS:
            self._askers += 1
            self._asking.begin(self._ask())

    async def _ask(self) -> None:
        """Serve the queue, one look-up at a time, until it is empty."""
        try:
            while len(self._waiting):
                _, waiting = self._waiting.take()
                await self._answer(waiting)
        except Exception:
            if len(self._waiting):  # a failed look-up must not stall the queue
                self._askers += 1
                self._asking.begin(self._ask())
            raise
        finally:
            self._askers -= 1

    async def _answer(self, waiting: _Waiting) -> None:
        policy, asked, unix_s, routed, since = waiting
        patience_s = since + PATIENCE_S - asyncio.get_running_loop().time()
        answer: Route | Refusal = STORE_FAILED  # the default on cancellation and errors
        row: LookupResult | Refusal = STORE_FAILED
        try:
            if patience_s > 0:
                row = await self._reader.fetch(asked.number, asked.caller, unix_s, patience_s)
                answer = policy.answer(row, asked, unix_s)
        finally:
            policy.pass_on(asked, answer, unix_s, routed)
        await self._give_back(row, answer)

    async def look_up_again(self, policy: CallPolicy, asked: LookUp, unix_s: float) -> Route | Refusal:
        """Look up and evaluate a call once more, after a binding was made for it, ahead of those that wait."""
        row = await self._reader.fetch(asked.number, asked.caller, unix_s)
        answer = policy.answer(row, asked, unix_s)
        await self._give_back(row, answer)
        return answer

    def give_back(self, counted: Counted) -> None:
        """Undo the count of a call that was granted, soon."""
        self._asking.begin(self._reader.give_back(counted))

    async def _give_back(self, row: LookupResult | Refusal, answer: Route | Refusal) -> None:
        """Undo the count of a call that was refused."""
        if (
            isinstance(answer, Refusal)
            and isinstance(row, LookupResult)
            and row.counted is not None
            and row.counted.under
        ):
            await self._reader.give_back(row.counted)
