"""Routes of business users. Operators make and change them; a business user sees itself."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel
from starlette.responses import Response

from relay.api import models_businesses as models
from relay.api.models import Because, Name, Page, given, shown_moment
from relay.api.pages import Paging
from relay.api.visit import Answer, Needs, OperatorChanges, Revealing, Visit
from relay.errors import Refused
from relay.log import mask_text
from relay.policy.quotas import NO_LIMIT
from relay.service.businesses import QUOTAS, Application, Step, apply, change, set_state
from relay.store.act import Act
from relay.store.businesses import Business, Changed, State, find_business, list_businesses, state_changes

router = APIRouter(prefix="/v1/businesses", tags=["businesses"])
BusinessId = Annotated[Name, Path()]
Seen = Annotated[Visit, Depends(Needs())]
_APPLICATION = frozenset(Application._fields)


def shown_business(business: Business, *, clear: bool = False) -> models.Business:
    """The response model of a business user."""
    values = business._asdict()
    values |= {name: "none" for name in QUOTAS if values[name] == NO_LIMIT}
    values["contact"] = business.contact if clear else mask_text(business.contact)
    values["created_at"] = shown_moment(business.created_at)
    values["updated_at"] = shown_moment(business.updated_at)
    return models.Business(**values)


def _given(asked: BaseModel) -> dict[str, Any]:
    """The fields present in the request, in the terms of the service."""
    values = given(asked)
    return values | {name: NO_LIMIT for name in QUOTAS if values.get(name) == "none"}


def own_business(visit: Visit, business_id: str) -> Business:
    """A business user that the key may see. Raises Refused."""
    business = None
    if visit.business in (None, business_id):
        business = visit.row(lambda connection: find_business(connection, visit.desk.sealer, business_id))
    if business is None:
        raise Refused("not_found", "", "there is no such business user")
    return business


@router.post("", status_code=201, response_model=models.Business, summary="Apply for a business user")
async def post_business(asked: models.BusinessNew, visit: OperatorChanges) -> Response:
    """Create a business user in state `applied`. It can do nothing until it is approved."""
    values = _given(asked)
    application = Application(**{name: values.pop(name) or "" for name in _APPLICATION & values.keys()})

    def do(act: Act) -> Answer:
        business = apply(act, application, **values)
        return Answer(shown_business(business), 201, f"/v1/businesses/{business.id}")

    return await visit.change(do)


@router.get("", summary="List business users")
async def get_businesses(visit: Seen, paging: Paging, state: State | None = None) -> Page[models.Business]:
    """All business users, by id. A business user sees only itself."""
    sealer = visit.desk.sealer
    found = await visit.part(
        "businesses",
        paging,
        lambda connection, after, most: list_businesses(connection, sealer, visit.business, state, after, most),
        "",
        lambda business: business.id,
    )
    return found.shown(shown_business)


@router.get("/{business_id}", summary="Show a business user")
async def get_business(business_id: BusinessId, visit: Seen, asked: Revealing) -> models.Business:
    """One business user; a business user sees only itself."""
    business = own_business(visit, business_id)
    return shown_business(business, clear=await visit.reveal(asked, f"business {business_id}"))


@router.patch("/{business_id}", response_model=models.Business, summary="Change a business user")
async def patch_business(business_id: BusinessId, asked: models.BusinessChange, visit: OperatorChanges) -> Response:
    """Quotas, modes and hours are effective from the next request and the next call.

    A change of name, licence, application, scenario or scheme returns an approved business user to `applied`: all calls
    on its bindings are refused until it is approved again. Such a change requires a reason.
    """
    values = _given(asked)
    return await visit.change(lambda act: Answer(shown_business(change(act, business_id, **values))))


@router.get("/{business_id}/history", summary="Show the history of a business user")
async def get_history(business_id: BusinessId, visit: Seen) -> models.History:
    """Changes of its state, qualification and contact: actor, time, reason and previous value."""
    own_business(visit, business_id)
    changes = await visit.read(lambda connection: state_changes(connection, visit.desk.sealer, business_id))
    return models.History(
        items=[
            models.BusinessEvent(
                **one._asdict() | {"at": shown_moment(one.at), "changed": [_changed(each) for each in one.changed]}
            )
            for one in changes
        ]
    )


def _changed(changed: Changed) -> models.Changed:
    field, before, after = changed
    if field == "contact":
        before, after = mask_text(before), mask_text(after)
    return models.Changed(field=field, before=before, after=after)


def _step(step: Step, summary: str, words: str) -> None:
    @router.post(
        f"/{{business_id}}/{step}", response_model=models.Business, name=step, summary=summary, description=words
    )
    async def take(business_id: BusinessId, asked: Because, visit: OperatorChanges) -> Response:
        return await visit.change(lambda act: Answer(shown_business(set_state(act, business_id, step, asked.reason))))


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
