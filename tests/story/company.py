"""A delivery company's own program: an HTTP client with a key, and an inbox for webhooks.

It is written from the documents alone and imports nothing of relay700.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from types import TracebackType
from typing import Any

import httpx
from aiohttp import web

from tests.support.addresses import Address, free
from tests.support.documented import fault_of

PATIENCE_S = 15.0
POLL_S = 0.05
INBOX = "127.0.0.1"  # plain http is for loopback addresses alone

Json = dict[str, Any]


class Client:
    """The API with one key. Any status but the wanted one fails the test."""

    def __init__(self, api: Address, key: str = "") -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.seen: list[str] = []  # all answers, with their headers
        self._http = httpx.AsyncClient(base_url=f"http://{api}", headers=headers, trust_env=False, timeout=PATIENCE_S)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, method: str, path: str, body: Json | None = None, status: int = 200, **headers: str) -> Json:
        """Return the answer's JSON; the status must be the wanted one."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self._http.request(method, path, json=body, headers=names)
        self.seen.append(f"{dict(answer.headers)}\n{answer.text}")
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        document: Json = answer.json()
        return document

    async def get(self, path: str, status: int = 200) -> Json:
        return await self.ask("GET", path, status=status)

    async def text(self, path: str) -> str:
        """Return an answer that is not JSON."""
        answer = await self._http.get(path)
        assert answer.status_code == 200, f"GET {path}: {answer.status_code} {answer.text}"
        self.seen.append(answer.text)
        return answer.text

    async def post(self, path: str, body: Json, status: int = 201, **headers: str) -> Json:
        return await self.ask("POST", path, body, status, **headers)

    async def items(self, path: str) -> list[Json]:
        """All pages of a list."""
        items: list[Json] = []
        cursor = ""
        while True:
            page = await self.get(path + cursor)
            items += page["items"]
            if page["next"] is None:
                return items
            cursor = f"{'&' if '?' in path else '?'}cursor={page['next']}"

    async def until(self, path: str, good: Callable[[Json], bool]) -> Json:
        """Repeat the request until the answer fits; fails after PATIENCE_S."""
        answer: Json = {}
        for _ in range(int(PATIENCE_S / POLL_S)):
            answer = await self.get(path)
            if good(answer):
                return answer
            await asyncio.sleep(POLL_S)
        raise AssertionError(f"{path}: not so within {PATIENCE_S} s: {answer}")

    async def until_ready(self) -> None:
        """Wait until the service accepts requests."""
        for _ in range(int(PATIENCE_S / POLL_S)):
            try:
                if (await self._http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(POLL_S)
        raise AssertionError(f"not ready within {PATIENCE_S} s")


class Inbox:
    """A webhook receiver. It checks every signature and keeps events in order of arrival."""

    def __init__(self) -> None:
        self.address = free(INBOX)
        self.secret = ""
        self.status = 200  # of its answers
        self.events: list[Json] = []  # of accepted deliveries
        self.bodies: list[bytes] = []  # of all deliveries
        self.faults: list[str] = []
        self._arrived = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{self.address}/events"

    async def __aenter__(self) -> Inbox:
        app = web.Application()
        app.router.add_post("/events", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, *self.address).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()
        assert error is not None or not self.faults, self.faults

    async def event(self, kind: str, **values: object) -> Json:
        """The first event of that kind with those values, now or within PATIENCE_S."""

        def found() -> Json | None:
            fits = (event for event in self.events if event["kind"] == kind and values.items() <= event.items())
            return next(fits, None)

        async with self._arrived:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._arrived.wait_for(found)
            except TimeoutError:
                raise AssertionError(f"no {kind} with {values} came, but {self.events}, {self.faults}") from None
            event = found()
        assert event is not None
        return event

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.bodies.append(body)
        if not self._is_signed(request.headers.get("Relay700-Signature", ""), body):
            self.faults.append(f"not signed: {dict(request.headers)}")
        if self.status == 200:
            async with self._arrived:
                self.events += json.loads(body)["events"]
                self.faults += filter(None, map(fault_of, self.events))
                self._arrived.notify_all()
        return web.Response(status=self.status)

    def _is_signed(self, header: str, body: bytes) -> bool:
        values = dict(part.partition("=")[::2] for part in header.split(","))
        text = values.get("t", "").encode() + b"." + body
        expected = hmac.new(self.secret.encode(), text, hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected, values.get("v1", ""))
