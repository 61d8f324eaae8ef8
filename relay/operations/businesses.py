"""Business users: from the application to the revocation. A business user sees itself alone."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, Field, StringConstraints

from relay.model.binding import MODES, Mode
from relay.model.call import Language
from relay.operations.operation import Asker, Listing, Operation, found, operation
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
from relay.service.keys import OPERATOR
from relay.store.businesses import (
    Business,
    State,
    StateChange,
    TermChange,
    find_business,
    list_businesses,
    state_changes,
)
from relay.store.connection import Connection
from relay.store.unit_of_work import UnitOfWork
from relay.translation import N_


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
    papers: list[str] = Field(description="versions of papers that an approval rested on")


class BusinessHistoryResponse(ResponseModel):
    """All changes of state, qualification and contact, oldest first."""

    items: list[BusinessEventResponse]


def shown_business(business: Business, *, clear: bool = False) -> BusinessResponse:
    """The response model of a business user."""
    values = business._asdict()
    values |= {name: "none" for name in QUOTAS if values[name] == NO_LIMIT}
    values["contact"] = business.contact if clear else mask_text(business.contact)
    values["created_at"] = shown_moment(business.created_at)
    values["updated_at"] = shown_moment(business.updated_at)
    return BusinessResponse(**values)


def own_business(connection: Connection, asker: Asker, business_id: str) -> Business:
    """A business user that the asker may see. Raises Refused."""
    business = None
    if asker.business in (None, business_id):
        business = find_business(connection, asker.sealer, business_id)
    return found(business, "business user")


class BusinessListRequest(RequestModel):
    """The business users to list."""

    state: State | None = Field(None, description="Only business users in this state.")


@operation(
    "POST /v1/businesses",
    name="createBusiness",
    summary="Apply for a business user",
    scope=OPERATOR,
    status=201,
)
def apply_for(unit: UnitOfWork, asker: Asker, asked: BusinessCreateRequest) -> BusinessResponse:
    """Enter the application of a business user. It may do nothing until it is approved."""
    values = given(asked)
    business_id = values.pop("id", None) or ""
    return shown_business(apply(unit, cast(Fields, values), business_id))


@operation(
    "GET /v1/businesses",
    name="listBusinesses",
    summary="List business users",
    scope="",
    revealed="businesses",
    item=BusinessResponse,
)
def list_all(asker: Asker, asked: BusinessListRequest) -> Listing[Business, str]:
    """List business users. A business user sees only itself."""
    return Listing(
        lambda connection, after, most: list_businesses(
            connection, asker.sealer, asker.business, asked.state, after, most
        ),
        "",
        lambda business: business.id,
        lambda business, reader: shown_business(business, clear=reader.clear),
        {"state": asked.state},
    )


@operation(
    "GET /v1/businesses/{business_id}",
    name="getBusiness",
    summary="Show a business user",
    scope="",
    revealed="business {business_id}",
)
def show_business(connection: Connection, asker: Asker, business_id: Name) -> BusinessResponse:
    """Show one business user. Phone numbers of its contact are masked."""
    return shown_business(own_business(connection, asker, business_id), clear=asker.clear)


@operation(
    "PATCH /v1/businesses/{business_id}", name="updateBusiness", summary="Change a business user", scope=OPERATOR
)
def change_business(
    unit: UnitOfWork, asker: Asker, business_id: Name, asked: BusinessChangeRequest
) -> BusinessResponse:
    """Quotas, modes and hours are effective from the next request and the next call.

    A change of name, licence, application, scenario or scheme returns an approved business user to `applied`: all calls
    on its bindings are refused until it is approved again. Such a change requires a reason.
    """
    return shown_business(change(unit, business_id, **given(asked)))


@operation(
    "GET /v1/businesses/{business_id}/history",
    name="getBusinessHistory",
    summary="Show the history of a business user",
    scope="",
)
def show_history(connection: Connection, asker: Asker, business_id: Name) -> BusinessHistoryResponse:
    """List changes of state, qualification and contact. Each has actor, time, reason and former values."""
    changes = state_changes(connection, asker.sealer, own_business(connection, asker, business_id).id)
    return BusinessHistoryResponse(items=[_event(one) for one in changes])


def _event(change: StateChange) -> BusinessEventResponse:
    """A change; numbers in its reason are masked."""
    shown = {
        "at": shown_moment(change.at),
        "reason": reason_form(change.reason, reveal=False),
        "changed": [_changed(each) for each in change.changed],
        "papers": list(change.papers),
    }
    return BusinessEventResponse(**change._asdict() | shown)


def _changed(changed: TermChange) -> BusinessChangedResponse:
    field, before, after = changed
    if field == "contact":
        before, after = mask_text(before), mask_text(after)
    return BusinessChangedResponse(field=field, before=before, after=after)


def _step(step: Step, summary: str, words: str) -> Operation:
    def take(unit: UnitOfWork, asker: Asker, business_id: Name, asked: ReasonRequest) -> BusinessResponse:
        return shown_business(set_state(unit, business_id, step, asked.reason, asker.rules.papers))

    take.__doc__ = words
    route = f"POST /v1/businesses/{{business_id}}/{step}"
    return operation(route, name=f"{step}Business", summary=summary, scope=OPERATOR)(take)


approve = _step(
    "approve",
    "Approve a business user",
    N_("Approve a business user. All details that its scenario requires must be there."),
)
suspend = _step(
    "suspend",
    "Suspend a business user",
    N_("Suspend a business user. Its new calls are refused until it is resumed."),
)
resume = _step("resume", "Resume a suspended business user", N_("End the suspension of a business user."))
revoke = _step("revoke", "Revoke a business user", N_("Revoke a business user: its new calls are refused for good."))
