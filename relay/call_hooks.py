"""Call-time decisions: asks the hooks about a call, checks their answers with the store, and binds unknown callers.

The business user's own hook is asked first, then the operator's (`[verify]`), each within its time limit. Any failure
refuses the call, unless the configuration lets a call go on whose hook does not answer. An answer grants no route: a
binding for an unknown caller is made by the rules of all bindings, and the call is then looked up again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import msgspec

from relay.defence.limits import Rates
from relay.errors import Refused, RelayError, Report
from relay.model.actions import LookUp
from relay.model.binding import Binding
from relay.model.call import Refusal, Route
from relay.model.numbers import mask_number
from relay.model.outcomes import VERIFICATION_FAILED, VERIFICATION_REFUSED
from relay.net.hook_client import HookClient, HookEndpoint
from relay.net.supervisor import Tasks
from relay.policy.call_policy import OnRouted
from relay.policy.decision import (
    UNKNOWN,
    Bounds,
    Decision,
    DecisionFault,
    apply_decision,
    read_decision,
    refuse_undecided,
)
from relay.service import bindings, fields
from relay.service.placement import BindRules, PlacementRequest
from relay.store.connection import Connection, Place
from relay.store.database import Reader
from relay.store.filings import is_filed
from relay.store.hooks import Hook, find_hook, hook_of_number, is_own_party, owner_of
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import Actor, UnitOfWork
from relay.store.webhooks import queue_event
from relay.store.writer import GroupWriter, now_ms

T = TypeVar("T")

READ_S = 2.0  # longest wait for the store before a hook is asked
LINES_PER_S = 10  # of the log, of one kind and business user
MOST_UNKNOWN = 10  # unknown callers of one number, through one peer, that wait for an answer at once


class HookLimits(NamedTuple):
    """The configured limits of one kind of hook."""

    timeout_s: float  # for the answer, and all that follows from it
    fail_open: bool  # a call whose hook does not answer goes on
    unknown_callers: bool = False  # asked about callers without a binding, too


class CallHooks:
    """Decides calls by hooks. `open` it in the loop that uses it."""

    def __init__(
        self,
        client: HookClient,
        store: HookStore,
        bounds: Bounds,
        report: Report,
        look_up_again: Callable[[LookUp], Awaitable[Route | Refusal]],
        not_bound: Callable[[LookUp], Refusal],
        verify: tuple[HookEndpoint, HookLimits] | None = None,
        hooks: HookLimits | None = None,
    ) -> None:
        """`verify`: the operator's hook. `hooks`: limits of the hooks of business users; None: they may have none.

        `look_up_again` looks up a call for which a binding was made; `not_bound` refuses one without.
        """
        self._client = client
        self._store = store
        self._bounds = bounds
        self._log = report
        self._look_up_again = look_up_again
        self._not_bound = not_bound
        self._verify = verify
        self._hooks = hooks
        self._asking = Tasks()
        self.open = client.open
        self.take_spans = client.take_spans
        self._reports = Rates()  # by event and business user
        self._wrong: Counter[str] = Counter()  # answers, by "KIND FIELD"
        self._unknown: Counter[tuple[str, str]] = Counter()  # callers that wait, by number and peer

    def decide(self, asked: LookUp, answer: Route | Refusal, routed: OnRouted) -> None:
        """Decide a call with this route, or of an unknown caller (a refusal); `routed` is always called, later."""
        self._asking.begin(self._decide(asked, answer, routed))

    def apply_config(self, rules: BindRules, bounds: Bounds) -> None:
        """Apply these rules from the next answer on."""
        self._store.rules, self._bounds = rules, bounds

    def statistics(self) -> dict[str, dict[str, int]]:
        """For the metrics."""
        return {**self._client.statistics(), "hook_answers_wrong": dict(self._wrong)}

    async def close(self) -> None:
        """Refuse the calls still waiting, and close the connections."""
        await self._asking.cancel()
        await self._client.close()
        await self._store.close()

    async def _decide(self, asked: LookUp, answer: Route | Refusal, routed: OnRouted) -> None:
        # The answer for the engine on cancellation and errors.
        decision: Route | Refusal = refuse_undecided(answer, "") if isinstance(answer, Route) else VERIFICATION_FAILED
        try:
            if isinstance(answer, Refusal):
                answer = await self._of_unknown(asked)
            if isinstance(answer, Route) and answer.hook and answer.decided_by != "hook":
                decision = refuse_undecided(answer, "hook")
                answer = await self._of_business(asked, answer)
            if isinstance(answer, Route) and answer.verify and answer.decided_by != "verify":
                decision = refuse_undecided(answer, "verify")
                answer = await self._of_operator(asked, answer)
            decision = answer
        finally:
            routed(asked.token, decision)

    # -- a call with a route

    async def _of_operator(self, asked: LookUp, route: Route) -> Route | Refusal:
        if self._verify is None:
            return refuse_undecided(route, "verify")
        hook, limits = self._verify
        return await self._decided(hook, limits, asked, route, asked.caller)

    async def _of_business(self, asked: LookUp, route: Route) -> Route | Refusal:
        if self._hooks is None:
            self._tell("hook.not_configured", {"business": route.business, "effect": "its calls are refused"})
            return refuse_undecided(route, "hook")
        try:
            async with asyncio.timeout(READ_S):
                found = await self._store.read(lambda connection, sealer: find_hook(connection, sealer, route.business))
        except (RelayError, TimeoutError) as error:
            self._tell("hook.unreadable", {"business": route.business, "reason": str(error) or "not in time"})
            return refuse_undecided(route, "hook")
        if found is None or found.disabled_at is not None:  # changed after the look-up
            return refuse_undecided(route, "hook")
        return await self._decided(_hook(found), self._hooks, asked, route, _shown(found, asked.caller))

    async def _decided(
        self, hook: HookEndpoint, limits: HookLimits, asked: LookUp, route: Route, caller: str | None
    ) -> Route | Refusal:
        until = time.monotonic() + limits.timeout_s
        body = await self._client.ask(hook, _question(asked, caller, route, route.business), limits.timeout_s)
        if isinstance(body, str):
            self._count(hook, "failed" if body == "no_answer" else body)
            # A flood of calls must not make others pass unasked: the hook has not failed.
            passes = limits.fail_open and body not in ("not_signed", "no_room")
            return route if passes else refuse_undecided(route, hook.kind)
        decision = read_decision(body, self._bounds)
        if isinstance(decision, Decision) and decision.bind is not None:
            decision = DecisionFault("bind", "the caller has a binding")
        if isinstance(decision, Decision):
            decision = await self._checked(decision, route, asked.caller, until)
        if isinstance(decision, DecisionFault):
            self._note_wrong(hook, decision, asked)
            return refuse_undecided(route, hook.kind)
        self._count(hook, "allowed" if decision.allow else "refused")
        return apply_decision(decision, route, self._bounds, hook.kind)

    async def _checked(self, decision: Decision, route: Route, caller: str, until: float) -> Decision | DecisionFault:
        """Check with the store that the numbers in an answer are the business user's own."""
        if decision.target is not None and decision.target == caller:
            return DecisionFault("target", "is the caller")
        if not decision.needs_store:
            return decision
        try:
            async with asyncio.timeout(until - time.monotonic()):
                wrong = await self._store.wrong(decision, route)
        except (RelayError, TimeoutError):
            return DecisionFault("answer", "could not be checked in time")
        return decision if wrong is None else wrong

    # -- a call of an unknown caller

    async def _of_unknown(self, asked: LookUp) -> Route | Refusal:
        """Callers that wait count as no refused attempt yet: without a limit, many could be tried meanwhile."""
        waiting = asked.number, "" if asked.peer is None else asked.peer.name
        if self._unknown[waiting] >= MOST_UNKNOWN:
            return self._not_bound(asked)
        self._unknown[waiting] += 1
        try:
            return await self._asked_of_unknown(asked)
        finally:
            self._unknown[waiting] -= 1
            if not self._unknown[waiting]:
                del self._unknown[waiting]

    async def _asked_of_unknown(self, asked: LookUp) -> Route | Refusal:
        hooks, verify = self._hooks, self._verify
        try:
            async with asyncio.timeout(READ_S):
                business, found = await self._store.read(
                    lambda connection, sealer: hook_of_number(connection, sealer, asked.number)
                )
        except (RelayError, TimeoutError) as error:
            self._tell("hook.unreadable", {"number": asked.number, "reason": str(error) or "not in time"})
            self._not_bound(asked)
            return VERIFICATION_FAILED
        if business is not None and found is not None and hooks is not None and hooks.unknown_callers:
            answer = await self._of_unknown_by(_hook(found), hooks, business, asked, _shown(found, asked.caller))
        elif business is not None and verify is not None and verify[1].unknown_callers:
            answer = await self._of_unknown_by(*verify, business, asked, asked.caller)
        else:
            return self._not_bound(asked)
        if isinstance(answer, Refusal):
            self._not_bound(asked)
            return answer if answer.binding_id else answer._replace(business=business)
        return answer

    async def _of_unknown_by(
        self, hook: HookEndpoint, limits: HookLimits, business: str, asked: LookUp, caller: str | None
    ) -> Route | Refusal:
        until, failed = time.monotonic() + limits.timeout_s, VERIFICATION_FAILED._replace(decided_by=hook.kind)
        body = await self._client.ask(hook, _question(asked, caller, None, business), limits.timeout_s)
        if isinstance(body, str):  # never fails open: there is no binding
            self._count(hook, "failed" if body == "no_answer" else body)
            return failed
        decision = read_decision(body, self._bounds)
        if isinstance(decision, Decision) and decision.allow:
            decision = _for_unknown(decision, asked)
        if isinstance(decision, DecisionFault):
            self._note_wrong(hook, decision, asked)
            return failed
        self._count(hook, "allowed" if decision.allow else "refused")
        if not decision.allow:
            return VERIFICATION_REFUSED._replace(announce=decision.announce or "", decided_by=hook.kind)
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await self._store.bind(business, decision, asked, until)
                route = await self._look_up_again(asked)
        except Refused as refused:
            self._note_wrong(hook, DecisionFault(refused.field or "bind", refused.problem), asked)
            return failed
        except (RelayError, TimeoutError) as error:
            self._tell("hook.not_bound", {"business": business, "reason": str(error) or "not in time"})
            return failed
        if isinstance(route, Refusal):
            return route
        return apply_decision(msgspec.structs.replace(decision, target=None), route, self._bounds, hook.kind)

    # -- counts

    def _count(self, hook: HookEndpoint, answer: str) -> None:
        self._client.counters[f"{hook.kind} {answer}"] += 1

    def _note_wrong(self, hook: HookEndpoint, wrong: DecisionFault, asked: LookUp) -> None:
        self._count(hook, "wrong")
        self._wrong[f"{hook.kind} {'unknown' if wrong.reason == UNKNOWN else wrong.field}"] += 1
        fields = {"hook": hook.kind, "business": hook.business, "call_id": asked.call_id}
        self._tell("hook.answer_wrong", {**fields, "field": wrong.field, "reason": wrong.reason})

    def _tell(self, event: str, fields: dict[str, object]) -> None:
        """Log, but not a line for each call of a flood."""
        if self._reports.admit(f"{event} {fields.get('business')}", LINES_PER_S, time.monotonic()):
            self._log(event, fields)


def _hook(stored: Hook) -> HookEndpoint:
    return HookEndpoint(stored.business, stored.url, stored.secret, stored.internal)


def _shown(hook: Hook, caller: str) -> str | None:
    """The caller as a business user's hook may see it."""
    if hook.parties == "none":
        return None
    return caller if hook.parties == "clear" else mask_number(caller)


def _question(asked: LookUp, caller: str | None, route: Route | None, business: str) -> dict[str, object]:
    """The question for a hook. Without a route the caller is unknown."""
    return {
        "kind": asked.kind,
        "number": asked.number,
        "caller": caller,
        "known": route is not None,
        "business_id": business,
        "binding_id": None if route is None else route.binding_id,
        "order_id": None if route is None else route.order_id,
        "industrial_id": None if route is None else route.industrial_id,
        "mode": None if route is None else route.mode,
        "direction": None if route is None else route.direction,
        "at": now_ms(),
    }


def _for_unknown(decision: Decision, asked: LookUp) -> Decision | DecisionFault:
    if decision.bind is None:
        return DecisionFault("bind", "required: the caller has no binding")
    if decision.target is None:
        return DecisionFault("target", "required with bind")
    return DecisionFault("target", "is the caller") if decision.target == asked.caller else decision


NOT_ITS_NUMBER = "is no number of this business user"

# -- The store, for the hooks: in a thread, since units of work block


class HookStore:
    """Reads and writes of hooks in the store. Nothing of it runs unless a hook is configured."""

    def __init__(self, place: Place, sealer: Sealer, rules: BindRules) -> None:
        self.rules = rules
        self._place = place
        self._sealer = sealer
        self._reader = Reader(place)
        self._thread = ThreadPoolExecutor(1, "hooks")  # a connection belongs to one thread
        self._writer: GroupWriter | None = None
        self._rates = Rates()  # of bindings, by business

    async def read(self, query: Callable[[Connection, Sealer], T]) -> T:
        """The result of a query. Raises StoreError."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._reader.read, lambda connection: query(connection, self._sealer)
        )

    async def wrong(self, decision: Decision, route: Route) -> DecisionFault | None:
        """The part of an answer that is not the route's business user's own; None if all is. Raises StoreError."""
        rules, business, at_ms = self.rules, route.business, now_ms()

        def check(connection: Connection, sealer: Sealer) -> DecisionFault | None:
            target, show = decision.target, decision.show
            if target is not None and not is_own_party(connection, sealer, business, target, at_ms):
                return DecisionFault(
                    "target", "is no party of this business user: bind it, add it to a group, or file it"
                )
            must_be_filed = rules.filing == "require" and route.direction == "b_to_a"  # it is party a
            if target is not None and must_be_filed and not is_filed(connection, sealer, business, target, at_ms):
                return DecisionFault("target", "is not filed")
            if show is not None and owner_of(connection, sealer, show) != business:
                return DecisionFault("show", NOT_ITS_NUMBER)
            return None

        return await self.read(check)

    async def bind(self, business: str, decision: Decision, asked: LookUp, until: float) -> Binding:
        """Make the binding that a hook wants for an unknown caller. Raises Refused.

        Nothing is made, and RelayError raised, if the caller has hung up, or it is too late for the call.
        """
        if self._writer is None:
            self._writer = GroupWriter(self._place, self._sealer)
        assert decision.bind is not None
        written = {name: getattr(decision.bind, name) for name in decision.bind.__struct_fields__}
        written |= {"mode": "AXB", "x": asked.number}
        rules, show = self.rules, decision.show
        a, b = decision.target or "", asked.caller

        def do(unit: UnitOfWork) -> Binding:
            if asked.given_up:
                raise RelayError("the caller has hung up")
            if time.monotonic() > until:
                raise RelayError("not in time")
            if show is not None and owner_of(unit.connection, unit.sealer, show) != business:
                raise fields.invalid("show", NOT_ITS_NUMBER)
            # Normalised numbers, which must not be parsed again: +1 380… would become a Chinese mobile.
            for field, party in (("a", a), ("b", b)):
                if not rules.parties.allow(party):
                    raise fields.invalid(field, "may not be a party")
            wanted = PlacementRequest(fields.binding(written, rules.parties, unit.now_ms)._replace(a=a, b=b))
            made = bindings.bind(unit, wanted, rules, self._rates)
            tell_made(unit, made)
            return made

        return await self._writer.run(Actor("hook", business, frozenset(["bindings:write"])), do)

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close()
        self._thread.submit(self._reader.close)
        self._thread.shutdown()


def tell_made(unit: UnitOfWork, made: Binding) -> None:
    """Queue the event of a binding that a hook made."""
    data: dict[str, object] = {"binding_id": made.binding_id, "mode": made.mode, "order_id": made.order_id}
    data |= {"number": made.x, "industrial_id": made.industrial_id, "user_data": made.user_data}
    queue_event(unit, made.business, "binding.made", f"{made.binding_id}.made", data)
