"""Garbage while calls are up: what is collected, and how often."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from relay import garbage
from tests.net.support import until


class Thing:
    """Something that collections look at."""


async def test_the_young_are_looked_through_though_no_more_is_made_than_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a steady load, where Python's own threshold is never reached."""
    monkeypatch.setattr(garbage, "YOUNG_S", 0.001)
    collecting = asyncio.create_task(garbage.collect_the_young())
    await asyncio.sleep(0)
    assert not gc.isenabled()
    lasting, cycle = Thing(), Thing()
    cycle.itself = cycle  # type: ignore[attr-defined]
    gone = weakref.ref(cycle)
    del cycle
    await until(lambda: gone() is None)
    assert not any(young is lasting for young in gc.get_objects(generation=0))
    collecting.cancel()
    await asyncio.wait([collecting])
    assert gc.isenabled()


async def test_each_look_says_when_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []

    def next_pause_s(pause_s: float, took_s: float) -> float:
        assert took_s > 0
        pauses.append(pause_s)
        return pause_s + 0.001

    monkeypatch.setattr(garbage, "YOUNG_S", 0.001)
    monkeypatch.setattr(garbage, "next_pause_s", next_pause_s)
    collecting = asyncio.create_task(garbage.collect_the_young())
    await until(lambda: len(pauses) > 2)
    collecting.cancel()
    await asyncio.wait([collecting])
    assert pauses[:3] == pytest.approx([0.001, 0.002, 0.003])


@pytest.mark.parametrize(
    ("pause_s", "took_s", "next_s"),
    [
        (0.05, 0.0006, 0.025),  # twice as much as is wanted at a time: half as long
        (0.025, 0.0003, 0.025),
        (0.02, 0.0002, 0.03),  # and longer again where less has come
        (0.05, 0.1, 0.01),
        (0.01, 0.00001, 0.05),
        (0.01, 0.0, 0.05),
    ],
)
def test_the_more_young_there_are_the_oftener_they_are_looked_through(
    pause_s: float, took_s: float, next_s: float
) -> None:
    assert garbage.next_pause_s(pause_s, took_s) == pytest.approx(next_s)
