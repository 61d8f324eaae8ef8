"""Pages of 700 numbers: pools and their usage, prefixes, numbers and their locks."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from relay.console.ask import ApiError, Json
from relay.console.bindings import with_force
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.references import may_be_in_url
from relay.console.tables import Column, Filter, ListView, facts_of, show_list
from relay.operations.numbers import NumberResponse
from relay.translation import N_

_BOUND: Final = (
    Column("id", N_("Binding"), "id", "/bindings/{id}"),
    Column("state", N_("State"), "state"),
    Column("mode", N_("Mode")),
    Column("business_id", N_("Business")),
    Column("order_id", N_("Order")),
    Column("a", N_("Party a"), "mono"),
    Column("b", N_("Party b"), "mono"),
    Column("expires_at", N_("Ends"), "moment"),
)
MOST_POOLS: Final = "20"  # shown at once: the usage of each is counted
NUMBERS: Final = ListView(
    title=N_("Numbers"),
    path="/v1/numbers",
    columns=(
        Column("number", N_("Number"), "mono", "/numbers/{number}"),
        Column("state", N_("State"), "state"),
        Column("pool_id", N_("Pool"), "text", "/numbers?pool_id={pool_id}"),
        Column("bindings", N_("Bindings"), "number", "/bindings?number={number}"),
        Column("locked_by", N_("Locked by"), "tags"),
        Column("cools_until", N_("Cools until"), "moment"),
    ),
    empty=N_("No number matches. Numbers come with a prefix: relay700 numbers load."),
    filters=(
        Filter("number", N_("700 number"), "number"),
        Filter("pool_id", N_("Pool")),
        Filter("prefix", N_("Prefix"), "number"),
        Filter("state", N_("State"), "choice", ("free", "bound", "cooling", "locked")),
    ),
    template="numbers.html",
)


async def show_numbers(page: ConsolePage) -> Response:
    """Numbers, with the usage of pools above the first page of all."""
    pools: list[tuple[Json, Json]] = []
    prefixes: list[Json] = []
    faults: dict[str, str] = {}
    if number := "".join(filter(str.isdigit, page.query.get("number", ""))):
        if may_be_in_url(number) or await _is_ours(page, number):
            return page.redirect(f"/numbers/{number}")
        faults = {"number": page.words(N_("not a number of this platform"))}
    if not page.query:
        found = await page.get("/v1/pools", limit=MOST_POOLS)
        pools = [(pool, await page.get("/v1/pools/{}/usage", pool["id"])) for pool in found["items"]]
        prefixes = (await page.get("/v1/prefixes"))["items"] if page.may("operator") else []
    return await show_list(page, NUMBERS, faults=faults, pools=pools, prefixes=prefixes)


async def _is_ours(page: ConsolePage, number: str) -> bool:
    """Whether a number that no URL may have is a middle number of before the pilot."""
    try:
        await page.get("/v1/numbers/{}", number)
    except ApiError:
        return False
    return True


async def show_number(page: ConsolePage) -> Response:
    """One number, and what it is bound for."""
    number = await page.get("/v1/numbers/{}", page.request.path_params["number"])
    bindings = None
    if page.may("bindings:read"):
        bindings = await page.get("/v1/bindings", number=number["number"], state="live", limit="20")
        bindings["items"] = await with_force(page, bindings["items"])
    facts = facts_of(NumberResponse, number, page.words)
    return page.render("number.html", number=number, facts=facts, bindings=bindings, columns=_BOUND)


async def lock(page: ConsolePage) -> Response:
    """Refuse calls to the number from the next one on."""
    return await _locks(page, "lock", N_("The number is locked. Its next call is refused."))


async def unlock(page: ConsolePage) -> Response:
    """Release the operator's lock and the fraud lock."""
    return await _locks(page, "unlock", N_("The number is unlocked."))


async def hold(page: ConsolePage) -> Response:
    """Keep a number from new bindings."""
    return await _locks(page, "hold", N_("The number is held. It gets no new bindings, and its calls go on."))


async def unhold(page: ConsolePage) -> Response:
    """Let a held number get new bindings."""
    return await _locks(page, "unhold", N_("The number gets bindings again."))


async def lock_prefix(page: ConsolePage) -> Response:
    """Refuse calls to all numbers of a prefix from the next one on."""
    return await _set_prefix(page, "locked", N_("The prefix is locked. Calls to all its numbers are refused."))


async def unlock_prefix(page: ConsolePage) -> Response:
    """Serve the numbers of a prefix again; locks of single numbers remain."""
    return await _set_prefix(page, "active", N_("The prefix is unlocked."))


async def _set_prefix(page: ConsolePage, state: str, done: str) -> Response:
    body = {"state": state, "reason": page.form.get("reason", "")}
    prefix = page.request.path_params["prefix"]
    return await page.change("/numbers", done, "PATCH", "/v1/prefixes/{}", prefix, body=body)


async def _locks(page: ConsolePage, step: str, done: str) -> Response:
    number = page.request.path_params["number"]
    body = {"reason": page.form.get("reason", "")}
    return await page.change(f"/numbers/{number}", done, "POST", f"/v1/numbers/{{}}/{step}", number, body=body)


ROUTES: Final[list[PageRoute]] = [
    get("/numbers", show_numbers, "numbers:read"),
    get("/numbers/{number}", show_number, "numbers:read"),
    post("/numbers/{number}/lock", lock, "operator"),
    post("/numbers/{number}/unlock", unlock, "operator"),
    post("/numbers/{number}/hold", hold, "bindings:write"),
    post("/numbers/{number}/unhold", unhold, "bindings:write"),
    post("/prefixes/{prefix}/lock", lock_prefix, "operator"),
    post("/prefixes/{prefix}/unlock", unlock_prefix, "operator"),
]
