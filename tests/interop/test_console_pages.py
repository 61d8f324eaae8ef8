"""Every page of the console in a browser: what tenants write is text, real numbers stay hidden, and all can use it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.support.console_browser import Room
from tests.support.console_seed import REAL, RIVAL, hostile

# All pages are opened before the first test: on a busy machine this takes a minute.
pytestmark = [pytest.mark.outside, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]

INTRUDERS = "img[src=x], script:not([src])"  # elements that only injected text could have made
GRAVE = ("serious", "critical")


async def paths_of(room: Room) -> list[str]:
    """A path of each page."""
    seeds = room.ground.seeds
    live = (await room.api("/v1/calls/live"))["items"][0]["call_id"]
    ended = [call["call_id"] for call in (await room.api("/v1/calls"))["items"]]
    return [
        *(
            "/",
            "/calls",
            "/calls?outcome=busy",
            "/live",
            "/explain",
            "/bindings?limit=9",
            "/numbers",
            "/numbers?limit=9",
        ),
        *("/businesses", "/filings", "/webhooks", "/audit?limit=9", "/recordings", f"/recordings/{live}"),
        *("/bans", "/nothing", "/calls?since=2001-01-01T00:00&until=2001-01-02T00:00", "/bindings?number=123"),
        *(f"/calls/{call_id}" for call_id in (live, *ended)),
        *(f"/bindings/{binding.binding_id}" for binding in (seeds.binding, seeds.evil_binding)),
        *(f"/numbers/{number}" for number in (seeds.binding.x, "700100000029999")),
        *(f"/businesses/{business}" for business in ("shunda", RIVAL, "shandian", "jiuri")),
        *(f"/webhooks/{webhook}?limit=9" for webhook in (seeds.webhook, seeds.failing_webhook, seeds.evil_webhook)),
    ]


class Shown(NamedTuple):
    """What a browser makes of one page."""

    path: str
    text: str
    intruders: int
    width: int
    violations: dict[str, str]  # axe's rule -> the first element; looked for on one page of each kind


LOOKS: dict[str, dict[str, Any]] = {
    "phone": {"viewport": {"width": 375, "height": 740}, "locale": "zh-CN", "color_scheme": "light"},
    "desktop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=LOOKS)
async def pages(room: Room, request: pytest.FixtureRequest) -> list[Shown]:
    """All pages, in light and Chinese on a phone, in dark and English on a desktop."""
    axe, found, kinds = Axe(), [], set()
    async with room.page("/", **LOOKS[request.param]) as page:
        for path in await paths_of(room):
            await page.goto(room.url + path)
            kind = re.sub(r"(?<=.)/.*", "/", path.partition("?")[0])
            rules = [] if kind in kinds else (await axe.run(page)).response["violations"]
            kinds.add(kind)
            text, width = await page.evaluate(
                "[document.body.textContent, document.documentElement.scrollWidth - innerWidth]"
            )
            violations = {rule["id"]: rule["nodes"][0]["html"] for rule in rules if rule["impact"] in GRAVE}
            found.append(Shown(path, text, await page.locator(INTRUDERS).count(), width, violations))
    return found


async def test_no_text_of_a_tenant_or_a_peer_runs_as_a_script(pages: list[Shown]) -> None:
    """Fields of businesses, bindings, webhooks, keys, lists and SIP headers are shown as the text that they are."""
    assert {page.path: page.intruders for page in pages if page.intruders} == {}
    shown = "".join(page.text for page in pages)
    fields = ("name", "licence", "application", "scheme", "contact", "reason", "reference", "order_id", "consent")
    assert [field for field in (*fields, "user_data", "url", "error", "area") if hostile(field) not in shown] == []
    assert ">49" not in shown, "a template ran a value"


async def test_no_header_of_a_peer_runs_as_a_script_in_a_revealed_ladder(room: Room) -> None:
    evil = room.ground.seeds.evil_binding.x
    call = next(call for call in (await room.api("/v1/calls"))["items"] if call["number_dialled"] == evil)
    async with room.page(f"/calls/{call['call_id']}") as page:
        await page.locator("summary", has_text="Show real numbers").click()
        await page.locator(".eye [name=reason]").fill("what does it send?")
        await page.locator(".eye button").click()
        await expect(page.locator("main")).to_contain_text(hostile("User-Agent"))
        assert await page.locator(INTRUDERS).count() == 0
        await expect(page.locator(".checks li.pass").first).to_be_visible()
        await page.set_viewport_size({"width": 375, "height": 740})
        assert await page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


@pytest.mark.parametrize("size", [(1280, 800), (1366, 768)], ids=str)
@pytest.mark.parametrize("path", ["/calls", "/bindings", "/numbers?limit=9", "/explain"])
async def test_the_fields_of_numbers_show_15_digits(room: Room, path: str, size: tuple[int, int]) -> None:
    async with room.page(path, viewport={"width": size[0], "height": size[1]}) as page:
        for name in ("number", "caller"):
            for field in await page.locator(f"form.filters input[name={name}]").all():
                await field.fill("700100000020001")
                assert await field.evaluate("it => it.scrollWidth <= it.clientWidth"), name


async def test_the_page_of_a_new_business_user_is_short(room: Room) -> None:
    async with room.page("/businesses/shandian", viewport={"width": 1280, "height": 800}) as page:
        assert await page.evaluate("document.documentElement.scrollHeight") < 1_600
        empty = [await each.bounding_box() for each in await page.locator(".card .empty").all()]
        assert empty and all(box is not None and box["height"] < 48 for box in empty)


async def test_axe_finds_nothing_serious(pages: list[Shown]) -> None:
    assert {page.path: page.violations for page in pages if page.violations} == {}


async def test_no_page_scrolls_sideways(pages: list[Shown]) -> None:
    assert {page.path: page.width for page in pages if page.width > 0} == {}


async def test_no_page_shows_a_real_number_or_a_secret_unasked(room: Room) -> None:
    seeds = room.ground.seeds
    hidden = [*REAL, *(key.partition("rk_")[2][13:] for key in (seeds.operator, seeds.tenant, seeds.evil))]
    for key in ("operator", "tenant", "evil"):
        context = await room.context(key)  # type: ignore[arg-type]
        for path in await paths_of(room):
            for form in ("", "csv", "json"):
                asked = f"{path}{'&' if '?' in path else '?'}format={form}" if form else path
                text = await (await context.request.get(room.url + asked)).text()
                assert [each for each in hidden if each in text] == [], (key, asked)


async def test_the_eye_asks_for_a_reason_and_writes_it_down(room: Room) -> None:
    binding = room.ground.seeds.binding
    async with room.page(f"/bindings/{binding.binding_id}") as page:
        await page.locator("summary", has_text="Show real numbers").click()
        await page.get_by_label("Reason").and_(page.locator(".eye input")).fill("complaint 17")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("main")).to_contain_text(REAL[0])
        assert "complaint" not in page.url
    (line, *_) = (await room.api("/v1/audit?action=read"))["items"]
    assert (line["reason"], line["object"]) == ("complaint 17", f"binding {binding.binding_id}")


async def test_a_key_without_the_right_has_no_eye(room: Room) -> None:
    async with room.page("/bindings", "masked_operator") as page:
        await expect(page.locator("tbody tr").first).to_be_visible()
        await expect(page.get_by_text("Show real numbers")).to_have_count(0)


async def test_a_tenant_sees_its_own_and_no_link_to_more(room: Room) -> None:
    seeds = room.ground.seeds
    context = await room.context("evil")
    for path in await paths_of(room):
        answer = await context.request.get(room.url + path)
        text = await answer.text()
        for foreign in ("shunda", seeds.binding.binding_id, seeds.failing_webhook, "CT-2026"):
            assert answer.status in (403, 404) or foreign not in text, (path, foreign)
    async with room.page("/", "evil") as page:
        links = page.locator("nav a")
        for path in [await link.get_attribute("href") for link in await links.all()]:
            assert (await context.request.get(room.ground.url + str(path))).ok, path


async def test_a_key_for_calls_alone_reaches_calls_alone(room: Room) -> None:
    async with room.page("/", "calls_only") as page:
        assert await page.locator("nav a").all_inner_texts() == ["Overview", "Calls", "Live calls"]
    context = await room.context("calls_only")
    for path in ("/bindings", "/webhooks", "/audit", "/bans", "/numbers"):
        assert (await context.request.get(room.url + path)).status == 403, path
