"""The parent of several workers, without a process of theirs; the rest is in tests/interop/test_workers.py."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from relay.config import load_config
from relay.crew import Crew


class Silent:
    """A worker that is asked in vain."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def tell(self, name: str, *_: object) -> None:
        """It does not read."""

    async def ask(self, name: str, fields: Mapping[str, object], patience_s: float = 0.0) -> Any:
        self.asked.append(name)
        await asyncio.get_running_loop().create_future()


@pytest.fixture
async def silent() -> Silent:
    return Silent()


@pytest.fixture
async def crew(silent: Silent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Crew:
    monkeypatch.chdir(tmp_path)
    made = Crew(load_config(), None, structlog.get_logger(), 2)  # type: ignore[arg-type]
    made._members.append(silent)  # type: ignore[arg-type]
    return made


async def test_what_is_banned_is_told_without_asking_anybody(crew: Crew, silent: Silent) -> None:
    assert await asyncio.wait_for(crew.ask("bans"), 60) == {"bans": []}
    assert not silent.asked


async def test_a_ban_is_answered_once_the_workers_know(crew: Crew, silent: Silent) -> None:
    banning = asyncio.create_task(crew.ask("unban"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not banning.done()
    assert silent.asked == ["known"]
    banning.cancel()
