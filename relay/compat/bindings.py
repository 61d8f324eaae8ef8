"""Bindings of the older actions: BindAxb, BindAxn, BindAxg, UpdateSubscription, UnbindSubscription.

In an AXG, A calls X and reaches the member of the group that called last, before that PhoneNoB. So Alibaba's A is B of
a GXB here, and its B is A.
"""

from __future__ import annotations

from msgspec import field

from relay.compat.actions import Caller, Long, Parameters, Reply, action
from relay.compat.errors import ILLEGAL_ARGUMENT, CodedRefusal
from relay.compat.fields import AX_BX, AX_GX, NAMES, find, one_display, own_group, unused
from relay.compat.terms import Change, Terms, make, unbind, update
from relay.model.binding import Binding, number_of
from relay.service.placement import BindRules
from relay.store.unit_of_work import UnitOfWork

_NAMES = {
    **NAMES,
    "a": "PhoneNoA",
    "b": "PhoneNoB",
    "x": "PhoneNoX",
    "order_id": "OutOrderId",
    "record": "IsRecordingEnabled",
}
_NAMES_OF_AXG = {**_NAMES, "a": "PhoneNoB", "b": "PhoneNoA"}


class _BindingOptions(Parameters):
    """What all kinds of binding may have. ExpectCity is a wish, as for Alibaba: numbers come from the pool named."""

    pool_key: str
    phone_no_a: str
    expiration: str
    phone_no_x: str = ""
    expect_city: str = ""
    out_id: str = ""
    out_order_id: str = ""
    call_restrict: str = ""
    call_display_type: int | None = None
    is_recording_enabled: bool = False
    ring_config: str = ""
    asr_status: bool = field(default=False, name="ASRStatus")
    asr_model_id: str = field(default="", name="ASRModelId")

    def terms(self) -> Terms:
        """Raises CodedRefusal for what relay700 cannot do."""
        unused(ASRStatus=self.asr_status, ASRModelId=self.asr_model_id, RingConfig=self.ring_config)
        one_display(self.call_display_type)
        return Terms(
            pool_key=self.pool_key,
            expiration=self.expiration,
            x=self.phone_no_x,
            city=self.expect_city,
            order_id=self.out_order_id,
            out_id=self.out_id,
            record=self.is_recording_enabled,
        )


def _made(binding: Binding) -> Reply:
    return {"SecretBindDTO": {"SecretNo": binding.x, "SubsId": str(number_of(binding.binding_id))}}


class BindAxb(_BindingOptions, kw_only=True):
    """A and B call X."""

    phone_no_b: str
    call_timeout: int | None = None
    dtmf_config: str = ""


@action(BindAxb, "bindings:write", names=_NAMES)
async def bind_axb(asked: BindAxb, caller: Caller) -> Reply:
    unused(DtmfConfig=asked.dtmf_config)
    direction = AX_BX.direction(asked.call_restrict)
    terms = asked.terms()._replace(mode="AXB", a=asked.phone_no_a, b=asked.phone_no_b, direction=direction)
    terms = terms._replace(ring_timeout_s=asked.call_timeout)
    return _made(await caller.change(lambda unit, rules: make(unit, terms, rules, caller)))


class BindAxn(_BindingOptions, kw_only=True):
    """Anybody calls X and reaches A. A reaches who called last, before that PhoneNoB."""

    phone_no_b: str = ""
    call_timeout: int | None = None
    extend: str = ""
    no_type: str = ""  # for accounts from before PoolKey; means nothing beside it


@action(BindAxn, "bindings:write", names=_NAMES)
async def bind_axn(asked: BindAxn, caller: Caller) -> Reply:
    unused(Extend=asked.extend)
    direction = AX_BX.direction(asked.call_restrict)
    terms = asked.terms()._replace(mode="AXN", a=asked.phone_no_a, b=asked.phone_no_b, direction=direction)
    terms = terms._replace(ring_timeout_s=asked.call_timeout)
    return _made(await caller.change(lambda unit, rules: make(unit, terms, rules, caller)))


class BindAxg(_BindingOptions, kw_only=True):
    """A and each member of the group call X."""

    group_id: Long
    phone_no_b: str = ""


@action(BindAxg, "bindings:write", names=_NAMES_OF_AXG)
async def bind_axg(asked: BindAxg, caller: Caller) -> Reply:
    direction = AX_GX.direction(asked.call_restrict)
    terms = asked.terms()._replace(mode="GXB", a=asked.phone_no_b, b=asked.phone_no_a, direction=direction)

    def do(unit: UnitOfWork, rules: BindRules) -> Binding:
        group = own_group(unit.connection, unit.sealer, caller.business, asked.group_id)
        return make(unit, terms._replace(group_id=group.group_id), rules, caller)

    return _made(await caller.change(do))


class _Named(Parameters):
    """A binding by its number. ProductType is for accounts from before PoolKey, and may stand in its place."""

    subs_id: Long
    pool_key: str = ""
    product_type: str = ""

    def find(self, unit: UnitOfWork, caller: Caller, x: str) -> Binding:
        """Raises CodedRefusal."""
        if not self.pool_key and not self.product_type:
            raise CodedRefusal(ILLEGAL_ARGUMENT, "PoolKey: required")
        return find(unit.connection, unit.sealer, caller.business, self.subs_id, x, self.pool_key or None)


class UpdateSubscription(_Named, kw_only=True):
    """Change what OperateType names."""

    operate_type: str
    phone_no_x: str
    phone_no_a: str = ""
    phone_no_b: str = ""
    group_id: Long | None = None
    expiration: str = ""
    call_restrict: str = ""
    call_display_type: int | None = None
    is_recording_enabled: bool | None = None
    out_id: str = ""
    ring_config: str = ""
    asr_status: bool = field(default=False, name="ASRStatus")
    asr_model_id: str = field(default="", name="ASRModelId")


@action(UpdateSubscription, "bindings:write", names=_NAMES)
async def update_subscription(asked: UpdateSubscription, caller: Caller) -> Reply:
    unused(ASRStatus=asked.asr_status, ASRModelId=asked.asr_model_id, RingConfig=asked.ring_config)
    one_display(asked.call_display_type)
    given = Change(
        operate_type=asked.operate_type,
        a=asked.phone_no_a,
        b=asked.phone_no_b,
        group=asked.group_id,
        expiration=asked.expiration,
        restriction=asked.call_restrict,
        record=asked.is_recording_enabled,
        out_id=asked.out_id,
    )

    def do(unit: UnitOfWork, rules: BindRules) -> None:
        binding = asked.find(unit, caller, asked.phone_no_x)
        if asked.operate_type == "updateCallDisplayType" and asked.call_display_type == 1:
            return  # what both phones show already
        is_group = binding.group_id is not None
        update(unit, binding, given, AX_GX if is_group else AX_BX, rules, turned=is_group)

    await caller.change(do)
    return {}


class UnbindSubscription(_Named, kw_only=True):
    """End a binding."""

    secret_no: str


@action(UnbindSubscription, "bindings:write", names=_NAMES)
async def unbind_subscription(asked: UnbindSubscription, caller: Caller) -> Reply:
    await caller.change(lambda unit, rules: unbind(unit, asked.find(unit, caller, asked.secret_no), rules))
    return {}
