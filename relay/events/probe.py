"""The probe: a marked call every few minutes through each chosen peer and back, which proves that nothing crosses.

Its calls belong to the reserved business user `relay700-probe`: no cap, hour, hook or statistic of others is touched.
The audit log has the first result of each day and peer, each change, and every leak.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from functools import partial
from typing import Any, Final

from structlog.typing import FilteringBoundLogger

from relay.errors import Refused, StoreError
from relay.events.probe_call import Outcome, ProbeCall, Result, call
from relay.model.call import PROBE_BUSINESS
from relay.model.numbers import format_number
from relay.model.settings import PROBE_PEER, ProbeSettings
from relay.service import bindings, businesses, fields
from relay.service.fields import CHINA
from relay.service.placement import BindRules, PlacementRequest
from relay.store.bindings import BindingQuery, find_page
from relay.store.businesses import find_business
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.webhooks import queue_event
from relay.store.writer import GroupWriter

OUTCOMES: Final[tuple[Outcome, ...]] = ("proven", "leak", "failed")
_PAPERS = "none: relay700's own, for calls between numbers of the operator"


def call_to(settings: ProbeSettings, peer: str, callee: str, number: str) -> ProbeCall:
    """The call through one peer. `number`: the one that `number_for` has bound."""
    ends = (settings.caller_at, settings.callee_at)
    is_direct = peer == PROBE_PEER
    return ProbeCall(settings.relay, settings.relay_hosts, settings.caller, number, callee, peer, is_direct, *ends)


def number_for(unit: UnitOfWork, rules: BindRules, caller: str, callee: str) -> str:
    """The 700 number that joins the two; they are bound if they are not yet. Raises Refused."""
    if find_business(unit.connection, unit.sealer, PROBE_BUSINESS) is None:
        papers = businesses.Fields(name="relay700 probe", licence=_PAPERS, application=_PAPERS, scheme=_PAPERS)
        businesses.apply(unit, papers | {"contact": _PAPERS}, PROBE_BUSINESS)
        businesses.set_state(unit, PROBE_BUSINESS, "approve", "[probe] is configured")
    query = BindingQuery(business=PROBE_BUSINESS, party=callee, state="live")
    for each in find_page(unit.connection, unit.sealer, query, unit.now_ms, None, 100):
        if (each.a, each.b) == (caller, callee):
            return each.x
    plus = partial(format_number, number_format="plus")
    asked: dict[str, object] = {"mode": "AXB", "a": plus(caller), "b": plus(callee), "order_id": PROBE_PEER}
    asked |= {"business": PROBE_BUSINESS, "max_call_s": 60, "ring_timeout_s": 20}
    return bindings.bind(unit, PlacementRequest(fields.binding(asked, rules.parties, unit.now_ms)), rules).x


def note(unit: UnitOfWork, result: Result) -> None:
    """Add the result to the audit log; a leak is an event of the probe's business user, too."""
    details: dict[str, object] = {"messages": len(result.received), "marks": result.marks}
    if result.leaks:
        details["leaks"] = list(result.leaks)
    unit.audit(f"probe.{result.outcome}", result.peer, business=PROBE_BUSINESS, reason=result.reason, details=details)
    if result.leaks:
        data: dict[str, object] = {"peer": result.peer, "leaks": list(result.leaks)}
        queue_event(unit, PROBE_BUSINESS, "probe.leak", f"probe.{result.peer}.{unit.now_ms}", data)


class ProbeTask:
    """The task of the backend: `run` it until it is cancelled."""

    def __init__(
        self,
        settings: ProbeSettings | None,
        rules: BindRules,
        writer: GroupWriter,
        ask_relay: Callable[[str], Awaitable[dict[str, Any]]],
        log: FilteringBoundLogger,
    ) -> None:
        """`ask_relay` asks the admin socket."""
        self._settings = settings
        self._rules = rules
        self._writer = writer
        self._ask_relay = ask_relay
        self._log = log
        self._changed = asyncio.Event()
        self._counts: Counter[str] = Counter()  # "PEER OUTCOME"
        self._proven: dict[str, float] = {}  # Unix seconds, by peer
        self._noted: dict[str, tuple[date, Outcome]] = {}  # the last entry of the audit log, by peer

    def apply_config(self, settings: ProbeSettings | None, rules: BindRules) -> None:
        """Apply a new configuration at once."""
        if settings != self._settings:
            self._changed.set()
        self._settings, self._rules = settings, rules

    def statistics(self) -> dict[str, dict[str, float]]:
        if self._settings is None:
            return {}
        peers = [peer for peer, _ in self._settings.callees]
        counts: dict[str, float] = dict.fromkeys([f"{peer} {outcome}" for peer in peers for outcome in OUTCOMES], 0)
        counts |= self._counts
        return {"probes": counts, "privacy_last_proven_seconds": dict.fromkeys(peers, 0.0) | self._proven}

    async def run(self) -> None:
        while True:
            self._changed.clear()
            settings = self._settings
            for peer, callee in settings.callees if settings is not None else ():
                if settings is not None and await self._is_serving():
                    await self._finish(await self._probe(settings, peer, callee))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if settings is None else settings.every_s)

    async def _is_serving(self) -> bool:
        try:
            return bool((await self._ask_relay("state"))["state"] == "serving")
        except Refused:
            return False

    async def _probe(self, settings: ProbeSettings, peer: str, callee: str) -> Result:
        try:
            number = await self._writer.run(RELAY, lambda unit: number_for(unit, self._rules, settings.caller, callee))
        except (Refused, StoreError) as error:
            return Result(peer, "failed", f"no number could be bound: {error}")
        return await call(call_to(settings, peer, callee, number))

    async def _finish(self, result: Result) -> None:
        peer, outcome = result.peer, result.outcome
        self._counts[f"{peer} {outcome}"] += 1
        if outcome == "proven":
            self._proven[peer] = time.time()
        today = datetime.now(CHINA).date()
        is_new = self._noted.get(peer) != (today, outcome)
        if outcome == "leak":
            self._log.error("probe.leak", peer=peer, leaks=result.leaks, effect="a party's data reached the other side")
        elif is_new:
            (self._log.warning if outcome == "failed" else self._log.info)(
                f"probe.{outcome}", peer=peer, reason=result.reason, messages=len(result.received), marks=result.marks
            )
        if is_new or outcome == "leak":
            with contextlib.suppress(StoreError):  # reported elsewhere; the next result is noted again
                await self._writer.run(RELAY, lambda unit: note(unit, result))
                self._noted[peer] = (today, outcome)
