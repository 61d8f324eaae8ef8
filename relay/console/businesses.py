"""Pages of business users: from application to revocation, with limits, keys, lists, filings and history."""

from __future__ import annotations

from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import Response

from relay.console.ask import ApiError
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import Column, Filter, ListView, show_list
from relay.translation import N_


def in_force(page: ConsolePage, business: dict[str, Any]) -> str | int:
    """How many of its bindings let calls through; of one that is not in service also how many are bound."""
    bound: int = business["live_bindings"]
    if business["state"] == "approved" or not bound:
        return bound
    return page.words(N_("0 in force, %(bound)s bound")) % {"bound": f"{bound:,}"}


async def _with_force(page: ConsolePage, businesses: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each | {"live_bindings": in_force(page, each)} for each in businesses]


BUSINESSES: Final = ListView(
    title=N_("Businesses"),
    path="/v1/businesses",
    columns=(
        Column("id", N_("Id"), "mono", "/businesses/{id}"),
        Column("name", N_("Name"), "text", "/businesses/{id}"),
        Column("state", N_("State"), "state"),
        Column("scenario", N_("Scenario"), "name"),
        Column("live_bindings", N_("Live bindings"), "number", "/bindings?business_id={id}&state=live"),
        Column("created_at", N_("Applied"), "moment"),
        Column("updated_at", N_("Changed"), "moment"),
    ),
    empty=N_("No business user yet. One applies by the API, or with relay700 business apply."),
    filters=(Filter("state", N_("State"), "choice", ("applied", "approved", "suspended", "revoked")),),
    template="businesses.html",
    adjust=_with_force,
)
_COLUMNS: Final = {
    "complaints": (
        Column("prefix", N_("Prefix"), "mono"),
        Column("complaints", N_("Complaints"), "number"),
        Column("answered", N_("Answered calls"), "number"),
        Column("percent", N_("Percent"), "number"),
        Column("few", N_("Too few to warn"), "flag"),
        Column("high", N_("At the limit"), "flag"),
    ),
    "keys": (
        Column("name", N_("Name")),
        Column("id", N_("Key"), "mono"),
        Column("scopes", N_("Scopes"), "tags"),
        Column("created_at", N_("Made"), "moment"),
        Column("created_by", N_("by"), "mono"),
        Column("expires_at", N_("Ends"), "moment"),
        Column("revoked_at", N_("Revoked"), "moment"),
    ),
    "entries": (
        Column("number", N_("Caller"), "mono"),
        Column("kind", N_("List"), "name"),
        Column("added_at", N_("Added"), "moment"),
        Column("added_by", N_("by"), "mono"),
    ),
    "filings": (
        Column("number", N_("A number"), "mono"),
        Column("state", N_("State"), "state"),
        Column("reference", N_("Reference")),
        Column("filed_at", N_("Filed"), "moment"),
        Column("expires_at", N_("Ends"), "moment"),
    ),
}
_RATES: Final = (Column("business_id", N_("Business"), "text", "/businesses/{business_id}"), *_COLUMNS["complaints"])
# State -> the steps that it allows.
STEPS: Final = {
    "applied": ("approve", "revoke"),
    "approved": ("suspend", "revoke"),
    "suspended": ("resume", "revoke"),
    "revoked": (),
}
DONE: Final = {
    "approve": N_("Approved. It may bind numbers now."),
    "suspend": N_("Suspended. Calls on its bindings are refused from the next one on."),
    "resume": N_("Resumed. Calls on its bindings are served again."),
    "revoke": N_("Revoked for good. Its keys have ended and its webhooks have stopped."),
}


async def show_businesses(page: ConsolePage) -> Response:
    """All business users, by id; above them those with complaints."""
    rates = (await page.get("/v1/reports/complaints"))["items"] if page.may("reports") else []
    return await show_list(page, BUSINESSES, rates=rates, rate_columns=_RATES)


async def show_business(page: ConsolePage) -> Response:
    """One business user, with the parts that the key may see."""
    business_id = page.request.path_params["business_id"]
    business = await page.get("/v1/businesses/{}", business_id, **page.reveal)
    history = await page.get("/v1/businesses/{}/history", business_id)
    parts: dict[str, Any] = {"keys": None, "entries": None, "filings": None, "complaints": None, "suspend_reason": ""}
    if page.may("reports"):
        rates = (await page.get("/v1/reports/complaints", business_id=business_id))["items"]
        parts["complaints"] = rates
        if page.may("operator") and business["state"] == "approved":
            parts["suspend_reason"] = page.words(next((rate["suspend_reason"] for rate in rates if rate["high"]), ""))
    if page.may("keys"):
        parts["keys"] = await page.get("/v1/businesses/{}/keys", business_id, limit="100")
    if page.may("lists"):
        parts["entries"] = await page.get("/v1/lists/business/{}/entries", business_id)
    if page.may("filings"):
        parts["filings"] = await page.get("/v1/filings", business_id=business_id)
    parts["hook"] = await _hook(page, business_id) if page.may("hooks") else None
    steps = STEPS[business["state"]] if page.may("operator") else ()
    return page.render(
        "business.html",
        business=business,
        in_force=in_force(page, business),
        history=history["items"],
        steps=steps,
        columns=_COLUMNS,
        **parts,
    )


async def _hook(page: ConsolePage, business_id: str) -> Any:
    """The hook of a business user; {} if it has none."""
    try:
        return await page.get("/v1/businesses/{}/hook", business_id)
    except ApiError as problem:
        if problem.status != 404:
            raise
        return {}


async def set_hook(page: ConsolePage) -> Response:
    """Set the hook, and show the secret of a new one, once."""
    business_id, form = page.request.path_params["business_id"], page.form
    body = {
        "url": form.get("url", "").strip(),
        "parties": form.get("parties", "masked"),
        "unknown_callers": "unknown_callers" in form,
        "enabled": "enabled" in form,
    }
    try:
        hook = await page.asker.ask(
            "PUT", "/v1/businesses/{}/hook", business_id, body=body, once=page.form.get("once", "")
        )
    except ApiError as problem:
        page.notice("bad", " ".join([problem.detail, *page.others(problem)]))
    else:
        page.notice("good", page.words(N_("The hook is set. It is asked from the next call on.")))
        if hook["secret"]:
            page.notice("good", page.words(N_("Its secret, shown only now: %(secret)s")) % {"secret": hook["secret"]})
    return page.redirect(f"/businesses/{business_id}")


async def remove_hook(page: ConsolePage) -> Response:
    """Remove the hook."""
    business_id = page.request.path_params["business_id"]
    done = N_("The hook is removed. Its bindings alone decide.")
    return await page.change(f"/businesses/{business_id}", done, "DELETE", "/v1/businesses/{}/hook", business_id)


async def take_step(page: ConsolePage) -> Response:
    """Approve, suspend, resume or revoke, with a reason."""
    business_id, step = page.request.path_params["business_id"], page.request.path_params["step"]
    if step not in DONE:
        raise HTTPException(404)
    body = {"reason": page.form.get("reason", "")}
    return await page.change(
        f"/businesses/{business_id}", DONE[step], "POST", f"/v1/businesses/{{}}/{step}", business_id, body=body
    )


async def enter_complaints(page: ConsolePage) -> Response:
    """Set the number of complaints of a day about a prefix."""
    business_id = page.request.path_params["business_id"]
    count = page.form.get("count", "")
    body = {
        "day": page.form.get("day", ""),
        "business_id": business_id,
        "prefix": page.form.get("prefix", "").strip(),
        "count": int(count) if count.isascii() and count.isdecimal() else count,
    }
    done = N_("The number of complaints is entered.")
    return await page.change(f"/businesses/{business_id}", done, "PUT", "/v1/reports/daily/complaints", body=body)


async def revoke_key(page: ConsolePage) -> Response:
    """Refuse a key from its next request on."""
    business_id, key_id = page.request.path_params["business_id"], page.request.path_params["key_id"]
    query = {"reason": page.form.get("reason")}
    done = N_("The key is revoked. Its next request is refused.")
    return await page.change(f"/businesses/{business_id}", done, "DELETE", "/v1/keys/{}", key_id, query=query)


ROUTES: Final[list[PageRoute]] = [
    get("/businesses", show_businesses, "operator"),
    get("/businesses/{business_id}", show_business),
    post("/businesses/{business_id}/steps/{step}", take_step, "operator"),
    post("/businesses/{business_id}/complaints", enter_complaints, "operator"),
    post("/businesses/{business_id}/keys/{key_id}/revoke", revoke_key, "keys"),
    post("/businesses/{business_id}/hook/set", set_hook, "hooks"),
    post("/businesses/{business_id}/hook/remove", remove_hook, "hooks"),
]
