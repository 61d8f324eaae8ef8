"""Bindings over HTTP: models and routes.

Parties are masked in every response unless they are to be revealed, with a reason.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, Self, cast

from fastapi import Depends, Path
from pydantic import Field, model_validator
from starlette.responses import Response

from relay.api.context import Answer, Changes, Needs, RequestContext, Reveal, Revealing, Why
from relay.api.models import (
    API_NAMES,
    BINDING_ID,
    Hours,
    IndustrialId,
    Kept128,
    Kept1024,
    Masked,
    Moment,
    Name,
    Page,
    Paging,
    Party,
    PlatformNumber,
    RequestModel,
    ResponseModel,
    Text128,
    Time,
    given,
    given_ms,
    left_out,
    shown_moment,
)
from relay.api.routes import Router
from relay.model.binding import IDLE_TTL_S, MAX_CALL_S, RING_TIMEOUT_S, Binding, BindingChange, Direction, Mode
from relay.model.numbers import Parties, mask_number
from relay.service import fields
from relay.service.bindings import bind, change, end, renew, steps
from relay.service.fields import LATEST_S, SOONEST_S, invalid
from relay.service.filings import filing_warning
from relay.service.placement import AreaMatch, PlacementRequest
from relay.store.bindings import BindingQuery, State, find_binding, find_page, state_of
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms
from relay.translation import N_

ExpiresIn = Annotated[int, Field(ge=SOONEST_S, le=LATEST_S, description="seconds from now")]
MaxCall = Annotated[int, Field(ge=MAX_CALL_S[0], le=MAX_CALL_S[-1])]
IdleTtl = Annotated[
    int,
    Field(
        ge=IDLE_TTL_S[0],
        le=IDLE_TTL_S[-1],
        description="it ends so many seconds after its last call, and at the latest at the expiry that is given",
    ),
]
RingTimeout = Annotated[int, Field(ge=RING_TIMEOUT_S[0], le=RING_TIMEOUT_S[-1])]


class ExpiryRequest(RequestModel, json_schema_extra={"examples": [{"expires_in": 7200}]}):
    """The expiry of a binding: one of the two fields, or neither."""

    expires_in: ExpiresIn | None = None
    expires_at: Time | None = Field(None, description="more than 60 s and at most 90 days ahead")

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.expires_in is not None and self.expires_at is not None:
            raise ValueError(N_("expires_in and expires_at exclude each other: send one of them"))
        return self


class BindingCreateRequest(
    ExpiryRequest,
    json_schema_extra={
        "examples": [{"mode": "AXB", "a": "13800000001", "b": "13900000002", "order_id": "17", "expires_in": 7200}]
    },
):
    """A binding to make."""

    mode: Mode
    a: Party | None = Field(None, description="party a; in GXB and GXYB the callee of b until a member has called")
    late: bool = Field(False, description="AXB, AXYB: a is given later, by a change; until then nobody reaches b")
    b: Party | None = Field(None, description="party b; in AXN the callee of a until someone has called")
    group_id: Name | None = Field(None, description="GXB, GXYB: the group whose members call b")
    x: PlatformNumber | None = Field(None, description="omitted: chosen from the pool")
    y: PlatformNumber | None = Field(None, description="AXYB, GXYB only; omitted: chosen from the pool")
    pool_id: Name | None = Field(
        None, description="pool to choose numbers from; omitted: those of the business user, else the common one"
    )
    area: Kept128 | None = Field(None, description="area of the pool to choose numbers from")
    area_match: AreaMatch = Field(
        "strict", description="strict: only pools of the area; loose: other pools as well, after those of the area"
    )
    business_id: Name | None = Field(None, description="for operator keys; omitted: `default`")
    order_id: Kept128 | None = Field(None, description="required in the pilot phase")
    consent: Kept128 | None = Field(None, description="reference of the parties' consent")
    user_data: Kept1024 | None = Field(None, description="returned with each event")
    direction: Direction = "both"
    max_call_s: MaxCall | None = None
    ring_timeout_s: RingTimeout | None = None
    white_only: bool = Field(False, description="admit callers on the whitelist only")
    hours: Hours | None = None
    record: bool = Field(False, description="record its calls, after an announcement to both sides")
    industrial_id: IndustrialId | None = None
    idle_ttl_s: IdleTtl | None = None


class BindingChangeRequest(
    ExpiryRequest, json_schema_extra={"examples": [{"b": "13700000003", "expires_in": 7200, "version": 1}]}
):
    """Fields to change. Omitted fields keep their value, null clears one; `expires_at: null` removes the expiry."""

    a: Party | None = None
    b: Party | None = None
    group_id: Name = Field(default_factory=left_out)
    direction: Direction = Field(default_factory=left_out)
    max_call_s: MaxCall | None = None
    ring_timeout_s: RingTimeout | None = None
    white_only: bool = Field(default_factory=left_out)
    hours: Hours | None = None
    user_data: Kept1024 | None = None
    record: bool = Field(default_factory=left_out)
    industrial_id: IndustrialId | None = None
    idle_ttl_s: IdleTtl | None = None
    version: int | None = Field(None, ge=1, le=1 << 53, description="the current version; any other is refused")


class BindingSearchRequest(RequestModel, json_schema_extra={"examples": [{"party": "13800000001", "state": "live"}]}):
    """Search criteria. They are a body, because a URL would expose parties to proxies and logs."""

    number: PlatformNumber | None = None
    party: Party | None = None
    order_id: Text128 | None = None
    group_id: Name | None = None
    business_id: Name | None = Field(None, description="for operator keys")
    state: State | None = None
    mode: Mode | None = None
    since: Time | None = Field(None, description="created at or after")


class BindingResponse(ResponseModel):
    """A binding."""

    id: str
    mode: Mode
    business_id: str
    pool_id: str
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
    idle_ttl_s: int | None = Field(description="it ends so long after its last call: each moves expires_at")
    max_expires_at: Moment | None = Field(description="its latest end, with idle_ttl_s")
    warning: str | None = Field(
        None, description="a problem found when it was made or changed, such as an A number that is not filed"
    )
    version: int


class BindingStepResponse(ResponseModel):
    """One event in the life of a binding."""

    action: Literal["made", "changed", "ended"]
    at: Moment
    by: str | None
    changed: list[str] = Field(description="names of the changed fields")


class BindingHistoryResponse(ResponseModel):
    """The life of a binding, oldest event first."""

    items: list[BindingStepResponse]


# -- Routes of bindings

router = Router(prefix="/v1/bindings", tags=["bindings"])
BindingId = Annotated[str, Path(pattern=BINDING_ID)]
Reads = Annotated[RequestContext, Depends(Needs("bindings:read"))]
Writes = Annotated[RequestContext, Depends(Changes("bindings:write"))]
_NAMES = [API_NAMES.get(name, name) for name in Binding._fields]


def shown_binding(
    binding: Binding,
    at_ms: int,
    *,
    clear: bool = False,
    text: Callable[[str], str] = str,
    warning: str | None = None,
) -> BindingResponse:
    """The response model of a binding, with its state at `at_ms`. `text` shows its consent (`RequestContext.text`)."""
    values: dict[str, Any] = dict(zip(_NAMES, binding, strict=True))
    del values["released_at"]
    values["id"] = values.pop("binding_id")
    for party in ("a", "b"):
        values[party] = values[party] if clear or values[party] is None else mask_number(values[party])
    values["consent"] = binding.consent and text(binding.consent)
    for moment in ("created_at", "changed_at", "expires_at", "ended_at", "max_expires_at"):
        values[moment] = shown_moment(values[moment])
    values["state"] = state_of(binding, at_ms)
    return BindingResponse(**values, warning=warning)


def _own(context: RequestContext, binding_id: str) -> Binding:
    return context.one(
        lambda connection: find_binding(connection, context.backend.sealer, binding_id, context.business), "binding"
    )


def wanted_binding(asked: BindingCreateRequest, business: str, parties: Parties, at_ms: int) -> PlacementRequest:
    """The binding to make. Raises Refused for a party that may not be bound, or an invalid expiry."""
    both = fields.both_parties({"a": asked.a or "", "b": asked.b or ""}, parties)
    binding = Binding(
        binding_id="",
        mode=asked.mode,
        business=business,
        order_id=asked.order_id,
        x=asked.x or "",
        y=asked.y,
        a=both["a"],
        b=both["b"],
        created_at=at_ms,
        expires_at=_expiry(asked, at_ms),
        group_id=asked.group_id,
        pool=asked.pool_id or "",
        direction=asked.direction,
        max_call_s=asked.max_call_s,
        ring_timeout_s=asked.ring_timeout_s,
        white_only=asked.white_only,
        hours=asked.hours,
        consent=asked.consent,
        user_data=asked.user_data,
        record=asked.record,
        industrial_id=asked.industrial_id,
        idle_ttl_s=asked.idle_ttl_s,
    )
    return PlacementRequest(binding, asked.area or "", asked.area_match, asked.late)


def _expiry(asked: ExpiryRequest, at_ms: int) -> int | None:
    """The expiry in Unix milliseconds. Raises Refused if it is too soon or too late.

    Checked inside the unit of work: a repeated request gets its stored response although its expiry has come near.
    """
    if asked.expires_in is not None:
        return at_ms + 1000 * asked.expires_in
    until_ms = given_ms(asked.expires_at)
    if until_ms is not None and not SOONEST_S * 1000 < until_ms - at_ms <= LATEST_S * 1000:
        raise invalid("expires_at", "must be more than 60 seconds and at most 90 days in the future")
    return until_ms


def _changes(asked: BindingChangeRequest, parties: Parties, at_ms: int) -> BindingChange:
    """The given fields. Raises Refused as `wanted_binding` does."""
    values = given(asked)
    if values.keys() & {"expires_in", "expires_at"}:
        values["expires_at"] = _expiry(asked, at_ms)
    values |= fields.both_parties({name: values[name] or "" for name in values.keys() & {"a", "b"}}, parties)
    return cast(BindingChange, {name: value for name, value in values.items() if name not in ("expires_in", "version")})


@router.post(
    "", status_code=201, response_model=BindingResponse, operation_id="createBinding", summary="Make a binding"
)
async def post_binding(asked: BindingCreateRequest, context: Writes) -> Response:
    """Effective from the next call. Numbers that are not given are chosen from the pool."""
    business, rules = context.own(asked.business_id), context.backend.settings.rules

    def do(unit: UnitOfWork) -> Answer:
        wanted = wanted_binding(asked, business, rules.parties, unit.now_ms)
        binding = bind(unit, wanted, rules, context.binds)
        warning = filing_warning(unit.connection, unit.sealer, binding, rules, unit.now_ms)
        return Answer(shown_binding(binding, unit.now_ms, warning=warning), 201, f"/v1/bindings/{binding.binding_id}")

    return await context.change(do)


async def _found(
    context: RequestContext, asked: BindingSearchRequest, reveal: Reveal, paging: Paging
) -> Page[BindingResponse]:
    sealer = context.backend.sealer
    query = BindingQuery(
        business=context.only(asked.business_id),
        number=asked.number,
        party=context.looked_for(asked.party),
        order_id=asked.order_id,
        group_id=asked.group_id,
        mode=asked.mode,
        state=asked.state,
        since_ms=given_ms(asked.since),
    )
    at_ms = now_ms()
    found = await context.part(
        "bindings",
        paging,
        lambda connection, before, most: find_page(connection, sealer, query, at_ms, before, most),
        None,
        lambda binding: binding.binding_id,
    )
    clear = await context.reveal(reveal, "bindings", [binding.binding_id for binding in found.items])
    text = partial(context.text, clear=clear)
    return found.shown(lambda binding: shown_binding(binding, at_ms, clear=clear, text=text))


@router.get("", operation_id="listBindings", summary="List bindings")
async def get_bindings(
    context: Reads,
    paging: Paging,
    reveal: Revealing,
    number: PlatformNumber | None = None,
    order_id: Text128 | None = None,
    group_id: Name | None = None,
    business_id: Name | None = None,
    state: State | None = None,
    mode: Mode | None = None,
    since: Time | None = None,
) -> Page[BindingResponse]:
    """Bindings, newest first. To search by party use POST /v1/bindings/search."""
    asked = BindingSearchRequest(
        number=number,
        order_id=order_id,
        group_id=group_id,
        business_id=business_id,
        state=state,
        mode=mode,
        since=since,
    )
    return await _found(context, asked, reveal, paging)


@router.post("/search", operation_id="searchBindings", summary="Search bindings")
async def search_bindings(
    asked: BindingSearchRequest, context: Reads, paging: Paging, reveal: Revealing
) -> Page[BindingResponse]:
    """Bindings, newest first, also by party: a current one, one before a change, or a member of the group.

    The field `party` requires the scope parties:read.
    """
    return await _found(context, asked, reveal, paging)


@router.get("/{binding_id}", operation_id="getBinding", summary="Show a binding")
async def get_binding(binding_id: BindingId, context: Reads, reveal: Revealing) -> BindingResponse:
    """A binding, live or ended."""
    found = _own(context, binding_id)
    clear = await context.reveal(reveal, f"binding {binding_id}")
    return shown_binding(found, now_ms(), clear=clear, text=partial(context.text, clear=clear))


@router.get("/{binding_id}/history", operation_id="getBindingHistory", summary="Show the history of a binding")
async def get_history(binding_id: BindingId, context: Reads) -> BindingHistoryResponse:
    """Who made, changed and ended it, and when. Changed fields are named, without their values."""
    binding = _own(context, binding_id)
    found = await context.read(lambda connection: steps(connection, context.backend.sealer, binding))
    items = [BindingStepResponse(**step._asdict() | {"at": shown_moment(step.at)}) for step in found]
    return BindingHistoryResponse(items=items)


@router.patch("/{binding_id}", response_model=BindingResponse, operation_id="updateBinding", summary="Change a binding")
async def patch_binding(binding_id: BindingId, asked: BindingChangeRequest, context: Writes) -> Response:
    """Change a live binding, effective from the next call. A replaced party cools down on the number."""
    rules = context.backend.settings.rules

    def do(unit: UnitOfWork) -> Answer:
        changed = change(unit, binding_id, _changes(asked, rules.parties, unit.now_ms), rules, asked.version)
        warning = filing_warning(unit.connection, unit.sealer, changed, rules, unit.now_ms)
        return Answer(shown_binding(changed, unit.now_ms, text=context.text, warning=warning))

    return await context.change(do)


@router.post(
    "/{binding_id}/renew", response_model=BindingResponse, operation_id="renewBinding", summary="Renew a binding"
)
async def post_renewal(binding_id: BindingId, asked: ExpiryRequest, context: Writes) -> Response:
    """Set a new expiry of a live binding."""
    rules = context.backend.settings.rules

    def do(unit: UnitOfWork) -> Answer:
        renewed = renew(unit, binding_id, _expiry(asked, unit.now_ms), rules)
        return Answer(shown_binding(renewed, unit.now_ms, text=context.text))

    return await context.change(do)


@router.delete("/{binding_id}", response_model=BindingResponse, operation_id="endBinding", summary="End a binding")
async def delete_binding(binding_id: BindingId, context: Writes, why: Why = None) -> Response:
    """Refuse calls from the next one on; calls that are up continue. The binding can still be read."""
    rules = context.backend.settings.rules
    return await context.change(
        lambda unit: Answer(shown_binding(end(unit, binding_id, rules, why or ""), unit.now_ms, text=context.text))
    )
