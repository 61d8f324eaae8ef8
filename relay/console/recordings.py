"""Pages of recordings: the list, and one of them, heard by a link that ends soon."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from starlette.responses import Response

from relay.console.ask import ApiError
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import Column, Filter, ListView, show_list
from relay.translation import N_

RECORDINGS: Final = ListView(
    N_("Recordings"),
    "/v1/recordings",
    (
        Column("taken_at", N_("Stored"), "moment", "/recordings/{call_id}"),
        Column("length_ms", N_("Length"), "length"),
        Column("business_id", N_("Business")),
        Column("call_id", N_("Call"), "id", "/recordings/{call_id}"),
        Column("purged_at", N_("Deleted"), "moment"),
    ),
    N_("No recordings yet. They appear here some seconds after the end of a call."),
    (
        Filter("business_id", N_("Business"), needs="operator"),
        Filter("since", N_("From"), "time"),
        Filter("until", N_("Until"), "time"),
    ),
)


async def _show_recordings(page: ConsolePage) -> Response:
    return await show_list(page, RECORDINGS)


async def _show_recording(page: ConsolePage) -> Response:
    return _shown(page)


def _shown(page: ConsolePage, status: int = 200, fault: str = "", link: Any = None) -> Response:
    """The page. `link`: the API's answer; its URL without the host is played: the page's policy allows no other."""
    path = ""
    if link is not None:
        url = urlsplit(link["url"])
        path = f"{url.path}?{url.query}"
    values = {"call_id": page.request.path_params["call_id"], "fault": fault, "link": link, "path_of_sound": path}
    return page.render("recording.html", status, **values)


async def _listen(page: ConsolePage) -> Response:
    """Make a link, and show the page with it."""
    call_id = page.request.path_params["call_id"]
    body = {name: value for name in ("channels", "reason") if (value := page.form.get(name, "").strip())}
    try:
        link = await page.asker.ask("POST", "/v1/calls/{}/recording/url", call_id, body=body)
    except ApiError as problem:
        return _shown(page, problem.status, problem.detail)
    return _shown(page, link=link)


async def _capture(page: ConsolePage) -> Response:
    """The capture as a file, after its line in the audit log."""
    query = {"format": "pcap", "reason": page.form.get("reason")}
    call_id = page.request.path_params["call_id"]
    return page.passed(page.asker.file("/v1/calls/{}/recording", call_id, query=query))


async def _delete(page: ConsolePage) -> Response:
    call_id = page.request.path_params["call_id"]
    query = {"reason": page.form.get("reason")}
    done = N_("The recording is deleted.")
    return await page.change(f"/recordings/{call_id}", done, "DELETE", "/v1/calls/{}/recording", call_id, query=query)


ROUTES: Final[list[PageRoute]] = [
    get("/recordings", _show_recordings, "recordings:read"),
    get("/recordings/{call_id}", _show_recording, "recordings:read"),
    post("/recordings/{call_id}/listen", _listen, "recordings:read"),
    post("/recordings/{call_id}/capture", _capture, "operator recordings:read"),
    post("/recordings/{call_id}/delete", _delete, "operator"),
]
