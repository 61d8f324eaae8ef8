"""Groups (the G of GXB and GXYB), black- and whitelists over HTTP: models and routes.

A change is effective from the next call.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path
from pydantic import Field
from starlette.responses import Response

from relay.api.businesses import own_business
from relay.api.context import Answer, Changes, Needs, RequestContext, Revealing
from relay.api.paging import Page, Paging
from relay.api.routes import Router
from relay.model.numbers import mask_number
from relay.operations.shapes import (
    Masked,
    Moment,
    Name,
    Party,
    RequestModel,
    ResponseModel,
    Text128,
    api_named,
    shown_moment,
)
from relay.service.groups import (
    Whose,
    add_members,
    get_group,
    make_group,
    remove_entry,
    remove_group,
    remove_members,
    set_entry,
)
from relay.store.bindings import find_binding
from relay.store.groups import (
    Group,
    Kind,
    ListEntry,
    find_entries,
    find_group,
    find_groups,
    members_page,
    of_binding,
    of_business,
)
from relay.store.unit_of_work import UnitOfWork


class GroupCreateRequest(
    RequestModel, json_schema_extra={"examples": [{"name": "riders", "members": ["13800000001"]}]}
):
    """A group to make."""

    name: Text128
    business_id: Name | None = Field(None, description="for operator keys; omitted: `default`")
    members: list[Party] = Field(default=[], max_length=1000)


class MembershipResponse(ResponseModel):
    """A group after a change of members."""

    group: GroupResponse
    changed: int = Field(description="number of members added or removed")


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


class MemberResponse(ResponseModel):
    """A member of a group."""

    number: Masked


# -- Routes of groups

router = Router(prefix="/v1/groups", tags=["groups"])
GroupId = Annotated[str, Path(pattern="^g[0-9a-f]{8,40}$")]
Reads = Annotated[RequestContext, Depends(Needs("bindings:read"))]
Writes = Annotated[RequestContext, Depends(Changes("bindings:write"))]


def shown_group(group: Group, context: RequestContext) -> GroupResponse:
    """The response model of a group."""
    values = api_named(group._asdict())
    values |= {"name": context.asker.text(group.name), "created_at": shown_moment(group.created_at)}
    return GroupResponse(id=values.pop("group_id"), **values)


def _own(context: RequestContext, group_id: str) -> Group:
    return context.one(
        lambda connection: find_group(connection, context.backend.sealer, group_id, context.business), "group"
    )


@router.post("", status_code=201, response_model=GroupResponse, operation_id="createGroup", summary="Make a group")
async def post_group(asked: GroupCreateRequest, context: Writes) -> Response:
    """Make a group, optionally with members, for which operator keys need `parties:read`."""
    if asked.members:
        context.asker.check_naming("members")
    business, rules = context.asker.own(asked.business_id), context.backend.settings.rules

    def do(unit: UnitOfWork) -> Answer:
        group = make_group(unit, asked.name, rules, business, asked.members)
        return Answer(shown_group(group, context), 201, f"/v1/groups/{group.group_id}")

    return await context.change(do)


@router.get("", operation_id="listGroups", summary="List groups")
async def get_groups(context: Reads, paging: Paging, business_id: Name | None = None) -> Page[GroupResponse]:
    """Groups, oldest first."""
    sealer, whose = context.backend.sealer, context.asker.only(business_id)
    found = await context.part(
        "groups",
        paging,
        lambda connection, after, most: find_groups(connection, sealer, whose, after, most),
        "",
        lambda group: group.group_id,
    )
    return found.shown(lambda group: shown_group(group, context))


@router.get("/{group_id}", operation_id="getGroup", summary="Show a group")
async def get_one_group(group_id: GroupId, context: Reads) -> GroupResponse:
    """A group without its members."""
    return shown_group(_own(context, group_id), context)


@router.delete("/{group_id}", response_model=GroupResponse, operation_id="deleteGroup", summary="Delete a group")
async def delete_group(group_id: GroupId, context: Writes) -> Response:
    """Delete a group without live bindings. Tracebacks still find its former members."""
    rules = context.backend.settings.rules
    return await context.change(lambda unit: Answer(shown_group(remove_group(unit, group_id, rules), context)))


@router.get("/{group_id}/members", operation_id="listGroupMembers", summary="List the members of a group")
async def get_members(group_id: GroupId, context: Reads, paging: Paging, asked: Revealing) -> Page[MemberResponse]:
    """Members in arbitrary but stable order."""
    sealer, group = context.backend.sealer, _own(context, group_id)
    found = await context.part(
        f"members {group.group_id}",
        paging,
        lambda connection, after, most: members_page(connection, sealer, group_id, bytes.fromhex(after), most),
        "",
        lambda member: member[0].hex(),
    )
    clear = await context.reveal(asked, f"group {group_id}")
    return found.shown(lambda member: MemberResponse(number=member[1] if clear else mask_number(member[1])))


@router.post(
    "/{group_id}/members",
    response_model=MembershipResponse,
    operation_id="addGroupMembers",
    summary="Add members to a group",
)
async def post_members(group_id: GroupId, asked: MembersRequest, context: Writes) -> Response:
    """Add all or none. Parties that are already members are ignored. A group has at most 1,000 members.

    Operator keys need `parties:read`.
    """
    context.asker.check_naming("members")
    rules = context.backend.settings.rules

    def do(unit: UnitOfWork) -> Answer:
        added = add_members(unit, group_id, asked.members, rules)
        return Answer(MembershipResponse(group=shown_group(get_group(unit, group_id), context), changed=added))

    return await context.change(do)


@router.post(
    "/{group_id}/members/remove",
    response_model=MembershipResponse,
    operation_id="removeGroupMembers",
    summary="Remove members from a group",
)
async def post_removal(group_id: GroupId, asked: MembersRequest, context: Writes) -> Response:
    """Remove members. Parties that are not members are ignored. Operator keys need `parties:read`."""
    context.asker.check_naming("members")
    rules = context.backend.settings.rules

    def do(unit: UnitOfWork) -> Answer:
        removed = remove_members(unit, group_id, asked.members, rules)
        return Answer(MembershipResponse(group=shown_group(get_group(unit, group_id), context), changed=removed))

    return await context.change(do)


# -- Lists of a business user or a binding


class EntryRequest(RequestModel, json_schema_extra={"examples": [{"number": "13700000003", "kind": "black"}]}):
    """A caller to put on the whitelist or blacklist."""

    number: Party
    kind: Kind


class EntryRemoveRequest(RequestModel, json_schema_extra={"examples": [{"number": "13700000003"}]}):
    """A caller to remove from a list."""

    number: Party


class EntryResponse(ResponseModel):
    """A caller on a list."""

    number: Masked
    kind: Kind
    added_at: Moment
    added_by: str


class EntryRemovedResponse(ResponseModel):
    """A caller removed from a list."""

    number: Masked


# -- Routes of lists

list_router = Router(prefix="/v1/lists/{whose}/{owner_id}/entries", tags=["lists"])
WhoseList = Annotated[Whose, Path(description="kind of owner")]
OwnerId = Annotated[Name, Path(description="id of the business user or binding")]
ListReads = Annotated[RequestContext, Depends(Needs("lists"))]
ListWrites = Annotated[RequestContext, Depends(Changes("lists"))]


def shown_entry(entry: ListEntry, *, clear: bool) -> EntryResponse:
    """The response model of a list entry."""
    return EntryResponse(
        number=entry.number if clear else mask_number(entry.number),
        kind=entry.kind,
        added_at=shown_moment(entry.added_at),
        added_by=entry.added_by,
    )


def _owner(context: RequestContext, whose: Whose, owner_id: str) -> str:
    if whose == "business":
        return of_business(own_business(context, owner_id).id)
    context.one(
        lambda connection: find_binding(connection, context.backend.sealer, owner_id, context.business), "binding"
    )
    return of_binding(owner_id)


@list_router.get("", operation_id="listListEntries", summary="List the entries of a list")
async def get_entries(
    whose: WhoseList, owner_id: OwnerId, context: ListReads, paging: Paging, asked: Revealing
) -> Page[EntryResponse]:
    """Entries in arbitrary but stable order."""
    sealer, owner = context.backend.sealer, _owner(context, whose, owner_id)
    found = await context.part(
        f"list {owner}",
        paging,
        lambda connection, after, most: find_entries(connection, sealer, owner, bytes.fromhex(after), most),
        "",
        lambda entry: entry.caller_hash.hex(),
    )
    clear = await context.reveal(asked, f"list {owner}")
    return found.shown(lambda entry: shown_entry(entry, clear=clear))


@list_router.put("", response_model=EntryResponse, operation_id="setListEntry", summary="Put a caller on a list")
async def put_entry(whose: WhoseList, owner_id: OwnerId, asked: EntryRequest, context: ListWrites) -> Response:
    """`black` refuses the caller, `white` admits it under `white_only`. Entries of a binding override its business.

    Operator keys need `parties:read`.
    """
    context.asker.check_naming("number")

    def do(unit: UnitOfWork) -> Answer:
        number = set_entry(unit, whose, owner_id, asked.number, asked.kind)
        return Answer(shown_entry(ListEntry(number, asked.kind, unit.now_ms, unit.actor.name, b""), clear=False))

    return await context.change(do)


@list_router.delete(
    "", response_model=EntryRemovedResponse, operation_id="removeListEntry", summary="Take a caller off a list"
)
async def delete_entry(whose: WhoseList, owner_id: OwnerId, asked: EntryRemoveRequest, context: ListWrites) -> Response:
    """Remove an entry. The caller is in the body, because a URL would expose it to proxies and logs.

    Operator keys need `parties:read`.
    """
    context.asker.check_naming("number")

    def do(unit: UnitOfWork) -> Answer:
        number = remove_entry(unit, whose, owner_id, asked.number)
        return Answer(EntryRemovedResponse(number=mask_number(number)))

    return await context.change(do)
