"""Traceback, evidence, daily reports and the audit log over HTTP: models and routes."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import Field, model_validator
from starlette.responses import Response, StreamingResponse

from relay.api.calls import CallResponse, shown_call
from relay.api.context import Answer, Needs, Operator, OperatorChanges, RequestContext, Revealing
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.operations.bindings import BindingResponse, shown_binding
from relay.operations.operation import Asker
from relay.operations.shapes import (
    Day,
    ManagedPrefix,
    Moment,
    Name,
    Party,
    Reason,
    RequestModel,
    ResponseModel,
    Text64,
    Time,
    api_named,
    given_ms,
    shown_moment,
)
from relay.reports.daily import DailyLine, daily
from relay.reports.disclosure import Traceback, ask_trace, details_form, reason_form, span_of, trace
from relay.reports.evidence import ask_evidence, bundle
from relay.service import fields
from relay.service.complaints import MOST_COMPLAINTS, complaint_rates, set_complaints
from relay.service.keys import OPERATOR
from relay.store.audit import AuditQuery, LoggedEntry, newest_entries, verify_audit
from relay.store.keys import name_of_actor
from relay.store.unit_of_work import UnitOfWork
from relay.store.writer import now_ms
from relay.translation import N_


class TraceRequest(
    RequestModel,
    json_schema_extra={"examples": [{"number": "700100000010001", "at": "2026-01-31T08:00:00Z", "reason": "case 114"}]},
):
    """A trace of the parties behind a number at a time, or in a span of time. The reason goes to the audit log."""

    number: Party
    at: Time | None = Field(
        default=None, description="a whole minute stands for its sixty seconds, a whole second for that second"
    )
    since: Time | None = Field(default=None, description="instead of `at`: beginning of a span")
    until: Time | None = Field(
        default=None, description="end of that span, not included: at most 31 days after its beginning"
    )
    reason: Reason

    @model_validator(mode="after")
    def _one_time(self) -> TraceRequest:
        given = [name for name in ("at", "since", "until") if getattr(self, name) is not None]
        if given not in (["at"], ["since", "until"]):
            raise ValueError(N_("give either at, or since and until"))
        if self.since is not None and self.until is not None and self.until <= self.since:
            raise ValueError(N_("until must be after since"))
        return self

    @property
    def span(self) -> tuple[int, int]:
        """Beginning and end, not included, in Unix milliseconds."""
        if self.at is not None:
            return span_of(given_ms(self.at))
        assert self.since is not None and self.until is not None
        return given_ms(self.since), given_ms(self.until)


class TraceResponse(ResponseModel):
    """The bindings in force and the calls up in that time, with real numbers in clear."""

    number: str
    at: Moment = Field(description="beginning of that time")
    until: Moment = Field(description="not included")
    bindings: list[BindingResponse]
    members: dict[str, list[str]] = Field(description="members at that time, by group of these bindings")
    calls: list[CallResponse]


class EvidenceRequest(
    RequestModel,
    json_schema_extra={
        "examples": [
            {
                "number": "700100000010001",
                "since": "2026-01-31T00:00:00Z",
                "until": "2026-02-01T00:00:00Z",
                "reason": "case 114",
            }
        ]
    },
):
    """A request for everything stored about a number in a period, as a signed bundle."""

    number: Party
    since: Time
    until: Time
    reason: Reason

    @model_validator(mode="after")
    def _forward(self) -> EvidenceRequest:
        if self.until <= self.since:
            raise ValueError(N_("until must be after since"))
        return self


class DailyLineResponse(ResponseModel):
    """The totals of one business user on one prefix and day, China time."""

    day: Day
    business_id: str
    prefix: str
    attempts: int = Field(description="call attempts")
    answered: int
    unanswered: int = Field(description="not refused, but busy, unanswered, cancelled or the like")
    refused: dict[str, int] = Field(description="refused attempts by outcome")
    minutes: float
    parties: int = Field(description="distinct parties")
    complaints: int
    messages: int = Field(description="text messages received, delivered or not")
    messages_delivered: int


class DailyResponse(ResponseModel):
    """The report of one day."""

    items: list[DailyLineResponse]


class ComplaintsRequest(
    RequestModel,
    json_schema_extra={"examples": [{"day": "2026-01-31", "business_id": "acme", "prefix": "70010000001", "count": 2}]},
):
    """The number of complaints about a business user on one prefix and day."""

    day: Day
    business_id: Name
    prefix: ManagedPrefix
    count: int = Field(ge=0, le=MOST_COMPLAINTS)


class ComplaintRateResponse(ResponseModel):
    """Complaints of thirty days, today included, about a business user."""

    business_id: str
    prefix: str | None = Field(description="null for all prefixes")
    complaints: int
    answered: int = Field(description="answered calls of these days")
    percent: float | None = Field(description="complaints per hundred answered calls; null without calls")
    few: bool = Field(description="fewer than 3 complaints, which never warn")
    high: bool = Field(description="whether the rate has reached `[policy] complaint_rate`")
    suspend_reason: str | None = Field(
        description="for operators: proposed reason of a suspension, if the rate is high"
    )


class ComplaintRatesResponse(ResponseModel):
    """The rates of business users with complaints, of each over all prefixes first."""

    items: list[ComplaintRateResponse]


class AuditLineResponse(ResponseModel):
    """One line of the audit log: a change, or an access to real numbers."""

    seq: int
    at: Moment
    actor: str
    actor_name: str | None = Field(description="name of the key, if the actor is one that has a name")
    action: str
    object: str
    business_id: str | None
    reason: str
    details: dict[str, Any]


class AuditVerdictResponse(ResponseModel):
    """The result of verifying the audit log."""

    intact: int = Field(description="count of intact lines before the first fault")
    broken: str | None = Field(description="the first fault; null if there is none")


# -- Routes of oversight

router = Router(prefix="/v1", tags=["oversight"])
Traces = Annotated[RequestContext, Depends(Needs("trace", OPERATOR))]
Reports = Annotated[RequestContext, Depends(Needs("reports"))]
_ZIP = "application/zip"
_CHUNK = 1 << 16


@router.post("/trace", operation_id="traceNumber", summary="Trace a number")
async def post_trace(asked: TraceRequest, context: Traces) -> TraceResponse:
    """The parties behind a number at a given time, in clear, however long ago. Audited before the response.

    A span of time is 31 days at most; evidence takes longer ones.
    """
    number = fields.number("number", asked.number)
    question = await context.run(lambda unit: ask_trace(unit, number, *asked.span, asked.reason))
    backend = context.backend
    asker = context.asker._replace(clear=True)
    return await context.work(lambda: _shown_trace(trace(backend.path, backend.sealer, question), asker))


def _shown_trace(found: Traceback, asker: Asker) -> TraceResponse:
    bindings = [binding._replace(released_at=None) for binding in found.bindings]  # all in force then
    return TraceResponse(
        number=found.number,
        at=shown_moment(found.since_ms),
        until=shown_moment(found.until_ms),
        bindings=[shown_binding(then, max(found.since_ms, then.created_at), asker) for then in bindings],
        members=found.members,
        calls=[shown_call(call, clear=True, for_operator=True) for call in found.calls],
    )


@router.post(
    "/evidence",
    operation_id="createEvidence",
    summary="Export the evidence for a number",
    response_class=Response,
    responses={200: {"description": "The bundle: a ZIP file, signed with Ed25519", "content": {_ZIP: {}}}},
)
async def post_evidence(asked: EvidenceRequest, context: Traces) -> Response:
    """Everything stored about a number in a period, in clear. `README.txt` in the bundle explains how to verify it."""
    number, since_ms, until_ms = fields.number("number", asked.number), given_ms(asked.since), given_ms(asked.until)
    question = await context.run(lambda unit: ask_evidence(unit, number, since_ms, until_ms, asked.reason))
    file = BytesIO()  # no temporary file: it holds real numbers
    backend = context.backend
    await context.work(lambda: bundle(backend.path, backend.sealer, question, file))
    headers = {"content-disposition": f'attachment; filename="evidence-{context.request.state.request_id}.zip"'}
    return StreamingResponse(_chunks(file), headers=headers, media_type=_ZIP)


def _chunks(file: BytesIO) -> Iterator[bytes]:
    file.seek(0)
    while chunk := file.read(_CHUNK):
        yield chunk


def shown_line(line: DailyLine) -> DailyLineResponse:
    """The response model of a line of the daily report."""
    values = api_named(line._asdict())
    del values["talk_ms"]
    return DailyLineResponse(**values, minutes=line.minutes)


@router.get("/reports/daily", operation_id="getDailyReport", summary="Show the report of a day")
async def get_daily(context: Reports, day: Day, business_id: Name | None = None) -> DailyResponse:
    """One line per business user and prefix, for a day in China time. Calls still up are not included."""
    whose = context.asker.only(business_id)
    lines = await context.read_long(lambda connection: daily(connection, context.backend.sealer, day, whose))
    return DailyResponse(items=[shown_line(line) for line in lines])


@router.put(
    "/reports/daily/complaints",
    response_model=ComplaintsRequest,
    operation_id="setComplaints",
    summary="Enter complaints of a day",
)
async def put_complaints(asked: ComplaintsRequest, context: OperatorChanges) -> Response:
    """Set the number of complaints of a day, replacing an earlier number."""

    limit_ppm = context.backend.settings.complaint_ppm

    def do(unit: UnitOfWork) -> Answer:
        set_complaints(unit, asked.day, asked.business_id, asked.prefix, asked.count, limit_ppm)
        return Answer(asked)

    return await context.change(do)


@router.get("/reports/complaints", operation_id="listComplaintRates", summary="Show the rates of complaints")
async def get_complaint_rates(context: Reports, business_id: Name | None = None) -> ComplaintRatesResponse:
    """Complaints per answered call of thirty days. A high rate warns; only an operator suspends."""
    whose, now = context.asker.only(business_id), now_ms()
    limit_ppm = context.backend.settings.complaint_ppm
    rates = await context.read(lambda connection: complaint_rates(connection, whose, now, limit_ppm))
    hidden = {"suspend_reason": None} if context.business else {}
    forms = [rate.form() | hidden for rate in rates]
    items = [ComplaintRateResponse(business_id=form.pop("business"), **form) for form in forms]
    return ComplaintRatesResponse(items=items)


# -- Routes of the audit log

audit_router = Router(prefix="/v1/audit", tags=["audit"])


def shown_audit_line(logged: LoggedEntry, actor_name: str | None, *, clear: bool) -> AuditLineResponse:
    """The response model of an audit line."""
    entry = logged.entry
    return AuditLineResponse(
        seq=logged.seq,
        at=shown_moment(entry.at),
        actor=entry.actor,
        actor_name=actor_name,
        action=entry.action,
        object=entry.object_,
        business_id=entry.business,
        reason=reason_form(entry.reason, reveal=clear),
        details=details_form(entry, reveal=clear),
    )


@audit_router.get("", operation_id="listAuditLines", summary="List audit lines")
async def get_audit(
    context: Operator,
    paging: Paging,
    reveal: Revealing,
    actor: Text64 | None = None,
    action: Text64 | None = None,
    object_: Annotated[Text64 | None, Query(alias="object")] = None,
    business_id: Name | None = None,
    since: Time | None = None,
    until: Time | None = None,
) -> Page[AuditLineResponse]:
    """Changes and accesses to real numbers, newest first. Numbers in the lines are masked as well."""
    sealer = context.backend.sealer
    query = AuditQuery(actor, action, object_, business_id, given_ms(since), given_ms(until))
    found = await context.part(
        "audit",
        paging,
        lambda connection, before, most: newest_entries(connection, sealer, query, before, most),
        None,
        lambda logged: logged.seq,
    )
    clear = await context.reveal(reveal, "audit", [str(logged.seq) for logged in found.items])
    names = await context.read(
        lambda connection: {
            actor: name_of_actor(connection, sealer, actor) for actor in {each.entry.actor for each in found.items}
        }
    )
    return found.shown(lambda logged: shown_audit_line(logged, names[logged.entry.actor], clear=clear))


@audit_router.get("/verify", operation_id="verifyAudit", summary="Verify the audit log")
async def get_verdict(context: Operator) -> AuditVerdictResponse:
    """Check the chain over all lines, which takes time in proportion to the log."""
    verdict = await context.read_long(lambda connection: verify_audit(connection, context.backend.sealer))
    return AuditVerdictResponse(intact=verdict.intact, broken=verdict.broken)
