"""Hooks of business users over HTTP: models and routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from pydantic import Field
from starlette.responses import Response

from relay.api.context import Answer, Changes, Needs, RequestContext
from relay.api.routes import Router
from relay.api.webhooks import Url
from relay.operations.shapes import Moment, Name, RequestModel, ResponseModel, shown_moment
from relay.service.hooks import Parties, drop_hook, no_hook, set_hook
from relay.store.hooks import Hook, find_hook
from relay.store.unit_of_work import UnitOfWork

router = Router(prefix="/v1/businesses/{business_id}/hook", tags=["hooks"])
Reads = Annotated[RequestContext, Depends(Needs("hooks"))]
Writes = Annotated[RequestContext, Depends(Changes("hooks"))]


class HookRequest(RequestModel, json_schema_extra={"examples": [{"url": "https://acme.example/calls"}]}):
    """The hook of a business user."""

    url: Url
    parties: Parties = Field("masked", description="form of the caller in questions; `clear` requires parties:read")
    unknown_callers: bool = Field(
        False, description="ask about callers without a binding, and let answers make one; requires bindings:write"
    )
    enabled: bool = True


class HookResponse(ResponseModel):
    """The endpoint that decides about the calls of a business user."""

    business_id: str
    url: str
    parties: Parties
    unknown_callers: bool
    enabled: bool
    created_at: Moment
    changed_at: Moment


class HookSetResponse(HookResponse):
    """The hook, with its secret if it is new. The secret is shown only once."""

    secret: str | None = Field(description="key of the HMAC in Relay700-Signature; null unless the hook is new")


def _shown(hook: Hook) -> HookResponse:
    return HookResponse(
        business_id=hook.business,
        url=hook.url,
        parties=hook.parties,  # type: ignore[arg-type]  # one of them: it was checked
        unknown_callers=hook.unknown_callers,
        enabled=hook.disabled_at is None,
        created_at=shown_moment(hook.created_at),
        changed_at=shown_moment(hook.changed_at),
    )


@router.get("", operation_id="getHook", summary="Show the hook")
async def get_hook(business_id: Name, context: Reads) -> HookResponse:
    """The hook of a business user, without its secret."""
    business = context.asker.own(business_id)
    hook = context.row(lambda connection: find_hook(connection, context.backend.sealer, business))
    if hook is None:
        raise no_hook()
    return _shown(hook)


@router.put("", response_model=HookSetResponse, operation_id="setHook", summary="Set the hook")
async def put_hook(business_id: Name, asked: HookRequest, context: Writes) -> Response:
    """Set the hook, effective from the next call on. The secret of a new one is shown in this response only."""
    rules, given = context.backend.settings.rules, asked.model_dump()

    def do(unit: UnitOfWork) -> Answer:
        hook, secret = set_hook(unit, business_id, rules, **given)
        shown = _shown(hook).model_dump()
        made, kept = HookSetResponse(**shown, secret=secret), HookSetResponse(**shown, secret=None)
        return Answer(made, kept=kept)

    return await context.change(do)


@router.delete("", response_model=HookResponse, operation_id="removeHook", summary="Remove the hook")
async def delete_hook(business_id: Name, context: Writes) -> Response:
    """Remove the hook: from the next call on the bindings alone decide."""
    return await context.change(lambda unit: Answer(_shown(drop_hook(unit, business_id))))
