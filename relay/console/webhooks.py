"""Pages of webhooks: the state of their deliveries, and dead letters to send again."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from relay.console.ask import ApiError
from relay.console.page import ConsolePage, PageRoute, get, post
from relay.console.tables import Column, Filter, ListView, show_list
from relay.events.alibaba import MESSAGES
from relay.translation import N_

WEBHOOKS: Final = ListView(
    title=N_("Webhooks"),
    path="/v1/webhooks",
    columns=(
        Column("id", N_("Webhook"), "mono", "/webhooks/{id}"),
        Column("url", "URL", "mono", "/webhooks/{id}"),
        Column("business_id", N_("Business")),
        Column("enabled", N_("Enabled"), "flag"),
        Column("failures", N_("Failed in a row"), "number"),
        Column("last_error", N_("Last error")),
        Column("next_at", N_("Next try"), "moment"),
    ),
    empty=N_("No webhook yet."),
    template="webhooks.html",
    filters=(Filter("business_id", N_("Business"), needs="operator"),),
)
DEAD: Final = ListView(
    title=N_("Webhook"),
    path="/v1/webhooks/{}/dead",
    columns=(
        Column("event_id", N_("Event"), "mono"),
        Column("kind", N_("Kind")),
        Column("at", N_("Happened"), "moment"),
        Column("dead_at", N_("Given up"), "moment"),
        Column("tries", N_("Refused"), "number"),
        Column("last_error", N_("Error")),
    ),
    empty=N_("No dead letter: every event was delivered, or is still being tried."),
    template="webhook.html",
)


async def show_webhooks(page: ConsolePage) -> Response:
    """All webhooks that the key may see, by id."""
    return await show_list(page, WEBHOOKS, messages=[*MESSAGES])


async def make(page: ConsolePage) -> Response:
    """Make a webhook, and show its secret once. It sends all events, or one of Alibaba's messages."""
    form = page.form
    body: dict[str, object] = {"url": form.get("url", "").strip(), "parties": form.get("parties", "masked")}
    if (message := form.get("sends", "")) in MESSAGES:
        body |= {"format": "alibaba", "kinds": [*MESSAGES[message]]}
    if business := form.get("business_id", "").strip():
        body["business_id"] = business
    try:
        made = await page.asker.ask("POST", "/v1/webhooks", body=body, once=form.get("once", ""))
    except ApiError as problem:
        page.notice("bad", " ".join([problem.detail, *page.others(problem)]))
        return page.redirect("/webhooks")
    page.notice("good", page.words(N_("Made. It gets what happens from now on.")))
    if made["secret"]:
        page.notice("good", page.words(N_("Its secret, shown only now: %(secret)s")) % {"secret": made["secret"]})
    return page.redirect(f"/webhooks/{made['id']}")


async def show_webhook(page: ConsolePage) -> Response:
    """One webhook, and its dead letters with their errors."""
    webhook_id = page.request.path_params["webhook_id"]
    webhook = await page.get("/v1/webhooks/{}", webhook_id)
    return await show_list(page, DEAD, webhook_id, webhook=webhook)


async def resend(page: ConsolePage) -> Response:
    """Send one dead letter again, or all."""
    event = page.form.get("event")
    return await _act(page, N_("Queued again."), "/dead/resend", {"events": [event]} if event else {})


async def test(page: ConsolePage) -> Response:
    """Queue a test event."""
    return await _act(page, N_("A test event is queued."), "/test", None)


async def enable(page: ConsolePage) -> Response:
    """Deliver again, at once."""
    return await _act(page, N_("Enabled. What waits is delivered now."), "", {"enabled": True}, "PATCH")


async def disable(page: ConsolePage) -> Response:
    """Queue and send nothing more."""
    return await _act(page, N_("Disabled. No events are queued for it."), "", {"enabled": False}, "PATCH")


async def _act(page: ConsolePage, done: str, path: str, body: object, method: str = "POST") -> Response:
    webhook_id = page.request.path_params["webhook_id"]
    return await page.change(f"/webhooks/{webhook_id}", done, method, f"/v1/webhooks/{{}}{path}", webhook_id, body=body)


ROUTES: Final[list[PageRoute]] = [
    get("/webhooks", show_webhooks, "webhooks"),
    post("/webhooks/make", make, "webhooks"),
    get("/webhooks/{webhook_id}", show_webhook, "webhooks"),
    post("/webhooks/{webhook_id}/resend", resend, "webhooks"),
    post("/webhooks/{webhook_id}/test", test, "webhooks"),
    post("/webhooks/{webhook_id}/enable", enable, "webhooks"),
    post("/webhooks/{webhook_id}/disable", disable, "webhooks"),
]
