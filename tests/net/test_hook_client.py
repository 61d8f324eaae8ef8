"""The client of hooks, against a real HTTP server: a question gets one answer in time, and only a signed one counts."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from aiohttp.client_proto import ResponseHandler

from relay.net import hook_client
from relay.net.hook_client import (
    LONGEST_ANSWER,
    SIGNATURE,
    HookClient,
    HookEndpoint,
    answer_signature,
    signature_header,
)
from relay.policy.decision import FAILURES, LATELY_S, OPEN_S

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
YES = '{"allow": true}'
QUESTION = {"number": "700100000010001"}


@asynccontextmanager
async def endpoint(answer: Answer) -> AsyncIterator[HookEndpoint]:
    """A running hook."""
    app = web.Application()
    app.router.add_post("/verify", answer)
    app.router.add_route("*", "/elsewhere", says(YES))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield HookEndpoint("", f"http://127.0.0.1:{port}/verify", "secret")
    finally:
        await runner.cleanup()


def says(text: str, status: int = 200, secret: str = "secret") -> Answer:
    async def answer(request: web.Request) -> web.Response:
        signature = answer_signature(secret, request.headers[SIGNATURE], text.encode())
        return web.Response(text=text, status=status, headers={"Location": "/elsewhere", SIGNATURE: signature})

    return answer


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


class Client(HookClient):
    """A client whose reports are kept."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self.reports: list[tuple[str, object]] = []
        super().__init__(lambda event, fields: self.reports.append((event, fields["business"])), clock_s=clock_s)


@asynccontextmanager
async def client(clock_s: Callable[[], float] = time.monotonic) -> AsyncIterator[Client]:
    made = Client(clock_s)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def asked(hook: HookEndpoint, timeout_s: float = 10.0) -> bytes | str:
    async with client() as made:
        return await made.ask(hook, QUESTION, timeout_s)


async def test_the_body_of_a_signed_answer_is_returned() -> None:
    for text in (YES, '{"allow": false}', "anything"):
        async with endpoint(says(text)) as hook:
            assert await asked(hook) == text.encode()


@pytest.mark.parametrize(
    "answer",
    [says(YES, 201), says(YES, 500), says(YES, 307), says(YES + " " * LONGEST_ANSWER)],
    ids=["201", "500", "redirect", "without end"],
)
async def test_other_answers_are_none(answer: Answer) -> None:
    async with endpoint(answer) as hook:
        assert await asked(hook) == "no_answer"


async def test_a_flood_of_interim_answers_is_none_and_opens_the_breaker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not parsed, which would hold up calls."""
    heads: list[int] = []
    feed = ResponseHandler.feed_data

    def feed_data(handler: ResponseHandler, data: Any, size: int = 0) -> None:
        heads.append(data[0].code)
        feed(handler, data, size)

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(b"HTTP/1.1 100 \r\n\r\n" * 200_000)
            await writer.drain()
        writer.close()

    monkeypatch.setattr(ResponseHandler, "feed_data", feed_data)
    async with await asyncio.start_server(flood, "127.0.0.1", 0) as server, client() as made:
        hook = HookEndpoint("shop", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "secret")
        answers = [await made.ask(hook, QUESTION, 30.0) for _ in range(FAILURES + 1)]
    assert answers == ["no_answer"] * FAILURES + ["not_asked"]
    assert len(heads) < FAILURES * 500


async def test_an_answer_needs_the_signature_of_this_question() -> None:
    kept: list[str] = []

    async def unsigned(request: web.Request) -> web.Response:
        return web.Response(text=YES)

    async def of_the_first_question(request: web.Request) -> web.Response:
        kept.append(request.headers[SIGNATURE])
        return web.Response(text=YES, headers={SIGNATURE: answer_signature("secret", kept[0], YES.encode())})

    async def of_another_body(request: web.Request) -> web.Response:
        signature = answer_signature("secret", request.headers[SIGNATURE], b'{"allow": false}')
        return web.Response(text=YES, headers={SIGNATURE: signature})

    async def sent_back(request: web.Request) -> web.Response:
        return web.Response(body=await request.read(), headers={SIGNATURE: request.headers[SIGNATURE]})

    for answer in (unsigned, of_another_body, sent_back, says(YES, secret="other")):
        async with endpoint(answer) as hook:
            assert await asked(hook) == "not_signed"
    async with endpoint(of_the_first_question) as hook:
        assert [await asked(hook), await asked(hook)] == [YES.encode(), "not_signed"]


async def test_a_signature_that_is_no_text_is_a_wrong_one() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nRelay700-Signature: v1=\xff\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await asked(HookEndpoint("", f"http://127.0.0.1:{port}/", "secret")) == "not_signed"


async def test_a_compressed_answer_is_not_decompressed() -> None:
    """The size limit applies to the bytes received, and so does the signature."""
    asked_for: list[str] = []

    async def packed(request: web.Request) -> web.StreamResponse:
        asked_for.append(request.headers["Accept-Encoding"])
        body = gzip.compress(YES.encode(), mtime=0)
        signature = answer_signature("secret", request.headers[SIGNATURE], body)
        return web.Response(body=body, headers={"Content-Encoding": "gzip", SIGNATURE: signature})

    async with endpoint(packed) as hook:
        assert await asked(hook) == gzip.compress(YES.encode(), mtime=0)
    assert asked_for == ["identity"]


async def test_a_time_out_and_an_unreachable_endpoint_give_no_answer() -> None:
    async with endpoint(never) as hook:
        assert await asked(hook, timeout_s=0.05) == "no_answer"
    assert await asked(hook) == "no_answer"
    assert await asked(hook._replace(url="https://no-such-host.invalid/")) == "no_answer"


async def test_the_hook_of_a_business_user_is_never_asked_at_an_internal_address() -> None:
    async with endpoint(says(YES)) as hook:
        assert await asked(hook._replace(internal=False)) == "no_answer"
        assert await asked(hook) == YES.encode()


async def test_the_question_is_signed_and_no_two_are_alike() -> None:
    heard: list[tuple[dict[str, object], str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        time, _, signature = request.headers[SIGNATURE].partition(",")
        expected = hmac.new(b"secret", time.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
        heard.append((json.loads(body), signature, f"v1={expected}"))
        return web.Response(text=YES)

    async with endpoint(answer) as hook:
        await asked(hook)
        await asked(hook)
    assert [signature == expected for _, signature, expected in heard] == [True, True]
    nonces = {question.pop("nonce") for question, _, _ in heard}
    assert len(nonces) == 2
    assert [question for question, _, _ in heard] == [QUESTION, QUESTION]


# -- the circuit breaker


async def test_a_hook_that_does_not_answer_is_not_asked_for_a_while() -> None:
    times = 0

    async def counted(request: web.Request) -> web.StreamResponse:
        nonlocal times
        times += 1
        return web.Response(status=500)

    async with endpoint(counted) as hook, endpoint(says(YES)) as other, client() as made:
        hook = hook._replace(business="shop")
        answers = [await made.ask(hook, QUESTION, 10.0) for _ in range(FAILURES + 2)]
        assert answers == ["no_answer"] * FAILURES + ["not_asked"] * 2
        assert await made.ask(other, QUESTION, 10.0) == YES.encode()
        assert made.statistics()["hook_breaker_open"] == {"hook shop": 1, "verify ": 0}
    assert (times, made.reports) == (FAILURES, [("hook.fails", "shop")])


async def test_a_hook_that_answers_again_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.policy.decision.OPEN_S", 0.0)
    async with endpoint(says(YES)) as hook, client() as made:
        gone = hook._replace(url="http://127.0.0.1:1/")
        for _ in range(FAILURES):
            await made.ask(gone, QUESTION, 10.0)
        assert await made.ask(hook, QUESTION, 10.0) == YES.encode()
        assert made.statistics()["hook_breaker_open"] == {"verify ": 0}
    assert [event for event, _ in made.reports] == ["hook.fails", "hook.answers_again"]


async def test_a_hook_that_is_asked_no_longer_is_none_that_fails() -> None:
    """It was removed, its business user suspended, or the night is quiet: no alert can tell when that ends."""
    now_s = 1_000.0
    async with client(lambda: now_s) as made:
        for _ in range(FAILURES):
            await made.ask(HookEndpoint("shop", "http://127.0.0.1:1/", "secret"), QUESTION, 10.0)
        assert made.statistics()["hook_breaker_open"] == {"hook shop": 1}
        now_s += OPEN_S + LATELY_S
        assert made.statistics()["hook_breaker_open"] == {"hook shop": 0}


async def test_forged_answers_do_not_open_the_breaker() -> None:
    """With `fail = "open"` they would let every call through."""
    async with endpoint(says(YES, secret="other")) as hook, client() as made:
        answers = {await made.ask(hook, QUESTION, 10.0) for _ in range(FAILURES + 1)}
        assert (answers, made.reports) == ({"not_signed"}, [])


async def test_one_business_user_has_a_share_of_the_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_client, "MOST_OF_ONE", 1)
    begun = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        begun.set()
        return await never(request)

    async with endpoint(slow) as hook, client() as made:
        hook = hook._replace(business="shop")
        first = asyncio.create_task(made.ask(hook, QUESTION, 30.0))
        await begun.wait()
        assert await made.ask(hook, QUESTION, 30.0) == "no_room"
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_slow_hooks_of_several_business_users_leave_some_questions_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hook_client, "MOST_OPEN", 8)

    async def slow_but_one(request: web.Request) -> web.StreamResponse:
        if (await request.json())["business_id"] != "honest":
            await asyncio.Event().wait()
        return await says(YES)(request)

    async with endpoint(slow_but_one) as hook, client() as made:

        async def ask(business: str) -> bytes | str:
            return await made.ask(hook._replace(business=business), {"business_id": business}, 10.0)

        slow = [asyncio.create_task(ask(f"slow-{n % 3}")) for n in range(30)]
        await asyncio.sleep(0)  # all have begun
        assert await ask("honest") == YES.encode()
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_names_that_no_server_answers_for_hold_up_no_other_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, find = threading.Event(), socket.getaddrinfo
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def look_up(host: str, *rest: Any, **named: Any) -> Any:
        if host.endswith(".slow.example"):
            loop.call_soon_threadsafe(begun.set)
            answered.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return find(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    async with endpoint(says(YES)) as hook, client() as made:
        port = urlsplit(hook.url).port
        asking = [
            asyncio.create_task(
                made.ask(HookEndpoint(f"shop-{n}", f"https://{n}.slow.example/", "secret"), QUESTION, 30.0)
            )
            for n in range(40)
        ]
        try:
            async with asyncio.timeout(10):
                await begun.wait()
                named = hook._replace(url=f"http://localhost:{port}/verify")
                assert await made.ask(named, QUESTION, 10.0) == YES.encode()
        finally:
            answered.set()
            assert set(await asyncio.gather(*asking)) == {"no_answer"}


async def test_look_ups_of_a_hook_are_those_of_its_business_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """They go on when the question is over."""
    monkeypatch.setattr("relay.net.http_client.MOST_OF_OWNER", 2)
    asked, released = [], threading.Event()

    def look_up(host: str, *rest: Any, **named: Any) -> Any:
        asked.append(host)
        released.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    try:
        async with client() as made:
            for business in ("shop", "other"):
                for n in range(4):
                    hook = HookEndpoint(business, f"https://{business}-{n}.slow.example/", "secret")
                    assert await made.ask(hook, QUESTION, 0.05) == "no_answer"
    finally:
        released.set()
    assert asked == [f"{business}-{n}.slow.example" for business in ("shop", "other") for n in range(2)]


# -- Signatures of the relay's HTTP requests


def test_time_and_body_are_signed() -> None:
    expected = hmac.new(b"secret", b"1800000000.{}", hashlib.sha256).hexdigest()
    assert signature_header("secret", 1_800_000_000, b"{}") == f"t=1800000000,v1={expected}"
    assert signature_header("secret", 1_800_000_001, b"{}") != signature_header("secret", 1_800_000_000, b"{}")
    assert signature_header("other", 1_800_000_000, b"{}") != signature_header("secret", 1_800_000_000, b"{}")


def test_an_answer_signs_the_signature_of_its_question_and_its_body() -> None:
    expected = hmac.new(b"secret", b"answer.t=1,v1=ab.{}", hashlib.sha256).hexdigest()
    assert answer_signature("secret", "t=1,v1=ab", b"{}") == f"v1={expected}"
