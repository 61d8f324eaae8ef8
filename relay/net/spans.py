"""Spans of HTTP requests for OpenTelemetry: request, time and result; W3C trace context.

They are kept until `take`, in a bounded queue: the part that makes them neither encodes nor sends. An attribute is a
route template, a status or an id of our own: never a number, an order, a key, a URL or a query.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self

MOST = 2_000  # spans kept; the oldest are dropped
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

Attributes = dict[str, str | int]


class Span(NamedTuple):
    """One finished request. Ids are hexadecimal digits; `parent_id` is "" without a parent."""

    name: str
    is_server: bool  # received by us; else sent
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int  # Unix nanoseconds
    ended_ns: int
    failed: bool
    attributes: Attributes


class Spans:
    """The finished spans of one process."""

    def __init__(self) -> None:
        self._kept: deque[Span] = deque(maxlen=MOST)

    def add(self, span: Span) -> None:
        self._kept.append(span)

    def take(self) -> list[Span]:
        """Remove and return all, in order of their end."""
        taken = list(self._kept)
        self._kept.clear()
        return taken


class RequestSpan:
    """One request under way, as a context manager; without `spans` it does nothing.

    Set `status` to that of the answer; an answer of 500 and above, none, or an exception is a failure.
    """

    def __init__(
        self,
        spans: Spans | None,
        name: str,
        attributes: Attributes | None = None,
        *,
        is_server: bool = False,
        traceparent: str = "",
    ) -> None:
        """`traceparent`: that of the request received, which this one is a part of."""
        self.name = name
        self.status = 0
        self.attributes: Attributes = {} if attributes is None else attributes
        self.headers: dict[str, str] = {}  # to send with the request
        self._is_server = is_server
        self._spans = spans
        if spans is None:
            return
        trace_id, self._parent_id, is_sampled = _parsed(traceparent)
        self._trace_id, self._span_id = trace_id or os.urandom(16).hex(), os.urandom(8).hex()
        self._is_sampled = is_sampled
        self._began_ns = time.time_ns()
        self.headers = {"traceparent": f"00-{self._trace_id}-{self._span_id}-{int(is_sampled):02x}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spans is None or not self._is_sampled:
            return
        if self.status:
            self.attributes["http.response.status_code"] = self.status
        failed = kind is not None or not 0 < self.status < 500
        ids = (self._trace_id, self._span_id, self._parent_id)
        times = (self._began_ns, time.time_ns())
        self._spans.add(Span(self.name, self._is_server, *ids, *times, failed, self.attributes))


def _parsed(traceparent: str) -> tuple[str, str, bool]:
    """Trace id, parent id and whether it is sampled (W3C Trace Context 3.2); "", "" and True without a valid one."""
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None or found[1] == "ff" or (found[1] == "00" and found[5]):
        return "", "", True
    if not found[2].strip("0") or not found[3].strip("0"):
        return "", "", True
    return found[2], found[3], bool(int(found[4], 16) & 1)
