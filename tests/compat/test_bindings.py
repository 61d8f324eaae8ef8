"""The older bindings, by the new SDK and by the older one."""

from __future__ import annotations

from typing import Any

import pytest

from relay.model.numbers import normalise_party
from tests.compat.conftest import POOL, PREFIX, A, Ask, B, C, Client, Compat, D, Json, bind_older, in_china, stored


def made(compat: Compat, body: Json) -> Any:
    assert body["Code"] == "OK", body
    found = body["SecretBindDTO"]
    return stored(compat, {"SubsId": int(found["SubsId"]), "SecretNo": found["SecretNo"]})


def test_an_axb(compat: Compat, ask: Ask) -> None:
    body = bind_older(
        ask,
        PhoneNoX=f"{PREFIX}0002",
        ExpectCity="北京",
        OutId="out-1",
        CallRestrict="CONTROL_AX_DISABLE",
        CallTimeout=30,
        CallDisplayType=1,
        IsRecordingEnabled=False,
        ASRStatus=False,
    )
    assert "Success" not in body
    binding = made(compat, body)
    assert (binding.mode, binding.x, binding.order_id, binding.user_data) == (
        "AXB",
        f"{PREFIX}0002",
        "order-1",
        "out-1",
    )
    assert (binding.direction, binding.ring_timeout_s) == ("b_to_a", 30)


def test_an_axn(compat: Compat, ask: Ask) -> None:
    binding = made(compat, bind_older(ask, "BindAxn", PhoneNoB=B, NoType="AXN_170"))
    assert (binding.mode, binding.a, binding.b) == ("AXN", normalise_party(A), normalise_party(B))
    assert bind_older(ask, "BindAxn", PhoneNoA=C, PhoneNoX=binding.x)["Code"] == "isv.NO_AVAILABLE_NUMBER"


def test_an_axg_is_a_gxb_turned(compat: Compat, ask: Ask) -> None:
    group = ask("CreateAxgGroup", PoolKey=POOL, Name="depot", Numbers="13811113001,13811113002")
    given = {"GroupId": str(group["GroupId"]), "PhoneNoB": D, "CallRestrict": "CONTROL_BX_DISABLE"}
    body = bind_older(ask, "BindAxg", **given)
    binding = made(compat, body)
    assert (binding.mode, binding.b, binding.a) == ("GXB", normalise_party(A), normalise_party(D))
    assert binding.direction == "b_to_a"
    changed = update(ask, body, OperateType="updateNoA", PhoneNoA=C)
    assert changed["Code"] == "OK"
    assert update(ask, body, OperateType="updateNoB", PhoneNoB=B)["Code"] == "OK"
    binding = made(compat, body)
    assert (binding.b, binding.a) == (normalise_party(C), normalise_party(B))
    refused = bind_older(ask, "BindAxg", **{**given, "PhoneNoA": "110"})
    assert refused["Message"].startswith("PhoneNoA: ")


def update(ask: Ask, body: Json, **given: Any) -> Json:
    found = body["SecretBindDTO"]
    return ask("UpdateSubscription", PoolKey=POOL, SubsId=found["SubsId"], PhoneNoX=found["SecretNo"], **given)


def test_changes(compat: Compat, ask: Ask) -> None:
    body = bind_older(ask)
    assert update(ask, body, OperateType="updateNoB", PhoneNoB=C)["Code"] == "OK"
    assert update(ask, body, OperateType="updateExpire", Expiration=in_china(hours=5))["Code"] == "OK"
    assert update(ask, body, OperateType="updateCallDisplayType", CallDisplayType=1)["Code"] == "OK"
    assert update(ask, body, OperateType="updateCallDisplayType", CallDisplayType=0)["Code"] == "isv.ILLEGAL_ARGUMENT"
    assert update(ask, body, OperateType="updateNoA", PhoneNoA="1")["Code"] == "isv.MOBILE_NUMBER_ILLEGAL"
    assert made(compat, body).b == normalise_party(C)


@pytest.mark.parametrize("named", [{"PoolKey": POOL}, {"ProductType": "AXB_170"}])
def test_unbinding(compat: Compat, ask: Ask, named: Json) -> None:
    found = bind_older(ask)["SecretBindDTO"]
    whole = {**named, "SubsId": found["SubsId"], "SecretNo": found["SecretNo"]}
    assert ask("UnbindSubscription", **whole)["Code"] == "OK"
    assert ask("UnbindSubscription", **whole)["Code"] == "isv.SUBS_NOT_EXIST"


def test_unbinding_without_a_pool(ask: Ask) -> None:
    answer = ask("UnbindSubscription", SubsId="1", SecretNo=f"{PREFIX}0001")
    assert (answer["Code"], answer["Message"]) == ("isv.ILLEGAL_ARGUMENT", "PoolKey: required")


@pytest.mark.parametrize(
    ("action", "given", "code"),
    [
        ("BindAxb", {"PhoneNoA": "110"}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ("BindAxb", {"PhoneNoB": A}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ("BindAxb", {"PoolKey": "other"}, "isv.POOLKEY_NOT_EXISTS"),
        ("BindAxb", {"PhoneNoX": f"{PREFIX}0500"}, "isv.FORBIDDEN_ACTION"),
        ("BindAxb", {"Expiration": in_china(hours=-1)}, "isv.EXPIRE_DATE_ILLEGAL"),
        ("BindAxb", {"DtmfConfig": "{}"}, "isv.ILLEGAL_ARGUMENT"),
        ("BindAxb", {"RingConfig": "{}"}, "isv.ILLEGAL_ARGUMENT"),
        ("BindAxb", {"ASRStatus": True}, "isv.ILLEGAL_ARGUMENT"),
        ("BindAxb", {"ASRModelId": "m"}, "isv.ILLEGAL_ARGUMENT"),
        ("BindAxb", {"IsRecordingEnabled": True}, "isv.ILLEGAL_ARGUMENT"),
        ("BindAxb", {"CallDisplayType": 0}, "isv.ILLEGAL_ARGUMENT"),
        ("BindAxg", {"GroupId": "17"}, "isv.ILLEGAL_ARGUMENT"),
    ],
)
def test_what_is_not_done_is_refused(ask: Ask, action: str, given: Json, code: str) -> None:
    body = bind_older(ask, action, **given)
    assert body["Code"] == code
    assert "SecretBindDTO" not in body
    assert A not in body["Message"]


def test_an_extension(client: Client) -> None:
    """Which the older SDK does not know."""
    given = {"pool_key": POOL, "phone_no_a": A, "expiration": in_china(hours=1), "out_order_id": "o", "extend": "1"}
    assert client.ask("BindAxn", **given)["Code"] == "isv.ILLEGAL_ARGUMENT"
