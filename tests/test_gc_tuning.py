"""Tuning of the garbage collector: what is collected, and how often."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from relay import gc_tuning
from tests.net.support import until


class Thing:
    """An object tracked by the collector."""


async def test_young_cycles_are_collected_under_a_steady_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allocations equal deallocations, so Python's own threshold is never reached."""
    monkeypatch.setattr(gc_tuning, "YOUNG_S", 0.001)
    collecting = asyncio.create_task(gc_tuning.collect_the_young())
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


async def test_each_collection_sets_the_next_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []

    def next_pause_s(pause_s: float, took_s: float) -> float:
        assert took_s > 0
        pauses.append(pause_s)
        return pause_s + 0.001

    monkeypatch.setattr(gc_tuning, "YOUNG_S", 0.001)
    monkeypatch.setattr(gc_tuning, "next_pause_s", next_pause_s)
    collecting = asyncio.create_task(gc_tuning.collect_the_young())
    await until(lambda: len(pauses) > 2)
    collecting.cancel()
    await asyncio.wait([collecting])
    assert pauses[:3] == pytest.approx([0.001, 0.002, 0.003])


@pytest.mark.parametrize(
    ("pause_s", "took_s", "next_s"),
    [
        (0.05, 0.0006, 0.025),  # twice the target time: half the pause
        (0.025, 0.0003, 0.025),
        (0.02, 0.0002, 0.03),  # below the target: a longer pause
        (0.05, 0.1, 0.01),
        (0.01, 0.00001, 0.05),
        (0.01, 0.0, 0.05),
    ],
)
def test_pauses_shrink_as_collections_take_longer(pause_s: float, took_s: float, next_s: float) -> None:
    assert gc_tuning.next_pause_s(pause_s, took_s) == pytest.approx(next_s)
