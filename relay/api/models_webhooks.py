"""Request and response models of webhooks and dead letters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from relay.api.models import Asked, Moment, Name, Shown, Text128, left_out
from relay.events.webhooks import KINDS, LONGEST_URL, Kind, Parties

Kinds = Annotated[list[Kind], Field(min_length=1, max_length=len(KINDS), json_schema_extra={"uniqueItems": True})]
Url = Annotated[
    str,
    StringConstraints(max_length=LONGEST_URL, pattern=r"^https?://[!-~]+$"),
    Field(
        description="https, at a public internet address; operator keys may set any address, and http to loopback",
        examples=["https://platform.example/events"],
    ),
]


class WebhookNew(Asked):
    """A webhook to make."""

    url: Url
    kinds: Kinds = Field(default=[*KINDS], description="event kinds to send; omitted: all")
    parties: Parties = Field("masked", description="form of caller and callee; `clear` requires parties:read")
    business: Name | None = Field(None, description="for operator keys; omitted: `default`")


class WebhookChange(Asked):
    """Fields to change. Omitted fields keep their value."""

    url: Url = Field(default_factory=left_out)
    kinds: Kinds = Field(default_factory=left_out)
    parties: Parties = Field(default_factory=left_out)
    enabled: bool = Field(default_factory=left_out)


class Webhook(Shown):
    """A receiver of the events of a business user."""

    id: str
    business: str
    url: str
    kinds: list[Kind]
    parties: Parties
    enabled: bool
    failures: int = Field(description="consecutive failed deliveries")
    next_at: Moment | None = Field(description="time of the next attempt after a failure")
    last_error: str | None = Field(description="error of the last failed delivery, even if later ones succeeded")
    last_error_at: Moment | None
    created_at: Moment


class WebhookMade(Webhook):
    """A new webhook, with its secret. The secret is shown only once."""

    secret: str | None = Field(description="key of the HMAC in Relay700-Signature; null in a repeated response")


class DeadEvent(Shown):
    """A dead letter: an event whose delivery was given up."""

    seq: int
    event_id: str
    kind: str
    at: Moment
    dead_at: Moment
    tries: int
    last_error: str | None


class Resend(Asked):
    """The dead letters to send again."""

    events: Annotated[list[Text128], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="event ids; omitted: all"
    )


class Resent(Shown):
    """The count of events queued again."""

    resent: int


class Tested(Shown):
    """The queued test event."""

    event_id: str
