"""Routes of API keys."""

from __future__ import annotations

import pytest

from tests.api.conftest import Api, Client


async def test_a_key_works_until_it_is_revoked(api: Api, operator: Client) -> None:
    company = await api.company("acme", ["keys"])
    made = await company.post("/v1/businesses/acme/keys", {"scopes": ["keys"]})
    client = api.stranger(made["secret"])
    listed = (await client.get("/v1/businesses/acme/keys"))["items"]
    assert made["id"] in [key["id"] for key in listed]
    assert not any("secret" in key for key in listed)
    assert (await operator.ask("DELETE", f"/v1/keys/{made['id']}"))["revoked_at"] is not None
    await client.refused("GET", "/v1/businesses/acme/keys", "unauthorised")
    await operator.refused("DELETE", f"/v1/keys/{made['id']}", "ended")


async def test_keys_are_paginated(api: Api) -> None:
    company = await api.company("acme", ["keys"])
    for _ in range(4):
        await company.post("/v1/businesses/acme/keys", {"scopes": ["keys"]})
    path, seen = "/v1/businesses/acme/keys?limit=2", []
    page = await company.get(path)
    while True:
        seen += [key["id"] for key in page["items"]]
        if page["next"] is None:
            break
        page = await company.get(f"{path}&cursor={page['next']}")
    assert len(set(seen)) == len(seen) == 5
    assert seen == sorted(seen)


async def test_the_keys_of_a_revoked_business_user_are_refused(api: Api, operator: Client) -> None:
    company = await api.company("acme", ["keys"])
    await company.get("/v1/businesses/acme")
    await operator.post("/v1/businesses/acme/revoke", {"reason": "fraud"}, 200)
    await company.refused("GET", "/v1/businesses/acme", "unauthorised")
    key_id = company.key.split("_")[1]
    await operator.refused("POST", f"/v1/keys/{key_id}/rotate", "ended", {})
    await operator.refused("POST", "/v1/businesses/acme/keys", "business_not_approved", {"scopes": ["keys"]})


async def test_a_rotated_key_stays_valid_for_the_overlap(api: Api) -> None:
    company = await api.company("acme", ["keys"])
    key_id = company.key.split("_")[1]
    made = await company.post(f"/v1/keys/{key_id}/rotate", {"overlap_s": 60})
    for client in (company, api.stranger(made["secret"])):
        await client.get("/v1/businesses/acme")
    await company.post(f"/v1/keys/{key_id}/rotate", {})
    await company.refused("GET", "/v1/businesses/acme", "unauthorised")


@pytest.mark.parametrize("scope", ["operator", "trace", "bindings:read"])
async def test_a_key_cannot_grant_a_scope_it_lacks(api: Api, scope: str) -> None:
    company = await api.company("acme", ["keys"])
    answer = await company.http.post("/v1/businesses/acme/keys", json={"scopes": [scope]})
    assert answer.status_code in (400, 403)


async def test_a_repeated_request_for_a_key_makes_no_second_key_and_shows_no_secret(operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "acme", "name": "Acme"})
    first = await operator.post("/v1/businesses/acme/keys", {"scopes": ["keys"]}, idempotency_key="k1")
    second = await operator.post("/v1/businesses/acme/keys", {"scopes": ["keys"]}, idempotency_key="k1")
    assert second == first | {"secret": None, "access_key_secret": None}
