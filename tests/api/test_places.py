"""Places: few of each reader, free again at the end, however it comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.requests import Request

from relay.api.context import RequestContext
from relay.api.places import DOWNLOADS, Places
from relay.errors import Refused
from relay.store.unit_of_work import Actor
from tests.api.conftest import Api

SPAN = "since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z"
EXPORT = f"/v1/calls/export?format=jsonl&{SPAN}"


def test_a_place_is_free_again_at_the_end() -> None:
    places = Places(DOWNLOADS)
    for _ in range(2):
        for _ in range(DOWNLOADS.most_of_one):
            places.begin("business 1")
        with pytest.raises(Refused):
            places.begin("business 1")
        for _ in range(DOWNLOADS.most_of_one):
            places.end("business 1")


def test_readers_that_take_all_they_may_leave_places_to_others() -> None:
    places = Places(DOWNLOADS)
    for reader in ("business 1", "business 2", "business 3", "business 4"):
        with pytest.raises(Refused):
            for _ in range(DOWNLOADS.most):
                places.begin(reader)
    places.begin("business 5")


@pytest.mark.parametrize("keep", [Places.place, Places.kept_by])
def test_an_error_frees_the_place(keep: Callable[..., Any]) -> None:
    places = Places(DOWNLOADS)
    for _ in range(DOWNLOADS.most_of_one + 1):
        with suppress(OSError), keep(places, "business 1"):
            raise OSError


async def test_a_reader_with_much_to_do_leaves_workers_to_others() -> None:
    places, over = Places(DOWNLOADS), threading.Event()
    busy = [asyncio.create_task(places.turn("business 1", over.wait)) for _ in range(DOWNLOADS.most_of_one)]
    async with asyncio.timeout(20):
        assert await places.turn("business 2", lambda: "done") == "done"
    over.set()
    await asyncio.gather(*busy)


@pytest.mark.parametrize(
    ("path", "kind"), [(EXPORT, "downloads"), ("/v1/reports/daily?day=2026-01-31", "downloads"), ("/v1/calls", "pages")]
)
async def test_a_business_user_has_few_files_reports_and_pages_at_once(api: Api, path: str, kind: str) -> None:
    """Whichever of its keys asks; another business user's are not counted."""
    places = Places(DOWNLOADS._replace(most_of_one=1))
    setattr(api.app.state, kind, places)
    acme, other = await api.company("acme"), await api.company("other")
    for _ in range(2):  # the place is free again
        assert (await acme.http.get(path)).status_code == 200
    with places.place("business acme"):
        await acme.refused("GET", path, "rate_limited")
        assert (await other.http.get(path)).status_code == 200


async def test_the_keys_of_a_business_user_share_its_places_and_operators_have_their_own(api: Api) -> None:
    def reader(name: str, business: str | None) -> str:
        return RequestContext(Request({"type": "http"}), api.backend, Actor(name, business, frozenset())).reader

    assert reader("key:1", "acme") == reader("key:2", "acme") == "business acme"
    assert reader("key:1", None) != reader("key:2", None)
