"""Call records over HTTP: models and routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from contextlib import closing
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Query
from pydantic import AfterValidator, Field, StringConstraints, WithJsonSchema
from starlette.responses import Response

from relay.api.context import Needs, RequestContext, Reveal, Revealing, Why
from relay.api.downloads import Download
from relay.api.paging import MOST, USUAL, Limit, Page, Paging, Part, make_cursor, read_cursor
from relay.api.routes import Router
from relay.errors import Refused
from relay.model.binding import MODES
from relay.model.call import CallRecord, Kind
from relay.model.outcomes import END_REASONS, OUTCOMES
from relay.operations.shapes import (
    BINDING_ID,
    Masked,
    Moment,
    Name,
    Number700,
    Party,
    RequestModel,
    ResponseModel,
    Text128,
    Time,
    api_named,
    given_ms,
    one_of,
)
from relay.privacy.records import mask_texts
from relay.reports.disclosure import CallState, record_form, state_of, with_moments
from relay.reports.export import MEDIA_TYPES, Format, check_format, export_parts
from relay.reports.recordings import (
    NOT_TAKEN,
    CallQuery,
    find_call,
    of_call,
    search_recorded,
)
from relay.store.bindings import find_binding
from relay.store.connection import Connection
from relay.store.database import connect_reader, store_errors
from relay.store.records import LAST_MS, RecordFilter, read_all
from relay.translation import N_

END_REASON: Final = [{"type": "string", "enum": [*END_REASONS]}, {"type": "string", "pattern": "^sip_[1-6][0-9]{2}$"}]
CallOutcome = Annotated[str, one_of(*OUTCOMES)]
EndReason = Annotated[str, WithJsonSchema({"oneOf": END_REASON})]
CallMode = Annotated[str, one_of(*MODES)]


def _known(outcome: str) -> str:
    if outcome not in OUTCOMES:
        raise ValueError(N_("must be one of: {outcomes}").format(outcomes=", ".join(OUTCOMES)))
    return outcome


BindingText = Annotated[str, StringConstraints(pattern=BINDING_ID)]
AskedOutcome = Annotated[CallOutcome, AfterValidator(_known)]


class CallSearchRequest(
    RequestModel, json_schema_extra={"examples": [{"party": "13800000001", "since": "2026-01-31T00:00:00Z"}]}
):
    """Search criteria. They are a body, because a URL would expose parties to proxies and logs."""

    number: Number700 | None = None
    party: Party | None = None
    order_id: Text128 | None = None
    binding_id: BindingText | None = None
    business_id: Name | None = Field(None, description="for operator keys")
    outcome: AskedOutcome | None = None
    kind: Kind | None = None
    since: Time | None = Field(None, description="received at or after")
    until: Time | None = Field(None, description="received before")


class CallResponse(ResponseModel):
    """A call record: one attempt to call or to send a text message. Steps that were not reached are null."""

    call_id: str
    binding_id: str | None
    mode: CallMode | None
    business_id: str | None
    order_id: str | None
    number_dialled: Masked = Field(description="masked unless it is a 700 number")
    number_shown: Masked | None
    caller: Masked
    callee: Masked | None
    peer_in: str
    peer_out: str | None
    received_at: Moment
    routed_at: Moment | None
    ringing_at: Moment | None
    answered_at: Moment | None
    ended_at: Moment | None
    duration_ms: int | None = Field(description="milliseconds from answer to end")
    sip_status: int | None
    q850_cause: int | None
    outcome: CallOutcome | None = Field(description="null while the call is up")
    ended_by: Literal["caller", "callee", "relay"] | None
    end_reason: EndReason | None = Field(description="`sip_` and a status: the answer of the called side")
    caller_leg_call_id: str | None = Field(
        description="for operator keys, null unless revealed: it may contain the caller's number or address"
    )
    callee_leg_call_id: str | None
    direction: Literal["a_to_b", "b_to_a"] | None
    legacy: bool
    caller_packets: int | None = Field(description="RTP packets from the caller; null unless rtpengine relays media")
    caller_lost: int | None = Field(description="of these, reported lost by the callee's side; null: no report")
    caller_jitter_ms: int | None = Field(description="mean jitter in the same reports")
    callee_packets: int | None = Field(description="RTP packets from the callee")
    callee_lost: int | None
    callee_jitter_ms: int | None
    kind: Kind
    text_bytes: int | None = Field(description="length of a message's text; the text itself is not stored")
    recording: str | None = Field(description="id of the recording; null if the call was not recorded")
    qualification: int | None = Field(
        description="version of the business user's approval in force at the call; see its history"
    )
    industrial_id: str | None = Field(description="identifier of the binding")
    source: str | None = Field(
        description='for operator keys: transport address of origin, such as "udp:192.0.2.7:5060"; '
        "unless revealed only for unknown sources"
    )
    decided_by: Annotated[str, one_of("hook", "verify")] | None = Field(
        description="whose answer decided: the business user's hook or the operator's; null: the binding alone"
    )


class CallDetailResponse(CallResponse):
    """A call record with its recording."""

    state: CallState
    recording_ms: int | None = Field(description="from the first packet to the last; null until it is stored")
    recording_sha256: str | None = Field(description="hash of the recording as kept: of its capture")
    recording_purged_at: Moment | None = Field(description="when the recording was deleted; null while it is kept")


class HangUpResponse(ResponseModel):
    """A call that is being hung up."""

    call_id: str
    status: Literal["hanging_up"] = "hanging_up"


class LiveCallsResponse(ResponseModel):
    """Live calls."""

    items: list[CallResponse]
    total: int = Field(description="number of live calls, regardless of the limit")


# -- Routes of calls

router = Router(prefix="/v1/calls", tags=["calls"])
CallId = Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
Reads = Annotated[RequestContext, Depends(Needs("calls:read"))]
Ends = Annotated[RequestContext, Depends(Needs("calls:hangup"))]
_FILES: dict[str, Any] = {media_type: {} for media_type in MEDIA_TYPES.values()}


def shown_call(record: CallRecord, *, clear: bool, for_operator: bool) -> CallResponse:
    """The response model of a call record."""
    form = record_form(record, reveal=clear, for_operator=for_operator)
    return CallResponse.model_validate(api_named(with_moments(form)))


async def _found(
    context: RequestContext, asked: CallSearchRequest, reveal: Reveal, paging: Paging
) -> Page[CallResponse]:
    sealer = context.backend.sealer
    place = read_cursor(sealer, "calls", paging.cursor)
    after = (int(place[0]), int(place[1])) if place else None
    numbers = None
    if asked.binding_id is not None:
        binding_id = asked.binding_id
        binding = context.row(lambda connection: find_binding(connection, sealer, binding_id, context.business))
        if binding is None:
            return Part[CallRecord]([], None).shown(lambda record: record)
        numbers = binding.numbers
    query = CallQuery(
        RecordFilter(
            number=asked.number,
            party=context.asker.looked_for(asked.party),
            numbers=numbers,
            order_id=asked.order_id,
            business=context.asker.only(asked.business_id),
            since_ms=given_ms(asked.since) or 0,
            until_ms=LAST_MS if asked.until is None else given_ms(asked.until),
        ),
        asked.outcome,
        asked.kind,
        asked.binding_id,
    )
    found = await context.read(lambda connection: search_recorded(connection, sealer, query, after, paging.limit))
    clear = await context.reveal(reveal, "calls", [record.call_id for record in found.items])
    part = Part(found.items, None if found.next is None else make_cursor(sealer, "calls", found.next), paging.fields)
    return part.shown(lambda record: shown_call(record, clear=clear, for_operator=context.business is None))


@router.get("", operation_id="listCalls", summary="List call records")
async def get_calls(
    context: Reads,
    paging: Paging,
    reveal: Revealing,
    number: Number700 | None = None,
    order_id: Text128 | None = None,
    binding_id: BindingText | None = None,
    business_id: Name | None = None,
    outcome: AskedOutcome | None = None,
    kind: Kind | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Page[CallResponse]:
    """Ended calls, newest first. A short or empty page may not be the last one. By party: POST /v1/calls/search."""
    asked = CallSearchRequest(
        number=number,
        order_id=order_id,
        binding_id=binding_id,
        business_id=business_id,
        outcome=outcome,
        kind=kind,
        since=since,
        until=until,
    )
    return await _found(context, asked, reveal, paging)


@router.post("/search", operation_id="searchCalls", summary="Search call records")
async def search_calls(
    asked: CallSearchRequest, context: Reads, paging: Paging, reveal: Revealing
) -> Page[CallResponse]:
    """As the list, also by party. The field `party` requires the scope parties:read."""
    return await _found(context, asked, reveal, paging)


@router.get("/live", operation_id="listLiveCalls", summary="List live calls")
async def get_live(
    context: Reads, reveal: Revealing, limit: Limit = USUAL, business_id: Name | None = None
) -> LiveCallsResponse:
    """Calls in the relay, ringing or up, newest first."""
    clear = await context.reveal(reveal, "calls live")
    most = USUAL if limit <= USUAL else MOST  # requests with other limits share the relay's answer
    answer = await context.backend.control.ask(
        "live", business=context.asker.only(business_id), most=most, reveal=clear
    )
    calls = [_shown_live(context, call, clear=clear) for call in answer["calls"][:limit]]
    return LiveCallsResponse(items=calls, total=answer["total"])


def _shown_live(context: RequestContext, call: dict[str, Any], *, clear: bool) -> CallResponse:
    values = {"caller_leg_call_id": None, "callee_leg_call_id": None, "source": None} | call
    if context.business is not None:
        values["source"] = None
    elif not clear:
        values = mask_texts(values)
    return CallResponse.model_validate(api_named(with_moments(values)))


@router.delete(
    "/live/{call_id}",
    status_code=202,
    response_model=HangUpResponse,
    operation_id="hangUpCall",
    summary="Hang up a call",
)
async def delete_live(call_id: CallId, context: Ends, why: Why = None) -> HangUpResponse:
    """Send BYE to both sides. The `end_reason` of the record is `hung_up`."""
    await context.ask_relay(
        "hang_up",
        {"call_id": call_id, "business": context.business},
        lambda unit: unit.audit("call.hang_up", call_id, business=context.business, reason=why or ""),
    )
    return HangUpResponse(call_id=call_id)


@router.get(
    "/export",
    operation_id="exportCalls",
    summary="Export call records",
    response_class=Response,
    responses={200: {"description": "The file", "content": _FILES}},
)
async def get_export(
    context: Reads,
    reveal: Revealing,
    since: Time,
    until: Time,
    format_: Annotated[Format, Query(alias="format")] = "csv",
    business_id: Name | None = None,
) -> Response:
    """Ended calls received in a period, oldest first. `parquet` is refused (400) if the relay has no pyarrow."""
    check_format(format_)
    wanted = RecordFilter(business=context.asker.only(business_id), since_ms=given_ms(since), until_ms=given_ms(until))
    with context.downloads.kept_by(context.reader) as over:
        clear = await context.reveal(reveal, "calls export", [f"{since.isoformat()} to {until.isoformat()}"])
    headers = {"content-disposition": f'attachment; filename="calls.{format_}"'}
    return Download(
        _exported(context, wanted, format_, clear=clear), over, headers=headers, media_type=MEDIA_TYPES[format_]
    )


def _records(context: RequestContext, wanted: RecordFilter) -> Generator[CallRecord]:
    """Each is read in any thread, one at a time: the connection may change threads."""
    path = context.backend.path
    with store_errors(path), closing(connect_reader(path, check_same_thread=False)) as connection:
        yield from read_all(connection, context.backend.sealer, wanted)


async def _exported(
    context: RequestContext, wanted: RecordFilter, format_: Format, *, clear: bool
) -> AsyncIterator[bytes]:
    with closing(_records(context, wanted)) as records:
        parts = export_parts(records, format_, reveal=clear, for_operator=context.business is None)
        while (part := await context.turn(partial(next, parts, None))) is not None:
            yield part


@router.get("/{call_id}", operation_id="getCall", summary="Show a call")
async def get_call(call_id: CallId, context: Reads, reveal: Revealing) -> CallDetailResponse:
    """A call that has ended, is up, or is ringing."""
    found = await _recorded(context, call_id)
    if found is None and not await _is_live(context, call_id):
        found = await _recorded(context, call_id)  # it may have been answered or ended between the two checks
        if found is None:
            raise Refused("not_found", "", "there is no such call")
    clear = await context.reveal(reveal, f"call {call_id}")
    if found is None:
        call = await context.backend.control.ask("call", call_id=call_id, business=context.business, reveal=clear)
        shown, recording = _shown_live(context, call, clear=clear), NOT_TAKEN
    else:
        record, recording = found
        shown = shown_call(record, clear=clear, for_operator=context.business is None)
    values = shown.model_dump()
    return CallDetailResponse.model_validate(values | recording | {"state": state_of(values)})


async def _recorded(context: RequestContext, call_id: str) -> tuple[CallRecord, dict[str, Any]] | None:
    """The record and recording of a call that was answered or has ended; None if the store has no such call."""

    def query(connection: Connection) -> tuple[CallRecord | None, dict[str, Any]]:
        return find_call(connection, context.backend.sealer, call_id, context.business), of_call(
            connection, context.backend.sealer, call_id
        )

    record, recording = await context.read(query)
    return None if record is None else (record, recording)


async def _is_live(context: RequestContext, call_id: str) -> bool:
    """Whether the call is in the relay's memory; False if no relay runs."""
    try:
        await context.backend.control.ask("call", call_id=call_id, business=context.business)
    except Refused:
        return False
    return True
