"""Fire-and-forget tasks are kept until they end."""

from __future__ import annotations

import asyncio
import gc

from relay.net.process import Tasks


async def test_an_unreferenced_task_is_kept() -> None:
    tasks = Tasks()

    async def work() -> None:
        await asyncio.get_running_loop().create_future()

    tasks.begin(work())
    await asyncio.sleep(0)
    gc.collect()
    assert len(tasks) == 1
    await tasks.cancel()
    assert len(tasks) == 0


async def test_an_ended_task_is_released() -> None:
    tasks, ended = Tasks(), asyncio.Event()

    async def work() -> None:
        ended.set()

    tasks.begin(work())
    await ended.wait()
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_cancel_waits_for_the_tasks_clean_up() -> None:
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
