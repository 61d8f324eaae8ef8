"""Values of parameters that several actions share: times, restrictions, numbers of bindings and groups."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from relay.compat.errors import ILLEGAL_ARGUMENT, NO_NUMBER, NO_SUBSCRIPTION, CodedRefusal
from relay.model.binding import Binding, Direction, number_of
from relay.service.fields import CHINA, LATEST_S, SOONEST_S
from relay.store.bindings import find_numbered
from relay.store.connection import Connection
from relay.store.groups import Group, find_numbered_group
from relay.store.numbers import Number, Pool, find_number, find_pool, number_seen_by
from relay.store.sealing.sealer import Sealer

# Names of fields that all families have, by relay700's.
NAMES: Mapping[str, str] = {
    "pool": "PoolKey",
    "group_id": "GroupId",
    "user_data": "OutId",
    "industrial_id": "IndustrialId",
    "ring_timeout_s": "CallTimeout",
    "members": "Numbers",
    "binding": "SubsId",
}

_TIME = "%Y-%m-%d %H:%M:%S"


def expiry_ms(text: str, now_ms: int) -> int:
    """Unix milliseconds of `yyyy-MM-dd HH:mm:ss` in China. Raises CodedRefusal unless 1 minute to 90 days ahead."""
    try:
        moment = datetime.strptime(text.strip(), _TIME).replace(tzinfo=CHINA)
    except ValueError:
        raise CodedRefusal(
            "isv.EXPIRE_DATE_ILLEGAL", "Expiration must be a time in China: yyyy-MM-dd HH:mm:ss"
        ) from None
    until_ms = int(moment.timestamp() * 1000)
    if not SOONEST_S * 1000 < until_ms - now_ms <= LATEST_S * 1000:
        raise CodedRefusal("isv.EXPIRE_DATE_ILLEGAL", "Expiration must be more than 1 minute and at most 90 days ahead")
    return until_ms


def shown_time(at_ms: int) -> str:
    """`yyyy-MM-dd HH:mm:ss` in China."""
    return datetime.fromtimestamp(at_ms // 1000, CHINA).strftime(_TIME)


class Sides(NamedTuple):
    """The direction that each restriction leaves. "" is none, CONTROL_CLEAR_DISABLE removes one."""

    by_restriction: dict[str, Direction]

    def direction(self, restriction: str) -> Direction:
        """Raises CodedRefusal for a restriction that the mode does not have."""
        found = self.by_restriction.get(restriction)
        if found is None:
            known = ", ".join(filter(None, self.by_restriction))
            raise CodedRefusal(ILLEGAL_ARGUMENT, f"CallRestrict must be one of: {known}")
        return found

    def restriction(self, direction: Direction) -> str:
        """The restriction to show; "" if there is none."""
        return next(name for name, left in self.by_restriction.items() if left == direction)


_FREE: dict[str, Direction] = {"": "both", "CONTROL_CLEAR_DISABLE": "both"}
# Alibaba's A is ours.
AX_BX = Sides(_FREE | {"CONTROL_AX_DISABLE": "b_to_a", "CONTROL_BX_DISABLE": "a_to_b"})
# GXB for 700 numbers: a member of the group calls B.
GX_BX = Sides(_FREE | {"CONTROL_AX_DISABLE": "b_to_a", "CONTROL_BX_DISABLE": "a_to_b", "CONTROL_GX_DISABLE": "b_to_a"})
# AXG: its A is our B, and the group calls A.
AX_GX = Sides(_FREE | {"CONTROL_AX_DISABLE": "a_to_b", "CONTROL_BX_DISABLE": "b_to_a", "CONTROL_GX_DISABLE": "b_to_a"})


def unused(**given: object) -> None:
    """Raise CodedRefusal for a parameter with a meaning that relay700 does not have. Names as Alibaba has them."""
    for name, value in given.items():
        if value:
            raise CodedRefusal(ILLEGAL_ARGUMENT, f"{name} is not supported: leave it out")


def one_display(call_display_type: int | None) -> None:
    """Raise CodedRefusal unless both phones are to show X."""
    if call_display_type not in (None, 1):
        raise CodedRefusal(ILLEGAL_ARGUMENT, "CallDisplayType must be 1: both phones show X")


def own_pool(connection: Connection, business: str, pool_key: str) -> Pool:
    """The pool, if the business user may use it. Raises CodedRefusal."""
    pool = find_pool(connection, pool_key, business) if pool_key.isprintable() else None
    if pool is None:
        raise CodedRefusal("isv.POOLKEY_NOT_EXISTS", "PoolKey: there is no such pool")
    return pool


def own_number(
    connection: Connection, business: str, pool_key: str, secret_no: str, now_ms: int
) -> tuple[Pool, Number]:
    """The pool and one of its numbers, as the business user may see it. Raises CodedRefusal."""
    pool = own_pool(connection, business, pool_key)
    number = find_number(connection, secret_no, now_ms) if secret_no.isprintable() else None
    if number is None or number.pool != pool.pool_id:
        raise CodedRefusal(NO_NUMBER, "SecretNo: the pool has no such number")
    return pool, number_seen_by(connection, number, pool, business, now_ms)


def find(
    connection: Connection, sealer: Sealer, business: str, subs_id: int, x: str | None, pool_key: str | None
) -> Binding:
    """The binding of this business user, if number, X and pool (None: any) belong together. Raises CodedRefusal."""
    binding = find_numbered(connection, sealer, subs_id, business, x)
    if binding is None or pool_key not in (None, binding.pool):
        raise CodedRefusal(
            NO_SUBSCRIPTION, "there is no such binding: SubsId, number X and PoolKey must belong together"
        )
    return binding


def own_group(connection: Connection, sealer: Sealer, business: str, number: int | str) -> Group:
    """The group of this business user. Raises CodedRefusal."""
    found = find_numbered_group(connection, sealer, int(number), business) if str(number).isdecimal() else None
    if found is None:
        raise CodedRefusal(ILLEGAL_ARGUMENT, "GroupId: there is no such group")
    return found


def group_number(group_id: str | None) -> int | None:
    """The number of a group, as its GroupId."""
    return None if group_id is None else number_of(group_id)
