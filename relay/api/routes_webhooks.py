"""Routes of webhooks and their dead letters."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from relay.api import models_webhooks as models
from relay.api.models import Name, Page, given, shown_moment
from relay.api.pages import Paging
from relay.api.visit import Answer, Changes, Needs, Visit
from relay.events.webhooks import change, make, remove, resend, test
from relay.store.act import Act
from relay.store.outbox import Event, dead
from relay.store.webhooks import Webhook, find_webhook, webhooks_of

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])
WebhookId = Annotated[str, Path(pattern="^w[0-9a-f]{12}$")]
Reads = Annotated[Visit, Depends(Needs("webhooks"))]
Writes = Annotated[Visit, Depends(Changes("webhooks"))]


def shown_webhook(webhook: Webhook) -> models.Webhook:
    """The response model of a webhook, without its secret."""
    values = webhook._asdict()
    del values["secret"], values["disabled_at"], values["internal"]
    values["kinds"] = list(webhook.kinds)
    values["enabled"] = webhook.disabled_at is None
    values["next_at"] = shown_moment(webhook.next_at or None)
    values["last_error_at"] = shown_moment(webhook.last_error_at)
    values["created_at"] = shown_moment(webhook.created_at)
    return models.Webhook(**values)


def shown_dead(event: Event) -> models.DeadEvent:
    """The response model of a dead letter, without its payload."""
    return models.DeadEvent(
        seq=event.seq,
        event_id=event.event_id,
        kind=event.kind,
        at=shown_moment(event.at_ms),
        dead_at=shown_moment(event.dead_at or 0),
        tries=event.tries,
        last_error=event.last_error,
    )


def _own(visit: Visit, webhook_id: str) -> Webhook:
    return visit.one(
        lambda connection: find_webhook(connection, visit.desk.sealer, webhook_id, visit.business), "webhook"
    )


@router.post("", status_code=201, response_model=models.WebhookMade, summary="Make a webhook")
async def post_webhook(asked: models.WebhookNew, visit: Writes) -> Response:
    """Make a webhook. Its secret is shown in this response only."""
    business = visit.own(asked.business)

    def do(act: Act) -> Answer:
        webhook, secret = make(act, business, asked.url, asked.kinds, asked.parties)
        shown = shown_webhook(webhook).model_dump()
        made, kept = models.WebhookMade(**shown, secret=secret), models.WebhookMade(**shown, secret=None)
        return Answer(made, 201, f"/v1/webhooks/{webhook.id}", kept)

    return await visit.change(do)


@router.get("", summary="List webhooks")
async def get_webhooks(visit: Reads, paging: Paging, business: Name | None = None) -> Page[models.Webhook]:
    """Webhooks by id."""
    sealer, whose = visit.desk.sealer, visit.only(business)
    found = await visit.part(
        "webhooks",
        paging,
        lambda connection, after, most: webhooks_of(connection, sealer, whose, after, most),
        "",
        lambda webhook: webhook.id,
    )
    return found.shown(shown_webhook)


@router.get("/{webhook_id}", summary="Show a webhook")
async def get_webhook(webhook_id: WebhookId, visit: Reads) -> models.Webhook:
    """A webhook with the state of its deliveries."""
    return shown_webhook(_own(visit, webhook_id))


@router.patch("/{webhook_id}", response_model=models.Webhook, summary="Change a webhook")
async def patch_webhook(webhook_id: WebhookId, asked: models.WebhookChange, visit: Writes) -> Response:
    """Change a webhook. Delivery is retried at once, regardless of earlier failures."""
    values = given(asked)
    if "enabled" in values:
        values["disabled"] = not values.pop("enabled")
    return await visit.change(lambda act: Answer(shown_webhook(change(act, webhook_id, **values))))


@router.delete("/{webhook_id}", response_model=models.Webhook, summary="Remove a webhook")
async def delete_webhook(webhook_id: WebhookId, visit: Writes) -> Response:
    """Remove a webhook with all its queued events."""
    return await visit.change(lambda act: Answer(shown_webhook(remove(act, webhook_id))))


@router.get("/{webhook_id}/dead", summary="List dead letters")
async def get_dead(webhook_id: WebhookId, visit: Reads, paging: Paging) -> Page[models.DeadEvent]:
    """Events whose delivery was given up, oldest first."""
    sealer, webhook = visit.desk.sealer, _own(visit, webhook_id)
    found = await visit.part(
        f"dead {webhook.id}",
        paging,
        lambda connection, after, most: dead(connection, sealer, webhook_id, after, most),
        0,
        lambda event: event.seq,
    )
    return found.shown(shown_dead)


@router.post("/{webhook_id}/dead/resend", response_model=models.Resent, summary="Send dead letters again")
async def post_resend(webhook_id: WebhookId, asked: models.Resend, visit: Writes) -> Response:
    """Queue dead letters again at their original positions, before later events that are still queued."""
    return await visit.change(lambda act: Answer(models.Resent(resent=resend(act, webhook_id, asked.events))))


@router.post("/{webhook_id}/test", response_model=models.Tested, summary="Send a test event")
async def post_test(webhook_id: WebhookId, visit: Writes) -> Response:
    """Queue an event of kind `webhook.test` behind the waiting ones."""
    return await visit.change(lambda act: Answer(models.Tested(event_id=test(act, webhook_id))))
