"""Units of work of several nodes on one server: beside each other, and each as if it were alone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from relay.errors import Refused
from relay.model.binding import Binding
from relay.service import bindings
from relay.service.groups import add_members, make_group
from relay.service.numbers import new_prefix
from relay.service.placement import release_due
from relay.store.audit import verify_audit
from relay.store.bindings import find_binding
from relay.store.connection import BEGIN_BESIDE, PostgresServer
from relay.store.database import connect, connect_reader, one_moment
from relay.store.groups import member_hashes
from relay.store.keys import find_answer, keep_answer
from relay.store.ledger_check import ledger_faults
from relay.store.postgres.connection import HEADS_LOCK, ROW_MS
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import RELAY, UnitOfWork, operator_cli
from relay.store.writer import GroupWriter
from tests.service.conftest import RULES
from tests.support.places import new_server_store
from tests.support.stored import PREFIX, A, B, X, Y
from tests.support.waiting import until
from tests.support.written import bind, written

pytestmark = pytest.mark.outside

PATIENCE_S = 20.0
OPERATOR = operator_cli()
MOST = 60  # bindings of each node


class Nodes:
    """The writers of two nodes on one server."""

    def __init__(self, folder: Path) -> None:
        self.place: PostgresServer
        self.sealer: Sealer
        self.place, self.sealer = new_server_store(folder, new_prefix(PREFIX))
        self.first, self.second = GroupWriter(self.place, self.sealer), GroupWriter(self.place, self.sealer)

    async def close(self) -> None:
        """Everything holds together afterwards."""
        await self.first.close()
        await self.second.close()
        with closing(connect_reader(self.place)) as reader, one_moment(reader):
            assert list(ledger_faults(reader, self.sealer)) == []
            assert verify_audit(reader, self.sealer).broken is None
            counted = reader.execute("SELECT live FROM business_count WHERE business = 'default'").fetchone()
            assert (counted or (0,)) == reader.execute(
                "SELECT count(*) FROM binding WHERE released_at IS NULL"
            ).fetchone()
            double = "SELECT number FROM route WHERE free_at IS NULL GROUP BY number, caller_hash HAVING count(*) > 1"
            assert reader.execute(double).fetchall() == []

    def binding(self, binding_id: str) -> Binding | None:
        with closing(connect_reader(self.place)) as reader:
            return find_binding(reader, self.sealer, binding_id)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    made = Nodes(tmp_path)
    async with asyncio.timeout(PATIENCE_S * 4):
        yield made
        await made.close()


class Held:
    """A unit of work that has done its part, and does not end before it is let go."""

    def __init__(self, writer: GroupWriter, do: partial[object]) -> None:
        self._entered, self._leave = threading.Event(), threading.Event()
        self._do = do
        self.done = asyncio.ensure_future(writer.run(OPERATOR, self._run))

    def _run(self, unit: UnitOfWork) -> object:
        found = self._do(unit)
        self._entered.set()
        assert self._leave.wait(PATIENCE_S)
        return found

    async def entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, PATIENCE_S)

    async def end(self) -> object:
        self._leave.set()
        return await self.done


def one(n: int, **more: str) -> partial[Binding]:
    return partial(bind, asked=written("AXB", f"138{n:08d}", f"139{n:08d}", **more), rules=RULES)


async def test_a_unit_of_work_does_not_wait_for_another_node_s(nodes: Nodes) -> None:
    held = Held(nodes.first, one(1))
    await held.entered()
    second = await nodes.second.run(OPERATOR, one(2))
    first = await held.end()
    assert isinstance(first, Binding)
    assert first.x != second.x  # each has a number, none of them the other's
    assert nodes.binding(first.binding_id) == first
    assert nodes.binding(second.binding_id) == second


async def test_many_bindings_are_made_and_ended_on_both_nodes_at_once(nodes: Nodes) -> None:
    async def pair(writer: GroupWriter, n: int) -> None:
        made = await writer.run(OPERATOR, one(n))
        if n % 2:
            await writer.run(OPERATOR, lambda unit: bindings.end(unit, made.binding_id, RULES, "delivered"))

    await asyncio.gather(
        *(pair(nodes.first, n) for n in range(MOST)), *(pair(nodes.second, n) for n in range(MOST, 2 * MOST))
    )
    with closing(connect_reader(nodes.place)) as reader:
        assert reader.execute("SELECT count(*) FROM binding").fetchone() == (2 * MOST,)


async def test_units_of_work_wait_for_the_heads_longer_than_for_a_row(nodes: Nodes) -> None:
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with closing(connect(nodes.place)) as holder:
        holder.execute("SELECT pg_advisory_lock(?)", (HEADS_LOCK,))
        made = asyncio.gather(nodes.first.run(OPERATOR, one(1)), nodes.second.run(OPERATOR, one(2)))
        await until(lambda: holder.execute(waiting).fetchone() == (2,))
        holder.execute("SELECT CAST(pg_sleep(?) AS text)", (2 * ROW_MS[1] / 1000,))
        holder.execute("SELECT pg_advisory_unlock(?)", (HEADS_LOCK,))
        assert len({binding.x for binding in await made}) == 2


def test_transactions_wait_for_a_row_for_different_times(nodes: Nodes) -> None:
    """Else two that hold what the other wants would give up together, again and again."""
    waits = set()
    with closing(connect(nodes.place)) as connection:
        for _ in range(10):
            connection.execute(BEGIN_BESIDE)
            waits.add(connection.execute("SELECT current_setting('lock_timeout')").fetchone())
            connection.execute("ROLLBACK")
    assert len(waits) > 1


async def test_numbers_that_two_nodes_take_in_opposite_order_end_in_two_bindings(nodes: Nodes) -> None:
    """Each has locked what the other wants: one of them is undone, and tried again."""
    met = threading.Barrier(2, timeout=PATIENCE_S)
    tries: list[str] = []

    def take_both(unit: UnitOfWork, first: str, second: str, n: int) -> list[Binding]:
        made = [one(n, x=first)(unit)]
        tries.append(first)
        if len(tries) <= 2:
            met.wait()
        return [*made, one(n + 1, x=second)(unit)]

    await asyncio.gather(
        nodes.first.run(OPERATOR, partial(take_both, first=X, second=Y, n=1)),
        nodes.second.run(OPERATOR, partial(take_both, first=Y, second=X, n=3)),
    )
    assert len(tries) > 2
    with closing(connect_reader(nodes.place)) as reader:
        assert reader.execute("SELECT bindings FROM number WHERE number IN (?, ?)", (X, Y)).fetchall() == [(2,), (2,)]


async def test_expired_bindings_are_released_by_one_node(nodes: Nodes) -> None:
    await nodes.first.run(OPERATOR, one(1, expires_in="60s"))

    def sweep(unit: UnitOfWork) -> int:
        return release_due(unit._replace(now_ms=unit.now_ms + 120_000), RULES)

    held = Held(nodes.first, partial(sweep))
    await held.entered()
    assert await nodes.second.run(RELAY, sweep) == 0
    assert await held.end() == 1
    assert await nodes.second.run(RELAY, sweep) == 0


async def test_the_same_request_on_two_nodes_at_once_is_done_once(nodes: Nodes) -> None:
    def once(unit: UnitOfWork, n: int) -> str:
        if kept := find_answer(unit, "key:k1", "order-17", b"fingerprint"):
            return kept.body.decode()
        made = one(n)(unit)
        keep_answer(unit, "key:k1", "order-17", b"fingerprint", 201, made.binding_id.encode())
        return made.binding_id

    held = Held(nodes.first, partial(once, n=1))
    await held.entered()
    second = asyncio.ensure_future(nodes.second.run(OPERATOR, partial(once, n=1)))
    first = await held.end()
    try:
        assert await second == first
    except Refused as refused:
        assert refused.kind == "store_busy"
        assert await nodes.second.run(OPERATOR, partial(once, n=1)) == first
    with closing(connect_reader(nodes.place)) as reader:
        assert reader.execute("SELECT count(*) FROM binding").fetchone() == (1,)


async def test_a_member_who_joins_while_a_binding_is_made_has_a_route(nodes: Nodes) -> None:
    group = await nodes.first.run(OPERATOR, lambda unit: make_group(unit, "riders", RULES, numbers=[A]))
    held = Held(
        nodes.first,
        partial(bind, asked=written("GXB", "", B, group_id=group.group_id), rules=RULES),
    )
    await held.entered()
    joins = asyncio.ensure_future(
        nodes.second.run(OPERATOR, lambda unit: add_members(unit, group.group_id, ["13700000003"], RULES))
    )
    made = await held.end()
    assert isinstance(made, Binding)
    await joins
    with closing(connect_reader(nodes.place)) as reader:
        members = set(member_hashes(reader, nodes.sealer, group.group_id))
        routes = reader.execute("SELECT caller_hash FROM route WHERE number = ?", (made.x,)).fetchall()
    assert len(members) == 2
    assert members < {caller_hash for (caller_hash,) in routes}


async def test_limits_hold_over_units_of_work_of_one_transaction(nodes: Nodes) -> None:
    rules = RULES._replace(max_bindings=1)
    answers = await asyncio.gather(
        *(
            nodes.first.run(OPERATOR, partial(bind, asked=written("AXB", f"138{n:08d}", B, x=X), rules=rules))
            for n in range(20)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Binding) for answer in answers) == 1
    assert {answer.kind for answer in answers if isinstance(answer, Refused)} == {"number_full"}
