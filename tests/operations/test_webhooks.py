"""Routes of webhooks."""

from __future__ import annotations

from tests.api.conftest import Api, Client

URL = "https://platform.example/events"


async def test_a_webhook_is_made_changed_and_removed(api: Api) -> None:
    company = await api.company("acme")
    made = await company.post("/v1/webhooks", {"url": URL, "kinds": ["call.ended"]})
    assert made.pop("secret")
    path = f"/v1/webhooks/{made['id']}"
    assert await company.get(path) == made
    assert (await company.get("/v1/webhooks"))["items"] == [made]
    changed = await company.ask("PATCH", path, {"enabled": False, "parties": "none"})
    assert (changed["enabled"], changed["parties"], changed["kinds"]) == (False, "none", ["call.ended"])
    await company.ask("DELETE", path)
    await company.refused("GET", path, "not_found")


async def test_a_repeated_request_shows_no_secret(api: Api) -> None:
    company = await api.company("acme")
    first = await company.post("/v1/webhooks", {"url": URL}, idempotency_key="k1")
    second = await company.post("/v1/webhooks", {"url": URL}, idempotency_key="k1")
    assert second == first | {"secret": None}


async def test_a_webhook_requires_https(api: Api) -> None:
    company = await api.company("acme")
    problem = await company.refused("POST", "/v1/webhooks", "invalid", {"url": "http://platform.example/events"})
    assert problem["errors"][0]["field"] == "url"


async def test_parties_in_clear_require_the_scope(api: Api) -> None:
    company = await api.company("acme", ["webhooks"])
    await company.refused("POST", "/v1/webhooks", "forbidden", {"url": URL, "parties": "clear"})


async def test_an_operator_names_the_business_user(api: Api, operator: Client) -> None:
    await api.company("acme")
    assert (await operator.post("/v1/webhooks", {"url": URL, "business_id": "acme"}))["business_id"] == "acme"
    assert (await operator.post("/v1/webhooks", {"url": URL}))["business_id"] == "default"
    rival = await api.company("rival")
    await rival.refused("POST", "/v1/webhooks", "not_found", {"url": URL, "business_id": "acme"})
