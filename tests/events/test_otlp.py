"""Spans of a running relay, as a collector receives them by OTLP/HTTP."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from relay.events.otlp import SpanExporter
from relay.net.spans import RequestSpan, Spans
from tests.events.conftest import Log
from tests.story.calls import Ends, call
from tests.story.company import Client, Inbox
from tests.support.addresses import RELAY, free
from tests.support.hook import Hook
from tests.support.phone import Phone
from tests.support.relay_process import A, B, RelayProcess, Setup, X

pytestmark = pytest.mark.outside

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ORDER, QUERY, PATH, METHOD = "order-canary-1", "query-canary-2", "path-canary-3", "PROPFIND"
SERVER, CLIENT = 2, 3  # SpanKind


class Collector:
    """A receiver of spans. `bytes` are the requests as they came."""

    def __init__(self) -> None:
        self.address = free("127.0.0.1")
        self.bytes = bytearray()
        self.spans: list[Any] = []
        self._grown = asyncio.Condition()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/v1/traces", self._receive)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, *self.address).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        told = ExportTraceServiceRequest.FromString(body)
        async with self._grown:
            self.bytes += body
            self.spans += [span for one in told.resource_spans for scope in one.scope_spans for span in scope.spans]
            self._grown.notify_all()
        return web.Response()

    async def span(self, name: str, **attributes: str | int) -> Any:
        """The first span of that name with those attributes ("_" for "." in names)."""

        def found() -> Any:
            wanted = {key.replace("_", "."): value for key, value in attributes.items()}
            return next(
                (each for each in self.spans if each.name == name and wanted.items() <= told(each).items()), None
            )

        try:
            async with asyncio.timeout(30), self._grown:
                await self._grown.wait_for(lambda: found() is not None)
        except TimeoutError:
            raise AssertionError(f"no {name}, but {[each.name for each in self.spans]}") from None
        return found()


def told(span: Any) -> dict[str, str | int]:
    """Attributes of a span, "_" replaced by "."."""
    values = {each.key: each.value for each in span.attributes}
    return {
        key.replace("_", "."): value.int_value if value.HasField("int_value") else value.string_value
        for key, value in values.items()
    }


async def request_with_canaries(relay: RelayProcess, key: str) -> None:
    """Requests whose path, query, method and key hold what no span may have."""
    api = f"http://{relay.setup.api}"
    async with httpx.AsyncClient(trust_env=False, headers={"authorization": f"Bearer {key}"}) as client:
        await client.get(f"{api}/v1/calls", params={"number": A, "order_id": ORDER, "x": QUERY})
        await client.get(f"{api}/v1/bindings/{PATH}{A}")
        await client.get(f"{api}/{PATH}/{A}")
        await client.request(METHOD, f"{api}/v1/calls")
        await client.get(f"{api}/v1/calls", headers={"authorization": f"Bearer {QUERY}"})


async def test_requests_are_traced_and_nothing_of_a_party_is_in_a_span(tmp_path: Path) -> None:
    hook, collector = Hook(), Collector()
    more = f'{hook.toml(tmp_path)}\n[otlp]\nendpoint = "http://{collector.address}"\n'
    setup = Setup(api=free(RELAY), more=more)
    assert setup.api is not None
    async with collector.serving():
        relay = RelayProcess(tmp_path, setup)
        relay.program = (sys.executable, "-P", "-m", "relay")  # the product's Python has no extras
        relay.start()
        try:
            with hook.serving():
                await traced(relay, collector)
        finally:
            relay.stop_and_check()
    for canary in (A, B, A[2:], ORDER, QUERY, PATH, METHOD, str(hook.port)):
        assert canary.encode() not in collector.bytes, canary


async def test_a_collector_that_is_down_is_reported_once(tmp_path: Path) -> None:
    log, spans, address = Log(), Spans(), free("127.0.0.1")
    exporter = SpanExporter(f"http://{address}", spans, None, log.logger)
    for _ in range(2):
        with RequestSpan(spans, "webhook"):
            pass
        await exporter.take()
        await asyncio.to_thread(exporter._provider.force_flush)
        await asyncio.sleep(0)
    assert log.events() == ["otlp.failed"]


async def test_the_answer_of_a_collector_is_not_read(tmp_path: Path) -> None:
    """One that never ends would fill the backend's memory."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n" + bytes(100_000))
        await reader.read()
        writer.close()

    log, spans, address = Log(), Spans(), free("127.0.0.1")
    async with await asyncio.start_server(answer, *address):
        exporter = SpanExporter(f"http://{address}", spans, None, log.logger)
        with RequestSpan(spans, "webhook"):
            pass
        await exporter.take()
        await asyncio.to_thread(exporter._provider.force_flush)
        await asyncio.sleep(0)
    assert log.events() == []


async def traced(relay: RelayProcess, collector: Collector) -> None:
    setup = relay.setup
    assert setup.api is not None
    key = relay.answer("keys", "make", "--operator", "--json")["secret"]
    async with Client(setup.api, key) as operator, Inbox() as inbox:
        await operator.until_ready()
        url = f"{inbox.url}?token={QUERY}"
        inbox.secret = (await operator.post("/v1/webhooks", {"url": url, "business_id": "default"}))["secret"]
        parent = f"00-{TRACE}-{PARENT}-01"
        await operator.ask("GET", f"/v1/calls?number={X}&order_id={ORDER}", traceparent=parent)
        relay.answer("bind", "AXB", "--a", A, "--b", B, "--x", X, "--order", ORDER, "--json")
        async with Phone(setup.caller) as left, Phone(setup.callee) as right:
            await call(Ends(relay, left, right), A, X)
        await inbox.event("call.ended")
        await request_with_canaries(relay, key)

        asked = await collector.span("GET /v1/calls", http_response_status_code=200)
        assert (asked.trace_id.hex(), asked.parent_span_id.hex(), asked.kind) == (TRACE, PARENT, SERVER)
        assert asked.start_time_unix_nano < asked.end_time_unix_nano
        delivery = await collector.span("webhook", http_response_status_code=200)
        verified = await collector.span("verification hook", http_response_status_code=200)
        assert (delivery.kind, verified.kind) == (CLIENT, CLIENT)
        await collector.span("GET", http_response_status_code=401)
        await collector.span("_OTHER /v1/calls", http_response_status_code=405)
        await collector.span("GET /v1/bindings/{binding_id}")
        await collector.span("GET", http_response_status_code=404)
