"""Pages of calls: the search, and one call's story and proof."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from relay.console.outcomes import OUTCOMES
from relay.console.page import Page, PageRoute, get
from relay.console.tables import Column, Filter, Listing, show_list
from relay.console.words import N_

_COLUMNS: Final = (
    Column("received_at", N_("Received"), "moment", "/calls/{call_id}"),
    Column("outcome", N_("Outcome"), "outcome"),
    Column("caller", N_("Caller"), "mono"),
    Column("number_dialled", N_("Dialled"), "mono"),
    Column("callee", N_("Callee"), "mono"),
    Column("duration_ms", N_("Length"), "length"),
    Column("business", N_("Business")),
    Column("order_id", N_("Order")),
    Column("peer_in", N_("From peer")),
    Column("peer_out", N_("To peer")),
    Column("call_id", N_("Call"), "id", "/calls/{call_id}"),
)

CALLS: Final = Listing(
    N_("Calls"),
    "/v1/calls",
    _COLUMNS,
    N_("No calls yet. They appear here a moment after they end."),
    (
        Filter("number", N_("700 number")),
        Filter("order_id", N_("Order")),
        Filter("business", N_("Business"), needs="operator"),
        Filter("outcome", N_("Outcome"), "choice", tuple(OUTCOMES)),
        Filter("since", N_("From"), "time"),
        Filter("until", N_("Until"), "time"),
    ),
    has_parties=True,
)


async def _show_calls(page: Page) -> Response:
    return await show_list(page, CALLS)


ROUTES: Final[list[PageRoute]] = [get("/calls", _show_calls, "calls:read")]
