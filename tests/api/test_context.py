"""Access of routes to the store."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
from starlette.requests import Request

from relay.api.context import RequestContext
from relay.api.places import DOWNLOADS, PAGES
from relay.errors import Refused
from relay.store.unit_of_work import OPERATOR, Actor
from tests.api.conftest import Api, Client


async def test_an_unknown_query_parameter_is_refused(operator: Client, company: Client) -> None:
    for path in ("/v1/calls?business=acme", "/v1/bindings?limit=5&stat=live", "/v1/peers?x"):
        problem = await operator.refused("GET", path, "invalid")
        assert problem["errors"][0]["problem"] == "there is no such query parameter: see /docs"
    assert (await company.refused("GET", "/v1/calls?outcom=busy", "invalid"))["errors"][0]["field"] == "outcom"
    twice = await operator.refused("GET", "/v1/calls?business_id=acme&business_id=other", "invalid")
    assert twice["detail"] == "query: each parameter must be given once"
    await company.get("/v1/calls?limit=5&outcome=busy&reveal=false")


async def test_short_reads_do_not_wait_for_long_ones(api: Api) -> None:
    request = Request({"type": "http", "app": api.app})
    contexts = [RequestContext(request, api.backend, Actor(f"key:{n}", None, OPERATOR)) for n in range(10)]
    over, begun = threading.Event(), threading.Semaphore(0)

    def long(connection: sqlite3.Connection) -> bool:
        begun.release()
        return over.wait(20)

    reading = [asyncio.create_task(context.read_long(long)) for context in contexts]
    for _ in range(DOWNLOADS.workers):
        assert await asyncio.to_thread(begun.acquire, timeout=10)
    async with asyncio.timeout(10):
        assert await contexts[0].read(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
    over.set()
    assert all(await asyncio.gather(*reading))


async def test_many_slow_pages_of_a_business_user_leave_workers_to_others(api: Api) -> None:
    request = Request({"type": "http", "app": api.app})
    acme, other = (RequestContext(request, api.backend, Actor("key:1", name, frozenset())) for name in ("acme", "b"))
    over = threading.Event()
    reading = [asyncio.create_task(acme.read(lambda _: over.wait(20))) for _ in range(PAGES.most_of_one)]
    async with asyncio.timeout(10):
        assert await other.read(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
    with pytest.raises(Refused, match="too many"):
        await acme.read(lambda _: True)
    over.set()
    assert all(await asyncio.gather(*reading))
