"""Operations of prefixes and numbers."""

from __future__ import annotations

from relay.store.numbers import insert_legacy
from tests.api.conftest import PREFIX, RULES, Api, Client
from tests.support.written import bind, written

X, Y = PREFIX + "0001", PREFIX + "0002"


async def test_a_prefix_is_loaded_with_its_numbers(operator: Client) -> None:
    loaded = await operator.post("/v1/prefixes", {"prefix": PREFIX, "peer": "carrier", "cool_down_s": 3600})
    assert (loaded["loaded"], loaded["operator"], loaded["platform"]) == (10_000, "1", "0000007")
    assert (loaded["cool_down_s"], loaded["state"]) == (3600, "active")
    shown = await operator.get(f"/v1/prefixes/{PREFIX}")
    assert shown == {name: value for name, value in loaded.items() if name != "loaded"}
    assert shown in (await operator.get("/v1/prefixes"))["items"]
    await operator.refused("POST", "/v1/prefixes", "state_conflict", {"prefix": PREFIX})
    await operator.refused("GET", "/v1/prefixes/70099999999", "not_found")


async def test_a_locked_prefix_locks_its_numbers(operator: Client) -> None:
    await operator.post("/v1/prefixes", {"prefix": PREFIX, "cool_down_s": 3600})
    changed = await operator.ask("PATCH", f"/v1/prefixes/{PREFIX}", {"state": "locked", "cool_down_s": None})
    assert (changed["state"], changed["cool_down_s"]) == ("locked", None)
    number = await operator.get(f"/v1/numbers/{X}")
    assert (number["state"], number["locked_by"]) == ("locked", ["prefix"])


async def test_a_number_is_locked_and_unlocked(operator: Client) -> None:
    await operator.post("/v1/prefixes", {"prefix": PREFIX})
    locked = await operator.post(f"/v1/numbers/{X}/lock", {"reason": "complaints"}, 200)
    assert (locked["state"], locked["locked_by"]) == ("locked", ["operator"])
    assert (await operator.get("/v1/numbers?state=locked"))["items"] == [locked]
    unlocked = await operator.post(f"/v1/numbers/{X}/unlock", {"reason": "checked"}, 200)
    assert (unlocked["state"], unlocked["locked_by"]) == ("free", [])
    await operator.refused("POST", f"/v1/numbers/{X}/lock", "invalid", {})
    await operator.refused("GET", "/v1/numbers/700999999990000", "number_unknown")


async def test_numbers_are_moved_to_a_pool_of_a_business_user(api: Api, operator: Client) -> None:
    company = await api.company("acme")
    await operator.post("/v1/prefixes", {"prefix": PREFIX})
    await operator.post("/v1/pools", {"id": "acme-bj", "business_id": "acme", "area": "010", "warn_percent": 50})
    assert await operator.post("/v1/numbers/move", {"pool_id": "acme-bj", "numbers": [X, Y]}, 200) == {"moved": 2}
    assert [number["number"] for number in (await company.get("/v1/numbers"))["items"]] == [X, Y]
    assert [number["number"] for number in (await company.get(f"/v1/numbers?prefix={Y}"))["items"]] == [Y]
    usage = await company.get("/v1/pools/acme-bj/usage")
    assert (usage["total"], usage["free"], usage["percent"], usage["warning"]) == (2, 2, 0, False)
    await company_binds(api, X)
    usage = await company.get("/v1/pools/acme-bj/usage")
    assert (usage["free"], usage["bound"], usage["percent"], usage["warning"]) == (1, 1, 50, True)


async def company_binds(api: Api, x: str) -> None:
    company = await api.company("acme")
    parties = {"a": "13800000001", "b": "13900000002"}
    await company.post("/v1/bindings", {"mode": "AXB", "x": x, "order_id": "1", "expires_in": 600, **parties})


async def test_the_binding_count_of_a_shared_number_is_hidden_from_a_business_user(api: Api, operator: Client) -> None:
    await operator.post("/v1/prefixes", {"prefix": PREFIX})
    await company_binds(api, X)
    rival = await api.company("rival")
    assert (await rival.get(f"/v1/numbers/{X}"))["bindings"] is None
    assert (await operator.get(f"/v1/numbers/{X}"))["bindings"] == 1


async def test_a_number_of_a_common_pool_shows_its_state_to_its_holder_alone(api: Api, operator: Client) -> None:
    await operator.post("/v1/prefixes", {"prefix": PREFIX})
    acme, rival = await api.company("acme"), await api.company("rival")
    unused = await rival.get(f"/v1/numbers/{X}")
    asked = {"mode": "AXN", "x": X, "a": "13800000001", "order_id": "1", "expires_in": 600}
    made = await acme.post("/v1/bindings", asked)
    assert await rival.get(f"/v1/numbers/{X}") == unused
    assert (await acme.get(f"/v1/numbers/{X}"))["exclusive"] is True
    await operator.post(f"/v1/numbers/{X}/lock", {"reason": "complaints"}, 200)
    assert await rival.get(f"/v1/numbers/{X}") == unused
    assert (await acme.get(f"/v1/numbers/{X}"))["locked_by"] == ["operator"]
    await operator.post(f"/v1/numbers/{X}/unlock", {"reason": "checked"}, 200)
    await acme.ask("DELETE", f"/v1/bindings/{made['id']}")
    assert await rival.get(f"/v1/numbers/{X}") == unused
    cooling = await acme.get(f"/v1/numbers/{X}")
    assert cooling == await operator.get(f"/v1/numbers/{X}") | {"bindings": None}
    assert (cooling["state"], unused["state"]) == ("cooling", "free")


async def test_a_legacy_number_is_shown_to_the_business_user_of_its_bindings_alone(api: Api, operator: Client) -> None:
    old = "8613500000005"
    await api.run(lambda unit: insert_legacy(unit, old))
    acme, rival = await api.company("acme"), await api.company("rival")
    await acme.refused("GET", f"/v1/numbers/{old}", "number_unknown")
    asked = written("AXB", "13800000001", "13900000002", x=old, business="acme")
    await api.run(lambda unit: bind(unit, asked, RULES._replace(phase="transition")))
    seen = await acme.get(f"/v1/numbers/{old}")
    assert (seen["state"], seen["legacy"], seen["bindings"]) == ("bound", True, None)
    await rival.refused("GET", f"/v1/numbers/{old}", "number_unknown")


async def test_a_peer_that_is_not_configured_is_refused(api: Api, operator: Client) -> None:
    api.backend.settings = api.backend.settings._replace(peers=("carrier",))
    wrong = {"prefix": PREFIX, "peer": "carier"}
    (error,) = (await operator.refused("POST", "/v1/prefixes", "not_found", wrong))["errors"]
    assert error["field"] == "peer" and "carrier" in error["problem"]
    await operator.post("/v1/prefixes", {"prefix": PREFIX, "peer": "carrier"})
    await operator.refused("PATCH", f"/v1/prefixes/{PREFIX}", "not_found", {"peer": "carier"})


async def test_a_loaded_prefix_has_a_location(operator: Client) -> None:
    answer = await operator.http.post("/v1/prefixes", json={"prefix": PREFIX})
    assert answer.headers["location"] == f"/v1/prefixes/{PREFIX}"
