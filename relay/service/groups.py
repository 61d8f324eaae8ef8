"""The rules of groups: parties that share the number of each GXB or GXYB binding of their group.

A change of members applies to all bindings of the group at once, from the next INVITE.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

from relay.errors import Refused
from relay.model.numbers import mask_number, normalise_party, parse_party
from relay.policy.rules import DEFAULT_BUSINESS
from relay.service import fields
from relay.service.bindings import get as get_binding
from relay.service.businesses import get as get_business
from relay.service.fields import invalid
from relay.service.placement import MOST_ROUTES, BindRules
from relay.store.allocation import add_routes, cool_down_ms, member_lines, pair_of, rest_callers, rest_number
from relay.store.bindings import count_of_group, is_in_use, unreleased_of_group
from relay.store.groups import (
    Group,
    Kind,
    delete_entry,
    delete_group,
    find_group,
    insert_group,
    member_hashes,
    of_binding,
    of_business,
    put_entry,
    put_members,
    take_members,
)
from relay.store.unit_of_work import UnitOfWork

MOST_MEMBERS = MOST_ROUTES  # so that one unit of work binds or removes the group
LONGEST_NAME = 128


def make_group(unit: UnitOfWork, name: str, rules: BindRules, business: str = "", numbers: Sequence[str] = ()) -> Group:
    """Make a group of a business user, with its first members. Raises Refused."""
    business = business.strip() or unit.actor.business or DEFAULT_BUSINESS
    get_business(unit, business)
    named = fields.text("name", name, LONGEST_NAME)
    if named is None:
        raise invalid("name", "required")
    group = Group(f"g{unit.new_id()}", business, named, 0, 1, unit.now_ms)
    insert_group(unit, group)
    unit.audit("group.make", group.group_id, business=business, details={"name": named})
    if numbers:
        add_members(unit, group.group_id, numbers, rules)
    return get_group(unit, group.group_id)


def get_group(unit: UnitOfWork, group_id: str) -> Group:
    """The group. Raises Refused if it does not exist or is not visible to the actor."""
    group = find_group(unit.connection, unit.sealer, group_id, unit.actor.business) if group_id.isprintable() else None
    if group is None:
        raise Refused("not_found", "group", "there is no such group")
    return group


def add_members(unit: UnitOfWork, group_id: str, numbers: Sequence[str], rules: BindRules) -> int:
    """Add members, all or none, with their routes in each binding of the group. Returns the count of new ones.

    Raises Refused over MOST_MEMBERS (quota), or if one is already bound on a number of the group (conflict).
    """
    with _counted(numbers):
        return _add(unit, group_id, numbers, rules)


def _add(unit: UnitOfWork, group_id: str, numbers: Sequence[str], rules: BindRules) -> int:
    group = get_group(unit, group_id)
    new = put_members(unit, group_id, _normal(numbers, partial(parse_party, parties=rules.parties)))
    if group.size + len(new) > MOST_MEMBERS:
        raise Refused("quota", "members", f"limited to {MOST_MEMBERS} in a group: use another group")
    check_routes(unit, group_id, len(new))
    for binding in unreleased_of_group(unit, group_id) if new else ():
        for field, number in (("b", binding.b), ("x", binding.x), ("y", binding.y)):
            if number and unit.sealer.lookup_hash(number) in new:
                problem = f"{mask_number(number)} is {field} of a binding of this group and cannot be a member"
                raise Refused("conflict", "members", problem)
        add_routes(unit, binding, pair_of(unit.sealer, binding), member_lines(binding, new))
    unit.audit("group.add", group_id, business=group.business, details={"added": len(new)})
    return len(new)


def remove_members(unit: UnitOfWork, group_id: str, numbers: Sequence[str], rules: BindRules) -> int:
    """Remove members, which then cool down on the group's numbers. Returns the count. Raises Refused."""
    with _counted(numbers):
        group = get_group(unit, group_id)
        normal = _normal(numbers, normalise_party)  # of any kind: `rules.parties` may have changed since
        gone = _take(unit, group_id, [unit.sealer.lookup_hash(number) for number in normal], rules)
    unit.audit("group.remove", group_id, business=group.business, details={"removed": gone})
    return gone


@contextmanager
def _counted(numbers: Sequence[str]) -> Iterator[None]:
    """Let the audit log count the numbers that a refusal in the block is about: one of them may be a guess."""
    try:
        yield
    except Refused as refused:
        refused.tried = len(numbers)
        raise


def remove_group(unit: UnitOfWork, group_id: str, rules: BindRules) -> Group:
    """Remove a group without live bindings. Its former members stay in tracebacks. Raises Refused."""
    group = get_group(unit, group_id)
    if is_in_use(unit, group_id):
        raise Refused("state_conflict", "group", "in use by live bindings: end them first")
    _take(unit, group_id, member_hashes(unit.connection, unit.sealer, group_id), rules)
    delete_group(unit, group_id)
    unit.audit("group.delete", group_id, business=group.business)
    return group


def _take(unit: UnitOfWork, group_id: str, hashes: Iterable[bytes], rules: BindRules) -> int:
    gone = take_members(unit, group_id, hashes)
    check_routes(unit, group_id, len(gone))
    for binding in unreleased_of_group(unit, group_id) if gone else ():
        free_at = unit.now_ms + cool_down_ms(unit, binding.x, rules.cool_down_ms)
        rest_callers(unit, binding.binding_id, binding.x, gone, free_at)
        rest_number(unit, binding.x, free_at)
    return len(gone)


def check_routes(unit: UnitOfWork, group_id: str, members: int) -> None:
    """Raise Refused if the change would write more than MOST_ROUTES: one per member and binding of the group."""
    bindings = count_of_group(unit, group_id)
    if members > 1 and members * bindings > MOST_ROUTES:
        most = max(1, MOST_ROUTES // bindings)
        raise Refused("quota", "members", f"limited to {most} per request, as the group has {bindings} bindings")


def _normal(numbers: Sequence[str], parse: Callable[[str], str]) -> list[str]:
    return [fields.parsed(f"members.{place}", number, parse) for place, number in enumerate(numbers)]


# -- The rules of black- and whitelists

Whose = Literal["business", "binding"]


def set_entry(unit: UnitOfWork, whose: Whose, owner_id: str, number: str, kind: Kind) -> str:
    """Put a caller on the list or change its kind, effective from the next INVITE. Returns its normal form.

    Raises Refused.
    """
    owner, business = _owner(unit, whose, owner_id)
    caller = fields.parsed("number", number, normalise_party)
    put_entry(unit, owner, caller, kind)
    unit.audit(f"list.{kind}", owner_id, business=business, details={"number": caller})
    return caller


def remove_entry(unit: UnitOfWork, whose: Whose, owner_id: str, number: str, kind: Kind | None = None) -> str:
    """Remove a caller from the list, with `kind` only one of it. Returns its normal form. Raises Refused."""
    owner, business = _owner(unit, whose, owner_id)
    caller = fields.parsed("number", number, normalise_party)
    if not delete_entry(unit, owner, caller, kind):
        raise Refused("not_found", "number", "not on this list")
    unit.audit("list.remove", owner_id, business=business, details={"number": caller})
    return caller


def owner_of(unit: UnitOfWork, whose: Whose, owner_id: str) -> str:
    """The owner's key in the store. Raises Refused if the owner does not exist or is not visible to the actor."""
    return _owner(unit, whose, owner_id)[0]


def _owner(unit: UnitOfWork, whose: Whose, owner_id: str) -> tuple[str, str]:
    if whose == "binding":
        return of_binding(owner_id), get_binding(unit, owner_id).business
    return of_business(owner_id), get_business(unit, owner_id).id
