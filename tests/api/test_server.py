"""Binding the API's address: retried until it is free, and given up at shutdown."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger

from relay.api import server
from relay.api.server import Address, HttpServer
from tests.support.addresses import RELAY, free
from tests.support.waiting import until


class Log(CapturingLogger):
    def events(self) -> list[str]:
        return [call.args[0] for call in self.calls]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Address:
    monkeypatch.setattr(server, "LISTEN_AGAIN_S", 0.01)
    return Address(*free(RELAY))


@pytest.fixture
def taken(address: Address) -> Iterator[socket.socket]:
    with socket.create_server(address[:2]) as other:
        yield other


def made(address: Address, log: Log) -> HttpServer:
    app = FastAPI()
    app.get("/hello")(lambda: "hello")
    bound: FilteringBoundLogger = log  # type: ignore[assignment]
    return HttpServer(app, address, bound)


async def test_it_serves_once_the_address_is_free_and_logs_the_wait_once(
    address: Address, taken: socket.socket
) -> None:
    log = Log()
    http = made(address, log)
    running = asyncio.create_task(http.run())
    await until(lambda: log.events() == ["api.cannot_listen"])
    taken.close()
    await until(lambda: log.events() == ["api.cannot_listen", "api.listening"])
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{address.host}:{address.port}/hello")
    assert answer.json() == "hello"
    http.finish()
    await running


async def test_shutdown_ends_the_wait_for_a_taken_address(address: Address, taken: socket.socket) -> None:
    log = Log()
    http = made(address, log)
    running = asyncio.create_task(http.run())
    await until(lambda: log.events())
    http.finish()
    await running
    assert log.events() == ["api.cannot_listen"]
