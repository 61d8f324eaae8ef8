"""Unfinished TLS handshakes: limited in number, without blocking other clients."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger

from relay.api import connections
from relay.api.server import Address, HttpServer
from tests.api.test_connection import connect, is_closed
from tests.support.addresses import free
from tests.support.certificates import write_certificate
from tests.support.waiting import until


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[Address]:
    app = FastAPI()
    app.get("/hello")(lambda: "hello")
    log = CapturingLogger()
    bound: FilteringBoundLogger = log  # type: ignore[assignment]
    address = Address(*free("127.0.0.10"), *write_certificate(tmp_path))
    http = HttpServer(app, address, bound)
    running = asyncio.create_task(http.run())
    await until(lambda: [call.args[0] for call in log.calls] == ["api.listening"])
    yield address
    http.finish()
    await running


async def greeted(address: Address) -> str:
    context = ssl.create_default_context(cafile=str(address.certificate))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        answer = await client.get(f"https://{address.host}:{address.port}/hello")
    return str(answer.json())


async def test_unfinished_handshakes_of_one_address_do_not_block_others(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_HANDSHAKES", 5)
    monkeypatch.setattr(connections, "HANDSHAKE_S", 1_000.0)
    assert await greeted(address) == "hello"
    silent = [await connect((address.host, address.port), "127.0.0.2") for _ in range(30)]
    modest = await connect((address.host, address.port), "127.0.0.3")
    for _ in range(3):
        assert await greeted(address) == "hello"
    for streams in silent[:25]:
        assert await is_closed(streams)
    assert not modest[0].at_eof()
    for streams in [*silent, modest]:
        streams[1].close()


async def test_an_unfinished_handshake_times_out(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HANDSHAKE_S", 0.1)
    assert await is_closed(await connect((address.host, address.port)))
    assert await greeted(address) == "hello"


async def test_a_client_without_tls_is_disconnected(address: Address) -> None:
    streams = await connect((address.host, address.port))
    streams[1].write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(20):
        await streams[0].read()
    streams[1].close()
    assert await greeted(address) == "hello"
