"""Business users over HTTP: models and routes."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal, cast

from fastapi import Depends, Path
from pydantic import AfterValidator, Field, StringConstraints
from starlette.responses import Response

from relay.api.context import Answer, Needs, OperatorChanges, RequestContext, Revealing
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.errors import Refused
from relay.model.binding import MODES, Mode
from relay.model.call import Language
from relay.operations.shapes import (
    CLEAN,
    Hours,
    Moment,
    Name,
    Reason,
    ReasonRequest,
    RequestModel,
    ResponseModel,
    Text128,
    by,
    given,
    left_out,
    shown_moment,
)
from relay.policy.rules import NO_LIMIT
from relay.privacy.records import mask_text
from relay.reports.disclosure import reason_form
from relay.service.businesses import (
    LARGEST_LIMIT,
    LONGEST,
    QUOTAS,
    Fields,
    Scenario,
    Step,
    apply,
    change,
    in_order,
    parse_text,
    set_state,
)
from relay.store.businesses import (
    Business,
    Changed,
    State,
    StateChange,
    find_business,
    list_businesses,
    state_changes,
)
from relay.store.unit_of_work import UnitOfWork


def _kept(field: str) -> AfterValidator:
    return AfterValidator(partial(by, partial(parse_text, field)))


CompanyName = Annotated[Text128, _kept("name")]
Licence = Annotated[str, StringConstraints(max_length=LONGEST["licence"], pattern=CLEAN), _kept("licence")]
ApplicationText = Annotated[
    str, StringConstraints(max_length=LONGEST["application"], pattern=CLEAN), _kept("application")
]
Contact = Annotated[str, StringConstraints(max_length=LONGEST["contact"], pattern=CLEAN), _kept("contact")]
Scheme = Annotated[str, StringConstraints(max_length=LONGEST["scheme"], pattern=CLEAN), _kept("scheme")]
Limit = Annotated[int, Field(ge=0, le=LARGEST_LIMIT)] | Literal["none"] | None
Quota = Annotated[Limit, AfterValidator(lambda limit: NO_LIMIT if limit == "none" else limit)]
Modes = Annotated[
    list[Mode],
    Field(min_length=1, max_length=len(MODES), json_schema_extra={"uniqueItems": True}),
    AfterValidator(in_order),
]


class _Terms(RequestModel):
    """The changeable terms of a business user."""

    licence: Licence = Field("", description="number of its business licence")
    application: ApplicationText = Field("", description="reference of its application for the pilot")
    scenario: Scenario = "other"
    contact: Contact = Field("", description="person and phone; sealed at rest")
    scheme: Scheme = Field("", description="reference of the technical scheme")
    modes: Modes = Field(default=[*MODES], description="binding modes it may use")
    max_bindings: Quota = Field(None, description="live bindings; null: as configured in [quotas]; none: unlimited")
    max_calls: Quota = Field(None, description="concurrent calls; null and none as above")
    max_cps: Quota = Field(None, description="new calls per second; null and none as above")
    max_binds_per_s: Quota = Field(None, description="new bindings per second by its keys; null and none as above")
    max_binds_per_day: Quota = Field(None, description="new bindings per day, China time; null and none as above")
    white_only: bool = Field(False, description="admit callers on its whitelist only")
    hours: Hours | None = None
    live_events: bool = Field(False, description="also send call.received, call.ringing and call.answered")
    language: Language | None = Field(None, description="language of announcements; null: as configured")


class BusinessCreateRequest(
    _Terms,
    json_schema_extra={
        "examples": [
            {
                "id": "acme",
                "name": "Acme Express",
                "scenario": "express",
                "licence": "1101-2026-17",
                "application": "pilot-17",
                "scheme": "scheme-1",
                "contact": "Li Lei",
            }
        ]
    },
):
    """The application of a business user."""

    id: Name | None = Field(None, description="permanent id of your choice; omitted: generated", examples=["acme"])
    name: CompanyName


class BusinessChangeRequest(
    RequestModel, json_schema_extra={"examples": [{"max_bindings": 20000, "live_events": True}]}
):
    """Fields to change. Omitted fields keep their value."""

    name: CompanyName = Field(default_factory=left_out)
    licence: Licence = Field(default_factory=left_out)
    application: ApplicationText = Field(default_factory=left_out)
    scenario: Scenario = Field(default_factory=left_out)
    contact: Contact = Field(default_factory=left_out)
    scheme: Scheme = Field(default_factory=left_out)
    modes: Modes = Field(default_factory=left_out)
    max_bindings: Quota = None
    max_calls: Quota = None
    max_cps: Quota = None
    max_binds_per_s: Quota = None
    max_binds_per_day: Quota = None
    white_only: bool = Field(default_factory=left_out)
    hours: Hours | None = None
    live_events: bool = Field(default_factory=left_out)
    language: Language | None = None
    version: int | None = Field(None, ge=1, le=1 << 53, description="the current version; any other is refused")
    reason: Reason | None = Field(
        None, description="reason for the audit log; required if the qualification of an approved business user changes"
    )


class BusinessResponse(ResponseModel):
    """A business user."""

    id: str
    state: State
    name: str
    licence: str
    application: str
    scenario: Scenario
    contact: str = Field(description="numbers in it are masked")
    scheme: str
    modes: list[Mode]
    max_bindings: Limit = Field(description="null: as configured in [quotas]; none: unlimited")
    max_calls: Limit
    max_cps: Limit
    max_binds_per_s: Limit
    max_binds_per_day: Limit
    live_bindings: int
    white_only: bool
    hours: str | None
    live_events: bool
    language: Language | None
    version: int
    created_at: Moment
    updated_at: Moment
    qualification: int = Field(description="version approved last; call records refer to it")


class BusinessChangedResponse(ResponseModel):
    """A change of the contact or of one field of the qualification. Numbers in a contact are masked."""

    field: str
    before: str
    after: str


class BusinessEventResponse(ResponseModel):
    """One change of state, qualification or contact."""

    state: State
    reason: str
    by: str
    at: Moment
    version: int = Field(description="resulting version; of an approval: the `qualification` of call records")
    changed: list[BusinessChangedResponse]


class BusinessHistoryResponse(ResponseModel):
    """All changes of state, qualification and contact, oldest first."""

    items: list[BusinessEventResponse]


# -- Routes of business users

router = Router(prefix="/v1/businesses", tags=["businesses"])
BusinessId = Annotated[Name, Path()]
Seen = Annotated[RequestContext, Depends(Needs())]


def shown_business(business: Business, *, clear: bool = False) -> BusinessResponse:
    """The response model of a business user."""
    values = business._asdict()
    values |= {name: "none" for name in QUOTAS if values[name] == NO_LIMIT}
    values["contact"] = business.contact if clear else mask_text(business.contact)
    values["created_at"] = shown_moment(business.created_at)
    values["updated_at"] = shown_moment(business.updated_at)
    return BusinessResponse(**values)


def own_business(context: RequestContext, business_id: str) -> Business:
    """A business user that the key may see. Raises Refused."""
    business = None
    if context.business in (None, business_id):
        business = context.row(lambda connection: find_business(connection, context.backend.sealer, business_id))
    if business is None:
        raise Refused("not_found", "", "there is no such business user")
    return business


@router.post(
    "",
    status_code=201,
    response_model=BusinessResponse,
    operation_id="createBusiness",
    summary="Apply for a business user",
)
async def post_business(asked: BusinessCreateRequest, context: OperatorChanges) -> Response:
    """Create a business user in state `applied`. It can do nothing until it is approved."""
    values = given(asked)
    business_id = values.pop("id", None) or ""

    def do(unit: UnitOfWork) -> Answer:
        business = apply(unit, cast(Fields, values), business_id)
        return Answer(shown_business(business), 201, f"/v1/businesses/{business.id}")

    return await context.change(do)


@router.get("", operation_id="listBusinesses", summary="List business users")
async def get_businesses(context: Seen, paging: Paging, state: State | None = None) -> Page[BusinessResponse]:
    """All business users, by id. A business user sees only itself."""
    sealer = context.backend.sealer
    found = await context.part(
        "businesses",
        paging,
        lambda connection, after, most: list_businesses(connection, sealer, context.business, state, after, most),
        "",
        lambda business: business.id,
    )
    return found.shown(shown_business)


@router.get("/{business_id}", operation_id="getBusiness", summary="Show a business user")
async def get_business(business_id: BusinessId, context: Seen, asked: Revealing) -> BusinessResponse:
    """One business user; a business user sees only itself."""
    business = own_business(context, business_id)
    return shown_business(business, clear=await context.reveal(asked, f"business {business_id}"))


@router.patch(
    "/{business_id}", response_model=BusinessResponse, operation_id="updateBusiness", summary="Change a business user"
)
async def patch_business(business_id: BusinessId, asked: BusinessChangeRequest, context: OperatorChanges) -> Response:
    """Quotas, modes and hours are effective from the next request and the next call.

    A change of name, licence, application, scenario or scheme returns an approved business user to `applied`: all calls
    on its bindings are refused until it is approved again. Such a change requires a reason.
    """
    values = given(asked)
    return await context.change(lambda unit: Answer(shown_business(change(unit, business_id, **values))))


@router.get("/{business_id}/history", operation_id="getBusinessHistory", summary="Show the history of a business user")
async def get_history(business_id: BusinessId, context: Seen) -> BusinessHistoryResponse:
    """Changes of its state, qualification and contact: actor, time, reason and previous value."""
    own_business(context, business_id)
    changes = await context.read(lambda connection: state_changes(connection, context.backend.sealer, business_id))
    return BusinessHistoryResponse(items=[_event(one) for one in changes])


def _event(change: StateChange) -> BusinessEventResponse:
    """A change; numbers in its reason are masked."""
    shown = {
        "at": shown_moment(change.at),
        "reason": reason_form(change.reason, reveal=False),
        "changed": [_changed(each) for each in change.changed],
    }
    return BusinessEventResponse(**change._asdict() | shown)


def _changed(changed: Changed) -> BusinessChangedResponse:
    field, before, after = changed
    if field == "contact":
        before, after = mask_text(before), mask_text(after)
    return BusinessChangedResponse(field=field, before=before, after=after)


def _step(step: Step, summary: str, words: str) -> None:
    @router.post(
        f"/{{business_id}}/{step}",
        response_model=BusinessResponse,
        operation_id=f"{step}Business",
        summary=summary,
        description=words,
    )
    async def take(business_id: BusinessId, asked: ReasonRequest, context: OperatorChanges) -> Response:
        return await context.change(
            lambda unit: Answer(shown_business(set_state(unit, business_id, step, asked.reason)))
        )


_step(
    "approve",
    "Approve a business user",
    "Requires state `applied`, and the fields that its scenario needs: licence, application, scheme and contact.",
)
_step("suspend", "Suspend a business user", "All calls on its bindings are refused from the next one on.")
_step("resume", "Resume a suspended business user", "Calls on its bindings are served again.")
_step(
    "revoke",
    "Revoke a business user",
    "Final. All calls on its bindings are refused, its keys end, its webhooks stop. Nothing is deleted.",
)
