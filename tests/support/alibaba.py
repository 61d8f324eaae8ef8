"""A receiver of Alibaba's pushes, on a loopback port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class Receiver:
    """A receiver of theirs: `answers` are given one after another, the last one again and again."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = [(200, '{"code": 0, "msg": "接收成功"}')]
        self.arrays: list[list[dict[str, Any]]] = []
        self.url = ""
        self._changed = asyncio.Condition()

    async def receive(self, request: web.Request) -> web.Response:
        assert request.headers["Relay700-Signature"].startswith("t=")
        status, text = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        async with self._changed:
            self.arrays.append(json.loads(await request.read()))
            self._changed.notify_all()
        return web.Response(status=status, text=text)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A running receiver."""
    made = Receiver()
    app = web.Application()
    app.router.add_post("/report", made.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/report"
    try:
        yield made
    finally:
        await runner.cleanup()
