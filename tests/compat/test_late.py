"""BindXB, BindAXBCall and UnBindXB by the new SDK; the older one does not have them."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from relay.model.numbers import normalise_party
from tests.compat.conftest import POOL, PREFIX, A, B, C, Client, Compat, D, Json, stored

ids = count()
XB = f"{PREFIX}0005"


def ask(client: Client, action: str, **given: Any) -> Json:
    return client.ask(action, **{"customer_pool_key": POOL, "req_id": f"r{next(ids)}", **given})


@pytest.fixture
def bound(client: Client) -> Json:
    body = ask(client, "BindXB", tel_b=B, tel_x=XB, user_data="parcel-1")
    assert (body["Code"], body["Success"]) == ("0000", True), body
    data: Json = body["Data"]
    return data


def binding_of(compat: Compat, bound: Json) -> Any:
    return stored(compat, {"SubsId": int(bound["AuthId"]), "SecretNo": XB})


def test_b_first_then_one_a_after_the_other(compat: Compat, client: Client, bound: Json) -> None:
    assert bound["TelX"] == XB
    binding = binding_of(compat, bound)
    assert (binding.a, binding.b, binding.expires_at) == (None, normalise_party(B), None)
    assert binding.user_data == "parcel-1"
    body = ask(client, "BindAXBCall", auth_id=bound["AuthId"], tel_a=A, expiration=600)
    assert (body["Code"], body["Data"]) == ("0000", {"BindId": bound["AuthId"]})
    binding = binding_of(compat, bound)
    assert binding.a == normalise_party(A)
    assert binding.expires_at - binding.changed_at == 600_000
    assert binding.user_data == "parcel-1"
    assert ask(client, "BindAXBCall", auth_id=bound["AuthId"], tel_a=C, expiration=60)["Code"] == "0000"
    assert binding_of(compat, bound).a == normalise_party(C)
    ended = ask(client, "UnBindXB", auth_id=bound["AuthId"], tel_x=XB)
    assert (ended["Code"], ended["Data"]) == ("OK", {"Code": "0000", "Message": "OK", "Success": True})
    assert ask(client, "UnBindXB", auth_id=bound["AuthId"], tel_x=XB)["Code"] == "isv.SUBS_NOT_EXIST"
    late = ask(client, "BindAXBCall", auth_id=bound["AuthId"], tel_a=A, expiration=60)
    assert (late["Code"], late["Success"]) == ("isv.FORBIDDEN_ACTION", False)


def test_a_repetition_gets_the_first_answer(client: Client) -> None:
    given = {"tel_b": B, "tel_x": XB, "req_id": "once"}
    first = ask(client, "BindXB", **given)
    assert ask(client, "BindXB", **given)["Data"] == first["Data"]
    assert ask(client, "BindXB", **{**given, "tel_b": C})["Code"] == "isv.ILLEGAL_ARGUMENT"
    called = {"auth_id": first["Data"]["AuthId"], "tel_a": A, "expiration": 60, "req_id": "once"}
    assert ask(client, "BindAXBCall", **called) == ask(client, "BindAXBCall", **called)


def test_what_is_refused(compat: Compat, client: Client, bound: Json) -> None:
    def code(**given: Any) -> Any:
        whole = {"auth_id": bound["AuthId"], "tel_a": A, "expiration": 60, **given}
        return ask(client, "BindAXBCall", **whole)["Code"]

    assert code(expiration=0) == "isv.EXPIRE_DATE_ILLEGAL"
    assert code(tel_a=B) == "isv.MOBILE_NUMBER_ILLEGAL"
    assert code(tel_a="110") == "isv.MOBILE_NUMBER_ILLEGAL"
    assert code(auth_id="17") == "isv.SUBS_NOT_EXIST"
    assert code(customer_pool_key="other") == "isv.SUBS_NOT_EXIST"
    assert ask(client, "BindXB", tel_b=B, tel_x=f"{PREFIX}0500")["Code"] == "isv.FORBIDDEN_ACTION"
    assert ask(client, "BindXB", tel_b=B, tel_x=XB)["Code"] == "isv.BIND_CONFLICT"
    rival = compat.client("rival")
    assert ask(rival, "BindAXBCall", auth_id=bound["AuthId"], tel_a=D, expiration=60)["Code"] == "isv.SUBS_NOT_EXIST"
    assert binding_of(compat, bound).a is None
