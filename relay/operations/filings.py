"""Filings: the A numbers that a business user filed with the carriers. A number is never in a URL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from relay.operations.operation import Asker, Listing, operation
from relay.operations.shapes import (
    Masked,
    Moment,
    Name,
    Option,
    Party,
    Reason,
    RequestModel,
    ResponseModel,
    Text64,
    Text128,
    shown_moment,
)
from relay.service import filings as service
from relay.service.filings import EXPIRING_MS, LONGEST_PHOTO, FilingWords, Given, filing_form
from relay.store.connection import Connection
from relay.store.filings import (
    FIRST,
    DocumentType,
    FilingQuery,
    FilingRow,
    Position,
    State,
    Version,
    filings_of,
    find_filings,
)
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

_OWNER = "Business user. Default: `default`."


class FilingNew(
    RequestModel,
    json_schema_extra={"examples": [{"number": "13800000001", "holder": "Li Lei", "document": "11010519491231002X"}]},
):
    """An A number to file."""

    number: Party
    reference: Text128 | None = Field(
        None, description="The carrier's reference of the filing. Default: with a holder one is made."
    )
    holder: Annotated[Text64 | None, Option(metavar="NAME")] = Field(None, description="Name of the number's holder.")
    document_type: DocumentType | None = Field(None, description="Kind of the document. Default: `id_card`.")
    document: Text64 | None = Field(None, description="Number of the holder's identity document.")
    photo: str | None = Field(
        None,
        max_length=LONGEST_PHOTO,
        description="Reference of the holder's photo: the photo is not kept here.",
    )
    state: Annotated[Given | None, Option("--submitted", flag="submitted")] = Field(
        None,
        description="submitted: it waits for the carrier's answer. Default: approved for operators, else submitted.",
    )
    expires_at: Annotated[Text64 | None, Option(metavar="TIME")] = Field(
        None,
        description="End of the approval: a day in China, or a time.",
        examples=["2027-01-31", "2027-01-31T08:00:00+08:00"],
    )
    business_id: Name | None = Field(None, description=_OWNER)


class FilingGone(RequestModel, json_schema_extra={"examples": [{"number": "13800000001"}]}):
    """An A number whose filing to withdraw: in the body, because a URL would expose it to proxies and logs."""

    number: Party
    business_id: Name | None = Field(None, description=_OWNER)


class FilingForgotten(
    FilingGone, json_schema_extra={"examples": [{"number": "13800000001", "reason": "demand of the holder"}]}
):
    """An A number whose holder demands that his documents are removed."""

    reason: Reason


class FilingListRequest(RequestModel):
    """The filings to list."""

    business_id: Name | None = Field(None, description="Only filings of this business user.")
    state: State | None = Field(None, description="Only filings in this state.")
    expiring: bool = Field(False, description="Only filings that expire within 30 days.")
    all: bool = Field(False, description="Include withdrawn filings.")


class FilingSearch(RequestModel, json_schema_extra={"examples": [{"party": "13800000001"}]}):
    """A number to search for: in the body, because a URL would expose it to proxies and logs."""

    party: Party
    business_id: Name | None = Field(None, description="Only filings of this business user.")


class Filing(ResponseModel):
    """The filing of an A number by a business user."""

    business_id: str
    number: Masked
    state: State
    reference: str
    holder: str | None = Field(description="masked unless revealed")
    document_type: DocumentType | None
    document: str | None = Field(description="masked unless revealed")
    photo: str | None = Field(description="only if revealed")
    code: str | None = Field(description="of the carrier's answer")
    reason: str | None = Field(description="text of the carrier's answer; masked unless revealed")
    filed_at: Moment
    filed_by: str
    answered_at: Moment | None
    answered_by: str | None
    expires_at: Moment | None
    withdrawn_at: Moment | None
    withdrawn_by: str | None


class FilingVersion(Filing):
    """A filing as it is, or as it was before a change."""

    until: Moment | None = Field(description="time of the change; null: as it is")


def _form(filing: FilingRow, at_ms: int, asker: Asker) -> dict[str, Any]:
    form = filing_form(filing, at_ms, clear=asker.clear)
    form["business_id"] = form.pop("business")
    return {name: shown_moment(each) if name.endswith("_at") else each for name, each in form.items()}


def shown_filing(filing: FilingRow, at_ms: int, asker: Asker) -> Filing:
    """The response shape of a filing, with its state at `at_ms`."""
    return Filing(**_form(filing, at_ms, asker))


def _shown_version(version: Version, at_ms: int, asker: Asker) -> FilingVersion:
    form = _form(version.filing, at_ms if version.until is None else version.until, asker)
    return FilingVersion(**form, until=shown_moment(version.until))


@operation(
    "POST /v1/filings",
    name="createFiling",
    summary="File an A number",
    scope="filings",
    status=201,
    revealed="filings",
)
def add_filing(unit: UnitOfWork, asker: Asker, asked: FilingNew) -> Filing:
    """File an A number, or change its filing. Holds from the next call on.

    A filing in force stays so while its holder stays the same. Operator keys need `parties:read`.
    """
    asker.check_naming("number")
    words = FilingWords(**{name: getattr(asked, name) or "" for name in FilingWords._fields})
    business = asker.own(asked.business_id)
    return shown_filing(service.add_filing(unit, business, words, asker.rules.parties, asked.state), unit.now_ms, asker)


@operation(
    "GET /v1/filings", name="listFilings", summary="List filings", scope="filings", revealed="filings", item=Filing
)
def list_filings(asker: Asker, asked: FilingListRequest) -> Listing[FilingRow, Position]:
    """List filings. The API has a stable order, the command the newest first."""
    at_ms = now_ms()
    business = asker.only(asked.business_id)
    query = FilingQuery(business, asked.state, at_ms + EXPIRING_MS if asked.expiring else None, asked.all)
    return Listing(
        lambda connection, after, most: find_filings(connection, asker.sealer, query, at_ms, after, most),
        FIRST,
        lambda filing: filing.position,
        lambda filing, reader: shown_filing(filing, at_ms, reader),
        {"business": business, "state": asked.state, "expiring": asked.expiring, "all": asked.all},
    )


@operation(
    "POST /v1/filings/search",
    name="searchFilings",
    summary="Search the filings of a number",
    scope="filings",
    revealed="filings",
    item=FilingVersion,
)
def search_filings(asker: Asker, asked: FilingSearch) -> Listing[tuple[int, Version], int]:
    """Show the filings of a number. Each is followed by its earlier states, newest first.

    Keys need `parties:read`.
    """
    at_ms, business = now_ms(), asker.only(asked.business_id)
    number = asker.looked_for(asked.party) or ""

    def read(connection: Connection, after: int, most: int) -> Sequence[tuple[int, Version]]:
        versions = enumerate(filings_of(connection, asker.sealer, number, business), 1)
        return [version for version in versions if version[0] > after][:most]

    return Listing(
        read,
        0,
        lambda version: version[0],
        lambda version, reader: _shown_version(version[1], at_ms, reader),
        {"number": number, "business": business},
    )


@operation("DELETE /v1/filings", name="withdrawFiling", summary="Withdraw a filing", scope="filings")
def withdraw_filing(unit: UnitOfWork, asker: Asker, asked: FilingGone) -> Filing:
    """Withdraw a filing. From the next call on the number counts as not filed.

    Operator keys need `parties:read`.
    """
    asker.check_naming("number")
    gone = service.remove_filing(unit, asker.own(asked.business_id), asked.number)
    return shown_filing(gone, unit.now_ms, asker)


@operation("POST /v1/filings/forget", name="forgetHolder", summary="Remove a holder's documents", scope="operator")
def forget_holder(unit: UnitOfWork, asker: Asker, asked: FilingForgotten) -> Filing:
    """Withdraw a filing and remove its holder's documents.

    Name, document and the photo's reference are removed, on the holder's demand. Number, reference and states remain:
    the law has calls kept with their numbers.

    Operator keys need `parties:read`.
    """
    asker.check_naming("number")
    gone = service.forget_filing(unit, asker.own(asked.business_id), asked.number, asked.reason)
    return shown_filing(gone, unit.now_ms, asker)
