"""Routes of users."""

from __future__ import annotations

from tests.api.conftest import Api, Client


async def test_secrets_are_in_the_first_response_only(api: Api, operator: Client) -> None:
    made = await operator.post("/v1/users", {"name": "li.na", "role": "operator"})
    assert made["password"] and made["code_uri"].startswith("otpauth://")
    (listed,) = (await operator.get("/v1/users"))["items"]
    assert (listed["name"], listed["must_change"]) == ("li.na", True)
    assert not {"password", "code_uri"} & set(listed)
    again = await operator.post("/v1/users/li.na/reset", {}, 200)
    assert again["password"] != made["password"]


async def test_the_last_operator_stays(api: Api, operator: Client) -> None:
    await operator.post("/v1/users", {"name": "li.na", "role": "operator"})
    await operator.refused("DELETE", "/v1/users/li.na", "state_conflict")
    await operator.refused("POST", "/v1/users/li.na/role", "state_conflict", {"role": "auditor"})


async def test_users_are_the_operators_own(api: Api) -> None:
    company = await api.company("acme", ["keys"])
    await company.refused("GET", "/v1/users", "forbidden")
    await company.refused("POST", "/v1/users", "forbidden", {"name": "li.na", "role": "business_admin"})


async def test_the_audit_log_names_the_key(api: Api, operator: Client) -> None:
    made = await operator.post("/v1/businesses/default/keys", {"scopes": ["calls:read", "keys"], "name": "courier app"})
    client = api.stranger(made["secret"])
    await client.post("/v1/businesses/default/keys", {"scopes": ["calls:read"]})
    lines = (await operator.get("/v1/audit?action=key.make"))["items"]
    assert (lines[0]["actor"], lines[0]["actor_name"]) == (f"key:{made['id']}", "courier app")
    assert made["name"] == "courier app"
