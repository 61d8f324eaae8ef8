"""Bindings, groups and list entries, as asked for and as shown. Parties are masked in every answer."""

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

SOONEST_S = 60  # from now, that a binding may end by itself
LATEST_S = 90 * 86_400
ExpiresIn = Annotated[int, Field(ge=SOONEST_S, le=LATEST_S, description="seconds from now")]
MaxCall = Annotated[int, Field(ge=MAX_CALL_S[0], le=MAX_CALL_S[-1])]
RingTimeout = Annotated[int, Field(ge=RING_TIMEOUT_S[0], le=RING_TIMEOUT_S[-1])]


class Expiry(Asked):
    """When a binding ends by itself: one of the two, or neither."""

    expires_in: ExpiresIn | None = None
    expires_at: Time | None = Field(None, description="more than 60 s ahead")

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError("give expires_in or expires_at, not both")
        return self


class BindingNew(Expiry):
    """A binding that is asked for."""

    mode: Mode
    a: Party | None = Field(None, description="party a; in GXB and GXYB whom b reaches before any member has called")
    b: Party | None = Field(None, description="party b; in AXN whom a reaches before anybody has called")
    group_id: Name | None = Field(None, description="GXB, GXYB: whose members call b")
    x: Number700 | None = Field(None, description="left out: one of the pool is chosen")
    y: Number700 | None = Field(None, description="AXYB, GXYB")
    pool: Name | None = Field(None, description="to choose from; left out: its own, else the common one")
    area: Text128 | None = Field(None, description="of the pool to choose from")
    business: Name | None = Field(None, description="for operator keys; left out: `default`")
    order_id: Text128 | None = Field(None, description="needed in the pilot phase")
    consent: Text128 | None = Field(None, description="reference of the parties' consent")
    user_data: Text1024 | None = Field(None, description="comes back with each event")
    direction: Direction = "both"
    max_call_s: MaxCall | None = None
    ring_timeout_s: RingTimeout | None = None
    white_only: bool = Field(False, description="only callers on the whitelist get through")
    hours: Hours | None = None
    record: bool = Field(False, description="its calls are recorded, both sides are told so first")
    industrial_id: IndustrialId | None = None


class BindingChange(Expiry):
    """What is to change; what is left out stays, null clears. `expires_at: null` makes it endless."""

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
    version: int | None = Field(None, ge=1, le=1 << 53, description="change only this version")


class BindingSearch(Asked):
    """What bindings are looked for. Parties stand here, since an address would show them to proxies and logs."""

    number: Number700 | None = None
    party: Party | None = None
    order_id: Text128 | None = None
    group_id: Name | None = None
    business: Name | None = Field(None, description="for operator keys")
    state: State | None = None
    mode: Mode | None = None
    since: Time | None = Field(None, description="made at or after")


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
    ended_by: str | None = Field(description="who unbound it")
    record: bool = Field(description="its calls are recorded")
    industrial_id: str | None
    warning: str | None = Field(
        None, description="where it is made or changed: what is amiss, such as an A number not filed"
    )
    version: int


class BindingStep(Shown):
    """That somebody made, changed or ended a binding."""

    action: Literal["made", "changed", "ended"]
    at: Moment
    by: str | None
    changed: list[str] = Field(description="names of fields")


class BindingHistory(Shown):
    """Who did what to a binding, in the order of time."""

    items: list[BindingStep]


class Malformed(NamedTuple):
    """An item of a batch that no binding can be asked for with."""

    errors: list[tuple[str, str]]  # field and problem


def _item(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """A wrong one is its own fault, and not that of the batch."""
    try:
        return read(value)
    except ValidationError as error:
        return Malformed(field_errors(error.errors(include_url=False, include_input=False)))


class Batch(Asked):
    """Many bindings. Each stands for itself."""

    items: Annotated[list[Annotated[BindingNew, WrapValidator(_item)]], Field(min_length=1, max_length=1000)]

    def asked(self) -> Sequence[BindingNew | Malformed]:
        """In the order of the request."""
        return self.items


class BatchAnswer(Shown):
    """What became of one of them."""

    index: int = Field(default=0, description="its place in the request, from 0")
    status: int = Field(description="as if it had been asked for alone")
    binding: Binding | None = None
    problem: Problem | None = None


class BatchAnswers(Shown):
    """In the order of the request."""

    items: list[BatchAnswer]


class GroupNew(Asked):
    """A group that is asked for."""

    name: Text128
    business: Name | None = Field(None, description="for operator keys; left out: `default`")
    members: list[Party] = Field(default=[], max_length=1000)


class Membership(Shown):
    """What became of the parties."""

    group: Group
    changed: int = Field(description="how many were added or removed")


class Members(Asked):
    """Parties of a group."""

    members: Annotated[list[Party], Field(min_length=1, max_length=1000)]


class Group(Shown):
    """A group of parties: G of GXB and GXYB."""

    id: str
    business: str
    name: str
    size: int
    version: int
    created_at: Moment


class Member(Shown):
    """A party of a group."""

    number: Masked


class EntryNew(Asked):
    """A caller to be let in (white) or kept out (black)."""

    number: Party
    kind: Kind


class EntryGone(Asked):
    """A caller to be taken off a list."""

    number: Party


class Entry(Shown):
    """A caller on a list."""

    number: Masked
    kind: Kind
    added_at: Moment
    added_by: str


class EntryRemoved(Shown):
    """A caller that was taken off a list."""

    number: Masked
