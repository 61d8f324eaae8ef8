"""The route that enters carriers' answers to filings: items succeed or fail independently."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from starlette.responses import Response

from relay.api.context import Answer, OperatorChanges, RequestContext
from relay.api.problems import Problem, problem_of, status_of
from relay.api.routes import Router
from relay.errors import Refused
from relay.operations.filings import Filing, shown_filing
from relay.operations.shapes import Name, RequestModel, ResponseModel, Text64
from relay.policy.rules import DEFAULT_BUSINESS
from relay.service.filings import LONGEST_CODE, AnswerWords, answer_filing
from relay.store.filings import FilingRow
from relay.store.unit_of_work import UnitOfWork

router = Router(prefix="/v1/filings", tags=["filings"])
MOST_ANSWERS = 200  # of one request: a unit of work


class FilingAnswer(RequestModel):
    """A carrier's answer about a number, or about all filings with a reference."""

    number: Text64 = ""
    reference: Annotated[str, Field(max_length=128)] = ""
    state: Text64 = Field(description="approved, rejected, expired or revoked")
    reason: Annotated[str, Field(max_length=500)] = Field("", description="the carrier's text")
    expires_at: Text64 = Field(
        "", description="a time such as 2027-01-31T08:00:00+08:00, or a day in China: 2027-01-31"
    )
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


def _answered(unit: UnitOfWork, item: FilingAnswer, context: RequestContext) -> list[FilingRow] | Refused:
    words = AnswerWords(**{name: getattr(item, name) for name in AnswerWords._fields})
    try:
        if words.number:
            context.asker.check_naming("number")
        return answer_filing(unit, item.business_id or DEFAULT_BUSINESS, words)
    except Refused as refused:
        return refused


def _answer_result(
    index: int, answer: list[FilingRow] | Refused, context: RequestContext, at_ms: int
) -> FilingAnswerResult:
    if isinstance(answer, Refused):
        problem = problem_of(answer, context.request.state.request_id)
        return FilingAnswerResult(index=index, status=status_of(answer.kind), filings=[], problem=problem)
    return FilingAnswerResult(
        index=index, status=200, filings=[shown_filing(filing, at_ms, context.asker) for filing in answer]
    )
