"""The routes of operations: query parameters of a request's fields, Location, pages, scopes and revealing."""

from __future__ import annotations

import json

from relay.api.app import openapi_document
from tests.api.conftest import A, B, Client

BINDING = {"mode": "AXB", "a": A, "b": B, "order_id": "17", "consent": "c 13800000001"}


def test_an_operation_is_documented_by_its_declaration() -> None:
    paths = json.loads(openapi_document())["paths"]
    listed = paths["/v1/bindings"]["get"]
    assert (listed["operationId"], listed["tags"]) == ("listBindings", ["bindings"])
    named = {each["name"]: each.get("description", "") for each in listed["parameters"]}
    assert named["order_id"] == "Only bindings of this order."
    assert {"limit", "cursor", "fields", "reveal", "reason", "mode", "since"} < named.keys()
    assert "party" not in named, "a URL would expose it to proxies and logs"
    made = paths["/v1/bindings"]["post"]
    assert "201" in made["responses"] and "requestBody" in made


async def test_what_is_made_has_a_location(company: Client) -> None:
    answer = await company.http.post("/v1/bindings", json=BINDING)
    assert answer.headers["location"] == f"/v1/bindings/{answer.json()['id']}"
    assert (await company.http.get(answer.headers["location"])).status_code == 200


async def test_real_numbers_are_shown_with_a_reason_that_is_audited_first(operator: Client, company: Client) -> None:
    made = await company.post("/v1/bindings", BINDING)
    path = f"/v1/bindings/{made['id']}"
    masked, clear = await operator.get(path), await operator.get(f"{path}?reveal=true&reason=complaint")
    assert [masked["a"], clear["a"]] == ["138****0001", f"86{A}"]
    assert [masked["consent"], clear["consent"]] == ["c 138****0001", "c 13800000001"]
    (read, *_) = [each for each in (await operator.get("/v1/audit"))["items"] if each["action"] == "read"]
    assert (read["object"], read["reason"]) == (f"binding {made['id']}", "complaint")
    await operator.refused("GET", "/v1/bindings/0123456789ab?reveal=true&reason=none", "not_found")
    assert [each["object"] for each in (await operator.get("/v1/audit"))["items"] if each["action"] == "read"] == [
        read["object"]
    ]
