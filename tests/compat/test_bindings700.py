"""Bindings of 700 numbers by Alibaba's SDK: BindAxb700, BindGxb700, UpdateSubs700, UnbindSubs700."""

from __future__ import annotations

import asyncio

import pytest
from alibabacloud_dyplsapi20170525 import models
from alibabacloud_tea_openapi.exceptions import ClientException

from relay.model.numbers import normalise_party
from relay.service.businesses import change as change_business
from relay.service.businesses import set_state
from relay.service.groups import make_group
from relay.service.numbers import lock, unlock
from tests.compat.conftest import POOL, PREFIX, A, B, C, Client, Compat, D, Json, bind, change, in_china, stored


def test_a_binding_has_what_was_asked(compat: Compat, client: Client) -> None:
    until = in_china(hours=2)
    body = bind(
        client,
        tel_x=f"{PREFIX}0003",
        expiration=until,
        out_id="out-1",
        industrial_id="88.101.1/order-1",
        call_restrict="CONTROL_BX_DISABLE",
        call_timeout=40,
        need_record=False,
        need_asr=False,
    )
    assert (body["Code"], body["Message"], body["Success"]) == ("OK", "OK", True)
    assert body["Data"]["SecretNo"] == f"{PREFIX}0003"
    assert body["Data"]["SubsId"] < 1 << 53  # JavaScript reads it exactly
    binding = stored(compat, body["Data"])
    assert (binding.mode, binding.pool, binding.order_id, binding.user_data) == ("AXB", POOL, "order-1", "out-1")
    assert (binding.a, binding.b) == (normalise_party(A), normalise_party(B))
    assert (binding.direction, binding.ring_timeout_s) == ("a_to_b", 40)
    assert binding.industrial_id == "88.101.1/order-1"
    assert binding.created_by == f"key:{client.key_id}"


def test_out_order_id_is_the_order_if_there_is_no_other(compat: Compat, client: Client) -> None:
    assert stored(compat, bind(client, order_id=None, out_order_id="order-2")["Data"]).order_id == "order-2"
    assert bind(client, out_order_id="order-3")["Code"] == "isv.ILLEGAL_ARGUMENT"


@pytest.mark.parametrize("ahead", [{"hours": -1}, {"seconds": 30}, {"days": 91}])
def test_an_expiration_that_is_past_too_near_or_too_far(client: Client, ahead: dict[str, float]) -> None:
    body = bind(client, expiration=in_china(**ahead))
    assert (body["Code"], body["Success"]) == ("isv.EXPIRE_DATE_ILLEGAL", False)


def test_an_expiration_of_another_form(client: Client) -> None:
    assert bind(client, expiration="2099-01-01T00:00:00Z")["Code"] == "isv.EXPIRE_DATE_ILLEGAL"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"tel_a": "110"}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ({"tel_b": "not a number"}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ({"tel_b": A}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ({"pool_key": "no-such-pool"}, "isv.POOLKEY_NOT_EXISTS"),
        ({"tel_x": "700100000079999"}, "isv.FORBIDDEN_ACTION"),  # of another pool
        ({"tel_x": "17000000001"}, "isv.ILLEGAL_ARGUMENT"),  # an old middle number
        ({"order_id": None}, "isv.ILLEGAL_ARGUMENT"),  # the pilot phase takes one
        ({"call_restrict": "CONTROL_GX_DISABLE"}, "isv.ILLEGAL_ARGUMENT"),
        ({"call_timeout": 1}, "isv.ILLEGAL_ARGUMENT"),
        ({"need_record": True}, "isv.ILLEGAL_ARGUMENT"),  # recording is not configured
        ({"rec_type": "1"}, "isv.ILLEGAL_ARGUMENT"),
        ({"need_asr": True}, "isv.ILLEGAL_ARGUMENT"),
        ({"asr_model_id": "m"}, "isv.ILLEGAL_ARGUMENT"),
        ({"audio": "{}"}, "isv.ILLEGAL_ARGUMENT"),
        ({"dtmf_config": "{}"}, "isv.ILLEGAL_ARGUMENT"),
    ],
)
def test_what_is_not_done_is_refused(client: Client, given: Json, code: str) -> None:
    body = bind(client, **given)
    assert (body["Code"], body["Success"]) == (code, False)
    assert "Data" not in body
    assert A not in body["Message"]
    assert B not in body["Message"]


def test_a_refusal_names_the_parameter_as_alibaba_does(client: Client) -> None:
    assert bind(client, order_id=None)["Message"].startswith("OrderId: required")
    assert bind(client, tel_a="110")["Message"].startswith("TelA: ")


def test_a_business_user_that_may_not_bind(compat: Compat) -> None:
    client = compat.client("axn-only")
    compat.pool("axn-pool", "axn-only", [70])
    compat.run(lambda unit: change_business(unit, "axn-only", modes=("AXN",)))
    assert bind(client, pool_key="axn-pool")["Code"] == "isv.PRODUCT_UNSUBSCRIBE"
    compat.run(lambda unit: set_state(unit, "axn-only", "suspend", "test"))
    assert bind(client, pool_key="axn-pool")["Code"] == "isv.ACCOUNT_ABNORMAL"


def test_a_number_that_is_locked(compat: Compat, client: Client) -> None:
    x = f"{PREFIX}0001"
    compat.run(lambda unit: lock(unit, x, "test"))
    try:
        assert bind(client, tel_x=x)["Code"] == "isv.FORBIDDEN_ACTION"
    finally:
        compat.run(lambda unit: unlock(unit, x))


def test_another_business_users_pool(compat: Compat, client: Client) -> None:
    compat.key("rival")
    compat.pool("rival-pool", "rival", [20])
    assert bind(client, pool_key="rival-pool")["Code"] == "isv.POOLKEY_NOT_EXISTS"


def test_a_conflict_and_a_number_that_is_not_of_the_pool(client: Client, bound: Json) -> None:
    assert bind(client, tel_x=bound["SecretNo"], tel_b=C)["Code"] == "isv.BIND_CONFLICT"
    assert bind(client, tel_x=f"{PREFIX}0030")["Code"] == "isv.FORBIDDEN_ACTION"


def test_an_empty_pool(compat: Compat) -> None:
    client = compat.client("small")
    compat.pool("small-pool", "small", [40])
    assert bind(client, pool_key="small-pool")["Code"] == "OK"
    assert bind(client, pool_key="small-pool", tel_b=C)["Code"] == "isv.NO_AVAILABLE_NUMBER"


def test_more_bindings_a_second_than_the_quota(compat: Compat, client: Client) -> None:
    compat.set(quotas=compat.backend.settings.rules.quotas._replace(max_binds_per_s=0))
    assert bind(client)["Code"] == "isv.FLOW_LIMIT"


def test_unbinding(compat: Compat, client: Client, bound: Json) -> None:
    named = {"pool_key": POOL, "subs_id": bound["SubsId"], "tel_x": bound["SecretNo"]}
    assert client.ask("UnbindSubs700", **named, order_id="another")["Code"] == "isv.SUBS_NOT_EXIST"
    body = client.ask("UnbindSubs700", **named, order_id="order-1")
    assert (body["Code"], body["Success"]) == ("OK", True)
    assert stored(compat, bound).ended_by == f"key:{client.key_id}"
    assert client.ask("UnbindSubs700", **named)["Code"] == "isv.SUBS_NOT_EXIST"


@pytest.mark.parametrize("wrong", [{"pool_key": "other"}, {"subs_id": 12345}, {"tel_x": f"{PREFIX}0009"}])
def test_number_x_pool_and_id_must_belong_together(client: Client, wrong: Json) -> None:
    bound = bind(client, tel_x=f"{PREFIX}0008")["Data"]
    named = {"pool_key": POOL, "subs_id": bound["SubsId"], "tel_x": bound["SecretNo"]}
    assert client.ask("UnbindSubs700", **{**named, **wrong})["Code"] == "isv.SUBS_NOT_EXIST"
    assert client.ask("UnbindSubs700", **named)["Code"] == "OK"


def test_another_business_users_binding(compat: Compat, bound: Json) -> None:
    rival = compat.client("rival")
    named = {"pool_key": POOL, "subs_id": bound["SubsId"], "tel_x": bound["SecretNo"]}
    assert rival.ask("UnbindSubs700", **named)["Code"] == "isv.SUBS_NOT_EXIST"
    update = {"operate_type": "updateNoA", "tel_a": C}
    assert rival.ask("UpdateSubs700", **named, **update)["Code"] == "isv.SUBS_NOT_EXIST"


def test_a_group_binding(compat: Compat, client: Client) -> None:
    group = client.ask("CreateAxgGroup", pool_key=POOL, name="depot", numbers="13811112001,13811112002")
    body = client.ask(
        "BindGxb700",
        pool_key=POOL,
        tel_b=B,
        group_id=str(group["GroupId"]),
        default_a=D,
        expiration=in_china(hours=1),
        order_id="order-1",
        call_restrict="CONTROL_GX_DISABLE",
    )
    assert body["Code"] == "OK", body
    binding = stored(compat, body["Data"])
    assert (binding.mode, binding.a, binding.b) == ("GXB", normalise_party(D), normalise_party(B))
    assert binding.direction == "b_to_a"
    other = compat.run(lambda unit: make_group(unit, "other", compat.backend.settings.rules, "acme", ["13811112003"]))
    moved = change(client, body["Data"], operate_type="updateAxgGroup", group_id=str(int(other.group_id[1:16], 16)))
    assert moved["Code"] == "OK"
    assert stored(compat, body["Data"]).group_id == other.group_id
    assert change(client, body["Data"], operate_type="updateNoA", default_a=C)["Code"] == "OK"
    assert stored(compat, body["Data"]).a == normalise_party(C)


def test_a_group_that_does_not_exist(client: Client) -> None:
    given = {"pool_key": POOL, "tel_b": B, "expiration": in_china(hours=1), "order_id": "o"}
    assert client.ask("BindGxb700", **given, group_id="17")["Code"] == "isv.ILLEGAL_ARGUMENT"
    with pytest.raises(ClientException) as raised:
        client.ask("BindGxb700", **given, group_id="acme-group")
    assert raised.value.code == "InvalidGroupId"


async def test_many_at_once_by_the_asynchronous_client(client: Client) -> None:
    """Their units of work share transactions and milliseconds, and no two have one SubsId."""
    until = in_china(hours=1)
    requests = [
        models.BindAxb700Request(
            pool_key=POOL, tel_a=f"1381111{n:04d}", tel_b=f"1391111{n:04d}", expiration=until, order_id=f"order-{n}"
        )
        for n in range(60)
    ]
    answers = await asyncio.gather(*(client.new.bind_axb_700_async(request) for request in requests))
    assert {answer.body.code for answer in answers} == {"OK"}
    assert len({answer.body.data.subs_id for answer in answers}) == 60


def test_two_different_a_are_refused(compat: Compat, client: Client, bound: Json) -> None:
    body = change(client, bound, operate_type="updateNoA", tel_a=C, default_a=D)
    assert (body["Code"], body["Message"].split()[0]) == ("isv.ILLEGAL_ARGUMENT", "DefaultA")
    assert stored(compat, bound).a == normalise_party(A)
