"""Live calls: a table that follows them, and hanging up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from relay.api.paging import MOST as MOST_OF_API
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import as_file
from relay.translation import N_

MOST: Final = "200"  # shown: the newest
MOST_IN_FILE: Final = str(MOST_OF_API)


async def _live(page: ConsolePage, most: str = MOST) -> dict[str, Any]:
    """The calls of this moment, with what is on their rows."""
    document: dict[str, Any] = await page.get("/v1/calls/live", limit=most, **page.reveal)
    return document


async def _show(page: ConsolePage) -> Response:
    if (format_ := page.query.get("format")) in ("csv", "json"):
        return as_file((await _live(page, MOST_IN_FILE))["items"], format_, "live")
    return page.render("live.html", document=await _live(page), most=MOST_IN_FILE, revealed=bool(page.reveal))


async def live_parts(page: ConsolePage) -> Mapping[str, str]:
    """The table, for the stream."""
    return {"live": page.part("live_table.html", document=await _live(page))}


async def _hang_up(page: ConsolePage) -> Response:
    """With a reason, as the command has it. The API's is optional."""
    call_id, to = page.request.path_params["call_id"], page.form.get("to", "/live")
    reason = page.form.get("reason", "").strip()
    if not reason:
        page.notice("bad", page.words(N_("Nothing was hung up: write the reason, which the audit log keeps.")))
        return page.redirect(to)
    done = N_("The call is being hung up.")
    return await page.change(to, done, "DELETE", "/v1/calls/live/{}", call_id, query={"reason": reason})


ROUTES: Final[list[PageRoute]] = [
    get("/live", _show, "calls:read"),
    post("/live/{call_id}/hang-up", _hang_up, "calls:hangup"),
]
