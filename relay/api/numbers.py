"""Prefixes, numbers and pools over HTTP: models and routes."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path
from pydantic import Field
from starlette.responses import Response

from relay.api.context import Answer, Changes, Needs, Operator, OperatorChanges, RequestContext
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.errors import Refused
from relay.operations.shapes import (
    ManagedPrefix,
    Moment,
    Name,
    Number700,
    Reason,
    ReasonRequest,
    RequestModel,
    ResponseModel,
    Text64,
    api_named,
    given,
    left_out,
    shown_moment,
)
from relay.operations.shapes import ManagedPrefix as PrefixText
from relay.service.numbers import (
    MOST_BINDINGS,
    WARN_PERCENT,
    PoolChange,
    PrefixChange,
    change_pool,
    change_prefix,
    end_rest,
    get_prefix,
    hold,
    load_prefix,
    lock,
    make_pool,
    move,
    new_pool,
    new_prefix,
    unhold,
    unlock,
)
from relay.store.numbers import (
    LONGEST_COOL_DOWN_MS,
    Lock,
    Number,
    NumberQuery,
    Pool,
    PoolUsage,
    Prefix,
    PrefixState,
    State,
    find_number,
    find_numbers,
    find_pool,
    find_pools,
    find_prefix,
    find_prefixes,
    is_held_by,
    number_seen_by,
    usage_seen_by,
)
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

CoolDown = Annotated[int, Field(ge=0, le=LONGEST_COOL_DOWN_MS // 1000, description="seconds")]


class PrefixCreateRequest(
    RequestModel, json_schema_extra={"examples": [{"prefix": "70010000001", "peer": "carrier", "pool_id": "default"}]}
):
    """A prefix of 10,000 numbers, assigned by the ministry."""

    prefix: ManagedPrefix
    peer: Text64 = Field("", description="name of the carrier's [[peer]]")
    pool_id: Name = "default"
    cool_down_s: CoolDown | None = Field(None, description="seconds; null: as configured")


class PrefixChangeRequest(RequestModel, json_schema_extra={"examples": [{"state": "locked", "reason": "case 114"}]}):
    """Fields to change. Omitted fields keep their value; the state `returned` is final."""

    state: PrefixState = Field(default_factory=left_out)
    peer: Text64 = Field(default_factory=left_out)
    cool_down_s: CoolDown | None = Field(None, description="seconds; null: as configured")
    reason: Reason = Field(default_factory=left_out)


class PrefixResponse(ResponseModel):
    """A prefix."""

    prefix: str
    operator: str = Field(description="the carrier's digit, the fourth")
    platform: str = Field(description="digits 5 to 11")
    peer: str
    state: PrefixState
    cool_down_s: int | None
    created_at: Moment


class PrefixLoadedResponse(PrefixResponse):
    """A prefix after loading."""

    loaded: int = Field(description="count of added numbers")


class NumberResponse(ResponseModel):
    """A 700 number."""

    number: str
    prefix: str
    pool_id: str
    state: State
    locked_by: list[Lock]
    bindings: int | None = Field(description="live bindings; null if other business users may share the number")
    exclusive: bool = Field(description="taken by an AXN binding, which shares with no other")
    cools_until: Moment | None
    legacy: bool


class MoveRequest(
    RequestModel, json_schema_extra={"examples": [{"pool_id": "acme-beijing", "numbers": ["700100000010001"]}]}
):
    """Numbers to move to another pool."""

    pool_id: Name
    numbers: Annotated[list[Number700], Field(min_length=1, max_length=1000)]


class RestEndedResponse(ResponseModel):
    """The count of numbers whose rest was ended."""

    ended: int


class MovedResponse(ResponseModel):
    """The count of moved numbers."""

    moved: int


class PoolCreateRequest(
    RequestModel, json_schema_extra={"examples": [{"id": "acme-beijing", "business_id": "acme", "area": "Beijing"}]}
):
    """A pool to make."""

    id: Name
    business_id: Name | None = Field(None, description="owner; null: all business users without their own pool")
    area: Text64 = ""
    max_bindings: int = Field(200, ge=MOST_BINDINGS[0], le=MOST_BINDINGS[-1], description="bindings per number")
    warn_percent: int = Field(80, ge=WARN_PERCENT[0], le=WARN_PERCENT[-1])


class PoolChangeRequest(RequestModel, json_schema_extra={"examples": [{"warn_percent": 90}]}):
    """Fields to change. Omitted fields keep their value."""

    business_id: Name | None = Field(None, description="owner; null: all business users without their own pool")
    area: Text64 = Field(default_factory=left_out)
    max_bindings: int = Field(default_factory=left_out, ge=MOST_BINDINGS[0], le=MOST_BINDINGS[-1])
    warn_percent: int = Field(default_factory=left_out, ge=WARN_PERCENT[0], le=WARN_PERCENT[-1])


class PoolResponse(ResponseModel):
    """A pool of numbers."""

    id: str
    business_id: str | None
    area: str
    max_bindings: int
    warn_percent: int
    created_at: Moment


class UsageResponse(ResponseModel):
    """The usage of a pool, in numbers."""

    pool_id: str
    total: int
    free: int
    bound: int
    cooling: int
    locked: int
    bindings: int = Field(description="bindings that hold a number; one with x and y counts twice")
    percent: int = Field(description="share in use of the numbers that are not locked")
    warning: bool = Field(description="percent has reached the pool's warn_percent")


# -- Routes of prefixes and numbers

router = Router(prefix="/v1", tags=["numbers"])
PrefixPath = Annotated[PrefixText, Path()]
NumberPath = Annotated[str, Path(pattern="^[0-9]{3,15}$", description="a 700 number, or a legacy one")]
Reads = Annotated[RequestContext, Depends(Needs("numbers:read"))]
Binds = Annotated[RequestContext, Depends(Changes("bindings:write"))]


def shown_prefix(prefix: Prefix) -> PrefixResponse:
    """The response model of a prefix."""
    values = prefix._asdict()
    cool_down_ms = values.pop("cool_down_ms")
    values["cool_down_s"] = None if cool_down_ms is None else cool_down_ms // 1000
    return PrefixResponse(**values | {"created_at": shown_moment(prefix.created_at)})


def shown_number(number: Number, *, alone: bool = True) -> NumberResponse:
    """The response model of a number. `alone`: show the binding count, which may include other business users'."""
    values = api_named(number._asdict())
    del values["locked"]
    values["locked_by"] = number.locked_by
    values["bindings"] = number.bindings if alone else None
    values["cools_until"] = shown_moment(number.cools_until) if number.state == "cooling" else None
    return NumberResponse(**values)


@router.post(
    "/prefixes",
    status_code=201,
    response_model=PrefixLoadedResponse,
    operation_id="createPrefix",
    summary="Load a prefix",
)
async def post_prefix(asked: PrefixCreateRequest, context: OperatorChanges) -> Response:
    """Load a prefix with its 10,000 numbers, available for binding at once."""
    cool_down_ms = None if asked.cool_down_s is None else asked.cool_down_s * 1000

    def do(unit: UnitOfWork) -> Answer:
        wanted = new_prefix(asked.prefix, asked.peer, cool_down_ms)
        loaded = load_prefix(unit, wanted, asked.pool_id, context.backend.settings.peers)
        shown = shown_prefix(get_prefix(unit, asked.prefix)).model_dump()
        return Answer(PrefixLoadedResponse(**shown, loaded=loaded), 201, f"/v1/prefixes/{asked.prefix}")

    return await context.change(do)


@router.get("/prefixes", operation_id="listPrefixes", summary="List prefixes")
async def get_prefixes(context: Operator, paging: Paging) -> Page[PrefixResponse]:
    """Loaded prefixes in ascending order."""
    found = await context.part("prefixes", paging, find_prefixes, "", lambda prefix: prefix.prefix)
    return found.shown(shown_prefix)


@router.get("/prefixes/{prefix}", operation_id="getPrefix", summary="Show a prefix")
async def get_one_prefix(prefix: PrefixPath, context: Operator) -> PrefixResponse:
    """One loaded prefix."""
    return shown_prefix(context.one(lambda connection: find_prefix(connection, prefix), "prefix"))


@router.patch(
    "/prefixes/{prefix}", response_model=PrefixResponse, operation_id="updatePrefix", summary="Change a prefix"
)
async def patch_prefix(prefix: PrefixPath, asked: PrefixChangeRequest, context: OperatorChanges) -> Response:
    """Any state but `active` locks all numbers of the prefix from the next call on."""
    values = given(asked)
    reason = values.pop("reason", "")
    if "cool_down_s" in values:
        cool_down_s = values.pop("cool_down_s")
        values["cool_down_ms"] = None if cool_down_s is None else cool_down_s * 1000
    change = cast(PrefixChange, values)
    peers = context.backend.settings.peers
    return await context.change(lambda unit: Answer(shown_prefix(change_prefix(unit, prefix, change, reason, peers))))


@router.get("/numbers", operation_id="listNumbers", summary="List numbers")
async def get_numbers(
    context: Reads,
    paging: Paging,
    pool_id: Name | None = None,
    state: State | None = None,
    prefix: PrefixText | None = None,
) -> Page[NumberResponse]:
    """Numbers in ascending order. A business user sees those of its own pools."""
    query, at_ms = NumberQuery(pool_id, prefix, state, context.business), now_ms()
    found = await context.part(
        "numbers",
        paging,
        lambda connection, after, most: find_numbers(connection, query, at_ms, after, most),
        "",
        lambda number: number.number,
    )
    return found.shown(shown_number)


@router.get("/numbers/{number}", operation_id="getNumber", summary="Show a number")
async def get_number(number: NumberPath, context: Reads) -> NumberResponse:
    """One number. A business user sees those that its bindings may use, and a legacy number that it holds.

    A number of a common pool is shown as `free` to business users that have no bindings on it.
    """
    business, at_ms = context.business, now_ms()
    found = context.row(lambda connection: find_number(connection, number, at_ms))
    is_legacy = found is not None and found.legacy
    is_own = is_legacy and context.row(lambda connection: is_held_by(connection, number, business, at_ms))
    pool = found and context.row(lambda connection: find_pool(connection, found.pool, None if is_own else business))
    if found is None or pool is None:
        raise Refused("number_unknown", "", "not a number of this platform")
    seen = context.row(lambda connection: number_seen_by(connection, found, pool, business, at_ms))
    return shown_number(seen, alone=business in (None, pool.business))


@router.post(
    "/numbers/{number}/lock", response_model=NumberResponse, operation_id="lockNumber", summary="Lock a number"
)
async def post_lock(number: NumberPath, asked: ReasonRequest, context: OperatorChanges) -> Response:
    """Refuse calls to the number from the next one on, and exclude it from new bindings."""
    return await context.change(lambda unit: Answer(shown_number(lock(unit, number, asked.reason))))


@router.post(
    "/numbers/{number}/unlock", response_model=NumberResponse, operation_id="unlockNumber", summary="Unlock a number"
)
async def post_unlock(number: NumberPath, asked: ReasonRequest, context: OperatorChanges) -> Response:
    """Release the operator's lock and the fraud lock. A lock of the prefix remains."""
    return await context.change(lambda unit: Answer(shown_number(unlock(unit, number, asked.reason))))


@router.post(
    "/numbers/{number}/hold", response_model=NumberResponse, operation_id="holdNumber", summary="Hold a number"
)
async def post_hold(number: NumberPath, asked: ReasonRequest, context: Binds) -> Response:
    """Exclude a number from new bindings. Its bindings and calls go on."""
    return await context.change(lambda unit: Answer(shown_number(hold(unit, number, asked.reason))))


@router.post(
    "/numbers/{number}/unhold", response_model=NumberResponse, operation_id="unholdNumber", summary="Unhold a number"
)
async def post_unhold(number: NumberPath, asked: ReasonRequest, context: Binds) -> Response:
    """Let a held number get new bindings."""
    return await context.change(lambda unit: Answer(shown_number(unhold(unit, number, asked.reason))))


@router.post(
    "/numbers/move", response_model=MovedResponse, operation_id="moveNumbers", summary="Move numbers to another pool"
)
async def post_move(asked: MoveRequest, context: OperatorChanges) -> Response:
    """Move all or none. Their bindings remain."""
    return await context.change(lambda unit: Answer(MovedResponse(moved=move(unit, asked.numbers, asked.pool_id))))


@router.post(
    "/numbers/end-rest",
    response_model=RestEndedResponse,
    operation_id="endRest",
    summary="End the rest of numbers after a restore",
)
async def post_end_rest(asked: ReasonRequest, context: OperatorChanges) -> Response:
    """The next bindings may get numbers of bindings that the restored store lacks. Cool-downs of bindings go on."""
    return await context.change(lambda unit: Answer(RestEndedResponse(ended=end_rest(unit, asked.reason))))


# -- Routes of pools

pool_router = Router(prefix="/v1/pools", tags=["pools"])
PoolId = Annotated[Name, Path()]


def shown_pool(pool: Pool) -> PoolResponse:
    """The response model of a pool."""
    values = api_named(pool._asdict()) | {"created_at": shown_moment(pool.created_at)}
    return PoolResponse(id=values.pop("pool_id"), **values)


def shown_usage(usage: PoolUsage) -> UsageResponse:
    """The response model of the usage of a pool."""
    values = usage._asdict()
    del values["business"]
    return UsageResponse(pool_id=values.pop("pool_id"), **values)


def _own(context: RequestContext, pool_id: str) -> Pool:
    return context.one(lambda connection: find_pool(connection, pool_id, context.business), "pool")


@pool_router.post("", status_code=201, response_model=PoolResponse, operation_id="createPool", summary="Make a pool")
async def post_pool(asked: PoolCreateRequest, context: OperatorChanges) -> Response:
    """Make an empty pool. Load prefixes or move numbers into it."""
    pool = new_pool(asked.id, asked.business_id, asked.area, asked.max_bindings, asked.warn_percent)

    def do(unit: UnitOfWork) -> Answer:
        return Answer(shown_pool(make_pool(unit, pool)), 201, f"/v1/pools/{asked.id}")

    return await context.change(do)


@pool_router.get("", operation_id="listPools", summary="List pools")
async def get_pools(context: Reads, paging: Paging) -> Page[PoolResponse]:
    """Pools by id. A business user sees its own."""
    found = await context.part(
        "pools",
        paging,
        lambda connection, after, most: find_pools(connection, context.business, after, most),
        "",
        lambda pool: pool.pool_id,
    )
    return found.shown(shown_pool)


@pool_router.get("/{pool_id}", operation_id="getPool", summary="Show a pool")
async def get_pool(pool_id: PoolId, context: Reads) -> PoolResponse:
    """One pool. A business user sees those that its numbers come from."""
    return shown_pool(_own(context, pool_id))


@pool_router.patch("/{pool_id}", response_model=PoolResponse, operation_id="updatePool", summary="Change a pool")
async def patch_pool(pool_id: PoolId, asked: PoolChangeRequest, context: OperatorChanges) -> Response:
    """Change a pool. Existing bindings remain."""
    change = cast(PoolChange, given(asked))
    return await context.change(lambda unit: Answer(shown_pool(change_pool(unit, pool_id, change))))


@pool_router.get("/{pool_id}/usage", operation_id="getPoolUsage", summary="Show the usage of a pool")
async def get_usage(pool_id: PoolId, context: Reads) -> UsageResponse:
    """Current count of free, bound, cooling and locked numbers.

    Of a common pool a business user sees whole percents, cooling numbers as bound, and the count of its own bindings.
    """
    pool = _own(context, pool_id)
    usage = await context.read(lambda connection: usage_seen_by(connection, pool, context.business, now_ms()))
    return shown_usage(usage)
