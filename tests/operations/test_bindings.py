"""Routes of bindings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relay.policy.rules import Quotas
from relay.service.placement import BindRules
from relay.store.numbers import insert_legacy
from relay.store.writer import GroupWriter, now_ms
from tests.api.conftest import PREFIX, A, Api, B, C, Client, Json

X, Y = PREFIX + "0001", PREFIX + "0002"
AXB: Json = {"mode": "AXB", "a": A, "b": B, "order_id": "order-1"}


async def test_a_binding_is_made_read_and_ended(company: Client) -> None:
    asked = AXB | {
        "x": X,
        "expires_in": 3600,
        "user_data": "u1",
        "consent": "c1",
        "industrial_id": "88.101.1/7",
        "max_call_s": 600,
        "hours": "08:00-22:00",
    }
    made = await company.post("/v1/bindings", asked)
    assert (made["x"], made["y"], made["state"], made["business_id"], made["version"]) == (X, None, "live", "acme", 1)
    assert (made["a"], made["b"]) == ("138****0001", "139****0002")
    assert (made["order_id"], made["user_data"], made["consent"]) == ("order-1", "u1", "c1")
    assert made["industrial_id"] == "88.101.1/7"
    assert made["created_by"] == f"key:{company.key.split('_')[1]}"
    path = f"/v1/bindings/{made['id']}"
    assert await company.get(path) == made
    ended = await company.ask("DELETE", path)
    assert (ended["state"], (await company.get(path))["state"]) == ("ended", "ended")
    assert ended["ended_by"] == made["created_by"]
    await company.refused("DELETE", path, "ended")
    await company.refused("PATCH", path, "ended", {"b": C})


async def test_the_history_names_the_actors_of_a_binding(api: Api, company: Client) -> None:
    made = await company.post("/v1/bindings", AXB | {"x": X, "expires_in": 600})
    path, key = f"/v1/bindings/{made['id']}", made["created_by"]
    await company.ask("PATCH", path, {"b": C, "direction": "a_to_b"})
    operator = await api.operator()
    await operator.post(f"{path}/renew", {"expires_in": 3600}, 200)
    ended = await operator.ask("DELETE", path)
    history = await company.get(f"{path}/history")
    by = f"key:{operator.key.split('_')[1]}"
    assert [(step["action"], step["by"], step["changed"]) for step in history["items"]] == [
        ("made", key, []),
        ("changed", key, ["b", "direction"]),
        ("changed", by, ["expires_at"]),
        ("ended", by, []),
    ]
    assert (history["items"][0]["at"], history["items"][-1]["at"]) == (made["created_at"], ended["ended_at"])
    assert [step["at"] for step in history["items"]] == sorted(step["at"] for step in history["items"])


async def test_a_new_binding_has_a_location(company: Client) -> None:
    answer = await company.http.post("/v1/bindings", json=AXB)
    assert answer.headers["location"] == f"/v1/bindings/{answer.json()['id']}"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mode": "AXZ"}, "mode"),
        ({"a": None}, "a"),
        ({"b": A}, "b"),
        ({"b": "not a number"}, "b"),
        ({"b": "110"}, "b"),
        ({"a": "+12012001234"}, "a"),
        ({"a": "138000000"}, "a"),
        ({"x": "7001000000"}, "x"),
        ({"x": "   "}, "x"),
        ({"x": "7001000000100019"}, "x"),
        ({"y": Y}, "y"),
        ({"order_id": None}, "order_id"),
        ({"order_id": "a\nb"}, "order_id"),
        ({"industrial_id": "88 1"}, "industrial_id"),
        ({"industrial_id": "8" * 129}, "industrial_id"),
        ({"expires_in": 59}, "expires_in"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "2030-01-01T00:00:00"}, "expires_at"),
        ({"max_call_s": 9}, "max_call_s"),
        ({"ring_timeout_s": 181}, "ring_timeout_s"),
        ({"direction": "c_to_d"}, "direction"),
        ({"hours": "25:00-26:00"}, "hours"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_an_invalid_field_is_named(company: Client, changes: dict[str, Any], field: str) -> None:
    problem = await company.refused("POST", "/v1/bindings", "invalid", AXB | changes)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert A not in str(problem).replace(f"such as {A}", "")  # the example in the text


async def test_an_old_middle_number_is_bound_and_found(api: Api, company: Client) -> None:
    old = "8617012345678"
    await api.run(lambda unit: insert_legacy(unit, old))
    api.backend.settings = api.backend.settings._replace(rules=BindRules(phase="transition"))
    made = await company.post("/v1/bindings", AXB | {"x": "17012345678"})
    assert made["x"] == old
    both = AXB | {"mode": "AXYB", "a": C, "b": "13700000009", "x": X, "y": old}
    assert (await company.post("/v1/bindings", both))["y"] == old
    assert len((await company.get("/v1/bindings?number=17012345678"))["items"]) == 2
    found = await company.post("/v1/bindings/search", {"number": f"+{old}"}, 200)
    assert [item["id"] for item in found["items"]][-1] == made["id"]
    # Only what the operator has loaded: not just any real number.
    problem = await company.refused("POST", "/v1/bindings", "invalid", AXB | {"x": C})
    assert [error["field"] for error in problem["errors"]] == ["x"]


async def test_both_parties_are_named_if_both_are_invalid(company: Client) -> None:
    problem = await company.refused("POST", "/v1/bindings", "invalid", AXB | {"a": "110", "b": "110"})
    assert [error["field"] for error in problem["errors"]] == ["a", "b"]
    assert problem["detail"] == "; ".join(f"{error['field']}: {error['problem']}" for error in problem["errors"])


async def test_expires_in_and_expires_at_exclude_each_other(company: Client) -> None:
    both = AXB | {"expires_in": 600, "expires_at": "2030-01-01T00:00:00Z"}
    problem = await company.refused("POST", "/v1/bindings", "invalid", both)
    assert "exclude each other" in problem["detail"]


async def test_each_refusal_has_its_kind(api: Api, operator: Client, company: Client) -> None:
    await company.post("/v1/bindings", AXB | {"x": X})
    await company.refused("POST", "/v1/bindings", "conflict", AXB | {"x": X, "b": C})
    await company.refused("POST", "/v1/bindings", "number_unknown", AXB | {"x": "700999999990000"})
    await operator.post(f"/v1/numbers/{Y}/lock", {"reason": "fraud"}, 200)
    await company.refused("POST", "/v1/bindings", "number_locked", AXB | {"x": Y})
    await operator.ask("PATCH", "/v1/businesses/acme", {"modes": ["AXN"]})
    await company.refused("POST", "/v1/bindings", "mode_not_allowed", AXB)
    await operator.ask("PATCH", "/v1/businesses/acme", {"modes": ["AXB"], "max_bindings": 1})
    await company.refused("POST", "/v1/bindings", "quota", AXB)
    await operator.post("/v1/businesses/acme/suspend", {"reason": "complaints"}, 200)
    await company.refused("POST", "/v1/bindings", "business_not_approved", AXB)


async def test_a_change_keeps_omitted_fields_and_null_clears(company: Client) -> None:
    asked = AXB | {"expires_in": 600, "max_call_s": 600, "user_data": "u1", "direction": "a_to_b"}
    made = await company.post("/v1/bindings", asked)
    path = f"/v1/bindings/{made['id']}"
    changed = await company.ask("PATCH", path, {"b": C, "expires_at": None, "max_call_s": None, "version": 1})
    assert (changed["b"], changed["expires_at"], changed["max_call_s"]) == ("137****0003", None, None)
    assert (changed["a"], changed["user_data"], changed["direction"]) == (made["a"], "u1", "a_to_b")
    assert (changed["version"], changed["changed_by"]) == (2, made["created_by"])
    await company.refused("PATCH", path, "state_conflict", {"user_data": "u2", "version": 1})
    assert (await company.ask("PATCH", path, {"user_data": None}))["user_data"] is None


async def test_a_binding_ends_some_time_after_its_last_call(company: Client) -> None:
    made = await company.post("/v1/bindings", AXB | {"idle_ttl_s": 600, "expires_in": 7200})
    assert made["created_at"] < made["expires_at"] < made["max_expires_at"]
    changed = await company.ask("PATCH", f"/v1/bindings/{made['id']}", {"idle_ttl_s": None})
    assert (changed["idle_ttl_s"], changed["expires_at"]) == (None, made["max_expires_at"])


async def test_party_a_comes_later(company: Client) -> None:
    asked = {"mode": "AXB", "b": B, "order_id": "1"}
    await company.refused("POST", "/v1/bindings", "invalid", asked)
    made = await company.post("/v1/bindings", asked | {"late": True, "area": "bj", "area_match": "loose"})
    assert (made["a"], made["state"]) == (None, "live")
    path = f"/v1/bindings/{made['id']}"
    assert (await company.ask("PATCH", path, {"a": A}))["a"] == "138****0001"
    assert (await company.ask("PATCH", path, {"a": None}))["a"] is None


async def test_a_binding_is_renewed(company: Client) -> None:
    made = await company.post("/v1/bindings", AXB | {"expires_in": 600})
    until = datetime.now(UTC).replace(microsecond=123_000) + timedelta(days=1)
    renewed = await company.post(f"/v1/bindings/{made['id']}/renew", {"expires_at": until.isoformat()}, 200)
    assert renewed["expires_at"] == until.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    await company.refused("POST", f"/v1/bindings/{made['id']}/renew", "invalid", {})


async def test_a_repeated_request_is_executed_once(company: Client) -> None:
    first = await company.http.post("/v1/bindings", json=AXB, headers={"idempotency-key": "k1"})
    second = await company.http.post("/v1/bindings", json=AXB, headers={"idempotency-key": "k1"})
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert second.headers["location"] == first.headers["location"]
    assert (first.headers.get("idempotency-replayed"), second.headers["idempotency-replayed"]) == (None, "true")
    await company.refused("POST", "/v1/bindings", "idempotency_mismatch", AXB | {"b": C}, idempotency_key="k1")
    assert len((await company.get("/v1/bindings"))["items"]) == 1


@pytest.fixture
async def later(api: Api) -> AsyncIterator[list[int]]:
    """The lead of the store's clock in milliseconds, as a list of one."""
    await api.backend.writer.close()
    ahead_ms = [0]
    api.backend.writer = GroupWriter(api.backend.path, api.backend.sealer, clock_ms=lambda: now_ms() + ahead_ms[0])
    yield ahead_ms


@pytest.mark.parametrize("batch", [False, True])
async def test_a_repeated_request_gets_the_stored_response_although_its_expiry_is_near(
    company: Client, later: list[int], batch: bool
) -> None:
    item = AXB | {"x": X, "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    path, body = ("/v1/bindings/batch", {"items": [item]}) if batch else ("/v1/bindings", item)
    first = await company.http.post(path, json=body, headers={"idempotency-key": "k1"})
    later[0] = 3_599_000
    again = await company.http.post(path, json=body, headers={"idempotency-key": "k1"})
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert "expires_at" in (await company.http.post(path, json=body)).text.partition("errors")[2]


async def test_a_repeated_change_gets_the_stored_response_although_its_expiry_is_near(
    company: Client, later: list[int]
) -> None:
    made = await company.post("/v1/bindings", AXB | {"x": X})
    path, end = f"/v1/bindings/{made['id']}", {"expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    changed = await company.ask("PATCH", path, end, idempotency_key="k1")
    renewed = await company.post(f"{path}/renew", end, 200, idempotency_key="k2")
    later[0] = 3_599_000
    assert await company.ask("PATCH", path, end, idempotency_key="k1") == changed
    assert await company.post(f"{path}/renew", end, 200, idempotency_key="k2") == renewed
    for method, address in (("PATCH", path), ("POST", f"{path}/renew")):
        problem = await company.refused(method, address, "invalid", end)
        assert problem["errors"][0]["field"] == "expires_at"


async def test_concurrent_repetitions_are_executed_once(company: Client) -> None:
    made = await asyncio.gather(*(company.post("/v1/bindings", AXB, idempotency_key="k1") for _ in range(10)))
    assert len({binding["id"] for binding in made}) == 1


async def test_one_of_concurrent_requests_for_a_number_succeeds(company: Client) -> None:
    asked = [company.http.post("/v1/bindings", json=AXB | {"x": X, "b": f"1390000{n:04d}"}) for n in range(20)]
    answers = await asyncio.gather(*asked)
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 19
    assert {answer.json().get("type") for answer in answers} == {None, "/problems/conflict"}


async def test_a_refused_request_can_be_repeated(company: Client) -> None:
    blocking = await company.post("/v1/bindings", AXB | {"x": X})
    asked = AXB | {"x": X, "b": C}
    await company.refused("POST", "/v1/bindings", "conflict", asked, idempotency_key="k1")
    await company.ask("DELETE", f"/v1/bindings/{blocking['id']}")
    await company.post("/v1/bindings", asked, idempotency_key="k1")


async def test_an_idempotency_key_is_private_to_its_business_user(api: Api, company: Client) -> None:
    rival = await api.company("rival")
    first = await company.post("/v1/bindings", AXB, idempotency_key="k1")
    assert (await rival.post("/v1/bindings", AXB, idempotency_key="k1"))["id"] != first["id"]


async def test_a_business_user_named_operator_has_its_own_idempotency_keys(api: Api, operator: Client) -> None:
    await operator.post("/v1/prefixes", {"prefix": PREFIX})
    namesake = await api.company("operator")
    first = await namesake.post("/v1/bindings", AXB, idempotency_key="k1")
    assert (await operator.post("/v1/bindings", AXB, idempotency_key="k1"))["id"] != first["id"]


async def test_bindings_are_found_by_each_criterion(company: Client) -> None:
    first = await company.post("/v1/bindings", AXB | {"x": X})
    second = await company.post("/v1/bindings", AXB | {"x": Y, "order_id": "order-2"})
    await company.ask("DELETE", f"/v1/bindings/{second['id']}")

    async def found(query: str) -> list[str]:
        return [item["id"] for item in (await company.get(f"/v1/bindings?{query}"))["items"]]

    async def searched(**asked: str) -> list[str]:
        return [item["id"] for item in (await company.post("/v1/bindings/search", asked, 200))["items"]]

    assert await found("") == [second["id"], first["id"]]
    assert await found(f"number={X}") == await found("state=live") == await found("order_id=order-1") == [first["id"]]
    assert await found("state=ended") == [second["id"]]
    assert await found("mode=GXB") == []
    assert await searched(party=A) == [second["id"], first["id"]]
    assert await searched(party=C) == []
    assert await searched(party=B, state="live") == [first["id"]]
    page = await company.get("/v1/bindings?limit=1")
    assert (await company.get(f"/v1/bindings?limit=1&cursor={page['next']}"))["items"][0]["id"] == first["id"]


async def test_reveal_requires_the_scope_and_a_reason_and_is_audited(
    api: Api, operator: Client, company: Client
) -> None:
    made = await company.post("/v1/bindings", AXB)
    path = f"/v1/bindings/{made['id']}"
    shown = await company.get(f"{path}?reveal=true&reason=complaint")
    assert (shown["a"], shown["b"]) == (f"86{A}", f"86{B}")
    listed = await company.get("/v1/bindings?reveal=true&reason=inspection")
    assert listed["items"] == [shown]
    lines = (await operator.get("/v1/audit?action=read"))["items"]
    assert [line["reason"] for line in lines] == ["inspection", "complaint"]
    assert lines[0]["details"] == {"shown": [made["id"]]}
    assert {line["business_id"] for line in lines} == {"acme"}
    await company.refused("GET", f"{path}?reveal=true", "invalid")
    blind = await api.company("acme", ["bindings:read"])
    await blind.refused("GET", f"{path}?reveal=true&reason=curious", "forbidden")


async def test_a_number_in_a_consent_is_masked_for_operators(company: Client, operator: Client) -> None:
    made = await company.post("/v1/bindings", AXB | {"consent": f"SMS to {B}"})
    path = f"/v1/bindings/{made['id']}"
    assert made["consent"] == (await company.get(path))["consent"] == f"SMS to {B}"
    seen = [await operator.get(path), *(await operator.get("/v1/bindings?business_id=acme"))["items"]]
    seen.append(await operator.ask("PATCH", path, {"max_call_s": 600}))
    seen.append(await operator.post(f"{path}/renew", {"expires_in": 600}, 200))
    seen.append(await operator.ask("DELETE", path))
    assert [binding["consent"] for binding in seen] == ["SMS to 139****0002"] * 5
    assert (await operator.get(f"{path}?reveal=true&reason=case"))["consent"] == f"SMS to {B}"


async def test_an_operator_binds_for_a_business_user(operator: Client, company: Client) -> None:
    assert (await operator.post("/v1/bindings", AXB | {"business_id": "acme"}))["business_id"] == "acme"
    assert (await operator.post("/v1/bindings", AXB))["business_id"] == "default"
    assert len((await operator.get("/v1/bindings?business_id=acme"))["items"]) == 1
    await company.refused("POST", "/v1/bindings", "not_found", AXB | {"business_id": "default"})
    await company.refused("GET", "/v1/bindings?business_id=default", "not_found")


async def test_no_response_shows_a_party(company: Client) -> None:
    """Requests without reveal."""
    made = await company.post("/v1/bindings", AXB | {"x": X})
    path = f"/v1/bindings/{made['id']}"
    answers = [
        await company.http.get(path),
        await company.http.get("/v1/bindings"),
        await company.http.post("/v1/bindings/search", json={"party": A}),
        await company.http.post("/v1/bindings", json=AXB | {"x": X}),
        await company.http.patch(path, json={"b": A}),
        await company.http.post("/v1/bindings/batch", json={"items": [AXB | {"x": X}]}),
        await company.http.delete(path),
    ]
    for answer in answers:
        for party in (A, B):
            assert party not in answer.text


async def test_record_is_accepted_if_recording_is_configured(api: Api, company: Client) -> None:
    problem = await company.refused("POST", "/v1/bindings", "invalid", AXB | {"record": True})
    assert [error["field"] for error in problem["errors"]] == ["record"]
    api.backend.settings = api.backend.settings._replace(rules=BindRules(recording=True))
    made = await company.post("/v1/bindings", AXB | {"record": True})
    path = f"/v1/bindings/{made['id']}"
    assert (await company.get(path))["record"] is True
    assert (await company.ask("PATCH", path, {"record": False}))["record"] is False
    answer = await company.post("/v1/bindings/batch", {"items": [AXB | {"a": C, "record": True}]}, 200)
    assert answer["items"][0]["binding"]["record"] is True


async def test_a_key_over_max_binds_per_s_gets_429(api: Api, company: Client) -> None:
    first = await company.post("/v1/bindings", AXB, idempotency_key="k1")
    rules = BindRules(quotas=Quotas(max_binds_per_s=0))
    api.backend.settings = api.backend.settings._replace(rules=rules)
    batch = await company.post("/v1/bindings/batch", {"items": [AXB, AXB | {"b": C}]}, 200)
    assert [item["problem"]["type"] for item in batch["items"]] == ["/problems/rate_limited"] * 2
    answer = await company.http.post("/v1/bindings", json=AXB | {"b": C})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["errors"][0]["field"] == "business_id" and "--max-binds-per-s" in answer.json()["detail"]
    assert await company.post("/v1/bindings", AXB, idempotency_key="k1") == first  # the stored response


async def test_a_refusal_over_max_bindings_names_the_fix(api: Api, company: Client) -> None:
    api.backend.settings = api.backend.settings._replace(rules=BindRules(quotas=Quotas(max_bindings=1)))
    await company.post("/v1/bindings", AXB)
    problem = await company.refused("POST", "/v1/bindings", "quota", AXB | {"b": C})
    assert problem["status"] == 409 and "--max-bindings N" in problem["detail"]
