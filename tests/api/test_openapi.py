"""The OpenAPI document: what it says is so."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import schemathesis
from fastapi.routing import APIRoute

from relay.api.app import _ROUTES, openapi_document
from relay.api.problems import Problem
from tests.api.conftest import PREFIX, A, Api, B, Client

DOCUMENT: dict[str, Any] = json.loads(openapi_document())
BINDING = {"mode": "AXB", "a": A, "b": B, "order_id": "order-1"}


async def test_the_document_is_openapi_3_1_with_scopes_and_problems(api: Api) -> None:
    document = await api.stranger().get("/openapi.json")
    assert document["openapi"].startswith("3.1")
    operation = document["paths"]["/v1/businesses"]["post"]
    assert "Scope: `operator`" in operation["description"]
    assert operation["responses"]["409"] == {"$ref": "#/components/responses/409"}
    assert "HTTPValidationError" not in document["components"]["schemas"]
    schemathesis.openapi.from_dict(document).validate()
    for answer in document["components"]["responses"].values():
        for example in answer["content"]["application/problem+json"]["examples"].values():
            Problem.model_validate(example["value"])


def test_each_operation_has_a_readable_id() -> None:
    """`operation_id` of its route, verb first: what a generated client calls it by."""
    ids = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert [each for each in ids if not re.fullmatch("[a-z]+([A-Z][a-z]+)+", each)] == []
    assert len(set(ids)) == len(ids)


def test_each_request_has_an_example_that_it_accepts() -> None:
    for route in _ROUTES:
        if isinstance(route, APIRoute) and route.body_field is not None and route.include_in_schema:
            model = route.body_field.field_info.annotation
            examples = model.model_json_schema().get("examples")
            assert examples, f"{route.path}: give {model.__name__} an example"
            for example in examples:
                model.model_validate_json(json.dumps(example))


async def test_the_headers_of_an_answer_are_as_documented(company: Client) -> None:
    body = BINDING | {"x": f"{PREFIX}0001"}
    headers = {"idempotency-key": "k1"}
    answers = [await company.http.post("/v1/bindings", json=body, headers=headers) for _ in range(2)]
    documented = DOCUMENT["paths"]["/v1/bindings"]["post"]["responses"]["201"]["headers"]
    assert {name.lower() for name in documented} <= answers[1].headers.keys()
    assert documented.keys() <= DOCUMENT["components"]["headers"].keys()
    assert "idempotency-replayed" not in answers[0].headers


def test_enumerations_that_occur_often_have_names() -> None:
    found = re.findall(r'"enum": (\[[^]]*\])', openapi_document().decode())
    often = {each for each, count in Counter(found).items() if count > 3}
    assert often == set()
