"""Scopes of keys: each route is requested with a key that has all scopes but one."""

from __future__ import annotations

import pytest
from fastapi.routing import APIRoute

from relay.api.openapi import scopes_of
from relay.service.keys import OPERATOR_SCOPES
from tests.api.conftest import A, Api

NAMES = {
    "business_id": "default",
    "key_id": "0" * 12,
    "prefix": "70010000001",
    "number": "700100000010001",
    "pool_id": "default",
    "group_id": "g" + "0" * 20,
    "binding_id": "0" * 24,
    "webhook_id": "w" + "0" * 12,
    "call_id": "0" * 32,
    "address": "192.0.2.1",
    "arm_id": "0" * 12,
    "whose": "business",
    "owner_id": "default",
    "paper_id": "0" * 12,
    "name": "li.lei",
}


async def test_each_route_is_forbidden_to_a_key_without_its_scope(api: Api) -> None:
    """The scope is checked before any look-up, and whatever the body."""
    tried = 0
    for route in api.app.routes:
        if not isinstance(route, APIRoute):
            continue
        for scope in scopes_of(route) or ():
            client = await api.operator(OPERATOR_SCOPES - {scope})
            for method in route.methods or ():
                problem = await client.refused(method, route.path.format_map(NAMES), "forbidden", {})
                assert f"the scope {scope}" in problem["detail"], f"{method} {route.path}"
                tried += 1
    assert tried > 50


async def test_a_key_without_scopes_reads_its_own_business_user_only(api: Api) -> None:
    free = [route.path for route in api.app.routes if isinstance(route, APIRoute) and scopes_of(route) == ()]
    assert free == ["/v1/businesses", "/v1/businesses/{business_id}", "/v1/businesses/{business_id}/history"]
    company = api.stranger((await api.company("acme", ["lists"])).key)
    assert [one["id"] for one in (await company.get("/v1/businesses"))["items"]] == ["acme"]
    keyless = [route.path for route in api.app.routes if isinstance(route, APIRoute) and scopes_of(route) is None]
    open_ = ["/recordings/{call_id}.wav", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/{name}"]
    assert keyless == open_


@pytest.mark.parametrize(("scope", "path"), [("calls:read", "/v1/calls"), ("bindings:read", "/v1/bindings")])
async def test_a_search_by_party_requires_parties_read(api: Api, scope: str, path: str) -> None:
    """Otherwise a key that sees 139****0002 could try the ten thousand numbers behind it."""
    blind, seeing = await api.operator([scope]), await api.operator([scope, "parties:read"])
    problem = await blind.refused("POST", f"{path}/search", "forbidden", {"party": A})
    assert problem["errors"][0]["field"] == "party"
    for client in (blind, seeing):
        assert (await client.post(f"{path}/search", {"order_id": "17"}, 200))["items"] == []
    assert (await seeing.post(f"{path}/search", {"party": A}, 200))["items"] == []


async def test_a_key_cannot_gain_a_scope_it_lacks(api: Api) -> None:
    """An operator key without parties:read cannot make a key with it, nor have numbers sent or shown in clear."""
    strong = await api.company("acme", ["parties:read", "keys"])
    blind = await api.operator(OPERATOR_SCOPES - {"parties:read", "trace"})
    key_id = strong.key.split("_")[1]
    asked = {"scopes": ["parties:read"]}
    webhook = {"url": "https://a.example/", "business_id": "acme", "parties": "clear"}
    span = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "number": A, "reason": "case 1"}
    for method, path, body in (
        ("POST", "/v1/businesses/acme/keys", asked),
        ("POST", f"/v1/keys/{key_id}/rotate", {}),
        ("DELETE", f"/v1/keys/{key_id}", None),
        ("POST", "/v1/webhooks", webhook),
        ("POST", "/v1/evidence", span),
        ("POST", "/v1/trace", {"number": A, "at": span["since"], "reason": "case 1"}),
        ("GET", "/v1/calls?reveal=true&reason=case", None),
        ("GET", "/v1/audit?reveal=true&reason=case", None),
        ("GET", f"/v1/calls/export?since={span['since']}&until={span['until']}&reveal=true&reason=case", None),
    ):
        await blind.refused(method, path, "forbidden", body)
    assert await strong.get("/v1/businesses/acme/keys")  # still valid


async def test_each_scope_is_required_by_some_route(api: Api) -> None:
    needed = {scope for route in api.app.routes if isinstance(route, APIRoute) for scope in scopes_of(route) or ()}
    assert needed == OPERATOR_SCOPES
