"""Operations of papers: who sees which, the file in Base64, and the event about an answer."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Any

from relay.events.webhooks import make as make_webhook
from tests.api.conftest import A, Api, Client, Json
from tests.support.papers import CREDIT_CODE, PDF


def permit(**more: Any) -> Json:
    return {"kind": "scenario_permit", "reference": "P-1", "file": b64encode(PDF).decode()} | more


async def test_a_paper_is_submitted_answered_and_withdrawn(api: Api, company: Client, operator: Client) -> None:
    await api.run(lambda unit: make_webhook(unit, "acme", "https://acme.example/events"))
    made = await company.post("/v1/papers", permit(valid_until="2030-12-31", scope="Beijing"))
    assert (made["business_id"], made["owner"], made["state"]) == ("acme", "business acme", "submitted")
    assert (made["valid_until"], made["media_type"], made["size"]) == ("2030-12-31", "application/pdf", len(PDF))
    of_it = f"/v1/papers/{made['id']}"
    await company.refused("POST", f"{of_it}/accept", "forbidden", {})
    asked = await operator.post(f"{of_it}/supplement", {"reason": "page 2", "due": "2030-01-31"}, 200)
    assert (asked["state"], asked["due"], asked["note"]) == ("supplement_asked", "2030-01-31", "page 2")
    problem = await operator.refused("POST", f"{of_it}/accept", "state_conflict", {})
    assert problem["errors"][0]["field"] == "state"
    again = await company.post("/v1/papers", permit())
    assert (again["version"], (await company.get(of_it))["state"]) == (2, "withdrawn")
    accepted = await operator.post(f"/v1/papers/{again['id']}/accept", {"reason": "register"}, 200)
    assert accepted["state"] == "accepted"
    assert (await company.get("/v1/papers"))["items"] == [accepted]
    kinds = api.backend.reader.read(lambda one: one.execute("SELECT kind FROM outbox ORDER BY seq").fetchall())
    assert kinds == [("paper.answered",)] * 2
    gone = await company.post(f"/v1/papers/{again['id']}/withdraw", {"reason": "replaced"}, 200)
    assert gone["state"] == "withdrawn"
    assert len((await operator.get("/v1/papers?all=true&business_id=acme"))["items"]) == 2


async def test_a_file_is_read_with_a_reason_only(api: Api, company: Client) -> None:
    made = await company.post("/v1/papers", permit())
    path = f"/v1/papers/{made['id']}/file"
    assert (await company.get(path))["file"] is None
    await company.refused("GET", f"{path}?reveal=true", "invalid")
    shown = await company.get(f"{path}?reveal=true&reason=case%207")
    assert b64decode(shown["file"]) == PDF
    blind = await api.operator({"papers", "operator"})
    await blind.refused("GET", f"{path}?reveal=true&reason=case%207", "forbidden")
    other = await api.company("bolt")
    for hidden in (path, path.removesuffix("/file")):
        await other.refused("GET", hidden, "not_found")
    await other.refused("POST", f"/v1/papers/{made['id']}/withdraw", "not_found", {"reason": "not ours"})


async def test_a_paper_has_one_owner(company: Client, operator: Client) -> None:
    problem = await operator.refused("POST", "/v1/papers", "invalid", permit())
    assert problem["errors"][0]["field"] == "business_id"
    both = permit(platform=True, business_id="acme")
    assert (await operator.refused("POST", "/v1/papers", "invalid", both))["errors"][0]["field"] == "platform"
    await company.refused("POST", "/v1/papers", "forbidden", permit(platform=True))
    await company.refused("POST", "/v1/papers", "not_found", permit(business_id="bolt"))
    own = await operator.post("/v1/papers", permit(platform=True))
    assert (own["owner"], own["business_id"]) == ("platform", None)
    assert (await company.get("/v1/papers"))["items"] == []
    await company.refused("GET", f"/v1/papers/{own['id']}", "not_found")


async def test_numbers_in_texts_are_masked_for_operators(company: Client, operator: Client) -> None:
    made = await company.post("/v1/papers", permit(issuer=f"Li {A}"))
    of_it = f"/v1/papers/{made['id']}"
    assert made["issuer"] == f"Li {A}"
    assert A not in (await operator.get(of_it))["issuer"]
    assert (await operator.get(f"{of_it}?reveal=true&reason=case"))["issuer"] == f"Li {A}"
    code = {"kind": "business_licence", "reference": CREDIT_CODE}
    licence = await company.post("/v1/papers", permit(**code))
    assert (await operator.get(f"/v1/papers/{licence['id']}"))["reference"] == CREDIT_CODE


async def test_a_large_file_may_be_submitted(company: Client) -> None:
    """Beyond the size of other bodies."""
    large = b64encode(PDF + bytes(3 << 20)).decode()
    assert (await company.post("/v1/papers", permit(file=large)))["size"] == len(PDF) + (3 << 20)
