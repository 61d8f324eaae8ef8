"""Asynchronous look-ups: limited concurrency, fairness between peers, and always an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from relay.model.actions import LookUp
from relay.model.call import Refusal, Route
from relay.model.outcomes import STORE_FAILED
from relay.model.settings import Peer
from relay.policy.call_policy import CallPolicy, OnRouted
from relay.policy.rules import Rules
from relay.postgres_look_ups import MOST_TOGETHER, MOST_WAITING, PostgresLookUps
from relay.store.connection import PostgresServer
from relay.store.postgres.lookup import CONNECTIONS, LookupRequest
from relay.store.sealing.sealer import Sealer
from tests.net.support import until
from tests.support.stored import X, Y

PEERS = {name: Peer(name, (), tcp_allowed=False, sources=()) for name in ("flooder", "other", "peer")}
FOUND = Refusal("no_binding", 403, 21)


class Store:
    """A store that answers one statement per `answer`."""

    def __init__(self) -> None:
        self.counts = True
        self.together: list[list[str]] = []  # callers of each statement
        self._may_answer = asyncio.Semaphore(0)

    @property
    def asked(self) -> list[str]:
        return [caller for callers in self.together for caller in callers]

    async def fetch_all(self, asked: Sequence[LookupRequest], patience_s: float) -> list[str]:
        callers = [each.caller for each in asked]
        self.together.append(callers)
        await self._may_answer.acquire()
        if "broken" in callers:
            raise ZeroDivisionError
        return callers

    def answer(self, count: int) -> None:
        for _ in range(count):
            self._may_answer.release()


class AnyGate:
    def refuse_unasked(self, number: str, caller: str, unix_s: float, peer: Peer | None) -> None:
        return None

    def answer(self, row: str | Refusal, asked: LookUp, unix_s: float) -> Refusal:
        if isinstance(row, Refusal):
            return row
        if row == "no policy":
            raise ZeroDivisionError
        return FOUND

    def pass_on(self, asked: LookUp, answer: Route | Refusal, unix_s: float, routed: OnRouted) -> None:
        routed(asked.token, answer)


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store = Store()
        self.look_ups = PostgresLookUps(
            PostgresServer("postgresql://nobody@localhost/none", "node", folder),
            Sealer(bytes(32)),
            Rules(),
            lambda event, fields: None,
        )
        self.look_ups._reader = cast(Any, self.store)
        self.answers: list[tuple[str, Route | Refusal]] = []

    def ask(self, peer: str, caller: str = "", number: str = X) -> None:
        asked = LookUp(1, number, caller or peer, "call", PEERS[peer])
        self.look_ups.look_up(
            cast(CallPolicy, AnyGate()), asked, 1.0, lambda _, answer: self.answers.append((asked.caller, answer))
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_look_ups_run_on_all_connections_and_peers_take_turns(bench: Bench) -> None:
    for _ in range(100):
        bench.ask("flooder")
    bench.ask("other")
    await until(lambda: len(bench.store.asked) == CONNECTIONS)
    bench.store.answer(2)
    await until(lambda: len(bench.store.asked) == CONNECTIONS + 2)
    assert "other" in bench.store.asked
    bench.store.answer(200)
    await until(lambda: len(bench.answers) == 101)
    assert {answer for _, answer in bench.answers} == {FOUND}


async def test_a_peer_can_fill_only_its_fair_share_of_the_queue(bench: Bench) -> None:
    for _ in range(2 * MOST_WAITING):
        bench.ask("flooder")
    bench.ask("other")
    await until(lambda: len(bench.answers) > 0)
    assert set(bench.answers) == {("flooder", STORE_FAILED)}
    refused = len(bench.answers)
    assert refused == 2 * MOST_WAITING - 7 * (MOST_WAITING + 1) // 8
    bench.store.answer(2 * MOST_WAITING)
    await until(lambda: len(bench.answers) == 2 * MOST_WAITING + 1)
    assert ("other", FOUND) in bench.answers


async def test_a_failing_look_up_is_refused_and_the_others_go_on(bench: Bench) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    for number in range(3 * CONNECTIONS):
        bench.ask("peer", "broken" if number < CONNECTIONS else "")
    bench.store.answer(3 * CONNECTIONS)
    await until(lambda: len(bench.answers) == 3 * CONNECTIONS)
    assert bench.answers.count(("broken", STORE_FAILED)) == CONNECTIONS


async def test_look_ups_resume_after_the_queue_was_empty(bench: Bench) -> None:
    for count in range(1, 4):
        bench.ask("peer")
        bench.store.answer(1)
        await until(lambda count=count: len(bench.answers) == count)  # type: ignore[misc]


async def test_those_that_wait_are_looked_up_together(bench: Bench) -> None:
    bench.store.counts = False
    for number in range(MOST_TOGETHER + 2):
        bench.ask("peer", str(number))
    await until(lambda: len(bench.store.asked) == MOST_TOGETHER + 2)
    assert [len(callers) for callers in bench.store.together] == [MOST_TOGETHER, 2]
    bench.store.answer(2)
    await until(lambda: len(bench.answers) == MOST_TOGETHER + 2)


async def test_a_statement_that_counts_has_each_number_once(bench: Bench) -> None:
    """It cannot change a row twice."""
    for caller, number in (("1", X), ("2", Y), ("3", X), ("4", Y)):
        bench.ask("peer", caller, number)
    await until(lambda: len(bench.store.asked) == 4)
    assert bench.store.together == [["1", "2"], ["3", "4"]]
    bench.store.answer(2)
    await until(lambda: len(bench.answers) == 4)


async def test_a_call_that_cannot_be_answered_is_refused_alone(bench: Bench) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    bench.store.counts = False
    for caller in ("1", "no policy", "2"):
        bench.ask("peer", caller)
    bench.store.answer(1)
    await until(lambda: len(bench.answers) == 3)
    assert bench.answers == [("1", FOUND), ("no policy", STORE_FAILED), ("2", FOUND)]
