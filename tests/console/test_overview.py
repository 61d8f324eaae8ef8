"""The overview."""

from __future__ import annotations

from tests.api.conftest import Client
from tests.console.conftest import Console


async def test_what_is_looked_for_leads_to_its_page(console: Console, operator: Client) -> None:
    browser = await console.of(operator)
    for text, to in (
        ("a" * 32, f"/calls/{'a' * 32}"),
        ("700100000010001", "/calls?number=700100000010001"),
        ("order 17", "/calls?order_id=order+17"),
    ):
        answer = await browser.http.get("/console/find", params={"q": text})
        assert answer.headers["location"] == f"/console{to}"
