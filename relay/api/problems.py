"""Problem documents (RFC 9457): the kinds of refusal, their HTTP statuses and titles, and their JSON form."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field
from starlette.responses import Response

from relay.errors import Refused
from relay.operations.shapes import API_NAMES, ResponseModel
from relay.translation import N_, translation

MEDIA_TYPE = "application/problem+json"
MOST_IN_SUMMARY: Final = 3

KINDS: dict[str, tuple[int, str]] = {
    "invalid": (400, N_("A field of the request is invalid")),
    "unauthorised": (401, N_("The request has no valid key")),
    "replayed": (401, N_("The signed request was repeated, or its time is out of range")),
    "forbidden": (403, N_("The key does not permit this")),
    "business_not_approved": (403, N_("The business user is not approved")),
    "mode_not_allowed": (403, N_("The business user may not use this binding mode")),
    "not_filed": (403, N_("An A number is not filed with the carriers")),
    "phase_over": (403, N_("The pilot is over")),
    "not_found": (404, N_("The resource does not exist")),
    "number_unknown": (404, N_("The number does not exist")),
    "method_not_allowed": (405, N_("The method is not allowed on this path")),
    "conflict": (409, N_("A party is already bound on this number")),
    "pool_empty": (409, N_("The pool has no free number for these parties")),
    "number_full": (409, N_("The number carries its maximum of bindings")),
    "number_cooling": (409, N_("The number is cooling down")),
    "number_locked": (409, N_("The number is locked")),
    "quota": (409, N_("A quota of the business user is exhausted")),
    "unqualified": (409, N_("The qualification of the business user is incomplete")),
    "state_conflict": (409, N_("The state of the resource does not allow this")),
    "ended": (409, N_("The binding or key has ended")),
    "too_large": (413, N_("The request body is too large")),
    "idempotency_mismatch": (422, N_("The Idempotency-Key was used for another request")),
    "rate_limited": (429, N_("Too many requests")),
    "internal": (500, N_("Internal error")),
    "store_busy": (503, N_("The store is unavailable")),
    "relay_unavailable": (503, N_("The relay is not available")),
}
HTTP_KINDS = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 429: "rate_limited"}


class FieldProblem(ResponseModel):
    """The problem of one field of the request."""

    field: str = Field(description="path of the field, such as `items.3.expires_in`")
    problem: str = Field(description="what is wrong, and the fix")


class Problem(ResponseModel):
    """A problem document (RFC 9457), the body of every error response."""

    type: str = Field(description="`/problems/` and a stable kind")
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = Field(default=[])
    request_id: str = Field(description="as in the header Request-Id and in the log")


def status_of(kind: str) -> int:
    """The HTTP status of a kind; 409 if it is not listed."""
    return KINDS.get(kind, (409, ""))[0]


def problem(kind: str, detail: str, errors: Sequence[tuple[str, str]] = (), request_id: str = "") -> dict[str, Any]:
    """The problem document. `errors` are pairs of field and problem."""
    status, title = KINDS.get(kind, (409, N_("The request cannot be fulfilled")))
    return {
        "type": f"/problems/{kind}",
        "title": title,
        "status": status,
        "detail": detail or title,
        "errors": [{"field": field, "problem": text} for field, text in errors],
        "request_id": request_id,
    }


def in_chinese(document: bytes) -> bytes:
    """A problem document with its texts in Chinese. Names of fields, which strangers may have written, stay unread."""
    found, words = json.loads(document), translation("zh")
    errors = found["errors"]
    was_summary = bool(errors) and found["detail"] == summary([(each["field"], each["problem"]) for each in errors])
    for each in errors:
        each["problem"] = words(each["problem"])
    found["title"] = words(found["title"])
    found["detail"] = (
        "；".join(f"{each['field']}：{each['problem']}" for each in errors[:MOST_IN_SUMMARY])
        if was_summary
        else words(found["detail"])
    )
    return json.dumps(found).encode()


def errors_of(refused: Refused) -> list[tuple[str, str]]:
    """The pairs of field and problem of a refusal, fields by their names in the API."""
    return [(API_NAMES.get(field, field), text) for field, text in refused.fields]


def detail_of(refused: Refused) -> str:
    """The problem and its fix, after the field by its name in the API."""
    return summary(errors_of(refused)) if refused.field else refused.problem


def summary(errors: Sequence[tuple[str, str]]) -> str:
    """The first three errors in one line."""
    return "; ".join(map(": ".join, errors[:MOST_IN_SUMMARY]))


def problem_of(refused: Refused, request_id: str) -> Problem:
    """The problem document of one refusal within a larger response."""
    return Problem.model_validate(problem(refused.kind, detail_of(refused), errors_of(refused), request_id))


_SOON: Final = frozenset({"rate_limited", "store_busy", "relay_unavailable"})  # limits count per second


def problem_response(
    request_id: str,
    kind: str,
    detail: str = "",
    errors: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The HTTP response, with a Retry-After (`headers` has another) if the kind passes by itself.

    The JSON is ASCII: a field name may hold a lone surrogate, which UTF-8 cannot encode.
    """
    soon = {"retry-after": "1"} if kind in _SOON else {}
    body = json.dumps(problem(kind, detail, errors, request_id)).encode()
    return Response(body, status_of(kind), soon | dict(headers or {}), MEDIA_TYPE)
