"""Binding the API's address: retried until it is free, and given up at shutdown."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from structlog.testing import CapturingLogger, capture_logs
from structlog.typing import FilteringBoundLogger

from relay.api import app
from relay.api import server as http_server
from relay.api.server import Address, HttpConnection, HttpServer
from relay.defence.bans import source_of
from relay.errors import ConfigError
from tests.api.conftest import Api, Client
from tests.support.addresses import RELAY, free
from tests.support.addresses import Address as Plain
from tests.support.certificates import write_certificate
from tests.support.waiting import until


class Log(CapturingLogger):
    def events(self) -> list[str]:
        return [call.args[0] for call in self.calls]


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Address:
    monkeypatch.setattr(http_server, "LISTEN_AGAIN_S", 0.01)
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


async def test_the_date_of_answers_is_set_and_shutdown_does_not_wait_to_renew_it(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "DATE_S", 600.0)
    log = Log()
    server = made(address, log)
    running = asyncio.create_task(server.run())
    await until(lambda: "api.listening" in log.events())
    async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{address.host}:{address.port}/hello")
        server.finish()
        await running
    assert answer.headers["date"].endswith(" GMT")


async def test_shutdown_ends_the_wait_for_a_taken_address(address: Address, taken: socket.socket) -> None:
    log = Log()
    http = made(address, log)
    running = asyncio.create_task(http.run())
    await until(lambda: log.events())
    http.finish()
    await running
    assert log.events() == ["api.cannot_listen"]


# -- Unfinished TLS handshakes: limited in number, without blocking other clients


@pytest.fixture
async def tls_server(tmp_path: Path) -> AsyncIterator[tuple[HttpServer, Address]]:
    app = FastAPI()
    app.get("/hello")(lambda: "hello")
    log = CapturingLogger()
    bound: FilteringBoundLogger = log  # type: ignore[assignment]
    tls_address = Address(*free("127.0.0.10"), *write_certificate(tmp_path))
    http = HttpServer(app, tls_address, bound)
    running = asyncio.create_task(http.run())
    await until(lambda: [call.args[0] for call in log.calls] == ["api.listening"])
    yield http, tls_address
    http.finish()
    await running


@pytest.fixture
def tls_address(tls_server: tuple[HttpServer, Address]) -> Address:
    return tls_server[1]


async def greeted(tls_address: Address) -> str:
    context = ssl.create_default_context(cafile=str(tls_address.certificate))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        answer = await client.get(f"https://{tls_address.host}:{tls_address.port}/hello")
    return str(answer.json())


async def test_unfinished_handshakes_of_one_address_do_not_block_others(
    tls_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MOST_HANDSHAKES", 5)
    monkeypatch.setattr(http_server, "HANDSHAKE_S", 1_000.0)
    assert await greeted(tls_address) == "hello"
    silent = [await connect((tls_address.host, tls_address.port), "127.0.0.2") for _ in range(30)]
    modest = await connect((tls_address.host, tls_address.port), "127.0.0.3")
    for _ in range(3):
        assert await greeted(tls_address) == "hello"
    for streams in silent[:25]:
        assert await is_closed(streams)
    assert not modest[0].at_eof()
    for streams in [*silent, modest]:
        streams[1].close()


async def test_an_unfinished_handshake_times_out(tls_address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HANDSHAKE_S", 0.1)
    assert await is_closed(await connect((tls_address.host, tls_address.port)))
    assert await greeted(tls_address) == "hello"


async def test_a_client_without_tls_is_disconnected(tls_address: Address) -> None:
    streams = await connect((tls_address.host, tls_address.port))
    streams[1].write(b"GET / HTTP/1.1\r\n\r\n")
    async with asyncio.timeout(20):
        await streams[0].read()
    streams[1].close()
    assert await greeted(tls_address) == "hello"


async def test_new_connections_see_a_renewed_certificate_unless_it_is_unusable(
    tls_server: tuple[HttpServer, Address], tmp_path: Path
) -> None:
    http, tls_address = tls_server
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(ConfigError):
        http.load_certificate()
    assert await greeted(tls_address) == "hello"
    write_certificate(tmp_path)
    http.load_certificate()
    assert await greeted(tls_address) == "hello"  # it trusts the certificate in the file alone


# -- Connection limits of a real server against clients that misuse connections

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
HEAD = b"GET /healthz HTTP/1.1\r\nhost: relay\r\n"
PATIENCE_S = 20.0


class Serving(NamedTuple):
    address: Plain
    connections: set[Any]


@asynccontextmanager
async def serving(api: Api) -> AsyncIterator[Serving]:
    address = free("127.0.0.1")
    options = {"loop": "none", "lifespan": "off", "log_config": None, "log_level": "error"}
    server = uvicorn.Server(uvicorn.Config(api.app, *address, http=HttpConnection, **options))  # type: ignore[arg-type]
    task = asyncio.create_task(server._serve())
    try:
        while not server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield Serving(address, server.server_state.connections)
    finally:
        server.force_exit = server.should_exit = True
        await task


@pytest.fixture
async def plain(api: Api) -> AsyncIterator[Plain]:
    async with serving(api) as server:
        yield server.address


async def connect(address: Plain, source: str = "127.0.0.1") -> Streams:
    return await asyncio.open_connection(*address, local_addr=(source, 0))


async def answer(streams: Streams) -> bytes:
    """Read an answer with its body from the stream. Returns the status line."""
    reader, _ = streams
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
    return head.partition(b"\r\n")[0]


async def is_closed(streams: Streams) -> bool:
    """Wait until the server closes the connection; False if it sends something first."""
    reader, writer = streams
    async with asyncio.timeout(PATIENCE_S):
        try:
            return await reader.read(1) == b""
        except ConnectionError:
            return True
        finally:
            writer.close()


async def test_sequential_and_pipelined_requests_are_answered(plain: Plain) -> None:
    streams = await connect(plain)
    for requests in (1, 3):
        streams[1].write((HEAD + b"\r\n") * requests)
        assert [await answer(streams) for _ in range(requests)] == [b"HTTP/1.1 200 OK"] * requests
    streams[1].close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /hea",
        HEAD,
        b"\r\n\r\n",
        HEAD + b"\r\n" + HEAD,
        b"POST /healthz HTTP/1.1\r\nhost: relay\r\ncontent-length: 9\r\n\r\nx",
    ],
)
async def test_an_incomplete_request_times_out(plain: Plain, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.2)
    streams = await connect(plain)
    streams[1].write(sent)
    if (HEAD + b"\r\n") in sent or sent.startswith(b"POST"):
        await answer(streams)
    assert await is_closed(streams)


async def flood(streams: Streams, piece: bytes) -> None:
    """Send until the server closes the connection."""
    with suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                streams[1].write(piece)
                await streams[1].drain()


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (HEAD, b"x: " + b"y" * 997 + b"\r\n"),
        (HEAD + b"x: ", b"y" * 1_000),
        (b"GET /", b"y" * 1_000),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: " + b"y" * 997 + b"\r\n"),
    ],
)
async def test_a_head_over_the_size_limit_ends_the_connection(plain: Plain, begin: bytes, piece: bytes) -> None:
    streams = await connect(plain)
    streams[1].write(begin)
    await flood(streams, piece)
    streams[1].close()


async def test_a_client_that_does_not_read_its_answer_is_disconnected(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "STALLED_S", 0.2)
    monkeypatch.setattr(app, "openapi_document", lambda: b"x" * (1 << 25))
    async with serving(api) as server:
        streams = await connect(server.address)
        streams[1].write(b"GET /openapi.json HTTP/1.1\r\nhost: relay\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            await streams[0].readuntil(b"\r\n\r\n")
            while server.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        streams[1].close()


async def test_connections_over_the_maximum_are_closed(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 3)
    first, second, third = [await connect(plain) for _ in range(3)]
    assert await is_closed(third)
    first[1].write(HEAD + b"\r\n")
    assert await answer(first) == b"HTTP/1.1 200 OK"
    for streams in (first, second):
        streams[1].close()


@pytest.mark.parametrize(("seen_as", "good"), [("127.0.0.1", True), ("192.0.2.1", False)])
async def test_connections_per_address_are_limited_except_for_loopback(
    plain: Plain, monkeypatch: pytest.MonkeyPatch, seen_as: str, good: bool
) -> None:
    monkeypatch.setattr(http_server, "MOST_FROM_ONE", 1)
    monkeypatch.setattr(http_server, "ip_address", lambda _: ip_address(seen_as))
    first, second = [await connect(plain) for _ in range(2)]
    first[1].write(HEAD + b"\r\n")
    assert await answer(first) == b"HTTP/1.1 200 OK"
    if good:
        second[1].write(HEAD + b"\r\n")
        assert await answer(second) == b"HTTP/1.1 200 OK"
        second[1].close()
    else:
        assert await is_closed(second)
    first[1].close()


@pytest.mark.parametrize("sent", [b"", b"GET /hea", HEAD + b"\r\n"])
async def test_idle_and_half_open_connections_of_the_largest_source_are_evicted(
    plain: Plain, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """An address may use connections that others do not need, until they do."""
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 6)
    greedy = [await connect(plain, "127.0.0.2") for _ in range(5)]
    for streams in greedy:
        streams[1].write(sent)
        if sent.endswith(b"\r\n\r\n"):
            await answer(streams)
    modest = [await connect(plain, "127.0.0.3"), await connect(plain), await connect(plain)]
    for streams in modest:
        streams[1].write(HEAD + b"\r\n")
        assert await answer(streams) == b"HTTP/1.1 200 OK"
    for streams in greedy[:3]:
        assert await is_closed(streams)
    assert await is_closed(await connect(plain, "127.0.0.2"))  # its own connections are not evicted for it
    for streams in [*greedy[3:], *modest]:
        assert not streams[0].at_eof()
        streams[1].close()


async def test_1000_half_open_connections_of_one_address_do_not_block_others(plain: Plain) -> None:
    half_open = [await connect(plain, "127.0.0.2") for _ in range(http_server.MOST_CONNECTIONS)]
    for streams in half_open:
        streams[1].write(b"GET /healthz HTTP/1.1\r\n")
    for source in ("127.0.0.1", "127.0.0.3") * 5:
        streams = await connect(plain, source)
        streams[1].write(HEAD + b"\r\n")
        assert await answer(streams) == b"HTTP/1.1 200 OK"
        streams[1].close()
    for _, writer in half_open:
        writer.close()


async def test_a_connection_with_a_request_in_progress_is_not_evicted(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "MOST_CONNECTIONS", 3)
    go_on, begun = asyncio.Event(), asyncio.Semaphore(0)

    async def slow(_: Request) -> Response:
        begun.release()
        await go_on.wait()
        return Response("x")

    api.app.router.add_route("/slow", slow)
    async with serving(api) as server:
        busy = [await connect(server.address, "127.0.0.2") for _ in range(2)]
        for streams in busy:
            streams[1].write(b"GET /slow HTTP/1.1\r\nhost: relay\r\n\r\n")
            await begun.acquire()
        assert await is_closed(await connect(server.address))
        go_on.set()
        for streams in busy:
            assert await answer(streams) == b"HTTP/1.1 200 OK"
        streams = await connect(server.address)
        streams[1].write(HEAD + b"\r\n")
        assert await answer(streams) == b"HTTP/1.1 200 OK"
        for _, writer in [*busy, streams]:
            writer.close()


async def test_addresses_of_an_ipv6_64_count_as_one(plain: Plain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "MOST_FROM_ONE", 1)
    monkeypatch.setattr(http_server, "ip_address", lambda _: ip_address("2001:db8::1"))
    monkeypatch.setattr(http_server, "source_of", lambda host: source_of(f"2001:db8:0:{host[-1]}::{host[-1]}"))
    first = await connect(plain, "127.0.0.1")
    second = await connect(plain, "127.0.0.11")
    third = await connect(plain, "127.0.0.2")
    assert await is_closed(second)
    for streams in (first, third):
        streams[1].write(HEAD + b"\r\n")
        assert await answer(streams) == b"HTTP/1.1 200 OK"
        streams[1].close()


async def test_a_client_that_disconnects_during_a_request_is_not_an_error(
    api: Api, operator: Client, plain: Plain
) -> None:
    key_id = operator.key.split("_")[1]
    sign = f"RELAY700 key={key_id}, ts={int(api.now())}, nonce=0123456789abcdef, sig=00"
    with capture_logs() as said:
        streams = await connect(plain)
        streams[1].write(
            f"POST /v1/businesses HTTP/1.1\r\nauthorization: {sign}\r\ncontent-length: 9\r\n\r\nx".encode()
        )
        await streams[1].drain()
        streams[1].close()
        async with asyncio.timeout(PATIENCE_S):
            while not said:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert [(line["event"], line["status"]) for line in said] == [("api.request", 0)]
