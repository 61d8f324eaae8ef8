"""The documentation page: Swagger UI from the package `fastapi_offline`, with nothing from other hosts.

No script or style is inline, so the Content-Security-Policy admits none.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from relay.api.routes import Router

_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>relay700 API</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="docs"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""
# Without `validatorUrl` it would ask another host whether the document is valid.
_START: Final = """\
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  docExpansion: "list",
  filter: true,
  defaultModelsExpandDepth: 0,
  defaultModelExpandDepth: 2,
  displayRequestDuration: true,
  requestSnippetsEnabled: true,
  validatorUrl: null,
});
"""
_ASSETS: Final = {
    "favicon.png": "image/png",
    "swagger-ui.css": "text/css; charset=utf-8",
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
}

router = Router()


@router.get("/docs", include_in_schema=False)
async def docs(_: Request) -> Response:
    """The page. It shows `/openapi.json`, and sends requests with the key that its reader enters."""
    return HTMLResponse(_PAGE, headers={"content-security-policy": _CSP})


@router.get("/docs/{name}", include_in_schema=False)
async def asset(name: str) -> Response:
    """A file of the page, which browsers may keep."""
    headers = {"cache-control": "max-age=86400"}
    if name == "start.js":
        return Response(_START, headers=headers, media_type="text/javascript; charset=utf-8")
    if name not in _ASSETS:
        raise HTTPException(404)
    return Response(_asset(name), headers=headers, media_type=_ASSETS[name])


@cache
def _asset(name: str) -> bytes:
    """Read when first asked for, as 1.5 MB of the page are a script."""
    return resources.files("fastapi_offline").joinpath("static", name).read_bytes()
