"""Units of work in transactions: alone, in groups, and beside other writers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import pytest

from relay.errors import Refused, StoreError
from relay.store import writer as writer_module
from relay.store.connection import TRY_S
from relay.store.database import connect, connect_reader
from relay.store.unit_of_work import RELAY, Actor, UnitOfWork
from relay.store.writer import GAP_S, MOST_UNITS, GroupWriter, Writer
from tests.store.conftest import Disk
from tests.support.stored import NOW_MS

ADD = "INSERT INTO cursor VALUES (?, 0)"


def add(name: str) -> Callable[[UnitOfWork], str]:
    """A unit of work that adds a row with this name."""

    def do(unit: UnitOfWork) -> str:
        unit.connection.execute(ADD, (name,))
        return name

    return do


def add_and_fail(name: str, error: Exception) -> Callable[[UnitOfWork], str]:
    def do(unit: UnitOfWork) -> str:
        unit.connection.execute(ADD, (name,))
        raise error

    return do


def names(disk: Disk) -> set[str]:
    """The durable rows."""
    with closing(connect_reader(disk.path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM cursor")}


@pytest.fixture
def alone(disk: Disk) -> Iterator[Writer]:
    with closing(Writer(disk.path, disk.sealer, clock_ms=lambda: NOW_MS)) as writer:
        yield writer


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lift the time limit, so that a busy machine does not split a group."""
    monkeypatch.setattr(writer_module, "LONGEST_S", 20.0)


@asynccontextmanager
async def grouping(disk: Disk) -> AsyncIterator[GroupWriter]:
    writer = GroupWriter(disk.path, disk.sealer, clock_ms=lambda: NOW_MS)
    try:
        yield writer
    finally:
        await writer.close()


class LongUnit:
    """A unit of work that lasts until it is released, so that others queue behind it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.leave = threading.Event()

    def __call__(self, unit: UnitOfWork) -> None:
        self.entered.set()
        assert self.leave.wait(20)

    async def behind(self, writer: GroupWriter, *units: Callable[[UnitOfWork], object]) -> list[object]:
        """The results, or exceptions, of the relay's units of work that queued behind this one."""
        return await self.behind_by(writer, *((RELAY, unit) for unit in units))

    async def behind_by(
        self, writer: GroupWriter, *units: tuple[Actor, Callable[[UnitOfWork], object]]
    ) -> list[object]:
        """The same of several actors."""
        first = asyncio.ensure_future(writer.run(RELAY, self))
        await asyncio.to_thread(self.entered.wait, 20)
        waiting = [asyncio.ensure_future(writer.run(*each)) for each in units]
        await asyncio.sleep(0)  # now each is in the queue
        self.leave.set()
        await first
        return await asyncio.gather(*waiting, return_exceptions=True)


# -- one unit of work per transaction


def test_unit_of_work_is_durable_when_it_returns(disk: Disk, alone: Writer) -> None:
    assert alone.run(RELAY, add("a")) == "a"
    assert names(disk) == {"a"}
    assert alone.run(RELAY, lambda unit: (unit.actor, unit.now_ms)) == (RELAY, NOW_MS)


@pytest.mark.parametrize("error", [Refused("conflict", "a", "taken"), ZeroDivisionError()])
def test_failed_unit_of_work_leaves_nothing(disk: Disk, alone: Writer, error: Exception) -> None:
    with pytest.raises(type(error)):
        alone.run(RELAY, add_and_fail("a", error))
    assert alone.run(RELAY, add("b")) == "b"
    assert names(disk) == {"b"}


def test_errors_of_the_store_are_store_errors(alone: Writer) -> None:
    alone.run(RELAY, add("a"))
    with pytest.raises(StoreError, match="UNIQUE"):
        alone.run(RELAY, add("a"))


class Clock:
    """In place of the module `time`."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now_s += seconds


def test_gap_is_twice_what_the_transaction_took_and_at_most_three_tries_of_another_writer(
    alone: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(writer_module, "time", clock)

    def take(seconds: float) -> None:
        alone.run(RELAY, lambda _: setattr(clock, "now_s", clock.now_s + seconds))

    take(0.001)
    take(0.04)
    take(0)
    assert clock.slept == [0.002, GAP_S]
    assert GAP_S >= 3 * TRY_S


def test_wait_for_another_writer_makes_no_gap(alone: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(writer_module, "time", clock)
    begin = writer_module.ledger_transaction

    @contextmanager
    def wait_and_begin(*args: Any) -> Iterator[None]:
        clock.now_s += 0.5
        with begin(*args):
            yield

    monkeypatch.setattr(writer_module, "ledger_transaction", wait_and_begin)
    alone.run(RELAY, lambda _: None)
    alone.run(RELAY, lambda _: None)
    assert clock.slept == []


# -- groups


async def test_queued_units_of_work_share_one_transaction(disk: Disk) -> None:
    seen: list[set[str]] = []

    def do(unit: UnitOfWork) -> None:
        unit.connection.execute(ADD, (str(len(seen)),))
        seen.append(names(disk))

    async with grouping(disk) as writer:
        await LongUnit().behind(writer, *[do] * 20)
    assert seen == [set()] * 20  # nothing was durable before the last of them had run
    assert len(names(disk)) == 20


async def test_failed_unit_of_work_is_rolled_back_alone(disk: Disk) -> None:
    refused, fault = Refused("conflict", "a", "taken"), ZeroDivisionError()
    async with grouping(disk) as writer:
        answers = await LongUnit().behind(
            writer, add("a"), add_and_fail("b", refused), add("c"), add_and_fail("d", fault), add("a"), add("e")
        )
    *others, again, last = answers
    assert (others, last) == (["a", refused, "c", fault], "e")
    assert isinstance(again, StoreError)
    assert names(disk) == {"a", "c", "e"}


async def test_failed_commit_fails_its_whole_group_only(disk: Disk) -> None:
    def break_commit(unit: UnitOfWork) -> None:
        unit.connection.execute("PRAGMA defer_foreign_keys = ON")
        unit.connection.execute(
            "INSERT INTO binding (id, mode, business, pool, x, sealed, created_at, created_by) "
            "VALUES ('b', 'AXB', 'nobody', '', '', x'', 0, '')"
        )

    async with grouping(disk) as writer:
        answers = await LongUnit().behind(writer, add("a"), break_commit, add("b"))
        assert [type(answer) for answer in answers] == [StoreError] * 3
        assert names(disk) == set()
        assert await writer.run(RELAY, add("c")) == "c"


async def test_rollback_inside_a_unit_of_work_fails_those_before_it(disk: Disk) -> None:
    def roll_back(unit: UnitOfWork) -> None:
        unit.connection.execute("ROLLBACK")  # as SQLite does on a full disk
        raise ZeroDivisionError

    async with grouping(disk) as writer:
        *failed, later = await LongUnit().behind(writer, add("a"), roll_back, add("b"))
    assert [type(answer) for answer in failed] == [StoreError] * 2
    assert later == "b"
    assert names(disk) == {"b"}


async def test_failed_savepoint_fails_its_unit_of_work_and_those_before_it(disk: Disk) -> None:
    def lose_savepoint(unit: UnitOfWork) -> None:
        unit.connection.execute("RELEASE unit")

    async with grouping(disk) as writer, asyncio.timeout(20):
        *failed, later = await LongUnit().behind(writer, add("a"), lose_savepoint, add("b"))
    assert [type(answer) for answer in failed] == [StoreError] * 2
    assert later == "b"
    assert names(disk) == {"b"}


async def test_locked_store_fails_the_queue_and_later_writes_succeed(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.store.database.BUSY_TIMEOUT_S", 0.05)
    async with grouping(disk) as writer:
        with closing(connect(disk.path)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await writer.run(RELAY, add("a"))
            holder.execute("ROLLBACK")
        assert await writer.run(RELAY, add("b")) == "b"


async def test_store_that_goes_in_the_first_transaction_fails_it_and_later_writes_succeed(disk: Disk) -> None:
    away = disk.path.with_name("away")

    def lose_store(_: UnitOfWork) -> None:
        disk.path.rename(away)

    async with grouping(disk) as writer, asyncio.timeout(20):
        with pytest.raises(StoreError, match="was moved away or deleted"):
            await writer.run(RELAY, lose_store)
        with pytest.raises(StoreError, match="unable to open"):
            await writer.run(RELAY, add("a"))
        away.rename(disk.path)
        assert await writer.run(RELAY, add("b")) == "b"
    assert names(disk) == {"b"}


async def test_group_is_bounded_in_number_and_time(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []

    def do(_: UnitOfWork) -> None:
        groups.append(len(names(disk)))

    def work(_: UnitOfWork) -> None:
        until_s = time.monotonic() + 0.001
        while time.monotonic() < until_s:
            pass

    async with grouping(disk) as writer:
        await LongUnit().behind(writer, *[add(str(n)) for n in range(MOST_UNITS)], do)
        assert groups == [MOST_UNITS]  # the earlier ones were durable already
        monkeypatch.setattr(writer_module, "LONGEST_S", 0.001)
        await LongUnit().behind(writer, add("long"), work, do)
    assert groups == [MOST_UNITS, MOST_UNITS + 1]


async def test_group_has_at_least_one_unit_of_work(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread may be descheduled for that long."""
    monkeypatch.setattr(writer_module, "LONGEST_S", 0.0)
    async with grouping(disk) as writer, asyncio.timeout(20):
        assert await asyncio.gather(*[writer.run(RELAY, add(name)) for name in "abc"]) == ["a", "b", "c"]
    assert names(disk) == {"a", "b", "c"}


async def test_business_users_and_the_relay_have_turns(disk: Disk) -> None:
    order: list[str] = []

    def by(name: str, business: str | None) -> tuple[Actor, Callable[[UnitOfWork], None]]:
        return Actor(name, business, frozenset()), lambda _: order.append(business or name)

    asked = [by("key:1", "shop"), by("key:2", "shop"), by("key:1", "shop"), by("key:3", "other"), by("relay", None)]
    async with grouping(disk) as writer:
        await LongUnit().behind_by(writer, *asked)
    assert order == ["shop", "other", "relay", "shop", "shop"]


@pytest.mark.parametrize("business", ["shop", "relay"])
async def test_queue_that_one_has_filled_takes_others(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, business: str
) -> None:
    monkeypatch.setattr(writer_module, "MOST_WAITING", 8)
    actors = [Actor("key:1", business, frozenset())] * 9 + [RELAY]
    async with grouping(disk) as writer:
        *made, of_relay = await LongUnit().behind_by(writer, *((one, add(str(n))) for n, one in enumerate(actors)))
    assert [isinstance(one, Refused) for one in made] == [False] * 7 + [True] * 2
    assert of_relay == "9"


async def test_full_queue_refuses_at_once(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MOST_WAITING", 2)
    async with grouping(disk) as writer:
        *good, beyond = await LongUnit().behind(writer, add("a"), add("b"), add("c"))
    assert good == ["a", "b"]
    assert isinstance(beyond, Refused) and beyond.kind == "store_busy"


async def test_unit_of_work_runs_even_if_its_await_is_cancelled(disk: Disk) -> None:
    long = LongUnit()
    async with grouping(disk) as writer:
        first = asyncio.ensure_future(writer.run(RELAY, long))
        await asyncio.to_thread(long.entered.wait, 20)
        left = asyncio.ensure_future(writer.run(RELAY, add("a")))
        await asyncio.sleep(0)
        left.cancel()
        long.leave.set()
        await first
        assert await writer.run(RELAY, add("b")) == "b"
    assert names(disk) == {"a", "b"}


async def test_close_runs_the_queue_and_refuses_more(disk: Disk) -> None:
    writer = GroupWriter(disk.path, disk.sealer)
    waiting = [asyncio.ensure_future(writer.run(RELAY, add(str(n)))) for n in range(300)]
    await asyncio.sleep(0)
    await writer.close()
    assert len(await asyncio.gather(*waiting)) == len(names(disk)) == 300
    with pytest.raises(StoreError, match="closed"):
        await writer.run(RELAY, add("late"))


async def test_death_of_the_thread_is_raised(disk: Disk) -> None:
    class Bug(BaseException):
        """A bug: not a subclass of Exception."""

    def do(_: UnitOfWork) -> None:
        raise Bug

    async with grouping(disk) as writer:
        forever = asyncio.ensure_future(writer.run(RELAY, do))
        with pytest.raises(Bug):
            await asyncio.wait_for(writer.ended(), 20)
        forever.cancel()


async def test_thread_has_ended_after_close(disk: Disk) -> None:
    async with grouping(disk) as writer:
        left, ended = asyncio.ensure_future(writer.ended()), asyncio.ensure_future(writer.ended())
        await writer.run(RELAY, add("a"))
        left.cancel()
        assert not ended.done()
    assert await ended is None


async def test_concurrent_writers_lose_nothing(disk: Disk) -> None:
    def run_alone(own: str) -> None:
        with closing(Writer(disk.path, disk.sealer)) as writer:
            for n in range(20):
                writer.run(RELAY, add(f"{own}{n}"))

    async with grouping(disk) as writer:
        grouped = [writer.run(RELAY, add(f"g{n}")) for n in range(200)]
        await asyncio.gather(asyncio.to_thread(run_alone, "a"), asyncio.to_thread(run_alone, "b"), *grouped)
    assert len(names(disk)) == 240
