"""The OpenAPI document: FastAPI's description of the routes, completed with what all of them share.

That is: problem responses, the two authorization schemes, required scopes, the Retry-After header.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from relay.api.context import Needs
from relay.api.problems import KINDS, MEDIA_TYPE, Problem

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
