"""Routes of groups: the G of GXB and GXYB. A change of members is effective from the next call."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.responses import Response

from relay.api import bindings as models
from relay.api.context import Answer, Changes, Needs, RequestContext, Revealing
from relay.api.models import Name, Page, shown_moment
from relay.api.pages import Paging
from relay.model.numbers import mask_number
from relay.service.groups import add_members, get_group, make_group, remove_group, remove_members
from relay.store.groups import Group, find_group, find_groups, members_page
from relay.store.unit_of_work import UnitOfWork

router = APIRouter(prefix="/v1/groups", tags=["groups"])
GroupId = Annotated[str, Path(pattern="^g[0-9a-f]{8,40}$")]
Reads = Annotated[RequestContext, Depends(Needs("bindings:read"))]
Writes = Annotated[RequestContext, Depends(Changes("bindings:write"))]


def shown_group(group: Group) -> models.GroupResponse:
    """The response model of a group."""
    values = group._asdict() | {"created_at": shown_moment(group.created_at)}
    return models.GroupResponse(id=values.pop("group_id"), **values)


def _own(visit: RequestContext, group_id: str) -> Group:
    return visit.one(lambda connection: find_group(connection, visit.backend.sealer, group_id, visit.business), "group")


@router.post("", status_code=201, response_model=models.GroupResponse, summary="Make a group")
async def post_group(asked: models.GroupCreateRequest, visit: Writes) -> Response:
    """Make a group, optionally with members."""
    business, rules = visit.own(asked.business), visit.backend.settings.rules

    def do(act: UnitOfWork) -> Answer:
        group = make_group(act, asked.name, rules, business, asked.members)
        return Answer(shown_group(group), 201, f"/v1/groups/{group.group_id}")

    return await visit.change(do)


@router.get("", summary="List groups")
async def get_groups(visit: Reads, paging: Paging, business: Name | None = None) -> Page[models.GroupResponse]:
    """Groups, oldest first."""
    sealer, whose = visit.backend.sealer, visit.only(business)
    found = await visit.part(
        "groups",
        paging,
        lambda connection, after, most: find_groups(connection, sealer, whose, after, most),
        "",
        lambda group: group.group_id,
    )
    return found.shown(shown_group)


@router.get("/{group_id}", summary="Show a group")
async def get_one_group(group_id: GroupId, visit: Reads) -> models.GroupResponse:
    """A group without its members."""
    return shown_group(_own(visit, group_id))


@router.delete("/{group_id}", response_model=models.GroupResponse, summary="Delete a group")
async def delete_group(group_id: GroupId, visit: Writes) -> Response:
    """Delete a group without live bindings. Its former members stay available to traces."""
    rules = visit.backend.settings.rules
    return await visit.change(lambda act: Answer(shown_group(remove_group(act, group_id, rules))))


@router.get("/{group_id}/members", summary="List the members of a group")
async def get_members(group_id: GroupId, visit: Reads, paging: Paging, asked: Revealing) -> Page[models.MemberResponse]:
    """Members in arbitrary but stable order."""
    sealer, group = visit.backend.sealer, _own(visit, group_id)
    found = await visit.part(
        f"members {group.group_id}",
        paging,
        lambda connection, after, most: members_page(connection, sealer, group_id, bytes.fromhex(after), most),
        "",
        lambda member: member[0].hex(),
    )
    clear = await visit.reveal(asked, f"group {group_id}")
    return found.shown(lambda member: models.MemberResponse(number=member[1] if clear else mask_number(member[1])))


@router.post("/{group_id}/members", response_model=models.MembershipResponse, summary="Add members to a group")
async def post_members(group_id: GroupId, asked: models.MembersRequest, visit: Writes) -> Response:
    """Add all or none. Parties that are already members are ignored. A group has at most 10,000 members."""
    rules = visit.backend.settings.rules

    def do(act: UnitOfWork) -> Answer:
        added = add_members(act, group_id, asked.members, rules)
        return Answer(models.MembershipResponse(group=shown_group(get_group(act, group_id)), changed=added))

    return await visit.change(do)


@router.post(
    "/{group_id}/members/remove", response_model=models.MembershipResponse, summary="Remove members from a group"
)
async def post_removal(group_id: GroupId, asked: models.MembersRequest, visit: Writes) -> Response:
    """Remove members. Parties that are not members are ignored."""
    rules = visit.backend.settings.rules

    def do(act: UnitOfWork) -> Answer:
        removed = remove_members(act, group_id, asked.members, rules)
        return Answer(models.MembershipResponse(group=shown_group(get_group(act, group_id)), changed=removed))

    return await visit.change(do)
