"""The ASGI application of the HTTP API: OpenAPI document, routes outside /v1, exception handlers, middleware.

It starts no server.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any, Literal

from anyio import CapacityLimiter
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Match, Route

from relay.api import (
    batches,
    bindings,
    businesses,
    calls,
    capture,
    explain,
    filings,
    groups,
    keys,
    ladders,
    numbers,
    oversight,
    peers,
    webhooks,
)
from relay.api.auth import Authentication, Nonces, RequestLimits
from relay.api.backend import Backend
from relay.api.context import Needs, lacks
from relay.api.middleware import HttpMiddleware
from relay.api.models import ResponseModel
from relay.api.problems import (
    HTTP_KINDS,
    KINDS,
    MEDIA_TYPE,
    Problem,
    detail_of,
    errors_of,
    field_errors,
    problem_response,
    summary,
)
from relay.defence.limits import Rates
from relay.errors import ParseError, Refused, StoreError
from relay.service.keys import OPERATOR

# -- The OpenAPI document

STATUSES = (400, 401, 403, 404, 409, 413, 422, 429, 503)
_OPEN_STATUSES = (400, 503)  # of routes without a key
_REF = "#/components/{}"
_DESCRIPTION = """\
Number protection with 700 numbers: businesses, numbers, bindings, calls.

Times are RFC 3339; responses use UTC with milliseconds. Real numbers are masked (`138****0001`) unless `reveal` is set.
Lists are paginated: send `next` of a page as `cursor` to get the following one. Every request that changes data accepts
an `Idempotency-Key`: a repetition with the same key within 24 hours is executed once and gets the same response.

Signed requests: `Authorization: RELAY700 key=ID, ts=UNIX_SECONDS, nonce=16_TO_64_CHARACTERS, sig=HEX` with
`sig = HMAC-SHA256(SHA-256(secret), METHOD \\n path?query \\n ts \\n nonce \\n hex(SHA-256(body)))`.
"""


def describe(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    """Return the complete document of these routes."""
    document = get_openapi(title="relay700", version=version("relay700"), routes=routes, description=_DESCRIPTION)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=_REF.format("schemas/{model}"))
    schemas |= problem.pop("$defs")
    schemas["Problem"] = problem
    components["responses"] = {str(status): _problem_answer(status) for status in STATUSES}
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "rk_ID_SECRET"},
        "signed": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "RELAY700 key=, ts=, …"},
    }
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(document["paths"][route.path_format][method.lower()], route)
    return document


def scopes_of(route: APIRoute) -> tuple[str, ...] | None:
    """The scopes that a route requires; None if it requires no key."""
    for dependency in route.dependant.dependencies:
        if isinstance(dependency.call, Needs):
            return dependency.call.scopes
    return None


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    scopes = scopes_of(route)
    statuses = _OPEN_STATUSES if scopes is None else STATUSES
    for status in STATUSES:
        operation["responses"].pop(str(status), None)
    operation["responses"] |= {str(status): {"$ref": _REF.format(f"responses/{status}")} for status in statuses}
    if scopes is not None:
        operation["security"] = [{"bearer": []}, {"signed": []}]
        needs = " and ".join(f"`{scope}`" for scope in scopes) or "any"
        operation["description"] = f"{operation.get('description', '')}\n\nScope: {needs}.".strip()


def _problem_answer(status: int) -> dict[str, Any]:
    kinds = [f"`{kind}`: {title}" for kind, (of_kind, title) in KINDS.items() if of_kind == status]
    answer: dict[str, Any] = {
        "description": "; ".join(kinds),
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format("schemas/Problem")}}},
    }
    if status == 429:
        answer["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return answer


# -- Routes outside /v1

health_router = APIRouter(tags=["health"])
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_PAGE = resources.files("relay.api").joinpath("docs.html").read_text(encoding="utf-8")


def _hash_of(element: str) -> str:
    """The hash of an inline element, so that the Content-Security-Policy admits it and no other."""
    content = re.search(f"<{element}>(.*)</{element}>", _PAGE, re.DOTALL)
    assert content is not None
    return f"'sha256-{b64encode(hashlib.sha256(content[1].encode()).digest()).decode()}'"


_CSP = (
    f"default-src 'none'; script-src {_hash_of('script')}; style-src {_hash_of('style')}; "
    "connect-src 'self'; frame-ancestors 'none'"
)


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


@health_router.get("/docs", include_in_schema=False)
async def docs(_: Request) -> Response:
    """The documentation page, which loads nothing from other hosts."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": _CSP})


# -- The application

_ROUTERS = (
    bindings.router,
    batches.router,
    groups.router,
    filings.router,
    capture.router,
    groups.list_router,
    numbers.router,
    numbers.pool_router,
    calls.router,
    calls.recording_router,
    explain.router,
    ladders.router,
    businesses.router,
    keys.router,
    webhooks.router,
    oversight.router,
    oversight.audit_router,
    peers.router,
    peers.ban_router,
    health_router,
)
_ROUTES = [route for router in _ROUTERS for route in router.routes]  # flat: each route has its full path
LONG_READS = 4  # concurrent


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
            Middleware(HttpMiddleware, settings=backend.settings, requests=backend.requests, spans=backend.spans),
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
    app.state.long_reads = CapacityLimiter(LONG_READS)
    app.state.binds = Rates()
    app.state.explanations = Rates()
    app.state.limits = limits
    app.router.routes.extend(_ROUTES)
    return app


@cache
def openapi_document() -> bytes:
    """The OpenAPI document as JSON, made when first asked for: it takes a seventh of the backend's start."""
    return json.dumps(describe(_ROUTES), ensure_ascii=False).encode()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    headers = {"retry-after": "1"} if error.kind == "rate_limited" else {}  # these limits count per second
    return problem_response(request.state.request_id, error.kind, detail_of(error), errors_of(error), headers)


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
