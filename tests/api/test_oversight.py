"""Routes of traces, evidence and reports."""

from __future__ import annotations

import io
import zipfile
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from relay.reports.evidence import check
from relay.service.fields import CHINA
from relay.store.database import connect
from relay.store.writer import now_ms
from tests.api.conftest import Api, Client
from tests.support.papers import PAPERS
from tests.support.shelf import Shelf
from tests.support.stored import NOW_MS, A, B, X, binding, ended_record, put

CALL = "a" * 32
DURING = "2026-01-01T00:00:05Z"
EVIDENCE = {"number": X, "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "reason": "case"}


@pytest.fixture
async def inspector(api: Api) -> Client:
    """A client with an operator key, on a store with one binding and one call of it."""
    bound = binding("0123456789abcdef", expires_at=NOW_MS + 60_000, released_at=NOW_MS + 60_001)
    put(api.backend.path, api.backend.sealer, bound)
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record(CALL))
    shelf.follow()
    return await api.operator()


@pytest.mark.parametrize("number", [X, "13800000001", "+86 139 0000 0002"])
async def test_a_trace_shows_who_was_behind_a_number_and_is_audited(inspector: Client, number: str) -> None:
    traced = await inspector.post("/v1/trace", {"number": number, "at": DURING, "reason": "case 2026-114"}, 200)
    (bound,), (call,) = traced["bindings"], traced["calls"]
    assert (bound["id"], bound["a"], bound["b"], bound["order_id"]) == ("0123456789abcdef", A, B, "order-1")
    assert bound["state"] == "live"
    assert (call["call_id"], call["caller"], call["callee"]) == (CALL, A, B)
    (line,) = (await inspector.get("/v1/audit?action=traceback"))["items"]
    assert line["reason"] == "case 2026-114"
    assert line["object"] in (X, "party")


async def test_a_trace_takes_a_span_instead_of_a_time(inspector: Client) -> None:
    asked = {"number": X, "reason": "case 2026-114"}
    span = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:01:00Z"}
    by_minute = await inspector.post("/v1/trace", asked | {"at": "2026-01-01T00:00Z"}, 200)
    assert await inspector.post("/v1/trace", asked | span, 200) == by_minute
    assert (by_minute["at"], by_minute["until"]) == ("2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z")
    for wrong in ({}, span | {"at": span["since"]}, {"since": span["since"]}, span | {"until": span["since"]}):
        await inspector.refused("POST", "/v1/trace", "invalid", asked | wrong)


async def test_a_trace_spans_31_days_at_most(inspector: Client) -> None:
    asked = {"number": X, "reason": "case 2026-114", "since": "2026-01-01T00:00:00Z"}
    await inspector.post("/v1/trace", asked | {"until": "2026-02-01T00:00:00Z"}, 200)
    longer = asked | {"until": "2026-02-01T00:00:00.001Z"}
    problem = await inspector.refused("POST", "/v1/trace", "invalid", longer)
    assert problem["errors"][0]["field"] == "until" and "31 days" in problem["detail"]
    assert "/v1/evidence" in problem["detail"]
    assert len((await inspector.get("/v1/audit?action=traceback"))["items"]) == 1


async def test_tracebacks_and_evidence_wait_for_a_place_as_other_long_reads_do(api: Api, inspector: Client) -> None:
    reader = f"key:{inspector.key.split('_')[1]}"
    for _ in range(8):
        api.app.state.downloads.begin(reader)
    asked = {"number": X, "at": DURING, "reason": "case 2026-114"}
    await inspector.refused("POST", "/v1/trace", "rate_limited", asked)
    await inspector.refused("POST", "/v1/evidence", "rate_limited", EVIDENCE)
    api.app.state.downloads.end(reader)
    assert len((await inspector.post("/v1/trace", asked, 200))["calls"]) == 1


async def test_a_trace_requires_a_reason_and_both_scopes(api: Api, inspector: Client) -> None:
    asked = {"number": X, "at": DURING}
    await inspector.refused("POST", "/v1/trace", "invalid", asked)
    await inspector.refused("POST", "/v1/trace", "invalid", asked | {"reason": " "})
    for scopes in (["operator"], ["trace"]):
        half = await api.operator(scopes)
        await half.refused("POST", "/v1/trace", "forbidden", asked | {"reason": "case"})
    company = await api.company("acme")
    await company.refused("POST", "/v1/trace", "forbidden", asked | {"reason": "case"})


async def test_evidence_of_any_size_stays_in_memory(
    inspector: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds real numbers in clear."""
    size = (1 << 26) + 1
    monkeypatch.setattr("relay.api.oversight.bundle", lambda *given: given[-1].write(bytes(size)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert len((await inspector.http.post("/v1/evidence", json=EVIDENCE)).content) == size


async def test_evidence_is_a_signed_bundle(api: Api, inspector: Client) -> None:
    answer = await inspector.http.post("/v1/evidence", json=EVIDENCE)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    bundle = io.BytesIO(answer.content)
    assert check(bundle, api.backend.sealer.public_key()).problems == []
    assert CALL in zipfile.ZipFile(bundle).read("records.jsonl").decode()
    (line,) = (await inspector.get("/v1/audit?action=evidence"))["items"]
    assert (line["object"], line["reason"]) == (X, "case")
    await inspector.refused("POST", "/v1/evidence", "invalid", EVIDENCE | {"until": EVIDENCE["since"]})


async def test_a_day_is_reported_with_its_complaints(api: Api, inspector: Client) -> None:
    entered = {"day": "2026-01-01", "business_id": "default", "prefix": X[:11], "count": 3}
    assert await inspector.ask("PUT", "/v1/reports/daily/complaints", entered) == entered
    (line,) = (await inspector.get("/v1/reports/daily?day=2026-01-01"))["items"]
    assert (line["business_id"], line["prefix"], line["attempts"], line["answered"]) == ("default", X[:11], 1, 1)
    assert (line["minutes"], line["parties"], line["complaints"]) == (0.2, 2, 3)
    company = await api.company("acme")
    assert (await company.get("/v1/reports/daily?day=2026-01-01"))["items"] == []
    await company.refused("PUT", "/v1/reports/daily/complaints", "forbidden", entered)
    await inspector.refused("GET", "/v1/reports/daily?day=9999-12-31", "invalid")


async def test_rates_of_complaints_are_shown_with_a_reason_to_suspend(api: Api, inspector: Client) -> None:
    today = datetime.fromtimestamp(now_ms() / 1000, CHINA).date().isoformat()
    company = await api.company("acme")
    for business_id, count in (("acme", 3), ("default", 2)):
        entered = {"day": today, "business_id": business_id, "prefix": X[:11], "count": count}
        await inspector.ask("PUT", "/v1/reports/daily/complaints", entered)
    found = (await inspector.get("/v1/reports/complaints"))["items"]
    assert [(rate["business_id"], rate["prefix"], rate["high"], rate["few"]) for rate in found] == [
        ("acme", None, True, False),
        ("acme", X[:11], True, False),
        ("default", None, False, True),
        ("default", X[:11], False, True),
    ]
    assert found[0]["suspend_reason"] == "complaints: 3 of 0 answered calls in 30 days; the limit is 0.05%"
    own = (await company.get("/v1/reports/complaints"))["items"]
    assert {(rate["business_id"], rate["high"], rate["suspend_reason"]) for rate in own} == {("acme", True, None)}
    await company.refused("GET", "/v1/reports/complaints?business_id=default", "not_found")


# -- Routes of the audit log


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
    with closing(connect(api.backend.path)) as thief:
        thief.execute("UPDATE audit SET actor = 'cli:nobody' WHERE seq = 1")
    assert (await operator.get("/v1/audit/verify"))["broken"] is not None


async def test_the_log_is_for_operators(api: Api) -> None:
    company = await api.company("acme")
    await company.refused("GET", "/v1/audit", "forbidden")
    await company.refused("GET", "/v1/audit/verify", "forbidden")


async def test_numbers_in_the_log_are_masked_and_revealing_them_is_audited(api: Api, operator: Client) -> None:
    asked = {"number": "13900000002", "at": "2026-01-01T00:00:00Z", "reason": "case 7: 139-0000-0002"}
    await operator.post("/v1/trace", asked, 200)
    path = "/v1/audit?action=traceback"
    (line,) = (await operator.get(path))["items"]
    assert (line["object"], line["details"]["number"]) == ("party", "139****0002")
    assert line["reason"] == "case 7: 139****0002"
    (clear,) = (await operator.get(f"{path}&reveal=true&reason=inspection"))["items"]
    assert (clear["details"]["number"], clear["reason"]) == ("8613900000002", asked["reason"])
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
