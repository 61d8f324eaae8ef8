"""Webhooks and the events that could not be delivered."""

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
        description="https, at an address of the internet; an operator may name any, and http to loopback",
        examples=["https://platform.example/events"],
    ),
]


class WebhookNew(Asked):
    """A webhook that is asked for."""

    url: Url
    kinds: Kinds = Field(default=[*KINDS], description="of events; left out: all")
    parties: Parties = Field("masked", description="how caller and callee come; `clear` needs parties:read")
    business: Name | None = Field(None, description="for operator keys; left out: `default`")


class WebhookChange(Asked):
    """What is to change; what is left out stays."""

    url: Url = Field(default_factory=left_out)
    kinds: Kinds = Field(default_factory=left_out)
    parties: Parties = Field(default_factory=left_out)
    enabled: bool = Field(default_factory=left_out)


class Webhook(Shown):
    """Where the events of a business user go."""

    id: str
    business: str
    url: str
    kinds: list[Kind]
    parties: Parties
    enabled: bool
    failures: int = Field(description="in a row")
    next_at: Moment | None = Field(description="of the next try after a failure")
    last_error: str | None = Field(description="why a delivery failed at last, also where later ones were taken")
    last_error_at: Moment | None
    created_at: Moment


class WebhookMade(Webhook):
    """A new webhook. The secret is shown now and never again."""

    secret: str | None = Field(description="key of the HMAC in Relay700-Signature; null in a repeated answer")


class DeadEvent(Shown):
    """An event that was given up."""

    seq: int
    event_id: str
    kind: str
    at: Moment
    dead_at: Moment
    tries: int
    last_error: str | None


class Resend(Asked):
    """Which dead events are sent again; left out: all."""

    events: Annotated[list[Text128], Field(min_length=1, max_length=1000)] | None = Field(None, description="event_ids")


class Resent(Shown):
    """How many events wait again."""

    resent: int


class Tested(Shown):
    """The event that was put behind the others."""

    event_id: str
