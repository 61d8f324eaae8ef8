"""Answers of hostile HTTP servers, over real connections: how much of them is parsed, and what is left of them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler

from relay.net import http_client as module
from relay.net.http_client import LONGEST_HEAD, MOST_OF_OWNER, OWNER, AnswerTooLong, BoundedConnector, SystemResolver

LONGEST_BODY = 4_096
INTERIM = b"HTTP/1.1 100 \r\n\r\n"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MUCH = 4_000_000


class Server:
    """It sends the next of its answers after each request."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.lost = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answers.pop(0))
                await writer.drain()
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        self.lost.set()
        writer.close()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[Server]:
    server = Server(*answers)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=BoundedConnector(LONGEST_BODY)) as made:
        yield made


@pytest.fixture
def heads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The statuses of the parsed heads."""
    parsed: list[int] = []
    feed = ResponseHandler.feed_data

    def feed_data(handler: ResponseHandler, data: Any, size: int = 0) -> None:
        parsed.append(data[0].code)
        feed(handler, data, size)

    monkeypatch.setattr(ResponseHandler, "feed_data", feed_data)
    return parsed


async def post(session: aiohttp.ClientSession, url: str) -> bytes:
    async with asyncio.timeout(20), session.post(url) as response:
        return await response.read()


async def test_a_flood_of_interim_answers_ends_the_request(session: aiohttp.ClientSession, heads: list[int]) -> None:
    async with serving(INTERIM * (MUCH // len(INTERIM)) + GOOD) as server:
        with pytest.raises(AnswerTooLong):
            await post(session, server.url)
        await asyncio.wait_for(server.lost.wait(), 20)
    assert 0 < len(heads) <= LONGEST_HEAD / len(INTERIM)


async def test_a_few_interim_answers_are_skipped(session: aiohttp.ClientSession) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    async with serving(hints + INTERIM + GOOD) as server:
        assert await post(session, server.url) == b"{}"


async def test_what_follows_an_answer_is_not_parsed(session: aiohttp.ClientSession, heads: list[int]) -> None:
    async with serving(EMPTY * (MUCH // len(EMPTY))) as server:
        assert await post(session, server.url) == b""
        await asyncio.wait_for(server.lost.wait(), 20)
    assert 0 < len(heads) <= LONGEST_HEAD / len(EMPTY) + 1


@pytest.mark.parametrize(
    "answer",
    [
        CHUNKED + b"1\r\nx\r\n" * (MUCH // 6),
        b"HTTP/1.1 200 OK\r\n\r\n" + bytes(MUCH),
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MUCH + bytes(MUCH),
    ],
    ids=["chunks of one byte", "until the end", "with its length"],
)
async def test_a_body_that_is_too_long_fails_when_it_is_read(session: aiohttp.ClientSession, answer: bytes) -> None:
    async with serving(answer) as server:
        async with asyncio.timeout(20), session.post(server.url) as response:
            assert response.status == 200
            with pytest.raises(AnswerTooLong):
                await response.read()
        await asyncio.wait_for(server.lost.wait(), 20)


async def test_the_longest_body_is_read(session: aiohttp.ClientSession) -> None:
    body = b"x" * LONGEST_BODY
    head = b"HTTP/1.1 200 OK\r\nX: %s\r\nContent-Length: %d\r\n\r\n" % (b"y" * 7_000, len(body))
    async with serving(head + body) as server:
        assert await post(session, server.url) == body


async def test_a_connection_is_used_again(session: aiohttp.ClientSession) -> None:
    """With a new limit for each answer."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LONGEST_BODY + b"x" * LONGEST_BODY
    async with serving(*[answer] * 4) as server:
        assert [len(await post(session, server.url)) for _ in range(4)] == [LONGEST_BODY] * 4
        assert server.connections == 1


async def test_a_flood_on_an_idle_connection_closes_it(session: aiohttp.ClientSession, heads: list[int]) -> None:
    async with serving(GOOD, GOOD) as server:
        writers: list[asyncio.StreamWriter] = []
        serve = server.serve

        async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await serve(reader, writer)

        async with await asyncio.start_server(kept, "127.0.0.1", 0) as listener:
            url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
            assert await post(session, url) == b"{}"
            writers[0].write(EMPTY * 10_000)
            await asyncio.wait_for(server.lost.wait(), 20)
            assert await post(session, url) == b"{}"
    assert (heads, server.connections) == ([200, 200], 2)


# -- Host names


class SilentNames:
    """`silent-….example` has name servers that never answer until they are released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.released = threading.Event()
        self._find = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._look_up)

    def _look_up(self, host: str, *rest: Any, **named: Any) -> Any:
        if not host.startswith("silent-"):
            return self._find(host, *rest, **named)
        self.asked.append(host)
        self.released.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentNames]:
    made = SilentNames(monkeypatch)
    yield made
    made.released.set()


@pytest.fixture
async def resolver() -> AsyncIterator[SystemResolver]:
    made = SystemResolver()
    yield made
    await made.close()


async def look_up(resolver: SystemResolver, owner: str, host: str) -> bool:
    """Whether there is an answer within a short time."""
    OWNER.set(owner)
    with suppress(TimeoutError):
        await asyncio.wait_for(resolver.resolve(host, 443), 2.0 if host == "localhost" else 0.01)
        return True
    return False


async def test_look_ups_count_until_their_threads_end(names: SilentNames, resolver: SystemResolver) -> None:
    for n in range(MOST_OF_OWNER):
        assert not await look_up(resolver, "shop", f"silent-{n}.example")
    with pytest.raises(OSError, match="too many"):
        await look_up(resolver, "shop", "localhost")
    assert await look_up(resolver, "other", "localhost")
    names.released.set()
    async with asyncio.timeout(20):
        while True:
            with suppress(OSError):
                if await look_up(resolver, "shop", "localhost"):
                    break
            await asyncio.sleep(0.01)
    assert len(names.asked) == MOST_OF_OWNER


async def test_several_business_users_leave_some_look_ups_to_others(
    names: SilentNames, resolver: SystemResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads wait for the first look-up of each."""
    monkeypatch.setattr(module, "MOST_LOOK_UPS", 20)
    for owner in range(5):
        for n in range(10):
            with suppress(OSError):
                await look_up(resolver, f"shop-{owner}", f"silent-{owner}-{n}.example")
    assert 5 <= len(names.asked) < 20
    assert await look_up(resolver, "other", "localhost")
