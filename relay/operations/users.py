"""Users: people who log in to the console with name, password and code."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from relay.operations.operation import Asker, Listing, operation
from relay.operations.shapes import Moment, Name, RequestModel, ResponseModel, Text64, Why, shown_moment
from relay.service import users as service
from relay.service.users import LogInSecrets, Role
from relay.store.unit_of_work import UnitOfWork
from relay.store.users import UserAccount, list_users

_SECRETS = ("password", "code_uri")


class UserNew(RequestModel, json_schema_extra={"examples": [{"name": "li.na", "role": "on_duty"}]}):
    """A user to add."""

    name: Text64 = Field(description="2 to 32 lower-case letters, digits, _ . or -, beginning with a letter.")
    role: Role = Field(description="Role, a set of scopes.")
    business_id: Name | None = Field(None, description="Business user of a business_admin or business_reader.")


class UserRole(RequestModel, json_schema_extra={"examples": [{"role": "auditor"}]}):
    """A role to give."""

    role: Role


class UserResponse(ResponseModel):
    """A user, without secrets."""

    name: str
    role: str
    business_id: str | None = Field(description="null: one of the operator's people")
    must_change: bool = Field(description="whether the password is the first one")
    created_at: Moment
    created_by: str
    disabled_at: Moment | None
    locked_until: Moment | None = Field(description="after failed log-ins")


class UserSecretsResponse(UserResponse):
    """A user with new secrets. They are shown only once."""

    password: str | None = Field(description="the first password; null in a repeated response")
    code_uri: str | None = Field(description="otpauth URI for an authenticator; null in a repeated response")


def shown_user(user: UserAccount) -> UserResponse:
    """The response model of a user."""
    return UserResponse(
        name=user.name,
        role=user.role,
        business_id=user.business,
        must_change=user.must_change,
        created_at=shown_moment(user.created_at),
        created_by=user.created_by,
        disabled_at=shown_moment(user.disabled_at),
        locked_until=shown_moment(user.locked_until),
    )


def _with_secrets(user: UserAccount, secrets: LogInSecrets) -> UserSecretsResponse:
    return UserSecretsResponse(**shown_user(user).model_dump(), **secrets._asdict())


UserName = Annotated[str, Field(max_length=64)]


@operation("POST /v1/users", name="createUser", summary="Add a user", scope="operator", status=201, secrets=_SECRETS)
def add_user(unit: UnitOfWork, asker: Asker, asked: UserNew) -> UserSecretsResponse:
    """Add a user, with a first password and the secret of the codes.

    Both are shown in this response only, and the password must be changed at the first log-in. The asker must have all
    scopes of the role.
    """
    return _with_secrets(*service.add_user(unit, asked.name, asked.role, asked.business_id))


@operation("GET /v1/users", name="listUsers", summary="List users", scope="operator", item=UserResponse)
def list_all_users(asker: Asker) -> Listing[UserAccount, str]:
    """All users by name, including disabled ones, without their secrets."""
    return Listing(
        lambda connection, after, most: list_users(connection, asker.sealer, after, most),
        "",
        lambda user: user.name,
        lambda user, _: shown_user(user),
    )


@operation("POST /v1/users/{name}/role", name="setUserRole", summary="Change a user's role", scope="operator")
def set_role(unit: UnitOfWork, asker: Asker, name: UserName, asked: UserRole) -> UserResponse:
    """Change a role, effective from the next request. The last operator stays one."""
    return shown_user(service.set_role(unit, name, asked.role))


@operation("POST /v1/users/{name}/reset", name="resetUser", summary="Reset a user", scope="operator", secrets=_SECRETS)
def reset_user(unit: UnitOfWork, asker: Asker, name: UserName) -> UserSecretsResponse:
    """Give a user new secrets.

    That is a first password and the secret of the codes. It ends a lock and all sessions, and enables the user.
    """
    return _with_secrets(*service.reset_user(unit, name))


@operation("DELETE /v1/users/{name}", name="disableUser", summary="Disable a user", scope="operator")
def disable_user(unit: UnitOfWork, asker: Asker, name: UserName, reason: Why = None) -> UserResponse:
    """Disable a user. The sessions end at once. The last operator cannot be disabled."""
    return shown_user(service.disable_user(unit, name, reason or ""))
