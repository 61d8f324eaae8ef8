"""Request and response models of bindings, groups and list entries. Parties are masked in every response."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator

from relay.api.models import (
    Asked,
    Hours,
    IndustrialId,
    Masked,
    Moment,
    Name,
    Number700,
    Party,
    Shown,
    Text128,
    Text1024,
    Time,
    left_out,
)
from relay.api.problems import Problem, field_errors
from relay.call.binding import Direction, Mode
from relay.service.fields import MAX_CALL_S, RING_TIMEOUT_S
from relay.store.bindings import State
from relay.store.lists import Kind

SOONEST_S = 60  # shortest life of a binding
LATEST_S = 90 * 86_400  # longest life of a binding
ExpiresIn = Annotated[int, Field(ge=SOONEST_S, le=LATEST_S, description="seconds from now")]
MaxCall = Annotated[int, Field(ge=MAX_CALL_S[0], le=MAX_CALL_S[-1])]
RingTimeout = Annotated[int, Field(ge=RING_TIMEOUT_S[0], le=RING_TIMEOUT_S[-1])]


class Expiry(Asked):
    """The expiry of a binding: one of the two fields, or neither."""

    expires_in: ExpiresIn | None = None
    expires_at: Time | None = Field(None, description="more than 60 s and at most 90 days ahead")

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError("expires_in and expires_at exclude each other: send one of them")
        return self


class BindingNew(Expiry):
    """A binding to make."""

    mode: Mode
    a: Party | None = Field(None, description="party a; in GXB and GXYB the callee of b until a member has called")
    b: Party | None = Field(None, description="party b; in AXN the callee of a until someone has called")
    group_id: Name | None = Field(None, description="GXB, GXYB: the group whose members call b")
    x: Number700 | None = Field(None, description="omitted: chosen from the pool")
    y: Number700 | None = Field(None, description="AXYB, GXYB only; omitted: chosen from the pool")
    pool: Name | None = Field(
        None, description="pool to choose numbers from; omitted: those of the business user, else the common one"
    )
    area: Text128 | None = Field(None, description="area of the pool to choose numbers from")
    business: Name | None = Field(None, description="for operator keys; omitted: `default`")
    order_id: Text128 | None = Field(None, description="required in the pilot phase")
    consent: Text128 | None = Field(None, description="reference of the parties' consent")
    user_data: Text1024 | None = Field(None, description="returned with each event")
    direction: Direction = "both"
    max_call_s: MaxCall | None = None
    ring_timeout_s: RingTimeout | None = None
    white_only: bool = Field(False, description="admit callers on the whitelist only")
    hours: Hours | None = None
    record: bool = Field(False, description="record its calls, after an announcement to both sides")
    industrial_id: IndustrialId | None = None


class BindingChange(Expiry):
    """Fields to change. Omitted fields keep their value, null clears one; `expires_at: null` removes the expiry."""

    a: Party | None = None
    b: Party | None = None
    group_id: Name = Field(default_factory=left_out)
    direction: Direction = Field(default_factory=left_out)
    max_call_s: MaxCall | None = None
    ring_timeout_s: RingTimeout | None = None
    white_only: bool = Field(default_factory=left_out)
    hours: Hours | None = None
    user_data: Text1024 | None = None
    record: bool = Field(default_factory=left_out)
    industrial_id: IndustrialId | None = None
    version: int | None = Field(None, ge=1, le=1 << 53, description="the current version; any other is refused")


class BindingSearch(Asked):
    """Search criteria. They are a body, because a URL would expose parties to proxies and logs."""

    number: Number700 | None = None
    party: Party | None = None
    order_id: Text128 | None = None
    group_id: Name | None = None
    business: Name | None = Field(None, description="for operator keys")
    state: State | None = None
    mode: Mode | None = None
    since: Time | None = Field(None, description="created at or after")


class Binding(Shown):
    """A binding."""

    id: str
    mode: Mode
    business: str
    pool: str
    x: str
    y: str | None
    a: Masked | None
    b: Masked | None
    group_id: str | None
    order_id: str | None
    consent: str | None
    user_data: str | None
    direction: Direction
    max_call_s: int | None
    ring_timeout_s: int | None
    white_only: bool
    hours: str | None
    state: State
    created_at: Moment
    created_by: str
    changed_at: Moment | None
    changed_by: str | None
    expires_at: Moment | None
    ended_at: Moment | None
    ended_by: str | None = Field(description="actor that unbound it")
    record: bool = Field(description="its calls are recorded")
    industrial_id: str | None
    warning: str | None = Field(
        None, description="a problem found when it was made or changed, such as an A number that is not filed"
    )
    version: int


class BindingStep(Shown):
    """One event in the life of a binding."""

    action: Literal["made", "changed", "ended"]
    at: Moment
    by: str | None
    changed: list[str] = Field(description="names of the changed fields")


class BindingHistory(Shown):
    """The life of a binding, oldest event first."""

    items: list[BindingStep]


class Malformed(NamedTuple):
    """A malformed item of a batch."""

    errors: list[tuple[str, str]]  # field and problem


def _item(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Validate one item; a malformed one does not fail the batch."""
    try:
        return read(value)
    except ValidationError as error:
        return Malformed(field_errors(error.errors(include_url=False, include_input=False)))


class Batch(Asked):
    """Up to 1,000 bindings to make, independently of each other."""

    items: Annotated[list[Annotated[BindingNew, WrapValidator(_item)]], Field(min_length=1, max_length=1000)]

    def asked(self) -> Sequence[BindingNew | Malformed]:
        """The items in the order of the request."""
        return self.items


class BatchAnswer(Shown):
    """The result of one item of a batch."""

    index: int = Field(default=0, description="index of the item in the request, from 0")
    status: int = Field(description="HTTP status of the item, as of a single request")
    binding: Binding | None = None
    problem: Problem | None = None


class BatchAnswers(Shown):
    """The results of a batch, in the order of the request."""

    items: list[BatchAnswer]


class GroupNew(Asked):
    """A group to make."""

    name: Text128
    business: Name | None = Field(None, description="for operator keys; omitted: `default`")
    members: list[Party] = Field(default=[], max_length=1000)


class Membership(Shown):
    """A group after a change of members."""

    group: Group
    changed: int = Field(description="number of members added or removed")


class Members(Asked):
    """Members to add or remove."""

    members: Annotated[list[Party], Field(min_length=1, max_length=1000)]


class Group(Shown):
    """A group of parties: the G of GXB and GXYB."""

    id: str
    business: str
    name: str
    size: int
    version: int
    created_at: Moment


class Member(Shown):
    """A member of a group."""

    number: Masked


class EntryNew(Asked):
    """A caller to put on the whitelist or blacklist."""

    number: Party
    kind: Kind


class EntryGone(Asked):
    """A caller to remove from a list."""

    number: Party


class Entry(Shown):
    """A caller on a list."""

    number: Masked
    kind: Kind
    added_at: Moment
    added_by: str


class EntryRemoved(Shown):
    """A caller removed from a list."""

    number: Masked
