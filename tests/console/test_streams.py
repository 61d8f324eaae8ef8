"""Live parts of pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from relay.console import streams as module
from relay.console.page import ConsolePage
from relay.console.sessions import Session
from relay.console.streams import MOST_OF_SESSION, Streams
from relay.store.keys import set_revoked
from tests.api.conftest import FAST, Api, Client, Json
from tests.console.conftest import Browser, Console

STREAM = "/console/stream/live"
CALL: Json = {"calls": [], "total": 0}


@pytest.fixture
async def browser(console: Console, operator: Client, relay: dict[str, Callable[..., Json]]) -> Browser:
    relay["live"] = lambda **asked: CALL
    return await console.of(operator)


async def test_a_stream_sends_parts_and_ends_at_shutdown(console: Console, browser: Browser) -> None:
    console.streams.finish()
    answer = await browser.http.get(STREAM)
    assert answer.headers["content-type"].startswith("text/event-stream")
    event, data, *_ = answer.text.splitlines()
    assert event == "event: part"
    assert "No call is up" in json.loads(data.removeprefix("data: "))["html"]


async def test_only_what_changed_is_sent_and_the_end_of_the_session_ends_it(
    browser: Browser, api: Api, operator: Client, relay: dict[str, Callable[..., Json]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    monkeypatch.setattr(module, "ALIVE_EVERY", 2)
    asked = 0
    enough = asyncio.Event()

    def live(**_: object) -> Json:
        nonlocal asked
        asked += 1
        if asked == 6:
            enough.set()
        return CALL

    relay["live"] = live
    reading = asyncio.create_task(browser.http.get(STREAM))
    await enough.wait()
    await api.run(lambda unit: set_revoked(unit, operator.key.split("_")[1]))
    text = (await reading).text
    assert text.count("event: part") == 1 and ":\n\n" in text
    assert text.endswith("event: over\ndata: {}\n\n")


async def test_a_stream_without_a_session_says_that_it_is_over(console: Console) -> None:
    answer = await console.stranger().http.get(STREAM, headers={"accept": "text/event-stream"})
    assert (answer.status_code, answer.text) == (200, "event: over\ndata: {}\n\n")


async def test_a_stream_that_is_refused_for_now_asks_again(api: Api) -> None:
    api.backend.settings = FAST._replace(requests_per_s=1, burst=1)
    api = Api(api.backend)
    browser = await Console(api).of(await api.operator())
    asked = {"accept": "text/event-stream"}
    told = [(await browser.http.get("/console/stream/nothing", headers=asked)).status_code for _ in range(3)]
    answer = await browser.http.get(STREAM, headers=asked)
    assert (told, answer.status_code, answer.text) == ([404, 200, 200], 200, "retry: 10000\n\n")


async def test_a_session_has_few_streams(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Semaphore(0)
    going = asyncio.Event()

    async def parts(page: ConsolePage, *_: object) -> Mapping[str, str]:
        begun.release()
        await going.wait()
        return {}

    monkeypatch.setattr(module, "_changed", parts)
    monkeypatch.setattr(ConsolePage, "is_still_logged_in", lambda _: not going.is_set())
    reading = [asyncio.create_task(browser.http.get(STREAM)) for _ in range(MOST_OF_SESSION)]
    for _ in reading:
        await begun.acquire()
    assert (await browser.http.get(STREAM)).status_code == 204
    going.set()
    monkeypatch.setattr(module, "EVERY_S", 0)
    for each in reading:
        await each


async def test_nobody_uses_up_the_streams_of_others(
    console: Console, operator: Client, api: Api, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Semaphore(0)
    going = asyncio.Event()

    async def parts(page: ConsolePage, *_: object) -> Mapping[str, str]:
        begun.release()
        await going.wait()
        return {}

    monkeypatch.setattr(module, "_changed", parts)
    monkeypatch.setattr(module, "MOST_OF_ONE", 1)
    monkeypatch.setattr(ConsolePage, "is_still_logged_in", lambda _: not going.is_set())
    same, other = await console.of(operator), await console.of(await api.company("acme"))
    first = asyncio.create_task(browser.http.get(STREAM))
    await begun.acquire()
    assert (await same.http.get(STREAM)).status_code == 204
    second = asyncio.create_task(other.http.get(STREAM))
    await begun.acquire()
    going.set()
    monkeypatch.setattr(module, "EVERY_S", 0)
    await first
    await second


async def test_streams_asked_for_at_once_do_not_exceed_the_limit(console: Console, browser: Browser) -> None:
    """Nor does one count for longer than its response, if the browser is gone before it begins."""
    cookie = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    begun: list[int] = []
    answered, gone = asyncio.Semaphore(0), asyncio.Event()

    async def ask() -> None:
        async def receive() -> Message:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message["status"])
                answered.release()

        scope = {"type": "http", "method": "GET", "path": STREAM, "raw_path": STREAM.encode(), "query_string": b""}
        scope |= {"scheme": "http", "http_version": "1.1", "root_path": "", "client": ("127.0.0.1", 5000)}
        scope |= {"server": ("127.0.0.1", 80), "headers": [(b"host", b"127.0.0.1"), (b"cookie", cookie.encode())]}
        await console.api.app(scope, receive, send)

    for at_once in (3 * MOST_OF_SESSION, MOST_OF_SESSION):
        asked = [asyncio.create_task(ask()) for _ in range(at_once)]
        for _ in asked:
            await answered.acquire()
        assert begun.count(200) == MOST_OF_SESSION
        gone.set()
        await asyncio.gather(*asked)
        gone.clear()
        begun.clear()


async def test_a_stream_that_never_begins_is_not_counted() -> None:
    async def send(message: Message) -> None:
        raise OSError("the browser is gone")

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    streams, page = Streams(), SimpleNamespace(session=Session("key", "shunda", 0, 0), request=SimpleNamespace())
    page.request.scope = {"state": {}}
    for _ in range(2 * MOST_OF_SESSION):
        answer = streams.answer(page, None, 1)  # type: ignore[arg-type]
        assert answer.status_code == 200
        with pytest.raises(ClientDisconnect):
            await answer({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
