"""The overview: what wants attention, figures, outcomes over time, peers, businesses."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from relay.console.page import Page, PageRoute, get


async def _show(page: Page) -> Response:
    return page.render("overview.html")


async def _find(page: Page) -> Response:
    """Where a text leads: a call, a number, else the order."""
    text = page.query.get("q", "").strip()
    if len(text) == 32 and all(each in "0123456789abcdef" for each in text):
        return page.redirect(f"/calls/{text}")
    if text.isdigit() and text.startswith("700"):
        return page.go("/calls", number=text)
    return page.go("/calls", order_id=text)


ROUTES: Final[list[PageRoute]] = [get("/", _show), get("/find", _find, "calls:read")]
