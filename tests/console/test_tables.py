"""Lists of the API as tables and files."""

from __future__ import annotations

from relay.console.tables import Column, as_file
from tests.api.conftest import Api, Client
from tests.console.conftest import Console, text_of
from tests.support.shelf import Shelf, call


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


async def test_a_faulty_filter_is_named_beside_its_field(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    page = await browser.see("/calls?number=123&order_id=x", 400)
    assert 'aria-describedby="fault-number"' in page
    assert "must be the 15 digits of a 700 number" in text_of(page)
    assert "No calls yet" not in page
    assert (await browser.http.get("/console/calls?cursor=forged")).status_code == 400


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
