"""Files that are made while they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from relay.api import downloads as module
from relay.api.downloads import Download


async def test_a_receiver_that_takes_nothing_keeps_its_place_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.01)
    over, parts = asyncio.Event(), iter([b"sound"] * 3)

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def made() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    file = Download(made(), over.set, headers={}, media_type="audio/wav")
    with pytest.raises(ClientDisconnect):
        await file({"type": "http"}, never, never)
    assert over.is_set()
    assert len(list(parts)) == 3
