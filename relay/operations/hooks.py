"""Hooks of business users: endpoints that decide about their calls."""

from __future__ import annotations

from pydantic import Field

from relay.operations.operation import Asker, operation
from relay.operations.shapes import Moment, Name, RequestModel, ResponseModel, shown_moment
from relay.operations.webhooks import Url
from relay.service.hooks import Parties, drop_hook, no_hook, set_hook
from relay.store.connection import Connection
from relay.store.hooks import Hook, find_hook
from relay.store.unit_of_work import UnitOfWork


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
    disabled_at: Moment | None
    created_at: Moment
    changed_at: Moment


class HookSetResponse(HookResponse):
    """The hook, with its secret if it is new. The secret is shown only once."""

    secret: str | None = Field(description="key of the HMAC in Relay700-Signature; null unless the hook is new")


def shown_hook(hook: Hook) -> HookResponse:
    """The response shape of a hook, without its secret."""
    return HookResponse(
        business_id=hook.business,
        url=hook.url,
        parties=hook.parties,  # type: ignore[arg-type]  # one of them: it was checked
        unknown_callers=hook.unknown_callers,
        enabled=hook.disabled_at is None,
        disabled_at=shown_moment(hook.disabled_at),
        created_at=shown_moment(hook.created_at),
        changed_at=shown_moment(hook.changed_at),
    )


@operation("GET /v1/businesses/{business_id}/hook", name="getHook", summary="Show the hook", scope="hooks")
def show_hook(connection: Connection, asker: Asker, business_id: Name) -> HookResponse:
    """Show the hook of a business user."""
    hook = find_hook(connection, asker.sealer, asker.own(business_id))
    if hook is None:
        raise no_hook()
    return shown_hook(hook)


@operation(
    "PUT /v1/businesses/{business_id}/hook",
    name="setHook",
    summary="Set the hook",
    scope="hooks",
    secrets=("secret",),
)
def put_hook(unit: UnitOfWork, asker: Asker, business_id: Name, asked: HookRequest) -> HookSetResponse:
    """Set the hook, effective from the next call on. The secret of a new one is shown in this response only."""
    hook, secret = set_hook(unit, business_id, asker.rules, **asked.model_dump())
    return HookSetResponse(**shown_hook(hook).model_dump(), secret=secret)


@operation("DELETE /v1/businesses/{business_id}/hook", name="removeHook", summary="Remove the hook", scope="hooks")
def remove_hook(unit: UnitOfWork, asker: Asker, business_id: Name) -> HookResponse:
    """Remove the hook of a business user. From the next call on the bindings alone decide."""
    return shown_hook(drop_hook(unit, business_id))
