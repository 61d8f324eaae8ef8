"""Groups: the parties that share the number of each GXB or GXYB binding of their group.

A change of members is effective from the next call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, StringConstraints

from relay.operations.operation import Asker, Listing, found, operation
from relay.operations.shapes import (
    Masked,
    Moment,
    Name,
    Option,
    Party,
    RequestModel,
    ResponseModel,
    Text128,
    api_named,
    shown_moment,
)
from relay.service import groups as service
from relay.store.connection import Connection
from relay.store.groups import Group, find_group, find_groups, members_page
from relay.store.unit_of_work import UnitOfWork

GroupId = Annotated[str, StringConstraints(pattern="^g[0-9a-f]{8,40}$")]


class GroupCreateRequest(
    RequestModel, json_schema_extra={"examples": [{"name": "riders", "members": ["13800000001"]}]}
):
    """A group to make."""

    name: Text128
    business_id: Name | None = Field(None, description="Business user. Default: `default`.")
    members: Annotated[list[Party], Option("--member", "NUMBER")] = Field(
        [], max_length=1000, description="Party's real number; repeat for more."
    )


class GroupListRequest(RequestModel):
    """The groups to list."""

    business_id: Name | None = Field(None, description="Only groups of this business user.")


class MembersRequest(RequestModel, json_schema_extra={"examples": [{"members": ["13800000001", "13700000003"]}]}):
    """Members to add or remove."""

    members: Annotated[list[Party], Field(min_length=1, max_length=1000)]


class GroupResponse(ResponseModel):
    """A group of parties: the G of GXB and GXYB."""

    id: str
    business_id: str
    name: str
    size: int
    version: int
    created_at: Moment


class MembershipResponse(ResponseModel):
    """A group after a change of members."""

    group: GroupResponse
    changed: int = Field(description="number of members added or removed")


class MemberResponse(ResponseModel):
    """A member of a group."""

    number: Masked


def _shown(group: Group, asker: Asker) -> GroupResponse:
    values = api_named(group._asdict())
    values |= {"name": asker.text(group.name), "created_at": shown_moment(group.created_at)}
    return GroupResponse(id=values.pop("group_id"), **values)


def _own(connection: Connection, asker: Asker, group_id: str) -> Group:
    return found(find_group(connection, asker.sealer, group_id, asker.business), "group")


@operation("POST /v1/groups", name="createGroup", summary="Make a group", scope="bindings:write", status=201)
def make_group(unit: UnitOfWork, asker: Asker, asked: GroupCreateRequest) -> GroupResponse:
    """Make a group.

    Operator keys need `parties:read` to name members.
    """
    if asked.members:
        asker.check_naming("members")
    made = service.make_group(unit, asked.name, asker.rules, asker.own(asked.business_id), asked.members)
    return _shown(made, asker)


@operation("GET /v1/groups", name="listGroups", summary="List groups", scope="bindings:read", item=GroupResponse)
def list_groups(asker: Asker, asked: GroupListRequest) -> Listing[Group, str]:
    """List groups. The API has the oldest first, the command the newest."""
    business = asker.only(asked.business_id)
    return Listing(
        lambda connection, after, most: find_groups(connection, asker.sealer, business, after, most),
        "",
        lambda group: group.group_id,
        _shown,
    )


@operation("GET /v1/groups/{group_id}", name="getGroup", summary="Show a group", scope="bindings:read")
def show_group(connection: Connection, asker: Asker, group_id: GroupId) -> GroupResponse:
    """A group without its members."""
    return _shown(_own(connection, asker, group_id), asker)


@operation("DELETE /v1/groups/{group_id}", name="deleteGroup", summary="Delete a group", scope="bindings:write")
def delete_group(unit: UnitOfWork, asker: Asker, group_id: GroupId) -> GroupResponse:
    """Delete a group. Refused while a binding in force uses it.

    Its former members stay in tracebacks.
    """
    return _shown(service.remove_group(unit, group_id, asker.rules), asker)


@operation(
    "GET /v1/groups/{group_id}/members",
    name="listGroupMembers",
    summary="List the members of a group",
    scope="bindings:read",
    revealed="group {group_id}",
    item=MemberResponse,
)
def list_members(asker: Asker, group_id: GroupId) -> Listing[tuple[bytes, str], str]:
    """Members in arbitrary but stable order."""

    def read(connection: Connection, after: str, most: int) -> Sequence[tuple[bytes, str]]:
        _own(connection, asker, group_id)
        return members_page(connection, asker.sealer, group_id, bytes.fromhex(after), most)

    return Listing(
        read,
        "",
        lambda member: member[0].hex(),
        lambda member, reader: MemberResponse(number=reader.number(member[1])),
    )


@operation(
    "POST /v1/groups/{group_id}/members",
    name="addGroupMembers",
    summary="Add members to a group",
    scope="bindings:write",
)
def add_members(unit: UnitOfWork, asker: Asker, group_id: GroupId, asked: MembersRequest) -> MembershipResponse:
    """Add members. They may call from the next INVITE on.

    All or none are added. Parties that are already members are ignored. A group has at most 1,000 members. Operator
    keys need `parties:read`.
    """
    asker.check_naming("members")
    added = service.add_members(unit, group_id, asked.members, asker.rules)
    return MembershipResponse(group=_shown(service.get_group(unit, group_id), asker), changed=added)


@operation(
    "POST /v1/groups/{group_id}/members/remove",
    name="removeGroupMembers",
    summary="Remove members from a group",
    scope="bindings:write",
)
def remove_members(unit: UnitOfWork, asker: Asker, group_id: GroupId, asked: MembersRequest) -> MembershipResponse:
    """Remove members. Their next call is refused.

    Parties that are not members are ignored. Operator keys need `parties:read`.
    """
    asker.check_naming("members")
    removed = service.remove_members(unit, group_id, asked.members, asker.rules)
    return MembershipResponse(group=_shown(service.get_group(unit, group_id), asker), changed=removed)
