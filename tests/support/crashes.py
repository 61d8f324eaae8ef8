"""kill -9 of a relay at random moments under load, and the check of its records.

The store may fail meanwhile, so that records are in the overflow log.

The records are compared with what callers and callees saw: each call with a final answer has one complete record; live
calls go on, can be ended by either side, and end at their maximum duration.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from typing import Any, NamedTuple

from tests.support.load import Load, LoadCallee, LoadCaller
from tests.support.relay_process import RelayProcess, Setup
from tests.support.store_faults import Fault, Undo

CALLS_PER_SECOND = 50
BINDINGS = [(f"70010000001{n:04}", f"1380000{n:04}", f"1390000{n:04}") for n in range(50)]
PARTIES = [party for _, a, b in BINDINGS for party in (a, b)]
LASTING = ("7",)  # a tenth of the numbers
MAX_CALL_S = 6
PATIENCE_S = 60.0
NOTICED_FOR_S = (2.0, 3.0)  # duration of an outage after the relay reports it: long enough for the overflow log
UNNOTICED_FOR_S = (0.5, 3.0)  # duration of every second outage, which may end before the overflow log is used


def setup_for(transport: str) -> Setup:
    """A configuration without shedding: shed calls get a 503 without a record, and busy machines cause them."""
    more = "\n[limits]\nshed_lag_ms = 0\n"
    return Setup(transport=transport, sip={"t1_ms": 100, "max_call_s": MAX_CALL_S}, more=more)


class Kill(NamedTuple):
    """The interval in which a kill happened, time.monotonic()."""

    after_s: float
    before_s: float


class Figures(NamedTuple):
    """The figures of one run."""

    killed: int  # number of kills
    calls: int  # calls with a final answer
    answered: int
    ended_by_hanging_up: int
    ended_at_their_maximum: int
    records: int


class Crashes:
    """A started relay with bindings, and the faults that it suffers."""

    def __init__(self, relay: RelayProcess, dice: random.Random, calls_per_second: int = CALLS_PER_SECOND) -> None:
        self._relay = relay
        self._calls_per_second = calls_per_second
        self._dice = random.Random(dice.random())  # for the kills only: calls draw in no fixed order
        setup = relay.setup
        self.caller = LoadCaller(setup.caller, setup.relay, dice, lambda: numbers_of(dice), setup.transport)
        self.callee = LoadCallee(setup.callee, setup.relay, dice, setup.transport)
        self.caller.lasting = self.callee.lasting = LASTING
        self._kills: list[Kill] = []

    async def run(self, rounds: int, fault: Fault | None = None) -> Figures:
        """Kill the relay `rounds` times, and return the figures. Raises AssertionError for wrong records.

        With a `fault` of the store, each kill comes during one, which is over before the next start.
        """
        async with Load(self.caller, self.callee, self._calls_per_second) as load:
            for number in range(rounds):
                await asyncio.sleep(self._dice.uniform(0.3, 1.5))  # kills must come at random moments
                undo = await self._begin(fault, noticed=not number % 2) if fault is not None else _nothing
                await asyncio.to_thread(self._kill, undo)
            await asyncio.sleep(1)
            load.stop()
            await self._until_each_has_ended(all_answered=fault is None)
            await asyncio.to_thread(self._relay.wait_until_idle, PATIENCE_S)
        assert self._relay.verify()
        return self._check(self._relay.calls(), rounds, in_outages=fault is not None)

    async def _begin(self, fault: Fault, *, noticed: bool) -> Undo:
        """`noticed`: wait until the relay has reported the outage and records have gone to the overflow log."""
        mark = len(self._relay.log().splitlines())
        undo = fault.happens(self._relay.setup.store_in or self._relay.folder)
        if noticed:
            await asyncio.to_thread(self._relay.wait_for_event, "journal.write_failed", after=mark)
        await asyncio.sleep(self._dice.uniform(*(NOTICED_FOR_S if noticed else UNNOTICED_FOR_S)))
        return undo

    def _kill(self, undo: Undo) -> None:
        after_s = time.monotonic()
        self._relay.kill()
        self._kills.append(Kill(after_s, time.monotonic()))
        undo()
        self._relay.start()

    async def _until_each_has_ended(self, *, all_answered: bool) -> None:
        for _ in range(int(PATIENCE_S / 0.1)):
            left = self.caller.unfinished + (self.caller.unanswered if all_answered else [])
            if not left:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"calls never ended: {left[:5]} and more")

    def _check(self, records: list[dict[str, Any]], rounds: int, *, in_outages: bool) -> Figures:
        check_records(
            records,
            self.caller,
            self.callee,
            at_least=20 * rounds,
            may_be_shed=in_outages,
            all_answered=not in_outages,
        )
        hung_up = check_hanging_up(records, self.caller, self.callee, self._kills, at_least=5 * rounds)
        lasted = check_lasting(records, self.caller, self.callee)
        seen = [call for call in self.caller.calls.values() if call.final_status]
        answered = sum(call.final_status == 200 for call in seen)
        return Figures(len(self._kills), len(seen), answered, hung_up, lasted, len(records))


def _nothing() -> None: ...


def numbers_of(dice: random.Random) -> tuple[str, str]:
    """A caller and the number dialled."""
    number, a, _ = dice.choice(BINDINGS)
    return a, number


def check_records(
    records: list[dict[str, Any]],
    caller: LoadCaller,
    callee: LoadCallee | None = None,
    *,
    at_least: int,
    may_be_shed: bool = False,
    all_answered: bool = False,
) -> None:
    """Each call with a final answer seen by either side has one closed record with that status; shed calls have none.

    A call whose INVITE came to the relay once more as a new one has a record for each. After two kills a record may
    have been told twice.

    `all_answered`: every call has a final answer.
    """
    by_caller: dict[str, list[dict[str, Any]]] = defaultdict(list)
    by_callee: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        assert record["ended_at"], f"not closed: {record}"
        assert record["outcome"], f"not closed: {record}"
        by_caller[record["caller_leg_call_id"]].append(record)
        by_callee[record["callee_leg_call_id"]].append(record)
    seen = [call for call in caller.calls.values() if call.final_status]
    assert not (all_answered and caller.unanswered), f"no final answer: {caller.unanswered[:5]} and more"
    assert len(seen) > at_least, "too few calls got through to prove anything"
    assert any(call.final_status == 200 for call in seen)
    for call in seen:
        found = by_caller[call.call_id]
        if may_be_shed and call.final_status == 503 and not found:
            continue
        assert {record["sip_status"] for record in found} == set(call.finals.values()), f"{call}: {found}"
        assert len(found) <= len(call.finals), f"{call}: {found}"
    for call in callee.calls.values() if callee is not None else ():
        if call.final_status:  # the callee's answer was acknowledged
            found = by_callee[call.call_id]
            if call.bye_received and [record["end_reason"] for record in found] == ["lost_at_restart"]:
                continue  # answered, but the answer was lost and the callee was told that the call is over
            assert [record["sip_status"] for record in found] == [200], f"{call}: {found}"


def check_hanging_up(
    records: list[dict[str, Any]], caller: LoadCaller, callee: LoadCallee, kills: list[Kill], *, at_least: int
) -> int:
    """Every BYE was answered, by 481 only if a kill came between the end record and the answer. Returns the count."""
    count = 0
    for phone, leg in ((caller, "caller_leg_call_id"), (callee, "callee_leg_call_id")):
        ended = [call for call in phone.calls.values() if call.bye_answered]
        refused = [call for call in ended if call.bye_answered != 200 and not call.bye_received]
        assert len(ended) - len(refused) > at_least
        answered = _answered_by(records, leg)
        for call in refused:
            assert call.bye_answered == 481, call
            assert answered[call.call_id]["end_reason"] == "bye", call
            assert any(call.bye_sent_s < kill.before_s and kill.after_s < call.bye_answered_s for kill in kills), call
        count += len(ended)
    return count


def check_lasting(records: list[dict[str, Any]], caller: LoadCaller, callee: LoadCallee) -> int:
    """Calls that no side ended were ended by the relay at their maximum duration. Returns their number."""
    by_caller = _answered_by(records, "caller_leg_call_id")
    lasting = [call for call in caller.calls.values() if call.lasts and call.final_status == 200]
    assert lasting
    for call in lasting:
        record = by_caller[call.call_id]
        assert call.bye_received, f"{call}: {record}"
        assert record["end_reason"] == "max_duration", record
        assert record["duration_ms"] >= 1000 * MAX_CALL_S - 50, record
    for called in callee.calls.values():
        assert not (called.lasts and called.final_status) or called.bye_received, called
    return len(lasting)


def _answered_by(records: list[dict[str, Any]], leg: str) -> dict[str, dict[str, Any]]:
    return {record[leg]: record for record in records if record["sip_status"] == 200}
