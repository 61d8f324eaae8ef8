"""A key of one business user against the resources of another, on every route of the API.

Another's resource gets exactly the response of a missing one, and no list shows it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from fastapi.routing import APIRoute

from relay.api.context import OPERATOR
from relay.api.openapi import scopes_of
from relay.errors import Refused
from relay.store.database import connect
from tests.api.conftest import FAST, PREFIX, A, Api, B, C, Client, Json, TestBackend
from tests.api.seeds import CALL_ID, Seeds, sow
from tests.support.recorded import keep
from tests.support.shelf import Shelf
from tests.support.stored import ended_record

pytestmark = pytest.mark.asyncio(loop_scope="module")

REASON: Json = {"reason": "why not"}
# Routes with ids in the path -> body.
BY_ID: dict[str, Json | None] = {
    "GET /v1/businesses/{business_id}": None,
    "GET /v1/businesses/{business_id}/history": None,
    "GET /v1/businesses/{business_id}/keys": None,
    "POST /v1/businesses/{business_id}/keys": {"scopes": ["keys"]},
    "GET /v1/businesses/{business_id}/hook": None,
    "PUT /v1/businesses/{business_id}/hook": {"url": "https://a.example/"},
    "DELETE /v1/businesses/{business_id}/hook": None,
    "DELETE /v1/keys/{key_id}": None,
    "POST /v1/keys/{key_id}/rotate": {},
    "GET /v1/numbers/{number}": None,
    "POST /v1/numbers/{number}/hold": REASON,
    "POST /v1/numbers/{number}/unhold": REASON,
    "GET /v1/pools/{pool_id}": None,
    "GET /v1/pools/{pool_id}/usage": None,
    "GET /v1/bindings/{binding_id}": None,
    "PATCH /v1/bindings/{binding_id}": {"b": C},
    "DELETE /v1/bindings/{binding_id}": None,
    "POST /v1/bindings/{binding_id}/renew": {"expires_in": 600},
    "GET /v1/bindings/{binding_id}/history": None,
    "GET /v1/groups/{group_id}": None,
    "DELETE /v1/groups/{group_id}": None,
    "GET /v1/groups/{group_id}/members": None,
    "POST /v1/groups/{group_id}/members": {"members": ["13700000009"]},
    "POST /v1/groups/{group_id}/members/remove": {"members": [A]},
    "GET /v1/lists/{whose}/{owner_id}/entries": None,
    "PUT /v1/lists/{whose}/{owner_id}/entries": {"number": A, "kind": "black"},
    "DELETE /v1/lists/{whose}/{owner_id}/entries": {"number": C},
    "GET /v1/calls/{call_id}": None,
    "GET /v1/calls/{call_id}/ladder": None,
    "DELETE /v1/calls/live/{call_id}": None,
    "GET /v1/calls/{call_id}/recording": None,
    "POST /v1/calls/{call_id}/recording/url": {},
    "GET /v1/papers/{paper_id}": None,
    "GET /v1/papers/{paper_id}/file": None,
    "POST /v1/papers/{paper_id}/withdraw": REASON,
    "GET /v1/webhooks/{webhook_id}": None,
    "PATCH /v1/webhooks/{webhook_id}": {"enabled": False},
    "DELETE /v1/webhooks/{webhook_id}": None,
    "GET /v1/webhooks/{webhook_id}/dead": None,
    "POST /v1/webhooks/{webhook_id}/dead/resend": {},
    "POST /v1/webhooks/{webhook_id}/test": None,
}
SPAN = "since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z"
# Lists and searches -> query and body.
LISTS: dict[str, tuple[str, Json | None]] = {
    "GET /v1/businesses": ("", None),
    "GET /v1/numbers": ("", None),
    "GET /v1/pools": ("", None),
    "GET /v1/bindings": ("", None),
    "POST /v1/bindings/search": ("", {"party": A}),
    "GET /v1/groups": ("", None),
    "GET /v1/filings": ("", None),
    "POST /v1/filings/search": ("", {"party": A}),
    "GET /v1/papers": ("", None),
    "GET /v1/phase": ("", None),
    "GET /v1/calls": ("", None),
    "POST /v1/calls/search": ("", {"party": A}),
    "GET /v1/calls/live": ("", None),
    "GET /v1/calls/export": (SPAN + "&format=jsonl", None),
    "GET /v1/recordings": ("", None),
    "GET /v1/webhooks": ("", None),
    "GET /v1/reports/daily": ("day=2026-01-01", None),
    "GET /v1/reports/complaints": ("", None),
}
BINDING: Json = {"mode": "AXB", "a": A, "b": B, "order_id": "order-9"}
# Routes with ids in the body -> bodies that name another's resources.
MAKING: dict[str, list[Json]] = {
    "POST /v1/bindings": [
        BINDING | {"business_id": "acme"},
        BINDING | {"x": "700100000070009"},
        BINDING | {"pool_id": "acme-pool"},
        {"mode": "GXB", "group_id": "{group_id}", "b": B, "order_id": "order-9"},
    ],
    "POST /v1/bindings/batch": [{"items": [BINDING | {"business_id": "acme"}]}],
    "POST /v1/bindings/hand-over": [{"order_ids": ["order-1"], "to_a": A, "business_id": "acme"}],
    "POST /v1/groups": [{"name": "riders", "business_id": "acme"}],
    "POST /v1/filings": [{"number": A, "reference": "r", "business_id": "acme"}],
    "POST /v1/papers": [{"kind": "other", "reference": "r", "file": "JVBERi0=", "business_id": "acme"}],
    "DELETE /v1/filings": [{"number": A, "business_id": "acme"}],
    "POST /v1/explain": [{"caller": A, "number_dialled": f"{PREFIX}0001"}],
    "POST /v1/webhooks": [{"url": "https://evil.example/", "business_id": "acme"}],
}
UNKNOWN: Seeds = {
    "business_id": "nobody",
    "key_id": "0" * 12,
    "number": "700999999990001",
    "pool_id": "none",
    "group_id": "g" + "0" * 20,
    "binding_id": "0" * 24,
    "webhook_id": "w" + "0" * 12,
    "paper_id": "0" * 24,
    "call_id": "0" * 32,
    "whose": "business",
    "owner_id": "nobody",
}


class Tenants(NamedTuple):
    """The keys of rival and acme, and the resources of acme."""

    api: Api
    rival: Client
    acme: Client
    seeds: Seeds


def _live(business: str | None = None, most: int = 0, reveal: bool = False) -> Json:
    assert (business, bool(most), reveal) == ("rival", True, False)
    return {"calls": [], "total": 0}


def _hang_up(call_id: str, business: str | None = None, **_: object) -> Json:
    assert business == "rival"
    raise Refused("not_found", "", "no such call is up")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def unchanging(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Tenants, list[Any]]]:
    """Two business users for all tests of this module, and all resources of acme."""
    folder = tmp_path_factory.mktemp("tenants")
    settings = FAST._replace(kept_in=folder / "recordings")
    backend = TestBackend(folder, {"live": _live, "hang_up": _hang_up}, settings)
    await backend.server.open()
    api = Api(backend)
    seeds = await api.run(sow)
    await api.run(lambda unit: sow(unit, "rival", "70010000008"))
    shelf = Shelf(backend.path, backend.sealer)
    shelf.add(ended_record(CALL_ID, business="acme"))
    shelf.follow()
    await api.run(lambda unit: keep(unit, settings.kept_in, CALL_ID, b"sound", "acme"))
    tenants = Tenants(api, await api.company("rival"), await api.company("acme"), seeds)
    yield tenants, await _view(tenants)
    await backend.close()


@pytest_asyncio.fixture(loop_scope="module")
async def tenants(unchanging: tuple[Tenants, list[Any]]) -> AsyncIterator[Tenants]:
    tenants, before = unchanging
    yield tenants
    assert await _view(tenants) == before  # no request changed anything


async def _view(tenants: Tenants) -> list[Any]:
    """All resources of acme, as acme sees them."""
    seeds = tenants.seeds
    paths = [
        f"/v1/{noun}" for noun in ("bindings", "groups", "webhooks", "filings?all=true", "papers", "numbers?limit=20")
    ]
    paths += [f"/v1/groups/{seeds['group_id']}/members", "/v1/lists/business/acme/entries"]
    paths += [f"/v1/lists/binding/{seeds['binding_id']}/entries", "/v1/businesses/acme/keys"]
    return [await tenants.acme.get(path) for path in paths]


def _routes(api: Api) -> Iterator[tuple[str, APIRoute]]:
    for route in api.app.routes:
        if isinstance(route, APIRoute):
            for method in route.methods or ():
                yield f"{method} {route.path}", route


async def test_every_route_is_covered(api: Api) -> None:
    """A route that business users can use must be in one of the tables."""
    for name, route in _routes(api):
        scopes = scopes_of(route)
        if scopes is not None and OPERATOR not in scopes:
            assert name in BY_ID or name in LISTS or name in MAKING, f"{name}: add it to a table"
        else:
            assert name not in BY_ID and name not in LISTS and name not in MAKING


async def _ask(client: Client, name: str, names: Seeds, body: object = None, query: str = "") -> httpx.Response:
    method, path = name.split(" ")
    return await client.http.request(method, f"{path.format_map(names)}?{query}", json=body)


def _document(answer: httpx.Response) -> tuple[int, Json]:
    document: Json = answer.json()
    del document["request_id"]
    return answer.status_code, document


@pytest.mark.parametrize("name", BY_ID)
async def test_anothers_resource_gets_the_response_of_a_missing_one(tenants: Tenants, name: str) -> None:
    owners = [{}]
    if "{whose}" in name:
        owners.append({"whose": "binding", "owner_id": tenants.seeds["binding_id"]})
    for owner in owners:
        unknown = UNKNOWN | ({"whose": "binding", "owner_id": UNKNOWN["binding_id"]} if owner else {})
        theirs = await _ask(tenants.rival, name, tenants.seeds | owner, BY_ID[name])
        nobodys = await _ask(tenants.rival, name, unknown, BY_ID[name])
        assert theirs.status_code == 404, theirs.text
        assert _document(theirs) == _document(nobodys)


@pytest.mark.parametrize("name", LISTS)
async def test_no_list_shows_anothers_resources(tenants: Tenants, name: str) -> None:
    query, body = LISTS[name]
    answer = await _ask(tenants.rival, name, {}, body, query)
    assert answer.status_code == 200, answer.text
    for secret in ("acme", *(tenants.seeds[key] for key in ("binding_id", "group_id", "webhook_id", "call_id"))):
        assert secret not in answer.text
    if any(noun in name for noun in ("/calls", "bindings", "reports", "groups", "webhooks")):
        naming = {**(body or {}), "business_id": "acme"} if name.startswith("POST") else body
        query = query if name.startswith("POST") else f"{query}&business_id=acme"
        assert (await _ask(tenants.rival, name, {}, naming, query)).status_code == 404


@pytest.mark.parametrize("name", MAKING)
async def test_nothing_can_be_made_with_anothers_resources(tenants: Tenants, name: str) -> None:
    for body in MAKING[name]:
        filled = {key: value.format_map(tenants.seeds) if key == "group_id" else value for key, value in body.items()}
        answer = await _ask(tenants.rival, name, {}, filled)
        statuses = [item["status"] for item in answer.json().get("items", [{"status": answer.status_code}])]
        assert set(statuses) <= {400, 404}, answer.text


async def test_operator_routes_are_forbidden(tenants: Tenants) -> None:
    """The scope is checked before any look-up, and whatever the body."""
    for name, route in _routes(tenants.api):
        if OPERATOR in (scopes_of(route) or ()):
            answer = await _ask(tenants.rival, name, tenants.seeds, BODIES.get(name.split(" ")[1], REASON))
            assert answer.status_code == 403, f"{name}: {answer.text}"


BODIES: dict[str, Json] = {
    "/v1/businesses": {"name": "Evil"},
    "/v1/businesses/{business_id}": {"name": "Evil"},
    "/v1/prefixes": {"prefix": "70010000009"},
    "/v1/prefixes/{prefix}": {"state": "locked"},
    "/v1/numbers/move": {"pool_id": "rival-pool", "numbers": ["700100000070001"]},
    "/v1/pools": {"id": "evil"},
    "/v1/pools/{pool_id}": {"business_id": "rival"},
    "/v1/trace": {"number": A, "at": "2026-01-01T00:00:00Z", "reason": "why not"},
    "/v1/evidence": {
        "number": A,
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-01-02T00:00:00Z",
        "reason": "why not",
    },
    "/v1/reports/daily/complaints": {"day": "2026-01-01", "business_id": "rival", "prefix": "70010000008", "count": 0},
}


async def test_anothers_cursor_shows_none_of_their_resources(tenants: Tenants) -> None:
    await tenants.acme.post("/v1/groups", {"name": "more"})
    page = await tenants.acme.get("/v1/groups?limit=1")
    answer = await tenants.rival.get(f"/v1/groups?cursor={page['next']}")
    assert "acme" not in str(answer)
    await tenants.acme.ask("DELETE", f"/v1/groups/{(await tenants.acme.get('/v1/groups'))['items'][-1]['id']}")


async def test_a_business_user_named_operator_does_not_get_stored_responses_of_operators(api: Api) -> None:
    operator, company = await api.operator(), await api.company("operator")
    made = await operator.post("/v1/groups", {"name": "riders"}, idempotency_key="k1")
    own = await company.post("/v1/groups", {"name": "riders"}, idempotency_key="k1")
    assert (made["business_id"], own["business_id"]) == ("default", "operator")


async def test_a_refusal_does_not_reveal_anothers_parties(api: Api) -> None:
    """A number of a common pool serves one business user at a time; refusals do not depend on the parties bound."""
    await (await api.operator()).post("/v1/prefixes", {"prefix": PREFIX})
    acme, rival = await api.company("acme"), await api.company("rival")
    made = await acme.post("/v1/bindings", BINDING)
    answers = []
    for parties in ({"a": A, "b": B}, {"a": A, "b": C}, {"a": "8001", "b": "8002"}):
        answers.append(await rival.refused("POST", "/v1/bindings", "number_full", BINDING | parties | {"x": made["x"]}))
        del answers[-1]["request_id"]
    assert answers[0] == answers[1] == answers[2]
    own = await rival.post("/v1/bindings", {"mode": "AXB", "a": A, "b": C, "order_id": "1"})
    assert own["x"] != made["x"]
    await rival.ask("PATCH", f"/v1/bindings/{own['id']}", {"b": B})


@pytest.mark.parametrize("noted", [True, False])
async def test_a_row_given_to_another_by_someone_with_the_database_shows_nothing(api: Api, noted: bool) -> None:
    """With their own key they would read the parties, and put the row back before it is missed."""
    await (await api.operator()).post("/v1/prefixes", {"prefix": PREFIX})
    thief, robbed = await api.company("thief"), await api.company("robbed")
    bound = await robbed.post("/v1/bindings", {"mode": "AXB", "a": A, "b": B, "order_id": "1"})
    group = await robbed.post("/v1/groups", {"name": "riders", "members": [C]})
    with closing(connect(api.backend.path)) as connection:
        for table, id_ in (("binding", bound["id"]), ("party_group", group["id"])):
            connection.execute(f"UPDATE {table} SET business = 'thief' WHERE id = ?", (id_,))
        if not noted:
            connection.execute("DELETE FROM ledger_touch")
    said = "?reveal=true&reason=theft"
    paths = (f"/v1/bindings{said}", "/v1/groups", f"/v1/groups/{group['id']}/members{said}")
    answers = [await thief.http.get(path) for path in paths]
    answers.append(await thief.http.post(f"/v1/bindings/search{said}", json={"party": A}))
    assert [answer.status_code for answer in answers] == [503] * 4
    assert not [text for text in (A, B, C) for answer in answers if text in answer.text]
