"""Routes and models of filings: the A numbers that a business user filed with the carriers. Never in a URL."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from starlette.responses import Response

from relay.api.context import Answer, Changes, Needs, RequestContext, Revealing
from relay.api.models import (
    Masked,
    Moment,
    Name,
    Page,
    Paging,
    Party,
    RequestModel,
    ResponseModel,
    Text128,
    shown_moment,
)
from relay.model.numbers import mask_number
from relay.service.filings import add_filing, remove_filing
from relay.store.filings import FIRST, find_filings
from relay.store.filings import Filing as Row
from relay.store.unit_of_work import UnitOfWork

router = APIRouter(prefix="/v1/filings", tags=["filings"])
Reads = Annotated[RequestContext, Depends(Needs("filings"))]
Writes = Annotated[RequestContext, Depends(Changes("filings"))]


class FilingNew(RequestModel):
    """An A number to file."""

    number: Party
    reference: Text128 = Field(description="the carrier's reference of the filing; the carrier keeps the documents")
    business_id: Name | None = Field(None, description="for operator keys; omitted: `default`")


class FilingGone(RequestModel):
    """An A number whose filing to withdraw."""

    number: Party
    business_id: Name | None = Field(None, description="for operator keys; omitted: `default`")


class Filing(ResponseModel):
    """The filing of an A number by a business user."""

    business_id: str
    number: Masked
    reference: str
    filed_at: Moment
    filed_by: str
    withdrawn_at: Moment | None = Field(description="null while it is in force")
    withdrawn_by: str | None


def _shown(filing: Row, *, clear: bool = False) -> Filing:
    return Filing(
        business_id=filing.business,
        number=filing.number if clear else mask_number(filing.number),
        reference=filing.reference,
        filed_at=shown_moment(filing.filed_at),
        filed_by=filing.filed_by,
        withdrawn_at=shown_moment(filing.withdrawn_at),
        withdrawn_by=filing.withdrawn_by,
    )


@router.post("", status_code=201, response_model=Filing, operation_id="createFiling", summary="File an A number")
async def post_filing(asked: FilingNew, context: Writes) -> Response:
    """File an A number, or change the reference of its filing. Effective from the next call."""
    business, parties = context.own(asked.business_id), context.backend.settings.rules.parties

    def do(act: UnitOfWork) -> Answer:
        return Answer(_shown(add_filing(act, business, asked.number, asked.reference, parties)), 201)

    return await context.change(do)


@router.get("", operation_id="listFilings", summary="List filings")
async def get_filings(
    context: Reads,
    paging: Paging,
    asked: Revealing,
    business_id: Name | None = None,
    all_: Annotated[bool, Query(alias="all", description="include withdrawn filings")] = False,
) -> Page[Filing]:
    """Filings in arbitrary but stable order."""
    sealer, whose = context.backend.sealer, context.only(business_id)
    found = await context.part(
        "filings",
        paging,
        lambda connection, after, most: find_filings(connection, sealer, whose, after, most, all_=all_),
        FIRST,
        lambda filing: filing.position,
    )
    clear = await context.reveal(asked, "filings")
    return found.shown(lambda filing: _shown(filing, clear=clear))


@router.delete("", response_model=Filing, operation_id="withdrawFiling", summary="Withdraw a filing")
async def delete_filing(asked: FilingGone, context: Writes) -> Response:
    """The number counts as not filed from the next call on. It is in the body, as a URL would expose it to logs."""
    business = context.own(asked.business_id)
    return await context.change(lambda act: Answer(_shown(remove_filing(act, business, asked.number))))
