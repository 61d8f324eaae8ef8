"""Routes of recordings, for operators only. Reading one requires a reason."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from relay.api import calls as models
from relay.api.calls import CallId
from relay.api.context import Operator
from relay.api.models import Name, Page, Reason, Time, given_ms, shown_moment
from relay.api.pages import Paging
from relay.errors import Refused, StoreError
from relay.reports.recordings import MEDIA_TYPE, ask_recording, read_recording
from relay.store.recordings import NEWEST, Recording, RecordingQuery, list_recordings
from relay.store.records import LAST_MS

router = APIRouter(prefix="/v1", tags=["calls"])


def shown_recording(recording: Recording) -> models.RecordingResponse:
    """The response model of a recording."""
    moments = {
        "taken_at": shown_moment(recording.taken_at),
        "purged_at": shown_moment(recording.purged_at),
    }
    return models.RecordingResponse.model_validate(recording._asdict() | moments)


@router.get("/recordings", summary="List recordings")
async def get_recordings(
    visit: Operator,
    paging: Paging,
    business: Name | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Page[models.RecordingResponse]:
    """Recordings by time of storage, newest first. Purged ones are listed as long as their call record is kept."""
    query = RecordingQuery(business, given_ms(since) or 0, LAST_MS if until is None else given_ms(until))
    found = await visit.part(
        "recordings",
        paging,
        lambda connection, after, most: list_recordings(connection, query, after, most),
        NEWEST,
        lambda recording: (recording.taken_at, recording.call_id),
    )
    return found.shown(shown_recording)


@router.get(
    "/calls/{call_id}/recording",
    summary="Read a recording",
    response_class=Response,
    responses={200: {"description": "The captured RTP of the call", "content": {MEDIA_TYPE: {}}}},
)
async def get_recording(call_id: CallId, visit: Operator, reason: Reason) -> Response:
    """A pcap file that includes the media addresses of both sides. The reason is audited before the response."""
    recording = await visit.act(lambda act: ask_recording(act, call_id, reason))
    kept_in, sealer = visit.backend.settings.kept_in, visit.backend.sealer
    try:
        parts = await anyio.to_thread.run_sync(read_recording, kept_in, sealer, recording)
    except StoreError as error:
        raise Refused("state_conflict", "", str(error)) from None
    headers = {
        "content-disposition": f'attachment; filename="{call_id}.pcap"',
        "content-length": str(recording.size),
    }
    return StreamingResponse(parts, headers=headers, media_type=MEDIA_TYPE)
