"""Routes of filings, and the response to a binding of an unfiled number."""

from __future__ import annotations

from relay.service.placement import BindRules
from tests.api.conftest import A, Api, B, C, Client, Json

AXB: Json = {"mode": "AXB", "a": A, "b": B, "order_id": "order-1"}


async def test_a_number_is_filed_listed_and_withdrawn(api: Api, company: Client) -> None:
    made = await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    assert (made["business_id"], made["number"], made["reference"]) == ("acme", "138****0001", "CT-17")
    assert (await company.get("/v1/filings"))["items"] == [made]
    await company.refused("DELETE", "/v1/filings", "not_found", {"number": C})
    gone = await company.ask("DELETE", "/v1/filings", {"number": A})
    assert gone["withdrawn_by"] == made["filed_by"]
    assert (await company.get("/v1/filings"))["items"] == []
    assert (await company.get("/v1/filings?all=true"))["items"] == [gone]
    problem = await company.refused("POST", "/v1/filings", "invalid", {"number": "12", "reference": "r"})
    assert problem["errors"][0]["field"] == "number"


async def test_require_refuses_a_binding_of_an_unfiled_number(api: Api, company: Client) -> None:
    api.backend.settings = api.backend.settings._replace(rules=BindRules(filing="require"))
    problem = await company.refused("POST", "/v1/bindings", "not_filed", AXB)
    assert (problem["status"], problem["errors"][0]["field"]) == (403, "a")
    answers = await company.post("/v1/bindings/batch", {"items": [AXB]}, 200)
    assert answers["items"][0]["status"] == 403
    await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    assert (await company.post("/v1/bindings", AXB))["warning"] is None


async def test_warn_adds_a_warning_to_the_binding(api: Api, company: Client) -> None:
    api.backend.settings = api.backend.settings._replace(rules=BindRules(filing="warn"))
    made = await company.post("/v1/bindings", AXB)
    assert made["warning"] == "a: this A number is not filed"
    assert (await company.get(f"/v1/bindings/{made['id']}"))["warning"] is None
    changed = await company.ask("PATCH", f"/v1/bindings/{made['id']}", {"a": C})
    assert changed["warning"] == made["warning"]
    answers = await company.post("/v1/bindings/batch", {"items": [AXB | {"b": C}]}, 200)
    assert answers["items"][0]["binding"]["warning"] == made["warning"]
