"""A later: BindXB binds B to X, BindAXBCall gives A and how long, UnBindXB ends it. Each ReqId is done once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Annotated

from msgspec import Meta

from relay.compat.actions import Caller, Long, Parameters, Reply, action
from relay.compat.errors import ILLEGAL_ARGUMENT, CodedRefusal
from relay.compat.fields import NAMES, find
from relay.compat.terms import Terms, make, unbind
from relay.model.binding import Binding, BindingChange, number_of
from relay.service import fields
from relay.service.bindings import change
from relay.service.fields import LATEST_S
from relay.service.placement import BindRules
from relay.store.keys import find_answer, keep_answer
from relay.store.unit_of_work import UnitOfWork

OK = "0000"
_NAMES = {**NAMES, "a": "TelA", "b": "TelB", "x": "TelX", "pool": "CustomerPoolKey", "user_data": "UserData"}


class _LateParameters(Parameters):
    """CallerParentId is the customer's own number for itself, and means nothing here."""

    customer_pool_key: str
    req_id: Annotated[str, Meta(max_length=20)]
    caller_parent_id: Long | None = None


class BindXB(_LateParameters, kw_only=True):
    """B calls X; nobody is reached until there is an A."""

    tel_b: str
    tel_x: str
    user_data: str = ""


@action(BindXB, "bindings:write", names=_NAMES, ok=OK, has_success=True)
async def bind_xb(asked: BindXB, caller: Caller) -> Reply:
    terms = Terms(
        pool_key=asked.customer_pool_key,
        b=asked.tel_b,
        x=asked.tel_x,
        order_id=asked.req_id,
        out_id=asked.user_data,
        late=True,
    )

    def do(unit: UnitOfWork, rules: BindRules) -> Reply:
        binding = make(unit, terms, rules, caller)
        return {"Data": {"AuthId": str(number_of(binding.binding_id)), "TelX": binding.x}}

    return await _once(asked, caller, do)


class BindAXBCall(_LateParameters, kw_only=True):
    """A calls X too, for so many seconds from now."""

    auth_id: Long
    tel_a: str
    expiration: int
    user_data: str = ""


@action(BindAXBCall, "bindings:write", names=_NAMES, ok=OK, has_success=True)
async def bind_axb_call(asked: BindAXBCall, caller: Caller) -> Reply:
    if not 0 < asked.expiration <= LATEST_S:
        raise CodedRefusal("isv.EXPIRE_DATE_ILLEGAL", f"Expiration must be 1 to {LATEST_S} seconds")

    def do(unit: UnitOfWork, rules: BindRules) -> Reply:
        binding = _of(unit, caller, asked, asked.auth_id, None)
        wanted: BindingChange = {
            "a": fields.party("a", asked.tel_a, rules.parties),
            "expires_at": unit.now_ms + asked.expiration * 1000,
        }
        if asked.user_data:
            wanted["user_data"] = fields.text("user_data", asked.user_data, fields.LONGEST_USER_DATA)
        change(unit, binding.binding_id, wanted, rules)
        return {"Data": {"BindId": str(number_of(binding.binding_id))}}

    return await _once(asked, caller, do)


class UnBindXB(_LateParameters, kw_only=True):
    """End it, for A and B."""

    auth_id: Long
    tel_x: str


@action(UnBindXB, "bindings:write", names=_NAMES, has_success=True)
async def un_bind_xb(asked: UnBindXB, caller: Caller) -> Reply:
    def do(unit: UnitOfWork, rules: BindRules) -> Reply:
        unbind(unit, _of(unit, caller, asked, asked.auth_id, asked.tel_x), rules)
        return {"Data": {"Code": OK, "Message": "OK", "Success": True}}

    return await _once(asked, caller, do)


def _of(unit: UnitOfWork, caller: Caller, asked: _LateParameters, auth_id: int, x: str | None) -> Binding:
    """The binding that is meant. Raises CodedRefusal."""
    binding = find(unit.connection, unit.sealer, caller.business, auth_id, x, asked.customer_pool_key)
    if binding.mode != "AXB":
        raise CodedRefusal(ILLEGAL_ARGUMENT, "AuthId must be one of BindXB")
    return binding


async def _once(asked: _LateParameters, caller: Caller, do: Callable[[UnitOfWork, BindRules], Reply]) -> Reply:
    """Do it, or give the answer to the same request of the last 24 hours. Raises Refused if it was another one."""
    name = type(asked).__name__
    owner, key = f"business {caller.business}", f"alibaba {name} {asked.req_id}"
    fingerprint = hashlib.sha256(repr(asked).encode()).digest()

    def once(unit: UnitOfWork, rules: BindRules) -> Reply:
        if kept := find_answer(unit, owner, key, fingerprint):
            former: Reply = json.loads(kept.body)
            return former
        reply = do(unit, rules)
        keep_answer(unit, owner, key, fingerprint, 200, json.dumps(reply).encode())
        return reply

    return await caller.change(once)
