"""Routes of black- and whitelists of a business user or a binding. Changes are effective from the next call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from relay.api import bindings as models
from relay.api.businesses import own_business
from relay.api.context import Answer, Changes, Needs, RequestContext, Revealing
from relay.api.models import Name, Page, shown_moment
from relay.api.pages import Paging
from relay.model.numbers import mask_number, normalise_party
from relay.service.groups import Whose, remove_entry, set_entry
from relay.store.bindings import find_binding
from relay.store.groups import ListEntry, find_entries, of_binding, of_business
from relay.store.unit_of_work import UnitOfWork

router = APIRouter(prefix="/v1/lists/{whose}/{owner_id}/entries", tags=["lists"])
WhoseList = Annotated[Whose, Path(description="kind of owner")]
OwnerId = Annotated[Name, Path(description="id of the business user or binding")]
Reads = Annotated[RequestContext, Depends(Needs("lists"))]
Writes = Annotated[RequestContext, Depends(Changes("lists"))]


def shown_entry(entry: ListEntry, *, clear: bool) -> models.EntryResponse:
    """The response model of a list entry."""
    return models.EntryResponse(
        number=entry.number if clear else mask_number(entry.number),
        kind=entry.kind,
        added_at=shown_moment(entry.added_at),
        added_by=entry.added_by,
    )


def _owner(visit: RequestContext, whose: Whose, owner_id: str) -> str:
    if whose == "business":
        return of_business(own_business(visit, owner_id).id)
    visit.one(lambda connection: find_binding(connection, visit.backend.sealer, owner_id, visit.business), "binding")
    return of_binding(owner_id)


@router.get("", summary="List the entries of a list")
async def get_entries(
    whose: WhoseList, owner_id: OwnerId, visit: Reads, paging: Paging, asked: Revealing
) -> Page[models.EntryResponse]:
    """Entries in arbitrary but stable order."""
    sealer, owner = visit.backend.sealer, _owner(visit, whose, owner_id)
    found = await visit.part(
        f"list {owner}",
        paging,
        lambda connection, after, most: find_entries(connection, sealer, owner, bytes.fromhex(after), most),
        "",
        lambda entry: entry.caller_hash.hex(),
    )
    clear = await visit.reveal(asked, f"list {owner}")
    return found.shown(lambda entry: shown_entry(entry, clear=clear))


@router.put("", response_model=models.EntryResponse, summary="Put a caller on a list")
async def put_entry(whose: WhoseList, owner_id: OwnerId, asked: models.EntryRequest, visit: Writes) -> Response:
    """`black` refuses the caller, `white` admits it under `white_only`. Entries of a binding override its business."""

    def do(act: UnitOfWork) -> Answer:
        set_entry(act, whose, owner_id, asked.number, asked.kind)
        number = normalise_party(asked.number)
        return Answer(shown_entry(ListEntry(number, asked.kind, act.now_ms, act.actor.name, b""), clear=False))

    return await visit.change(do)


@router.delete("", response_model=models.EntryRemovedResponse, summary="Take a caller off a list")
async def delete_entry(
    whose: WhoseList, owner_id: OwnerId, asked: models.EntryRemoveRequest, visit: Writes
) -> Response:
    """Remove an entry. The caller is in the body, because a URL would expose it to proxies and logs."""

    def do(act: UnitOfWork) -> Answer:
        remove_entry(act, whose, owner_id, asked.number)
        return Answer(models.EntryRemovedResponse(number=mask_number(normalise_party(asked.number))))

    return await visit.change(do)
