"""Problem documents (RFC 9457): the kinds of refusal, their HTTP statuses and titles, and their JSON form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import Field
from starlette.responses import Response

from relay.api.models import API_NAMES, FORMS, ResponseModel
from relay.errors import Refused
from relay.translation import N_, translation

MEDIA_TYPE = "application/problem+json"
MOST_ERRORS = 50  # per response
MOST_IN_SUMMARY: Final = 3

KINDS: dict[str, tuple[int, str]] = {
    "invalid": (400, N_("A field of the request is invalid")),
    "unauthorised": (401, N_("The request has no valid key")),
    "replayed": (401, N_("The signed request was repeated, or its time is out of range")),
    "forbidden": (403, N_("The key does not permit this")),
    "business_not_approved": (403, N_("The business user is not approved")),
    "mode_not_allowed": (403, N_("The business user may not use this binding mode")),
    "not_filed": (403, N_("An A number is not filed with the carriers")),
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
    """What is wrong and the fix, after the field by its name in the API."""
    return summary(errors_of(refused)) if refused.field else refused.problem


def field_errors(faults: Sequence[Any], within: int = 0) -> list[tuple[str, str]]:
    """Pydantic's errors as pairs of field and problem, without the values of the fields.

    `within`: how many leading parts of a location to drop, such as "body".
    """
    found: dict[str, dict[str, None]] = {}  # an ordered set of problems by field
    for fault in faults[:MOST_ERRORS]:
        field, problem = _field_error(fault, within)
        found.setdefault(field, {})[problem] = None
    return [(field, ", or ".join(problems)) for field, problems in found.items()]


def summary(errors: Sequence[tuple[str, str]]) -> str:
    """The first three errors in one line."""
    return "; ".join(map(": ".join, errors[:MOST_IN_SUMMARY]))


_MEMBER: Final = re.compile(r"int|str|float|bool|constrained-.*|.*\[.*\]", re.DOTALL)  # of a union, in a location
_WHOLE: Final = N_("must be a whole number")
_LIST: Final = N_("must be a list")
_OBJECT: Final = N_("must be an object")
_OTHER: Final = N_("does not have the form of this field: see /docs")
# Pydantic's types of errors -> our words, with its values.
_WORDS: Final = {
    "missing": N_("required"),
    "extra_forbidden": N_("there is no such field: see /docs"),
    "string_type": N_("must be a text"),
    "string_too_short": N_("must have at least {min_length} characters"),
    "string_too_long": N_("must have at most {max_length} characters"),
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), N_("must be a number")),
    **dict.fromkeys(("bool_type", "bool_parsing"), N_("must be true or false")),
    "greater_than_equal": N_("must be at least {ge}"),
    "greater_than": N_("must be more than {gt}"),
    "less_than_equal": N_("must be at most {le}"),
    "less_than": N_("must be less than {lt}"),
    **dict.fromkeys(("literal_error", "enum"), N_("must be {expected}")),
    **dict.fromkeys(("list_type", "set_type", "tuple_type", "frozen_set_type"), _LIST),
    "too_short": N_("must have at least {min_length} items"),
    "too_long": N_("must have at most {max_length} items"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _OBJECT),
}
_TIME: Final = N_("must be a time with its zone, such as 2026-01-31T08:00:00Z")
_SYNTAX: Final = N_("must be JSON: syntax error at character {place}")
_DAY: Final = N_("must be a day, such as 2026-01-31")


def _field_error(fault: Any, within: int) -> tuple[str, str]:
    kind = fault["type"]
    if kind == "json_invalid":
        return "body", _SYNTAX.format(place=fault["loc"][1])
    return _path(fault["loc"], within, is_named=kind == "extra_forbidden"), _words(
        kind, fault["msg"], fault.get("ctx", {})
    )


def _words(kind: str, message: str, values: Mapping[str, Any]) -> str:
    """The problem in our words: those of the library say nothing to who writes a request."""
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "string_pattern_mismatch":
        return FORMS.get(values["pattern"], _OTHER)
    if kind.startswith(("datetime_", "timezone_")):
        return _TIME
    if kind.startswith("date_"):
        return _DAY
    return _WORDS.get(kind, _OTHER).format_map(values)


def _path(location: tuple[Any, ...], within: int, *, is_named: bool) -> str:
    """("body", "items", 3, "a") -> items.3.a, without pydantic's names of what the field may be.

    `is_named`: the last part is a name of the request, also if it reads like one of pydantic's.
    """
    parts = [str(part) for part in location[within:]]
    named = parts[-1:] if is_named else []
    rest = parts[:-1] if is_named else parts
    return ".".join([part for part in rest if _MEMBER.fullmatch(part) is None] + named) or str(
        location[0] if location else "item"
    )


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
