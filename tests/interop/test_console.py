"""The console in a browser, against a running relay with calls under way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.support.console import Ground, chromium, ground, watch
from tests.support.console_seed import REAL, hostile
from tests.support.waiting import until

pytestmark = [pytest.mark.outside, pytest.mark.asyncio(loop_scope="module")]

Key = Literal["operator", "masked_operator", "tenant", "evil", "calls_only"]
PATIENCE_MS = 20_000
GRAVE = ("serious", "critical")
ENGLISH = {"locale": "en-GB", "timezone_id": "Asia/Shanghai"}


class Room(NamedTuple):
    """The relay, the browser, and the contexts that are logged in, by key and options."""

    ground: Ground
    browser: Browser
    contexts: dict[tuple[str, str], BrowserContext]

    @property
    def url(self) -> str:
        return f"{self.ground.url}/console"

    async def context(self, key: Key | None = "operator", **options: Any) -> BrowserContext:
        """A context logged in with the key; None: not logged in."""
        name = (key or "", repr(options))
        if name not in self.contexts:
            made = await self.browser.new_context(**ENGLISH | options)
            made.set_default_timeout(PATIENCE_MS)
            if key is None:
                return made
            page = await made.new_page()
            await self.log_in(page, getattr(self.ground.seeds, key))
            await page.close()
            self.contexts[name] = made
        return self.contexts[name]

    async def log_in(self, page: Page, secret: str) -> None:
        await page.goto(f"{self.url}/")
        await page.locator("[name=key]").fill(secret)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{self.url}/")

    @asynccontextmanager
    async def page(self, path: str = "/", key: Key | None = "operator", **options: Any) -> AsyncIterator[Page]:
        """A page that was opened, and that must not break a rule until it is closed."""
        context = await self.context(key, **options)
        page = await context.new_page()
        faults = watch(page)
        try:
            await page.goto(self.url + path)
            yield page
            assert not faults
        finally:
            await page.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def room(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Room]:
    async with chromium() as browser, ground(tmp_path_factory.mktemp("console")) as made:
        yield Room(made, browser, {})


async def api(room: Room, path: str) -> Any:
    """A document of the API, as the operator's key sees it."""
    context = await room.context()
    headers = {"authorization": f"Bearer {room.ground.seeds.operator}"}
    answer = await context.request.get(room.ground.url + path, headers=headers)
    assert answer.ok, await answer.text()
    return await answer.json()


async def paths_of(room: Room) -> list[str]:
    """A path of each page."""
    seeds = room.ground.seeds
    return [
        *("/", "/calls", "/calls?outcome=busy", "/bindings?limit=9", "/numbers", "/numbers?limit=9"),
        *("/businesses", "/webhooks", "/audit?limit=9"),
        *("/bans", "/nothing", "/calls?since=2001-01-01T00:00&until=2001-01-02T00:00", "/bindings?number=123"),
        *(f"/bindings/{binding.binding_id}" for binding in (seeds.binding, seeds.evil_binding)),
        *(f"/numbers/{number}" for number in (seeds.binding.x, "700100000029999")),
        *(f"/businesses/{business}" for business in ("shunda", "evil", "shandian", "jiuri")),
        *(f"/webhooks/{webhook}?limit=9" for webhook in (seeds.webhook, seeds.failing_webhook, seeds.evil_webhook)),
    ]


# -- Sessions


async def test_wrong_expired_and_revoked_keys_are_refused_alike(room: Room) -> None:
    seeds = room.ground.seeds
    said = set()
    for key in ("rk_000000000000_" + "x" * 43, "nonsense", seeds.expired, seeds.revoked):
        async with room.page("/login", None) as page:
            await page.get_by_label("API key").fill(key)
            await page.get_by_role("button", name="Log in").click()
            said.add(await page.get_by_role("alert").inner_text())
            await page.context.close()
    assert said == {"The key is unknown, wrong, expired or revoked."}


async def test_a_page_that_was_asked_for_comes_after_log_in(room: Room) -> None:
    async with room.page("/businesses?state=applied", None) as page:
        await page.get_by_label("API key").fill(room.ground.seeds.operator)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(f"{room.url}/businesses?state=applied")
        await page.context.close()


async def test_a_session_ends_by_log_out_and_with_its_key(room: Room) -> None:
    context = await room.context()
    operator = {"authorization": f"Bearer {room.ground.seeds.operator}"}
    made = await context.request.post(
        f"{room.ground.url}/v1/businesses/shunda/keys", headers=operator, data={"scopes": ["calls:read"]}
    )
    key = await made.json()
    async with room.page("/login", None) as page:
        await room.log_in(page, key["secret"])
        await page.get_by_text(key["id"]).first.click()
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url(f"{room.url}/login*")
        await room.log_in(page, key["secret"])
        await context.request.delete(f"{room.ground.url}/v1/keys/{key['id']}", headers=operator)
        await page.goto(f"{room.url}/calls")
        await expect(page.get_by_text("The session has ended")).to_be_visible()
        await page.context.close()


async def test_an_unknown_session_is_asked_to_log_in(room: Room) -> None:
    async with room.page("/login", None) as page:
        await room.log_in(page, room.ground.seeds.tenant)
        cookies = await page.context.cookies()
        assert {(cookie["httpOnly"], cookie["sameSite"]) for cookie in cookies if "session" in cookie["name"]} == {
            (True, "Strict")
        }
        await page.context.add_cookies([{**cookie, "value": "x" * 43} for cookie in cookies])  # type: ignore[typeddict-item]
        await page.goto(f"{room.url}/calls")
        await expect(page.get_by_text("The session has ended")).to_be_visible()
        await page.context.close()


@pytest.mark.parametrize("token", ["", "x" * 32])
async def test_a_form_without_the_session_s_token_does_nothing(room: Room, token: str) -> None:
    path = f"/bindings/{room.ground.seeds.binding.binding_id}"
    async with room.page(path) as page:
        await page.locator("summary", has_text="End this binding").click()
        form = page.locator("form", has=page.get_by_role("button", name="End this binding"))
        await form.get_by_label("Reason").fill("forged")
        await form.locator("[name=csrf]").evaluate("(input, token) => input.value = token", token)
        await form.get_by_role("button").click()
        await expect(page.get_by_role("heading", name="The form was too old")).to_be_visible()
    assert (await api(room, f"/v1{path}"))["state"] == "live"


# -- Actions


async def test_an_application_is_approved_with_a_reason(room: Room) -> None:
    async with room.page("/businesses?state=applied") as page:
        await page.get_by_role("link", name="闪电外卖").click()
        await act(page, "Approve", "papers checked")
        await expect(page.get_by_role("status")).to_contain_text("Approved")
        await expect(page.locator("ol.story li").first).to_contain_text("papers checked")
    business = await api(room, "/v1/businesses/shandian")
    assert business["state"] == "approved"


async def test_a_refused_action_names_what_is_missing(room: Room) -> None:
    async with room.page("/businesses/incomplete") as page:
        await act(page, "Approve", "in a hurry")
        await expect(page.locator(".notice.bad")).to_contain_text("licence")


async def test_a_dead_letter_is_sent_again(room: Room) -> None:
    ground = room.ground
    async with room.page(f"/webhooks/{ground.seeds.webhook}") as page:
        await expect(page.get_by_role("row", name="HTTP 500")).to_have_count(1)
        await page.get_by_role("button", name="Send again").click()
        await expect(page.get_by_role("status")).to_contain_text("Queued again")
        await until(lambda: [body for body in ground.received if "call.ended" in body])
        await page.reload()
        await expect(page.get_by_text("No dead letter")).to_be_visible()
    assert not [number for number in REAL for body in ground.received if number in body]


async def test_a_number_is_locked_and_unlocked(room: Room) -> None:
    async with room.page("/numbers/700100000020500") as page:
        await act(page, "Lock", "reported")
        await expect(page.get_by_role("status")).to_contain_text("locked")
        await act(page, "Unlock", "was a mistake")
        await expect(page.get_by_role("status")).to_contain_text("unlocked")


async def test_an_address_is_banned_and_heard_again(room: Room) -> None:
    async with room.page("/bans") as page:
        await page.get_by_label("Address").fill("192.0.2.77")
        await page.get_by_role("button", name="Ban").click()
        row = page.get_by_role("row", name="192.0.2.77")
        await row.locator("summary").click()
        await row.get_by_label("Reason").fill("customer's office")
        await row.get_by_role("button", name="Lift").click()
        await expect(page.get_by_role("row", name="192.0.2.77")).to_have_count(0)


async def test_the_audit_log_is_verified(room: Room) -> None:
    async with room.page("/audit") as page:
        await page.get_by_role("button", name="Verify").click()
        await expect(page.get_by_role("status")).to_contain_text("intact")


async def act(page: Page, title: str, reason: str) -> None:
    """Open an action that wants a reason, and do it."""
    await page.locator("summary").get_by_text(title, exact=True).click()
    form = page.locator("details[open] form", has=page.get_by_role("button", name=title, exact=True))
    await form.get_by_label("Reason").fill(reason)
    await form.get_by_role("button", name=title, exact=True).click()


# -- All pages


class Visit(NamedTuple):
    """What a browser makes of one page."""

    path: str
    text: str
    intruders: int  # elements that only injected text could have made
    width: int
    violations: dict[str, str]  # axe's rule -> the first element


LOOKS: dict[str, dict[str, Any]] = {
    "phone": {"viewport": {"width": 375, "height": 740}, "locale": "zh-CN", "color_scheme": "light"},
    "desktop": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=LOOKS)
async def visits(room: Room, request: pytest.FixtureRequest) -> list[Visit]:
    """All pages, in light and Chinese on a phone, in dark and English on a desktop."""
    axe, found = Axe(), []
    for path in await paths_of(room):
        async with room.page(path, **LOOKS[request.param]) as page:
            rules = (await axe.run(page)).response["violations"]
            found.append(
                Visit(
                    path,
                    await page.locator("body").text_content() or "",
                    await page.locator("img[src=x], script:not([src])").count(),
                    await page.evaluate("document.documentElement.scrollWidth - innerWidth"),
                    {rule["id"]: rule["nodes"][0]["html"] for rule in rules if rule["impact"] in GRAVE},
                )
            )
    return found


async def test_no_text_of_a_tenant_or_a_peer_runs_as_a_script(visits: list[Visit]) -> None:
    """Fields of businesses, bindings, webhooks, keys, lists and SIP headers are shown as the text that they are."""
    assert {visit.path: visit.intruders for visit in visits if visit.intruders} == {}
    shown = "".join(visit.text for visit in visits)
    fields = ("name", "licence", "application", "scheme", "contact", "reason", "reference", "order_id", "consent")
    assert [field for field in (*fields, "user_data", "url", "error", "area") if hostile(field) not in shown] == []
    assert ">49" not in shown, "a template ran a value"


async def test_axe_finds_nothing_serious(visits: list[Visit]) -> None:
    assert {visit.path: visit.violations for visit in visits if visit.violations} == {}


async def test_no_page_scrolls_sideways(visits: list[Visit]) -> None:
    assert {visit.path: visit.width for visit in visits if visit.width > 0} == {}


async def test_no_page_shows_a_real_number_unasked(room: Room) -> None:
    for key in ("operator", "tenant", "evil"):
        context = await room.context(key)  # type: ignore[arg-type]
        for path in await paths_of(room):
            for form in ("", "csv", "json"):
                asked = f"{path}{'&' if '?' in path else '?'}format={form}" if form else path
                text = await (await context.request.get(room.url + asked)).text()
                found = [number for number in REAL if number in text]
                assert not found, (key, asked, found)


async def test_the_eye_asks_for_a_reason_and_writes_it_down(room: Room) -> None:
    binding = room.ground.seeds.binding
    async with room.page(f"/bindings/{binding.binding_id}") as page:
        await page.locator("summary", has_text="Show real numbers").click()
        await page.get_by_label("Reason").and_(page.locator(".eye input")).fill("complaint 17")
        await page.get_by_role("button", name="Show").click()
        await expect(page.locator("main")).to_contain_text(REAL[0])
        assert "complaint" not in page.url
    (line, *_) = (await api(room, "/v1/audit?action=read"))["items"]
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
        links = page.locator("nav a:not([href$=live])")
        for path in [await link.get_attribute("href") for link in await links.all()]:
            assert (await context.request.get(room.ground.url + str(path))).ok, path


async def test_a_key_for_calls_alone_reaches_calls_alone(room: Room) -> None:
    async with room.page("/", "calls_only") as page:
        assert await page.locator("nav a").all_inner_texts() == ["Overview", "Calls", "Live calls"]
    context = await room.context("calls_only")
    for path in ("/bindings", "/webhooks", "/audit", "/bans", "/numbers"):
        assert (await context.request.get(room.url + path)).status == 403, path


async def test_everything_works_without_script(room: Room) -> None:
    async with room.page("/bindings", java_script_enabled=False) as page:
        await page.get_by_label("700 number").fill(room.ground.seeds.evil_binding.x)
        await page.get_by_role("button", name="Search").click()
        await page.locator("tbody tr td a").first.click()
        await act(page, "End this binding", "without script")
        await expect(page.get_by_role("status")).to_contain_text("has ended")
    async with room.page("/bindings", java_script_enabled=False) as page:
        await page.get_by_role("link", name="Next page").click()
        await expect(page.locator("tbody tr").first).to_be_visible()


async def test_the_switch_changes_language_and_colours(room: Room) -> None:
    async with room.page("/numbers", "tenant") as page:
        await page.get_by_role("link", name="中文").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("号码")
        await page.get_by_role("link", name="EN").click()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Numbers")
