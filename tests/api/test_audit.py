"""Routes of the audit log."""

from __future__ import annotations

from tests.api.conftest import Api, Client
from tests.support.papers import PAPERS


async def test_each_change_is_in_the_log_with_its_actor_and_reason(operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "acme", "name": "Acme"} | PAPERS)
    await operator.post("/v1/businesses/acme/approve", {"reason": "papers complete"}, 200)
    (line,) = (await operator.get("/v1/audit?action=business.approve"))["items"]
    assert (line["object"], line["reason"]) == ("acme", "papers complete")
    assert line["actor"] == f"key:{operator.key.split('_')[1]}"


async def test_the_log_is_paginated_newest_first(operator: Client) -> None:
    for name in ("a", "b", "c"):
        await operator.post("/v1/businesses", {"id": name, "name": name})
    path = "/v1/audit?action=business.apply&limit=2"
    first = await operator.get(path)
    second = await operator.get(f"{path}&cursor={first['next']}")
    assert [line["object"] for line in first["items"] + second["items"]] == ["c", "b", "a"]
    assert second["next"] is None


async def test_the_log_is_verified(api: Api, operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "acme", "name": "Acme"} | PAPERS)
    assert (await operator.get("/v1/audit/verify"))["broken"] is None
    await api.act(lambda act: act.connection.execute("UPDATE audit SET actor = 'cli:nobody' WHERE seq = 1"))
    assert (await operator.get("/v1/audit/verify"))["broken"] is not None


async def test_the_log_is_for_operators(api: Api) -> None:
    company = await api.company("acme")
    await company.refused("GET", "/v1/audit", "forbidden")
    await company.refused("GET", "/v1/audit/verify", "forbidden")


async def test_numbers_in_the_log_are_masked_and_revealing_them_is_audited(api: Api, operator: Client) -> None:
    asked = {"number": "13900000002", "at": "2026-01-01T00:00:00Z", "reason": "case 7"}
    await operator.post("/v1/trace", asked, 200)
    path = "/v1/audit?action=traceback"
    (line,) = (await operator.get(path))["items"]
    assert (line["object"], line["details"]["number"]) == ("party", "139****0002")
    (clear,) = (await operator.get(f"{path}&reveal=true&reason=inspection"))["items"]
    assert clear["details"]["number"] == "8613900000002"
    (read,) = (await operator.get("/v1/audit?action=read"))["items"]
    assert (read["object"], read["reason"], read["details"]) == ("audit", "inspection", {"shown": [str(line["seq"])]})
    blind = await api.operator(["operator"])
    await blind.refused("GET", f"{path}&reveal=true&reason=curious", "forbidden")


async def test_revealing_is_audited_with_its_reason(api: Api, operator: Client) -> None:
    await operator.post("/v1/businesses", {"id": "acme", "name": "Acme"} | PAPERS)
    for reason in ("", "&reason=", "&reason=%20", "&reason=%E2%80%8B", "&reason=%E3%85%A4"):
        await operator.refused("GET", f"/v1/businesses/acme?reveal=true{reason}", "invalid")
    await operator.get("/v1/businesses/acme?reveal=true&reason=complaint%2017")
    (line,) = (await operator.get("/v1/audit?action=read"))["items"]
    assert (line["object"], line["reason"]) == ("business acme", "complaint 17")
    blind = await api.operator(["operator"])
    await blind.refused("GET", "/v1/businesses/acme?reveal=true&reason=why", "forbidden")
