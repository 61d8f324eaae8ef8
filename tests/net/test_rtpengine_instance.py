"""Scheduled deletions of one rtpengine; commands are tested in tests/net/test_rtpengine.py."""

from __future__ import annotations

import pytest

from relay.net import rtpengine
from relay.net.rtpengine import Instance, NoAnswer
from tests.net.test_rtpengine import Engine, agrees, deletions


async def test_scheduled_deletions_are_limited_and_the_oldest_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtpengine, "MOST_UNTOLD", 2)
    engine = Engine(agrees)
    await engine.start()
    instance = Instance(engine.address)
    await instance.open()
    for number in range(4):
        instance.forget_later(f"call {number}")
    await instance.forget_untold()
    assert deletions(engine) == {"call 2", "call 3"}
    await instance.close()
    await engine.stop()


async def test_commands_go_unanswered_without_a_route() -> None:
    with pytest.raises(NoAnswer):
        await Instance(Engine(agrees).address).ask({"command": "ping"})
