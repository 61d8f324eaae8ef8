"""Batches of bindings over HTTP: models and route. Items succeed or fail independently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator
from starlette.responses import Response

from relay.api.bindings import BindingCreateRequest, BindingResponse, Writes, shown_binding, wanted_binding
from relay.api.context import Answer, RequestContext
from relay.api.models import RequestModel, ResponseModel
from relay.api.problems import Problem, field_errors, problem_of, status_of, summary
from relay.errors import Refused
from relay.model.binding import Binding
from relay.model.numbers import Parties
from relay.service.bindings import bind_all
from relay.service.filings import filing_warning
from relay.service.placement import BindRules, Wanted
from relay.store.unit_of_work import UnitOfWork

CHUNK = 100  # bindings of a batch per unit of work


def _item(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Validate one item; a malformed one does not fail the batch."""
    try:
        return read(value)
    except ValidationError as error:
        errors = field_errors(error.errors(include_url=False, include_input=False))
        return Refused("invalid", "", summary(errors), tuple(errors))


class BatchRequest(RequestModel):
    """Up to 1,000 bindings to make, independently of each other."""

    items: Annotated[list[Annotated[BindingCreateRequest, WrapValidator(_item)]], Field(min_length=1, max_length=1000)]

    def asked(self) -> Sequence[BindingCreateRequest | Refused]:
        """The items in the order of the request, the malformed ones refused."""
        return self.items


class BatchItemResponse(ResponseModel):
    """The result of one item of a batch."""

    index: int = Field(default=0, description="index of the item in the request, from 0")
    status: int = Field(description="HTTP status of the item, as of a single request")
    binding: BindingResponse | None = None
    problem: Problem | None = None


class BatchResponse(ResponseModel):
    """The results of a batch, in the order of the request."""

    items: list[BatchItemResponse]


# -- The route

router = APIRouter(prefix="/v1/bindings", tags=["bindings"])
_Item = BindingCreateRequest | Refused


@router.post("/batch", response_model=BatchResponse, operation_id="createBindings", summary="Make many bindings")
async def post_batch(asked: BatchRequest, context: Writes) -> Response:
    """Items succeed or fail independently, malformed ones too. Results are in the order of the request."""
    wanted, request_id, rules = asked.asked(), context.request.state.request_id, context.backend.settings.rules

    def make(start: int, end_: int) -> Callable[[UnitOfWork], Answer]:
        def do(act: UnitOfWork) -> Answer:
            answers = _bind_each(act, wanted[start:end_], context)
            return Answer(BatchResponse(items=[_batch_answer(act, one, rules, request_id) for one in answers]))

        return do

    items: list[BatchItemResponse] = []
    for start, end_ in _chunks(wanted):
        kept = await context.once(make(start, end_), f" {start}")
        items += BatchResponse.model_validate_json(kept.body).items
    for index, item in enumerate(items):
        item.index = index
    return Response(BatchResponse(items=items).model_dump_json(), media_type="application/json")


def _chunks(items: Sequence[_Item]) -> Iterator[tuple[int, int]]:
    """The slice of each unit of work. A group binding, which may have 10,000 routes, is one by itself."""
    start = 0
    for place, item in enumerate(items):
        if place > start and (_is_of_group(item) or _is_of_group(items[start]) or place - start == CHUNK):
            yield start, place
            start = place
    yield start, len(items)


def _is_of_group(item: _Item) -> bool:
    return isinstance(item, BindingCreateRequest) and item.group_id is not None


def _bind_each(act: UnitOfWork, items: Sequence[_Item], context: RequestContext) -> list[Binding | Refused]:
    """Make the bindings; an item that is malformed, of another business user or ill-timed gets its own refusal."""
    rules = context.backend.settings.rules
    return bind_all(act, [_wanted(item, context, rules.parties, act.now_ms) for item in items], rules, context.binds)


def _wanted(item: _Item, context: RequestContext, parties: Parties, at_ms: int) -> Wanted | Refused:
    if isinstance(item, Refused):
        return item
    try:
        return wanted_binding(item, context.own(item.business_id), parties, at_ms)
    except Refused as refused:
        return refused


def _batch_answer(act: UnitOfWork, answer: Binding | Refused, rules: BindRules, request_id: str) -> BatchItemResponse:
    if isinstance(answer, Refused):
        return BatchItemResponse(status=status_of(answer.kind), problem=problem_of(answer, request_id))
    warning = filing_warning(act.connection, act.sealer, answer, rules, act.now_ms)
    return BatchItemResponse(status=201, binding=shown_binding(answer, act.now_ms, warning=warning))
