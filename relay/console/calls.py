"""Pages of calls: the search, and one call's story and proof."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import Response

from relay.console.ask import ApiError, Json
from relay.console.causes import answer_of, cause_of
from relay.console.explain import NEEDS, explain_call, words
from relay.console.outcomes import OUTCOMES
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import Column, Filter, ListView, as_file, search_party, show_list
from relay.model.numbers import format_number
from relay.sip.message import PHRASES
from relay.translation import N_

_COLUMNS: Final = (
    Column("received_at", N_("Received"), "moment", "/calls/{call_id}"),
    Column("outcome", N_("Outcome"), "outcome"),
    Column("caller", N_("Caller"), "mono"),
    Column("number_dialled", N_("Dialled"), "mono"),
    Column("callee", N_("Callee"), "mono"),
    Column("duration_ms", N_("Length"), "length"),
    Column("business_id", N_("Business")),
    Column("order_id", N_("Order")),
    Column("peer_in", N_("From peer")),
    Column("peer_out", N_("To peer")),
    Column("call_id", N_("Call"), "id", "/calls/{call_id}"),
)

CALLS: Final = ListView(
    N_("Calls"),
    "/v1/calls",
    _COLUMNS,
    N_("No calls yet. They appear here a moment after they end."),
    (
        Filter("number", N_("700 number"), "number"),
        Filter("order_id", N_("Order")),
        Filter("business_id", N_("Business"), needs="operator"),
        Filter("outcome", N_("Outcome"), "choice", tuple(OUTCOMES)),
        Filter("kind", N_("Kind"), "choice", ("call", "message")),
        Filter("binding_id", N_("Binding")),
        Filter("since", N_("From"), "time"),
        Filter("until", N_("Until"), "time"),
    ),
    template="calls.html",
    has_parties=True,
    by_party=True,
)


async def _show_calls(page: ConsolePage) -> Response:
    return await show_list(page, CALLS)


async def _find_calls(page: ConsolePage) -> Response:
    return await search_party(page, CALLS)


# -- One call

LADDER_FORMATS: Final = ("html", "pcap", "json")


class Step(NamedTuple):
    """A step of a call's story. `after_ms`: since the first one."""

    after_ms: float | None
    text: str
    class_: str = ""


def story_of(page: ConsolePage, call: dict[str, Any]) -> list[Step]:
    """The events of a call in order, in words."""
    begin = datetime.fromisoformat(call["received_at"])
    known = {name: value if value is not None else "–" for name, value in call.items()}
    dialled = (
        N_("%(caller)s dialled %(number_dialled)s, from the peer %(peer_in)s")
        if call["peer_in"]
        else N_("%(caller)s dialled %(number_dialled)s, from the unknown source %(source)s")
    )
    said = [(dialled, "", "received_at")]
    if call["routed_at"]:
        said.append((N_("allowed by the %(mode)s binding, sent to %(peer_out)s"), "", "routed_at"))
        if call["number_shown"]:
            said.append((N_("the callee %(callee)s is shown %(number_shown)s"), "", "routed_at"))
    said.append((N_("ringing"), "", "ringing_at"))
    said.append((N_("answered"), "good", "answered_at"))
    said.append((_end_of(call), page.class_of(call["outcome"]) if call["outcome"] else "", "ended_at"))
    steps = []
    for text, class_, name in said:
        if call[name] is not None:
            after_ms = (datetime.fromisoformat(call[name]) - begin).total_seconds() * 1000
            steps.append(Step(after_ms, page.words(text) % known, class_))
    return steps


def _end_of(call: dict[str, Any]) -> str:
    if call["kind"] == "message":
        return N_("text message of %(text_bytes)s bytes: %(sip_status)s")
    if call["answered_at"] is not None:
        by = {"caller": N_("the caller hung up"), "callee": N_("the callee hung up")}
        return by.get(call["ended_by"], N_("ended by the relay: %(end_reason)s"))
    if call["outcome"] == "cancelled":
        return N_("the caller gave up")
    if call["routed_at"] is None:
        return N_("refused by the relay with %(sip_status)s, Q.850 %(q850_cause)s")
    return N_("not answered: the caller got %(sip_status)s, Q.850 %(q850_cause)s")


async def _show_call(page: ConsolePage) -> Response:
    call_id = page.request.path_params["call_id"]
    call = await page.get("/v1/calls/{}", call_id, **page.reveal)
    if page.query.get("format") == "json":
        return as_file([call], "json", call_id)
    told = None
    if page.reveal and page.may(*NEEDS):  # the caller's real number is known, and the reading is written down
        told = await _explained(page, call)
    ladder, absent = None, ""
    try:
        ladder = await page.get("/v1/calls/{}/ladder", call_id, **page.reveal)
    except ApiError as problem:
        if problem.status != 404:
            raise
        absent = problem.detail
    values = {"call": call, "ladder": ladder, "absent": absent, "told": told, "revealed": bool(page.reveal)}
    answer = answer_of(call)
    values |= {"cause": cause_of(call), "answer": answer, "phrase": PHRASES.get(answer or 0, "")}
    return page.render("call.html", story=story_of(page, call), **values, **words())


async def _explained(page: ConsolePage, call: dict[str, Any]) -> Json | None:
    peer, stranger = "", ""
    if page.may("operator"):
        peer = call["peer_in"]
        stranger = "" if peer else call["source"] or "-"  # old records have no source
    # With "+" where it has a country code: 1 314… would be read as a Chinese mobile number.
    caller, dialled = (format_number(call[name], "plus") for name in ("caller", "number_dialled"))
    try:
        return await explain_call(page, caller, dialled, peer, call["received_at"], stranger)
    except ApiError:
        return None


async def _ladder_file(page: ConsolePage) -> Response:
    """The masked ladder to keep: an HTML file, a capture, or the API's object."""
    call_id, format_ = page.request.path_params["call_id"], page.request.path_params["format"]
    if format_ not in LADDER_FORMATS:
        raise HTTPException(404)
    name = f"{call_id}.{format_}"
    return page.passed(page.asker.file("/v1/calls/{}/ladder", call_id, query={"format": format_}, name=name))


ROUTES: Final[list[PageRoute]] = [
    get("/calls", _show_calls, "calls:read"),
    post("/calls/search", _find_calls, "calls:read parties:read"),
    get("/calls/{call_id}", _show_call, "calls:read"),
    get("/calls/{call_id}/ladder.{format}", _ladder_file, "calls:read"),
]
