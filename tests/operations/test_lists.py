"""Operations of black- and whitelists."""

from __future__ import annotations

from relay.service.keys import OPERATOR_SCOPES
from tests.api.conftest import A, Api, C, Client


async def test_callers_are_put_on_lists_and_removed(company: Client) -> None:
    binding = await company.post("/v1/bindings", {"mode": "AXN", "a": A, "order_id": "1"})
    for owner in ("business/acme", f"binding/{binding['id']}"):
        path = f"/v1/lists/{owner}/entries"
        entry = await company.ask("PUT", path, {"number": C, "kind": "black"})
        assert (entry["number"], entry["kind"]) == ("137****0003", "black")
        assert (await company.ask("PUT", path, {"number": C, "kind": "white"}))["kind"] == "white"
        (listed,) = (await company.get(path))["items"]
        assert (listed["number"], listed["kind"]) == ("137****0003", "white")
        (clear,) = (await company.get(f"{path}?reveal=true&reason=audit"))["items"]
        assert clear["number"] == f"86{C}"
        assert await company.ask("DELETE", path, {"number": C}) == {"number": "137****0003"}
        await company.refused("DELETE", path, "not_found", {"number": C})
        assert (await company.get(path))["items"] == []


async def test_an_operator_without_parties_read_puts_no_number_on_a_list(api: Api, company: Client) -> None:
    """A right guess would leave the list as long as it was, and could turn the entry of the business user round."""
    await company.ask("PUT", "/v1/lists/business/acme/entries", {"number": A, "kind": "black"})
    before = await company.get("/v1/lists/business/acme/entries")
    blind = await api.operator(OPERATOR_SCOPES - {"parties:read"})
    for guess in (A, C):
        asked = {"number": guess, "kind": "white"}
        problem = await blind.refused("PUT", "/v1/lists/business/acme/entries", "forbidden", asked)
        assert problem["errors"][0]["field"] == "number"
    assert await company.get("/v1/lists/business/acme/entries") == before


async def test_a_list_of_an_unknown_owner_is_not_found(company: Client) -> None:
    for owner in ("business/nobody", "binding/0123456789abcdef", "business/default"):
        await company.refused("GET", f"/v1/lists/{owner}/entries", "not_found")
        await company.refused("PUT", f"/v1/lists/{owner}/entries", "not_found", {"number": C, "kind": "black"})
    await company.refused("GET", "/v1/lists/number/acme/entries", "not_found")
