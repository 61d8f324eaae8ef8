"""What a switch does about garbage: little at a time, while calls are up."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from relay import switch
from tests.net.support import until


class Thing:
    """Something that collections look at."""


async def test_the_young_are_looked_through_though_no_more_is_made_than_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a steady load, where Python's own threshold is never reached."""
    monkeypatch.setattr(switch, "YOUNG_S", 0.001)
    collecting = asyncio.create_task(switch.collect_the_young())
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
