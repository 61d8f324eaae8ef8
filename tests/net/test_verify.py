"""The verification hook, against a real HTTP server: every call gets exactly one answer, in time."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from relay.model.actions import LookUp
from relay.model.call import Refusal, Route
from relay.net.verify import LONGEST_ANSWER, Verifier, signature_header
from tests.support.stored import A, B, X

ASKED = LookUp(7, X, A)
ROUTE = Route("b1", "AXB", "firm", "order-1", B, X, direction="a_to_b", verify=True, industrial_id="88.101.1/7")
FAILED = Refusal("verification_failed", 503, 41, 5, "b1", "AXB", "firm", "order-1", industrial_id="88.101.1/7")
REFUSED = Refusal("verification_refused", 403, 21, None, "b1", "AXB", "firm", "order-1", industrial_id="88.101.1/7")

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def endpoint(answer: Answer) -> AsyncIterator[str]:
    """A running endpoint; yields its URL."""
    app = web.Application()
    app.router.add_post("/verify", answer)
    app.router.add_route("*", "/elsewhere", says('{"allow": true}'))
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"http://127.0.0.1:{port}/verify"
    finally:
        await runner.cleanup()


def says(text: str, status: int = 200) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=text, status=status, headers={"Location": "/elsewhere"})

    return answer


async def asked(
    url: str, *, timeout_s: float = 10.0, fail_open: bool = False, verifier: Verifier | None = None
) -> object:
    made = verifier or Verifier(url, "secret", timeout_s, fail_open=fail_open)
    await made.open()
    answers: asyncio.Queue[tuple[int, Route | Refusal]] = asyncio.Queue()
    made.ask(ASKED, ROUTE, lambda token, answer: answers.put_nowait((token, answer)))
    token, answer = await asyncio.wait_for(answers.get(), 20)
    await made.close()
    assert (token, answers.qsize()) == (7, 0)
    return answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [('{"allow": true}', ROUTE), ('{"allow": false}', REFUSED), ('{"allow": true, "note": [1]}', ROUTE)],
)
async def test_the_endpoint_s_verdict_is_applied(text: str, answer: object) -> None:
    for fail_open in (False, True):
        async with endpoint(says(text)) as url:
            assert await asked(url, fail_open=fail_open) == answer


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize(
    "answer",
    [
        says('{"allow": true}', 201),
        says('{"allow": true}', 500),
        says('{"allow": true}', 307),
        says('{"allow": "true"}'),
        says('{"allow": 1}'),
        says("{}"),
        says("[true]"),
        says(""),
        says('{"allow": true' + " " * LONGEST_ANSWER + "}"),
    ],
    ids=["201", "500", "redirect", "a text", "a number", "nothing", "a list", "empty", "without end"],
)
async def test_other_answers_are_no_verdict(answer: Answer, fail_open: bool) -> None:
    async with endpoint(answer) as url:
        assert await asked(url, fail_open=fail_open) == (ROUTE if fail_open else FAILED)


async def test_a_compressed_answer_is_not_decompressed() -> None:
    """The size limit applies to the bytes received."""
    asked_for: list[str] = []

    async def packed(request: web.Request) -> web.StreamResponse:
        asked_for.append(request.headers["Accept-Encoding"])
        return web.Response(body=gzip.compress(b'{"allow": true}'), headers={"Content-Encoding": "gzip"})

    async with endpoint(packed) as url:
        assert await asked(url) == FAILED
    assert asked_for == ["identity"]


@pytest.mark.parametrize("fail_open", [False, True])
async def test_a_time_out_gives_no_verdict(fail_open: bool) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with endpoint(never) as url:
        assert await asked(url, timeout_s=0.05, fail_open=fail_open) == (ROUTE if fail_open else FAILED)


@pytest.mark.parametrize("fail_open", [False, True])
async def test_an_unreachable_endpoint_gives_no_verdict(fail_open: bool) -> None:
    async with endpoint(says("")) as url:
        pass
    assert await asked(url, fail_open=fail_open) == (ROUTE if fail_open else FAILED)


async def test_the_request_describes_the_call_without_the_callee_and_is_signed() -> None:
    heard: list[tuple[dict[str, object], str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        time, _, signature = request.headers["Relay700-Signature"].partition(",")
        expected = hmac.new(b"secret", time.removeprefix("t=").encode() + b"." + body, hashlib.sha256).hexdigest()
        heard.append((json.loads(body), signature, f"v1={expected}"))
        return web.json_response({"allow": True})

    async with endpoint(answer) as url:
        await asked(url)
    ((question, signature, expected),) = heard
    assert signature == expected
    assert isinstance(question.pop("at"), int)
    assert question == {
        "kind": "call",
        "number": X,
        "caller": A,
        "business": "firm",
        "binding_id": "b1",
        "order_id": "order-1",
        "industrial_id": "88.101.1/7",
        "mode": "AXB",
        "direction": "a_to_b",
    }


async def test_verdicts_are_counted() -> None:
    async with endpoint(says('{"allow": false}')) as url:
        verifier = Verifier(url, "secret", 5.0, fail_open=True)
        await asked(url, verifier=verifier)
        assert verifier.counters == {"allowed": 0, "refused": 1, "failed": 0}


async def test_open_requests_are_refused_on_close() -> None:
    begun = asyncio.Event()

    async def never(request: web.Request) -> web.StreamResponse:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with endpoint(never) as url:
        verifier = Verifier(url, "secret", 30.0, fail_open=True)
        await verifier.open()
        answers: list[object] = []
        verifier.ask(ASKED, ROUTE, lambda token, answer: answers.append(answer))
        await begun.wait()
        await verifier.close()
        assert answers == [FAILED]


# -- Signatures of the relay's HTTP requests


def test_time_and_body_are_signed() -> None:
    expected = hmac.new(b"secret", b"1800000000.{}", hashlib.sha256).hexdigest()
    assert signature_header("secret", 1_800_000_000, b"{}") == f"t=1800000000,v1={expected}"
    assert signature_header("secret", 1_800_000_001, b"{}") != signature_header("secret", 1_800_000_000, b"{}")
    assert signature_header("other", 1_800_000_000, b"{}") != signature_header("secret", 1_800_000_000, b"{}")
