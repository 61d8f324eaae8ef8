"""Files that are made while they are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

STALL_S = 60.0  # longest wait for a receiver to take a part: one that does not would keep its place for ever


class Download(StreamingResponse):
    """A file that is made while it is sent. Calls `over` when it ends, however it does, also if it never began."""

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        over: Callable[[], None],
        *,
        status: int = 200,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(parts, status, headers, media_type)
        self._over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(STALL_S):
                    await send(message)
            except TimeoutError:
                raise ClientDisconnect from None

        try:
            await super().__call__(scope, receive, send_in_time)
        finally:
            self._over()
