"""The exchange of counts for limits between the nodes of a store, once a second; the leader lock of their backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from relay.defence.limits import Rates, SharedLimits, Tally
from relay.errors import StoreError
from relay.policy.call_policy import RefusedAttempts
from relay.store.connection import Connection, PostgresServer
from relay.store.postgres import nodes
from relay.store.postgres.nodes import LeaderLock, Node
from relay.store.sealing.sealer import Sealer
from tests.store.conftest import Reported
from tests.support import postgres
from tests.support.places import new_server_store
from tests.support.waiting import until

pytestmark = pytest.mark.outside

FIRM = "business firm"
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Relay:
    """A node and its counts."""

    def __init__(self, place: PostgresServer, sealer: Sealer, said: Reported) -> None:
        self.now = 0.0
        self.calls, self.rates, self.refused = Tally(), Rates(), RefusedAttempts()
        self.node = Node(place, sealer, lambda event, fields: said.append((event, fields)))
        self.limits = SharedLimits(
            {"calls": self.calls}, {"rate": (self.rates, lambda: self.now)}, self.refused, lambda: self.now
        )

    def watch(self) -> None:
        self.node.watch(lambda calls, _: None, lambda: None, self.limits)


class Store:
    def __init__(self, folder: Path) -> None:
        self.place, self.sealer = new_server_store(folder)
        self.said: Reported = []

    def report(self, event: str, fields: dict[str, object]) -> None:
        self.said.append((event, fields))

    @asynccontextmanager
    async def relays(self, *names: str) -> AsyncIterator[list[Relay]]:
        relays = [Relay(self.place._replace(node=name), self.sealer, self.said) for name in names]
        for relay in relays:
            await relay.node.open()
            relay.watch()
        try:
            yield relays
        finally:
            for relay in relays:
                await relay.node.close()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(nodes, "BEAT_S", 0.05)
    store = Store(tmp_path)
    yield store
    postgres.drop(store.place)


@pytest.fixture
def connection(store: Store) -> Iterator[Connection]:
    with closing(postgres.connect(store.place)) as connection:
        yield connection


async def test_nodes_exchange_their_counts(store: Store) -> None:
    async with store.relays("a", "b", "c") as (first, second, third):
        first.calls.begin(FIRM)
        second.calls.begin(FIRM)
        assert second.rates.admit("firm", 2, 0.0)
        await until(lambda: [relay.calls.everywhere(FIRM) for relay in (first, second, third)] == [2, 2, 2])
        await until(lambda: third.rates.elsewhere.get("firm") == (1, 1))
        first.calls.end(FIRM)
        await until(lambda: third.calls.everywhere(FIRM) == 1)
    assert store.said == []


async def test_counts_of_a_stopped_node_are_dropped(store: Store) -> None:
    async with store.relays("a", "b") as (first, second):
        first.calls.begin(FIRM)
        await until(lambda: second.calls.everywhere(FIRM) == 1)
        await first.node.close()
        await until(lambda: second.calls.everywhere(FIRM) == 0)


async def test_counts_of_a_node_are_used_until_it_is_considered_dead(store: Store, connection: Connection) -> None:
    async with store.relays("a", "b") as (first, second):
        first.calls.begin(FIRM)
        await until(lambda: second.calls.everywhere(FIRM) == 1)
        assert first.node._watching is not None
        first.node._watching.cancel()
        for seen_s, count in ((4, 1), (6, 0), (4, 1)):
            connection.execute("UPDATE node SET seen_at = now() - make_interval(secs => ?) WHERE name = 'a'", (seen_s,))
            await until(lambda count=count: second.calls.everywhere(FIRM) == count)  # type: ignore[misc]
        connection.execute("UPDATE node SET taken_by = 'b' WHERE name = 'a'")  # b counts the calls
        await until(lambda: second.calls.everywhere(FIRM) == 0)


async def test_forged_counts_lift_no_limit_and_stop_no_node(store: Store, connection: Connection) -> None:
    async with store.relays("a", "b") as (first, second):
        first.calls.begin(FIRM)
        await until(lambda: second.calls.everywhere(FIRM) == 1)
        assert first.node._watching is not None
        first.node._watching.cancel()
        good = f'{{"calls": {{"{FIRM}": 2}}, "of a later version": {{"x": 1}}}}'
        for bad in (f'{{"calls": {{"{FIRM}": -5}}}}', "[", '{"calls": 3}', f'{{"calls": {{"{FIRM}": {10**400}}}}}'):
            for written, count in ((good, 2), (bad, 0)):
                connection.execute("UPDATE node SET seen_at = now() WHERE name = 'a'")
                connection.execute("UPDATE node_count SET counts = ? WHERE node = 'a'", (written,))
                await until(lambda count=count: second.calls.everywhere(FIRM) == count)  # type: ignore[misc]
    assert [event for event, _ in store.said] == ["node.counts_altered"]


# -- The leader lock of the backends


async def test_leader_that_falls_silent_loses_the_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when its machine vanishes: nothing closes its connection."""
    monkeypatch.setattr(nodes, "SILENT", {"idle_session_timeout": "300"})
    monkeypatch.setattr(nodes, "LOOK_S", 0.05)
    silent, heir = LeaderLock(store.place, store.report), LeaderLock(store.place, store.report)
    with closing(silent), closing(heir):
        await silent.acquire()
        async with asyncio.timeout(60):
            await heir.acquire()
    assert store.said == []


async def test_lost_lock_is_taken_again_unless_another_backend_has_it(
    store: Store, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "LOOK_S", 0.05)
    checked: list[int] = []
    with closing(LeaderLock(store.place, store.report)) as lock, closing(LeaderLock(store.place, store.report)) as heir:
        await lock.acquire()
        holding = asyncio.create_task(lock.hold(lambda: checked.append(1)))
        connection.execute(_TERMINATE)
        await until(lambda: checked)
        assert not await heir._takes()
        assert not holding.done()
        monkeypatch.setattr(lock, "_takes", heir._takes)  # the next one to come back is the other
        heir_has = asyncio.create_task(heir.acquire())
        connection.execute(_TERMINATE)
        await heir_has
        monkeypatch.undo()
        with pytest.raises(StoreError, match="another backend works"):
            await asyncio.wait_for(holding, 30)


async def test_why_the_lock_cannot_be_asked_for_is_reported_once(store: Store) -> None:
    wrong = store.place._replace(url=store.place.url.replace("relay@", "stranger@"))
    with closing(LeaderLock(wrong, store.report)) as lock:
        assert [await lock._takes() for _ in range(3)] == [False] * 3
    [(event, fields)] = store.said
    assert (event, fields["reason"]) == ("leader_lock.failed", 'role "stranger" does not exist')


# -- Rows that someone else has changed


@pytest.mark.parametrize(
    "deed",
    ["UPDATE node SET epoch = epoch + 1", "DELETE FROM node", "UPDATE node SET name = 'other'"],
)
async def test_node_whose_row_was_altered_says_so_and_ends(store: Store, connection: Connection, deed: str) -> None:
    ended = asyncio.Event()
    node = Node(store.place, store.sealer, store.report)
    await node.open()
    node.watch(lambda calls, _: None, ended.set)
    connection.execute(deed)
    await ended.wait()
    await node.close()
    assert [event for event, _ in store.said] == ["node.altered"]


async def test_node_that_was_taken_over_says_nothing_of_the_kind(store: Store, connection: Connection) -> None:
    ended = asyncio.Event()
    node = Node(store.place, store.sealer, store.report)
    await node.open()
    node.watch(lambda calls, _: None, ended.set)
    connection.execute("UPDATE node SET epoch = epoch + 1, taken_by = 'b'")  # as _TAKE does
    await ended.wait()
    await node.close()
    assert store.said == []
