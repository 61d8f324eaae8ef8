"""The exporter of spans to an OpenTelemetry collector by OTLP/HTTP, with the SDK's batches, retries and encoding.

It runs in the backend. The relay keeps spans of the verification hook, and is asked for them once a second: the SDK's
thread and its encoding would take CPU time from calls. The SDK is an extra, imported when the exporter is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from threading import Thread
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from relay.errors import Refused, RelayError
from relay.log import Outage
from relay.net.spans import Span, Spans
from relay.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

EXPORT_S = 1.0  # interval of taking the spans
REQUEST_S = 2.0  # limit of one request to the collector
FLUSH_S = 1.0  # limit for the last spans at shutdown


class SpanExporter:
    """The task of the backend: `run` it until it is cancelled."""

    def __init__(
        self,
        endpoint: str,
        spans: Spans,
        ask_relay: Callable[[str], Awaitable[dict[str, Any]]] | None,
        log: FilteringBoundLogger,
    ) -> None:
        """Make it in the loop that runs it. `ask_relay` asks the admin socket; None: the relay makes no spans."""
        self._spans = spans
        self._ask_relay = ask_relay
        self._ids = _ids()
        self._outage = Outage("otlp", log)
        self._loop = asyncio.get_running_loop()
        self._provider = _provider(endpoint, self._ids, self._sent)
        self._tracer = self._provider.get_tracer("relay700", VERSION)

    async def run(self) -> None:
        try:
            while True:
                await asyncio.sleep(EXPORT_S)
                await self.take()
        finally:
            self._export(self._spans.take())
            flushing = Thread(target=self._provider.force_flush, daemon=True)  # it obeys no time limit
            flushing.start()
            await asyncio.to_thread(flushing.join, FLUSH_S)

    def _sent(self, was_sent: bool) -> None:
        """Called in the SDK's thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._report, was_sent)

    def _report(self, was_sent: bool) -> None:
        if was_sent:
            self._outage.over()
        else:
            self._outage.failed(RelayError("the collector does not take spans: they are dropped"))

    async def take(self) -> None:
        """Hand the finished spans of this process and of the relay to the SDK."""
        self._export(self._spans.take())
        if self._ask_relay is not None:
            with contextlib.suppress(Refused):
                told = await self._ask_relay("spans")
                self._export([Span(*each) for each in told["spans"]])

    def _export(self, spans: list[Span]) -> None:
        from opentelemetry import trace
        from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

        for span in spans:
            self._ids.trace_id, self._ids.span_id = int(span.trace_id, 16), int(span.span_id, 16)
            context = None
            if span.parent_id:
                parent = SpanContext(self._ids.trace_id, int(span.parent_id, 16), True, TraceFlags(TraceFlags.SAMPLED))
                context = trace.set_span_in_context(NonRecordingSpan(parent))
            kind = SpanKind.SERVER if span.is_server else SpanKind.CLIENT
            made = self._tracer.start_span(span.name, context, kind, span.attributes, start_time=span.began_ns)
            if span.failed:
                made.set_status(Status(StatusCode.ERROR))
            made.end(span.ended_ns)


def _ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Ids(IdGenerator):
        """Gives a span the ids that it was sent with."""

        trace_id = span_id = 0

        def generate_trace_id(self) -> int:
            return self.trace_id

        def generate_span_id(self) -> int:
            return self.span_id

    return Ids()


def _leave_unread(response: Any, **_: Any) -> None:
    """Close the answer unread: the status is enough, and an endless answer would fill the memory."""
    response._content = b""
    response.close()


def _provider(endpoint: str, ids: Any, report: Callable[[bool], object]) -> TracerProvider:
    """`report` is called in the SDK's thread, after each batch."""
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    class Exporter(OTLPSpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            report(result is SpanExportResult.SUCCESS)
            return result

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it reports each failed batch twice
    resource = Resource.create({SERVICE_NAME: "relay700", SERVICE_VERSION: VERSION})
    provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=ids)
    session = requests.Session()
    session.trust_env = False  # no proxy from the environment, as for all our requests
    session.hooks["response"].append(_leave_unread)
    exporter = Exporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=REQUEST_S, session=session)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
