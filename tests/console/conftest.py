"""The console over ASGI in this process, on the application of the API's tests, with a browser that keeps cookies."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser

import httpx
import pytest

from relay.console.app import mount_console
from tests.api.conftest import Api, Client, api, company, operator, relay

__all__ = ["Browser", "Console", "api", "company", "console", "operator", "relay"]

_FORM = re.compile(r"<form[^>]*>.*?</form>", re.DOTALL)
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')
_URL = re.compile(r' (?:action|data-stream|href|src)="([^"]*)"')
_ACTION = re.compile(r'action="([^"]+)"')


class Browser:
    """One person's browser. It follows no redirect by itself."""

    def __init__(self, api: Api, scheme: str = "http", language: str = "en") -> None:
        transport = httpx.ASGITransport(api.app, client=("127.0.0.1", 5000), raise_app_exceptions=False)
        headers = {"accept-language": language}
        self.http = httpx.AsyncClient(transport=transport, base_url=f"{scheme}://127.0.0.1", headers=headers)

    async def see(self, path: str, status: int = 200) -> str:
        """The HTML of a page."""
        answer = await self.http.get(f"/console{path}")
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.headers.get('location')}"
        return answer.text

    async def send(self, page: str, action: str, /, **fields: str) -> httpx.Response:
        """Fill in the form of a page whose action is `action`, and send it."""
        for form in _FORM.findall(page):
            where = _ACTION.search(form)
            if where and unescape(where[1]) == f"/console{action}":
                values = {name: unescape(value) for name, value in _HIDDEN.findall(form)} | fields
                return await self.http.post(f"/console{action}", data=values)
        raise AssertionError(f"the page has no form for {action}")

    async def search(self, page: str, place: str, /, **fields: str) -> str:
        """Fill in the filters of the list at `place`, and send them. Returns the path that the answer leads to."""
        form = page[page.rindex("<form", 0, page.index(' role="search"')) :]
        answer = await self.send(form, place, **fields)
        assert answer.status_code == 303
        return answer.headers["location"].removeprefix("/console")

    async def log_in(self, key: str, to: str = "") -> httpx.Response:
        page = await self.see(f"/login{to}")
        return await self.send(page, "/login/enter", key=key)


class Console:
    """Browsers, logged in with the keys of the API's clients."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.streams = mount_console(api.app, api.backend, api.now)

    def stranger(self, scheme: str = "http", language: str = "en") -> Browser:
        return Browser(self.api, scheme, language)

    async def of(self, client: Client, language: str = "en") -> Browser:
        browser = self.stranger(language=language)
        answer = await browser.log_in(client.key)
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
        return browser


@pytest.fixture
def console(api: Api) -> Console:
    return Console(api)


def text_of(page: str) -> str:
    """The words of a page, without tags."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(page)
    return " ".join(" ".join(found).split())


def urls_of(page: str) -> str:
    """All that a page links to, loads or sends its forms to."""
    return " ".join(map(unescape, _URL.findall(page)))


Make = Callable[..., object]
