"""Bindings of 700 numbers: BindAxb700, BindGxb700, UpdateSubs700, UnbindSubs700."""

from __future__ import annotations

from relay.compat.actions import Caller, Long, Parameters, Reply, action
from relay.compat.errors import ILLEGAL_ARGUMENT, NO_SUBSCRIPTION, CodedRefusal
from relay.compat.fields import AX_BX, GX_BX, NAMES, find, own_group, unused
from relay.compat.terms import Change, Terms, make, unbind, update
from relay.model.binding import Binding, number_of
from relay.service.placement import BindRules
from relay.store.unit_of_work import UnitOfWork

_NAMES = {
    **NAMES,
    "a": "TelA",
    "b": "TelB",
    "x": "TelX",
    "order_id": "OrderId",
    "record": "NeedRecord",
}


class _Options(Parameters):
    """What both kinds of binding may have."""

    pool_key: str
    expiration: str
    tel_x: str = ""
    out_id: str = ""
    order_id: str = ""
    out_order_id: str = ""
    industrial_id: str = ""
    call_restrict: str = ""
    call_timeout: int | None = None
    need_record: bool = False
    rec_type: str = ""
    need_asr: bool = False
    asr_model_id: str = ""
    audio: str = ""
    dtmf_config: str = ""

    def terms(self) -> Terms:
        """Raises CodedRefusal for what relay700 cannot do."""
        unused(
            NeedAsr=self.need_asr,
            AsrModelId=self.asr_model_id,
            RecType=self.rec_type,
            Audio=self.audio,
            DtmfConfig=self.dtmf_config,
        )
        if self.order_id and self.out_order_id and self.order_id != self.out_order_id:
            raise CodedRefusal(
                ILLEGAL_ARGUMENT, "OutOrderId must be left out, or equal OrderId: a binding has one order"
            )
        return Terms(
            pool_key=self.pool_key,
            expiration=self.expiration,
            x=self.tel_x,
            order_id=self.order_id or self.out_order_id,
            out_id=self.out_id,
            industrial_id=self.industrial_id,
            ring_timeout_s=self.call_timeout,
            record=self.need_record,
        )


def _made(binding: Binding) -> Reply:
    return {"Data": {"SecretNo": binding.x, "SubsId": number_of(binding.binding_id)}}


class BindAxb700(_Options, kw_only=True):
    """A and B call X."""

    tel_a: str
    tel_b: str


@action(BindAxb700, "bindings:write", names=_NAMES, has_success=True)
async def bind_axb_700(asked: BindAxb700, caller: Caller) -> Reply:
    terms = asked.terms()._replace(mode="AXB", a=asked.tel_a, b=asked.tel_b)
    terms = terms._replace(direction=AX_BX.direction(asked.call_restrict))
    return _made(await caller.change(lambda unit, rules: make(unit, terms, rules, caller)))


class BindGxb700(_Options, kw_only=True):
    """Each member of the group, and B, call X. B reaches the member that called last, before that DefaultA."""

    tel_b: str
    group_id: Long
    default_a: str = ""


@action(BindGxb700, "bindings:write", names=_NAMES, has_success=True)
async def bind_gxb_700(asked: BindGxb700, caller: Caller) -> Reply:
    terms = asked.terms()._replace(mode="GXB", a=asked.default_a, b=asked.tel_b)
    terms = terms._replace(direction=GX_BX.direction(asked.call_restrict))

    def do(unit: UnitOfWork, rules: BindRules) -> Binding:
        group = own_group(unit.connection, unit.sealer, caller.business, asked.group_id)
        return make(unit, terms._replace(group_id=group.group_id), rules, caller)

    return _made(await caller.change(do))


class UpdateSubs700(Parameters):
    """Change what OperateType names."""

    pool_key: str
    subs_id: Long
    tel_x: str
    operate_type: str
    tel_a: str = ""
    tel_b: str = ""
    default_a: str = ""
    group_id: Long | None = None
    expiration: str = ""
    call_restrict: str = ""
    need_record: bool | None = None
    out_id: str = ""
    order_id: str = ""
    industrial_id: str = ""
    need_asr: bool = False
    asr_model_id: str = ""
    audio: str = ""


@action(UpdateSubs700, "bindings:write", names=_NAMES, has_success=True)
async def update_subs_700(asked: UpdateSubs700, caller: Caller) -> Reply:
    unused(NeedAsr=asked.need_asr, AsrModelId=asked.asr_model_id, Audio=asked.audio)
    if asked.tel_a and asked.default_a and asked.tel_a != asked.default_a:
        raise CodedRefusal(ILLEGAL_ARGUMENT, "DefaultA must be left out, or equal TelA: a binding has one A")
    given = Change(
        operate_type=asked.operate_type,
        a=asked.tel_a or asked.default_a,
        b=asked.tel_b,
        group=asked.group_id,
        expiration=asked.expiration,
        restriction=asked.call_restrict,
        record=asked.need_record,
        out_id=asked.out_id,
    )

    def do(unit: UnitOfWork, rules: BindRules) -> None:
        binding = _of(unit, asked, caller)
        update(unit, binding, given, GX_BX if binding.group_id else AX_BX, rules)

    await caller.change(do)
    return {"Data": {}}


class UnbindSubs700(Parameters):
    """End a binding. OrderId and IndustrialId, if given, must be its own."""

    pool_key: str
    subs_id: Long
    tel_x: str
    order_id: str = ""
    industrial_id: str = ""


@action(UnbindSubs700, "bindings:write", names=_NAMES, has_success=True)
async def unbind_subs_700(asked: UnbindSubs700, caller: Caller) -> Reply:
    await caller.change(lambda unit, rules: unbind(unit, _of(unit, asked, caller), rules))
    return {"Data": {}}


def _of(unit: UnitOfWork, asked: UpdateSubs700 | UnbindSubs700, caller: Caller) -> Binding:
    """The binding that is meant. Raises CodedRefusal."""
    binding = find(unit.connection, unit.sealer, caller.business, asked.subs_id, asked.tel_x, asked.pool_key)
    for name, given, kept in (
        ("OrderId", asked.order_id, binding.order_id),
        ("IndustrialId", asked.industrial_id, binding.industrial_id),
    ):
        if given and given != kept:
            raise CodedRefusal(NO_SUBSCRIPTION, f"{name} is not the one of this binding")
    return binding
