"""Routes of prefixes and numbers, for operators. A business user can read the numbers of its pools."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from relay.api import models_numbers as models
from relay.api.models import Because, Name, Page, given, shown_moment
from relay.api.models import Prefix as PrefixText
from relay.api.pages import Paging
from relay.api.visit import Answer, Needs, Operator, OperatorChanges, Visit
from relay.errors import Refused
from relay.service.numbers import (
    AS_CONFIGURED,
    NewPrefix,
    PrefixChange,
    change_prefix,
    get_prefix,
    load_prefix,
    lock,
    move,
    unlock,
)
from relay.store.act import Act
from relay.store.numbers import (
    Number,
    NumberQuery,
    Prefix,
    State,
    find_number,
    find_numbers,
    find_prefix,
    find_prefixes,
)
from relay.store.pools import find_pool
from relay.store.writer import now_ms

router = APIRouter(prefix="/v1", tags=["numbers"])
PrefixPath = Annotated[PrefixText, Path()]
NumberPath = Annotated[str, Path(pattern="^[0-9]{3,15}$", description="a 700 number, or a legacy one")]
Reads = Annotated[Visit, Depends(Needs("numbers:read"))]


def shown_prefix(prefix: Prefix) -> models.PrefixShown:
    """The response model of a prefix."""
    values = prefix._asdict()
    cool_down_ms = values.pop("cool_down_ms")
    values["cool_down_s"] = None if cool_down_ms is None else cool_down_ms // 1000
    return models.PrefixShown(**values | {"created_at": shown_moment(prefix.created_at)})


def shown_number(number: Number, *, alone: bool = True) -> models.Number:
    """The response model of a number. `alone`: show the binding count, which may include other business users'."""
    values = number._asdict()
    del values["locked"]
    values["locked_by"] = number.locked_by
    values["bindings"] = number.bindings if alone else None
    values["cools_until"] = shown_moment(number.cools_until) if number.state == "cooling" else None
    return models.Number(**values)


@router.post("/prefixes", status_code=201, response_model=models.PrefixLoaded, summary="Load a prefix")
async def post_prefix(asked: models.PrefixNew, visit: OperatorChanges) -> Response:
    """Load a prefix with its 10,000 numbers, available for binding at once."""
    cool_down_ms = None if asked.cool_down_s is None else asked.cool_down_s * 1000

    def do(act: Act) -> Answer:
        new = NewPrefix(asked.prefix, asked.peer, asked.pool, cool_down_ms)
        loaded = load_prefix(act, new, visit.desk.settings.peers)
        shown = shown_prefix(get_prefix(act, asked.prefix)).model_dump()
        return Answer(models.PrefixLoaded(**shown, loaded=loaded), 201, f"/v1/prefixes/{asked.prefix}")

    return await visit.change(do)


@router.get("/prefixes", summary="List prefixes")
async def get_prefixes(visit: Operator, paging: Paging) -> Page[models.PrefixShown]:
    """Loaded prefixes in ascending order."""
    found = await visit.part("prefixes", paging, find_prefixes, "", lambda prefix: prefix.prefix)
    return found.shown(shown_prefix)


@router.get("/prefixes/{prefix}", summary="Show a prefix")
async def get_one_prefix(prefix: PrefixPath, visit: Operator) -> models.PrefixShown:
    """One loaded prefix."""
    return shown_prefix(visit.one(lambda connection: find_prefix(connection, prefix), "prefix"))


@router.patch("/prefixes/{prefix}", response_model=models.PrefixShown, summary="Change a prefix")
async def patch_prefix(prefix: PrefixPath, asked: models.PrefixChange, visit: OperatorChanges) -> Response:
    """Any state but `active` locks all numbers of the prefix from the next call on."""
    values = given(asked)
    reason = values.pop("reason", "")
    if "cool_down_s" in values:
        cool_down_s = values.pop("cool_down_s")
        values["cool_down_ms"] = AS_CONFIGURED if cool_down_s is None else cool_down_s * 1000
    change = PrefixChange(**values)
    peers = visit.desk.settings.peers
    return await visit.change(lambda act: Answer(shown_prefix(change_prefix(act, prefix, change, reason, peers))))


@router.get("/numbers", summary="List numbers")
async def get_numbers(
    visit: Reads,
    paging: Paging,
    pool: Name | None = None,
    state: State | None = None,
    prefix: PrefixText | None = None,
) -> Page[models.Number]:
    """Numbers in ascending order. A business user sees those of its own pools."""
    query, at_ms = NumberQuery(pool, prefix, state, visit.business), now_ms()
    found = await visit.part(
        "numbers",
        paging,
        lambda connection, after, most: find_numbers(connection, query, at_ms, after, most),
        "",
        lambda number: number.number,
    )
    return found.shown(shown_number)


@router.get("/numbers/{number}", summary="Show a number")
async def get_number(number: NumberPath, visit: Reads) -> models.Number:
    """One number. A business user sees those that its bindings may use."""
    found = visit.row(lambda connection: find_number(connection, number, now_ms()))
    pool = found and visit.row(lambda connection: find_pool(connection, found.pool, visit.business))
    if found is None or pool is None:
        raise Refused("number_unknown", "", "not a number of this platform")
    return shown_number(found, alone=visit.business in (None, pool.business))


@router.post("/numbers/{number}/lock", response_model=models.Number, summary="Lock a number")
async def post_lock(number: NumberPath, asked: Because, visit: OperatorChanges) -> Response:
    """Refuse calls to the number from the next one on, and exclude it from new bindings."""
    return await visit.change(lambda act: Answer(shown_number(lock(act, number, asked.reason))))


@router.post("/numbers/{number}/unlock", response_model=models.Number, summary="Unlock a number")
async def post_unlock(number: NumberPath, asked: Because, visit: OperatorChanges) -> Response:
    """Release the operator's lock and the fraud lock. A lock of the prefix remains."""
    return await visit.change(lambda act: Answer(shown_number(unlock(act, number, asked.reason))))


@router.post("/numbers/move", response_model=models.Moved, summary="Move numbers to another pool")
async def post_move(asked: models.Move, visit: OperatorChanges) -> Response:
    """Move all or none. Their bindings remain."""
    return await visit.change(lambda act: Answer(models.Moved(moved=move(act, asked.numbers, asked.pool))))
