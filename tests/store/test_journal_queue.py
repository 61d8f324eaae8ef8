"""What waits for a journal: in its order, in batches with a gap between them, and each told once that it is durable."""

from __future__ import annotations

import asyncio

from relay.call.actions import Commit
from relay.store.journal_queue import MAX_BATCH, SLICE_S, Acknowledgements, JournalQueue
from tests.store.conftest import Waiter
from tests.support.stored import ended_record


def filled(count: int, done: Waiter, *, min_gap_s: float = 0.0) -> JournalQueue:
    queue = JournalQueue(min_gap_s)
    for token in range(1, count + 1):
        queue.put(Commit(token, ended_record(f"c{token}"), None), done)
    return queue


async def test_batches_are_bounded_and_come_again_until_they_are_durable() -> None:
    done = Waiter()
    queue = filled(MAX_BATCH + 1, done)
    batch = await queue.batch()
    assert len(batch) == MAX_BATCH
    assert await queue.batch() == batch
    queue.took(batch)
    assert len(await queue.batch()) == 1
    await done.until(lambda: done.tokens == list(range(1, MAX_BATCH + 1)))


async def test_those_that_were_told_before_are_not_told_again() -> None:
    done = Waiter()
    queue = filled(5, done)
    queue.took(await queue.batch(), told=3)
    await done.until(lambda: bool(done.tokens))
    assert done.tokens == [4, 5]


async def test_a_batch_waits_for_the_gap_and_for_something_to_write() -> None:
    queue = JournalQueue(min_gap_s=600.0)
    assert queue.rest_s <= 0
    first = asyncio.create_task(queue.batch())
    await asyncio.sleep(0)
    assert not first.done()
    queue.put(Commit(1, ended_record(), None), None)
    queue.took(await first)
    assert 0 < queue.rest_s <= 600.0
    queue.put(Commit(2, ended_record(), None), None)
    second = asyncio.create_task(queue.batch())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not second.done()
    second.cancel()


async def test_where_a_whole_batch_waits_it_does_not_wait_for_the_gap() -> None:
    queue = filled(2 * MAX_BATCH + 1, Waiter(), min_gap_s=600.0)
    for _ in range(2):
        batch = await asyncio.wait_for(queue.batch(), 10)
        assert len(batch) == MAX_BATCH
        queue.took(batch)
    last = asyncio.create_task(queue.batch())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not last.done()
    last.cancel()


async def test_a_writer_is_woken_though_nothing_waits() -> None:
    queue = JournalQueue(0.0)
    queue.wake()
    assert await queue.batch() == []
    queue.took([])
    again = asyncio.create_task(queue.batch())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_it_is_said_when_nothing_waits_any_more() -> None:
    queue = filled(1, Waiter())
    await queue.emptied(0.0)
    assert len(queue.waiting) == 1
    emptied = asyncio.create_task(queue.emptied(600.0))
    queue.took(await queue.batch())
    await emptied


class Clock:
    """Stands still but for what is spent on it, so that a slow machine is no turn in which others were busy."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


async def test_many_are_told_in_order_and_the_loop_goes_round_in_between() -> None:
    """Else an INVITE that comes while the calls of a batch are answered waits for all of them."""
    clock = Clock()
    acknowledgements = Acknowledgements(clock)
    happened: list[str] = []

    def tell(token: int) -> None:
        happened.append(f"told {token}")
        clock.spend(SLICE_S)

    for token in range(3):
        acknowledgements.put(tell, token)
    all_told = asyncio.create_task(acknowledgements.all_told())
    while not all_told.done():
        await asyncio.sleep(0)
        happened.append("turn")
    assert [event for event in happened if event != "turn"] == ["told 0", "told 1", "told 2"]
    assert "turn" in happened[happened.index("told 0") : happened.index("told 1")]
    assert "turn" in happened[happened.index("told 1") : happened.index("told 2")]


async def test_the_longer_the_others_take_the_more_are_told_at_once() -> None:
    """Else the answers of calls that are up would wait for dozens of turns while the process is behind."""
    clock = Clock()
    acknowledgements = Acknowledgements(clock)
    told: list[int] = []

    def tell(token: int) -> None:
        told.append(token)
        clock.spend(SLICE_S)

    for token in range(100):
        acknowledgements.put(tell, token)
    turns = 0
    while len(told) < 100:
        clock.spend(20 * SLICE_S)
        await asyncio.sleep(0)
        turns += 1
    assert turns <= 20


async def test_who_fails_when_told_keeps_nobody_from_being_told() -> None:
    acknowledgements = Acknowledgements()
    told: list[int] = []
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))

    def fail(_: int) -> None:
        raise ValueError

    acknowledgements.put(fail, 1)
    acknowledgements.put(told.append, 2)
    await acknowledgements.all_told()
    assert told == [2]
    assert [type(error) for error in failed] == [ValueError]
