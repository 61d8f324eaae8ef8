"""Bindings: who reaches whom by which 700 number, and until when.

Parties are masked in every response unless they are to be revealed, with a reason.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import Field, StringConstraints, model_validator

from relay.model.binding import (
    IDLE_TTL_S,
    MAX_CALL_S,
    RING_TIMEOUT_S,
    Binding,
    BindingChange,
    Direction,
    Mode,
)
from relay.operations.operation import Asker, Listing, found, operation
from relay.operations.shapes import (
    API_NAMES,
    BINDING_ID,
    FREE_TEXT,
    Hours,
    IndustrialId,
    Kept128,
    Kept1024,
    Masked,
    Moment,
    Name,
    Option,
    Party,
    PlatformNumber,
    RequestModel,
    ResponseModel,
    Text128,
    Time,
    Why,
    given,
    given_ms,
    left_out,
    shown_moment,
)
from relay.service import fields
from relay.service.bindings import bind, change, end, renew, steps
from relay.service.fields import LATEST_S, SOONEST_S, invalid
from relay.service.filings import filing_warning
from relay.service.placement import AreaMatch, PlacementRequest
from relay.store.bindings import BindingQuery, State, find_binding, find_page, state_of
from relay.store.connection import Connection
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms
from relay.translation import N_

ExpiresIn = Annotated[int, Field(ge=SOONEST_S, le=LATEST_S)]
MaxCall = Annotated[int, Field(ge=MAX_CALL_S[0], le=MAX_CALL_S[-1])]
IdleTtl = Annotated[int, Field(ge=IDLE_TTL_S[0], le=IDLE_TTL_S[-1])]
RingTimeout = Annotated[int, Field(ge=RING_TIMEOUT_S[0], le=RING_TIMEOUT_S[-1])]
BindingId = Annotated[str, StringConstraints(pattern=BINDING_ID)]


class ExpiryRequest(RequestModel, json_schema_extra={"examples": [{"expires_in": 7200}]}):
    """The expiry of a binding: one of the two fields, or neither."""

    expires_in: ExpiresIn | None = Field(None, description="seconds from now")
    expires_at: Time | None = Field(None, description="more than 60 s and at most 90 days ahead")

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError(N_("expires_in and expires_at exclude each other: send one of them"))
        return self


_A = "Real number of party a, of a kind in [numbers] parties."
_B = "Real number of party b."
_GROUP = "GXB, GXYB: group whose members call b."
_DIRECTION = "Who may call; members of a group count as a."
_MAX_CALL = "Maximum length of a call."
_RING_TIMEOUT = "Maximum ringing time."
_IDLE_TTL = "End so long after the last call; the expiry that is given is then the latest end."
_HOURS = "Service hours, China time."
_USER_DATA = "Text that each event returns."
_INDUSTRIAL_ID = "Industrial-internet identifier of the goods or the order, such as 88.101.1/1."


class BindingCreateRequest(
    ExpiryRequest,
    json_schema_extra={
        "examples": [{"mode": "AXB", "a": "13800000001", "b": "13900000002", "order_id": "17", "expires_in": 7200}]
    },
):
    """A binding to make."""

    mode: Mode
    a: Party | None = Field(None, description=_A)
    late: bool = Field(
        False, description="AXB, AXYB: make the binding without a. Its calls are refused until a change has set it."
    )
    b: Party | None = Field(None, description=_B)
    group_id: Name | None = Field(None, description=_GROUP)
    x: PlatformNumber | None = Field(None, description="700 number that a dials. Default: a free one.")
    y: PlatformNumber | None = Field(None, description="AXYB, GXYB: 700 number that b dials. Default: a free one.")
    pool_id: Name | None = Field(
        None, description="Pool to take free numbers from. Default: those of the business user, else the common one."
    )
    area: Kept128 | None = Field(None, description="Take free numbers from a pool of this area.")
    area_match: AreaMatch = Field("strict", description="loose: from other pools as well, after those of the area.")
    business_id: Name | None = Field(None, description="Business user. Default: `default`.")
    order_id: Kept128 | None = Field(
        None, description="Order that this binding serves. Required in the phase pilot, but for `default`."
    )
    consent: Kept128 | None = Field(None, description="Reference of the parties' consent.")
    user_data: Kept1024 | None = Field(None, description=_USER_DATA)
    direction: Direction = Field("both", description=_DIRECTION)
    max_call_s: MaxCall | None = Field(None, description=_MAX_CALL)
    ring_timeout_s: RingTimeout | None = Field(None, description=_RING_TIMEOUT)
    white_only: bool = Field(False, description="Accept callers on the whitelist only.")
    hours: Hours | None = Field(None, description=_HOURS)
    record: bool = Field(False, description="Record the calls, after an announcement to both sides.")
    industrial_id: IndustrialId | None = Field(None, description=_INDUSTRIAL_ID)
    idle_ttl_s: IdleTtl | None = Field(None, description=_IDLE_TTL)


class BindingChangeRequest(
    ExpiryRequest, json_schema_extra={"examples": [{"b": "13700000003", "expires_in": 7200, "version": 1}]}
):
    """Fields to change. Omitted fields keep their value, null clears one; `expires_at: null` removes the expiry."""

    a: Party | None = Field(None, description=_A)
    b: Party | None = Field(None, description=_B)
    group_id: Name = Field(default_factory=left_out, description=_GROUP)
    direction: Direction = Field(default_factory=left_out, description=_DIRECTION)
    max_call_s: MaxCall | None = Field(None, description=_MAX_CALL)
    ring_timeout_s: RingTimeout | None = Field(None, description=_RING_TIMEOUT)
    white_only: Annotated[bool, Option("--white-only/--all-callers")] = Field(
        default_factory=left_out, description="Accept callers on the whitelist only, or all."
    )
    hours: Hours | None = Field(None, description=_HOURS)
    user_data: Kept1024 | None = Field(None, description=_USER_DATA)
    record: bool = Field(default_factory=left_out, description="Record the calls, after an announcement to both sides.")
    industrial_id: IndustrialId | None = Field(None, description=_INDUSTRIAL_ID)
    idle_ttl_s: IdleTtl | None = Field(None, description=_IDLE_TTL)
    version: int | None = Field(None, ge=1, le=1 << 53, description="the current version; any other is refused")


class BindingListRequest(RequestModel):
    """The bindings to list."""

    number: PlatformNumber | None = Field(None, description="Only bindings of this 700 number.")
    order_id: Text128 | None = Field(None, description="Only bindings of this order.")
    group_id: Name | None = Field(None, description="Only bindings of this group.")
    business_id: Name | None = Field(None, description="Only bindings of this business user.")
    state: State | None = Field(None, description="Only bindings in this state.")
    mode: Mode | None = Field(None, description="Only bindings of this mode.")
    since: Time | None = Field(None, description="Only bindings made at this time or later.")


class BindingSearchRequest(
    BindingListRequest, json_schema_extra={"examples": [{"party": "13800000001", "state": "live"}]}
):
    """Search criteria. They are a body, because a URL would expose parties to proxies and logs."""

    party: Party | None = Field(None, description="Only bindings of this party, now or before a change.")


class BindingResponse(ResponseModel):
    """A binding."""

    id: str
    mode: Mode = Field(title=N_("Mode"))
    business_id: str = Field(title=N_("Business"))
    order_id: Annotated[str | None, FREE_TEXT] = Field(title=N_("Order"))
    x: str
    y: str | None
    a: Masked | None
    b: Masked | None
    created_at: Moment
    expires_at: Moment | None = Field(title=N_("Ends"))
    ended_at: Moment | None
    group_id: str | None = Field(title=N_("Group"))
    pool_id: str = Field(title=N_("Pool"))
    direction: Direction = Field(title=N_("Directions"))
    max_call_s: int | None = Field(title=N_("Longest call, seconds"))
    ring_timeout_s: int | None = Field(title=N_("Rings for, seconds"))
    white_only: bool = Field(title=N_("Only callers on the whitelist"))
    hours: str | None = Field(title=N_("Hours, China time"))
    consent: Annotated[str | None, FREE_TEXT] = Field(title=N_("Consent"))
    user_data: Annotated[str | None, FREE_TEXT] = Field(title=N_("Data of the business"))
    created_by: str
    changed_at: Moment | None
    changed_by: str | None
    released_at: Moment | None = Field(description="when its numbers were released")
    version: int
    ended_by: str | None = Field(description="actor that unbound it")
    record: bool = Field(title=N_("Calls are recorded"))
    industrial_id: Annotated[str | None, FREE_TEXT] = Field(title=N_("Industrial identifier"))
    idle_ttl_s: int | None = Field(
        title=N_("Ends so long after the last call, seconds"), description="each call moves expires_at"
    )
    max_expires_at: Moment | None = Field(title=N_("Ends at the latest"), description="with idle_ttl_s")
    state: State
    warning: str | None = Field(
        None, description="a problem found when it was made or changed, such as an A number that is not filed"
    )


class BindingStepResponse(ResponseModel):
    """One event in the life of a binding."""

    action: Literal["made", "changed", "ended"]
    at: Moment
    by: str | None
    changed: list[str] = Field(description="names of the changed fields")


class BindingHistoryResponse(ResponseModel):
    """The life of a binding, oldest event first."""

    items: list[BindingStepResponse]


_NAMES = [API_NAMES.get(name, name) for name in Binding._fields]
_MOMENTS = [name for name in Binding._fields if name.endswith("_at")]


def shown_binding(binding: Binding, at_ms: int, asker: Asker, warning: str | None = None) -> BindingResponse:
    """The response shape of a binding, with its state at `at_ms`."""
    values: dict[str, Any] = dict(zip(_NAMES, binding, strict=True))
    values["id"] = values.pop("binding_id")
    values |= {name: shown_moment(values[name]) for name in _MOMENTS}
    values |= {"a": asker.number(binding.a), "b": asker.number(binding.b), "state": state_of(binding, at_ms)}
    values["consent"] = binding.consent and asker.text(binding.consent)
    return BindingResponse(**values, warning=warning)


def wanted_binding(asked: BindingCreateRequest, asker: Asker, at_ms: int) -> PlacementRequest:
    """The binding to make. Raises Refused for a party that may not be bound, or an invalid expiry."""
    values = given(asked) | fields.both_parties({"a": asked.a or "", "b": asked.b or ""}, asker.rules.parties)
    values |= {"business": asker.own(asked.business_id), "x": asked.x or "", "pool": asked.pool_id or ""}
    values |= {"created_at": at_ms, "expires_at": _expiry(asked, asker, at_ms)}
    binding = fields.NEW._replace(**{name: value for name, value in values.items() if name in Binding._fields})
    return PlacementRequest(binding, asked.area or "", asked.area_match, asked.late)


def _expiry(asked: ExpiryRequest, asker: Asker, at_ms: int) -> int | None:
    """The expiry in Unix milliseconds. Raises Refused if it is too soon or too late.

    Checked inside the unit of work: a repeated request gets its stored response although its expiry has come near.
    """
    if asked.expires_in is not None:
        return at_ms + 1000 * asked.expires_in
    until_ms = given_ms(asked.expires_at)
    if until_ms is None:
        return None
    if asker.is_local:
        if until_ms <= at_ms:
            raise invalid("expires_in", "must be in the future")
    elif not SOONEST_S * 1000 < until_ms - at_ms <= LATEST_S * 1000:
        raise invalid("expires_at", "must be more than 60 seconds and at most 90 days in the future")
    return until_ms


def _changes(asked: BindingChangeRequest, asker: Asker, at_ms: int) -> BindingChange:
    """The given fields. Raises Refused as `wanted_binding` does."""
    values = given(asked)
    if values.keys() & {"expires_in", "expires_at"}:
        values["expires_at"] = _expiry(asked, asker, at_ms)
    parties = {name: values[name] or "" for name in values.keys() & {"a", "b"}}
    values |= fields.both_parties(parties, asker.rules.parties)
    return cast(BindingChange, {name: value for name, value in values.items() if name not in ("expires_in", "version")})


def made_binding(unit: UnitOfWork, binding: Binding, asker: Asker) -> BindingResponse:
    """The response shape of a binding just made or changed."""
    warning = filing_warning(unit.connection, unit.sealer, binding, asker.rules, unit.now_ms)
    return shown_binding(binding, unit.now_ms, asker, warning)


@operation(
    "POST /v1/bindings",
    name="createBinding",
    summary="Make a binding",
    scope="bindings:write",
    status=201,
    revealed="binding {id}",
)
def make_binding(unit: UnitOfWork, asker: Asker, asked: BindingCreateRequest) -> BindingResponse:
    """Effective from the next call. Numbers that are not given are chosen from the pool."""
    wanted = wanted_binding(asked, asker, unit.now_ms)
    return made_binding(unit, bind(unit, wanted, asker.rules, asker.binds), asker)


def _listing(asker: Asker, query: BindingQuery) -> Listing[Binding, str | None]:
    at_ms = now_ms()
    return Listing(
        lambda connection, before, most: find_page(connection, asker.sealer, query, at_ms, before, most),
        None,
        lambda binding: binding.binding_id,
        lambda binding, reader: shown_binding(binding, at_ms, reader),
    )


def _query(asker: Asker, asked: BindingListRequest) -> BindingQuery:
    return BindingQuery(
        business=asker.only(asked.business_id),
        number=asked.number,
        order_id=asked.order_id,
        group_id=asked.group_id,
        mode=asked.mode,
        state=asked.state,
        since_ms=given_ms(asked.since),
    )


@operation(
    "GET /v1/bindings",
    name="listBindings",
    summary="List bindings",
    scope="bindings:read",
    revealed="bindings",
    item=BindingResponse,
)
def list_bindings(asker: Asker, asked: BindingListRequest) -> Listing[Binding, str | None]:
    """Bindings, newest first. To search by party use POST /v1/bindings/search."""
    return _listing(asker, _query(asker, asked))


@operation(
    "POST /v1/bindings/search",
    name="searchBindings",
    summary="Search bindings",
    scope="bindings:read",
    revealed="bindings",
    item=BindingResponse,
)
def search_bindings(asker: Asker, asked: BindingSearchRequest) -> Listing[Binding, str | None]:
    """Bindings, newest first, also by party: a current one, one before a change, or a member of the group.

    The field `party` requires the scope parties:read.
    """
    return _listing(asker, _query(asker, asked)._replace(party=asker.looked_for(asked.party)))


def _own(connection: Connection, asker: Asker, binding_id: str) -> Binding:
    return found(find_binding(connection, asker.sealer, binding_id, asker.business), "binding")


@operation(
    "GET /v1/bindings/{binding_id}",
    name="getBinding",
    summary="Show a binding",
    scope="bindings:read",
    revealed="binding {binding_id}",
)
def show_binding(connection: Connection, asker: Asker, binding_id: BindingId) -> BindingResponse:
    """Show one binding."""
    return shown_binding(_own(connection, asker, binding_id), now_ms(), asker)


@operation(
    "GET /v1/bindings/{binding_id}/history",
    name="getBindingHistory",
    summary="Show the history of a binding",
    scope="bindings:read",
)
def show_history(connection: Connection, asker: Asker, binding_id: BindingId) -> BindingHistoryResponse:
    """List who made, changed and ended a binding, and when. The numbers in it are left out."""
    found_steps = steps(connection, asker.sealer, _own(connection, asker, binding_id))
    items = [BindingStepResponse(**step._asdict() | {"at": shown_moment(step.at)}) for step in found_steps]
    return BindingHistoryResponse(items=items)


@operation(
    "PATCH /v1/bindings/{binding_id}",
    name="updateBinding",
    summary="Change a binding",
    scope="bindings:write",
    revealed="binding {id}",
)
def change_binding(
    unit: UnitOfWork, asker: Asker, binding_id: BindingId, asked: BindingChangeRequest
) -> BindingResponse:
    """Change a binding, from the next call on. A replaced party cools down on the number.

    Fields that are not given keep their value; null, in a command "none", clears an optional one.
    """
    changes = _changes(asked, asker, unit.now_ms)
    return made_binding(unit, change(unit, binding_id, changes, asker.rules, asked.version), asker)


@operation(
    "POST /v1/bindings/{binding_id}/renew",
    name="renewBinding",
    summary="Renew a binding",
    scope="bindings:write",
    revealed="binding {id}",
)
def renew_binding(unit: UnitOfWork, asker: Asker, binding_id: BindingId, asked: ExpiryRequest) -> BindingResponse:
    """Set a new expiry for a binding in force.

    With an idle TTL it is the latest one: without calls the binding ends sooner.
    """
    renewed = renew(unit, binding_id, _expiry(asked, asker, unit.now_ms), asker.rules)
    return shown_binding(renewed, unit.now_ms, asker)


@operation("DELETE /v1/bindings/{binding_id}", name="endBinding", summary="End a binding", scope="bindings:write")
def end_binding(unit: UnitOfWork, asker: Asker, binding_id: BindingId, reason: Why = None) -> BindingResponse:
    """End a binding. The next call is refused; a live call goes on."""
    return shown_binding(end(unit, binding_id, asker.rules, reason or ""), unit.now_ms, asker)
