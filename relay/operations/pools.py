"""Pools of numbers, of a business user or common, and their usage."""

from __future__ import annotations

from typing import cast

from pydantic import Field

from relay.operations.operation import Asker, Listing, found, operation
from relay.operations.shapes import (
    Moment,
    Name,
    RequestModel,
    ResponseModel,
    Text64,
    api_named,
    given,
    left_out,
    shown_moment,
)
from relay.service import numbers as service
from relay.service.numbers import MOST_BINDINGS, WARN_PERCENT, PoolChange
from relay.store.connection import Connection
from relay.store.numbers import Pool, find_pool, find_pools, usage_seen_by
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

_OWNER = "Owner; none: shared by business users without a pool."
_AREA = "Area of the numbers, such as beijing."
_MAX_BINDINGS = "Maximum number of bindings per number."
_WARN_PERCENT = "Usage, in percent, from which on to warn."


class PoolCreateRequest(
    RequestModel, json_schema_extra={"examples": [{"id": "acme-beijing", "business_id": "acme", "area": "Beijing"}]}
):
    """A pool to make."""

    id: Name
    business_id: Name | None = Field(None, description=_OWNER)
    area: Text64 = Field("", description=_AREA)
    max_bindings: int = Field(200, ge=MOST_BINDINGS[0], le=MOST_BINDINGS[-1], description=_MAX_BINDINGS)
    warn_percent: int = Field(80, ge=WARN_PERCENT[0], le=WARN_PERCENT[-1], description=_WARN_PERCENT)


class PoolChangeRequest(RequestModel, json_schema_extra={"examples": [{"warn_percent": 90}]}):
    """Fields to change. Omitted fields keep their value."""

    business_id: Name | None = Field(None, description=_OWNER)
    area: Text64 = Field(default_factory=left_out, description=_AREA)
    max_bindings: int = Field(
        default_factory=left_out, ge=MOST_BINDINGS[0], le=MOST_BINDINGS[-1], description=_MAX_BINDINGS
    )
    warn_percent: int = Field(
        default_factory=left_out, ge=WARN_PERCENT[0], le=WARN_PERCENT[-1], description=_WARN_PERCENT
    )


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


def _shown(pool: Pool) -> PoolResponse:
    values = api_named(pool._asdict()) | {"created_at": shown_moment(pool.created_at)}
    return PoolResponse(id=values.pop("pool_id"), **values)


def _own(connection: Connection, asker: Asker, pool_id: str) -> Pool:
    return found(find_pool(connection, pool_id, asker.business), "pool")


@operation("POST /v1/pools", name="createPool", summary="Make a pool", scope="operator", status=201)
def make_pool(unit: UnitOfWork, _: Asker, asked: PoolCreateRequest) -> PoolResponse:
    """Make an empty pool. Load prefixes or move numbers into it."""
    wanted = service.new_pool(asked.id, asked.business_id, asked.area, asked.max_bindings, asked.warn_percent)
    return _shown(service.make_pool(unit, wanted))


@operation("GET /v1/pools", name="listPools", summary="List pools", scope="numbers:read", item=PoolResponse)
def list_pools(asker: Asker) -> Listing[Pool, str]:
    """List pools. A business user sees its own."""
    return Listing(
        lambda connection, after, most: find_pools(connection, asker.business, after, most),
        "",
        lambda pool: pool.pool_id,
        lambda pool, _: _shown(pool),
    )


@operation("GET /v1/pools/{pool_id}", name="getPool", summary="Show a pool", scope="numbers:read")
def show_pool(connection: Connection, asker: Asker, pool_id: Name) -> PoolResponse:
    """Show one pool. A business user sees those that its numbers come from."""
    return _shown(_own(connection, asker, pool_id))


@operation("PATCH /v1/pools/{pool_id}", name="updatePool", summary="Change a pool", scope="operator")
def change_pool(unit: UnitOfWork, _: Asker, pool_id: Name, asked: PoolChangeRequest) -> PoolResponse:
    """Change a pool. Existing bindings remain.

    Fields that are not given keep their value.
    """
    return _shown(service.change_pool(unit, pool_id, cast(PoolChange, given(asked))))


@operation(
    "GET /v1/pools/{pool_id}/usage", name="getPoolUsage", summary="Show the usage of a pool", scope="numbers:read"
)
def show_usage(connection: Connection, asker: Asker, pool_id: Name) -> UsageResponse:
    """Count free, bound, cooling and locked numbers.

    In a common pool a business user sees whole percents, cooling numbers as bound, and the count of its own bindings.
    """
    usage = usage_seen_by(connection, _own(connection, asker, pool_id), asker.business, now_ms())
    values = usage._asdict()
    del values["business"]
    return UsageResponse(**values)
