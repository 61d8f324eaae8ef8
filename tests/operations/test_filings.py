"""Operations of filings, and the response to a binding of an unfiled number."""

from __future__ import annotations

from relay.service.keys import OPERATOR_SCOPES
from relay.service.placement import BindRules
from tests.api.conftest import A, Api, B, C, Client, Json

AXB: Json = {"mode": "AXB", "a": A, "b": B, "order_id": "order-1"}


async def test_a_number_is_filed_listed_and_withdrawn(api: Api, company: Client) -> None:
    made = await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    assert (made["business_id"], made["number"], made["reference"]) == ("acme", "138****0001", "CT-17")
    assert made["state"] == "submitted"
    assert (await company.get("/v1/filings"))["items"] == [made]
    await company.refused("DELETE", "/v1/filings", "not_found", {"number": C})
    gone = await company.ask("DELETE", "/v1/filings", {"number": A})
    assert gone["withdrawn_by"] == made["filed_by"]
    assert (await company.get("/v1/filings"))["items"] == []
    assert (await company.get("/v1/filings?all=true"))["items"] == [gone]
    problem = await company.refused("POST", "/v1/filings", "invalid", {"number": "12", "reference": "r"})
    assert problem["errors"][0]["field"] == "number"


async def test_documents_are_shown_with_a_reason_only(api: Api, company: Client) -> None:
    asked = {"number": A, "holder": "张三", "document": "11010519491231002X", "photo": "oss://1"}
    made = await company.post("/v1/filings", asked)
    assert (made["holder"], made["document"], made["photo"]) == ("张**", "1****X", None)
    assert made["reference"].startswith("F")
    (shown,) = (await company.get("/v1/filings?reveal=true&reason=case%207"))["items"]
    assert (shown["holder"], shown["document"], shown["photo"]) == ("张三", "11010519491231002X", "oss://1")
    problem = await company.refused("POST", "/v1/filings", "invalid", asked | {"document": "1"})
    assert problem["errors"][0]["field"] == "document"
    await company.refused("POST", "/v1/filings", "forbidden", asked | {"state": "approved"})


async def test_an_operator_without_parties_read_files_no_number(api: Api, company: Client) -> None:
    """A right guess would be answered with the holder, and would change the filing."""
    made = await company.post("/v1/filings", {"number": A, "holder": "张三", "document": "11010519491231002X"})
    blind = await api.operator(OPERATOR_SCOPES - {"parties:read"})
    for guess in (A, C):
        asked = {"number": guess, "reference": "tried", "state": "submitted", "business_id": "acme"}
        problem = await blind.refused("POST", "/v1/filings", "forbidden", asked)
        assert problem["errors"][0]["field"] == "number"
    assert (await company.get("/v1/filings"))["items"] == [made]


async def test_a_number_is_found_with_its_history(operator: Client, api: Api, company: Client) -> None:
    await company.post("/v1/filings", {"number": A, "holder": "张三", "document": "11010519491231002X"})
    answer = {"number": A, "state": "approved", "business_id": "acme"}
    await operator.post("/v1/filings/answers", {"items": [answer]}, 200)
    found = (await operator.post("/v1/filings/search", {"party": A}, 200))["items"]
    assert [(each["state"], each["until"] is None, each["holder"]) for each in found] == [
        ("approved", True, "张**"), ("submitted", False, "张**"),
    ]  # fmt: skip
    await operator.post("/v1/filings/search?reveal=true&reason=case", {"party": A, "business_id": "acme"}, 200)
    await operator.get("/v1/filings?reveal=true&reason=case&state=approved")
    details = [line["details"] for line in (await operator.get("/v1/audit?action=read"))["items"]]
    assert details == [
        {"state": "approved", "shown": []}, {"number": "138****0001", "business": "acme", "shown": []},
    ]  # fmt: skip
    rival = await api.company("rival")
    assert (await rival.post("/v1/filings/search", {"party": A}, 200))["items"] == []
    blind = await api.company("acme", ["filings"])
    await blind.refused("POST", "/v1/filings/search", "forbidden", {"party": A})


async def test_the_history_of_a_number_is_paginated(operator: Client, company: Client) -> None:
    await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    for state in ("rejected", "approved"):
        answer = {"number": A, "state": state, "business_id": "acme"}
        await operator.post("/v1/filings/answers", {"items": [answer]}, 200)
    found = await operator.post("/v1/filings/search?limit=2", {"party": A}, 200)
    rest = await operator.post(f"/v1/filings/search?cursor={found['next']}", {"party": A}, 200)
    assert [each["state"] for each in found["items"]] == ["approved", "rejected"]
    assert ([each["state"] for each in rest["items"]], rest["next"]) == (["submitted"], None)
    await operator.refused("GET", f"/v1/filings?cursor={found['next']}", "invalid")


async def test_documents_are_removed_by_an_operator(operator: Client, company: Client) -> None:
    await company.post("/v1/filings", {"number": A, "holder": "张三", "document": "11010519491231002X"})
    asked = {"number": A, "business_id": "acme", "reason": "the holder asked"}
    gone = await operator.post("/v1/filings/forget", asked, 200)
    assert (gone["holder"], gone["document"], gone["state"]) == (None, None, "withdrawn")


async def test_require_refuses_a_binding_of_an_unfiled_number(api: Api, operator: Client, company: Client) -> None:
    api.backend.settings = api.backend.settings._replace(rules=BindRules(filing="require"))
    problem = await company.refused("POST", "/v1/bindings", "not_filed", AXB)
    assert (problem["status"], problem["errors"][0]["field"]) == (403, "a")
    answers = await company.post("/v1/bindings/batch", {"items": [AXB]}, 200)
    assert answers["items"][0]["status"] == 403
    await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    await company.refused("POST", "/v1/bindings", "not_filed", AXB)
    await operator.post("/v1/filings", {"number": A, "reference": "CT-17", "business_id": "acme"})
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


async def test_a_holder_is_found_nowhere_without_a_reason(api: Api, operator: Client, company: Client) -> None:
    marks = ("司马相如", "11010519491231002X", "oss://photo-7")
    await company.post("/v1/webhooks", {"url": "https://acme.example/", "parties": "masked"})
    once = {"idempotency-key": "k1"}
    asked = dict(zip(("holder", "document", "photo"), marks, strict=True)) | {"number": A}
    await company.http.post("/v1/filings", json=asked, headers=once)
    words = {"number": A, "state": "rejected", "reason": " ".join(marks[:2]), "business_id": "acme"}
    answers = await operator.http.post("/v1/filings/answers", json={"items": [words]}, headers=once)
    paths = ("/v1/filings", "/v1/filings?all=true&state=rejected", "/v1/audit?reveal=true&reason=case")
    texts = [answers.text, *[(await operator.http.get(path)).text for path in paths]]
    rows = api.backend.reader.read(
        lambda connection: [
            connection.execute(f"SELECT * FROM {table}").fetchall()
            for table in ("filing", "filing_change", "outbox", "audit", "idempotency")
        ]
    )
    assert all(rows)
    written = b"".join(cell for table in rows for row in table for cell in row if isinstance(cell, bytes))
    for mark in marks:
        assert not [text for text in texts if mark in text]
        assert mark.encode() not in written and mark not in str(rows)
    shown = (await operator.http.get("/v1/filings?reveal=true&reason=case")).text
    assert all(mark in shown for mark in marks)
