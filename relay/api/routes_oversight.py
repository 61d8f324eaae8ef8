"""Routes of oversight: traces, evidence bundles, daily reports and complaints."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO, Annotated

import anyio.to_thread
from fastapi import APIRouter, Depends
from starlette.responses import Response, StreamingResponse

from relay.api import models_oversight as models
from relay.api.models import Day, Name, given_ms, shown_moment
from relay.api.routes_bindings import shown_binding
from relay.api.routes_calls import shown_call
from relay.api.visit import Answer, Needs, OperatorChanges, Visit
from relay.reports.daily import DailyLine, daily, set_complaints
from relay.reports.evidence import ask_evidence, bundle
from relay.reports.trace import ask_trace, trace
from relay.service import fields
from relay.service.keys import OPERATOR
from relay.store.act import Act

router = APIRouter(prefix="/v1", tags=["oversight"])
Traces = Annotated[Visit, Depends(Needs("trace", OPERATOR))]
Reports = Annotated[Visit, Depends(Needs("reports"))]
_ZIP = "application/zip"
_CHUNK = 1 << 16
_IN_MEMORY = 1 << 26  # bytes of a bundle kept off the disk: it holds real numbers


@router.post("/trace", summary="Trace a number")
async def post_trace(asked: models.TraceAsked, visit: Traces) -> models.Trace:
    """The parties behind a number at a given time, in clear, however long ago. Audited before the response."""
    number, at_ms = fields.number("number", asked.number), given_ms(asked.at)
    question = await visit.act(lambda act: ask_trace(act, number, at_ms, asked.reason))
    found = await anyio.to_thread.run_sync(trace, visit.desk.path, visit.desk.sealer, question)
    return models.Trace(
        number=found.number,
        at=shown_moment(found.at_ms),
        bindings=[shown_binding(binding, at_ms, clear=True) for binding in found.bindings],
        members=found.members,
        calls=[shown_call(call, clear=True, for_operator=True) for call in found.calls],
    )


@router.post(
    "/evidence",
    summary="Export the evidence for a number",
    response_class=Response,
    responses={200: {"description": "The bundle: a ZIP file, signed with Ed25519", "content": {_ZIP: {}}}},
)
async def post_evidence(asked: models.EvidenceAsked, visit: Traces) -> Response:
    """Everything stored about a number in a period, in clear. `README.txt` in the bundle explains how to verify it."""
    number, since_ms, until_ms = fields.number("number", asked.number), given_ms(asked.since), given_ms(asked.until)
    question = await visit.act(lambda act: ask_evidence(act, number, since_ms, until_ms, asked.reason))
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - `_chunks` closes it
    await anyio.to_thread.run_sync(bundle, visit.desk.path, visit.desk.sealer, question, file)
    headers = {"content-disposition": f'attachment; filename="evidence-{visit.request.state.request_id}.zip"'}
    return StreamingResponse(_chunks(file), headers=headers, media_type=_ZIP)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(_CHUNK):
            yield chunk


def shown_line(line: DailyLine) -> models.DailyLine:
    """The response model of a line of the daily report."""
    values = line._asdict()
    del values["talk_ms"]
    return models.DailyLine(**values, minutes=line.minutes)


@router.get("/reports/daily", summary="Show the report of a day")
async def get_daily(visit: Reports, day: Day, business: Name | None = None) -> models.Daily:
    """One line per business user and prefix, for a day in China time. Calls still up are not included."""
    whose = visit.only(business)
    lines = await visit.read_long(lambda connection: daily(connection, visit.desk.sealer, day, whose))
    return models.Daily(items=[shown_line(line) for line in lines])


@router.put("/reports/daily/complaints", response_model=models.Complaints, summary="Enter complaints of a day")
async def put_complaints(asked: models.Complaints, visit: OperatorChanges) -> Response:
    """Set the number of complaints of a day, replacing an earlier number."""

    def do(act: Act) -> Answer:
        set_complaints(act, asked.day, asked.business, asked.prefix, asked.count)
        return Answer(asked)

    return await visit.change(do)
