"""Routes of pools, for operators. A business user can read the pools that its numbers come from."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from relay.api import numbers as models
from relay.api.context import Answer, Needs, OperatorChanges, RequestContext
from relay.api.models import Name, Page, given, shown_moment
from relay.api.pages import Paging
from relay.service.numbers import NewPool, PoolChange, change_pool, make_pool
from relay.store.numbers import Pool, PoolUsage, find_pool, find_pools, usage_of
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

router = APIRouter(prefix="/v1/pools", tags=["pools"])
PoolId = Annotated[Name, Path()]
Reads = Annotated[RequestContext, Depends(Needs("numbers:read"))]


def shown_pool(pool: Pool) -> models.PoolResponse:
    """The response model of a pool."""
    values = pool._asdict() | {"created_at": shown_moment(pool.created_at)}
    return models.PoolResponse(id=values.pop("pool_id"), **values)


def shown_usage(usage: PoolUsage) -> models.UsageResponse:
    """The response model of the usage of a pool."""
    values = usage._asdict()
    del values["business"]
    return models.UsageResponse(pool=values.pop("pool_id"), **values)


def _own(visit: RequestContext, pool_id: str) -> Pool:
    return visit.one(lambda connection: find_pool(connection, pool_id, visit.business), "pool")


@router.post("", status_code=201, response_model=models.PoolResponse, summary="Make a pool")
async def post_pool(asked: models.PoolCreateRequest, visit: OperatorChanges) -> Response:
    """Make an empty pool. Load prefixes or move numbers into it."""
    pool = NewPool(asked.id, asked.business, asked.area, asked.max_bindings, asked.warn_percent)

    def do(act: UnitOfWork) -> Answer:
        return Answer(shown_pool(make_pool(act, pool)), 201, f"/v1/pools/{asked.id}")

    return await visit.change(do)


@router.get("", summary="List pools")
async def get_pools(visit: Reads, paging: Paging) -> Page[models.PoolResponse]:
    """Pools by id. A business user sees its own."""
    found = await visit.part(
        "pools",
        paging,
        lambda connection, after, most: find_pools(connection, visit.business, after, most),
        "",
        lambda pool: pool.pool_id,
    )
    return found.shown(shown_pool)


@router.get("/{pool_id}", summary="Show a pool")
async def get_pool(pool_id: PoolId, visit: Reads) -> models.PoolResponse:
    """One pool. A business user sees those that its numbers come from."""
    return shown_pool(_own(visit, pool_id))


@router.patch("/{pool_id}", response_model=models.PoolResponse, summary="Change a pool")
async def patch_pool(pool_id: PoolId, asked: models.PoolChangeRequest, visit: OperatorChanges) -> Response:
    """Change a pool. Existing bindings remain."""
    values = given(asked)
    if "business" in values:
        values["business"] = values["business"] or ""
    change = PoolChange(**values)
    return await visit.change(lambda act: Answer(shown_pool(change_pool(act, pool_id, change))))


@router.get("/{pool_id}/usage", summary="Show the usage of a pool")
async def get_usage(pool_id: PoolId, visit: Reads) -> models.UsageResponse:
    """Current count of free, bound, cooling and locked numbers."""
    pool = _own(visit, pool_id)
    return shown_usage(await visit.read(lambda connection: usage_of(connection, pool, now_ms())))
