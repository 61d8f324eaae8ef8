"""The look-up of a call on a PostgreSQL server. `tests.service` tests its results, on both kinds of store."""

from __future__ import annotations

import asyncio
import os
import random
import signal
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
from relay.policy.call_policy import CallPolicy, OnRouted
from relay.policy.evaluate import LookupResult
from relay.policy.figures import Counts
from relay.policy.rules import FREQUENCY_NUMBER, STORE_FAILED, VERIFICATION_REFUSED, Cap, Rules
from relay.postgres_look_ups import SWEEP_EACH, PostgresLookUps
from relay.store.connection import Connection, PostgresServer
from relay.store.numbers import set_locks
from relay.store.postgres.frequency import FEW, SWEPT, Capped, counting_part, slice_ms_of
from relay.store.postgres.lookup import Asked, PostgresRouteReader
from relay.store.record_index import add_index, number_key, pair_key
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY
from relay.store.writer import Writer
from tests.net.support import until
from tests.support import postgres
from tests.support.places import new_server_store
from tests.support.stored import NOW_MS, A, B, X, Y, binding, end, put

pytestmark = pytest.mark.outside

_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
_LAST = "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def test_look_up_is_one_statement(tmp_path: Path) -> None:
    """Each further statement would double the cost on the server."""
    place, sealer = new_server_store(tmp_path)
    reader = PostgresRouteReader(place, sealer, Rules(), lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as looker:
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
        ((last,),) = looker.execute(_LAST).fetchall()
    assert last.strip().startswith("SELECT (SELECT revision FROM ledger_head")
    postgres.drop(place)


async def test_look_up_with_frequency_caps_is_one_statement(tmp_path: Path) -> None:
    """It also counts the call."""
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    caps = (Cap(3, 300), Cap(10, 86_400))
    reader = PostgresRouteReader(place, sealer, Rules(caller_caps=caps, number_caps=caps), lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as looker:
        found = await reader.fetch(X, A, NOW_MS / 1000)
        ((last,),) = looker.execute(_LAST).fetchall()
        ((granted,),) = looker.execute("SELECT count(*) FROM frequency").fetchall()
    assert isinstance(found, LookupResult) and found.counted is not None and found.counted.over is None
    assert last.strip().startswith("WITH found AS")
    assert granted == 2
    postgres.drop(place)


CAPS = (Cap(3, 300), Cap(10, 86_400))


@pytest.mark.parametrize("rules", [Rules(), Rules(caller_caps=CAPS, number_caps=CAPS), Rules(number_caps=CAPS)])
async def test_calls_looked_up_together_find_what_each_finds_alone(tmp_path: Path, rules: Rules) -> None:
    place, sealer = new_server_store(tmp_path)
    anybodys, third = "700100000010008", "700100000010009"
    put(place, sealer, binding(), ANYBODYS._replace(x=anybodys), binding("b3", x=third))
    end(place, sealer, "b3")
    now_s = NOW_MS / 1000
    asked = [
        Asked(X, A, now_s),
        Asked(anybodys, CALLERS[1], now_s),
        Asked(third, A, now_s),
        Asked("700100000019999", A, now_s),
    ]
    later = [each._replace(unix_s=now_s + 86_400 * 365) for each in (asked[1]._replace(caller=B), asked[2])]
    reader = PostgresRouteReader(place, sealer, rules, lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as counts:
        for some in (asked, later, [Asked(anybodys, B, now_s), asked[0]]):
            alone = [await reader.fetch(*each) for each in some]
            counts.execute("DELETE FROM frequency")
            together = await reader.fetch_all(some)
            counts.execute("DELETE FROM frequency")
            assert [_without_slices(found) for found in together] == [_without_slices(found) for found in alone]
            assert all(isinstance(found, LookupResult) for found in together)
    postgres.drop(place)


def _without_slices(found: LookupResult | Refusal) -> object:
    if not isinstance(found, LookupResult) or found.counted is None:
        return found
    return found._replace(counted=None), [key for key, _ in found.counted.under], found.counted.over


async def test_nodes_that_count_the_same_calls_in_another_order_wait_for_each_other(tmp_path: Path) -> None:
    """Two statements that lock the same rows in different orders would be ended by the server, as a deadlock."""
    place, sealer = new_server_store(tmp_path)
    numbers = [f"7001000000100{place:02}" for place in range(20)]
    put(place, sealer, *(binding(f"b{x}", x=x) for x in numbers))
    caps = (Cap(10_000, 300),)
    told: list[str] = []
    readers = [
        PostgresRouteReader(
            place, sealer, Rules(caller_caps=caps, number_caps=caps), lambda event, _: told.append(event)
        )
        for _ in range(2)
    ]
    for reader in readers:
        await reader.open()

    async def ask(reader: PostgresRouteReader, step: int) -> None:
        for _ in range(60):
            await reader.fetch_all([Asked(x, A, NOW_MS / 1000) for x in numbers[::step]], 60.0)

    await asyncio.gather(*(ask(reader, step) for reader, step in zip(readers, (1, -1), strict=True)))
    with closing(postgres.connect(place)) as looker:
        assert looker.execute("SELECT count(*), min(granted), max(granted) FROM frequency").fetchone() == (40, 120, 120)
    for reader in readers:
        reader.close()
    assert told == []
    postgres.drop(place)


@pytest.mark.parametrize("setting", ["default_transaction_read_only = on", "quote_all_identifiers = on"])
async def test_settings_of_the_database_stop_no_look_up(tmp_path: Path, setting: str) -> None:
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    with closing(postgres.connect(place)) as thief:
        ((name,),) = thief.execute("SELECT current_database()").fetchall()
        thief.execute(f"ALTER DATABASE {name} SET {setting}")
    reader = PostgresRouteReader(place, sealer, Rules(caller_caps=(Cap(3, 300),)), lambda *_: None)
    await reader.open()
    with closing(reader):
        await reader.look_at_store()
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
    postgres.drop(place)


async def test_a_peek_sees_the_counts_that_the_next_look_up_compares_and_counts_none(tmp_path: Path) -> None:
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    rules = Rules(caller_caps=(Cap(3, 300), Cap(4, 86_400)), number_caps=(Cap(200, 300),))
    reader = PostgresRouteReader(place, sealer, rules, lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as other:
        now_ms = int(other.execute("SELECT extract(epoch FROM now()) * 1000").fetchone()[0])
        add_index(other, [(key_of_pair(sealer, X, A), now_ms - 3_600_000, 1)])
        for granted in range(4):
            for _ in range(2):
                found, counts = await reader.peek(X, A, now_ms / 1000, rules)
                assert isinstance(found, LookupResult) and found.counted is None and found.bound is not None
                assert counts == Counts([granted, granted + 1], [granted])
            counted = await reader.fetch(X, A, now_ms / 1000)
            assert isinstance(counted, LookupResult) and counted.counted is not None
            assert (counted.counted.over is not None) == (granted >= 3)
    postgres.drop(place)


@pytest.mark.parametrize("by", [-1, 1_000_000])
async def test_revision_without_its_seal_stops_no_later_call(tmp_path: Path, by: int) -> None:
    """Anyone who can write the database can change it, and put it back at once."""
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    told: list[str] = []
    reader = PostgresRouteReader(place, sealer, Rules(), lambda _, fields: told.append(str(fields["reason"])))
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as thief:
        await reader.learn_head()
        thief.execute(f"UPDATE ledger_head SET revision = revision + {by}")
        await reader.fetch(X, A, NOW_MS / 1000)
        await reader.learn_head()
        thief.execute(f"UPDATE ledger_head SET revision = revision - {by}")
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
    assert any("the head of the ledger was altered" in reason for reason in told)
    postgres.drop(place)


async def test_store_that_was_put_back_is_not_used_again(tmp_path: Path) -> None:
    place, sealer = new_server_store(tmp_path)
    reader = PostgresRouteReader(place, sealer, Rules(), lambda *_: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as thief:
        thief.execute("CREATE TEMPORARY TABLE earlier AS SELECT * FROM ledger_head")
        put(place, sealer, binding())
        thief.execute("CREATE TEMPORARY TABLE later AS SELECT * FROM ledger_head")
        assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
        for head in ("earlier", "later"):
            thief.execute(f"UPDATE ledger_head SET (revision, sealed) = (SELECT revision, sealed FROM {head})")
            assert await reader.fetch(X, A, NOW_MS / 1000) is STORE_FAILED
    postgres.drop(place)


async def test_look_up_under_way_uses_changed_rules(tmp_path: Path) -> None:
    """Its first answer has the columns of the old rules."""
    place, sealer = new_server_store(tmp_path)
    put(place, sealer, binding())
    reader = PostgresRouteReader(place, sealer, Rules(), lambda event, fields: None)
    await reader.open()
    with closing(reader):
        asked = asyncio.create_task(reader.fetch(X, A, NOW_MS / 1000))
        await asyncio.sleep(0)  # it waits for the server now
        reader.apply_config(Rules(filing_required=True))
        found = await asked
    assert isinstance(found, LookupResult)
    assert found.bound is not None and not found.bound.filed_until
    postgres.drop(place)


async def test_frozen_connection_fails_the_look_up_and_is_replaced(tmp_path: Path) -> None:
    """asyncpg cancels the statement first, and would wait for the end of that without limit."""
    place, sealer = new_server_store(tmp_path)
    reader = PostgresRouteReader(place, sealer, Rules(), lambda event, fields: None)
    await reader.open()
    with closing(reader), closing(postgres.connect(place)) as looker:
        ((frozen,),) = looker.execute(_BACKENDS).fetchall()
        os.kill(frozen, signal.SIGSTOP)
        try:
            async with asyncio.timeout(60):
                assert await reader.fetch(X, A, NOW_MS / 1000, 0.1) is STORE_FAILED
                assert isinstance(await reader.fetch(X, A, NOW_MS / 1000), LookupResult)
        finally:
            os.kill(frozen, signal.SIGCONT)
    postgres.drop(place)


# -- Frequency caps hold exactly over all nodes of a shared store, also for concurrent calls


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
    part = counting_part(Capped("by_number", caps, FREQUENCY_NUMBER))
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
