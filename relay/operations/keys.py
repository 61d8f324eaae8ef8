"""API keys and their scopes. A key with the scope `keys` manages those of its business user; an operator key, all."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field, StringConstraints

from relay.operations.businesses import own_business
from relay.operations.operation import Asker, Listing, operation
from relay.operations.shapes import (
    Moment,
    Name,
    Option,
    RequestModel,
    ResponseModel,
    Text64,
    Time,
    Why,
    given_ms,
    one_of,
    shown_moment,
)
from relay.service.keys import LONGEST_OVERLAP_S, OPERATOR_SCOPES, Scope, make_key, revoke, rotate
from relay.store.connection import Connection
from relay.store.keys import ApiKey, list_keys
from relay.store.unit_of_work import UnitOfWork

KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
_SECRETS = ("secret", "access_key_secret")
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
    name: Text64 | None = Field(None, description="Name of the program or person that has the key.")


class KeyRotationRequest(RequestModel, json_schema_extra={"examples": [{"overlap_s": 3600}]}):
    """The rotation of a key."""

    overlap_s: Annotated[int, Option(metavar="TIME")] = Field(
        0, ge=0, le=LONGEST_OVERLAP_S, description="How long the old key stays valid, such as 1h. In the API seconds."
    )


class KeyResponse(ResponseModel):
    """A key, without its secret."""

    id: str
    name: str | None
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


def shown_key(key: ApiKey) -> KeyResponse:
    """The response model of a key."""
    return KeyResponse(
        id=key.id,
        name=key.name,
        business_id=key.business,
        scopes=sorted(key.scopes),
        created_at=shown_moment(key.created_at),
        created_by=key.created_by,
        expires_at=shown_moment(key.expires_at),
        revoked_at=shown_moment(key.revoked_at),
    )


def shown_secret(key: ApiKey, secret: str) -> KeyCreatedResponse:
    """The response shape of a key just made, with its secrets."""
    return KeyCreatedResponse(**shown_key(key).model_dump(), secret=secret, access_key_secret=key.access_key_secret)


@operation(
    "POST /v1/businesses/{business_id}/keys",
    name="createKey",
    summary="Make a key",
    scope="keys",
    status=201,
    secrets=_SECRETS,
)
def make(unit: UnitOfWork, asker: Asker, business_id: Name, asked: KeyCreateRequest) -> KeyCreatedResponse:
    """Make a key with scopes that the requesting key has. The secret is shown in this response only."""
    return shown_secret(*make_key(unit, business_id, asked.scopes, given_ms(asked.expires_at), asked.name))


@operation(
    "GET /v1/businesses/{business_id}/keys",
    name="listKeys",
    summary="List the keys of a business user",
    scope="keys",
    item=KeyResponse,
)
def list_of_business(asker: Asker, business_id: Name) -> Listing[ApiKey, str]:
    """All keys by id, including revoked and expired ones, without their secrets."""

    def read(connection: Connection, after: str, most: int) -> list[ApiKey]:
        business = own_business(connection, asker, business_id)
        return list_keys(connection, asker.sealer, business.id, after, most)

    return Listing(read, "", lambda key: key.id, lambda key, _: shown_key(key))


@operation("DELETE /v1/keys/{key_id}", name="revokeKey", summary="Revoke a key", scope="keys")
def revoke_key(unit: UnitOfWork, asker: Asker, key_id: KeyId, reason: Why = None) -> KeyResponse:
    """Revoke a key: the next request with it is refused. The requesting key must have all of its scopes."""
    return shown_key(revoke(unit, key_id, reason or ""))


@operation(
    "POST /v1/keys/{key_id}/rotate",
    name="rotateKey",
    summary="Rotate a key",
    scope="keys",
    status=201,
    secrets=_SECRETS,
)
def rotate_key(unit: UnitOfWork, asker: Asker, key_id: KeyId, asked: KeyRotationRequest) -> KeyCreatedResponse:
    """Replace a key by a new one with the same scopes and expiry.

    The requesting key must have all of its scopes.
    """
    return shown_secret(*rotate(unit, key_id, asked.overlap_s))
