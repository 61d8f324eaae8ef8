"""Frequency caps hold exactly over all nodes of a shared store, also for concurrent calls."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import pytest

from relay.model.actions import LookUp
from relay.model.call import Refusal, Route
from relay.model.numbers import HELD
from relay.model.outcomes import FREQUENCY_NUMBER, VERIFICATION_REFUSED
from relay.policy.call_policy import CallPolicy, OnRouted
from relay.policy.rules import Cap, Rules
from relay.postgres_look_ups import SWEEP_EACH, PostgresLookUps
from relay.store.connection import Connection, PostgresServer
from relay.store.numbers import set_locks
from relay.store.postgres.frequency import FEW, SWEPT, CapGroup, counting_part, slice_ms_of
from relay.store.record_index import add_index, number_key, pair_key
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.net.support import until
from tests.support import postgres
from tests.support.places import new_server_store
from tests.support.stored import NOW_MS, A, B, X, Y, binding, end, put

pytestmark = pytest.mark.outside

NOW_S = NOW_MS / 1000
THRICE = (Cap(3, 300),)
CALLERS = [f"86137{number:08}" for number in range(400)]
ANYBODYS = binding("n1", mode="AXN", x=X, a=A, b=B)
_PASS = "UPDATE frequency SET begun = ARRAY(SELECT at - ? FROM unnest(begun) AS at ORDER BY at)"


class Node:
    """The look-up and the call policy of one relay."""

    def __init__(self, place: PostgresServer, sealer: Sealer, rules: Rules) -> None:
        self.look_ups = PostgresLookUps(place, sealer, rules, lambda event, fields: None)
        self.policy = CallPolicy(
            self.look_ups.fetch, rules, lambda last: None, decide=self._decide, give_back=self.look_ups.give_back
        )

    def _decide(self, asked: LookUp, answer: Route | Refusal, routed: OnRouted) -> None:
        """The hook refuses each call, later."""
        asyncio.get_running_loop().call_soon(routed, asked.token, VERIFICATION_REFUSED)

    def apply_config(self, rules: Rules) -> None:
        self.look_ups.apply_config(rules)
        self.policy.apply_config(rules)

    async def call(
        self, number: str = X, caller: str = A, *, at_s: float = NOW_S, is_refused_behind: bool = False
    ) -> str:
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        asked = LookUp(1, number, caller, "call", None)

        def found(token: int, answer: Route | Refusal) -> None:
            asked.given_up = is_refused_behind
            answered.set_result(answer.outcome if isinstance(answer, Refusal) else "granted")

        self.look_ups.look_up(self.policy, asked, at_s, found)
        return await answered


class Store(NamedTuple):
    place: PostgresServer
    sealer: Sealer
    connection: Connection

    def one(self, query: str, *values: object) -> Any:
        return self.connection.execute(query, values).fetchone()

    def keys(self) -> set[bytes]:
        return {bytes(key) for (key,) in self.connection.execute("SELECT key FROM frequency").fetchall()}

    def let_pass(self, ms: int) -> None:
        """Move all counted calls into the past, by `ms`."""
        self.connection.execute(_PASS, (ms,))

    @asynccontextmanager
    async def nodes(self, count: int = 2, **rules: Any) -> AsyncIterator[list[Node]]:
        nodes = [Node(self.place, self.sealer, Rules(**rules)) for _ in range(count)]
        for node in nodes:
            await node.look_ups.open()
        try:
            yield nodes
        finally:
            for node in nodes:
                node.look_ups.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    place, sealer = new_server_store(tmp_path)
    with closing(postgres.connect(place)) as connection:
        yield Store(place, sealer, connection)
    postgres.drop(place)


async def at_once(nodes: Sequence[Node], each: int, number: str = X, callers: Sequence[str] = (A,)) -> Counter[str]:
    """Make `each` concurrent calls on each node, by the callers in turn."""
    calls = (
        node.call(number, callers[(place * each + call) % len(callers)])
        for call in range(each)
        for place, node in enumerate(nodes)
    )
    return Counter(await asyncio.gather(*calls))


async def test_calls_to_a_number_that_is_held_from_bindings_are_counted(store: Store) -> None:
    put(store.place, store.sealer, binding())
    with closing(Writer(store.place, store.sealer)) as writer:
        writer.run(RELAY, lambda unit: set_locks(unit, X, add=HELD))
    async with store.nodes(caller_caps=THRICE) as (one, other):
        assert [await node.call() for node in (one, other, one, other)] == ["granted"] * 3 + ["frequency_caller"]


# -- exact counts


async def test_concurrent_calls_on_two_nodes_do_not_exceed_the_cap(store: Store) -> None:
    put(store.place, store.sealer, binding())
    async with store.nodes(caller_caps=THRICE) as nodes:
        assert await at_once(nodes, 25) == {"granted": 3, "frequency_caller": 47}
        assert await at_once(nodes, 3) == {"frequency_caller": 6}


async def test_concurrent_calls_of_many_callers_do_not_exceed_the_cap_of_a_number(store: Store) -> None:
    put(store.place, store.sealer, ANYBODYS)
    async with store.nodes(number_caps=(Cap(7, 300),)) as nodes:
        assert await at_once(nodes, 25, callers=CALLERS) == {"granted": 7, "frequency_number": 43}


async def test_all_caps_hold_and_those_of_the_caller_come_first(store: Store) -> None:
    put(store.place, store.sealer, ANYBODYS)
    async with store.nodes(caller_caps=(Cap(9, 10), Cap(2, 300)), number_caps=(Cap(9, 10), Cap(5, 300))) as nodes:
        assert await at_once(nodes, 10, callers=CALLERS[:1]) == {"granted": 2, "frequency_caller": 18}
        answers = await at_once(nodes, 10, callers=CALLERS[:3])
        assert answers["granted"] == 3
        assert answers["frequency_caller"] >= 7  # at least all calls of the first caller
        assert answers.total() == 20 == answers["granted"] + answers["frequency_caller"] + answers["frequency_number"]


async def test_large_cap_counted_in_slices_is_exact(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.postgres_look_ups.PATIENCE_S", 60.0)  # 260 look-ups at once may take seconds
    put(store.place, store.sealer, ANYBODYS)
    async with store.nodes(number_caps=(Cap(2 * FEW, 300),)) as nodes:
        assert await at_once(nodes, FEW + 30, callers=CALLERS) == {"granted": 2 * FEW, "frequency_number": 60}
    (slices,) = store.one("SELECT cardinality(begun) FROM frequency")
    assert slices < 20  # of 9 s each, for any number of calls


async def test_callers_and_numbers_are_counted_separately(store: Store) -> None:
    put(store.place, store.sealer, binding(), binding("b2", x=Y), binding("b3", x=X, a=CALLERS[0], b=CALLERS[1]))
    async with store.nodes(caller_caps=(Cap(1, 300),), number_caps=THRICE) as (first, second):
        assert [await first.call(), await second.call()] == ["granted", "frequency_caller"]
        assert [await second.call(caller=B), await first.call(Y)] == ["granted", "granted"]
        assert [await second.call(caller=CALLERS[0]), await first.call(caller=CALLERS[1])] == [
            "granted",
            "frequency_number",
        ]


async def test_caller_may_call_again_after_the_window(store: Store) -> None:
    put(store.place, store.sealer, binding())
    async with store.nodes(caller_caps=(Cap(1, 300), Cap(2, 600))) as (first, second):
        assert await first.call() == "granted"
        store.let_pass(200_000)
        assert await second.call() == "frequency_caller"
        store.let_pass(100_000)
        assert [await second.call(), await first.call()] == ["granted", "frequency_caller"]
        store.let_pass(200_000)
        assert await first.call() == "frequency_caller"
        store.let_pass(100_000)
        assert [await first.call(), await second.call()] == ["granted", "frequency_caller"]


async def test_caps_hold_with_wrong_clocks_of_nodes(store: Store) -> None:
    """Only the server's clock matters: a node with a wrong clock neither exceeds a cap nor blocks a caller."""
    put(store.place, store.sealer, binding())
    async with store.nodes(caller_caps=THRICE) as (first, second):
        answers = [
            await node.call(at_s=NOW_S + late_s) for node, late_s in ((first, 3_600), (second, -3_600), (second, 0))
        ]
        assert answers == ["granted"] * 3
        assert [await first.call(at_s=NOW_S + 7_200), await second.call()] == ["frequency_caller"] * 2
        store.let_pass(300_000)
        assert await second.call(at_s=NOW_S - 3_600) == "granted"


async def test_server_clock_set_back_frees_no_calls(store: Store) -> None:
    put(store.place, store.sealer, binding())
    async with store.nodes(caller_caps=THRICE) as (first, second):
        assert await first.call() == "granted"
        store.let_pass(-3_600_000)
        assert [await node.call() for node in (first, second, first)] == ["granted", "granted", "frequency_caller"]


# -- which calls are counted


async def test_call_refused_for_another_reason_is_not_counted(store: Store) -> None:
    put(store.place, store.sealer, binding(hours="08:01-22:00"))  # NOW is 08:00
    async with store.nodes(caller_caps=THRICE, number_caps=(Cap(4, 300),)) as nodes:
        assert await at_once(nodes, 10) == {"outside_hours": 20}
        await until(lambda: store.one("SELECT sum(granted), count(*) FROM frequency") == (0, 2))
        later = [await nodes[number % 2].call(at_s=NOW_S + 60) for number in range(4)]
        assert later == ["granted"] * 3 + ["frequency_caller"]


@pytest.mark.parametrize("verify", [False, True])
async def test_call_that_is_refused_behind_the_look_up_is_not_counted(store: Store, verify: bool) -> None:
    """By the engine, or by a hook."""
    put(store.place, store.sealer, binding())
    caps = {"caller_caps": THRICE, "number_caps": THRICE}
    async with store.nodes(verify=verify, **caps) as nodes:
        said = "verification_refused" if verify else "granted"
        for node in (*nodes, *nodes):
            assert await node.call(is_refused_behind=True) == said
            await until(lambda: store.one("SELECT sum(granted), count(*) FROM frequency") == (0, 2))
        for node in nodes:
            node.apply_config(Rules(**caps))  # type: ignore[arg-type]
        assert await at_once(nodes, 2) == {"granted": 3, "frequency_caller": 1}


async def test_call_without_a_binding_in_force_writes_nothing(store: Store) -> None:
    ended = binding("b3", x=Y, a=CALLERS[0], b=CALLERS[1])
    put(store.place, store.sealer, binding(), binding("b2", x=Y, expires_at=NOW_MS + 1), ended)
    end(store.place, store.sealer, "b3")
    async with store.nodes(caller_caps=THRICE, number_caps=THRICE) as (node, _):
        assert [await node.call(caller=CALLERS[2]), await node.call("700100000019999")] == [
            "no_binding",
            "number_unknown",
        ]
        assert [await node.call(Y, at_s=NOW_S + 1), await node.call(Y, CALLERS[0])] == ["expired", "no_binding"]
    assert store.one("SELECT count(*) FROM frequency") == (0,)


async def test_call_refused_by_the_cap_of_a_number_is_not_counted_for_the_caller(store: Store) -> None:
    put(store.place, store.sealer, ANYBODYS)
    async with store.nodes(caller_caps=THRICE, number_caps=(Cap(1, 300),)) as (first, second):
        assert [await first.call(caller=CALLERS[0]), await second.call(caller=CALLERS[1])] == [
            "granted",
            "frequency_number",
        ]
        key = store.sealer.lookup_hash(f"{X} {CALLERS[1]}")
        await until(lambda: store.one("SELECT granted FROM frequency WHERE key = ?", key) == (0,))


async def test_route_for_any_caller_is_counted_for_each_caller(store: Store) -> None:
    put(store.place, store.sealer, ANYBODYS)
    async with store.nodes(caller_caps=THRICE) as (first, second):
        assert [await node.call(caller=CALLERS[0]) for node in (first, second, first, second)] == ["granted"] * 3 + [
            "frequency_caller"
        ]
        assert [await node.call(caller=A) for node in (first, second, first, second)] == ["granted"] * 3 + [
            "frequency_caller"
        ]


async def test_counts_survive_a_restart(store: Store) -> None:
    put(store.place, store.sealer, binding())
    async with store.nodes(1, caller_caps=THRICE) as (node,):
        assert [await node.call() for _ in range(2)] == ["granted"] * 2
    async with store.nodes(1, caller_caps=THRICE) as (node,):
        assert [await node.call() for _ in range(2)] == ["granted", "frequency_caller"]


async def test_long_windows_add_the_calls_in_the_index(store: Store) -> None:
    """The index may lack recent calls, so within the memory's time only the counts of the server are used."""
    put(store.place, store.sealer, ANYBODYS)
    ago_ms = {"beyond": 86_401_000, "within": 3_600_000, "of late": 60_000}
    for record, (key, ago) in enumerate(
        (key, ago)
        for key in (key_of_pair(store.sealer, X, CALLERS[0]), number_key(store.sealer, X))
        for ago in ago_ms.values()
    ):
        add_index(store.connection, [(key, NOW_MS - ago, record)])
    caps = {"caller_caps": (Cap(9, 300), Cap(3, 86_400)), "number_caps": (Cap(9, 300), Cap(4, 43_200))}
    async with store.nodes(**caps) as nodes:
        assert await at_once(nodes, 5, callers=CALLERS[:1]) == {"granted": 2, "frequency_caller": 8}
        assert await at_once(nodes, 5, callers=CALLERS[1:]) == {"granted": 1, "frequency_number": 9}
    async with store.nodes(caller_caps=(Cap(1, 86_400),)) as nodes:
        assert await at_once(nodes, 1, callers=CALLERS[:1]) == {"frequency_caller": 2}


async def test_duplicate_caps_act_as_one(store: Store) -> None:
    put(store.place, store.sealer, binding())
    caps = (*THRICE, *THRICE, Cap(9, 86_400), Cap(9, 86_400))
    async with store.nodes(caller_caps=caps, number_caps=(*THRICE, *THRICE)) as nodes:
        assert await at_once(nodes, 2) == {"granted": 3, "frequency_caller": 1}


async def test_changed_caps_apply_to_the_next_call_and_keep_the_counts(store: Store) -> None:
    put(store.place, store.sealer, ANYBODYS)
    async with store.nodes(number_caps=(Cap(2 * FEW, 300),)) as nodes:
        assert await at_once(nodes, 3, callers=CALLERS) == {"granted": 6}
        for node in nodes:
            node.apply_config(Rules(number_caps=(Cap(8, 300),)))
        assert await at_once(nodes, 3, callers=CALLERS) == {"granted": 2, "frequency_number": 4}
        for node in nodes:
            node.apply_config(Rules())
        assert await at_once(nodes, 3, callers=CALLERS) == {"granted": 6}


# -- the rows


async def test_expired_rows_are_deleted(store: Store) -> None:
    put(store.place, store.sealer, binding(), binding("b2", x=Y))
    async with store.nodes(caller_caps=THRICE, number_caps=THRICE) as (node, _):
        assert await node.call() == "granted"
        store.let_pass(1_801_000)
        assert await node.call(Y) == "granted"
        for _ in range(SWEPT * SWEEP_EACH):
            node.look_ups.look()
        kept = {store.sealer.lookup_hash(f"{Y} {A}"), store.sealer.lookup_hash(Y)}
        await until(lambda: store.keys() == kept)


def key_of_pair(sealer: Sealer, number: str, caller: str) -> int:
    return pair_key(number_key(sealer, number), sealer.lookup_hash(caller))


async def grants(place: PostgresServer, caps: Sequence[Cap], times: Sequence[int]) -> list[bool]:
    """Count calls at these times, in order, in one row. Return which were granted."""
    part = counting_part(CapGroup("by_number", caps, FREQUENCY_NUMBER))
    given = "SELECT CAST($1 AS bigint) AS at, $2::bytea AS by_number_key"
    statement = f"WITH candidate AS ({given}), {part} SELECT slice FROM by_number"
    connection = await asyncpg.connect(place.url)
    try:
        return [await connection.fetchval(statement, at, b"\x01key") is not None for at in times]
    finally:
        await connection.close()


SEVERAL = ((Cap(1, 5),), (Cap(3, 10), Cap(5, 60)), (Cap(FEW, 20),), (Cap(FEW + 1, 20),), (Cap(5, 4), Cap(150, 300)))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("caps", SEVERAL)
async def test_row_grants_exactly_the_calls_that_its_caps_allow(store: Store, caps: tuple[Cap, ...], seed: int) -> None:
    """Compared with the plain definition. With slices, a call counts until its whole slice has left the window."""
    chance = random.Random(seed)
    times, at = [], NOW_MS
    for place in range(400):
        at += chance.choice((0, 1, 7, 40, 300)) if place % 130 else 20_000
        times.append(at - chance.choice((0, 0, 0, 3)))  # two calls that wait for a row may get it in reverse order
    granted: list[int] = []
    for at, is_granted in zip(times, await grants(store.place, caps, times), strict=True):
        longer_ms = 0 if is_granted else slice_ms_of(caps) + 3
        counts = [sum(before > at - 1000 * cap.window_s - longer_ms for before in granted) for cap in caps]
        assert is_granted == all(count < cap.most for count, cap in zip(counts, caps, strict=True))
        if is_granted:
            granted.append(at)
    assert len(granted) < len(times)
