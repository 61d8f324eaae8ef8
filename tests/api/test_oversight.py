"""Routes of traces, evidence and reports."""

from __future__ import annotations

import io
import zipfile

import pytest

from relay.reports.evidence import check
from tests.api.conftest import Api, Client
from tests.support.shelf import Shelf
from tests.support.stored import A, B, X, binding, ended_record, put

CALL = "a" * 32
DURING = "2026-01-01T00:00:05Z"


@pytest.fixture
async def inspector(api: Api) -> Client:
    """A client with an operator key, on a store with one binding and one call of it."""
    put(api.backend.path, api.backend.sealer, binding("0123456789abcdef"))
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record(CALL))
    shelf.follow()
    return await api.operator()


@pytest.mark.parametrize("number", [X, "13800000001", "+86 139 0000 0002"])
async def test_a_trace_shows_who_was_behind_a_number_and_is_audited(inspector: Client, number: str) -> None:
    traced = await inspector.post("/v1/trace", {"number": number, "at": DURING, "reason": "case 2026-114"}, 200)
    (bound,), (call,) = traced["bindings"], traced["calls"]
    assert (bound["id"], bound["a"], bound["b"], bound["order_id"]) == ("0123456789abcdef", A, B, "order-1")
    assert (call["call_id"], call["caller"], call["callee"]) == (CALL, A, B)
    (line,) = (await inspector.get("/v1/audit?action=traceback"))["items"]
    assert line["reason"] == "case 2026-114"
    assert line["object"] in (X, "party")


async def test_a_trace_requires_a_reason_and_both_scopes(api: Api, inspector: Client) -> None:
    asked = {"number": X, "at": DURING}
    await inspector.refused("POST", "/v1/trace", "invalid", asked)
    await inspector.refused("POST", "/v1/trace", "invalid", asked | {"reason": " "})
    for scopes in (["operator"], ["trace"]):
        half = await api.operator(scopes)
        await half.refused("POST", "/v1/trace", "forbidden", asked | {"reason": "case"})
    company = await api.company("acme")
    await company.refused("POST", "/v1/trace", "forbidden", asked | {"reason": "case"})


async def test_evidence_is_a_signed_bundle(api: Api, inspector: Client) -> None:
    asked = {"number": X, "since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "reason": "case"}
    answer = await inspector.http.post("/v1/evidence", json=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    bundle = io.BytesIO(answer.content)
    assert check(bundle, api.backend.sealer.public_key()).problems == []
    assert CALL in zipfile.ZipFile(bundle).read("records.jsonl").decode()
    (line,) = (await inspector.get("/v1/audit?action=evidence"))["items"]
    assert (line["object"], line["reason"]) == (X, "case")
    await inspector.refused("POST", "/v1/evidence", "invalid", asked | {"until": asked["since"]})


async def test_a_day_is_reported_with_its_complaints(api: Api, inspector: Client) -> None:
    entered = {"day": "2026-01-01", "business": "default", "prefix": X[:11], "count": 3}
    assert await inspector.ask("PUT", "/v1/reports/daily/complaints", entered) == entered
    (line,) = (await inspector.get("/v1/reports/daily?day=2026-01-01"))["items"]
    assert (line["business"], line["prefix"], line["attempts"], line["answered"]) == ("default", X[:11], 1, 1)
    assert (line["minutes"], line["parties"], line["complaints"]) == (0.2, 2, 3)
    company = await api.company("acme")
    assert (await company.get("/v1/reports/daily?day=2026-01-01"))["items"] == []
    await company.refused("PUT", "/v1/reports/daily/complaints", "forbidden", entered)
    await inspector.refused("GET", "/v1/reports/daily?day=9999-12-31", "invalid")
