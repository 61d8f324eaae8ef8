"""Pages of bindings: search, routes, history, the end."""

from __future__ import annotations

import re
from typing import Any

import pytest

from relay.console.bindings import RouteLine, routes_of
from tests.api.conftest import PREFIX, A, Api, B, Client
from tests.console.conftest import Console, text_of

X, Y = f"{PREFIX}0001", f"{PREFIX}0002"


def shown(mode: str, **changes: Any) -> dict[str, Any]:
    """A binding as the API shows it."""
    made = {"mode": mode, "x": X, "y": None, "a": "a", "b": "b", "group_id": None, "direction": "both"}
    return made | changes


@pytest.mark.parametrize(
    ("binding", "routes"),
    [
        (shown("AXB"), [RouteLine("a", X, "b", X), RouteLine("b", X, "a", X)]),
        (shown("AXYB", y=Y), [RouteLine("a", X, "b", Y), RouteLine("b", Y, "a", X)]),
        (shown("GXB", group_id="g1"), [RouteLine("g1", X, "b", X), RouteLine("b", X, None, X)]),
        (shown("GXYB", group_id="g1", y=Y), [RouteLine("g1", X, "b", Y), RouteLine("b", Y, None, X)]),
        (shown("AXN"), [RouteLine("a", X, None, X), RouteLine(None, X, "a", X)]),
        (shown("AXB", direction="a_to_b"), [RouteLine("a", X, "b", X)]),
        (shown("AXB", direction="b_to_a"), [RouteLine("b", X, "a", X)]),
        (shown("AXYB", y=Y, a=None), [RouteLine("b", Y, "", X)]),
    ],
)
def test_the_routes_of_each_mode(binding: dict[str, Any], routes: list[RouteLine]) -> None:
    assert routes_of(binding) == routes


async def bound(company: Client, **more: Any) -> str:
    made = await company.post("/v1/bindings", {"mode": "AXB", "a": A, "b": B, "x": X, "order_id": "order-1", **more})
    return str(made["id"])


async def test_bindings_of_a_revoked_business_user_are_not_shown_as_live(
    console: Console, company: Client, operator: Client
) -> None:
    binding_id = await bound(company)
    browser = await console.of(operator)
    for step, said in (("suspend", "business suspended"), ("resume", "live"), ("revoke", "business revoked")):
        await operator.post(f"/v1/businesses/acme/{step}", {"reason": "complaints"}, 200)
        for place in ("/bindings?state=live", f"/bindings/{binding_id}", f"/numbers/{X}"):
            page = await browser.see(place)
            assert re.findall(r'<span class="state (?!bound)\w+">([^<]+)</span>', page) == [said], (step, place)
        found = await browser.send(await browser.see("/bindings"), "/bindings/search", party=A)
        assert f">{said}</span>" in found.text
    for place in ("/businesses", "/businesses/acme"):
        assert "0 in force, 1 bound" in text_of(await browser.see(place))
    assert "生效 0，已绑定 1" in text_of(await (await console.of(operator, "zh")).see("/businesses/acme"))
    rows = (await browser.http.get("/console/bindings?format=json")).json()
    assert rows[0]["state"] == "live", "files are those of the API"


async def test_a_binding_is_found_by_number_and_order_and_shown_masked(console: Console, company: Client) -> None:
    binding_id = await bound(company, idle_ttl_s=600)
    browser = await console.of(company)
    for query in (f"?number={X}", "?order_id=order-1", "?state=live&mode=AXB"):
        assert binding_id in await browser.see(f"/bindings{query}")
    assert binding_id not in await browser.see("/bindings?order_id=other")
    page = await browser.see(f"/bindings/{binding_id}")
    words = text_of(page)
    assert "after the last call, seconds 600" in words
    assert "138****0001" in words and X in words and "Made" in words
    assert A not in page and B not in page


async def test_a_binding_is_ended_once_with_a_reason(console: Console, company: Client, operator: Client) -> None:
    binding_id = await bound(company)
    browser = await console.of(company)
    page = await browser.see(f"/bindings/{binding_id}")
    answer = await browser.send(page, f"/bindings/{binding_id}/end", reason="delivered")
    assert answer.headers["location"] == f"/console/bindings/{binding_id}"
    after = await browser.see(f"/bindings/{binding_id}")
    assert "The binding has ended" in after and f"/bindings/{binding_id}/end" not in after
    (line,) = (await operator.get("/v1/audit?action=binding.end"))["items"]
    assert (line["object"], line["reason"]) == (binding_id, "delivered")


async def test_party_a_comes_later_and_goes(console: Console, company: Client) -> None:
    binding_id = await bound(company, a=None, late=True)
    browser = await console.of(company)
    page = await browser.see(f"/bindings/{binding_id}")
    assert "nobody yet" in text_of(page) and "anybody" not in text_of(page)
    await browser.send(page, f"/bindings/{binding_id}/party", a=A)
    page = await browser.see(f"/bindings/{binding_id}")
    assert "138****0001" in text_of(page) and A not in page
    await browser.send(page, f"/bindings/{binding_id}/party", a="")
    assert "nobody yet" in text_of(await browser.see(f"/bindings/{binding_id}"))


async def test_orders_are_handed_over_by_a_form(console: Console, company: Client) -> None:
    binding_id = await bound(company)
    browser = await console.of(company)
    page = await browser.see("/bindings/hand-over")
    assert "hand-over" in await browser.see("/bindings")
    answer = await browser.send(
        page, "/bindings/hand-over", order_ids="order-1\r\norder-2\r\n", from_a="", to_a="13700000003"
    )
    assert f"{binding_id} handed over" in text_of(answer.text)
    assert "this order has no live binding" in text_of(answer.text)
    assert "13700000003" not in answer.text
    assert (await company.get(f"/v1/bindings/{binding_id}"))["a"] == "137****0003"
    page = await browser.see("/bindings/hand-over")
    answer = await browser.send(page, "/bindings/hand-over", order_ids="", from_a="", to_a="")
    assert answer.status_code == 400 and "name orders, or from_a" in answer.text


async def test_a_key_that_may_only_read_has_no_button(console: Console, api: Api, company: Client) -> None:
    binding_id = await bound(company)
    browser = await console.of(await api.company("acme", ["bindings:read"]))
    page = await browser.see(f"/bindings/{binding_id}")
    assert "End this binding" not in page and "Show real numbers" not in page
    token = page.partition('name="csrf" value="')[2].partition('"')[0]
    answer = await browser.http.post(f"/console/bindings/{binding_id}/end", data={"csrf": token, "reason": "no"})
    assert answer.status_code == 403
    assert (await company.get(f"/v1/bindings/{binding_id}"))["state"] == "live"


async def test_a_binding_of_another_business_does_not_exist(console: Console, api: Api, company: Client) -> None:
    binding_id = await bound(company)
    browser = await console.of(await api.company("rival"))
    assert "order-1" not in await browser.see("/bindings")
    assert "order-1" not in await browser.see(f"/bindings/{binding_id}", 404)


async def test_bindings_of_a_party_are_found_by_a_form_with_the_right(
    console: Console, api: Api, company: Client
) -> None:
    binding_id = await bound(company)
    browser = await console.of(company)
    page = await browser.see("/bindings?state=ended")
    found = await browser.send(page, "/bindings/search", party="138 0000 0001")
    assert binding_id in found.text and A not in found.text and "Show real numbers" not in found.text
    assert binding_id not in (await browser.send(page, "/bindings/search", party="13800000009")).text
    wrong = await browser.send(page, "/bindings/search", party="<b>")
    assert wrong.status_code == 400 and "must be a phone number" in wrong.text
    reader = await console.of(await api.company("acme", ["bindings:read"]))
    page = await reader.see("/bindings")
    assert 'name="party"' not in page
