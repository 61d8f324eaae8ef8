"""The clients: keys, retries, pages. The operations are made from the API's document."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from datetime import date, datetime
from typing import NamedTuple, ParamSpec, Protocol, Self, TypeVar

import httpx
import msgspec
from msgspec import UNSET

from relay700_client import problems as problems  # registers the exceptions
from relay700_client.async_operations import AsyncOperations
from relay700_client.errors import Unreachable, api_error
from relay700_client.operations import Operations

T = TypeVar("T")
P = ParamSpec("P")

TRIES = 5
TIMEOUT_S = 30.0
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0  # a longer Retry-After is an error at once
REPEATED = frozenset({429, 500, 502, 503, 504})
NOT_EXECUTED = frozenset({429})  # also a request without an Idempotency-Key may be repeated then


class Page(Protocol[T]):
    """A page of a list."""

    @property
    def items(self) -> list[T]: ...
    @property
    def next(self) -> str | None: ...


class _Request(NamedTuple):
    method: str
    path: str
    params: dict[str, str]
    content: bytes | None
    headers: dict[str, str]

    @property
    def may_be_repeated(self) -> bool:
        return self.method != "POST" or "idempotency-key" in self.headers


def _request(
    method: str, path: str, query: Mapping[str, object] | None, body: Mapping[str, object] | None, key: str | None
) -> _Request:
    params = {name: _text(value) for name, value in (query or {}).items() if value is not None and value is not UNSET}
    headers = {} if key is None else {"idempotency-key": key}
    content = None
    if body is not None:
        content = msgspec.json.encode({name: value for name, value in body.items() if value is not UNSET})
        headers["content-type"] = "application/json"
    return _Request(method, path, params, content, headers)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


def _result(answer: httpx.Response, to: type[T]) -> T:
    if answer.headers.get("content-type", "").partition(";")[0] != "application/json":
        return answer.content  # type: ignore[return-value]  # bytes, as the method says
    return msgspec.json.decode(answer.content, type=to)


class _Tries:
    """The tries of one request: after each that failed, the pause before the next, or the error."""

    def __init__(self, request: _Request, most: int) -> None:
        self._request = request
        self._most = most
        self._tried = 0

    def after_failure(self, error: httpx.TransportError) -> float:
        """Seconds to wait. Raises Unreachable."""
        was_not_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
        self._tried += 1
        if self._tried >= self._most or not (self._request.may_be_repeated or was_not_sent):
            raise Unreachable(f"{self._request.method} {self._request.path}: {error}") from error
        return self._pause_s()

    def after_refusal(self, answer: httpx.Response) -> float:
        """Seconds to wait. Raises ApiError."""
        self._tried += 1
        repeated = REPEATED if self._request.may_be_repeated else NOT_EXECUTED
        asked = answer.headers.get("retry-after", "")
        pause_s = float(asked) if asked.isdecimal() else self._pause_s()
        error = api_error(answer.status_code, answer.content)
        # Nor was a signed request executed that a relay refuses in its first seconds: the next try has another nonce.
        may_be_repeated = answer.status_code in repeated or isinstance(error, problems.Replayed)
        if self._tried >= self._most or not may_be_repeated or pause_s > LONGEST_PAUSE_S:
            raise error
        return pause_s

    def _pause_s(self) -> float:
        return FIRST_PAUSE_S * 2.0 ** (self._tried - 1) * random.uniform(0.75, 1.25)


class _Bearer(httpx.Auth):
    def __init__(self, key: str) -> None:
        self._header = f"Bearer {key}"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["authorization"] = self._header
        yield request


class _Signature(httpx.Auth):
    """Signs each request: the secret is not sent."""

    requires_request_body = True

    def __init__(self, key: str) -> None:
        _, self._id, secret = key.split("_", 2)
        self._key = hashlib.sha256(secret.encode()).digest()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        ts, nonce = int(time.time()), secrets.token_hex(16)
        target, body = request.url.raw_path.decode(), hashlib.sha256(request.content).hexdigest()
        sig = hmac.new(self._key, f"{request.method}\n{target}\n{ts}\n{nonce}\n{body}".encode(), hashlib.sha256)
        request.headers["authorization"] = f"RELAY700 key={self._id}, ts={ts}, nonce={nonce}, sig={sig.hexdigest()}"
        yield request


class Client(Operations):
    """A client with one key. `http` replaces its connections, for a proxy, certificates or tests."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        signed: bool = False,
        tries: int = TRIES,
        timeout_s: float = TIMEOUT_S,
        http: httpx.Client | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._auth = _Signature(key) if signed else _Bearer(key)
        self._tries = tries
        self._http = http or httpx.Client(timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _ask(
        self,
        method: str,
        path: str,
        to: type[T],
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> T:
        request = _request(method, path, query, body, key)
        tries = _Tries(request, self._tries)
        while True:
            try:
                answer = self._http.request(
                    method,
                    self._url + path,
                    params=request.params,
                    content=request.content,
                    headers=request.headers,
                    auth=self._auth,
                )
            except httpx.TransportError as error:
                pause_s = tries.after_failure(error)
            else:
                if answer.is_success:
                    return _result(answer, to)
                pause_s = tries.after_refusal(answer)
            time.sleep(pause_s)

    def each(self, list_: Callable[P, Page[T]], *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        """The items of all pages: `client.each(client.list_calls, order_id="17")`."""
        while True:
            page = list_(*args, **kwargs)
            yield from page.items
            if page.next is None:
                return
            kwargs["cursor"] = page.next


class AsyncClient(AsyncOperations):
    """As `Client`, to be awaited."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        signed: bool = False,
        tries: int = TRIES,
        timeout_s: float = TIMEOUT_S,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        self._url = url.rstrip("/")
        self._auth = _Signature(key) if signed else _Bearer(key)
        self._tries = tries
        self._http = http or httpx.AsyncClient(timeout=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _ask(
        self,
        method: str,
        path: str,
        to: type[T],
        *,
        query: Mapping[str, object] | None = None,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> T:
        request = _request(method, path, query, body, key)
        tries = _Tries(request, self._tries)
        while True:
            try:
                answer = await self._http.request(
                    method,
                    self._url + path,
                    params=request.params,
                    content=request.content,
                    headers=request.headers,
                    auth=self._auth,
                )
            except httpx.TransportError as error:
                pause_s = tries.after_failure(error)
            else:
                if answer.is_success:
                    return _result(answer, to)
                pause_s = tries.after_refusal(answer)
            await asyncio.sleep(pause_s)

    async def each(self, list_: Callable[P, Awaitable[Page[T]]], *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T]:
        """The items of all pages: `async for call in client.each(client.list_calls, order_id="17")`."""
        while True:
            page = await list_(*args, **kwargs)
            for item in page.items:
                yield item
            if page.next is None:
                return
            kwargs["cursor"] = page.next
