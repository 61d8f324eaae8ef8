"""Operations of groups."""

from __future__ import annotations

from relay.service.keys import OPERATOR_SCOPES
from tests.api.conftest import PREFIX, A, Api, B, C, Client


async def test_members_are_added_and_removed(company: Client) -> None:
    group = await company.post("/v1/groups", {"name": "riders", "members": [A]})
    path = f"/v1/groups/{group['id']}"
    assert (group["size"], group["name"], group["business_id"]) == (1, "riders", "acme")
    added = await company.post(f"{path}/members", {"members": [A, C]}, 200)
    assert (added["changed"], added["group"]["size"]) == (1, 2)
    assert await company.get(path) == added["group"]
    shown = (await company.get(f"{path}/members"))["items"]
    assert sorted(member["number"] for member in shown) == ["137****0003", "138****0001"]
    clear = (await company.get(f"{path}/members?reveal=true&reason=audit"))["items"]
    assert sorted(member["number"] for member in clear) == [f"86{C}", f"86{A}"]
    removed = await company.post(f"{path}/members/remove", {"members": [A]}, 200)
    assert (removed["changed"], removed["group"]["size"]) == (1, 1)


async def test_a_number_in_the_name_of_a_group_is_masked_for_operators(company: Client, operator: Client) -> None:
    made = await company.post("/v1/groups", {"name": f"riders of {A}"})
    path = f"/v1/groups/{made['id']}"
    assert made["name"] == (await company.get(path))["name"] == f"riders of {A}"
    seen = [await operator.get(path), *(await operator.get("/v1/groups?business_id=acme"))["items"]]
    seen.append((await operator.post(f"{path}/members", {"members": [B]}, 200))["group"])
    seen.append((await operator.post(f"{path}/members/remove", {"members": [B]}, 200))["group"])
    seen.append(await operator.ask("DELETE", path))
    assert [group["name"] for group in seen] == ["riders of 138****0001"] * 5


async def test_a_group_in_use_cannot_be_deleted(company: Client) -> None:
    group = await company.post("/v1/groups", {"name": "riders", "members": [A]})
    asked = {"mode": "GXB", "group_id": group["id"], "b": B, "order_id": "1"}
    binding = await company.post("/v1/bindings", asked)
    await company.refused("DELETE", f"/v1/groups/{group['id']}", "state_conflict")
    await company.refused("POST", f"/v1/groups/{group['id']}/members", "conflict", {"members": [B]})
    await company.ask("DELETE", f"/v1/bindings/{binding['id']}")
    await company.ask("DELETE", f"/v1/groups/{group['id']}")
    await company.refused("GET", f"/v1/groups/{group['id']}", "not_found")


async def test_members_are_paginated(company: Client) -> None:
    members = [f"1380000{n:04d}" for n in range(25)]
    group = await company.post("/v1/groups", {"name": "riders", "members": members})
    path = f"/v1/groups/{group['id']}/members?limit=10&reveal=true&reason=audit"
    seen: list[str] = []
    page = await company.get(path)
    while True:
        seen += [member["number"] for member in page["items"]]
        if page["next"] is None:
            break
        page = await company.get(f"{path}&cursor={page['next']}")
    assert sorted(seen) == [f"86{member}" for member in members]


async def test_a_cursor_is_of_the_members_of_one_group(company: Client) -> None:
    """A position in another list would skip some items, or be none at all."""
    first, second = [await company.post("/v1/groups", {"name": name, "members": [A, C]}) for name in ("a", "b")]
    cursor = (await company.get(f"/v1/groups/{first['id']}/members?limit=1"))["next"]
    assert len((await company.get(f"/v1/groups/{first['id']}/members?cursor={cursor}"))["items"]) == 1
    for other in (f"/v1/groups/{second['id']}/members", "/v1/groups", "/v1/lists/business/acme/entries"):
        await company.refused("GET", f"{other}?cursor={cursor}", "invalid")


async def test_an_invalid_member_is_named(company: Client) -> None:
    problem = await company.refused("POST", "/v1/groups", "invalid", {"name": "riders", "members": [A, "x"]})
    assert problem["errors"][0]["field"] == "members.1"
    problem = await company.refused("POST", "/v1/groups", "invalid", {"name": "riders", "members": [PREFIX + "0001"]})
    assert problem["errors"][0]["field"] == "members.0"


async def test_an_operator_without_parties_read_takes_no_number_away(api: Api, company: Client) -> None:
    """Whether it was there would tell who is behind a mask, a thousand numbers in a request."""
    group = await company.post("/v1/groups", {"name": "riders", "members": [A]})
    await company.ask("PUT", "/v1/lists/business/acme/entries", {"number": A, "kind": "black"})
    blind = await api.operator(OPERATOR_SCOPES - {"parties:read"})
    for guess in (A, C):
        await blind.refused("POST", f"/v1/groups/{group['id']}/members/remove", "forbidden", {"members": [guess]})
        await blind.refused("DELETE", "/v1/lists/business/acme/entries", "forbidden", {"number": guess})
    seeing = await api.operator()
    await seeing.post(f"/v1/groups/{group['id']}/members/remove", {"members": [A]}, 200)
    await seeing.ask("DELETE", "/v1/lists/business/acme/entries", {"number": A})


async def test_an_operator_without_parties_read_adds_no_members(api: Api, company: Client) -> None:
    """A thousand candidates would fit beside one member only if it is among them."""
    group = await company.post("/v1/groups", {"name": "riders", "members": [A]})
    blind = await api.operator(OPERATOR_SCOPES - {"parties:read"})
    others = [f"1370000{n:04}" for n in range(999)]
    for guess in (A, C):
        asked = {"members": [*others, guess]}
        problem = await blind.refused("POST", f"/v1/groups/{group['id']}/members", "forbidden", asked)
        assert problem["errors"][0]["field"] == "members"
        await blind.refused("POST", "/v1/groups", "forbidden", asked | {"name": "tried", "business_id": "acme"})
    await blind.post("/v1/groups", {"name": "empty", "business_id": "acme"})
    assert (await company.get(f"/v1/groups/{group['id']}"))["size"] == 1


async def test_members_that_are_refused_are_audited_with_their_count(company: Client, operator: Client) -> None:
    group = await company.post("/v1/groups", {"name": "riders", "members": [A]})
    asked = {"members": [f"1370000{n:04}" for n in range(1000)]}
    await company.refused("POST", f"/v1/groups/{group['id']}/members", "quota", asked)
    line, *_ = (await operator.get("/v1/audit?action=change.refused"))["items"]
    assert line["details"] == {"refused": 1000, "kinds": ["quota"]}
