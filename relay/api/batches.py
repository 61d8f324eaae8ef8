"""Batches of bindings over HTTP, made or handed over: models and routes. Items succeed or fail independently."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from fastapi import Depends
from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from starlette.responses import Response

from relay.api.context import ONCE, Answer, Changes, RequestContext
from relay.api.problems import Problem, problem_of, status_of, summary
from relay.api.routes import Router
from relay.errors import Refused
from relay.model.binding import Binding
from relay.operations.bindings import BindingCreateRequest, BindingResponse, made_binding, wanted_binding
from relay.operations.field_errors import field_errors
from relay.operations.shapes import BINDING_ID, Kept128, Name, Party, RequestModel, ResponseModel
from relay.service import fields
from relay.service.bindings import bind_all
from relay.service.fields import invalid
from relay.service.hand_over import HandOver, HandOverResult, hand_over
from relay.service.placement import PlacementRequest
from relay.store.keys import find_answer, keep_answer
from relay.store.unit_of_work import UnitOfWork

CHUNK = 100  # bindings of a batch per unit of work


def _item(value: object, read: ValidatorFunctionWrapHandler) -> object:
    """Validate one item; a malformed one does not fail the batch."""
    try:
        return read(value)
    except ValidationError as error:
        errors = field_errors(error.errors(include_url=False, include_input=False))
        return Refused("invalid", "", summary(errors), tuple(errors))


class BatchItemRequest(BindingCreateRequest):
    """A binding to make."""

    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=ONCE)] | None = Field(
        None, description="a binding that was made with it in the last 24 hours, in any batch, is answered again"
    )


class BatchRequest(
    RequestModel,
    json_schema_extra={
        "examples": [
            {
                "items": [
                    {
                        "mode": "AXB",
                        "a": "13800000001",
                        "b": "13900000002",
                        "order_id": "17",
                        "idempotency_key": "order-17",
                    }
                ]
            }
        ]
    },
):
    """Up to 1,000 bindings to make, independently of each other."""

    items: Annotated[list[Annotated[BatchItemRequest, WrapValidator(_item)]], Field(min_length=1, max_length=1000)]

    def asked(self) -> Sequence[BatchItemRequest | Refused]:
        """The items in the order of the request; malformed ones, and second ones of one key, are refused."""
        asked: list[BatchItemRequest | Refused] = []
        seen = set[str]()
        for item in self.items:
            key = item.idempotency_key if isinstance(item, BatchItemRequest) else None
            asked.append(_SECOND if key in seen else item)
            seen |= {key} if key else set()
        return asked


_SECOND = invalid("idempotency_key", "must not be that of another item of the batch")


class BatchItemResponse(ResponseModel):
    """The result of one item of a batch."""

    index: int = Field(default=0, description="index of the item in the request, from 0")
    status: int = Field(description="HTTP status of the item, as of a single request")
    binding: BindingResponse | None = None
    problem: Problem | None = None
    replayed: bool = Field(default=False, description="made before, with this `idempotency_key`")


class BatchResponse(ResponseModel):
    """The results of a batch, in the order of the request."""

    items: list[BatchItemResponse]


# -- The route

router = Router(prefix="/v1/bindings", tags=["bindings"])
Writes = Annotated[RequestContext, Depends(Changes("bindings:write"))]
_Item = BatchItemRequest | Refused


@router.post("/batch", response_model=BatchResponse, operation_id="createBindings", summary="Make many bindings")
async def post_batch(asked: BatchRequest, context: Writes) -> Response:
    """Items succeed or fail independently, malformed ones too. Results are in the order of the request.

    An item may have its own `idempotency_key`: what failed can be sent again in another batch, with what was made.
    """
    wanted = asked.asked()

    def make(start: int, end_: int) -> Callable[[UnitOfWork], Answer]:
        def do(unit: UnitOfWork) -> Answer:
            items = _bind_each(unit, wanted[start:end_], context)
            made = any(item.binding is not None and not item.replayed for item in items)
            return Answer(BatchResponse(items=items), has_changed=made)

        return do

    items: list[BatchItemResponse] = []
    for start, end_ in _chunks(wanted):
        kept = await context.once(make(start, end_), f" {start}")
        items += BatchResponse.model_validate_json(kept.body).items
    for index, item in enumerate(items):
        item.index = index
    return Response(BatchResponse(items=items).model_dump_json(), media_type="application/json")


def _chunks(items: Sequence[_Item]) -> Iterator[tuple[int, int]]:
    """The slice of each unit of work. A group binding, which may have 1,000 routes, is one by itself."""
    start = 0
    for place, item in enumerate(items):
        if place > start and (_is_of_group(item) or _is_of_group(items[start]) or place - start == CHUNK):
            yield start, place
            start = place
    yield start, len(items)


def _is_of_group(item: _Item) -> bool:
    return isinstance(item, BindingCreateRequest) and item.group_id is not None


def _bind_each(unit: UnitOfWork, items: Sequence[_Item], context: RequestContext) -> list[BatchItemResponse]:
    """Make the bindings; an item that is malformed, of another business user or ill-timed gets its own refusal."""
    rules = context.backend.settings.rules
    answers = {place: kept for place, item in enumerate(items) if (kept := _kept(unit, item, context))}
    rest = [place for place in range(len(items)) if place not in answers]
    wanted = [_wanted(items[place], context, unit.now_ms) for place in rest]
    for place, made in zip(rest, bind_all(unit, wanted, rules, context.binds), strict=True):
        answers[place] = _batch_answer(unit, made, context)
        if (once := _once(items[place], context)) and isinstance(made, Binding):
            keep_answer(unit, *once, 201, answers[place].model_dump_json().encode())
    return [answers[place] for place in range(len(items))]


def _once(item: _Item, context: RequestContext) -> tuple[str, str, bytes] | None:
    """Owner, key and fingerprint of an item with an Idempotency-Key. No header's key begins with a space."""
    if isinstance(item, Refused) or item.idempotency_key is None:
        return None
    written = item.model_dump_json(exclude_unset=True, exclude={"idempotency_key"})
    return context.owner, f" item {item.idempotency_key}", hashlib.sha256(written.encode()).digest()


def _kept(unit: UnitOfWork, item: _Item, context: RequestContext) -> BatchItemResponse | None:
    """The answer that the item got before, or its refusal if its key was another binding's."""
    if (once := _once(item, context)) is None:
        return None
    try:
        kept = find_answer(unit, *once)
    except Refused as refused:
        return _refusal(Refused(refused.kind, "idempotency_key", refused.problem), context.request.state.request_id)
    return kept and BatchItemResponse.model_validate_json(kept.body).model_copy(update={"replayed": True})


def _refusal(refused: Refused, request_id: str) -> BatchItemResponse:
    return BatchItemResponse(status=status_of(refused.kind), problem=problem_of(refused, request_id))


def _wanted(item: _Item, context: RequestContext, at_ms: int) -> PlacementRequest | Refused:
    if isinstance(item, Refused):
        return item
    try:
        return wanted_binding(item, context.asker, at_ms)
    except Refused as refused:
        return refused


def _batch_answer(unit: UnitOfWork, answer: Binding | Refused, context: RequestContext) -> BatchItemResponse:
    if isinstance(answer, Refused):
        return _refusal(answer, context.request.state.request_id)
    return BatchItemResponse(status=201, binding=made_binding(unit, answer, context.asker))


# -- Hand-over

MOST_CHUNKS = 10  # units of work of one request without orders


def _order(written: str | None) -> str:
    if written is None:
        raise ValueError("required")
    return written


class HandOverRequest(RequestModel, json_schema_extra={"examples": [{"order_ids": ["17"], "to_a": "13700000003"}]}):
    """Live bindings whose party a becomes another: those of up to 1,000 orders, or all of a present party a."""

    order_ids: Annotated[list[Annotated[Kept128, AfterValidator(_order)]], Field(max_length=1000)] = Field(
        default_factory=list, description="orders or waybills; omitted: all bindings of from_a"
    )
    from_a: Party | None = Field(
        None, description="only bindings whose a it is; requires the scope parties:read; omitted: whoever is a"
    )
    to_a: Party | None = Field(description="the new party a; null: no one for now (AXB, AXYB)")
    business_id: Name | None = Field(None, description="for operator keys; omitted: `default`")
    cursor: Annotated[str, StringConstraints(pattern=BINDING_ID)] | None = Field(
        None, description="`next` of the last answer: further bindings of from_a; without order_ids alone"
    )


class HandOverItemResponse(ResponseModel):
    """The result for one binding, or for an order that has none to hand over."""

    order_id: str | None
    binding_id: str | None = Field(description="null: no binding of the order was handed over")
    status: int = Field(description="HTTP status, as of a change of the binding")
    problem: Problem | None = None


class HandOverResponse(ResponseModel):
    """The results of a hand-over."""

    items: list[HandOverItemResponse]
    more: bool = Field(False, description="from_a has further bindings: see next")
    next: str | None = Field(
        None, description="send the request again with it as cursor, and with another Idempotency-Key; null: done"
    )


@router.post("/hand-over", operation_id="handOverBindings", summary="Give many bindings another party a")
async def post_hand_over(asked: HandOverRequest, context: Writes) -> HandOverResponse:
    """The numbers stay: the new a dials them from the next call on, b reaches it by them, the old a is refused.

    Each binding is changed by itself, so that one refusal does not hold up the others.
    """
    rules, request_id = context.backend.settings.rules, context.request.state.request_id
    wanted = HandOver(
        context.asker.own(asked.business_id),
        fields.party("to_a", asked.to_a or "", rules.parties),
        context.asker.looked_for(asked.from_a, "from_a"),
        list(dict.fromkeys(asked.order_ids)),
    )

    def make(after: str) -> Callable[[UnitOfWork], Answer]:
        def do(unit: UnitOfWork) -> Answer:
            results, behind = hand_over(unit, wanted, after, rules)
            handed = HandOverResponse(
                items=[_handed_over(one, request_id) for one in results], more=behind is not None, next=behind
            )
            return Answer(handed, has_changed=any(one.refused is None for one in results))

        return do

    if asked.cursor is not None and asked.order_ids:
        raise invalid("cursor", "not with order_ids, which are handed over in one request")
    items: list[HandOverItemResponse] = []
    after: str | None = asked.cursor or ""
    chunks = 0
    while after is not None and (wanted.order_ids or chunks < MOST_CHUNKS):
        done = HandOverResponse.model_validate_json((await context.once(make(after), f" {after or 0}")).body)
        items, after = items + done.items, done.next
        chunks += 1
    return HandOverResponse(items=items, more=after is not None, next=after)


def _handed_over(result: HandOverResult, request_id: str) -> HandOverItemResponse:
    refused = result.refused
    return HandOverItemResponse(
        order_id=result.order_id,
        binding_id=result.binding_id,
        status=200 if refused is None else status_of(refused.kind),
        problem=None if refused is None else problem_of(refused, request_id),
    )
