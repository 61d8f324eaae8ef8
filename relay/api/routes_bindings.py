"""Routes of bindings. Parties are in bodies, never in a URL, and masked in responses unless revealed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from relay.api import models_bindings as models
from relay.api.models import Name, Number700, Page, Text128, Time, given, given_ms, shown_moment
from relay.api.pages import Paging
from relay.api.problems import Problem, problem, problem_of, status_of, summary
from relay.api.visit import Answer, Changes, Needs, Reveal, Revealing, Visit, Why
from relay.call.binding import Binding, Mode
from relay.call.numbers import mask_number
from relay.errors import Refused
from relay.service.bindings import BindingRequest, bind, bind_all
from relay.service.changes import BindingChange, change, end, renew, steps
from relay.service.fields import invalid
from relay.service.filings import filing_warning
from relay.service.releases import BindRules
from relay.service.times import format_moment
from relay.store.act import Act
from relay.store.bindings import BindingQuery, State, find_binding, find_page, state_of
from relay.store.writer import now_ms

router = APIRouter(prefix="/v1/bindings", tags=["bindings"])
BindingId = Annotated[str, Path(pattern="^[0-9a-f]{8,40}$")]
Reads = Annotated[Visit, Depends(Needs("bindings:read"))]
Writes = Annotated[Visit, Depends(Changes("bindings:write"))]
CHUNK = 100  # bindings of a batch per unit of work


def shown_binding(binding: Binding, at_ms: int, *, clear: bool = False, warning: str | None = None) -> models.Binding:
    """The response model of a binding, with its state at `at_ms`."""
    values = binding._asdict()
    del values["released_at"]
    values["id"] = values.pop("binding_id")
    for party in ("a", "b"):
        values[party] = values[party] if clear or values[party] is None else mask_number(values[party])
    for moment in ("created_at", "changed_at", "expires_at", "ended_at"):
        values[moment] = shown_moment(values[moment])
    values["state"] = state_of(binding, at_ms)
    return models.Binding(**values, warning=warning)


def _own(visit: Visit, binding_id: str) -> Binding:
    return visit.one(
        lambda connection: find_binding(connection, visit.desk.sealer, binding_id, visit.business), "binding"
    )


def _request(asked: models.BindingNew, business: str, at_ms: int) -> BindingRequest:
    """The request for the service. Raises Refused for an invalid expiry."""
    values = given(asked) | {"business": business, "expires_in": _expiry(asked, at_ms)}
    values.pop("expires_at", None)
    return BindingRequest(**{name: value for name, value in values.items() if value is not None})


def _expiry(asked: models.Expiry, at_ms: int) -> str:
    """The expiry in the notation of the service; "" for none. Raises Refused if it is too soon or too late.

    Checked inside the unit of work: a repeated request gets its stored response although its expiry has come near.
    """
    if asked.expires_in is not None:
        return f"{asked.expires_in}s"
    until_ms = given_ms(asked.expires_at)
    if until_ms is None:
        return ""
    if not models.SOONEST_S * 1000 < until_ms - at_ms <= models.LATEST_S * 1000:
        raise invalid("expires_at", "must be more than 60 seconds and at most 90 days in the future")
    return format_moment(until_ms)


def _changes(asked: models.BindingChange, at_ms: int) -> BindingChange:
    """The change for the service, where "" or 0 clears a field. Raises Refused for an invalid expiry."""
    values = given(asked)
    if values.keys() & {"expires_in", "expires_at"}:
        values["expires_in"] = _expiry(asked, at_ms)
        values.pop("expires_at", None)
    for name, value in values.items():
        if value is None:
            values[name] = 0 if name in ("max_call_s", "ring_timeout_s") else ""
    return BindingChange(**values)


@router.post("", status_code=201, response_model=models.Binding, summary="Make a binding")
async def post_binding(asked: models.BindingNew, visit: Writes) -> Response:
    """Effective from the next call. Numbers that are not given are chosen from the pool."""
    business, rules = visit.own(asked.business), visit.desk.settings.rules

    def do(act: Act) -> Answer:
        binding = bind(act, _request(asked, business, act.now_ms), rules, visit.binds)
        warning = filing_warning(act.connection, act.sealer, binding, rules)
        return Answer(shown_binding(binding, act.now_ms, warning=warning), 201, f"/v1/bindings/{binding.binding_id}")

    return await visit.change(do)


_Item = models.BindingNew | models.Malformed


@router.post("/batch", response_model=models.BatchAnswers, summary="Make many bindings")
async def post_batch(asked: models.Batch, visit: Writes) -> Response:
    """Items succeed or fail independently, malformed ones too. Results are in the order of the request."""
    wanted, request_id, rules = asked.asked(), visit.request.state.request_id, visit.desk.settings.rules

    def make(start: int, end_: int) -> Callable[[Act], Answer]:
        def do(act: Act) -> Answer:
            answers = _bind_each(act, wanted[start:end_], visit)
            return Answer(models.BatchAnswers(items=[_batch_answer(act, one, rules, request_id) for one in answers]))

        return do

    items: list[models.BatchAnswer] = []
    for start, end_ in _chunks(wanted):
        kept = await visit.once(make(start, end_), f" {start}")
        items += models.BatchAnswers.model_validate_json(kept.body).items
    for index, item in enumerate(items):
        item.index = index
    return Response(models.BatchAnswers(items=items).model_dump_json(), media_type="application/json")


def _chunks(items: Sequence[_Item]) -> Iterator[tuple[int, int]]:
    """The slice of each unit of work. A group binding, which may have 10,000 routes, is one by itself."""
    start = 0
    for place, item in enumerate(items):
        if place > start and (_is_of_group(item) or _is_of_group(items[start]) or place - start == CHUNK):
            yield start, place
            start = place
    yield start, len(items)


def _is_of_group(item: _Item) -> bool:
    return isinstance(item, models.BindingNew) and item.group_id is not None


def _bind_each(act: Act, items: Sequence[_Item], visit: Visit) -> list[Binding | Refused | models.Malformed]:
    """Make the bindings; an item that is malformed, of another business user or ill-timed gets its own refusal."""
    asked = [_request_of_item(item, visit, act.now_ms) for item in items]
    wanted = [one for one in asked if isinstance(one, BindingRequest)]
    made = iter(bind_all(act, wanted, visit.desk.settings.rules, visit.binds))
    return [next(made) if isinstance(one, BindingRequest) else one for one in asked]


def _request_of_item(item: _Item, visit: Visit, at_ms: int) -> BindingRequest | Refused | models.Malformed:
    if isinstance(item, models.Malformed):
        return item
    try:
        return _request(item, visit.own(item.business), at_ms)
    except Refused as refused:
        return refused


def _batch_answer(
    act: Act, answer: Binding | Refused | models.Malformed, rules: BindRules, request_id: str
) -> models.BatchAnswer:
    if isinstance(answer, Binding):
        warning = filing_warning(act.connection, act.sealer, answer, rules)
        return models.BatchAnswer(status=201, binding=shown_binding(answer, act.now_ms, warning=warning))
    if isinstance(answer, models.Malformed):
        document = problem("invalid", summary(answer.errors), answer.errors, request_id)
        return models.BatchAnswer(status=400, problem=Problem.model_validate(document))
    return models.BatchAnswer(status=status_of(answer.kind), problem=problem_of(answer, request_id))


async def _found(visit: Visit, asked: models.BindingSearch, reveal: Reveal, paging: Paging) -> Page[models.Binding]:
    sealer = visit.desk.sealer
    query = BindingQuery(
        business=visit.only(asked.business),
        number=asked.number,
        party=visit.looked_for(asked.party),
        order_id=asked.order_id,
        group_id=asked.group_id,
        mode=asked.mode,
        state=asked.state,
        since_ms=given_ms(asked.since),
    )
    at_ms = now_ms()
    found = await visit.part(
        "bindings",
        paging,
        lambda connection, before, most: find_page(connection, sealer, query, at_ms, before, most),
        None,
        lambda binding: binding.binding_id,
    )
    clear = await visit.reveal(reveal, "bindings", [binding.binding_id for binding in found.items])
    return found.shown(lambda binding: shown_binding(binding, at_ms, clear=clear))


@router.get("", summary="List bindings")
async def get_bindings(
    visit: Reads,
    paging: Paging,
    reveal: Revealing,
    number: Number700 | None = None,
    order_id: Text128 | None = None,
    group_id: Name | None = None,
    business: Name | None = None,
    state: State | None = None,
    mode: Mode | None = None,
    since: Time | None = None,
) -> Page[models.Binding]:
    """Bindings, newest first. To search by party use POST /v1/bindings/search."""
    asked = models.BindingSearch(
        number=number, order_id=order_id, group_id=group_id, business=business, state=state, mode=mode, since=since
    )
    return await _found(visit, asked, reveal, paging)


@router.post("/search", summary="Search bindings")
async def search_bindings(
    asked: models.BindingSearch, visit: Reads, paging: Paging, reveal: Revealing
) -> Page[models.Binding]:
    """Bindings, newest first, also by party: a current one, one before a change, or a member of the group.

    The field `party` requires the scope parties:read.
    """
    return await _found(visit, asked, reveal, paging)


@router.get("/{binding_id}", summary="Show a binding")
async def get_binding(binding_id: BindingId, visit: Reads, reveal: Revealing) -> models.Binding:
    """A binding, live or ended."""
    found = _own(visit, binding_id)
    return shown_binding(found, now_ms(), clear=await visit.reveal(reveal, f"binding {binding_id}"))


@router.get("/{binding_id}/history", summary="Show the history of a binding")
async def get_history(binding_id: BindingId, visit: Reads) -> models.BindingHistory:
    """Who made, changed and ended it, and when. Changed fields are named, without their values."""
    binding = _own(visit, binding_id)
    found = await visit.read(lambda connection: steps(connection, visit.desk.sealer, binding))
    items = [models.BindingStep(**step._asdict() | {"at": shown_moment(step.at)}) for step in found]
    return models.BindingHistory(items=items)


@router.patch("/{binding_id}", response_model=models.Binding, summary="Change a binding")
async def patch_binding(binding_id: BindingId, asked: models.BindingChange, visit: Writes) -> Response:
    """Change a live binding, effective from the next call. A replaced party cools down on the number."""
    rules = visit.desk.settings.rules

    def do(act: Act) -> Answer:
        changed = change(act, binding_id, _changes(asked, act.now_ms), rules)
        return Answer(
            shown_binding(changed, act.now_ms, warning=filing_warning(act.connection, act.sealer, changed, rules))
        )

    return await visit.change(do)


@router.post("/{binding_id}/renew", response_model=models.Binding, summary="Renew a binding")
async def post_renewal(binding_id: BindingId, asked: models.Expiry, visit: Writes) -> Response:
    """Set a new expiry of a live binding."""
    rules = visit.desk.settings.rules

    def do(act: Act) -> Answer:
        renewed = renew(act, binding_id, _expiry(asked, act.now_ms), rules)
        return Answer(shown_binding(renewed, act.now_ms))

    return await visit.change(do)


@router.delete("/{binding_id}", response_model=models.Binding, summary="End a binding")
async def delete_binding(binding_id: BindingId, visit: Writes, why: Why = None) -> Response:
    """Refuse calls from the next one on; calls that are up continue. The binding can still be read."""
    rules = visit.desk.settings.rules
    return await visit.change(lambda act: Answer(shown_binding(end(act, binding_id, rules, why or ""), act.now_ms)))
