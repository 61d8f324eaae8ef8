"""Live parts of pages: server-sent events with the HTML of each part that has changed.

A stream ends with its session and at shutdown. It does not keep a session alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from relay.console.ask import ApiError
from relay.console.page import ConsolePage, PageRoute
from relay.console.sessions import Session

EVERY_S: Final = 2.0  # a turn
ALIVE_EVERY: Final = 8  # turns without a change, after which a comment shows whether the browser is still there
MOST_OF_SESSION: Final = 4
MOST_OF_ONE: Final = 20  # of one business user, or of one key of an operator
MOST: Final = 100
EVENT_STREAM: Final = "text/event-stream"
OVER: Final = "event: over\ndata: {}\n\n"  # the browser asks for the page again, and is sent to the log-in
LATER: Final = "retry: 10000\n\n"  # the browser asks again in 10 s; after an error status it would never

Parts = Callable[[ConsolePage], Awaitable[Mapping[str, str]]]  # the HTML of each part by the id of its element


class Streams:
    """All open streams of this process."""

    def __init__(self) -> None:
        self._finishing = asyncio.Event()
        self._open: Counter[str] = Counter()  # by owner

    def finish(self) -> None:
        """End all streams: the server waits for open answers when it stops."""
        self._finishing.set()

    def answer(self, page: ConsolePage, parts: Parts, turns: int) -> Response:
        """The stream for a page; 204, which tells a browser not to ask again, beyond the limits."""
        of_owner, of_all = self._open[page.session.owner], self._open.total()
        if page.session.streams >= MOST_OF_SESSION or of_owner >= MOST_OF_ONE or of_all >= MOST:
            return Response(status_code=204)
        page.request.scope["state"]["is_stream"] = True
        self._count(page.session, 1)
        return _Stream(self._events(page, parts, turns), lambda: self._count(page.session, -1))

    def _count(self, session: Session, more: int) -> None:
        session.streams += more
        self._open[session.owner] += more

    async def _events(self, page: ConsolePage, parts: Parts, turns: int) -> AsyncIterator[str]:
        sent: dict[str, str] = {}
        unchanged = 0
        while page.is_still_logged_in():
            changed = await _changed(page, parts, sent)
            unchanged = 0 if changed else unchanged + 1
            for name, html in changed.items():
                yield f"event: part\ndata: {json.dumps({'id': name, 'html': html})}\n\n"
            if unchanged == ALIVE_EVERY:
                unchanged = 0
                yield ":\n\n"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._finishing.wait(), turns * EVERY_S)
            if self._finishing.is_set():
                return
        yield OVER


class _Stream(StreamingResponse):
    """A stream that calls `end` when its response is over, also if that never began."""

    def __init__(self, events: AsyncIterator[str], end: Callable[[], None]) -> None:
        super().__init__(events, media_type=EVENT_STREAM)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def stream(streams: Streams, name: str, parts: Parts, needs: str, turns: int) -> PageRoute:
    """The route of a stream. `turns`: of `EVERY_S`, from one look to the next."""

    async def show(page: ConsolePage) -> Response:
        return streams.answer(page, parts, turns)

    return PageRoute(f"/stream/{name}", show, needs)


async def _changed(page: ConsolePage, parts: Parts, sent: dict[str, str]) -> dict[str, str]:
    """The parts that differ from those sent last; none while the API gives an error."""
    try:
        made = await parts(page)
    except ApiError:
        return {}
    changed = {name: html for name, html in made.items() if sent.get(name) != html}
    sent |= changed
    return changed
