"""Pages of the audit log and of bans, for operators."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import Column, Filter, ListView, show_list
from relay.translation import N_

AUDIT: Final = ListView(
    title=N_("Audit log"),
    path="/v1/audit",
    columns=(
        Column("seq", "#", "number"),
        Column("at", N_("Time"), "moment"),
        Column("actor", N_("Actor"), "mono", "/audit?actor={actor}"),
        Column("actor_name", N_("Name")),
        Column("action", N_("Action"), "mono", "/audit?action={action}"),
        Column("object", N_("Object"), "mono", "/audit?object={object}"),
        Column("business_id", N_("Business"), "text", "/audit?business_id={business_id}"),
        Column("reason", N_("Reason")),
    ),
    empty=N_("No line matches."),
    filters=(
        Filter("actor", N_("Actor")),
        Filter("action", N_("Action")),
        Filter("object", N_("Object")),
        Filter("business_id", N_("Business")),
        Filter("since", N_("Since"), "time"),
        Filter("until", N_("Until"), "time"),
    ),
    template="audit.html",
    has_parties=True,
)
_BANS: Final = (
    Column("address", N_("Address"), "mono"),
    Column("reason", N_("Reason")),
    Column("since", N_("Since"), "moment"),
    Column("until", N_("Until"), "moment"),
)
HOUR_S: Final = 3_600.0


async def show_audit(page: ConsolePage) -> Response:
    """Changes, and accesses to real numbers, newest first."""
    return await show_list(page, AUDIT)


async def verify_audit(page: ConsolePage) -> Response:
    """Check the chain over all lines."""
    verdict = await page.get("/v1/audit/verify")
    if verdict["broken"] is None:
        page.notice("good", page.words(N_("The audit log is intact: %(count)d lines.")) % {"count": verdict["intact"]})
    else:
        page.notice("bad", page.words(N_("The audit log was altered: %(fault)s")) % {"fault": verdict["broken"]})
    return page.redirect("/audit")


async def show_bans(page: ConsolePage) -> Response:
    """The bans in force, the first to end first."""
    return page.render("bans.html", bans=(await page.get("/v1/bans"))["items"], columns=_BANS)


async def ban(page: ConsolePage) -> Response:
    """Ban an address for some hours."""
    try:
        for_s = float(page.form.get("hours", "")) * HOUR_S
    except ValueError:
        for_s = 0.0  # which the API refuses, with the fix
    body = {"address": page.form.get("address", "").strip(), "for_s": for_s, "reason": page.form.get("reason") or None}
    return await page.change("/bans", N_("The address is banned."), "POST", "/v1/bans", body=body)


async def lift(page: ConsolePage) -> Response:
    """Lift one ban, or all."""
    query = {"reason": page.form.get("reason") or None}
    if address := page.form.get("address", "").partition("/")[0]:  # of a network any address in it
        return await page.change("/bans", N_("The ban is lifted."), "DELETE", "/v1/bans/{}", address, query=query)
    return await page.change("/bans", N_("All bans are lifted."), "DELETE", "/v1/bans", query=query)


ROUTES: Final[list[PageRoute]] = [
    get("/audit", show_audit, "operator"),
    post("/audit/verify", verify_audit, "operator"),
    get("/bans", show_bans, "operator"),
    post("/bans/add", ban, "operator"),
    post("/bans/lift", lift, "operator"),
]
