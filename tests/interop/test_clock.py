"""The wall clock of a running relay is set by an hour: calls go on, and their records' times fit together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.interop.conftest import running_relay
from tests.support.addresses import RELAY, free
from tests.support.clock_story import outlives
from tests.support.relay_process import RelayProcess, Setup
from tests.support.wall_clock import WallClock

pytestmark = pytest.mark.outside

HOUR_S = 3_600
HALF_A_DAY_FROM_CHINA = timezone(timedelta(hours=8 + 12))


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path / "clock")


@pytest.fixture
def relay(tmp_path: Path, clock: WallClock) -> Iterator[RelayProcess]:
    # Not meanwhile: it reports a clock that was set.
    purge = f'\n[retention]\npurge_at = "{datetime.now(HALF_A_DAY_FROM_CHINA):%H:%M}"\n'
    with running_relay(tmp_path, Setup(api=free(RELAY), environment=clock.environment(), more=purge)) as made:
        made.bind()
        yield made


@pytest.mark.parametrize("ahead_s", [-HOUR_S, HOUR_S], ids=["back", "forth"])
async def test_set_while_a_call_is_up(relay: RelayProcess, clock: WallClock, ahead_s: int) -> None:
    await outlives(relay, clock, ahead_s)
    await outlives(relay, clock, 0)  # and put right again
    all_told = [event for event in relay.events() if event["event"] == "clock.was_set"]
    told, again = (event["by_s"] for event in all_told)
    assert round(told, -1) == ahead_s == -round(again, -1)


async def test_set_back_while_the_relay_is_down(relay: RelayProcess, clock: WallClock) -> None:
    await outlives(relay, clock, -HOUR_S, restarts=True)
    ended = [record for record in await asyncio.to_thread(relay.calls) if record["outcome"] == "answered"]
    assert [record["ended_by"] for record in ended] == ["caller"]
