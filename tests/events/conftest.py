"""A store with a business and its webhook, writers, and an HTTP server that receives events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import pytest
from aiohttp import web
from structlog.typing import FilteringBoundLogger

from relay.events.delivery import DeliveryTask
from relay.events.webhooks import KINDS, DeliveryRules, make
from relay.model.actions import Commit
from relay.model.call import CallRecord
from relay.net.bell import Bell
from relay.store.database import connect_reader
from relay.store.journal.journal import Journal
from relay.store.sealing.sealer import Sealer
from relay.store.sqlite.journal import sqlite_journal
from relay.store.unit_of_work import RELAY, UnitOfWork
from relay.store.webhooks import (
    OutboxEvent,
    Webhook,
    dead_letters,
    find_webhook,
    next_events,
    put_webhook,
    queue_event,
    webhooks_of,
)
from relay.store.writer import GroupWriter, Writer, now_ms
from tests.support.papers import apply
from tests.support.places import new_store

T = TypeVar("T")
NO_URL = "https://shop.example/events"


class Log:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.said.append((event, fields))

    warning = error = exception = info

    def events(self) -> list[str]:
        return [event for event, _ in self.said]

    @property
    def logger(self) -> FilteringBoundLogger:
        return cast(FilteringBoundLogger, self)


class Shop(NamedTuple):
    """The store of the business "shop"."""

    path: Path
    sealer: Sealer
    log: Log

    def run(self, do: Callable[[UnitOfWork], T]) -> T:
        with closing(Writer(self.path, self.sealer)) as writer:
            return writer.run(RELAY, do)

    def hook(self, url: str = NO_URL, kinds: tuple[str, ...] = KINDS, parties: str = "masked") -> Webhook:
        return self.run(lambda unit: make(unit, "shop", url, kinds, parties))[0]

    def hook_of_its_own(self, url: str) -> Webhook:
        """A webhook as made by a business user's key, without the check of the URL."""
        made = self.hook()._replace(url=url, internal=False)
        self.run(lambda unit: put_webhook(unit, made))
        return made

    def hooks(self) -> list[Webhook]:
        with closing(connect_reader(self.path)) as connection:
            return webhooks_of(connection, self.sealer, None, "", 100)

    def hook_now(self, webhook: Webhook) -> Webhook:
        with closing(connect_reader(self.path)) as connection:
            found = find_webhook(connection, self.sealer, webhook.id)
        assert found is not None
        return found

    def tell(self, *ids: str, kind: str = "number.cooling", **data: object) -> None:
        for event_id in ids:
            self.run(lambda unit, event_id=event_id: queue_event(unit, "shop", kind, event_id, data))  # type: ignore[misc]

    def waiting(self, webhook: Webhook) -> list[OutboxEvent]:
        with closing(connect_reader(self.path)) as connection:
            return next_events(connection, self.sealer, webhook.id, 1_000)

    def dead(self, webhook: Webhook) -> list[OutboxEvent]:
        with closing(connect_reader(self.path)) as connection:
            return dead_letters(connection, self.sealer, webhook.id, 0, 1_000)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(connect_reader(self.path)) as connection:
            return connection.execute(statement).fetchall()

    @asynccontextmanager
    async def journal(self) -> AsyncIterator[Journal]:
        journal = sqlite_journal(self.path, self.sealer, lambda event, fields: self.log.error(event, **fields))
        await journal.open()
        try:
            yield journal
        finally:
            await journal.close()

    async def record(self, *records: CallRecord) -> None:
        """Write records as the relay does."""
        async with self.journal() as journal:
            for record in records:
                journal.queue.append(Commit(0, record, None), lambda token: None)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    path = tmp_path / "relay.db"
    made = Shop(path, new_store(path, tmp_path / "relay.key"), Log())
    made.run(lambda unit: apply(unit, "Shop", "shop"))
    return made


@pytest.fixture
async def writer(shop: Shop) -> AsyncIterator[GroupWriter]:
    made = GroupWriter(shop.path, shop.sealer)
    yield made
    await made.close()


class Inbox:
    """A receiver of webhooks; `answer(ids of the events)` gives the status."""

    def __init__(self) -> None:
        self.answer: Callable[[list[str]], int] = lambda ids: 200
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[dict[str, str], bytes, int]] = []
        self.url = ""
        self.released = asyncio.Event()  # requests are not answered until it is set
        self.released.set()
        self.delay_s = 0.0  # of each answer
        self._changed = asyncio.Condition()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        status = self.answer([event["id"] for event in json.loads(body)["events"]])
        async with self._changed:
            self.requests.append((dict(request.headers), body, status))
            self._changed.notify_all()
        await self.released.wait()
        await asyncio.sleep(self.delay_s)
        return web.Response(status=status, headers=self.headers)

    @property
    def batches(self) -> list[list[str]]:
        """Ids of the events of each request."""
        return [[event["id"] for event in json.loads(body)["events"]] for _, body, _ in self.requests]

    @property
    def taken(self) -> list[str]:
        bodies = [body for _, body, status in self.requests if 200 <= status < 300]
        return [event["id"] for body in bodies for event in json.loads(body)["events"]]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/events", self._receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/events"
        try:
            yield
        finally:
            await runner.cleanup()


@pytest.fixture
async def inbox() -> AsyncIterator[Inbox]:
    made = Inbox()
    async with made.serving():
        yield made


@asynccontextmanager
async def delivering(
    shop: Shop, writer: GroupWriter, clock_ms: Callable[[], int] = now_ms, bell: Bell | None = None, **rules: Any
) -> AsyncIterator[DeliveryTask]:
    """Run a deliverer, and finish it at the end with its requests under way."""
    rule = DeliveryRules(**rules)
    deliverer = DeliveryTask(shop.path, shop.sealer, writer, shop.log.logger, rule, clock_ms, bell=bell)
    task = asyncio.create_task(deliverer.run())
    try:
        yield deliverer
    finally:
        deliverer.finish()
        async with asyncio.timeout(20):
            await task
