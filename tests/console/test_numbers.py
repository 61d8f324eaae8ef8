"""Pages of numbers: pools and their usage, locks."""

from __future__ import annotations

import re

from tests.api.conftest import PREFIX, Api, Client
from tests.console.conftest import Console, text_of

X = f"{PREFIX}0001"


async def test_pools_and_prefixes_stand_above_the_numbers(console: Console, company: Client, operator: Client) -> None:
    browser = await console.of(operator)
    page = text_of(await browser.see("/numbers"))
    assert "Pools" in page and "Prefixes" in page and "10,000" in page and X in page
    filtered = text_of(await browser.see("/numbers?state=bound"))
    assert "Pools" not in filtered and "Nothing matches these filters" in filtered
    assert X in await browser.see(f"/numbers?prefix={PREFIX}")


async def test_the_bar_of_a_short_pool_has_the_colour_of_a_warning(
    console: Console, company: Client, operator: Client
) -> None:
    await operator.post("/v1/pools", {"id": "short", "warn_percent": 50})
    bars = []
    browser = await console.of(operator)
    await operator.post("/v1/numbers/move", {"pool_id": "short", "numbers": [f"{PREFIX}0001", f"{PREFIX}0002"]}, 200)
    for n in range(3):
        row = (await browser.see("/numbers")).partition(">short</a>")[2].partition("</tr>")[0]
        bars.append(re.findall(r'<rect class="(good|calm|bad)"', row))
        body = {"mode": "AXB", "a": "13800000001", "b": "13900000002", "pool_id": "short", "order_id": f"o{n}"}
        if n < 2:
            await operator.post("/v1/bindings", body | {"x": f"{PREFIX}000{n + 1}", "business_id": "acme"})
    assert bars == [["good"], ["calm"], ["bad"]]


async def test_a_number_that_is_asked_for_is_opened(console: Console, company: Client, operator: Client) -> None:
    browser = await console.of(operator)
    answer = await browser.http.get(f"/console/numbers?number=7001 {X[4:]}")
    assert answer.headers["location"] == f"/console/numbers/{X}"
    assert "Nothing is bound on it" in await browser.see(f"/numbers/{X}")
    await browser.see("/numbers/700999999999999", 404)


async def test_a_foreign_number_that_is_asked_for_is_in_no_url(
    console: Console, company: Client, operator: Client
) -> None:
    browser = await console.of(operator)
    place = await browser.search(await browser.see("/numbers"), "/numbers", number="447700900123")
    assert "447700900123" not in place
    assert "not a number of this platform" in await browser.see(place, 400)


async def test_a_number_is_locked_and_unlocked_with_a_reason(
    console: Console, company: Client, operator: Client
) -> None:
    browser = await console.of(operator)
    page = await browser.see(f"/numbers/{X}")
    await browser.send(page, f"/numbers/{X}/lock", reason="reported")
    locked = await browser.see(f"/numbers/{X}")
    assert re.search(r"<dt>Locked by</dt><dd>.*operator.*</dd>", locked)
    assert "The number is locked" in locked and (await operator.get(f"/v1/numbers/{X}"))["state"] == "locked"
    await browser.send(locked, f"/numbers/{X}/unlock", reason="mistake")
    assert (await operator.get(f"/v1/numbers/{X}"))["state"] == "free"
    lines = (await operator.get(f"/v1/audit?object={X}"))["items"]
    assert [(line["action"], line["reason"]) for line in lines] == [
        ("number.unlock", "mistake"),
        ("number.lock", "reported"),
    ]


async def test_a_prefix_is_locked_and_unlocked_with_a_reason(
    console: Console, company: Client, operator: Client
) -> None:
    browser = await console.of(operator)
    for step, state in (("lock", "locked"), ("unlock", "active")):
        page = await browser.see("/numbers")
        await browser.send(page, f"/prefixes/{PREFIX}/{step}", reason=f"{step} it")
        assert (await operator.get(f"/v1/prefixes/{PREFIX}"))["state"] == state
    reasons = [line["reason"] for line in (await operator.get("/v1/audit?action=prefix.change"))["items"]]
    assert reasons == ["unlock it", "lock it"]


async def test_a_business_user_sees_its_own_pools_and_locks_nothing(
    console: Console, api: Api, company: Client, operator: Client
) -> None:
    await operator.post("/v1/pools", {"id": "acme-pool", "business_id": "acme", "area": "上海"})
    await operator.post("/v1/pools", {"id": "other-pool"})
    await operator.post("/v1/numbers/move", {"pool_id": "acme-pool", "numbers": [X]}, 200)
    browser = await console.of(company)
    page = await browser.see("/numbers")
    assert "acme-pool" in page and "上海" in page and "other-pool" not in page and "Prefixes" not in page
    assert "/lock" not in await browser.see(f"/numbers/{X}")
