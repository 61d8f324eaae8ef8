"""A browser for the console's tests: contexts that are logged in, and pages that must not break a rule."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright, expect

from tests.support.console import Ground

CHROMIUM = "/usr/bin/chromium-headless-shell"
Key = Literal["operator", "masked_operator", "tenant", "evil", "calls_only"]
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)
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
        await page.locator("details:has([name=key]) > summary").click()
        await page.locator("[name=key]").fill(secret)
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{self.url}/")

    async def api(self, path: str) -> Any:
        """A document of the API, as the operator's key sees it."""
        context = await self.context()
        headers = {"authorization": f"Bearer {self.ground.seeds.operator}"}
        answer = await context.request.get(self.ground.url + path, headers=headers)
        assert answer.ok, await answer.text()
        return await answer.json()

    async def calls(self, outcome: str) -> list[str]:
        """The ids of ended calls, newest first."""
        return [call["call_id"] for call in (await self.api(f"/v1/calls?outcome={outcome}"))["items"]]

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


async def act(page: Page, title: str, reason: str) -> None:
    """Open an action that wants a reason, and do it."""
    await page.locator("summary").get_by_text(title, exact=True).click()
    form = page.locator("details[open] form", has=page.get_by_role("button", name=title, exact=True))
    await form.get_by_label("Reason").fill(reason)
    await form.get_by_role("button", name=title, exact=True).click()


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


def watch(page: Page) -> list[str]:
    """Note what no page may do: open a dialog, throw an error, or break its own security policy."""
    faults: list[str] = []

    def told(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith("Failed to load resource: the server responded"):
            faults.append(message.text)

    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    page.on("console", told)
    page.on("pageerror", lambda error: faults.append(str(error)))
    return faults
