"""Black lists, locked numbers and filings by Alibaba's SDKs."""

from __future__ import annotations

from typing import Any

import pytest

from relay.model.numbers import normalise_party
from relay.service.groups import set_entry
from relay.store.filings import find_filing
from relay.store.groups import find_entries, of_business
from relay.store.numbers import find_number
from tests.compat.conftest import POOL, PREFIX, A, Ask, B, C, Client, Compat, D, Json, bind, bind_older

GLOBAL = {"PoolKey": POOL, "BlackNo": C, "BlackType": "PARTNER_GLOBAL_NUMBER_BLACK"}


def listed(compat: Compat) -> dict[str, str]:
    entries = compat.run(lambda unit: find_entries(unit.connection, unit.sealer, of_business("acme"), b"", 100))
    return {entry.number: entry.kind for entry in entries}


def test_a_number_is_put_on_the_black_list_and_taken_off(compat: Compat, ask: Ask) -> None:
    assert ask("AddSecretBlacklist", **GLOBAL, Remark="rude")["Code"] == "OK"
    assert listed(compat) == {normalise_party(C): "black"}
    assert ask("DeleteSecretBlacklist", **GLOBAL)["Code"] == "OK"
    assert listed(compat) == {}
    assert ask("DeleteSecretBlacklist", **GLOBAL)["Code"] == "isv.NO_NOT_EXIST"


def test_the_same_by_operate_black_no(compat: Compat, ask: Ask) -> None:
    given = {"PoolKey": POOL, "BlackNo": C}
    assert ask("OperateBlackNo", **given, OperateType="AddBlack", Tips="rude")["Code"] == "OK"
    assert listed(compat) == {normalise_party(C): "black"}
    assert ask("OperateBlackNo", **given, OperateType="DeleteBlack")["Code"] == "OK"
    assert listed(compat) == {}
    assert ask("OperateBlackNo", **given, OperateType="Whiten")["Code"] == "isv.ILLEGAL_ARGUMENT"


def test_a_white_number_is_not_taken_off_the_list(compat: Compat, ask: Ask) -> None:
    compat.run(lambda unit: set_entry(unit, "business", "acme", D, "white"))
    assert ask("DeleteSecretBlacklist", **GLOBAL | {"BlackNo": D})["Code"] == "isv.NO_NOT_EXIST"
    assert listed(compat) == {normalise_party(D): "white"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"BlackType": "POINT_TO_POINT_BLACK", "BlackNo": f"{A}:{B}"}, "isv.ILLEGAL_ARGUMENT"),
        ({"WayControl": "PHONEA_REJECT"}, "isv.ILLEGAL_ARGUMENT"),
        ({"PoolKey": "none"}, "isv.POOLKEY_NOT_EXISTS"),
        ({"BlackNo": "nobody"}, "isv.MOBILE_NUMBER_ILLEGAL"),
    ],
)
def test_what_a_black_list_cannot_mean_is_refused(ask: Ask, change: Json, code: str) -> None:
    answer = ask("AddSecretBlacklist", **GLOBAL | change)
    assert answer["Code"] == code and A not in answer["Message"]


def test_a_locked_number_is_chosen_for_no_binding(compat: Compat, ask: Ask, client: Client) -> None:
    held = f"{PREFIX}0004"
    of = {"PoolKey": POOL, "SecretNo": held}
    assert ask("LockSecretNo", **of)["Code"] == "OK"
    number = compat.run(lambda unit: find_number(unit.connection, held, unit.now_ms))
    assert number.locked_by == ["hold"]
    assert ask("QuerySecretNoDetail", **of)["SecretNoInfoDTO"]["SecretStatus"] == 2
    assert bind(client, tel_x=held)["Code"] == "isv.FORBIDDEN_ACTION"
    assert bind_older(ask)["Code"] == "OK"
    assert ask("UnlockSecretNo", **of)["Code"] == "OK"
    assert bind(client, tel_x=held, tel_a=C, tel_b=D)["Code"] == "OK"


def test_a_number_of_another_pool_is_not_locked(compat: Compat, ask: Ask) -> None:
    assert ask("LockSecretNo", PoolKey=POOL, SecretNo=f"{PREFIX}0100")["Code"] == "isv.NO_NOT_EXIST"
    assert ask("UnlockSecretNo", PoolKey="default", SecretNo=f"{PREFIX}0100")["Code"] == "isv.POOLKEY_NOT_EXISTS"


# -- filing

REPORT: dict[str, Any] = {
    "phone_no_a": A, "cust_name": "张三", "document_number": "110101199003070003", "document_type": 1,
    "id_card_alive_photo": "oss://photos/1.jpg", "id_card_front_photo": "oss://photos/2.jpg", "ano_white_group_id": 17,
}  # fmt: skip


def test_an_a_number_is_filed_with_its_holder(compat: Compat, client: Client) -> None:
    body = client.ask("CreatePhoneNoAReport", **REPORT)
    assert (body["Code"], body["Success"], body["Data"]) == ("OK", True, {"CreateResult": True, "FailType": 1})
    filing = compat.run(lambda unit: find_filing(unit.connection, unit.sealer, "acme", normalise_party(A)))
    assert (filing.reference, filing.answer) == ("17", "submitted")
    assert filing.documents[:3] == ("张三", "id_card", "110101199003070003")
    assert filing.documents.photo == "oss://photos/1.jpg"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"document_type": 2}, "isv.ILLEGAL_ARGUMENT"),
        ({"phone_no_a": "nobody"}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ({"cust_name": "x" * 100}, "isv.ILLEGAL_ARGUMENT"),
    ],
)
def test_a_filing_that_cannot_be_is_refused(client: Client, change: Json, code: str) -> None:
    body = client.ask("CreatePhoneNoAReport", **REPORT | change)
    assert (body["Code"], body["Success"]) == (code, False)


def test_each_action_needs_its_scope(compat: Compat) -> None:
    client = compat.client(scopes=["calls:read"])
    asked: list[tuple[str, Json]] = [
        ("OperateBlackNo", {"pool_key": POOL, "black_no": C, "operate_type": "AddBlack"}),
        ("LockSecretNo", {"pool_key": POOL, "secret_no": f"{PREFIX}0004"}),
        ("CreatePhoneNoAReport", REPORT),
    ]
    for action, given in asked:
        assert client.ask(action, **given)["Code"] == "isp.RAM_PERMISSION_DENY"
