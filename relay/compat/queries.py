"""Reading: QuerySubscriptionDetail, QuerySubsId, QuerySecretNoDetail, QuerySecretNoRemain."""

from __future__ import annotations

from typing import Any

from relay.compat.actions import Caller, Long, Parameters, Reply, action
from relay.compat.errors import FORBIDDEN_ACTION, ILLEGAL_ARGUMENT, NO_SUBSCRIPTION, CodedRefusal
from relay.compat.fields import AX_BX, AX_GX, find, group_number, own_number, own_pool, shown_time
from relay.model.binding import Binding, number_of
from relay.model.numbers import format_number, mask_number
from relay.service.keys import PARTIES
from relay.service.placement import BindRules
from relay.service.recordings import RecordingLink, make_link
from relay.store.bindings import BindingQuery, find_page
from relay.store.connection import Connection
from relay.store.numbers import find_prefix, pools_of, usage_seen_by
from relay.store.sealing.sealer import Sealer
from relay.store.unit_of_work import UnitOfWork

_STATUS = {"free": 0, "cooling": 0, "bound": 1, "locked": 2}


class QuerySubscriptionDetail(Parameters):
    """A and B are masked, unless the key has the scope parties:read. Then the reading is in the audit log first."""

    subs_id: Long
    phone_no_x: str
    pool_key: str = ""
    product_type: str = ""


@action(QuerySubscriptionDetail, "bindings:read")
async def query_subscription_detail(asked: QuerySubscriptionDetail, caller: Caller) -> Reply:
    if not asked.pool_key and not asked.product_type:
        raise CodedRefusal(ILLEGAL_ARGUMENT, "PoolKey: required")

    def query(connection: Connection, sealer: Sealer) -> Binding:
        return find(connection, sealer, caller.business, asked.subs_id, asked.phone_no_x, asked.pool_key or None)

    binding = caller.read(query)
    is_clear = PARTIES in caller.actor.scopes
    if is_clear:
        object_, reason = f"binding {binding.binding_id}", "QuerySubscriptionDetail"
        await caller.change(lambda unit, _: unit.audit("read", object_, business=caller.business, reason=reason))
    return {"SecretBindDetailDTO": _detail(binding, caller.now_ms, is_clear=is_clear)}


def _detail(binding: Binding, now_ms: int, *, is_clear: bool) -> dict[str, Any]:
    a, b = (
        None if party is None else format_number(party, "national") if is_clear else mask_number(party)
        for party in (binding.a, binding.b)
    )
    if binding.group_id is not None:
        a, b = b, a
    sides = AX_BX if binding.group_id is None else AX_GX
    values = {
        "SubsId": str(number_of(binding.binding_id)),
        "PhoneNoX": binding.x,
        "PhoneNoA": a,
        "PhoneNoB": b,
        "GroupId": group_number(binding.group_id),
        "Status": int(binding.is_live(now_ms)),
        "GmtCreate": shown_time(binding.created_at),
        "ExpireDate": None if binding.expires_at is None else shown_time(binding.expires_at),
        "CallRestrict": sides.restriction(binding.direction) or None,
        "NeedRecord": binding.record,
        "ASRStatus": False,
    }
    return {name: value for name, value in values.items() if value is not None}


class QuerySubsId(Parameters):
    """The binding of a number that has one."""

    phone_no_x: str
    pool_key: str = ""


@action(QuerySubsId, "bindings:read")
async def query_subs_id(asked: QuerySubsId, caller: Caller) -> Reply:
    live = BindingQuery(business=caller.business, x=asked.phone_no_x, pool=asked.pool_key or None, state="live")

    def query(connection: Connection, sealer: Sealer) -> list[Binding]:
        return find_page(connection, sealer, live, caller.now_ms, None, 2)

    match await caller.read_apart(query) if f"{asked.phone_no_x}{asked.pool_key}".isprintable() else []:
        case []:
            raise CodedRefusal(NO_SUBSCRIPTION, "PhoneNoX: no binding is on this number")
        case [binding]:
            return {"SubsId": str(number_of(binding.binding_id))}
    raise CodedRefusal(
        FORBIDDEN_ACTION, "PhoneNoX: several bindings are on this number; use the SubsId of the answer to Bind…"
    )


class QuerySecretNoDetail(Parameters):
    """A number of the pool. Vendor is not told: a 700 number belongs to no single carrier."""

    pool_key: str
    secret_no: str


@action(QuerySecretNoDetail, "numbers:read")
async def query_secret_no_detail(asked: QuerySecretNoDetail, caller: Caller) -> Reply:
    def query(connection: Connection, _: Sealer) -> dict[str, Any]:
        pool, number = own_number(connection, caller.business, asked.pool_key, asked.secret_no, caller.now_ms)
        prefix = find_prefix(connection, number.prefix)
        return {
            "SecretStatus": _STATUS[number.state],
            "CertifyStatus": 1,
            "City": pool.area,
            "Province": "",
            "PurchaseTime": shown_time(pool.created_at if prefix is None else prefix.created_at),
        }

    return {"SecretNoInfoDTO": caller.read(query)}


class QueryRecordFileDownloadUrl(Parameters):
    """A link to a recording that ends. CallTime is not needed to find it."""

    call_id: str
    pool_key: str = ""
    call_time: str = ""
    product_type: str = ""


_LINK_S = 7_200  # as there


@action(QueryRecordFileDownloadUrl, "recordings:read", names={"call_id": "CallId"})
async def query_record_file_download_url(asked: QueryRecordFileDownloadUrl, caller: Caller) -> Reply:
    if not asked.pool_key and not asked.product_type:
        raise CodedRefusal(ILLEGAL_ARGUMENT, "PoolKey: required")
    key_id = caller.actor.name.removeprefix("key:")

    def do(unit: UnitOfWork, rules: BindRules) -> RecordingLink:
        if asked.pool_key:
            own_pool(unit.connection, caller.business, asked.pool_key)
        return make_link(unit, asked.call_id, key_id, life_s=_LINK_S)

    link = await caller.change(do)
    return {"DownloadUrl": caller.service.public_url() + link.path(caller.service.sealer)}


class QuerySecretNoRemain(Parameters):
    """Numbers free to bind, by the area of their pool: none are for sale. They are a carrier's (SpecId 2)."""

    spec_id: int
    city: str
    secret_no: str = ""


_ALL = ("National", "Nationwide", "全国")
_EACH = ("National List", "全国列表")


@action(QuerySecretNoRemain, "numbers:read")
async def query_secret_no_remain(asked: QuerySecretNoRemain, caller: Caller) -> Reply:
    if asked.secret_no:
        raise CodedRefusal(ILLEGAL_ARGUMENT, "SecretNo is not supported: leave it out")
    if asked.spec_id not in (1, 2, 3):
        raise CodedRefusal(ILLEGAL_ARGUMENT, "SpecId must be 1, 2 or 3")

    def query(connection: Connection, _: Sealer) -> dict[str, int]:
        free: dict[str, int] = {}
        for pool in pools_of(connection, caller.business) if asked.spec_id == 2 else ():
            usage = usage_seen_by(connection, pool, caller.business, caller.now_ms)
            free[pool.area] = free.get(pool.area, 0) + usage.free
        return free

    free = await caller.read_apart(query)
    is_all = asked.city in (*_ALL, *_EACH)
    amount = sum(free.values()) if is_all else free.get(asked.city, 0)
    found: dict[str, Any] = {"City": asked.city, "Amount": amount}
    if asked.city in _EACH:
        each = [{"City": area, "Amount": count} for area, count in sorted(free.items()) if count]
        found["RemainDTOList"] = {"remainDTO": each}
    return {"SecretRemainDTO": found}
