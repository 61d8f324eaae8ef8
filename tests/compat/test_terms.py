"""Changes of bindings by UpdateSubs700: one field each, or none."""

from __future__ import annotations

import pytest

from relay.model.numbers import normalise_party
from tests.compat.conftest import POOL, PREFIX, B, C, Client, Compat, D, Json, bind, change, in_china, stored


def test_changes(compat: Compat, client: Client, bound: Json) -> None:
    assert change(client, bound, operate_type="updateNoA", tel_a=C)["Code"] == "OK"
    assert change(client, bound, operate_type="updateNoB", tel_b=D)["Code"] == "OK"
    assert change(client, bound, operate_type="updateOutId", out_id="o-2")["Code"] == "OK"
    assert change(client, bound, operate_type="updateExpire", expiration=in_china(hours=3))["Code"] == "OK"
    restricted = change(client, bound, operate_type="updateCallRestrict", call_restrict="CONTROL_AX_DISABLE")
    assert restricted["Success"] is True
    binding = stored(compat, bound)
    assert (binding.a, binding.b) == (normalise_party(C), normalise_party(D))
    assert (binding.user_data, binding.direction, binding.version) == ("o-2", "b_to_a", 6)
    cleared = change(client, bound, operate_type="updateCallRestrict", call_restrict="CONTROL_CLEAR_DISABLE")
    assert cleared["Code"] == "OK"
    assert stored(compat, bound).direction == "both"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"operate_type": "updateEverything"}, "isv.ILLEGAL_ARGUMENT"),
        ({"operate_type": "updateNoA"}, "isv.ILLEGAL_ARGUMENT"),
        ({"operate_type": "updateNoA", "tel_a": C, "tel_b": D}, "isv.ILLEGAL_ARGUMENT"),
        ({"operate_type": "updateNoA", "tel_a": B}, "isv.MOBILE_NUMBER_ILLEGAL"),
        ({"operate_type": "updateExpire", "expiration": in_china(hours=-1)}, "isv.EXPIRE_DATE_ILLEGAL"),
        ({"operate_type": "updateIsRecordingEnabled", "need_record": True}, "isv.ILLEGAL_ARGUMENT"),
        ({"operate_type": "updateAxgGroup", "group_id": "17"}, "isv.ILLEGAL_ARGUMENT"),
        ({"operate_type": "updateOutId", "out_id": "x", "need_asr": True}, "isv.ILLEGAL_ARGUMENT"),
    ],
)
def test_changes_that_are_refused(compat: Compat, client: Client, bound: Json, given: Json, code: str) -> None:
    before = stored(compat, bound)
    assert change(client, bound, **given)["Code"] == code
    assert stored(compat, bound) == before


def test_a_change_that_conflicts(client: Client) -> None:
    x = f"{PREFIX}0007"
    first = bind(client, tel_x=x, tel_a="13811110001", tel_b="13811110002")
    second = bind(client, tel_x=x, tel_a="13811110003", tel_b="13811110004")
    assert (first["Code"], second["Code"]) == ("OK", "OK")
    body = change(client, second["Data"], operate_type="updateNoA", tel_a="13811110001")
    assert body["Code"] == "isv.UPDATE_CONFLICT"


def test_a_change_of_an_ended_binding(client: Client, bound: Json) -> None:
    client.ask("UnbindSubs700", pool_key=POOL, subs_id=bound["SubsId"], tel_x=bound["SecretNo"])
    assert change(client, bound, operate_type="updateNoA", tel_a=C)["Code"] == "isv.FORBIDDEN_ACTION"
