"""Request and response models of business users and API keys."""

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
    """The changeable terms of a business user."""

    licence: Licence = Field("", description="number of its business licence")
    application: Application = Field("", description="reference of its application for the pilot")
    scenario: Scenario = "other"
    contact: Contact = Field("", description="person and phone; sealed at rest")
    scheme: Scheme = Field("", description="reference of the technical scheme")
    modes: Modes = Field(default=[*MODES], description="binding modes it may use")
    max_bindings: Limit = Field(None, description="live bindings; null: as configured in [quotas]; none: unlimited")
    max_calls: Limit = Field(None, description="concurrent calls; null and none as above")
    max_cps: Limit = Field(None, description="new calls per second; null and none as above")
    max_binds_per_s: Limit = Field(None, description="new bindings per second by its keys; null and none as above")
    max_binds_per_day: Limit = Field(None, description="new bindings per day, China time; null and none as above")
    white_only: bool = Field(False, description="admit callers on its whitelist only")
    hours: Hours | None = None
    live_events: bool = Field(False, description="also send call.received, call.ringing and call.answered")
    language: Language | None = Field(None, description="language of announcements; null: as configured")


class BusinessNew(_Terms):
    """The application of a business user."""

    id: Name | None = Field(None, description="permanent id of your choice; omitted: generated", examples=["acme"])
    name: Text128


class BusinessChange(Asked):
    """Fields to change. Omitted fields keep their value."""

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
    version: int | None = Field(None, ge=1, le=1 << 53, description="the current version; any other is refused")
    reason: Reason | None = Field(
        None, description="reason for the audit log; required if the qualification of an approved business user changes"
    )


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
    max_bindings: Limit = Field(description="null: as configured in [quotas]; none: unlimited")
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
    qualification: int = Field(description="version approved last; call records refer to it")


class Changed(Shown):
    """A change of the contact or of one field of the qualification. Numbers in a contact are masked."""

    field: str
    before: str
    after: str


class BusinessEvent(Shown):
    """One change of state, qualification or contact."""

    state: State
    reason: str
    by: str
    at: Moment
    version: int = Field(description="resulting version; of an approval: the `qualification` of call records")
    changed: list[Changed]


class History(Shown):
    """All changes of state, qualification and contact, oldest first."""

    items: list[BusinessEvent]


class KeyNew(Asked):
    """A key to make."""

    scopes: Scopes
    expires_at: Time | None = None


class KeyRotation(Asked):
    """The rotation of a key."""

    overlap_s: int = Field(0, ge=0, le=LONGEST_OVERLAP_S, description="seconds for which the old key stays valid")


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
    """A new key, with its secret. The secret is shown only once."""

    secret: str | None = Field(description="value for `Authorization: Bearer`; null in a repeated response")
