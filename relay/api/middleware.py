"""The outermost middleware of the API: request ids, body limits, security headers, access log, uncaught errors.

It knows no keys or routes. Paths are logged as templates without a query: no party reaches the log.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from relay.api.backend import METHODS, ApiSettings, RequestCounts
from relay.api.problems import HTTP_KINDS, MEDIA_TYPE, in_chinese, problem_response
from relay.defence.limits import is_within_share
from relay.net.spans import RequestSpan, Spans
from relay.translation import N_, accepted_language

BATCH = "/v1/bindings/batch"
PAPERS = "/v1/papers"
SMALL = 1 << 16  # bytes of each body that do not count against ROOM
ROOM = 1 << 26  # bytes of all large bodies together
_PROBLEM = MEDIA_TYPE.encode()
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class HttpMiddleware:
    """ASGI middleware. Holds the only broad `except` of the API: an error fails its own request and no other."""

    def __init__(
        self,
        app: ASGIApp,
        settings: ApiSettings,
        requests: RequestCounts,
        spans: Spans | None,
        named: Callable[[Scope], str] = lambda scope: "",
    ) -> None:
        """`named`: whose share of the room for large bodies a request takes."""
        self._app = app
        self._settings = settings
        self._requests = requests
        self._spans = spans
        self._log = structlog.get_logger()
        self._named = named
        self._room = Room()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with its `request_id` in `scope["state"]`; one of the console's has it already."""
        if scope["type"] != "http" or "request_id" in scope.get("state", ()):
            await self._app(scope, receive, send)
            return
        traceparent = Headers(scope=scope).get("traceparent", "")
        with RequestSpan(self._spans, "HTTP", is_server=True, traceparent=traceparent) as span:
            span.status = await self._serve(scope, receive, send)
            method, path = scope["method"] if scope["method"] in METHODS else "_OTHER", _template(scope)
            span.name = f"{method} {path}" if path != "-" else method
            span.attributes = {"http.request.method": method, "relay700.request": scope["state"]["request_id"]}
            if path != "-":
                span.attributes["http.route"] = path

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Returns the status; 0: the client was gone before."""
        begun = time.perf_counter()
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _mark(message, request_id)
            await problems(message)

        problems = _ProblemLanguage(scope, send)
        settings = self._settings
        larger = {BATCH: settings.max_batch_body, PAPERS: settings.max_paper_body}
        most = larger.get(scope["path"], settings.max_body)
        body = _Body(receive, most, self._room, partial(self._named, scope))
        try:
            if _declared_length(scope) > most:
                await problem_response(request_id, "too_large", _too_large(most))(scope, receive, send_marked)
            else:
                await self._app(scope, body.receive, send_marked)
        except ClientDisconnect:  # while the body was read
            pass
        except HTTPException as error:  # from `_Body`, when the auth middleware reads the body to check a signature
            kind = HTTP_KINDS[error.status_code]
            await problem_response(request_id, kind, error.detail, headers=error.headers)(scope, receive, send_marked)
        except Exception:
            self._log.exception("api.failed", request_id=request_id, method=scope["method"], path=_template(scope))
            if not status:
                await problem_response(request_id, "internal")(scope, receive, send_marked)
        finally:
            body.leave()
        self._log_request(scope, request_id, status, begun)
        return status

    def _log_request(self, scope: Scope, request_id: str, status: int, begun: float) -> None:
        method, path = scope["method"], _template(scope)
        duration_ms = (time.perf_counter() - begun) * 1000
        if status and "is_stream" not in scope["state"]:  # a stream of the console lasts as long as its page
            self._requests.add(method, path, status, duration_ms)
        self._log.info(
            "api.request",
            request_id=request_id,
            method=method,
            path=path,
            status=status,
            actor=scope["state"].get("actor_name"),
            duration_ms=round(duration_ms, 1),
        )


class _ProblemLanguage:
    """Sends messages on, problem documents in the language that the client accepts. Other responses pass unchanged."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start: Message | None = None  # of a document that is to be translated
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and (b"content-type", _PROBLEM) in message["headers"]:
            language = accepted_language(Headers(scope=self._scope).get("accept-language", ""))
            tag = b"zh-CN" if language == "zh" else b"en"
            message["headers"] = [*message["headers"], (b"content-language", tag), (b"vary", b"Accept-Language")]
            if language == "zh":
                self._start = message
                return
        if self._start is None:
            await self._send(message)
            return
        self._body += message["body"]
        if not message.get("more_body"):
            await self._send_translated(self._start)

    async def _send_translated(self, start: Message) -> None:
        body = await asyncio.to_thread(in_chinese, self._body)  # the first one reads the catalogue
        kept = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        start["headers"] = [*kept, (b"content-length", str(len(body)).encode())]
        self._start = None
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def _mark(message: Message, request_id: str) -> None:
    """Add the headers of each response that it has not; as bytes, since `MutableHeaders` takes 19 us for all, not 3."""
    headers = message["headers"]
    names = {name for name, _ in headers}
    ours = ((b"request-id", request_id.encode()), *_HEADERS)
    message["headers"] = [*headers, *(header for header in ours if header[0] not in names)]


def _template(scope: Scope) -> str:
    route = scope.get("route")
    return "-" if route is None else f"{scope.get('root_path', '')}{route.path}"


def _declared_length(scope: Scope) -> int:
    text = Headers(scope=scope).get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() else 0


class Room:
    """The memory for large bodies beyond their first SMALL bytes: 1,000 of them at once would exhaust the machine.

    Each name has a share, since a body is read before its signature is checked.
    """

    def __init__(self) -> None:
        self.names: Counter[str] = Counter()  # bytes of ROOM
        self._in_all = 0

    def take(self, name: str, size: int) -> bool:
        """Whether there is room for `size` more bytes; takes it if so."""
        if not is_within_share(self.names[name] + size, self._in_all + size, ROOM):
            return False
        self._add(name, size)
        return True

    def give_back(self, name: str, size: int) -> None:
        self._add(name, -size)

    def _add(self, name: str, size: int) -> None:
        self._in_all += size
        self.names[name] += size
        if not self.names[name]:
            del self.names[name]


class _Body:
    """The body of one request, counted as it arrives: a chunked one declares no length."""

    def __init__(self, receive: Receive, most: int, room: Room, named: Callable[[], str]) -> None:
        self._receive = receive
        self._most = most
        self._room = room
        self._named = named
        self._name = ""
        self._size = 0
        self._taken = 0  # bytes of the room

    async def receive(self) -> Message:
        """Receive the next part. Raises HTTPException: 413 over the body's limit, 429 if there is no room now."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > self._most:
                raise HTTPException(413, _too_large(self._most))
            if more := max(self._size - SMALL, 0) - self._taken:
                self._take(more)
        return message

    def _take(self, more: int) -> None:
        self._name = self._name or self._named()
        if not self._room.take(self._name, more):
            raise HTTPException(429, N_("too many large bodies at once: retry after 1 second"), {"retry-after": "1"})
        self._taken += more

    def leave(self) -> None:
        """Release the room that the body took."""
        if self._taken:
            self._room.give_back(self._name, self._taken)
            self._taken = 0


def _too_large(most: int) -> str:
    return N_("the body must be at most {most} bytes").format(most=most)


# -- Token buckets

MOST_BUCKETS = 10_000


class Allowance(NamedTuple):
    """The answer of a bucket, in the terms of the RateLimit headers."""

    granted: bool
    limit: int  # requests at once
    remaining: int
    reset_s: int  # until the bucket is full
    retry_after_s: int  # until the next token; 0: now


class Buckets:
    """One bucket per name, refilled at `rate` tokens a second up to `burst`."""

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, last use; oldest use first

    def apply_config(self, rate: int, burst: int) -> None:
        """Apply a new rate and burst from now on."""
        self._rate, self._burst = rate, burst

    def take(self, name: str, now_s: float) -> Allowance:
        """Take one token if there is one."""
        tokens, at = self._buckets.pop(name, (float(self._burst), now_s))
        tokens = min(self._burst, tokens + max(0.0, now_s - at) * self._rate)
        granted = tokens >= 1
        if granted:
            tokens -= 1
        self._buckets[name] = (tokens, now_s)
        self._forget(now_s)
        return Allowance(
            granted,
            self._burst,
            int(tokens),
            math.ceil((self._burst - tokens) / self._rate),
            0 if tokens >= 1 else math.ceil((1 - tokens) / self._rate),
        )

    def _forget(self, now_s: float) -> None:
        """Drop the least recently used bucket if it is full or there are more than MOST_BUCKETS."""
        name, (tokens, at) = next(iter(self._buckets.items()))
        if tokens + (now_s - at) * self._rate >= self._burst or len(self._buckets) > MOST_BUCKETS:
            del self._buckets[name]
