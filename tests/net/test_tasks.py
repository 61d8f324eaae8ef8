"""Tasks that nobody awaits are kept until they end."""

from __future__ import annotations

import asyncio
import gc

from relay.net.tasks import Tasks


async def test_a_task_that_nothing_else_refers_to_is_kept() -> None:
    tasks = Tasks()

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    tasks.begin(work())
    await asyncio.sleep(0)
    gc.collect()
    assert len(tasks) == 1
    await tasks.cancel()
    assert len(tasks) == 0


async def test_one_that_has_ended_is_not_kept() -> None:
    tasks, ended = Tasks(), asyncio.Event()

    async def work() -> None:
        ended.set()

    tasks.begin(work())
    await ended.wait()
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_cancelling_waits_for_what_each_does_at_its_end() -> None:
    tasks, said = Tasks(), []

    async def work(name: str) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            said.append(name)

    await tasks.cancel()
    for name in ("one", "other"):
        tasks.begin(work(name))
    await asyncio.sleep(0)
    await tasks.cancel()
    assert sorted(said) == ["one", "other"]
