"""The ladder of a captured call over HTTP: models and route."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Query
from pydantic import Field
from starlette.responses import Response

from relay.api.context import Needs, RequestContext, Revealing
from relay.api.routes import Router
from relay.errors import AlteredError, Refused
from relay.model.call import CallRecord
from relay.model.capture import REGISTRATIONS, CapturedCall
from relay.operations.operation import lacks
from relay.operations.shapes import Masked, Moment, ResponseModel
from relay.reports.recordings import find_call
from relay.service.keys import OPERATOR
from relay.store.captures import joined
from relay.store.writer import now_ms
from relay.trace.ladder import (
    Ladder,
    Verdict,
    build_ladder,
    business_view,
    ladder_object,
    operator_view,
    record_of,
    why_absent,
)

Format = Literal["json", "html", "pcap"]
MEDIA_TYPES: Final[dict[Format, str]] = {
    "json": "application/json",
    "html": "text/html; charset=utf-8",
    "pcap": "application/vnd.tcpdump.pcap",
}


class LaneResponse(ResponseModel):
    """The caller, or an attempt at one target."""

    number: int = Field(description="0: the caller; attempts from 1")
    side: Literal["caller", "callee"]
    peer: str = Field(description="empty for keys of business users")
    address: Masked = Field(description="a stand-in of a documentation range unless revealed to an operator")
    early_dialogs: int = Field(description="number of early dialogs, if more than one; else 0")


class CrossingResponse(ResponseModel):
    """The fate of the lines of one name."""

    name: str
    verdict: Verdict
    lines: int


class ReceivedLineResponse(ResponseModel):
    """A line of the message that a sent one was made from."""

    text: str
    verdict: Verdict | None = Field(description="null for the start line")


class LadderMessageResponse(ResponseModel):
    """A message, with its retransmissions."""

    lane: int
    sent: bool = Field(description="by the relay")
    what: str = Field(description="as in INVITE, 180 Ringing, 200 OK (BYE)")
    status: int = Field(description="0: a request")
    early_dialog: str = Field(description="a letter if the lane has several early dialogs")
    after_ms: float = Field(description="since the first message")
    again_after_ms: list[float] = Field(description="times of its retransmissions")
    transport: str
    local: Masked = Field(description="address of the relay")
    remote: Masked
    text: str
    made_from: int | None = Field(description="index of the message that it was made from; null: the relay's own")
    crossings: list[CrossingResponse]
    received_lines: list[ReceivedLineResponse]


class MarkResponse(ResponseModel):
    """A step between the messages."""

    after_ms: float
    step: str = Field(description="look_up, routed, commit, committed; media and rtpengine's command")


class LadderResponse(ResponseModel):
    """The SIP messages of a call on both sides, and what did not cross."""

    call_id: str
    masked: bool
    side: Literal["caller", "callee"] | None = Field(description="the only side shown; null: both")
    started_at: Moment | None
    lost: int = Field(description="messages that were not captured")
    lanes: list[LaneResponse]
    messages: list[LadderMessageResponse]
    marks: list[MarkResponse]


router = Router(prefix="/v1/calls", tags=["calls"])
LadderId = Annotated[str, Path(pattern=f"^(?:[0-9a-f]{{32}}|{REGISTRATIONS}.{{1,64}})$")]
Reads = Annotated[RequestContext, Depends(Needs("calls:read"))]
_FILES: dict[int | str, dict[str, Any]] = {
    200: {"content": {MEDIA_TYPES[name]: {} for name in ("html", "pcap")}, "description": "The ladder"}
}


@router.get(
    "/{call_id}/ladder",
    operation_id="getCallLadder",
    summary="Show the SIP messages of a call",
    response_model=LadderResponse,
    responses=_FILES,
)
async def get_ladder(
    call_id: LadderId, context: Reads, reveal: Revealing, format_: Annotated[Format, Query(alias="format")] = "json"
) -> Response:
    """Operators see both sides; `register:PEER` has a peer's registrations. Business users see the side of party a."""
    record = await _record(context, call_id, reveal=False)
    captured = await _captured(context, call_id)
    if captured is None:
        raise Refused("not_found", "", why_absent(record, context.backend.capture, now_ms()))
    clear = await context.reveal(reveal, f"ladder {call_id}")
    if clear and record is not None and record.ended_at is None:
        record = await _record(context, call_id, reveal=True)
    if context.business is None or record is None:
        view = operator_view(reveal=clear)
    else:
        view = business_view(record, reveal=clear)
    written = await context.work(lambda: _written(build_ladder(captured, record, view), format_))
    return Response(written, media_type=MEDIA_TYPES[format_])


async def _record(context: RequestContext, call_id: str, *, reveal: bool) -> CallRecord | None:
    """The record of an ended or live call; None for registrations. Raises Refused."""
    if call_id.startswith(REGISTRATIONS):
        if context.business is not None:
            raise lacks(OPERATOR)
        return None
    sealer, business = context.backend.sealer, context.business
    record = await context.read(lambda connection: find_call(connection, sealer, call_id, business))
    if record is not None:
        return record
    try:
        values = await context.backend.control.ask("call", call_id=call_id, business=business, reveal=reveal)
    except Refused:  # it may have been answered or ended between the two
        record = await context.read(lambda connection: find_call(connection, sealer, call_id, business))
        if record is None:
            raise Refused("not_found", "", "there is no such call") from None
        return record
    return record_of(values)


async def _captured(context: RequestContext, call_id: str) -> CapturedCall | None:
    """The stored capture of a call joined with the one in memory: registrations have both."""
    pending = await context.backend.pending_capture(call_id)
    try:
        stored = await context.work(lambda: context.backend.captures.load(call_id))
    except AlteredError:
        raise Refused(
            "state_conflict",
            "",
            "the capture of this call was altered, or made with another key: `relay700 verify` names each",
        ) from None
    parts = [part for part in (stored, pending) if part is not None]
    return joined(parts) if parts else None


def _written(ladder: Ladder, format_: Format) -> bytes | str:
    if format_ == "html":
        from relay.trace.ladder_html import ladder_html

        return ladder_html(ladder)
    if format_ == "pcap":
        from relay.trace.pcap import ladder_pcap

        return ladder_pcap(ladder)
    return LadderResponse.model_validate(ladder_object(ladder)).model_dump_json()
