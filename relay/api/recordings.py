"""Recordings over HTTP: models and routes. A business user gets its own as WAV; the capture, which has the media
addresses of both sides, is for operators."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Annotated, Final, Literal

import anyio.to_thread
from fastapi import Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from relay.api.auth import actor_of, stored_key
from relay.api.calls import CallId
from relay.api.context import Answer, Needs, OperatorChanges, RequestContext, Why
from relay.api.downloads import Download
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.errors import Refused, StoreError
from relay.operations.operation import lacks
from relay.operations.shapes import (
    Moment,
    Name,
    Reason,
    RequestModel,
    ResponseModel,
    Time,
    api_named,
    given_ms,
    shown_moment,
)
from relay.reports import wav
from relay.reports.recordings import MEDIA_TYPE, read_recording, read_wav
from relay.service.keys import OPERATOR
from relay.service.recordings import (
    LINK_S,
    LONGEST_LINK_S,
    SHORTEST_LINK_S,
    RecordingLink,
    ask_recording,
    delete_marked,
    delete_recording,
    follow_link,
    is_signed,
    link_over,
    make_link,
)
from relay.store.recordings import NEWEST, Channels, Recording, RecordingQuery, find_recording, list_recordings
from relay.store.records import LAST_MS
from relay.store.unit_of_work import UnitOfWork


class RecordingResponse(ResponseModel):
    """The recording of a call."""

    call_id: str
    business_id: str
    taken_at: Moment = Field(description="when it was fetched from rtpengine and sealed")
    length_ms: int = Field(description="from the first packet to the last")
    size: int = Field(description="bytes of the capture")
    sha256: str = Field(description="hash of the capture, as kept; also in the call's record and the audit log")
    purged_at: Moment | None = Field(
        description="when its file was deleted, on demand or at the end of its retention; null while it is kept"
    )


class LinkRequest(RequestModel, json_schema_extra={"examples": [{"channels": "stereo", "expires_in_s": 600}]}):
    """A link to make."""

    channels: Channels = Field("mono", description="`stereo`: the caller left, the callee right")
    expires_in_s: int = Field(LINK_S, ge=SHORTEST_LINK_S, le=LONGEST_LINK_S, description="seconds")
    reason: Reason | None = Field(None, description="reason for the audit log; required of operators")


class LinkResponse(ResponseModel):
    """A link to a recording's WAV file. Whoever has it needs no key until it ends."""

    url: str = Field(description="ends with the key that made it, too")
    expires_at: Moment


router = Router(prefix="/v1", tags=["recordings"])
Reads = Annotated[RequestContext, Depends(Needs("recordings:read"))]
_Format = Literal["wav", "pcap"]


def shown_recording(recording: Recording) -> RecordingResponse:
    """The response model of a recording."""
    moments = {"taken_at": shown_moment(recording.taken_at), "purged_at": shown_moment(recording.purged_at)}
    return RecordingResponse.model_validate(api_named(recording._asdict()) | moments)


@router.get("/recordings", operation_id="listRecordings", summary="List recordings")
async def get_recordings(
    context: Reads,
    paging: Paging,
    business_id: Name | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Page[RecordingResponse]:
    """Recordings by time of storage, newest first. Deleted ones are listed as long as their call record is kept."""
    query = RecordingQuery(
        context.asker.only(business_id), given_ms(since) or 0, LAST_MS if until is None else given_ms(until)
    )
    found = await context.part(
        "recordings",
        paging,
        lambda connection, after, most: list_recordings(connection, query, after, most),
        NEWEST,
        lambda recording: (recording.taken_at, recording.call_id),
    )
    return found.shown(shown_recording)


@router.get(
    "/calls/{call_id}/recording",
    operation_id="getRecording",
    summary="Read a recording",
    response_class=Response,
    responses={200: {"description": "The file", "content": {wav.MEDIA_TYPE: {}, MEDIA_TYPE: {}}}},
)
async def get_recording(
    call_id: CallId,
    context: Reads,
    why: Why = None,
    format_: Annotated[_Format, Query(alias="format")] = "wav",
    channels: Channels = "mono",
) -> Response:
    """The sound of both sides as a WAV file: 16 bits, 8 or 16 kHz; `stereo` has the caller left and the callee right.

    Operators give a `reason`, which is in the audit log before the response. With `format=pcap` they get the capture
    itself, with the media addresses of both sides.
    """
    if format_ == "pcap" and OPERATOR not in context.actor.scopes:
        raise lacks(OPERATOR, "format")
    details: dict[str, object] = {"format": format_}
    return await _sent(context, lambda unit: ask_recording(unit, call_id, why or "", details), format_, channels)


@router.post("/calls/{call_id}/recording/url", operation_id="createRecordingUrl", summary="Make a link to a recording")
async def post_recording_url(call_id: CallId, asked: LinkRequest, context: Reads) -> LinkResponse:
    """A URL of the WAV file that needs no key. It ends at `expires_at`, and with the key of this request.

    The audit log has the making, and each use with the address that it came from.
    """
    key_id = context.actor.name.removeprefix("key:")
    link = await context.run(
        lambda unit: make_link(
            unit, call_id, key_id, channels=asked.channels, life_s=asked.expires_in_s, reason=asked.reason or ""
        )
    )
    recording = context.one(lambda connection: find_recording(connection, context.backend.sealer, call_id), "recording")
    await context.work(partial(_opened, context, recording, "wav", asked.channels))  # or say why it cannot be
    url = context.backend.settings.public_url + link.path(context.backend.sealer)
    return LinkResponse(url=url, expires_at=shown_moment(1000 * link.expires_s))


@router.delete(
    "/calls/{call_id}/recording",
    operation_id="deleteRecording",
    response_model=RecordingResponse,
    summary="Delete a recording",
)
async def delete_call_recording(call_id: CallId, context: OperatorChanges, reason: Reason) -> Response:
    """Delete a recording before the end of its retention, as on a person's demand.

    The call's record, the recording's hash, and the reason in the audit log stay.
    """
    kept_in = context.backend.settings.kept_in
    answer = await context.change(
        lambda unit: Answer(shown_recording(delete_recording(unit, kept_in, call_id, reason)))
    )
    await anyio.to_thread.run_sync(delete_marked, kept_in, call_id)
    return answer


# -- The link, outside /v1: it has its own proof

link_router = Router()


@link_router.get("/recordings/{call_id}.wav", include_in_schema=False)
async def get_linked(
    request: Request,
    call_id: CallId,
    channels: Channels,
    expires: Annotated[int, Query(ge=0, le=LAST_MS)],
    key: Annotated[str, Query(pattern="^[0-9a-f]{12}$")],
    sig: Annotated[str, Query(pattern="^[0-9a-f]{32}$")],
) -> Response:
    """The WAV file of a link, for as long as its key is good."""
    backend, limits, now_s = request.app.state.backend, request.app.state.limits, request.app.state.clock()
    link = RecordingLink(call_id, channels, expires, key)
    owner = stored_key(backend, key) if now_s < expires and is_signed(backend.sealer, link, sig) else None
    if owner is not None and not owner.is_good(int(now_s * 1000)):
        owner = None
    allowance = limits.take_failure(request.scope, now_s) if owner is None else limits.take(owner, now_s)
    if not allowance.granted:
        raise Refused("rate_limited", "", "too many requests: retry after 1 second")
    if owner is None:
        raise link_over()
    actor = actor_of(owner)
    request.state.actor_name = actor.name
    source = request.client.host if request.client else ""
    context = RequestContext(request, backend, actor)
    return await _sent(context, lambda unit: follow_link(unit, link, source), "wav", channels)


# -- Files

_is_range: Final = re.compile(r"bytes=([0-9]{1,12})-([0-9]{0,12})").fullmatch


async def _sent(
    context: RequestContext, ask: Callable[[UnitOfWork], Recording], format_: _Format, channels: Channels
) -> Response:
    """The file, after the line in the audit log that `ask` writes."""
    with context.downloads.kept_by(context.reader) as over:
        recording = await context.run(ask)
        size, parts = await context.turn(partial(_opened, context, recording, format_, channels))
    part = _range(context.request.headers.get("range", ""), size)
    wanted = part or range(size)
    headers = {
        "content-disposition": f'attachment; filename="{recording.call_id}.{format_}"',
        "content-length": str(len(wanted)),
        "accept-ranges": "bytes",
    }
    if part:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{size}"
    media_type = MEDIA_TYPE if format_ == "pcap" else wav.MEDIA_TYPE
    made = _made(context, parts, wanted)
    return Download(made, over, status=206 if part else 200, headers=headers, media_type=media_type)


def _opened(
    context: RequestContext, recording: Recording, format_: _Format, channels: Channels
) -> tuple[int, Iterator[bytes]]:
    """Size and parts of the file. Raises Refused."""
    kept_in, sealer = context.backend.settings.kept_in, context.backend.sealer
    try:
        if format_ == "pcap":
            return recording.size, read_recording(kept_in, sealer, recording)
        return read_wav(kept_in, sealer, recording, channels)
    except StoreError as error:  # it names the file, which is the operator's
        why = str(error) if context.business is None else "its file is missing, or was changed: ask the operator"
        raise Refused("state_conflict", "", why) from None


def _range(header: str, size: int) -> range:
    """The bytes that are asked for; none if the header has another form, which RFC 9110 14.2 allows to ignore.

    Safari plays nothing without, and others need it to go to a place that they have not loaded.
    """
    asked = _is_range(header)
    if asked is None:
        return range(0)
    return range(int(asked[1]), min(int(asked[2] or size) + 1, size))


async def _made(context: RequestContext, parts: Iterator[bytes], wanted: range) -> AsyncIterator[bytes]:
    place = 0
    while place < wanted.stop and (part := await context.turn(partial(next, parts, b""))):
        if piece := part[max(wanted.start - place, 0) : wanted.stop - place]:
            yield piece
        place += len(part)
