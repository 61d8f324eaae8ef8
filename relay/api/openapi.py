"""The OpenAPI 3.1 document: operations with scopes and errors, the requests of webhooks, named enumerations."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from relay.api.calls import END_REASON
from relay.api.context import Changes, Needs
from relay.api.events import EVENTS, AlteredEvent
from relay.api.problems import KINDS, MEDIA_TYPE, Problem, problem
from relay.events.webhooks import KINDS as EVENT_KINDS
from relay.events.webhooks import TEST, DeliveryRules, Format
from relay.model.binding import Direction, Mode
from relay.model.call import Kind as CallKind
from relay.model.call import Language
from relay.model.capture import ArmKind
from relay.model.outcomes import OUTCOMES
from relay.policy.explain import Verdict
from relay.reports.disclosure import CallState
from relay.service.businesses import Scenario
from relay.service.hooks import Parties as PartiesForm
from relay.service.placement import AreaMatch
from relay.store.bindings import State as BindingState
from relay.store.businesses import State as BusinessState
from relay.store.filings import DocumentType
from relay.store.filings import State as FilingState
from relay.store.groups import Kind as ListKind
from relay.store.numbers import Lock, PrefixState
from relay.store.numbers import State as NumberState
from relay.store.papers import PaperKind, PaperState
from relay.store.recordings import Channels
from relay.store.unit_of_work import Scope
from relay.version import VERSION

_REF: Final = "#/components/{}"
_DESCRIPTION: Final = """\
Number protection with 700 numbers: businesses, numbers, bindings, calls.

Times are RFC 3339; responses use UTC with milliseconds. Real numbers are masked (`138****0001`) unless `reveal` is set.
Lists are paginated: send `next` of a page as `cursor` to get the following one. Every request that changes the store
accepts an `Idempotency-Key`: a repetition with the same key within 24 hours is executed once and gets the same answer.
Hanging up, bans and links to recordings have none.

A body is JSON of at most 1 MiB (2 MiB for `POST /v1/bindings/batch`); a longer one is 413. Unknown fields and unknown
query parameters are 400. All errors are `application/problem+json` (RFC 9457), 404, 405 and 413 too.

Signed requests: `Authorization: RELAY700 key=ID, ts=UNIX_SECONDS, nonce=16_TO_64_CHARACTERS, sig=HEX` with
`sig = HMAC-SHA256(SHA-256(secret), METHOD \\n path?query \\n ts \\n nonce \\n hex(SHA-256(body)))`.
"""
TAGS: Final = {
    "bindings": "Agreements on who reaches whom by which 700 number, and until when",
    "groups": "The members that share the number of a GXB or GXYB binding",
    "lists": "Callers that a business user or a binding refuses (black) or admits (white)",
    "filings": "A numbers filed with the carriers",
    "numbers": "700 numbers and their prefixes, locks and pools",
    "pools": "Sets of numbers from which bindings get theirs",
    "calls": "Call records, calls under way, explanations and ladders",
    "recordings": "What both sides of a call said: as sound, by links, and deleted on demand",
    "capture": "Whose calls are captured whatever comes of them. For operators",
    "businesses": "Business users, from application to revocation. For operators; a business user sees itself",
    "keys": "Keys of the API and their scopes",
    "hooks": "Endpoints of business users that decide about calls when they are made",
    "webhooks": "Receivers of events, and events that were given up (dead letters)",
    "oversight": "Traceback, evidence and daily reports",
    "audit": "Every change, and every access to real numbers, in a chain. For operators",
    "peers": "SIP neighbours and the health of their targets. For operators",
    "bans": "Addresses that the relay does not hear. For operators",
    "health": "Liveness, readiness, metrics",
}


def describe(routes: Sequence[BaseRoute]) -> bytes:
    """The complete document of these routes, as JSON."""
    text = json.dumps(_with_names(_document(routes)), ensure_ascii=False)
    return re.sub(r"\bPage[_[](\w+?)(?:Response)?[]_]", r"\1Page", text).encode()


def _document(routes: Sequence[BaseRoute]) -> dict[str, Any]:
    tags = [{"name": name, "description": text} for name, text in TAGS.items()]
    document = get_openapi(title="relay700", version=VERSION, routes=routes, description=_DESCRIPTION, tags=tags)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas |= _schemas_of([Problem, AlteredEvent, *EVENTS.values()])
    components["responses"] = {str(status): _problem_answer(status) for status in STATUSES}
    components["headers"] = _HEADERS
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key: rk_ID_SECRET"},
        "signed": {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "RELAY700 key=ID, ts=UNIX_SECONDS, nonce=16_TO_64_CHARACTERS, sig=HEX",
        },
    }
    for route in routes:
        if isinstance(route, APIRoute) and route.include_in_schema:
            for method in route.methods or ():
                _complete(document["paths"][route.path_format][method.lower()], route)
    document["webhooks"] = {kind: {"post": _delivery(model)} for kind, model in EVENTS.items()}
    return document


def _schemas_of(models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    _, definitions = models_json_schema(
        [(model, "serialization") for model in models], ref_template=_REF.format("schemas/{model}")
    )
    return {**definitions["$defs"]}


# -- Operations: their scope and their errors

STATUSES: Final = (400, 401, 403, 404, 409, 413, 422, 429, 503)
_OPEN_STATUSES: Final = (400, 503)  # of routes without a key


def scopes_of(route: APIRoute) -> tuple[str, ...] | None:
    """The scopes that a route requires; None if it requires no key."""
    needs = _needs(route)
    return None if needs is None else needs.scopes


def _needs(route: APIRoute) -> Needs | None:
    return next((each.call for each in route.dependant.dependencies if isinstance(each.call, Needs)), None)


def _statuses(route: APIRoute) -> tuple[int, ...]:
    needs = _needs(route)
    if needs is None:
        return _OPEN_STATUSES
    never = set()
    if not isinstance(needs, Changes):
        never.add(422)  # of an Idempotency-Key
    if route.body_field is None:
        never.add(413)
    return tuple(status for status in STATUSES if status not in never)


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    scopes = scopes_of(route)
    for status in STATUSES:
        operation["responses"].pop(str(status), None)
    for answer in operation["responses"].values():
        answer["headers"] = {name: {"$ref": _REF.format(f"headers/{name}")} for name in _headers(route)}
        if route.response_model is not None:
            answer["description"] = (route.response_model.__doc__ or "A page of the list").partition(".")[0]
    operation["responses"] |= {str(status): {"$ref": _REF.format(f"responses/{status}")} for status in _statuses(route)}
    if scopes is not None:
        operation["security"] = [{"bearer": []}, {"signed": []}]
        needs = " and ".join(f"`{scope}`" for scope in scopes) or "any"
        operation["description"] = f"{operation.get('description', '')}\n\nScope: {needs}.".strip()


_HEADERS: Final = {
    "Request-Id": {"description": "of this request, as in the log", "schema": {"type": "string"}},
    "RateLimit-Limit": {"description": "requests at once", "schema": {"type": "integer"}},
    "RateLimit-Remaining": {"description": "of these, left", "schema": {"type": "integer"}},
    "RateLimit-Reset": {"description": "seconds until none is taken", "schema": {"type": "integer"}},
    "Idempotency-Replayed": {"description": "`true`: this was answered before", "schema": {"type": "string"}},
    "Location": {"description": "path of what was made, if it can be read alone", "schema": {"type": "string"}},
}


def _headers(route: APIRoute) -> list[str]:
    """The headers of an answer that is no error."""
    needs = _needs(route)
    never = {"Location"} if route.status_code != 201 else set()
    if not isinstance(needs, Changes):
        never.add("Idempotency-Replayed")
    return [name for name in _HEADERS if name not in never and (needs or name == "Request-Id")]


# Details of examples; the other kinds have their title.
_DETAILS: Final = {
    "invalid": (
        "a: must be a phone number, such as 13800000001 or +86 138 0000 0001",
        [("a", "must be a phone number, such as 13800000001 or +86 138 0000 0001")],
    ),
    "unauthorised": ("send the header Authorization: Bearer rk_…", []),
    "forbidden": (
        "authorization: the key lacks the scope bindings:write: use a key that has it",
        [("authorization", "the key lacks the scope bindings:write: use a key that has it")],
    ),
    "not_found": ("there is no such binding", []),
    "too_large": ("the body must be at most 1048576 bytes", []),
    "quota": (
        "business_id: 20000 live bindings are the most of this business user",
        [("business_id", "20000 live bindings are the most of this business user")],
    ),
}


def _problem_answer(status: int) -> dict[str, Any]:
    kinds = {kind: title for kind, (of_kind, title) in KINDS.items() if of_kind == status}
    examples = {
        kind: {"summary": title, "value": problem(kind, *_DETAILS.get(kind, (title, [])), "0123456789abcdef")}
        for kind, title in kinds.items()
    }
    answer: dict[str, Any] = {
        "description": "; ".join(f"`{kind}`: {title}" for kind, title in kinds.items()),
        "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format("schemas/Problem")}, "examples": examples}},
    }
    if status == 429:
        answer["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return answer


# -- Webhooks: the requests that the relay sends

_SIGNATURE: Final = {
    "name": "Relay700-Signature",
    "in": "header",
    "required": True,
    "description": "`t=UNIX_SECONDS,v1=HEX`: HMAC-SHA256 with the webhook's secret over t, a dot and the body",
    "schema": {"type": "string"},
}
_ANSWERS: Final = {
    "2XX": "The events are delivered",
    "410": "The webhook is disabled",
    "4XX": "Refused, except 408, 425 and 429: an event sent alone and refused three times becomes a dead letter",
    "default": "Sent again after 1, 2, 4 … 600 seconds, for 24 hours",
}


def _delivery(model: type[BaseModel]) -> dict[str, Any]:
    """The operation of a receiver. A request may have events of several kinds."""
    each = [{"$ref": _REF.format(f"schemas/{name}")} for name in (model.__name__, AlteredEvent.__name__)]
    events = {"type": "array", "minItems": 1, "maxItems": DeliveryRules().batch, "items": {"anyOf": each}}
    schema = {"type": "object", "required": ["events"], "properties": {"events": events}, "title": model.__name__ + "s"}
    return {
        "summary": (model.__doc__ or "").partition(".")[0],
        "operationId": f"on{model.__name__}",
        "description": f"{model.__doc__} A request has up to 50 events, also of other kinds, in order, at least once.",
        "tags": ["webhooks"],
        "parameters": [_SIGNATURE],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {status: {"description": text} for status, text in _ANSWERS.items()},
    }


# -- Named enumerations, so that a generated client has a type for each

_NAMED: Final[dict[str, Any]] = {
    "CallOutcome": {"enum": [*OUTCOMES]},
    "EndReason": {"oneOf": END_REASON},
    "EventKind": {"enum": [*EVENT_KINDS]},
    "AnyEventKind": {"enum": [*EVENT_KINDS, TEST]},
} | {
    name: {"enum": [*get_args(type_)]}
    for name, type_ in {
        "AreaMatch": AreaMatch,
        "BindingDirection": Direction,
        "BindingMode": Mode,
        "BindingState": BindingState,
        "BusinessState": BusinessState,
        "CallDirection": Literal["a_to_b", "b_to_a"],
        "CallEndedBy": Literal["caller", "callee", "relay"],
        "CallKind": CallKind,
        "CallState": CallState,
        "CaptureArmKind": ArmKind,
        "CheckVerdict": Verdict,
        "DecidedBy": Literal["hook", "verify"],
        "FilingState": FilingState,
        "IdentityDocument": DocumentType,
        "Language": Language,
        "ListKind": ListKind,
        "NumberLock": Lock,
        "NumberState": NumberState,
        "PartiesForm": PartiesForm,
        "PrefixState": PrefixState,
        "RecordingChannels": Channels,
        "PaperKind": PaperKind,
        "PaperState": PaperState,
        "Scenario": Scenario,
        "Scope": Scope,
        "WebhookFormat": Format,
    }.items()
}
_NAMES: Final = {json.dumps(schema, sort_keys=True): name for name, schema in _NAMED.items()}


def _with_names(document: dict[str, Any]) -> dict[str, Any]:
    """The document with references in place of the enumerations that have a name."""
    named: dict[str, Any] = _named(document)
    named["components"]["schemas"] |= {
        name: {"title": name, **({"type": "string"} if "enum" in schema else {}), **schema}
        for name, schema in _NAMED.items()
    }
    return named


def _named(node: Any) -> Any:
    if isinstance(node, list):
        return [_named(each) for each in node]
    if not isinstance(node, dict):
        return node
    for word in ("enum", "oneOf"):
        if name := _NAMES.get(json.dumps({word: node[word]}, sort_keys=True)) if word in node else None:
            rest = {key: node[key] for key in ("description", "default") if key in node}
            return {"$ref": _REF.format(f"schemas/{name}"), **rest}
    return {key: _named(value) for key, value in node.items()}
