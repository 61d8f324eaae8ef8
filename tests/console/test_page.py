"""What templates get: links, places, words."""

from __future__ import annotations

from relay.console.app import ROUTES
from relay.console.page import PLACES
from tests.api.conftest import Api
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
