"""Pages of bindings: search, one binding with its routes and history, and its end."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from starlette.responses import Response

from relay.console.ask import ApiError
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import Column, Filter, ListView, facts_of, search_party, show_list
from relay.model.binding import LATE_MODES, MODES
from relay.operations.bindings import BindingResponse
from relay.store.businesses import unserved_businesses
from relay.translation import N_


async def with_force(page: ConsolePage, bindings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The bindings, with why their calls are refused as the state of a live one whose business user is not in service.

    A suspension or revocation ends no binding.
    """
    unserved = await page.read(unserved_businesses)
    return [
        each | {"state": f"business_{unserved[each['business_id']]}"}
        if each["state"] == "live" and each["business_id"] in unserved
        else each
        for each in bindings
    ]


BINDINGS: Final = ListView(
    title=N_("Bindings"),
    path="/v1/bindings",
    columns=(
        Column("id", N_("Binding"), "id", "/bindings/{id}"),
        Column("state", N_("State"), "state"),
        Column("mode", N_("Mode")),
        Column("business_id", N_("Business")),
        Column("order_id", N_("Order")),
        Column("a", N_("Party a"), "mono"),
        Column("x", N_("Number"), "mono", "/numbers/{x}"),
        Column("b", N_("Party b"), "mono"),
        Column("created_at", N_("Made"), "moment"),
        Column("expires_at", N_("Ends"), "moment"),
    ),
    empty=N_("No binding matches. Bindings are made by the API, or with relay700 bind."),
    filters=(
        Filter("number", N_("700 number"), "number"),
        Filter("order_id", N_("Order")),
        Filter("business_id", N_("Business"), needs="operator"),
        Filter("state", N_("State"), "choice", ("live", "expired", "ended")),
        Filter("mode", N_("Mode"), "choice", MODES),
        Filter("since", N_("Made since"), "time"),
    ),
    has_parties=True,
    by_party=True,
    template="bindings.html",
    adjust=with_force,
)


_DIRECTIONS: Final = {"both": N_("both"), "a_to_b": N_("only a to b"), "b_to_a": N_("only b to a")}


class RouteLine(NamedTuple):
    """A route of a binding. `caller` None: any caller; `reaches` None: the last caller, "": nobody yet."""

    caller: str | None
    dials: str
    reaches: str | None
    shown: str


def routes_of(binding: dict[str, Any]) -> list[RouteLine]:
    """The routes of a binding of the API, with its parties in the same form (docs/GLOSSARY.md has the modes)."""
    x, y, mode = binding["x"], binding["y"] or binding["x"], binding["mode"]
    routes = []
    if mode in LATE_MODES and binding["a"] is None:
        return [RouteLine(binding["b"], y, "", x)]
    if binding["direction"] != "b_to_a":
        routes.append(RouteLine(binding["group_id"] or binding["a"], x, None if mode == "AXN" else binding["b"], y))
    if binding["direction"] != "a_to_b":
        caller = None if mode == "AXN" else binding["b"]
        routes.append(RouteLine(caller, y, None if binding["group_id"] else binding["a"], x))
    return routes


async def show_bindings(page: ConsolePage) -> Response:
    """Bindings, newest first."""
    return await show_list(page, BINDINGS)


async def find_bindings(page: ConsolePage) -> Response:
    """The bindings of a party, of its earlier numbers and its groups as well."""
    return await search_party(page, BINDINGS)


async def show_binding(page: ConsolePage) -> Response:
    """One binding: what it is for, who reaches whom, what happened to it."""
    binding_id = page.request.path_params["binding_id"]
    binding = await page.get("/v1/bindings/{}", binding_id, **page.reveal)
    history = await page.get("/v1/bindings/{}/history", binding_id)
    (shown,) = await with_force(page, [binding])
    facts = facts_of(
        BindingResponse, binding | {"direction": page.words(_DIRECTIONS[binding["direction"]])}, page.words
    )
    values = {"routes": routes_of(binding), "history": history["items"], "state": shown["state"], "facts": facts}
    return page.render("binding.html", binding=binding, **values)


async def end_binding(page: ConsolePage) -> Response:
    """Refuse calls from the next one on."""
    binding_id = page.request.path_params["binding_id"]
    return await page.change(
        f"/bindings/{binding_id}",
        N_("The binding has ended. Its next call is refused."),
        "DELETE",
        "/v1/bindings/{}",
        binding_id,
        query={"reason": page.form.get("reason")},
    )


async def set_party(page: ConsolePage) -> Response:
    """Make another number party a, or nobody, from the next call on."""
    binding_id = page.request.path_params["binding_id"]
    return await page.change(
        f"/bindings/{binding_id}",
        N_("Party a is changed. The next call goes by it."),
        "PATCH",
        "/v1/bindings/{}",
        binding_id,
        body={"a": page.form.get("a", "").strip() or None},
    )


async def hand_over(page: ConsolePage) -> Response:
    """Give the bindings of orders, or of a party a, another party a; empty: the form."""
    asked = {name: page.form.get(name, "").strip() for name in ("order_ids", "from_a", "to_a")}
    told, fault = None, ""
    if "order_ids" in page.form:
        body = {
            "order_ids": [line.strip() for line in asked["order_ids"].splitlines() if line.strip()],
            "from_a": asked["from_a"] or None,
            "to_a": asked["to_a"] or None,
            "business_id": page.form.get("business_id", "").strip() or None,
        }
        try:
            once = page.form.get("once", "")
            told = await page.asker.ask("POST", "/v1/bindings/hand-over", body=body, once=once)
            asked = dict.fromkeys(asked, "")
        except ApiError as problem:
            fault = " ".join([problem.detail, *page.others(problem)])
    return page.render("hand_over.html", 400 if fault else 200, asked=asked, told=told, fault=fault)


ROUTES: Final[list[PageRoute]] = [
    get("/bindings", show_bindings, "bindings:read"),
    get("/bindings/hand-over", hand_over, "bindings:write"),
    get("/bindings/search", find_bindings, "parties:read"),
    get("/bindings/{binding_id}", show_binding, "bindings:read"),
    post("/bindings/{binding_id}/end", end_binding, "bindings:write"),
    post("/bindings/{binding_id}/party", set_party, "bindings:write"),
]
