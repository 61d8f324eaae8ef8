"""Business users and API keys, as asked for and as shown."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from relay.api.models import CLEAN, Asked, Hours, Moment, Name, Reason, Shown, Text128, Time, left_out
from relay.call.binding import MODES, Mode
from relay.call.routing import Language
from relay.service.businesses import LARGEST_LIMIT, LONGEST
from relay.service.keys import LONGEST_OVERLAP_S, OPERATOR_SCOPES, Scope
from relay.service.qualification import Scenario
from relay.store.businesses import State

Licence = Annotated[str, StringConstraints(max_length=LONGEST["licence"], pattern=CLEAN)]
Application = Annotated[str, StringConstraints(max_length=LONGEST["application"], pattern=CLEAN)]
Contact = Annotated[str, StringConstraints(max_length=LONGEST["contact"], pattern=CLEAN)]
Scheme = Annotated[str, StringConstraints(max_length=LONGEST["scheme"], pattern=CLEAN)]
Limit = Annotated[int, Field(ge=0, le=LARGEST_LIMIT)] | Literal["none"] | None
Modes = Annotated[list[Mode], Field(min_length=1, max_length=len(MODES), json_schema_extra={"uniqueItems": True})]

Scopes = Annotated[
    list[Scope], Field(min_length=1, max_length=len(OPERATOR_SCOPES), json_schema_extra={"uniqueItems": True})
]


class _Terms(Asked):
    """What is agreed with a business user and may be changed."""

    licence: Licence = Field("", description="number of its business licence")
    application: Application = Field("", description="reference of its application for the pilot")
    scenario: Scenario = "other"
    contact: Contact = Field("", description="person and phone; sealed at rest")
    scheme: Scheme = Field("", description="reference of the technical scheme")
    modes: Modes = Field(default=[*MODES], description="of bindings it may make")
    max_bindings: Limit = Field(None, description="live at once; null: as configured in [quotas]; none: no limit")
    max_calls: Limit = Field(None, description="at once; likewise")
    max_cps: Limit = Field(None, description="new calls a second; likewise")
    max_binds_per_s: Limit = Field(None, description="bindings that its keys make a second; likewise")
    max_binds_per_day: Limit = Field(None, description="bindings made on a day in China; likewise")
    white_only: bool = Field(False, description="only callers on its whitelist get through")
    hours: Hours | None = None
    live_events: bool = Field(False, description="also tell call.received, call.ringing and call.answered")
    language: Language | None = Field(None, description="of announcements; null: as the relay is configured")


class BusinessNew(_Terms):
    """An application of a business user."""

    id: Name | None = Field(None, description="of your choice, for good; left out: one is made", examples=["acme"])
    name: Text128


class BusinessChange(Asked):
    """What is to change; what is left out stays."""

    name: Text128 = Field(default_factory=left_out)
    licence: Licence = Field(default_factory=left_out)
    application: Application = Field(default_factory=left_out)
    scenario: Scenario = Field(default_factory=left_out)
    contact: Contact = Field(default_factory=left_out)
    scheme: Scheme = Field(default_factory=left_out)
    modes: Modes = Field(default_factory=left_out)
    max_bindings: Limit = None
    max_calls: Limit = None
    max_cps: Limit = None
    max_binds_per_s: Limit = None
    max_binds_per_day: Limit = None
    white_only: bool = Field(default_factory=left_out)
    hours: Hours | None = None
    live_events: bool = Field(default_factory=left_out)
    language: Language | None = None
    version: int | None = Field(None, ge=1, le=1 << 53, description="change only this version")
    reason: Reason | None = Field(None, description="why; needed where the qualification of an approved one changes")


class Business(Shown):
    """A business user."""

    id: str
    state: State
    name: str
    licence: str
    application: str
    scenario: Scenario
    contact: str = Field(description="numbers in it are masked")
    scheme: str
    modes: list[Mode]
    max_bindings: Limit = Field(description="null: as configured in [quotas]; none: no limit")
    max_calls: Limit
    max_cps: Limit
    max_binds_per_s: Limit
    max_binds_per_day: Limit
    live_bindings: int
    white_only: bool
    hours: str | None
    live_events: bool
    language: Language | None
    version: int
    created_at: Moment
    updated_at: Moment
    qualification: int = Field(description="the version that was approved last, as call records name it")


class Changed(Shown):
    """A field of the qualification, or the contact, before and after. Numbers in a contact are masked."""

    field: str
    before: str
    after: str


class BusinessEvent(Shown):
    """One change of state, qualification or contact."""

    state: State
    reason: str
    by: str
    at: Moment
    version: int = Field(description="that it led to; that of an approval is the `qualification` of call records")
    changed: list[Changed]


class History(Shown):
    """All changes of state, qualification and contact, the oldest first."""

    items: list[BusinessEvent]


class KeyNew(Asked):
    """A key that is asked for."""

    scopes: Scopes
    expires_at: Time | None = None


class KeyRotation(Asked):
    """How long the old secret of a key stays good."""

    overlap_s: int = Field(0, ge=0, le=LONGEST_OVERLAP_S)


class Key(Shown):
    """A key, without its secret."""

    id: str
    business: str | None = Field(description="null: an operator's key")
    scopes: list[str]
    created_at: Moment
    created_by: str
    expires_at: Moment | None
    revoked_at: Moment | None


class KeyMade(Key):
    """A new key. The secret is shown now and never again."""

    secret: str | None = Field(description="to send as `Authorization: Bearer`; null in a repeated answer")
