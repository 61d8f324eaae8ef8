"""Every route that changes data or shows real numbers writes an audit line."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from relay.defence.bans import Bans
from relay.model.settings import Limits
from relay.net.control import BanAnswers
from tests.api.conftest import PREFIX, A, Api, B, C, Client, Json
from tests.api.seeds import CALL_ID, Seeds, sow
from tests.api.test_explain import explained
from tests.support.captured import captured
from tests.support.papers import PAPERS, PDF
from tests.support.recorded import keep
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

WHY: Json = {"reason": "test"}
SPAN: Json = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z"}
BINDING: Json = {"mode": "AXB", "a": A, "b": B, "order_id": "order-9", "business_id": "acme"}
PAPER: Json = {"kind": "commitment", "reference": "C-1", "file": b64encode(PDF).decode()}
# Routes that change data or always show real numbers -> body. Names in braces are keys of the seeds.
CHANGES: dict[str, Json | None] = {
    "POST /v1/businesses": {"name": "Another"},
    "PATCH /v1/businesses/{business_id}": {"max_cps": 3},
    "POST /v1/businesses/{business_id}/approve": WHY,
    "POST /v1/businesses/{business_id}/suspend": WHY,
    "POST /v1/businesses/{business_id}/resume": WHY,
    "POST /v1/businesses/{business_id}/revoke": WHY,
    "POST /v1/businesses/{business_id}/keys": {"scopes": ["lists"]},
    "PUT /v1/businesses/{business_id}/hook": {"url": "https://acme.example/"},
    "DELETE /v1/businesses/{business_id}/hook": None,
    "DELETE /v1/keys/{key_id}": None,
    "POST /v1/keys/{key_id}/rotate": {},
    "POST /v1/prefixes": {"prefix": "70010000009"},
    "PATCH /v1/prefixes/{prefix}": {"peer": "carrier"},
    "POST /v1/numbers/{number}/lock": WHY,
    "POST /v1/numbers/{number}/hold": WHY,
    "POST /v1/numbers/{number}/unhold": WHY,
    "POST /v1/numbers/{number}/unlock": WHY,
    "POST /v1/numbers/move": {"pool_id": "default", "numbers": ["{x}"]},
    "POST /v1/numbers/end-rest": WHY,
    "POST /v1/pools": {"id": "another"},
    "PATCH /v1/pools/{pool_id}": {"area": "beijing"},
    "POST /v1/bindings": BINDING,
    "POST /v1/bindings/batch": {"items": [BINDING]},
    "POST /v1/bindings/hand-over": {"order_ids": ["order-1"], "to_a": C, "business_id": "acme"},
    "PATCH /v1/bindings/{binding_id}": {"b": C},
    "POST /v1/bindings/{binding_id}/renew": {"expires_in": 600},
    "DELETE /v1/bindings/{binding_id}": None,
    "POST /v1/groups": {"name": "riders", "business_id": "acme"},
    "DELETE /v1/groups/{group_id}": None,
    "POST /v1/groups/{group_id}/members": {"members": ["13700000009"]},
    "POST /v1/groups/{group_id}/members/remove": {"members": [A]},
    "PUT /v1/lists/{whose}/{owner_id}/entries": {"number": A, "kind": "black"},
    "DELETE /v1/lists/{whose}/{owner_id}/entries": {"number": C},
    "POST /v1/filings": {"number": C, "reference": "CT-2"},
    "DELETE /v1/filings": {"number": A, "business_id": "acme"},
    "POST /v1/filings/answers": {"items": [{"number": A, "state": "revoked", "business_id": "acme"}]},
    "POST /v1/filings/forget": {"number": A, "business_id": "acme", "reason": "test"},
    "POST /v1/papers": PAPER | {"business_id": "acme"},
    "POST /v1/papers/{paper_id}/accept": {},
    "POST /v1/papers/{paper_id}/supplement": WHY | {"due": "2099-01-01"},
    "POST /v1/papers/{paper_id}/reject": WHY,
    "POST /v1/papers/{paper_id}/withdraw": WHY,
    "POST /v1/capture/arms": {"number": A, "for_s": 60},
    "DELETE /v1/capture/arms/{arm_id}": None,
    "DELETE /v1/calls/live/{call_id}": None,
    "DELETE /v1/calls/{call_id}/recording": None,
    "POST /v1/calls/{call_id}/recording/url": WHY,
    "POST /v1/explain": {"caller": A, "number_dialled": "{number}"},
    "POST /v1/bans": {"address": "192.0.2.1", "for_s": 60},
    "DELETE /v1/bans": None,
    "DELETE /v1/bans/{address}": None,
    "POST /v1/users": {"name": "li.lei", "role": "support"},
    "POST /v1/users/{name}/role": {"role": "business_reader"},
    "POST /v1/users/{name}/reset": None,
    "DELETE /v1/users/{name}": None,
    "POST /v1/webhooks": {"url": "https://acme.example/", "business_id": "acme"},
    "PATCH /v1/webhooks/{webhook_id}": {"parties": "none"},
    "DELETE /v1/webhooks/{webhook_id}": None,
    "POST /v1/webhooks/{webhook_id}/dead/resend": {},
    "POST /v1/webhooks/{webhook_id}/test": None,
    "POST /v1/trace": {"number": A, "at": "2026-01-01T00:00:05Z", "reason": "test"},
    "POST /v1/evidence": {"number": A, "reason": "test", **SPAN},
    "PUT /v1/reports/daily/complaints": {"day": "2026-01-01", "business_id": "acme", "prefix": "{prefix}", "count": 1},
}
# Route -> route to request before it.
FIRST = {
    "POST /v1/businesses/{business_id}/resume": "POST /v1/businesses/{business_id}/suspend",
}
SEARCHES = {
    "POST /v1/bindings/search": {"party": A},
    "POST /v1/calls/search": {"party": A},
    "POST /v1/filings/search": {"party": A},
}
QUERIES = {
    "GET /v1/calls/export": "since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z&format=jsonl&",
    "DELETE /v1/calls/{call_id}/recording": "reason=test&",
}


def _routes(api: Api) -> Iterator[tuple[str, APIRoute]]:
    for route in api.app.routes:
        if isinstance(route, APIRoute) and route.path.startswith("/v1/"):
            for method in route.methods or ():
                yield f"{method} {route.path}", route


def _reveals(route: APIRoute) -> bool:
    names = {field.alias for each in route.dependant.dependencies for field in each.query_params}
    return "reveal" in names


@pytest.fixture
async def seeds(api: Api, relay: dict[str, Callable[..., Json]], tmp_path: Path, small_prefixes: None) -> Seeds:
    relay["live"] = lambda **_: {"calls": [], "total": 0}
    relay["hang_up"] = lambda call_id, **_: {"call_id": call_id}
    relay["explain"] = explained
    bans = BanAnswers(Bans(Limits()))
    bans.ban("192.0.2.1", 60.0)
    relay |= bans.by_name()
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record(CALL_ID, business="acme"))
    shelf.follow()
    api.backend.captures.save([captured(call_id=CALL_ID)])
    api.backend.settings = api.backend.settings._replace(kept_in=tmp_path / "recordings")
    await api.run(lambda unit: keep(unit, tmp_path / "recordings", CALL_ID, b"sound", "acme"))
    sown: Seeds = await api.run(sow)
    return sown


async def _lines(operator: Client) -> list[Json]:
    """All audit lines, newest first."""
    lines: list[Json] = (await operator.get("/v1/audit?limit=500"))["items"]
    return lines


async def _ask(operator: Client, name: str, seeds: Seeds, body: Any, query: str = "") -> None:
    method, path = name.split(" ")
    if isinstance(body, dict):
        body = {field: _filled(value, seeds) for field, value in body.items()}
    answer = await operator.http.request(method, f"{path.format_map(seeds)}?{query}", json=body)
    assert answer.status_code < 300, f"{name}: {answer.text}"


def _filled(value: Any, seeds: Seeds) -> Any:
    if isinstance(value, list):
        return [_filled(each, seeds) for each in value]
    return value.format_map(seeds) if isinstance(value, str) else value


async def test_every_route_is_covered(api: Api) -> None:
    """Routes missing in the tables above must be read-only, without real numbers unless revealed."""
    for name, _ in _routes(api):
        assert name.startswith("GET ") or name in CHANGES or name in SEARCHES, f"{name}: add it to a table"


@pytest.mark.parametrize("name", CHANGES)
async def test_each_change_writes_an_audit_line_with_its_actor(operator: Client, seeds: Seeds, name: str) -> None:
    if name.endswith("/approve"):
        applied = await operator.post("/v1/businesses", {"name": "Applied"} | PAPERS)
        seeds["business_id"] = applied["id"]
    if name in FIRST:
        await _ask(operator, FIRST[name], seeds, WHY)
    before = await _lines(operator)
    await _ask(operator, name, seeds, CHANGES[name], QUERIES.get(name, ""))
    lines = await _lines(operator)
    new = lines[: len(lines) - len(before)]
    assert new, f"{name} left no line"
    assert {line["actor"] for line in new} == {f"key:{operator.key.split('_')[1]}"}
    if "reason" in (CHANGES[name] or {}):
        assert new[0]["reason"] == "test"


@pytest.mark.parametrize(
    "name", ["DELETE /v1/bindings/{binding_id}", "DELETE /v1/keys/{key_id}", "DELETE /v1/calls/live/{call_id}"]
)
async def test_a_reason_in_the_query_is_audited(operator: Client, seeds: Seeds, name: str) -> None:
    await _ask(operator, name, seeds, None, "reason=customer%20asked")
    assert (await _lines(operator))[0]["reason"] == "customer asked"


async def test_reveal_requires_a_reason_and_writes_an_audit_line(api: Api, operator: Client, seeds: Seeds) -> None:
    revealing = [name for name, route in _routes(api) if _reveals(route)]
    assert len(revealing) >= 11
    for name in revealing:
        method, path = name.split(" ")
        query, body = QUERIES.get(name, ""), SEARCHES.get(name)
        path = path.format_map(seeds)
        await operator.refused(method, f"{path}?{query}reveal=true", "invalid", body)
        before = len(await _lines(operator))
        await _ask(operator, name, seeds, body, f"{query}reveal=true&reason=inspection")
        line, *_ = lines = await _lines(operator)
        assert len(lines) == before + 1, name
        assert (line["action"], line["reason"]) == ("read", "inspection"), name


async def test_each_refused_change_leaves_a_line(company: Client, operator: Client) -> None:
    taken = {"mode": "AXB", "a": A, "b": B, "x": f"{PREFIX}0001", "order_id": "order-1"}
    await company.post("/v1/bindings", taken)
    before = len(await _lines(operator))
    for guess in ("13800000008", "13800000009"):
        await company.refused("POST", "/v1/bindings", "conflict", taken | {"a": guess})
    batch = {"items": [taken | {"a": f"1380000001{n}"} for n in range(3)]}
    assert {item["status"] for item in (await company.post("/v1/bindings/batch", batch, status=200))["items"]} == {409}
    other = await company.post("/v1/bindings", taken | {"a": C, "b": "13700000009", "order_id": "order-2"})
    handed = {"order_ids": ["order-2"], "to_a": A}
    [item] = (await company.post("/v1/bindings/hand-over", handed, status=200))["items"]
    assert item["status"] == 409
    await company.refused("PATCH", f"/v1/bindings/{other['id']}", "invalid", {"a": "13700000009"})
    await operator.refused("POST", "/v1/bindings", "conflict", taken | {"business_id": "acme"})
    operators = f"key:{operator.key.split('_')[1]}"
    lines = await _lines(operator)
    new = [line for line in lines[: len(lines) - before] if line["action"] != "binding.make"]
    assert [(line["action"], line["object"], line["details"]) for line in new] == [
        ("change.refused", operators, {"refused": 1, "kinds": ["conflict"]}),
        ("change.refused", "acme", {"refused": 1, "kinds": ["invalid"]}),
        ("change.refused", "acme", {"refused": 1, "kinds": ["conflict"]}),
        ("change.refused", "acme", {"refused": 3, "kinds": ["conflict"]}),
        ("change.refused", "acme", {"refused": 1, "kinds": ["conflict"]}),
        ("change.refused", "acme", {"refused": 1, "kinds": ["conflict"]}),
    ]
