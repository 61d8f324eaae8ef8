"""Problem documents (RFC 9457): each refusal of the API has a kind, a status and the field that is wrong.

It knows the kinds and how they are written, and nothing of what is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field
from starlette.responses import Response

from relay.api.models import FORMS, Shown
from relay.errors import Refused

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 50  # of one answer

KINDS: dict[str, tuple[int, str]] = {
    "invalid": (400, "A field of the request is wrong"),
    "unauthorised": (401, "The request carries no valid key"),
    "replayed": (401, "The signed request was seen before, or was signed at another time"),
    "forbidden": (403, "The key does not allow this"),
    "business_not_approved": (403, "The business user is not approved"),
    "mode_not_allowed": (403, "The business user may not make bindings of this mode"),
    "not_filed": (403, "An A number is not filed with the carriers"),
    "not_found": (404, "There is no such thing"),
    "number_unknown": (404, "There is no such number"),
    "method_not_allowed": (405, "This address does not know the method"),
    "conflict": (409, "A party is bound on this number already"),
    "pool_empty": (409, "No number of the pool is free for these parties"),
    "number_full": (409, "The number carries as many bindings as it may"),
    "number_cooling": (409, "The number rests after its last binding"),
    "number_locked": (409, "The number is locked"),
    "quota": (409, "A limit of the business user is reached"),
    "unqualified": (409, "The business user's qualification is not complete"),
    "state_conflict": (409, "The state of the thing does not allow this"),
    "ended": (409, "The binding has ended"),
    "too_large": (413, "The request is too large"),
    "idempotency_mismatch": (422, "The Idempotency-Key was used for another request"),
    "rate_limited": (429, "Too many requests"),
    "internal": (500, "The request failed by a fault of the service"),
    "store_busy": (503, "The store cannot answer now"),
    "relay_unavailable": (503, "The relay does not answer"),
}
HTTP_KINDS = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 429: "rate_limited"}


class FieldProblem(Shown):
    """What is wrong with one field of the request."""

    field: str = Field(description="its path, such as `items.3.expires_in`")
    problem: str = Field(description="what is wrong with it")


class Problem(Shown):
    """Every answer that is no success (RFC 9457)."""

    type: str = Field(description="`/problems/` and the kind, which is stable")
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = Field(default=[])
    request_id: str = Field(description="also in the header Request-Id and in the log")


def status_of(kind: str) -> int:
    """The HTTP status of a kind; 409 for one that is not listed."""
    return KINDS.get(kind, (409, ""))[0]


def problem(kind: str, detail: str, errors: Sequence[tuple[str, str]] = (), request_id: str = "") -> dict[str, Any]:
    """The document. `errors` are pairs of field and problem."""
    status, title = KINDS.get(kind, (409, "The request cannot be done"))
    return {
        "type": f"/problems/{kind}",
        "title": title,
        "status": status,
        "detail": detail or title,
        "errors": [{"field": field, "problem": text} for field, text in errors],
        "request_id": request_id,
    }


def errors_of(refused: Refused) -> list[tuple[str, str]]:
    """The fields that a refusal names, if any, and what is wrong with each."""
    return list(refused.fields)


def field_errors(faults: Sequence[Any], within: int = 0) -> list[tuple[str, str]]:
    """What pydantic has found, as pairs of field and problem. They never repeat what was in a field.

    `within`: how many parts of each place lead to what was asked, such as "body".
    """
    return [_told(fault, within) for fault in faults[:MOST_ERRORS]]


def summary(errors: Sequence[tuple[str, str]]) -> str:
    """The first of them in one line."""
    return "; ".join(map(": ".join, errors[:3]))


def _told(fault: Any, within: int) -> tuple[str, str]:
    """The field, and what is wrong with it."""
    match fault["type"]:
        case "json_invalid":
            return "body", f"it is no JSON from character {fault['loc'][1]} on"
        case "string_pattern_mismatch" if words := FORMS.get(fault["ctx"]["pattern"]):
            return _path(fault["loc"], within), words
    return _path(fault["loc"], within), fault["msg"].removeprefix("Value error, ")


def _path(location: tuple[Any, ...], within: int) -> str:
    """("body", "items", 3, "a") -> items.3.a"""
    return ".".join(str(part) for part in location[within:]) or str(location[0] if location else "item")


def problem_of(refused: Refused, request_id: str) -> Problem:
    """The document of a refusal that is part of a larger answer."""
    return Problem.model_validate(problem(refused.kind, refused.problem, errors_of(refused), request_id))


def problem_response(
    request_id: str,
    kind: str,
    detail: str = "",
    errors: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer. Text that is no UTF-8 (a field's name may hold a lone surrogate) comes out as JSON escapes."""
    body = json.dumps(problem(kind, detail, errors, request_id)).encode()
    return Response(body, status_of(kind), dict(headers or {}), MEDIA_TYPE)
