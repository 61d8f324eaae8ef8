"""Carriers' answers to filings."""

from __future__ import annotations

from relay.service.keys import OPERATOR_SCOPES
from tests.api.conftest import A, Api, C, Client, Json


async def test_an_operator_enters_answers_each_by_itself(operator: Client, company: Client) -> None:
    await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    good = {"number": A, "state": "approved", "expires_at": "2099-01-31", "code": "0", "business_id": "acme"}
    answers = await operator.post("/v1/filings/answers", {"items": [good, good | {"number": C}]}, 200)
    first, second = answers["items"]
    assert (first["status"], first["filings"][0]["state"], second["status"]) == (200, "approved", 404)
    assert second["problem"]["errors"][0]["field"] == "number"
    (listed,) = (await company.get("/v1/filings?state=approved"))["items"]
    assert listed["expires_at"] == "2099-01-31T16:00:00.000Z"
    assert (await company.get("/v1/filings?expiring=true"))["items"] == []
    await company.refused("POST", "/v1/filings/answers", "forbidden", {"items": [good]})


async def test_carriers_answers_that_are_all_refused_are_not_kept(operator: Client, company: Client) -> None:
    asked = {"items": [{"number": A, "state": "approved", "business_id": "acme"}]}
    refused = await operator.post("/v1/filings/answers", asked, 200, idempotency_key="k1")
    await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    entered = await operator.post("/v1/filings/answers", asked, 200, idempotency_key="k1")
    assert (refused["items"][0]["status"], entered["items"][0]["status"]) == (404, 200)


async def test_an_operator_without_parties_read_answers_by_reference_alone(api: Api, company: Client) -> None:
    """Otherwise a key that sees 138****0001 could try the ten thousand numbers behind it, 200 in a request."""
    await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    blind = await api.operator(OPERATOR_SCOPES - {"parties:read"})
    answer: Json = {"state": "approved", "business_id": "acme"}
    guesses: list[Json] = [answer | {"number": f"1380000{n:04}"} for n in range(199)]
    asked = {"items": [*guesses, answer | {"reference": "CT-17"}]}
    items = (await blind.post("/v1/filings/answers", asked, 200))["items"]
    assert {item["status"] for item in items[:-1]} == {403}
    assert {item["problem"]["errors"][0]["field"] for item in items[:-1]} == {"number"}
    assert (items[-1]["status"], items[-1]["filings"][0]["state"]) == (200, "approved")
    for guess in (A, C):
        await blind.refused("DELETE", "/v1/filings", "forbidden", {"number": guess, "business_id": "acme"})
        forgotten = {"number": guess, "business_id": "acme", "reason": "case"}
        await blind.refused("POST", "/v1/filings/forget", "forbidden", forgotten)


async def test_answers_that_are_refused_to_an_operator_are_audited_with_their_count(
    operator: Client, company: Client
) -> None:
    await company.post("/v1/filings", {"number": A, "reference": "CT-17"})
    answer: Json = {"state": "approved", "business_id": "acme"}
    guesses: list[Json] = [answer | {"number": f"1370000{n:04}"} for n in range(50)]
    await operator.post("/v1/filings/answers", {"items": guesses}, 200)
    line, *_ = (await operator.get("/v1/audit"))["items"]
    assert (line["action"], line["object"], line["actor"]) == ("change.refused", line["actor"], line["actor"])
    assert line["details"] == {"refused": 50, "kinds": ["not_found"]}
