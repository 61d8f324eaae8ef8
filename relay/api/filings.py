"""Routes and models of filings: the A numbers that a business user filed with the carriers. Never in a URL."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import Field
from starlette.responses import Response

from relay.api.context import Answer, Changes, Needs, OperatorChanges, RequestContext, Revealing
from relay.api.paging import Page, Paging
from relay.api.problems import Problem, problem_of, status_of
from relay.api.routes import Router
from relay.errors import Refused
from relay.operations.shapes import (
    Masked,
    Moment,
    Name,
    Party,
    Reason,
    RequestModel,
    ResponseModel,
    Text64,
    Text128,
    shown_moment,
)
from relay.policy.rules import DEFAULT_BUSINESS
from relay.service.filings import (
    EXPIRING_MS,
    LONGEST_CODE,
    LONGEST_PHOTO,
    AnswerWords,
    FilingWords,
    Given,
    add_filing,
    answer_filing,
    filing_form,
    forget_filing,
    remove_filing,
)
from relay.store.filings import FIRST, DocumentType, FilingQuery, State, filings_of, find_filings
from relay.store.filings import FilingRow as Row
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms

router = Router(prefix="/v1/filings", tags=["filings"])
Reads = Annotated[RequestContext, Depends(Needs("filings"))]
Writes = Annotated[RequestContext, Depends(Changes("filings"))]
MOST_ANSWERS = 200  # of one request: a unit of work
_EXPIRES = "a time such as 2027-01-31T08:00:00+08:00, or a day in China: 2027-01-31"


class FilingNew(
    RequestModel,
    json_schema_extra={"examples": [{"number": "13800000001", "holder": "Li Lei", "document": "11010519491231002X"}]},
):
    """An A number to file."""

    number: Party
    reference: Text128 | None = Field(
        None, description="the carrier's reference of the filing; omitted with a holder: one is made"
    )
    holder: Text64 | None = Field(None, description="name of the number's holder")
    document_type: DocumentType | None = Field(None, description="omitted: `id_card`")
    document: Text64 | None = Field(None, description="number of the holder's identity document; sealed at rest")
    photo: str | None = Field(
        None, max_length=LONGEST_PHOTO, description="reference of the holder's photo in your system or the carrier's"
    )
    state: Given | None = Field(
        None, description="omitted: `approved` for a key with the scope `operator`, else `submitted`"
    )
    expires_at: Text64 | None = Field(None, description=_EXPIRES)
    business_id: Name | None = Field(None, description="for operator keys; omitted: `default`")


class FilingGone(RequestModel, json_schema_extra={"examples": [{"number": "13800000001"}]}):
    """An A number whose filing to withdraw."""

    number: Party
    business_id: Name | None = Field(None, description="for operator keys; omitted: `default`")


class FilingForgotten(
    FilingGone, json_schema_extra={"examples": [{"number": "13800000001", "reason": "demand of the holder"}]}
):
    """An A number whose holder demands that his documents are removed."""

    reason: Reason


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


class FilingSearch(RequestModel, json_schema_extra={"examples": [{"party": "13800000001"}]}):
    """A number to search for: in the body, because a URL would expose it to proxies and logs."""

    party: Party
    business_id: Name | None = Field(None, description="for operator keys; omitted: all")


class FilingVersion(Filing):
    """A filing as it is, or as it was before a change."""

    until: Moment | None = Field(description="time of the change; null: as it is")


class FilingAnswer(RequestModel):
    """A carrier's answer about a number, or about all filings with a reference."""

    number: Text64 = ""
    reference: Annotated[str, Field(max_length=128)] = ""
    state: Text64 = Field(description="approved, rejected, expired or revoked")
    reason: Annotated[str, Field(max_length=500)] = Field("", description="the carrier's text")
    expires_at: Text64 = Field("", description=_EXPIRES)
    code: Annotated[str, Field(max_length=LONGEST_CODE)] = Field("", description="the carrier's code")
    business_id: Name | None = Field(None, description="omitted: `default`")


class FilingAnswers(
    RequestModel,
    json_schema_extra={
        "examples": [{"items": [{"number": "13800000001", "state": "approved", "expires_at": "2027-01-31"}]}]
    },
):
    """Answers of carriers, each entered independently of the others."""

    items: list[FilingAnswer] = Field(min_length=1, max_length=MOST_ANSWERS)


class FilingAnswerResult(ResponseModel):
    """The result of one answer."""

    index: int = Field(description="index of the item in the request, from 0")
    status: int = Field(description="HTTP status of the item")
    filings: list[Filing] = Field(description="the filings that it was about")
    problem: Problem | None = None


class FilingAnswerResults(ResponseModel):
    """The results, in the order of the request."""

    items: list[FilingAnswerResult]


def _shown(filing: Row, at_ms: int, *, clear: bool = False) -> Filing:
    form: dict[str, Any] = filing_form(filing, at_ms, clear=clear)
    form["business_id"] = form.pop("business")
    return Filing(**{name: shown_moment(each) if name.endswith("_at") else each for name, each in form.items()})


@router.post("", status_code=201, response_model=Filing, operation_id="createFiling", summary="File an A number")
async def post_filing(asked: FilingNew, context: Writes) -> Response:
    """File an A number, or change its filing. Effective from the next call.

    A filing in force stays so while its holder stays the same. Operator keys need `parties:read`.
    """
    context.asker.check_naming("number")
    business, parties = context.asker.own(asked.business_id), context.backend.settings.rules.parties
    words = FilingWords(**{name: getattr(asked, name) or "" for name in FilingWords._fields})

    def do(unit: UnitOfWork) -> Answer:
        return Answer(_shown(add_filing(unit, business, words, parties, asked.state), unit.now_ms), 201)

    return await context.change(do)


@router.get("", operation_id="listFilings", summary="List filings")
async def get_filings(
    context: Reads,
    paging: Paging,
    asked: Revealing,
    business_id: Name | None = None,
    state: State | None = None,
    expiring: Annotated[bool, Query(description="only those that expire within 30 days")] = False,
    all_: Annotated[bool, Query(alias="all", description="include withdrawn filings")] = False,
) -> Page[Filing]:
    """Filings in arbitrary but stable order."""
    sealer, at_ms = context.backend.sealer, now_ms()
    query = FilingQuery(context.asker.only(business_id), state, at_ms + EXPIRING_MS if expiring else None, all_)
    found = await context.part(
        "filings",
        paging,
        lambda connection, after, most: find_filings(connection, sealer, query, at_ms, after, most),
        FIRST,
        lambda filing: filing.position,
    )
    clear = await context.reveal(asked, "filings", business=query.business, state=state, expiring=expiring, all=all_)
    return found.shown(lambda filing: _shown(filing, at_ms, clear=clear))


@router.post("/search", operation_id="searchFilings", summary="Search the filings of a number")
async def search_filings(asked: FilingSearch, context: Reads, revealing: Revealing) -> Page[FilingVersion]:
    """The filings of a number as they are, each followed by its earlier forms, newest first. Needs `parties:read`."""
    sealer, whose, at_ms = context.backend.sealer, context.asker.only(asked.business_id), now_ms()
    number = context.asker.looked_for(asked.party) or ""
    found = await context.read(lambda connection: filings_of(connection, sealer, number, whose))
    clear = await context.reveal(revealing, "filings", number=number, business=whose)
    items = [
        FilingVersion(
            **_shown(each.filing, at_ms if each.until is None else each.until, clear=clear).model_dump(),
            until=shown_moment(each.until),
        )
        for each in found
    ]
    return Page(items=items, next=None)


@router.delete("", response_model=Filing, operation_id="withdrawFiling", summary="Withdraw a filing")
async def delete_filing(asked: FilingGone, context: Writes) -> Response:
    """The number counts as not filed from the next call on. It is in the body, as a URL would expose it to logs.

    Operator keys need `parties:read`.
    """
    context.asker.check_naming("number")
    business = context.asker.own(asked.business_id)
    return await context.change(lambda unit: Answer(_shown(remove_filing(unit, business, asked.number), unit.now_ms)))


@router.post("/forget", response_model=Filing, operation_id="forgetHolder", summary="Remove a holder's documents")
async def forget(asked: FilingForgotten, context: OperatorChanges) -> Response:
    """Withdraw a filing and remove name, document and photo, on the holder's demand. Number and states remain.

    Needs `parties:read`.
    """
    context.asker.check_naming("number")
    business = context.asker.own(asked.business_id)

    def do(unit: UnitOfWork) -> Answer:
        return Answer(_shown(forget_filing(unit, business, asked.number, asked.reason), unit.now_ms))

    return await context.change(do)


@router.post(
    "/answers", response_model=FilingAnswerResults, operation_id="answerFilings", summary="Enter carriers' answers"
)
async def post_answers(asked: FilingAnswers, context: OperatorChanges) -> Response:
    """Enter what carriers answered to filings. Items succeed or fail independently.

    Items with a `number` need `parties:read`; those with a `reference` do not.
    """

    def do(unit: UnitOfWork) -> Answer:
        answers = [_answered(unit, item, context) for item in asked.items]
        unit.audit_refusals(answer for answer in answers if isinstance(answer, Refused))
        results = [_answer_result(index, answer, context, unit.now_ms) for index, answer in enumerate(answers)]
        return Answer(FilingAnswerResults(items=results), has_changed=any(result.filings for result in results))

    return await context.change(do)


def _answered(unit: UnitOfWork, item: FilingAnswer, context: RequestContext) -> list[Row] | Refused:
    words = AnswerWords(**{name: getattr(item, name) for name in AnswerWords._fields})
    try:
        if words.number:
            context.asker.check_naming("number")
        return answer_filing(unit, item.business_id or DEFAULT_BUSINESS, words)
    except Refused as refused:
        return refused


def _answer_result(index: int, answer: list[Row] | Refused, context: RequestContext, at_ms: int) -> FilingAnswerResult:
    if isinstance(answer, Refused):
        problem = problem_of(answer, context.request.state.request_id)
        return FilingAnswerResult(index=index, status=status_of(answer.kind), filings=[], problem=problem)
    return FilingAnswerResult(index=index, status=200, filings=[_shown(filing, at_ms) for filing in answer])
