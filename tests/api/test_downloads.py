"""Places of files and reports: few of each reader, free again at the end, however it comes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from relay.api import downloads as module
from relay.api.context import RequestContext
from relay.api.downloads import Download, Downloads
from relay.errors import Refused
from relay.store.unit_of_work import Actor
from tests.api.conftest import Api

SPAN = "since=2026-01-01T00:00:00Z&until=2027-01-01T00:00:00Z"
EXPORT = f"/v1/calls/export?format=jsonl&{SPAN}"


def test_a_place_is_free_again_at_the_end() -> None:
    downloads = Downloads()
    for _ in range(2):
        for _ in range(module.MOST_OF_ONE):
            downloads.begin("business 1")
        with pytest.raises(Refused):
            downloads.begin("business 1")
        for _ in range(module.MOST_OF_ONE):
            downloads.end("business 1")


def test_readers_that_take_all_they_may_leave_places_to_others() -> None:
    downloads = Downloads()
    for reader in ("business 1", "business 2", "business 3", "business 4"):
        with pytest.raises(Refused):
            for _ in range(module.MOST):
                downloads.begin(reader)
    downloads.begin("business 5")


@pytest.mark.parametrize("keep", [Downloads.place, Downloads.kept_by])
def test_an_error_frees_the_place(keep: Callable[..., Any]) -> None:
    downloads = Downloads()
    for _ in range(module.MOST_OF_ONE + 1):
        with suppress(OSError), keep(downloads, "business 1"):
            raise OSError


async def test_a_receiver_that_takes_nothing_keeps_its_place_for_a_limited_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.01)
    over, parts = asyncio.Event(), iter([b"sound"] * 3)

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    async def made() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    file = Download(made(), over.set, headers={}, media_type="audio/wav")
    with pytest.raises(ClientDisconnect):
        await file({"type": "http"}, never, never)
    assert over.is_set()
    assert len(list(parts)) == 3


async def test_a_reader_with_much_to_do_leaves_workers_to_others() -> None:
    downloads, over = Downloads(), threading.Event()
    busy = [asyncio.create_task(downloads.turn("business 1", over.wait)) for _ in range(module.MOST_OF_ONE)]
    async with asyncio.timeout(20):
        assert await downloads.turn("business 2", lambda: "done") == "done"
    over.set()
    await asyncio.gather(*busy)


@pytest.mark.parametrize("path", [EXPORT, "/v1/reports/daily?day=2026-01-31"])
async def test_a_business_user_has_few_exports_and_reports_at_once(
    api: Api, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Whichever of its keys asks; another business user's are not counted."""
    monkeypatch.setattr(module, "MOST_OF_ONE", 1)
    acme, other = await api.company("acme"), await api.company("other")
    for _ in range(2):  # the place is free again
        assert (await acme.http.get(path)).status_code == 200
    with api.app.state.downloads.place("business acme"):
        await acme.refused("GET", path, "rate_limited")
        assert (await other.http.get(path)).status_code == 200


async def test_the_keys_of_a_business_user_share_its_places_and_operators_have_their_own(api: Api) -> None:
    def reader(name: str, business: str | None) -> str:
        return RequestContext(Request({"type": "http"}), api.backend, Actor(name, business, frozenset())).reader

    assert reader("key:1", "acme") == reader("key:2", "acme") == "business acme"
    assert reader("key:1", None) != reader("key:2", None)
