"""The queue of a journal: order, batches with a gap between them, one acknowledgement each."""

from __future__ import annotations

import asyncio

from relay.model.actions import Commit
from relay.store.journal.queue import BEHIND_SLICE_S, MAX_BATCH, SLICE_S, Acknowledgements, JournalQueue
from tests.store.conftest import Waiter
from tests.support.stored import ended_record


def filled(count: int, done: Waiter, *, min_gap_s: float = 0.0) -> JournalQueue:
    queue = JournalQueue(min_gap_s)
    for token in range(1, count + 1):
        queue.put(Commit(token, ended_record(f"c{token}"), None), done)
    return queue


async def test_batches_are_bounded_and_repeated_until_taken() -> None:
    done = Waiter()
    queue = filled(MAX_BATCH + 1, done)
    batch = await queue.batch()
    assert len(batch) == MAX_BATCH
    assert await queue.batch() == batch
    queue.took(batch)
    assert len(await queue.batch()) == 1
    await done.until(lambda: done.tokens == list(range(1, MAX_BATCH + 1)))


async def test_items_acknowledged_before_are_not_acknowledged_again() -> None:
    done = Waiter()
    queue = filled(5, done)
    batch = await queue.batch()
    for place in (0, 2):
        queue.acknowledge_at(place)
    await done.until(lambda: done.tokens == [1, 3])
    queue.took(batch)
    await done.until(lambda: done.tokens == [1, 3, 2, 4, 5])


async def test_batch_waits_for_the_gap_and_for_an_item() -> None:
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


async def test_full_batch_does_not_wait_for_the_gap() -> None:
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


async def test_wake_gives_an_empty_batch() -> None:
    queue = JournalQueue(0.0)
    queue.wake()
    assert await queue.batch() == []
    queue.took([])
    again = asyncio.create_task(queue.batch())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_emptied_returns_when_the_queue_is_empty() -> None:
    queue = filled(1, Waiter())
    await queue.emptied(0.0)
    assert len(queue.waiting) == 1
    emptied = asyncio.create_task(queue.emptied(600.0))
    queue.took(await queue.batch())
    await emptied


class Clock:
    """A clock that only `spend` moves, so that a slow machine does not look like a long turn."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


async def test_acknowledgements_are_in_order_and_yield_to_the_loop() -> None:
    """Else an INVITE that arrives while the calls of a batch are answered waits for all of them."""
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


async def test_slices_are_longer_but_not_endless_when_the_loop_is_behind() -> None:
    """Else answers would wait for dozens of turns while the process is behind, or others' calls for all answers."""
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
    at_least = int(100 * SLICE_S / BEHIND_SLICE_S)
    assert at_least <= turns <= 2 * at_least


async def test_exception_in_one_acknowledgement_does_not_stop_the_others() -> None:
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
