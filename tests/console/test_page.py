"""What templates get: links, places, words."""

from __future__ import annotations

import re

from relay.console.app import ROUTES, STREAMS
from relay.console.page import PLACES
from tests.api.conftest import Api, Client
from tests.console.conftest import Console


def test_every_place_needs_what_its_page_needs() -> None:
    needs = {route.path: route.needs for route in ROUTES}
    for place in PLACES:
        assert needs.get(place.path, place.needs) == place.needs


async def test_a_key_is_shown_the_places_it_may_go_to(console: Console, api: Api) -> None:
    browser = await console.of(await api.company("acme", ["calls:read"]))
    page = await browser.see("/")
    assert ">Calls<" in page and ">Live calls<" in page
    assert ">Bindings<" not in page and ">Businesses<" not in page


async def test_no_page_no_action_and_no_stream_serves_a_key_without_its_right(console: Console, api: Api) -> None:
    browser = await console.of(await api.company("acme", ["reports"]))
    token = (await browser.see("/businesses/acme")).partition('name="csrf" value="')[2].partition('"')[0]
    served = []
    for route in ROUTES:
        path = "/console" + re.sub(r"\{\w+\}", "0", route.path)
        for method in route.methods if route.needs else ():
            answer = await browser.http.request(method, path, data={"csrf": token, "reason": "none"})
            served += [(method, path)] if answer.status_code != 403 else []
    for name in (name for name, _, needs, _ in STREAMS if needs):
        answer = await browser.http.get(f"/console/stream/{name}")
        served += [("GET", name)] if answer.status_code != 403 else []
    assert served == []


async def test_no_name_in_a_query_breaks_a_page(console: Console, api: Api, operator: Client) -> None:
    await api.company("acme")
    browser = await console.of(operator)
    for name in ("path", "self"):
        assert "acme" in await browser.see(f"/businesses?{name}=x")
