"""Look-ups of calls in a store that answers later: each is a task, and its answer is judged when it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from relay.call.actions import LookUp
from relay.call.routing import Refusal, Route
from relay.net.tasks import Tasks
from relay.policy.gate import Gate
from relay.policy.rules import STORE_FAILED, Rules
from relay.store.outage import Report
from relay.store.sealing import Sealer
from relay.store.server import Server
from relay.store.server_lookup import ServerRouteReader

MOST_ASKED: Final = 1_000  # at once; what comes beyond is refused

Found = Callable[[LookUp, Route | Refusal], None]


class ServerLookUps:
    """What `RouteReader` is for a store in a file. Open it in the loop that it is used in."""

    def __init__(self, server: Server, sealer: Sealer, rules: Rules, report: Report) -> None:
        self._reader = ServerRouteReader(server, sealer, rules, report)
        self._asking = Tasks()
        self.follow = self._reader.follow
        self.open = self._reader.open
        self.look = self._reader.look
        self.close = self._reader.close

    def fetch(self, number: str, caller: str, unix_s: float) -> Refusal:
        """For a `Gate` whose `look_up` is not asked: `look_up` here is."""
        return STORE_FAILED

    def look_up(self, gate: Gate, asked: LookUp, unix_s: float, found: Found) -> None:
        """What the store has passes `gate`; `found` is called from the loop, whatever happens."""
        refusal = gate.refuse_unasked(asked.number, asked.caller, unix_s, asked.peer)
        if refusal is not None:
            asyncio.get_running_loop().call_soon(found, asked, refusal)
        elif len(self._asking) >= MOST_ASKED:
            asyncio.get_running_loop().call_soon(found, asked, STORE_FAILED)
        else:
            self._asking.begin(self._answer(gate, asked, unix_s, found))

    async def _answer(self, gate: Gate, asked: LookUp, unix_s: float, found: Found) -> None:
        answer: Route | Refusal = STORE_FAILED  # also where this is cancelled or breaks
        try:
            row = await self._reader.fetch(asked.number, asked.caller, unix_s)
            answer = gate.answer(row, asked.number, asked.caller, unix_s, asked.peer)
        finally:
            found(asked, answer)
