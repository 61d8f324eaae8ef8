"""Groups by both SDKs."""

from __future__ import annotations

import pytest

from relay.model.numbers import normalise_party
from relay.service import groups, placement
from relay.store.groups import Group, find_numbered_group, members_page
from tests.compat.conftest import POOL, Ask, Client, Compat, Json, bind_older

FIRST, SECOND, THIRD = "13811114001", "13811114002", "13811114003"


def create(ask: Ask, numbers: str = f"{FIRST},{SECOND}", **given: object) -> int:
    body = ask("CreateAxgGroup", **{"PoolKey": POOL, "Name": "depot", "Numbers": numbers, **given})
    assert body["Code"] == "OK", body
    group_id: int = body["GroupId"]
    return group_id


def group_of(compat: Compat, number: int) -> Group:
    found = compat.run(lambda unit: find_numbered_group(unit.connection, unit.sealer, number, "acme"))
    assert found is not None
    group: Group = found
    return group


def members(compat: Compat, number: int) -> set[str]:
    group_id = group_of(compat, number).group_id
    return {
        number for _, number in compat.run(lambda unit: members_page(unit.connection, unit.sealer, group_id, b"", 999))
    }


def operate(ask: Ask, group_id: int, operation: str, numbers: str, **given: object) -> str:
    asked = {"PoolKey": POOL, "GroupId": group_id, "OperateType": operation, "Numbers": numbers, **given}
    code: str = ask("OperateAxgGroup", **asked)["Code"]
    return code


def normal(*numbers: str) -> set[str]:
    return {normalise_party(number) for number in numbers}


def test_members_are_added_deleted_and_replaced(compat: Compat, ask: Ask) -> None:
    group = create(ask)
    assert group < 1 << 53
    assert members(compat, group) == normal(FIRST, SECOND)
    assert operate(ask, group, "addNumbers", THIRD) == "OK"
    assert members(compat, group) == normal(FIRST, SECOND, THIRD)
    assert operate(ask, group, "deleteNumbers", f"{FIRST},{SECOND}") == "OK"
    assert members(compat, group) == normal(THIRD)
    assert operate(ask, group, "overwriteNumbers", f"{SECOND},{THIRD}") == "OK"
    assert members(compat, group) == normal(SECOND, THIRD)


def test_additions_and_removals_of_an_overwrite_count_together(
    compat: Compat, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (groups, placement):
        monkeypatch.setattr(module, "MOST_ROUTES", 3)
    group = create(ask)
    assert bind_older(ask, "BindAxg", GroupId=str(group))["Code"] == "OK"
    assert operate(ask, group, "overwriteNumbers", "13811114004,13811114005") == "isv.FORBIDDEN_ACTION"
    assert members(compat, group) == normal(FIRST, SECOND)
    assert operate(ask, group, "overwriteNumbers", f"{SECOND},{THIRD}") == "OK"


def test_a_group_without_name_and_numbers(compat: Compat, client: Client) -> None:
    body: Json = client.ask("CreateAxgGroup", pool_key=POOL, remark="not kept")
    assert group_of(compat, body["GroupId"]).name.startswith("G")


def test_what_is_refused(compat: Compat, ask: Ask) -> None:
    group = create(ask)
    assert operate(ask, group, "sortNumbers", FIRST) == "isv.ILLEGAL_ARGUMENT"
    assert operate(ask, group, "addNumbers", "110") == "isv.MOBILE_NUMBER_ILLEGAL"
    assert operate(ask, group, "addNumbers", FIRST, PoolKey="other") == "isv.POOLKEY_NOT_EXISTS"
    assert operate(ask, group + 1, "addNumbers", FIRST) == "isv.ILLEGAL_ARGUMENT"
    many = ",".join(f"138222{number:05d}" for number in range(201))
    assert operate(ask, group, "addNumbers", many) == "isv.ILLEGAL_ARGUMENT"
    assert ask("CreateAxgGroup", PoolKey="other")["Code"] == "isv.POOLKEY_NOT_EXISTS"
    assert ask("CreateAxgGroup", PoolKey=POOL, Name="n" * 129)["Code"] == "isv.ILLEGAL_ARGUMENT"
    assert members(compat, group) == normal(FIRST, SECOND)


@pytest.mark.parametrize("operation", ["addNumbers", "deleteNumbers", "overwriteNumbers"])
@pytest.mark.parametrize("numbers", [",", " , "])
def test_an_operation_takes_a_number(compat: Compat, ask: Ask, operation: str, numbers: str) -> None:
    group = create(ask)
    assert operate(ask, group, operation, numbers) == "isv.ILLEGAL_ARGUMENT"
    assert members(compat, group) == normal(FIRST, SECOND)


def test_a_group_of_more_than_200_cannot_be_overwritten(ask: Ask) -> None:
    group = create(ask, ",".join(f"138333{number:05d}" for number in range(200)))
    assert operate(ask, group, "addNumbers", FIRST) == "OK"
    assert operate(ask, group, "overwriteNumbers", SECOND) == "isv.ILLEGAL_ARGUMENT"


def test_a_group_is_deleted_once_nothing_is_bound_to_it(ask: Ask) -> None:
    group = create(ask)
    bound = bind_older(ask, "BindAxg", GroupId=str(group))["SecretBindDTO"]
    assert ask("DeleteAxgGroup", PoolKey=POOL, GroupId=group)["Code"] == "isv.UPDATE_CONFLICT"
    ask("UnbindSubscription", PoolKey=POOL, SubsId=bound["SubsId"], SecretNo=bound["SecretNo"])
    assert ask("DeleteAxgGroup", PoolKey=POOL, GroupId=group)["Code"] == "OK"
    assert ask("DeleteAxgGroup", PoolKey=POOL, GroupId=group)["Code"] == "isv.ILLEGAL_ARGUMENT"


def test_another_business_users_group(compat: Compat, client: Client) -> None:
    compat.key("rival")
    group = client.ask("CreateAxgGroup", pool_key=POOL, name="depot", numbers=FIRST)["GroupId"]
    rival = compat.client("rival")
    compat.pool("rival-groups", "rival", [60])
    given = {"pool_key": "rival-groups", "operate_type": "addNumbers", "numbers": SECOND}
    assert rival.ask("OperateAxgGroup", group_id=group, **given)["Code"] == "isv.ILLEGAL_ARGUMENT"
