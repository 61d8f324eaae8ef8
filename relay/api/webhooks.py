"""Webhooks and dead letters over HTTP: models and routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Path
from pydantic import Field, StringConstraints
from starlette.responses import Response

from relay.api.context import Answer, Changes, Needs, RequestContext
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.events.webhooks import KINDS, TEST, Format, Kind, change, make, remove, resend, test
from relay.operations.shapes import (
    Moment,
    Name,
    RequestModel,
    ResponseModel,
    Text128,
    api_named,
    given,
    left_out,
    one_of,
    shown_moment,
)
from relay.service.hooks import LONGEST_URL, Parties
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import OutboxEvent, Webhook, dead_letters, find_webhook, webhooks_of

Kinds = Annotated[list[Kind], Field(min_length=1, max_length=len(KINDS), json_schema_extra={"uniqueItems": True})]
Url = Annotated[
    str,
    StringConstraints(max_length=LONGEST_URL, pattern=r"^https?://[!-~]+$"),
    Field(
        description="https, at a public internet address; operator keys may set any address, and http to loopback",
        examples=["https://platform.example/events"],
    ),
]


class WebhookCreateRequest(
    RequestModel,
    json_schema_extra={"examples": [{"url": "https://acme.example/events", "kinds": ["call.ended", "call.refused"]}]},
):
    """A webhook to make."""

    url: Url
    kinds: Kinds | None = Field(None, description="kinds to send; omitted: all, for `alibaba` those of SecretReport")
    parties: Parties = Field("masked", description="form of caller and callee; `clear` requires parties:read")
    format: Format = Field("relay700", description="of the requests; `alibaba`: one of its messages, with its fields")
    business_id: Name | None = Field(None, description="for operator keys; omitted: `default`")


class WebhookChangeRequest(RequestModel, json_schema_extra={"examples": [{"enabled": True}]}):
    """Fields to change. Omitted fields keep their value."""

    url: Url = Field(default_factory=left_out)
    kinds: Kinds = Field(default_factory=left_out)
    parties: Parties = Field(default_factory=left_out)
    enabled: bool = Field(default_factory=left_out)


class WebhookResponse(ResponseModel):
    """A receiver of the events of a business user."""

    id: str
    business_id: str
    url: str
    kinds: list[Kind]
    parties: Parties
    format: Format
    enabled: bool
    failures: int = Field(description="consecutive failed deliveries")
    next_at: Moment | None = Field(description="time of the next attempt after a failure")
    last_error: str | None = Field(description="error of the last failed delivery, even if later ones succeeded")
    last_error_at: Moment | None
    created_at: Moment


class WebhookCreatedResponse(WebhookResponse):
    """A new webhook, with its secret. The secret is shown only once."""

    secret: str | None = Field(description="key of the HMAC in Relay700-Signature; null in a repeated response")


class DeadEventResponse(ResponseModel):
    """A dead letter: an event whose delivery was given up."""

    event_id: str
    kind: Annotated[str, one_of(*KINDS, TEST)]
    at: Moment
    dead_at: Moment
    tries: int
    last_error: str | None


class ResendRequest(RequestModel, json_schema_extra={"examples": [{}]}):
    """The dead letters to send again."""

    events: Annotated[list[Text128], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="event ids; omitted: all"
    )


class ResentResponse(ResponseModel):
    """The count of events queued again."""

    resent: int


class _Resent(ResentResponse):
    """The count of one unit of work, and where the next begins."""

    after: int | None


class TestedResponse(ResponseModel):
    """The queued test event."""

    event_id: str


# -- Routes of webhooks and their dead letters

router = Router(prefix="/v1/webhooks", tags=["webhooks"])
WebhookId = Annotated[str, Path(pattern="^w[0-9a-f]{12}$")]
Reads = Annotated[RequestContext, Depends(Needs("webhooks"))]
Writes = Annotated[RequestContext, Depends(Changes("webhooks"))]


def shown_webhook(webhook: Webhook) -> WebhookResponse:
    """The response model of a webhook, without its secret."""
    values = api_named(webhook._asdict())
    del values["secret"], values["disabled_at"], values["internal"]
    values["kinds"] = list(webhook.kinds)
    values["enabled"] = webhook.disabled_at is None
    values["next_at"] = shown_moment(webhook.next_at or None)
    values["last_error_at"] = shown_moment(webhook.last_error_at)
    values["created_at"] = shown_moment(webhook.created_at)
    return WebhookResponse(**values)


def shown_dead(event: OutboxEvent) -> DeadEventResponse:
    """The response model of a dead letter, without its payload."""
    return DeadEventResponse(
        event_id=event.event_id,
        kind=event.kind,
        at=shown_moment(event.at_ms),
        dead_at=shown_moment(event.dead_at or 0),
        tries=event.tries,
        last_error=event.last_error,
    )


def _own(context: RequestContext, webhook_id: str) -> Webhook:
    return context.one(
        lambda connection: find_webhook(connection, context.backend.sealer, webhook_id, context.business), "webhook"
    )


@router.post(
    "", status_code=201, response_model=WebhookCreatedResponse, operation_id="createWebhook", summary="Make a webhook"
)
async def post_webhook(asked: WebhookCreateRequest, context: Writes) -> Response:
    """Make a webhook. Its secret is shown in this response only."""
    business = context.asker.own(asked.business_id)

    def do(unit: UnitOfWork) -> Answer:
        webhook, secret = make(unit, business, asked.url, asked.kinds, asked.parties, asked.format)
        shown = shown_webhook(webhook).model_dump()
        made, kept = WebhookCreatedResponse(**shown, secret=secret), WebhookCreatedResponse(**shown, secret=None)
        return Answer(made, 201, f"/v1/webhooks/{webhook.id}", kept)

    return await context.change(do)


@router.get("", operation_id="listWebhooks", summary="List webhooks")
async def get_webhooks(context: Reads, paging: Paging, business_id: Name | None = None) -> Page[WebhookResponse]:
    """Webhooks by id."""
    sealer, whose = context.backend.sealer, context.asker.only(business_id)
    found = await context.part(
        "webhooks",
        paging,
        lambda connection, after, most: webhooks_of(connection, sealer, whose, after, most),
        "",
        lambda webhook: webhook.id,
    )
    return found.shown(shown_webhook)


@router.get("/{webhook_id}", operation_id="getWebhook", summary="Show a webhook")
async def get_webhook(webhook_id: WebhookId, context: Reads) -> WebhookResponse:
    """A webhook with the state of its deliveries."""
    return shown_webhook(_own(context, webhook_id))


@router.patch("/{webhook_id}", response_model=WebhookResponse, operation_id="updateWebhook", summary="Change a webhook")
async def patch_webhook(webhook_id: WebhookId, asked: WebhookChangeRequest, context: Writes) -> Response:
    """Change a webhook. Delivery is retried at once, regardless of earlier failures."""
    values = given(asked)
    if "enabled" in values:
        values["disabled"] = not values.pop("enabled")
    return await context.change(lambda unit: Answer(shown_webhook(change(unit, webhook_id, **values))))


@router.delete(
    "/{webhook_id}", response_model=WebhookResponse, operation_id="deleteWebhook", summary="Remove a webhook"
)
async def delete_webhook(webhook_id: WebhookId, context: Writes) -> Response:
    """Remove a webhook with all its queued events."""
    return await context.change(lambda unit: Answer(shown_webhook(remove(unit, webhook_id))))


@router.get("/{webhook_id}/dead", operation_id="listDeadLetters", summary="List dead letters")
async def get_dead(webhook_id: WebhookId, context: Reads, paging: Paging) -> Page[DeadEventResponse]:
    """Events whose delivery was given up, oldest first."""
    sealer, webhook = context.backend.sealer, _own(context, webhook_id)
    found = await context.part(
        f"dead {webhook.id}",
        paging,
        lambda connection, after, most: dead_letters(connection, sealer, webhook_id, after, most),
        0,
        lambda event: event.seq,
    )
    return found.shown(shown_dead)


@router.post(
    "/{webhook_id}/dead/resend",
    response_model=ResentResponse,
    operation_id="resendDeadLetters",
    summary="Send dead letters again",
)
async def post_resend(webhook_id: WebhookId, asked: ResendRequest, context: Writes) -> Response:
    """Queue dead letters again at their original positions, before later events that are still queued."""
    body, replayed = ResentResponse(resent=0), True
    after: int | None = 0
    while after is not None:
        done = await context.once(_resending(webhook_id, asked.events, after), f" {after}")
        part = _Resent.model_validate_json(done.body)
        body.resent, after = body.resent + part.resent, part.after
        replayed &= done.replayed
    headers = {"idempotency-replayed": "true"} if replayed else {}
    return Response(body.model_dump_json(), 200, headers, "application/json")


def _resending(webhook_id: str, events: list[str] | None, after: int) -> Callable[[UnitOfWork], Answer]:
    def do(unit: UnitOfWork) -> Answer:
        resent = resend(unit, webhook_id, events, after)
        return Answer(_Resent(resent=resent.events, after=resent.after))

    return do


@router.post(
    "/{webhook_id}/test", response_model=TestedResponse, operation_id="testWebhook", summary="Send a test event"
)
async def post_test(webhook_id: WebhookId, context: Writes) -> Response:
    """Queue an event of kind `webhook.test` behind the waiting ones."""
    return await context.change(lambda unit: Answer(TestedResponse(event_id=test(unit, webhook_id))))
