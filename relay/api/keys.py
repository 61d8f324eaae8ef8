"""API keys over HTTP: models and routes.

A key with the scope `keys` manages those of its business user; an operator key, all.
"""

from __future__ import annotations

from typing import Annotated, get_args

from fastapi import Depends, Path
from pydantic import Field
from starlette.responses import Response

from relay.api.businesses import BusinessId, own_business
from relay.api.context import Answer, Changes, Needs, RequestContext, Why
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.operations.shapes import Moment, RequestModel, ResponseModel, Time, given_ms, one_of, shown_moment
from relay.service.keys import LONGEST_OVERLAP_S, OPERATOR_SCOPES, Scope, make_key, revoke, rotate
from relay.store.keys import ApiKey, list_keys

Scopes = Annotated[
    list[Scope], Field(min_length=1, max_length=len(OPERATOR_SCOPES), json_schema_extra={"uniqueItems": True})
]


class KeyCreateRequest(
    RequestModel,
    json_schema_extra={"examples": [{"scopes": ["bindings:read", "bindings:write", "calls:read", "webhooks"]}]},
):
    """A key to make."""

    scopes: Scopes
    expires_at: Time | None = None


class KeyRotationRequest(RequestModel, json_schema_extra={"examples": [{"overlap_s": 3600}]}):
    """The rotation of a key."""

    overlap_s: int = Field(0, ge=0, le=LONGEST_OVERLAP_S, description="seconds for which the old key stays valid")


class KeyResponse(ResponseModel):
    """A key, without its secret."""

    id: str
    business_id: str | None = Field(description="null: an operator's key")
    scopes: list[Annotated[str, one_of(*get_args(Scope))]]
    created_at: Moment
    created_by: str
    expires_at: Moment | None
    revoked_at: Moment | None


class KeyCreatedResponse(KeyResponse):
    """A new key, with its secret. The secret is shown only once."""

    secret: str | None = Field(description="value for `Authorization: Bearer`; null in a repeated response")
    access_key_secret: str | None = Field(
        description="for Alibaba's API, where `id` is the access key id; null in a repeated response"
    )


# -- Routes of API keys

router = Router(prefix="/v1", tags=["keys"])
KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")]
KeyReads = Annotated[RequestContext, Depends(Needs("keys"))]
KeyChanges = Annotated[RequestContext, Depends(Changes("keys"))]


def shown_key(key: ApiKey) -> KeyResponse:
    """The response model of a key."""
    return KeyResponse(
        id=key.id,
        business_id=key.business,
        scopes=sorted(key.scopes),
        created_at=shown_moment(key.created_at),
        created_by=key.created_by,
        expires_at=shown_moment(key.expires_at),
        revoked_at=shown_moment(key.revoked_at),
    )


def _made(key: ApiKey, secret: str) -> Answer:
    shown = shown_key(key).model_dump()
    made = KeyCreatedResponse(**shown, secret=secret, access_key_secret=key.access_key_secret)
    return Answer(made, 201, kept=KeyCreatedResponse(**shown, secret=None, access_key_secret=None))


@router.post(
    "/businesses/{business_id}/keys",
    status_code=201,
    response_model=KeyCreatedResponse,
    operation_id="createKey",
    summary="Make a key",
)
async def post_key(business_id: BusinessId, asked: KeyCreateRequest, context: KeyChanges) -> Response:
    """Make a key with scopes that the requesting key has. The secret is shown in this response only."""
    expires_at = given_ms(asked.expires_at)
    return await context.change(lambda unit: _made(*make_key(unit, business_id, asked.scopes, expires_at)))


@router.get("/businesses/{business_id}/keys", operation_id="listKeys", summary="List the keys of a business user")
async def get_keys(business_id: BusinessId, context: KeyReads, paging: Paging) -> Page[KeyResponse]:
    """All keys by id, including revoked and expired ones, without their secrets."""
    sealer, business = context.backend.sealer, own_business(context, business_id)
    found = await context.part(
        f"keys {business.id}",
        paging,
        lambda connection, after, most: list_keys(connection, sealer, business_id, after, most),
        "",
        lambda key: key.id,
    )
    return found.shown(shown_key)


@router.delete("/keys/{key_id}", response_model=KeyResponse, operation_id="revokeKey", summary="Revoke a key")
async def delete_key(key_id: KeyId, context: KeyChanges, why: Why = None) -> Response:
    """Refuse the key from the next request on. The requesting key must have all of its scopes."""
    return await context.change(lambda unit: Answer(shown_key(revoke(unit, key_id, why or ""))))


@router.post(
    "/keys/{key_id}/rotate",
    status_code=201,
    response_model=KeyCreatedResponse,
    operation_id="rotateKey",
    summary="Rotate a key",
)
async def post_rotation(key_id: KeyId, asked: KeyRotationRequest, context: KeyChanges) -> Response:
    """Make a new key with the same scopes and expiry; the old key ends after `overlap_s` seconds.

    The requesting key must have all of its scopes.
    """
    return await context.change(lambda unit: _made(*rotate(unit, key_id, asked.overlap_s)))
