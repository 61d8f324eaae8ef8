"""Why a call is refused, or where it goes: each check with its figures. No URL has the parties: they are in a form."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from relay.console.ask import ApiError, Json
from relay.console.page import ConsolePage, PageRoute, get
from relay.console.words import with_zone
from relay.reports.explain import CHECKS, VERDICTS

NEEDS: Final = ("calls:read", "parties:read")


async def explain_call(
    page: ConsolePage, caller: str, number: str, peer: str = "", at: str = "", unknown_source: str = ""
) -> Json:
    """The explanation of a call as it would go now, or as it went `at` a past time. Raises ApiError."""
    body = {"caller": caller, "number_dialled": number, "peer": peer, "at": at, "unknown_source": unknown_source}
    return await page.asker.ask(
        "POST", "/v1/explain", body={name: value or None for name, value in body.items()} | {"number_dialled": number}
    )


async def _show(page: ConsolePage) -> Response:
    asked = {name: page.form.get(name, "").strip() for name in ("caller", "number", "peer", "at")}
    told, faults = None, {}
    if asked["number"]:
        try:
            told = await explain_call(page, **asked | {"at": with_zone(asked["at"], page.zone)})
        except ApiError as problem:
            if problem.status not in (400, 404):
                raise
            faults = {"": problem.detail}
    status = 400 if faults else 200
    return page.render("explain.html", status, asked=asked, told=told, faults=faults, **words())


def words() -> dict[str, Any]:
    """The variables of the macro of an explanation."""
    return {"checks": CHECKS, "verdicts": VERDICTS}


ROUTES: Final[list[PageRoute]] = [get("/explain", _show, " ".join(NEEDS))]
