"""Webhooks and the events that could not be delivered."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from relay.api.models import Asked, Moment, Name, Shown

EventKind = Literal[
    "call.received",
    "call.ringing",
    "call.answered",
    "call.ended",
    "call.refused",
    "binding.expired",
    "number.cooling",
]
Parties = Literal["none", "masked", "clear"]
Kinds = Annotated[list[EventKind], Field(min_length=1, max_length=7, json_schema_extra={"uniqueItems": True})]
_NEAR = ("127.0.0.1", "::1", "localhost")


def _is_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        near = parts.hostname in _NEAR
        _ = parts.port
    except ValueError:
        raise ValueError("it is no URL") from None
    if not parts.hostname or parts.username is not None or parts.fragment:
        raise ValueError("it has a host, and neither a user nor a fragment")
    if parts.scheme == "http" and not near:
        raise ValueError("http is for loopback addresses alone: write https")
    return text


Url = Annotated[
    str,
    StringConstraints(max_length=500, pattern=r"^https?://[!-~]+$"),
    AfterValidator(_is_url),
    Field(description="https; http to a loopback address only", examples=["https://platform.example/events"]),
]


class WebhookNew(Asked):
    """A webhook that is asked for."""

    url: Url
    kinds: Kinds
    parties: Parties = Field("masked", description="how caller and callee come; `clear` needs parties:read")
    business: Name | None = Field(None, description="for operator keys; left out: `default`")


class WebhookChange(Asked):
    """What is to change; what is left out stays."""

    url: Url | None = None
    kinds: Kinds | None = None
    parties: Parties | None = None
    enabled: bool | None = None


class Webhook(Shown):
    """Where the events of a business user go."""

    id: str
    business: str
    url: str
    kinds: list[EventKind]
    parties: Parties
    enabled: bool
    failures: int = Field(description="in a row")
    next_at: Moment | None = Field(description="of the next try after a failure")
    created_at: Moment


class WebhookMade(Webhook):
    """A new webhook. The secret is shown now and never again."""

    secret: str = Field(description="key of the HMAC in Relay700-Signature")


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

    events: Annotated[list[Annotated[int, Field(ge=1, le=1 << 53)]], Field(min_length=1, max_length=1000)] | None = None


class Resent(Shown):
    """How many events wait again."""

    resent: int


class Tested(Shown):
    """The event that was put behind the others."""

    event_id: str
