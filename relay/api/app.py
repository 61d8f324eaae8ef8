"""The ASGI application of the HTTP API: routes outside /v1, exception handlers, middleware.

It starts no server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Match, Route

from relay.api import (
    batches,
    calls,
    dead_letters,
    docs,
    explain,
    filing_answers,
    ladders,
    oversight,
    peers,
    recordings,
)
from relay.api.auth import Authentication, Nonces, RequestLimits, named_by
from relay.api.backend import Backend
from relay.api.middleware import HttpMiddleware
from relay.api.openapi import describe
from relay.api.operations import router_of
from relay.api.places import DOWNLOADS, PAGES, Places
from relay.api.problems import (
    HTTP_KINDS,
    detail_of,
    errors_of,
    problem_response,
    summary,
)
from relay.api.routes import Router
from relay.defence.limits import Rates
from relay.errors import ParseError, Refused, StoreError
from relay.operations import (
    bindings,
    businesses,
    capture,
    filings,
    groups,
    hooks,
    keys,
    lists,
    numbers,
    papers,
    phase,
    pools,
    users,
    webhooks,
)
from relay.operations.field_errors import field_errors
from relay.operations.operation import lacks
from relay.operations.shapes import ResponseModel
from relay.service.keys import OPERATOR
from relay.translation import N_

# -- Routes outside /v1

health_router = Router(tags=["health"])
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Alive(ResponseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


@health_router.get("/healthz", operation_id="getHealth", summary="Check liveness")
async def healthz() -> Alive:
    """200 as long as the process answers."""
    return Alive()


@health_router.get("/readyz", operation_id="getReadiness", summary="Check readiness")
async def readyz(request: Request) -> Alive:
    """200 if the store answers and the relay accepts calls; otherwise 503, also while the relay drains."""
    backend: Backend = request.app.state.backend
    backend.reader.read(lambda connection: connection.execute("SELECT 1 FROM business LIMIT 1").fetchone())
    state: dict[str, Any] = await backend.control.ask("state")
    if state.get("state") != "serving":
        raise Refused("relay_unavailable", "", "the relay is draining and accepts no new calls")
    return Alive()


@health_router.get("/metrics", operation_id="getMetrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus text format. Requests from other machines require an operator key."""
    actor = getattr(request.state, "actor", None)
    if actor is not None and OPERATOR not in actor.scopes:
        raise lacks(OPERATOR)
    backend: Backend = request.app.state.backend
    return Response(await backend.metrics(), media_type=_PROMETHEUS)


@health_router.get("/openapi.json", include_in_schema=False)
async def openapi(_: Request) -> Response:
    """The OpenAPI 3.1 document."""
    return Response(openapi_document(), media_type="application/json")


# -- The application

_ROUTERS = (
    router_of(bindings, "bindings"),
    batches.router,
    router_of(groups, "groups"),
    router_of(filings, "filings"),
    filing_answers.router,
    router_of(papers, "papers"),
    router_of(capture, "capture"),
    router_of(lists, "lists"),
    router_of(numbers, "numbers"),
    router_of(pools, "pools"),
    calls.router,
    recordings.router,
    recordings.link_router,
    explain.router,
    ladders.router,
    router_of(businesses, "businesses"),
    router_of(keys, "keys"),
    router_of(users, "users"),
    router_of(webhooks, "webhooks"),
    dead_letters.router,
    router_of(hooks, "hooks"),
    router_of(phase, "phase"),
    oversight.router,
    oversight.audit_router,
    peers.router,
    peers.ban_router,
    health_router,
    docs.router,
)
_ROUTES = [route for router in _ROUTERS for route in router.routes]  # flat: each route has its full path


def make_app(backend: Backend, clock: Callable[[], float] = time.time) -> FastAPI:
    """Build the application on a backend, which must outlive it. `clock` returns Unix seconds."""
    limits = RequestLimits(backend)
    app = FastAPI(
        title="relay700",
        docs_url=None,  # FastAPI's pages load scripts from other hosts
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(
                HttpMiddleware,
                settings=backend.settings,
                requests=backend.requests,
                spans=backend.spans,
                named=named_by,
            ),
            Middleware(Authentication, backend=backend, nonces=Nonces(clock()), limits=limits, clock=clock),
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
    app.state.binds = Rates()
    app.state.explanations = Rates()
    app.state.limits = limits
    app.state.clock = clock
    app.state.pages = Places(PAGES)
    app.state.downloads = Places(DOWNLOADS)
    app.router.routes.extend(_ROUTES)
    return app


@cache
def openapi_document() -> bytes:
    """The OpenAPI document as JSON, made when first asked for: it takes a seventh of the backend's start."""
    return describe(_ROUTES)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return problem_response(request.state.request_id, error.kind, detail_of(error), errors_of(error))


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, ParseError)
    return problem_response(request.state.request_id, "invalid", error.reason)


async def _store_failed(request: Request, _: Exception) -> Response:
    return problem_response(request.state.request_id, "store_busy")


async def _invalid(request: Request, error: Exception) -> Response:
    """Name each invalid field, and never repeat its value."""
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):  # FastAPI reads a body by its content type
        errors = [("body", N_("must be JSON: send the header content-type: application/json"))]
    else:
        errors = field_errors(error.errors(), within=1)
        if any(fault["loc"][0] == "path" for fault in error.errors()):  # an id that no resource can have
            return problem_response(request.state.request_id, "not_found", summary(errors), errors)
    return problem_response(request.state.request_id, "invalid", summary(errors), errors)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:  # FastAPI's, without a reason: the body is no UTF-8, or json.loads gave up
        errors = [("body", N_("must be JSON in UTF-8, with fewer levels and no integer of thousands of digits"))]
        return problem_response(request.state.request_id, "invalid", summary(errors), errors)
    headers = {"allow": ", ".join(sorted(_methods(request)))} if error.status_code == 405 else error.headers
    kind = HTTP_KINDS.get(error.status_code, "invalid")
    ours = error.detail if kind in ("too_large", "rate_limited") else ""  # raised by `relay.api.middleware`
    detail = N_("there is no such path: /docs lists all of them") if kind == "not_found" else ours
    return problem_response(request.state.request_id, kind, detail, headers=headers)


def _methods(request: Request) -> Iterator[str]:
    """The methods of all routes that match the path (RFC 9110 15.5.6)."""
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            yield from route.methods or ()
