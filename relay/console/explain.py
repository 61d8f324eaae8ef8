"""Why a call is refused, or where it goes: each check with its figures. No URL has the parties: they are in a form."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from relay.console.ask import Json, Problem
from relay.console.page import Page, PageRoute, get
from relay.console.words import N_, with_zone

NEEDS: Final = ("calls:read", "parties:read")
# The checks of an explanation and their verdicts, in words.
CHECKS: Final = {
    "request": N_("the request itself"),
    "source": N_("source"),
    "pauses": N_("pauses after refusals"),
    "limits of the relay": N_("limits of the relay"),
    "number dialled": N_("number dialled"),
    "caller of the peer": N_("caller of the peer"),
    "look-up": N_("look-up in the store"),
    "number": N_("number in service"),
    "legacy number": N_("old number in service"),
    "caller": N_("caller"),
    "binding": N_("binding"),
    "binding in force": N_("binding in force"),
    "business": N_("business user"),
    "direction": N_("direction"),
    "lists": N_("blacklist and whitelist"),
    "hours": N_("service hours"),
    "filing": N_("filing with the carriers"),
    "caller as party": N_("kind of caller"),
    "callee": N_("somebody to call"),
    "frequency caps": N_("frequency caps"),
    "business rate": N_("calls a second of the business"),
    "business hook": N_("business hook"),
    "verification hook": N_("verification hook"),
    "calls at once": N_("calls at once"),
    "targets": N_("targets"),
}
VERDICTS: Final = {
    "pass": N_("passed"),
    "fail": N_("failed here"),
    "not reached": N_("not reached"),
    "not known": N_("not known"),
    "not applicable": N_("does not apply"),
    "not asked": N_("not asked"),
}


async def explain_call(page: Page, caller: str, number: str, peer: str = "", at: str = "") -> Json:
    """The explanation of a call as it would go now, or as it went `at` a past time. Raises Problem."""
    body = {"caller": caller or None, "number_dialled": number, "peer": peer or None, "at": at or None}
    return await page.asker.ask("POST", "/v1/explain", body=body)


async def _show(page: Page) -> Response:
    asked = {name: page.form.get(name, "").strip() for name in ("caller", "number", "peer", "at")}
    told, faults = None, {}
    if asked["number"]:
        try:
            told = await explain_call(page, **asked | {"at": with_zone(asked["at"], page.zone)})
        except Problem as problem:
            if problem.status not in (400, 404):
                raise
            faults = {"": problem.detail}
    status = 400 if faults else 200
    return page.render("explain.html", status, asked=asked, told=told, faults=faults, **words())


def words() -> dict[str, Any]:
    """What the macro of an explanation needs."""
    return {"checks": CHECKS, "verdicts": VERDICTS}


ROUTES: Final[list[PageRoute]] = [get("/explain", _show, " ".join(NEEDS))]
