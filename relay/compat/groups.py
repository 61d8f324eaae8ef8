"""Groups of numbers (G). A group belongs to the business user, not to a pool, so any of its pools may be named."""

from __future__ import annotations

from relay.compat.actions import Caller, Long, Parameters, Reply, action
from relay.compat.errors import ILLEGAL_ARGUMENT, CodedRefusal
from relay.compat.fields import NAMES, own_group, own_pool
from relay.model.binding import number_of
from relay.model.numbers import normalise_party
from relay.service.groups import add_members, check_routes, make_group, remove_group, remove_members
from relay.service.placement import BindRules
from relay.store.groups import Group, members_page
from relay.store.unit_of_work import UnitOfWork

MOST_NUMBERS = 200  # of one request, and of a group to be overwritten


class CreateAxgGroup(Parameters):
    """Remark is shown nowhere, and is not kept."""

    pool_key: str
    name: str = ""
    remark: str = ""
    numbers: str = ""


@action(CreateAxgGroup, "bindings:write", names={**NAMES, "name": "Name"})
async def create_axg_group(asked: CreateAxgGroup, caller: Caller) -> Reply:
    numbers = _split(asked.numbers)

    def do(unit: UnitOfWork, rules: BindRules) -> Group:
        own_pool(unit.connection, caller.business, asked.pool_key)
        return make_group(unit, asked.name or f"G{unit.now_ms}", rules, caller.business, numbers)

    group = await caller.change(do)
    return {"GroupId": number_of(group.group_id)}


class OperateAxgGroup(Parameters):
    """Add, delete or replace numbers."""

    pool_key: str
    group_id: Long
    operate_type: str
    numbers: str


@action(OperateAxgGroup, "bindings:write", names=NAMES)
async def operate_axg_group(asked: OperateAxgGroup, caller: Caller) -> Reply:
    numbers = _split(asked.numbers)
    if not numbers:  # commas alone: to overwrite would remove all members
        raise CodedRefusal(ILLEGAL_ARGUMENT, f"Numbers: 1 to {MOST_NUMBERS}, separated by commas")

    def do(unit: UnitOfWork, rules: BindRules) -> None:
        own_pool(unit.connection, caller.business, asked.pool_key)
        group_id = own_group(unit.connection, unit.sealer, caller.business, asked.group_id).group_id
        match asked.operate_type:
            case "addNumbers":
                add_members(unit, group_id, numbers, rules)
            case "deleteNumbers":
                remove_members(unit, group_id, numbers, rules)
            case "overwriteNumbers":
                _overwrite(unit, group_id, numbers, rules)
            case _:
                problem = "OperateType must be addNumbers, deleteNumbers or overwriteNumbers"
                raise CodedRefusal(ILLEGAL_ARGUMENT, problem)

    await caller.change(do)
    return {}


class DeleteAxgGroup(Parameters):
    """Delete a group without live bindings."""

    pool_key: str
    group_id: Long


@action(DeleteAxgGroup, "bindings:write", names=NAMES)
async def delete_axg_group(asked: DeleteAxgGroup, caller: Caller) -> Reply:
    def do(unit: UnitOfWork, rules: BindRules) -> None:
        own_pool(unit.connection, caller.business, asked.pool_key)
        remove_group(unit, own_group(unit.connection, unit.sealer, caller.business, asked.group_id).group_id, rules)

    await caller.change(do)
    return {}


def _overwrite(unit: UnitOfWork, group_id: str, numbers: list[str], rules: BindRules) -> None:
    """Replace all members: those that stay keep their routes. Raises Refused and CodedRefusal."""
    members = [number for _, number in members_page(unit.connection, unit.sealer, group_id, b"", MOST_NUMBERS + 1)]
    if len(members) > MOST_NUMBERS:
        raise CodedRefusal(ILLEGAL_ARGUMENT, f"a group of more than {MOST_NUMBERS} numbers cannot be overwritten")
    added = add_members(unit, group_id, numbers, rules)
    wanted = {normalise_party(number) for number in numbers}
    gone = [number for number in members if number not in wanted]
    check_routes(unit, group_id, added + len(gone))
    if gone:
        remove_members(unit, group_id, gone, rules)


def _split(numbers: str) -> list[str]:
    """Raises CodedRefusal for too many."""
    found = [number.strip() for number in numbers.split(",") if number.strip()]
    if len(found) > MOST_NUMBERS:
        raise CodedRefusal(ILLEGAL_ARGUMENT, f"Numbers: at most {MOST_NUMBERS}, separated by commas")
    return found
