"""Asynchronous route look-ups in PostgreSQL, queued fairly by peer; the call policy runs when the row is there.

Waiting calls are looked up together: the more arrive, the less each costs. The first after a pause never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from relay.defence.limits import FairQueue, is_within_share
from relay.errors import Report
from relay.model.actions import LookUp
from relay.model.call import Refusal, Route
from relay.model.outcomes import STORE_FAILED
from relay.net.supervisor import Tasks
from relay.policy.call_policy import CallPolicy, OnRouted
from relay.policy.evaluate import CapCount, LookupResult
from relay.policy.rules import Rules
from relay.store.connection import PostgresServer
from relay.store.postgres.lookup import CONNECTIONS, PATIENCE_S, LookupRequest, PostgresRouteReader
from relay.store.sealing.sealer import Sealer

SWEEP_EACH: Final = 5  # seconds between two deletions of expired counts
MOST_WAITING: Final = 1_000  # queued look-ups; above it, or above a peer's fair share of it, calls are refused
# Least time between the begins of two statements, if all that wait fit in the later one. At 1,000 calls/s a call waits
# 2 ms of it on average.
GAP_S: Final = 0.004
MOST_TOGETHER: Final = 32  # look-ups of one statement: it takes some 5 ms then
# Calls of one statement have waited alike: all of them have the patience of the one that has waited longest.
ALIKE_S: Final = 0.1


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
        self._next: _Waiting | None = None  # was taken from the queue, but fitted in no statement yet
        self._askers = 0  # statements under way, at most CONNECTIONS
        self._begins = False  # `_begin` is scheduled
        self._begun_at = float("-inf")  # loop time of the last statement
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
        self._asking.begin(self._reader.look_at_store())
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
        self._begin_soon()

    def _begin_soon(self) -> None:
        """Begin a statement for those that wait, once there is a connection and the gap is over."""
        if not self._begins and self._askers < CONNECTIONS:
            self._begins = True
            loop = asyncio.get_running_loop()
            loop.call_later(max(0.0, self._begun_at + GAP_S - loop.time()), self._begin)

    def _begin(self) -> None:
        self._begins = False
        while self._askers < CONNECTIONS and (together := self._take()):
            self._begun_at = asyncio.get_running_loop().time()
            self._askers += 1
            self._asking.begin(self._ask(together))

    def _take(self) -> list[_Waiting]:
        """Take those that can be looked up together."""
        together: list[_Waiting] = []
        numbers: set[str] = set()
        while len(together) < MOST_TOGETHER and (self._next is not None or len(self._waiting)):
            waiting, self._next = self._next or self._waiting.take()[1], None
            number = waiting.asked.number
            is_other = number not in numbers or not self._reader.counts
            if together and not (is_other and abs(waiting.since - together[0].since) < ALIKE_S):
                self._next = waiting
                break
            numbers.add(number)
            together.append(waiting)
        return together

    async def _ask(self, together: Sequence[_Waiting]) -> None:
        """Look up some calls, answer each, and begin the next statement if others wait."""
        since = min(waiting.since for waiting in together)
        patience_s = since + PATIENCE_S - asyncio.get_running_loop().time()
        rows: Sequence[LookupResult | Refusal] = [STORE_FAILED] * len(together)  # on cancellation and errors
        try:
            if patience_s > 0:
                asked = [LookupRequest(each.asked.number, each.asked.caller, each.unix_s) for each in together]
                rows = await self._reader.fetch_all(asked, patience_s)
        finally:
            self._askers -= 1
            if self._next is not None or len(self._waiting):
                with suppress(RuntimeError):  # the loop is closing
                    self._begin_soon()
            refused = self._answer(together, rows)
        for counted in refused:
            await self._reader.give_back(counted)

    def _answer(self, together: Sequence[_Waiting], rows: Sequence[LookupResult | Refusal]) -> list[CapCount]:
        """Answer each call. Returns the counts of those that are refused."""
        refused: list[CapCount] = []
        failed: Exception | None = None
        for waiting, row in zip(together, rows, strict=True):
            try:
                answer = _answer_one(waiting, row)
            except Exception as error:  # the others are answered all the same
                answer, failed = STORE_FAILED, error
            if isinstance(answer, Refusal) and isinstance(row, LookupResult) and row.counted is not None:
                refused.append(row.counted)
        if failed is not None:
            raise failed
        return refused

    async def look_up_again(self, policy: CallPolicy, asked: LookUp, unix_s: float) -> Route | Refusal:
        """Look up and evaluate a call once more, after a binding was made for it, ahead of those that wait."""
        row = await self._reader.fetch(asked.number, asked.caller, unix_s)
        answer = policy.answer(row, asked, unix_s)
        if isinstance(answer, Refusal) and isinstance(row, LookupResult) and row.counted is not None:
            await self._reader.give_back(row.counted)
        return answer

    def give_back(self, counted: CapCount) -> None:
        """Undo the count of a call that was granted, soon."""
        self._asking.begin(self._reader.give_back(counted))


def _answer_one(waiting: _Waiting, row: LookupResult | Refusal) -> Route | Refusal:
    policy, asked, unix_s, routed, _ = waiting
    answer: Route | Refusal = STORE_FAILED
    try:
        answer = policy.answer(row, asked, unix_s)
    finally:
        policy.pass_on(asked, answer, unix_s, routed)
    return answer
