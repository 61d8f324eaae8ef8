"""Lists of the API as tables and files."""

from __future__ import annotations

import re
from html import unescape

import pytest

from relay.console import tables
from relay.console.page import ConsolePage
from relay.console.tables import Column, as_file
from tests.api.conftest import Api, Client
from tests.console.conftest import Console, text_of, urls_of
from tests.support.relay_process import A
from tests.support.shelf import Shelf, call
from tests.support.stored import ended_record


async def test_a_list_has_pages_and_files(console: Console, api: Api, operator: Client) -> None:
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(*(call(n, order_id=f"order-{n}") for n in range(5)))
    shelf.follow()
    browser = await console.of(operator)
    first = await browser.see("/calls?limit=3")
    assert [f"order-{n}" in first for n in range(5)] == [False, False, True, True, True]
    (following,) = [part.partition('"')[0] for part in first.split('rel="next" href="')[1:]]
    second = await browser.see(following.replace("&amp;", "&").removeprefix("/console"))
    assert [f"order-{n}" in second for n in range(5)] == [True, True, False, False, False]
    as_json = await browser.http.get("/console/calls?limit=3&format=json")
    assert [item["order_id"] for item in as_json.json()] == ["order-4", "order-3", "order-2"]
    as_csv = await browser.http.get("/console/calls?limit=3&format=csv")
    assert as_csv.headers["content-disposition"] == 'attachment; filename="calls.csv"'
    assert as_csv.text.startswith("call_id,binding_id,") and len(as_csv.text.splitlines()) == 4


async def test_a_file_has_all_rows_of_the_search(
    console: Console, api: Api, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST", 20)
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(*(call(n, order_id=f"order-{n}", outcome="busy" if n % 4 else "answered") for n in range(80)))
    shelf.follow()
    browser = await console.of(operator)
    page = await browser.see("/calls?outcome=busy&limit=7")
    following = await browser.see(unescape(page.partition('rel="next" href="/console')[2].partition('"')[0]))
    for shown in (page, following):
        assert "All rows of this search" in shown
        links = [unescape(link) for link in re.findall(r'href="([^"]+format=[^"]+)"', shown)]
        assert links == ["/console/calls?outcome=busy&format=csv", "/console/calls?outcome=busy&format=json"]
    lines = (await browser.http.get(links[0])).text.splitlines()
    assert len(lines) == 61 and lines[0].startswith("call_id,") and "call_id" not in "".join(lines[1:])
    rows = (await browser.http.get(links[1])).json()
    assert [row["order_id"] for row in rows] == [f"order-{n}" for n in reversed(range(80)) if n % 4]
    assert (await browser.http.get("/console/calls?outcome=busy&order_id=none&format=json")).json() == []


async def test_a_file_is_not_cut_short_unnoticed(
    console: Console, api: Api, operator: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MOST", 2)
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(*(call(n) for n in range(5)))
    shelf.follow()
    browser = await console.of(operator)
    monkeypatch.setattr(ConsolePage, "is_still_logged_in", lambda _: False)
    with pytest.raises(AssertionError):  # by the transport: the response has no end
        await browser.http.get("/console/calls?format=csv")


async def test_a_faulty_filter_is_named_beside_its_field(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    page = await browser.see("/calls?number=123&order_id=x", 400)
    assert 'aria-describedby="fault-number"' in page
    assert "must be the 15 digits of a 700 number" in text_of(page)
    assert "No calls yet" not in page
    assert (await browser.http.get("/console/calls?cursor=forged")).status_code == 400


async def test_a_filter_is_a_url_unless_a_real_number_was_typed(console: Console, api: Api) -> None:
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(*(call(n, order_id=A if n % 2 else "order-2", business="acme") for n in range(6)))
    shelf.follow()
    acme = await api.company("acme")
    browser = await console.of(acme)
    page = await browser.see("/calls")
    plain = await browser.search(page, "/calls", order_id="order-2", outcome="answered", number=" ")
    assert plain == "/calls?order_id=order-2&outcome=answered"
    found = await browser.search(page, "/calls", order_id=A)
    assert A not in found
    first = await browser.see(f"{found}&limit=2")
    assert first.count(f">{A}</td>") == 2 and "order-2" not in first and A not in urls_of(first)
    following = unescape(first.partition('rel="next" href="/console')[2].partition('"')[0])
    assert (await browser.see(following)).count(f">{A}</td>") == 1
    assert [each["order_id"] for each in (await browser.http.get(f"/console{found}&format=json")).json()] == [A] * 3
    other = await console.of(acme)
    text = text_of(await other.see(found, 400))
    assert "has ended with its session" in text and "order-2" not in text


async def test_an_order_that_is_a_real_number_is_in_no_link(console: Console, api: Api) -> None:
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(ended_record("c" * 32, order_id=A, business="acme"))
    shelf.follow()
    browser = await console.of(await api.company("acme"))
    listed = await browser.see("/calls")
    shown = await browser.see(f"/calls/{'c' * 32}")
    assert A in shown and A not in urls_of(listed + shown)


PAGES = ("calls", "bindings", "numbers", "filings", "businesses", "webhooks", "recordings", "audit")


async def test_no_form_sends_what_is_typed_in_a_url(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    for place in (*PAGES, "explain", "bindings/hand-over"):
        page = await browser.see(f"/{place}")
        assert 'method="get"' not in page and page.count("<form") == page.count('method="post"'), place
    for place in PAGES:
        page = await browser.see(f"/{place}")
        for name in re.findall(r'<input name="(\w+)" value="" autocomplete="off" type="(?:text|number)"', page):
            found = await browser.search(page, f"/{place}", **{name: A})
            shown = await browser.http.get(f"/console{found}")
            assert A not in found, (place, name)
            assert A not in shown.headers.get("location", "") + urls_of(shown.text), (place, name)


async def test_times_of_a_filter_are_in_the_viewers_zone(console: Console, api: Api, operator: Client) -> None:
    shelf = Shelf(api.backend.path, api.backend.sealer)
    shelf.add(call(0, order_id="midnight-utc"))
    shelf.follow()
    browser = await console.of(operator)
    assert "midnight-utc" in await browser.see("/calls?since=2026-01-01T08:00:00&until=2026-01-01T08:00:01")
    browser.http.cookies.set("zone", "UTC", path="/console")
    assert "midnight-utc" not in await browser.see("/calls?since=2026-01-01T08:00:00&until=2026-01-01T08:00:01")


async def test_an_empty_list_says_so(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    assert "No calls yet" in text_of(await browser.see("/calls"))


def test_a_file_holds_no_formula() -> None:
    answer = as_file([{"name": "=1+1", "tags": ["a"], "none": None}], "csv", "list")
    assert bytes(answer.body).decode().splitlines()[1] == '\'=1+1,"[""a""]",'


def test_a_link_holds_values_as_one_segment() -> None:
    column = Column("id", "Id", link="/things/{id}")
    assert column.to({"id": "a/b?c"}) == "/things/a%2Fb%3Fc"
    assert column.to({"id": None}) == "" == Column("id", "Id").to({"id": "x"})


async def test_a_text_that_may_be_cut_off_is_whole_in_its_tooltip(console: Console, operator: Client) -> None:
    reason = "24 小时内投诉超过 3 起，暂停服务"
    await operator.post("/v1/businesses", {"id": "acme", "name": "顺达速运（上海）有限责任公司"})
    await operator.post("/v1/businesses/acme/revoke", {"reason": reason}, 200)
    browser = await console.of(operator)
    assert f'title="{reason}"' in await browser.see("/audit?action=business.revoke")
    assert 'title="顺达速运（上海）有限责任公司"' in await browser.see("/businesses")
