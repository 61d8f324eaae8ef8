"""Spans of HTTP requests and their trace context."""

from __future__ import annotations

import pytest

from relay.net.spans import MOST, RequestSpan, Span, Spans

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def span_of(traceparent: str = "", status: int = 200) -> Span | None:
    spans = Spans()
    with RequestSpan(spans, "GET /v1/calls", {"a": 1}, is_server=True, traceparent=traceparent) as span:
        span.status = status
    taken = spans.take()
    return taken[0] if taken else None


def test_a_request_continues_the_trace_it_belongs_to() -> None:
    span = span_of(f"00-{TRACE}-{PARENT}-01")
    assert span is not None
    assert (span.name, span.is_server, span.trace_id, span.parent_id) == ("GET /v1/calls", True, TRACE, PARENT)
    assert span.span_id not in ("", PARENT)
    assert span.began_ns <= span.ended_ns
    assert (span.attributes, span.failed) == ({"a": 1, "http.response.status_code": 200}, False)


def test_the_request_sent_carries_its_own_span() -> None:
    spans = Spans()
    with RequestSpan(spans, "webhook") as span:
        assert span.headers.keys() == {"traceparent"}
        span.status = 204
    (taken,) = spans.take()
    assert span.headers["traceparent"] == f"00-{taken.trace_id}-{taken.span_id}-01"
    assert (len(taken.trace_id), len(taken.span_id), taken.parent_id) == (32, 16, "")


def test_a_trace_that_is_not_sampled_stays_so() -> None:
    assert span_of(f"00-{TRACE}-{PARENT}-00") is None


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "13800000001",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
    ],
)
def test_an_invalid_traceparent_begins_a_new_trace(traceparent: str) -> None:
    span = span_of(traceparent)
    assert span is not None
    assert (span.trace_id != TRACE, span.parent_id) == (True, "")


@pytest.mark.parametrize(("status", "failed"), [(0, True), (200, False), (404, False), (500, True), (503, True)])
def test_no_answer_and_server_errors_are_failures(status: int, failed: bool) -> None:
    span = span_of(status=status)
    assert span is not None
    assert span.failed == failed


def test_an_exception_is_a_failure_and_passes() -> None:
    spans = Spans()
    with pytest.raises(OSError, match="gone"), RequestSpan(spans, "webhook") as span:
        span.status = 200
        raise OSError("gone")
    assert [each.failed for each in spans.take()] == [True]


def test_nothing_is_kept_or_sent_without_spans() -> None:
    with RequestSpan(None, "webhook") as span:
        span.status = 200
    assert span.headers == {}


def test_the_oldest_spans_are_dropped() -> None:
    spans = Spans()
    for number in range(MOST + 1):
        with RequestSpan(spans, str(number)):
            pass
    taken = spans.take()
    assert (len(taken), taken[0].name) == (MOST, "1")
    assert spans.take() == []
