"""Webhooks: URLs that receive a business user's events, and their dead letters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from relay.events.webhooks import KINDS, TEST, Format, Kind, change, make, remove, test
from relay.operations.operation import Asker, Listing, found, operation
from relay.operations.shapes import (
    URL,
    Moment,
    Name,
    Option,
    RequestModel,
    ResponseModel,
    api_named,
    given,
    left_out,
    one_of,
    shown_moment,
)
from relay.service.hooks import LONGEST_URL, Parties
from relay.store.connection import Connection
from relay.store.unit_of_work import UnitOfWork
from relay.store.webhooks import OutboxEvent, Webhook, dead_letters, find_webhook, webhooks_of

WebhookId = Annotated[str, StringConstraints(pattern="^w[0-9a-f]{12}$")]
Kinds = Annotated[list[Kind], Field(min_length=1, max_length=len(KINDS), json_schema_extra={"uniqueItems": True})]
Url = Annotated[
    str,
    StringConstraints(max_length=LONGEST_URL, pattern=URL),
    Field(
        description="https, at a public internet address; operator keys may set any address, and http to loopback",
        examples=["https://platform.example/events"],
    ),
]


_FORM = "Form of real numbers in its events."


class WebhookCreateRequest(
    RequestModel,
    json_schema_extra={"examples": [{"url": "https://acme.example/events", "kinds": ["call.ended", "call.refused"]}]},
):
    """A webhook to make."""

    url: Url
    kinds: Annotated[Kinds | None, Option("--kind")] = Field(
        None, description="Kind of event to send; repeat for more. Default: all, for `alibaba` those of SecretReport."
    )
    parties: Parties = Field("masked", description=f"{_FORM} `clear` requires parties:read.")
    format: Format = Field(
        "relay700",
        description="Form of its requests; alibaba: the push of Alibaba Cloud that --kind names.",
    )
    business_id: Name | None = Field(None, description="Business user. Default: `default`.")


class WebhookChangeRequest(RequestModel, json_schema_extra={"examples": [{"enabled": True}]}):
    """Fields to change. Omitted fields keep their value."""

    url: Annotated[Url, Option(metavar="URL")] = Field(default_factory=left_out, description="New URL.")
    kinds: Annotated[Kinds, Option("--kind")] = Field(
        default_factory=left_out, description="Kind of event to send; repeat for more."
    )
    parties: Parties = Field(default_factory=left_out, description=_FORM)
    enabled: Annotated[bool, Option("--enabled/--disabled")] = Field(
        default_factory=left_out, description="Send events to it, or none."
    )


class WebhookListRequest(RequestModel):
    """The webhooks to list."""

    business_id: Name | None = Field(None, description="Only webhooks of this business user.")


class WebhookResponse(ResponseModel):
    """A receiver of the events of a business user."""

    id: str
    business_id: str
    url: str
    kinds: list[Kind]
    parties: Parties
    format: Format
    enabled: bool
    disabled_at: Moment | None
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


class TestedResponse(ResponseModel):
    """The queued test event."""

    event_id: str


def shown_webhook(webhook: Webhook) -> WebhookResponse:
    """The response model of a webhook, without its secret."""
    values = api_named(webhook._asdict())
    del values["secret"], values["internal"]
    values["kinds"] = list(webhook.kinds)
    values |= {"enabled": webhook.disabled_at is None, "disabled_at": shown_moment(webhook.disabled_at)}
    values["next_at"] = shown_moment(webhook.next_at or None)
    values["last_error_at"] = shown_moment(webhook.last_error_at)
    values["created_at"] = shown_moment(webhook.created_at)
    return WebhookResponse(**values)


def _shown_dead(event: OutboxEvent) -> DeadEventResponse:
    """The response model of a dead letter, without its payload."""
    return DeadEventResponse(
        event_id=event.event_id,
        kind=event.kind,
        at=shown_moment(event.at_ms),
        dead_at=shown_moment(event.dead_at or 0),
        tries=event.tries,
        last_error=event.last_error,
    )


def _own(connection: Connection, asker: Asker, webhook_id: str) -> Webhook:
    return found(find_webhook(connection, asker.sealer, webhook_id, asker.business), "webhook")


@operation(
    "POST /v1/webhooks",
    name="createWebhook",
    summary="Make a webhook",
    scope="webhooks",
    status=201,
    secrets=("secret",),
)
def make_webhook(unit: UnitOfWork, asker: Asker, asked: WebhookCreateRequest) -> WebhookCreatedResponse:
    """Send a business user's events to a URL. The secret that signs them is shown only once."""
    business = asker.own(asked.business_id)
    webhook, secret = make(unit, business, asked.url, asked.kinds, asked.parties, asked.format)
    return WebhookCreatedResponse(**shown_webhook(webhook).model_dump(), secret=secret)


@operation("GET /v1/webhooks", name="listWebhooks", summary="List webhooks", scope="webhooks", item=WebhookResponse)
def list_webhooks(asker: Asker, asked: WebhookListRequest) -> Listing[Webhook, str]:
    """List webhooks and the state of their deliveries."""
    whose = asker.only(asked.business_id)
    return Listing(
        lambda connection, after, most: webhooks_of(connection, asker.sealer, whose, after, most),
        "",
        lambda webhook: webhook.id,
        lambda webhook, _: shown_webhook(webhook),
    )


@operation("GET /v1/webhooks/{webhook_id}", name="getWebhook", summary="Show a webhook", scope="webhooks")
def show_webhook(connection: Connection, asker: Asker, webhook_id: WebhookId) -> WebhookResponse:
    """Show one webhook and the state of its deliveries."""
    return shown_webhook(_own(connection, asker, webhook_id))


@operation("PATCH /v1/webhooks/{webhook_id}", name="updateWebhook", summary="Change a webhook", scope="webhooks")
def change_webhook(
    unit: UnitOfWork, asker: Asker, webhook_id: WebhookId, asked: WebhookChangeRequest
) -> WebhookResponse:
    """Change a webhook and retry its deliveries at once. Fields that are not given keep their value."""
    values = given(asked)
    if "enabled" in values:
        values["disabled"] = not values.pop("enabled")
    return shown_webhook(change(unit, webhook_id, **values))


@operation("DELETE /v1/webhooks/{webhook_id}", name="deleteWebhook", summary="Remove a webhook", scope="webhooks")
def remove_webhook(unit: UnitOfWork, asker: Asker, webhook_id: WebhookId) -> WebhookResponse:
    """Remove a webhook and its queued events."""
    return shown_webhook(remove(unit, webhook_id))


@operation(
    "GET /v1/webhooks/{webhook_id}/dead",
    name="listDeadLetters",
    summary="List dead letters",
    scope="webhooks",
    item=DeadEventResponse,
)
def list_dead(asker: Asker, webhook_id: WebhookId) -> Listing[OutboxEvent, int]:
    """List dead letters. These are events that could not be delivered."""

    def read(connection: Connection, after: int, most: int) -> list[OutboxEvent]:
        return dead_letters(connection, asker.sealer, _own(connection, asker, webhook_id).id, after, most)

    return Listing(read, 0, lambda event: event.seq, lambda event, _: _shown_dead(event))


@operation("POST /v1/webhooks/{webhook_id}/test", name="testWebhook", summary="Send a test event", scope="webhooks")
def test_webhook(unit: UnitOfWork, asker: Asker, webhook_id: WebhookId) -> TestedResponse:
    """Queue an event of the kind webhook.test."""
    return TestedResponse(event_id=test(unit, webhook_id))
