"""The ASGI application of the HTTP API: middleware, routes and exception handlers. It starts no server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import cache

from anyio import CapacityLimiter
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Match, Route

from relay.api import (
    audit,
    bans,
    bindings,
    businesses,
    calls,
    filings,
    groups,
    health,
    keys,
    lists,
    numbers,
    oversight,
    peers,
    pools,
    recordings,
    webhooks,
)
from relay.api.auth import Authentication, Nonces
from relay.api.backend import Backend
from relay.api.document import describe
from relay.api.middleware import HttpMiddleware
from relay.api.problems import HTTP_KINDS, errors_of, field_errors, problem_response, summary
from relay.defence.limits import Rates
from relay.errors import ParseError, Refused, StoreError

_NOUNS = (
    bindings,
    groups,
    filings,
    lists,
    numbers,
    pools,
    calls,
    recordings,
    businesses,
    keys,
    webhooks,
    oversight,
    audit,
    peers,
    bans,
    health,
)
_ROUTES = [route for noun in _NOUNS for route in noun.router.routes]  # flat: each route has its full path
LONG_READS = 4  # concurrent


def make_app(backend: Backend, clock: Callable[[], float] = time.time) -> FastAPI:
    """Build the application on a backend, which must outlive it. `clock` returns Unix seconds."""
    app = FastAPI(
        title="relay700",
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(HttpMiddleware, settings=backend.settings),
            Middleware(Authentication, backend=backend, nonces=Nonces(clock()), clock=clock),
        ],
        exception_handlers={
            Refused: _refused,
            ParseError: _unreadable,
            StoreError: _store_failed,
            RequestValidationError: _invalid,
            HTTPException: _http_error,
        },
    )
    app.state.backend = backend
    app.state.long_reads = CapacityLimiter(LONG_READS)
    app.state.binds = Rates()
    app.router.routes.extend(_ROUTES)
    app.state.document = _document()
    return app


@cache
def _document() -> bytes:
    """The OpenAPI document. Cached: it is the slowest part of building an application, and is served often."""
    return json.dumps(describe(_ROUTES), ensure_ascii=False).encode()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"retry-after": "1"} if error.kind == "rate_limited" else {}  # these limits count per second
    return problem_response(request.state.request_id, error.kind, str(error), errors_of(error), headers)


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, ParseError)
    return problem_response(request.state.request_id, "invalid", error.reason)


async def _store_failed(request: Request, _: Exception) -> Response:
    return problem_response(request.state.request_id, "store_busy", headers={"retry-after": "1"})


async def _invalid(request: Request, error: Exception) -> Response:
    """Name each invalid field, and never repeat its value."""
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):  # FastAPI reads a body by its content type
        errors = [("body", "must be JSON: send the header content-type: application/json")]
    else:
        errors = field_errors(error.errors(), within=1)
    return problem_response(request.state.request_id, "invalid", summary(errors), errors)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"allow": ", ".join(sorted(_methods(request)))} if error.status_code == 405 else error.headers
    kind = HTTP_KINDS.get(error.status_code, "invalid")
    ours = error.detail if kind in ("too_large", "rate_limited") else ""  # raised by `relay.api.middleware`
    detail = "there is no such path: /docs lists all of them" if kind == "not_found" else ours
    return problem_response(request.state.request_id, kind, detail, headers=headers)


def _methods(request: Request) -> Iterator[str]:
    """The methods of all routes that match the path (RFC 9110 15.5.6)."""
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            yield from route.methods or ()
