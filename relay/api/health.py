"""Routes outside /v1, without a key: liveness, readiness, metrics and the API's own documentation."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from importlib import resources
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from relay.api.backend import Backend
from relay.api.context import lacks
from relay.api.models import ResponseModel
from relay.errors import Refused
from relay.service.keys import OPERATOR

router = APIRouter(tags=["health"])
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


@router.get("/healthz", summary="Check liveness")
async def healthz() -> Alive:
    """200 as long as the process answers."""
    return Alive()


@router.get("/readyz", summary="Check readiness")
async def readyz(request: Request) -> Alive:
    """200 if the store answers and the relay accepts calls; otherwise 503, also while the relay drains."""
    backend: Backend = request.app.state.backend
    backend.reader.read(lambda connection: connection.execute("SELECT 1 FROM business LIMIT 1").fetchone())
    state: dict[str, Any] = await backend.control.ask("state")
    if state.get("state") != "serving":
        raise Refused("relay_unavailable", "", "the relay is draining and accepts no new calls")
    return Alive()


@router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus text format. Requests from other machines require an operator key."""
    actor = getattr(request.state, "actor", None)
    if actor is not None and OPERATOR not in actor.scopes:
        raise lacks(OPERATOR)
    backend: Backend = request.app.state.backend
    return Response(await backend.metrics(), media_type=_PROMETHEUS)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """The OpenAPI 3.1 document."""
    return Response(request.app.state.document, media_type="application/json")


@router.get("/docs", include_in_schema=False)
async def docs(_: Request) -> Response:
    """The documentation page, which loads nothing from other hosts."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": _CSP})
