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
    routes_audit,
    routes_bans,
    routes_bindings,
    routes_businesses,
    routes_calls,
    routes_filings,
    routes_groups,
    routes_health,
    routes_keys,
    routes_lists,
    routes_numbers,
    routes_oversight,
    routes_peers,
    routes_pools,
    routes_recordings,
    routes_webhooks,
)
from relay.api.credentials import Nonces
from relay.api.desk import Desk
from relay.api.document import describe
from relay.api.door import Door
from relay.api.edge import Edge
from relay.api.problems import HTTP_KINDS, errors_of, field_errors, problem_response, summary
from relay.call.rates import Rates
from relay.errors import ParseError, Refused, StoreError

_NOUNS = (
    routes_bindings,
    routes_groups,
    routes_filings,
    routes_lists,
    routes_numbers,
    routes_pools,
    routes_calls,
    routes_recordings,
    routes_businesses,
    routes_keys,
    routes_webhooks,
    routes_oversight,
    routes_audit,
    routes_peers,
    routes_bans,
    routes_health,
)
_ROUTES = [route for noun in _NOUNS for route in noun.router.routes]  # flat: each route has its full path
LONG_READS = 4  # concurrent


def make_app(desk: Desk, clock: Callable[[], float] = time.time) -> FastAPI:
    """Build the application on a backend, which must outlive it. `clock` returns Unix seconds."""
    app = FastAPI(
        title="relay700",
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(Edge, settings=desk.settings),
            Middleware(Door, desk=desk, nonces=Nonces(clock()), clock=clock),
        ],
        exception_handlers={
            Refused: _refused,
            ParseError: _unreadable,
            StoreError: _store_failed,
            RequestValidationError: _invalid,
            HTTPException: _http_error,
        },
    )
    app.state.desk = desk
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
    ours = error.detail if kind in ("too_large", "rate_limited") else ""  # raised by `relay.api.edge`
    detail = "there is no such path: /docs lists all of them" if kind == "not_found" else ours
    return problem_response(request.state.request_id, kind, detail, headers=headers)


def _methods(request: Request) -> Iterator[str]:
    """The methods of all routes that match the path (RFC 9110 15.5.6)."""
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            yield from route.methods or ()
