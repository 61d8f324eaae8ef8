"""Batches of bindings: each item succeeds or fails by itself."""

from __future__ import annotations

from typing import Any

import pytest

from relay.api import batches
from relay.api.batches import MOST_CHUNKS
from relay.service import hand_over as hand_over_module
from tests.api.conftest import PREFIX, A, Api, B, C, Client, Json

X = PREFIX + "0001"
AXB: Json = {"mode": "AXB", "a": A, "b": B, "order_id": "order-1"}


async def test_items_of_a_batch_succeed_or_fail_independently(company: Client) -> None:
    items = [AXB | {"x": X, "a": f"1380000{n:04d}"} for n in range(250)]
    items[120] = AXB | {"x": X, "a": "13800000007"}
    answer = await company.post("/v1/bindings/batch", {"items": items}, 200, idempotency_key="k1")
    statuses = [item["status"] for item in answer["items"]]
    assert (statuses.count(201), statuses.count(409)) == (1, 249)  # b can be on x only once
    assert answer["items"][1]["problem"]["type"] == "/problems/conflict"
    again = await company.post("/v1/bindings/batch", {"items": items}, 200, idempotency_key="k1")
    assert again["items"][:100] == answer["items"][:100]  # of the unit of work that made a binding
    assert [item["status"] for item in again["items"]] == statuses


def answers_kept(api: Api) -> int:
    count: int = api.backend.reader.read(
        lambda connection: connection.execute("SELECT count(*) FROM idempotency").fetchone()[0]
    )
    return count


async def test_the_answer_of_a_batch_that_made_nothing_is_not_kept(api: Api, company: Client) -> None:
    async def sent(items: list[Json]) -> set[int]:
        answer = await company.post("/v1/bindings/batch", {"items": items}, 200, idempotency_key="k1")
        return {item["status"] for item in answer["items"]}

    assert (await sent([{}] * 101), answers_kept(api)) == ({400}, 0)
    assert (await sent([AXB]), await sent([AXB])) == ({201}, {201})  # as after a refused request
    assert len((await company.get("/v1/bindings"))["items"]) == 1


async def test_a_key_of_a_batch_is_not_another_s_even_if_its_first_items_were_refused(company: Client) -> None:
    await company.post("/v1/bindings/batch", {"items": [*[{}] * 100, AXB]}, 200, idempotency_key="k1")
    other = {"items": [AXB | {"a": C}, *[{}] * 100]}
    await company.refused("POST", "/v1/bindings/batch", "idempotency_mismatch", other, idempotency_key="k1")
    assert len((await company.get("/v1/bindings"))["items"]) == 1


async def test_a_batch_has_at_most_1000_items(company: Client) -> None:
    items = [AXB | {"a": f"1380000{n:04d}", "b": f"1390000{n:04d}"} for n in range(1000)]
    answer = await company.post("/v1/bindings/batch", {"items": items}, 200)
    assert {item["status"] for item in answer["items"]} == {201}
    assert len({item["binding"]["id"] for item in answer["items"]}) == 1000
    await company.refused("POST", "/v1/bindings/batch", "invalid", {"items": [*items, AXB]})


async def test_an_invalid_expiry_or_business_user_fails_its_item_only(company: Client) -> None:
    items = [
        AXB | {"expires_at": "2020-01-01T00:00:00Z"},
        AXB | {"business_id": "rival"},
        AXB | {"x": "700999999990000"},
        AXB | {"x": X, "business_id": "acme"},
    ]
    answer = await company.post("/v1/bindings/batch", {"items": items}, 200)
    assert [item["status"] for item in answer["items"]] == [400, 404, 404, 201]
    assert [item["problem"]["errors"][0]["field"] for item in answer["items"][:3]] == ["expires_at", "business_id", "x"]
    assert answer["items"][3]["binding"]["x"] == X


async def test_a_malformed_item_fails_alone(company: Client) -> None:
    """It gets the same problem as a single request, without its values."""
    wrong = [AXB | {"mode": "A"}, AXB | {"a": "13800000001; DROP"}, AXB | {"no": 1}, {}, 17, None]
    items = [AXB | {"x": X}, *wrong, AXB | {"x": X, "a": C, "b": "13700000005"}]
    answer = await company.post("/v1/bindings/batch", {"items": items}, 200, idempotency_key="k1")
    assert [(item["index"], item["status"]) for item in answer["items"]] == [
        (0, 201), *((place, 400) for place in range(1, 7)), (7, 201)
    ]  # fmt: skip
    problems = [item["problem"] for item in answer["items"][1:7]]
    assert {problem["type"] for problem in problems} == {"/problems/invalid"}
    assert [problem["errors"][0]["field"] for problem in problems] == ["mode", "a", "no", "mode", "item", "item"]
    assert "DROP" not in str(problems)
    for item, problem in zip(wrong[:4], problems, strict=False):
        alone = await company.refused("POST", "/v1/bindings", "invalid", item)
        assert alone["errors"] == problem["errors"]
    assert await company.post("/v1/bindings/batch", {"items": items}, 200, idempotency_key="k1") == answer


async def test_an_item_with_a_key_of_its_own_is_made_once(api: Api, company: Client) -> None:
    async def sent(*items: Json) -> list[Json]:
        answer = await company.post("/v1/bindings/batch", {"items": items}, 200)
        found: list[Json] = answer["items"]
        return found

    first, refused = AXB | {"x": X, "idempotency_key": "k1"}, AXB | {"b": "1", "idempotency_key": "k2"}
    made, wrong = await sent(first, refused)
    assert (made["status"], made["replayed"], wrong["status"]) == (201, False, 400)
    mended = AXB | {"a": C, "b": "13700000005", "idempotency_key": "k2"}
    new, again = await sent(mended, first)
    assert (new["status"], new["replayed"]) == (201, False)
    assert again == made | {"index": 1, "replayed": True}
    other, second = await sent(first | {"order_id": "order-2"}, mended | {"idempotency_key": "k1"})
    assert (other["status"], other["problem"]["type"]) == (422, "/problems/idempotency_mismatch")
    assert second["problem"]["errors"] == [
        {"field": "idempotency_key", "problem": "must not be that of another item of the batch"}
    ]
    assert len((await company.get("/v1/bindings"))["items"]) == 2
    rival = await api.company("rival")
    stranger = await rival.post("/v1/bindings/batch", {"items": [first | {"x": None}]}, 200)
    assert not stranger["items"][0]["replayed"]


async def test_a_malformed_batch_is_refused(company: Client) -> None:
    for body in ({"items": []}, {"items": AXB}, {}, {"items": [AXB], "more": 1}):
        await company.refused("POST", "/v1/bindings/batch", "invalid", body)


async def test_each_group_binding_of_a_batch_is_a_unit_of_work_by_itself(company: Client) -> None:
    """A binding of a large group writes 10,000 routes: other writers get their turn between two."""
    group = await company.post("/v1/groups", {"name": "riders", "members": [C]})
    of_group = {"mode": "GXB", "group_id": group["id"], "order_id": "7"}
    items = [AXB, AXB | {"a": "8001"}, *(of_group | {"b": f"800{n}"} for n in (2, 3)), AXB | {"a": "8004"}]
    made = (await company.post("/v1/bindings/batch", {"items": items}, 200))["items"]
    assert [one["binding"]["mode"] for one in made] == ["AXB", "AXB", "GXB", "GXB", "AXB"]
    moments = [one["binding"]["created_at"] for one in made]
    assert len({*moments[1:]}) == 4 and moments == sorted(moments)


async def test_orders_are_handed_over_once(api: Api, company: Client) -> None:
    made = await company.post("/v1/bindings", {"mode": "AXB", "a": A, "b": B, "order_id": "SF1"})
    asked = {"order_ids": ["SF2"], "to_a": C}
    await company.post("/v1/bindings/hand-over", asked, 200, idempotency_key="k1")
    assert answers_kept(api) == 0  # nothing was handed over
    asked = {"order_ids": ["SF1", "SF2", "SF1"], "to_a": C}
    first = await company.post("/v1/bindings/hand-over", asked, 200, idempotency_key="k1")
    assert [(item["order_id"], item["binding_id"], item["status"]) for item in first["items"]] == [
        *(("SF1", made["id"], 200), ("SF2", None, 404)),
    ]
    assert first["more"] is False
    await company.ask("PATCH", f"/v1/bindings/{made['id']}", {"a": A})
    assert await company.post("/v1/bindings/hand-over", asked, 200, idempotency_key="k1") == first
    assert (await company.get(f"/v1/bindings/{made['id']}"))["a"] == "138****0001"


async def test_a_repeated_hand_over_skips_no_order(company: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first unit of work refused is tried again, and ends at another order."""
    monkeypatch.setattr(hand_over_module, "CHUNK", 2)
    asked = {"order_ids": ["o0", "o1", "o2"], "to_a": C}
    made = {"mode": "AXB", "a": A}
    await company.post("/v1/bindings", {**made, "b": B, "order_id": "o2"})
    await company.post("/v1/bindings/hand-over", asked, 200, idempotency_key="k1")
    for order_id, b in (("o0", "13900000011"), ("o0", "13900000012"), ("o1", "13900000013")):
        await company.post("/v1/bindings", {**made, "b": b, "order_id": order_id})
    again = await company.post("/v1/bindings/hand-over", asked, 200, idempotency_key="k1")
    assert [item["order_id"] for item in again["items"]] == ["o0", "o0", "o1", "o2"]


async def test_all_orders_are_handed_over_in_one_request(company: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_over_module, "CHUNK", 1)
    orders = [f"o{n}" for n in range(MOST_CHUNKS + 2)]
    answer = await company.post("/v1/bindings/hand-over", {"order_ids": orders, "to_a": C}, 200)
    assert ([item["order_id"] for item in answer["items"]], answer["more"]) == (orders, False)


async def test_a_blank_order_is_refused_by_its_field(company: Client) -> None:
    for blank in ("", "  "):
        asked = {"order_ids": ["order-1", blank], "to_a": C}
        problem = await company.refused("POST", "/v1/bindings/hand-over", "invalid", asked)
        assert [error["field"] for error in problem["errors"]] == ["order_ids.1"]


async def test_a_hand_over_from_a_party_requires_the_right_to_search_for_it(api: Api, company: Client) -> None:
    made = await company.post("/v1/bindings", {"mode": "AXB", "a": A, "b": B, "order_id": "SF1"})
    asked = {"from_a": A, "to_a": None}
    writer = await api.company("acme", {"bindings:write"})
    problem = await writer.refused("POST", "/v1/bindings/hand-over", "forbidden", asked)
    assert problem["errors"][0]["field"] == "from_a"
    searcher = await api.company("acme", {"bindings:write", "parties:read"})
    answer = await searcher.post("/v1/bindings/hand-over", asked, 200)
    assert answer == {
        "items": [{"order_id": "SF1", "binding_id": made["id"], "status": 200, "problem": None}],
        "more": False,
        "next": None,
    }


async def test_bindings_that_cannot_be_handed_over_do_not_hold_up_those_behind(
    company: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over_module, "CHUNK", 1)
    monkeypatch.setattr(batches, "MOST_CHUNKS", 1)
    made = [
        await company.post("/v1/bindings", {"mode": "AXB", "a": A, "b": b, "order_id": "SF1"})
        for b in (B, "13900000012")
    ]
    asked: dict[str, Any] = {"from_a": A, "to_a": B}  # who is b of the first one
    seen, answer = [], {"next": None}
    while asked.get("cursor", "first"):
        answer = await company.post("/v1/bindings/hand-over", asked, 200)
        seen += [(item["binding_id"], item["status"]) for item in answer["items"]]
        assert answer["more"] == (answer["next"] is not None)
        asked["cursor"] = answer["next"]
    assert seen[1:] == [(made[1]["id"], 200)] and seen[0][0] == made[0]["id"] and seen[0][1] >= 400
    refused = {"order_ids": ["SF1"], "to_a": C, "cursor": made[0]["id"]}
    problem = await company.refused("POST", "/v1/bindings/hand-over", "invalid", refused)
    assert problem["errors"][0]["field"] == "cursor"


async def test_another_business_users_orders_are_not_found(api: Api, company: Client) -> None:
    await company.post("/v1/bindings", {"mode": "AXB", "a": A, "b": B, "order_id": "SF1"})
    other = await api.company("other")
    answer = await other.post("/v1/bindings/hand-over", {"order_ids": ["SF1"], "to_a": C}, 200)
    assert answer["items"][0]["status"] == 404
    await other.refused(
        "POST", "/v1/bindings/hand-over", "not_found", {"order_ids": ["SF1"], "to_a": C, "business_id": "acme"}
    )
