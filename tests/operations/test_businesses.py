"""Routes of business users."""

from __future__ import annotations

from tests.api.conftest import Client
from tests.support.papers import PAPERS


async def test_a_business_user_from_application_to_revocation(operator: Client) -> None:
    applied = await operator.post(
        "/v1/businesses", {"name": "快送 Express", "scenario": "express", "max_calls": 10} | PAPERS
    )
    assert (applied["state"], applied["max_calls"], applied["max_cps"]) == ("applied", 10, None)
    path = f"/v1/businesses/{applied['id']}"
    for step, state in (
        ("approve", "approved"),
        ("suspend", "suspended"),
        ("resume", "approved"),
        ("revoke", "revoked"),
    ):
        assert (await operator.post(f"{path}/{step}", {"reason": f"{step} it"}, 200))["state"] == state
    assert (await operator.get(path))["state"] == "revoked"
    history = (await operator.get(f"{path}/history"))["items"]
    assert [line["reason"] for line in history] == ["", "approve it", "suspend it", "resume it", "revoke it"]
    assert {line["by"] for line in history} == {f"key:{operator.key.split('_')[1]}"}


async def test_a_refused_approval_names_all_missing_fields(operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "acme", "name": "Acme", "scenario": "express", "scheme": "S-1"})
    body = {"reason": "looks good"}
    problem = await operator.refused("POST", "/v1/businesses/acme/approve", "unqualified", body)
    assert problem["status"] == 409
    assert [error["field"] for error in problem["errors"]] == ["licence", "application", "contact"]
    assert "快递业务经营许可证" in problem["errors"][0]["problem"]
    assert (await operator.get("/v1/businesses/acme"))["state"] == "applied"


async def test_a_change_of_the_qualification_returns_to_applied_and_is_in_the_history(operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "acme", "name": "Acme"} | PAPERS)
    approved = await operator.post("/v1/businesses/acme/approve", {"reason": "papers complete"}, 200)
    assert (approved["state"], approved["qualification"]) == ("approved", approved["version"])
    problem = await operator.refused("PATCH", "/v1/businesses/acme", "invalid", {"licence": "L-2"})
    assert problem["errors"][0]["field"] == "reason"
    new = {"licence": "L-2", "contact": "Li Lei 13800000001", "reason": "asked 13800000001"}
    assert (await operator.ask("PATCH", "/v1/businesses/acme", new))["state"] == "applied"
    step = (await operator.get("/v1/businesses/acme/history"))["items"][-1]
    assert (step["state"], step["reason"], step["by"]) == (
        "applied",
        "asked 138****0001",
        f"key:{operator.key.split('_')[1]}",
    )
    assert step["changed"] == [
        {"field": "licence", "before": "L-1", "after": "L-2"},
        {"field": "contact", "before": "Li Lei", "after": "Li Lei 138****0001"},
    ]


async def test_a_step_from_the_wrong_state_is_a_conflict(operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "acme", "name": "Acme"})
    await operator.refused("POST", "/v1/businesses/acme/resume", "state_conflict", {"reason": "why not"})
    await operator.refused("POST", "/v1/businesses/nobody/approve", "not_found", {"reason": "why not"})


async def test_a_change_keeps_omitted_fields(operator: Client) -> None:
    made = await operator.post(
        "/v1/businesses", {"id": "acme", "name": "Acme", "max_calls": 10, "hours": "08:00-22:00"}
    )
    changed = await operator.ask("PATCH", "/v1/businesses/acme", {"max_calls": None, "version": made["version"]})
    assert (changed["max_calls"], changed["hours"], changed["name"]) == (None, "08:00-22:00", "Acme")
    await operator.refused("PATCH", "/v1/businesses/acme", "state_conflict", {"name": "B", "version": made["version"]})
    refused = await operator.refused("PATCH", "/v1/businesses/acme", "invalid", {"name": None})
    assert refused["errors"][0]["field"] == "name"


async def test_a_quota_is_a_number_or_none_or_null(operator: Client) -> None:
    made = await operator.post("/v1/businesses", {"id": "acme", "name": "Acme", "max_cps": "none"})
    assert (made["max_bindings"], made["max_cps"]) == (None, "none")
    asked = {"max_bindings": 20_000, "max_cps": None, "max_binds_per_s": "none", "max_binds_per_day": 0}
    changed = await operator.ask("PATCH", "/v1/businesses/acme", asked)
    assert {name: changed[name] for name in asked} == asked
    for wrong in (-1, "many", 1 << 62):
        await operator.refused("PATCH", "/v1/businesses/acme", "invalid", {"max_bindings": wrong})


async def test_the_language_of_announcements_can_be_set_and_reset(operator: Client) -> None:
    made = await operator.post("/v1/businesses", {"id": "acme", "name": "Acme", "language": "en"})
    assert made["language"] == "en"
    changed = await operator.ask("PATCH", "/v1/businesses/acme", {"language": None})
    assert changed["language"] is None
    refused = await operator.refused("PATCH", "/v1/businesses/acme", "invalid", {"language": "de"})
    assert refused["errors"][0]["field"] == "language"


async def test_a_contact_is_masked_until_it_is_revealed(operator: Client) -> None:
    made = await operator.post("/v1/businesses", {"id": "acme", "name": "Acme", "contact": "Li Lei 138-0000-0001"})
    assert made["contact"] == "Li Lei 138****0001"
    shown = await operator.get("/v1/businesses/acme?reveal=true&reason=call")
    assert shown["contact"] == "Li Lei 138-0000-0001"


async def test_business_users_are_paginated(operator: Client) -> None:
    for name in ("a", "b", "c"):
        await operator.post("/v1/businesses", {"id": name, "name": name})
    first = await operator.get("/v1/businesses?limit=3")
    second = await operator.get(f"/v1/businesses?limit=3&cursor={first['next']}")
    assert [one["id"] for one in first["items"] + second["items"]] == ["a", "b", "c", "default"]
    assert second["next"] is None


async def test_an_optional_reason_may_be_null(operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "acme", "name": "Acme"} | PAPERS)
    await operator.ask("PATCH", "/v1/businesses/acme", {"max_calls": 7, "reason": None})
