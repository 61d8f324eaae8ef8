"""Reading bindings and numbers by both SDKs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import uuid4

import pytest

from relay.model.numbers import mask_number, normalise_party
from relay.service.keys import BUSINESS_SCOPES
from relay.service.numbers import lock, unlock
from relay.service.recordings import RecordingLink, is_signed
from relay.store.audit import AuditQuery, newest_entries
from relay.store.bindings import update
from tests.compat.conftest import (
    POOL,
    PREFIX,
    A,
    Ask,
    B,
    C,
    Client,
    Compat,
    D,
    Json,
    bind,
    bind_older,
    in_china,
    stored,
)
from tests.support.recorded import keep

WITHOUT_PARTIES = BUSINESS_SCOPES - {"parties:read"}


def detail(ask: Ask, bound: Json, **given: Any) -> Json:
    asked = {"PoolKey": POOL, "SubsId": bound["SubsId"], "PhoneNoX": bound["SecretNo"], **given}
    return ask("QuerySubscriptionDetail", **asked)


def test_a_binding(compat: Compat, ask: Ask) -> None:
    until = in_china(hours=2)
    bound = bind_older(ask, Expiration=until, CallRestrict="CONTROL_BX_DISABLE")["SecretBindDTO"]
    shown = detail(ask, bound)["SecretBindDetailDTO"]
    assert shown.pop("GmtCreate")[:10] == in_china()[:10]
    assert shown == {
        "SubsId": bound["SubsId"],
        "PhoneNoX": bound["SecretNo"],
        "PhoneNoA": A,
        "PhoneNoB": B,
        "Status": 1,
        "ExpireDate": until,
        "CallRestrict": "CONTROL_BX_DISABLE",
        "NeedRecord": False,
        "ASRStatus": False,
    }


def test_real_numbers_take_the_scope_and_are_in_the_audit_log(compat: Compat, ask: Ask) -> None:
    bound = bind_older(ask)["SecretBindDTO"]
    without = compat.client(scopes=WITHOUT_PARTIES)
    shown = without.ask("QuerySubscriptionDetail", pool_key=POOL, subs_id=bound["SubsId"], phone_no_x=bound["SecretNo"])
    masked = (mask_number(normalise_party(A)), mask_number(normalise_party(B)))
    assert (shown["SecretBindDetailDTO"]["PhoneNoA"], shown["SecretBindDetailDTO"]["PhoneNoB"]) == masked
    assert reads(compat, without) == []
    reader = compat.client()
    reader.ask("QuerySubscriptionDetail", pool_key=POOL, subs_id=bound["SubsId"], phone_no_x=bound["SecretNo"])
    assert reads(compat, reader) == ["QuerySubscriptionDetail"]


def reads(compat: Compat, client: Client) -> list[str]:
    """The reasons of the readings in the audit log."""
    query = AuditQuery(actor=f"key:{client.key_id}", action="read")
    found = compat.run(lambda unit: newest_entries(unit.connection, unit.sealer, query, None, 10))
    return [entry.entry.reason for entry in found]


def test_a_group_binding_is_shown_as_an_axg(ask: Ask) -> None:
    group = ask("CreateAxgGroup", PoolKey=POOL, Name="g", Numbers="13811115001")["GroupId"]
    bound = bind_older(ask, "BindAxg", GroupId=str(group), PhoneNoB=D)["SecretBindDTO"]
    shown = detail(ask, bound)["SecretBindDetailDTO"]
    assert (shown["PhoneNoA"], shown["PhoneNoB"], shown["GroupId"]) == (A, D, group)


def test_an_ended_binding(ask: Ask) -> None:
    bound = bind_older(ask)["SecretBindDTO"]
    ask("UnbindSubscription", PoolKey=POOL, SubsId=bound["SubsId"], SecretNo=bound["SecretNo"])
    assert detail(ask, bound)["SecretBindDetailDTO"]["Status"] == 0


def test_a_binding_that_is_not_there(compat: Compat, ask: Ask) -> None:
    bound = bind_older(ask)["SecretBindDTO"]
    assert detail(ask, bound, SubsId="17")["Code"] == "isv.SUBS_NOT_EXIST"
    assert detail(ask, bound, PhoneNoX=f"{PREFIX}0500")["Code"] == "isv.SUBS_NOT_EXIST"
    assert detail(ask, bound, PoolKey="other")["Code"] == "isv.SUBS_NOT_EXIST"
    rival = compat.client("rival")
    asked = {"pool_key": POOL, "subs_id": bound["SubsId"], "phone_no_x": bound["SecretNo"]}
    assert rival.ask("QuerySubscriptionDetail", **asked)["Code"] == "isv.SUBS_NOT_EXIST"


def test_the_binding_of_a_number(compat: Compat, ask: Ask) -> None:
    x = f"{PREFIX}0004"
    assert ask("QuerySubsId", PoolKey=POOL, PhoneNoX=x)["Code"] == "isv.SUBS_NOT_EXIST"
    bound = bind_older(ask, PhoneNoX=x)["SecretBindDTO"]
    assert ask("QuerySubsId", PoolKey=POOL, PhoneNoX=x)["SubsId"] == bound["SubsId"]
    assert ask("QuerySubsId", PhoneNoX=x)["SubsId"] == bound["SubsId"]
    assert ask("QuerySubsId", PoolKey="other", PhoneNoX=x)["Code"] == "isv.SUBS_NOT_EXIST"
    assert compat.client("rival").ask("QuerySubsId", phone_no_x=x)["Code"] == "isv.SUBS_NOT_EXIST"
    bind_older(ask, PhoneNoX=x, PhoneNoA=C, PhoneNoB=D)
    assert ask("QuerySubsId", PoolKey=POOL, PhoneNoX=x)["Code"] == "isv.FORBIDDEN_ACTION"


@pytest.mark.parametrize("elsewhere", ["y", "pool"])
def test_newer_bindings_that_are_not_of_the_pool_and_x_hide_none(compat: Compat, ask: Ask, elsewhere: str) -> None:
    x, other = f"{PREFIX}0004", f"{PREFIX}0005"
    bound = bind_older(ask, PhoneNoX=x)["SecretBindDTO"]
    newer = []
    for parties in ({"PhoneNoA": C, "PhoneNoB": D}, {"PhoneNoA": "13500000005", "PhoneNoB": "13400000006"}):
        one = bind_older(ask, PhoneNoX=other if elsewhere == "y" else x, **parties)["SecretBindDTO"]
        newer.append(stored(compat, one | {"SubsId": int(one["SubsId"])}))
    moved = [one._replace(y=x) if elsewhere == "y" else one._replace(pool="default") for one in newer]
    compat.run(lambda unit: [update(unit, one) for one in moved])
    try:
        assert ask("QuerySubsId", PoolKey=POOL, PhoneNoX=x).get("SubsId") == bound["SubsId"]
        assert ask("QuerySubsId", PoolKey="\0", PhoneNoX=x)["Code"] == "isv.SUBS_NOT_EXIST"
    finally:  # their ends count in their pools
        compat.run(lambda unit: [update(unit, one) for one in newer])


def number(ask: Ask, secret_no: str, pool_key: str = POOL) -> Json:
    return ask("QuerySecretNoDetail", PoolKey=pool_key, SecretNo=secret_no)


def test_a_number(compat: Compat, ask: Ask) -> None:
    x = f"{PREFIX}0006"
    shown = number(ask, x)["SecretNoInfoDTO"]
    assert (shown["SecretStatus"], shown["CertifyStatus"], shown["City"]) == (0, 1, "")
    assert shown["PurchaseTime"][:2] == "20"
    bind_older(ask, PhoneNoX=x)
    assert number(ask, x)["SecretNoInfoDTO"]["SecretStatus"] == 1
    compat.run(lambda unit: lock(unit, x, "test"))
    try:
        assert number(ask, x)["SecretNoInfoDTO"]["SecretStatus"] == 2
    finally:
        compat.run(lambda unit: unlock(unit, x, "test"))


def test_a_number_of_the_common_pool_shows_nothing_of_others(compat: Compat) -> None:
    x, one, other = f"{PREFIX}0500", compat.client("one"), compat.client("other")
    status = [client.ask("QuerySecretNoDetail", pool_key="default", secret_no=x) for client in (one, other)]
    bound = bind(one, pool_key="default", tel_x=x)
    assert bound["Code"] == "OK"
    status += [client.ask("QuerySecretNoDetail", pool_key="default", secret_no=x) for client in (one, other)]
    assert [each["SecretNoInfoDTO"]["SecretStatus"] for each in status] == [0, 0, 1, 0]


def test_a_number_that_is_not_there(compat: Compat, ask: Ask) -> None:
    assert number(ask, f"{PREFIX}0500")["Code"] == "isv.NO_NOT_EXIST"  # of the common pool
    assert number(ask, A)["Code"] == "isv.NO_NOT_EXIST"
    assert number(ask, f"{PREFIX}0001", "other")["Code"] == "isv.POOLKEY_NOT_EXISTS"


def remaining(ask: Ask, city: str, spec_id: int = 2) -> Json:
    found: Json = ask("QuerySecretNoRemain", City=city, SpecId=spec_id)["SecretRemainDTO"]
    return found


def test_what_remains_by_area(compat: Compat) -> None:
    client = compat.client("towns")
    compat.pool("north", "towns", range(100, 103), area="北京")
    compat.pool("south", "towns", range(103, 105), area="广州")

    def both(action: str, **given: Any) -> Json:
        return client.ask_old(action, **given)

    assert remaining(both, "北京")["Amount"] == 3
    assert remaining(both, "National")["Amount"] == 5
    assert remaining(both, "上海")["Amount"] == 0
    assert remaining(both, "National", spec_id=1)["Amount"] == 0
    listed = remaining(both, "National List")["RemainDTOList"]["remainDTO"]
    assert listed == [{"City": "北京", "Amount": 3}, {"City": "广州", "Amount": 2}]
    body = client.ask("QuerySecretNoRemain", city="National List", spec_id=2)
    assert body["SecretRemainDTO"]["RemainDTOList"]["remainDTO"] == listed


def test_what_remains_is_refused(ask: Ask) -> None:
    assert ask("QuerySecretNoRemain", City="National", SpecId=9)["Code"] == "isv.ILLEGAL_ARGUMENT"
    asked = {"City": "National", "SpecId": 2, "SecretNo": "7001"}
    assert ask("QuerySecretNoRemain", **asked)["Code"] == "isv.ILLEGAL_ARGUMENT"


@pytest.mark.parametrize("scopes", [["bindings:write"]])
def test_reading_takes_its_scope(compat: Compat, scopes: list[str]) -> None:
    client = compat.client(scopes=scopes)
    for action, given in (
        ("QuerySubsId", {"phone_no_x": "x"}),
        ("QuerySecretNoDetail", {"pool_key": POOL, "secret_no": "x"}),
        ("QuerySecretNoRemain", {"spec_id": 2, "city": "National"}),
    ):
        assert client.ask(action, **given)["Code"] == "isp.RAM_PERMISSION_DENY"


# -- recordings

CALL = f"{7:032x}"


def test_a_recording_has_a_link_that_ends(compat: Compat, ask: Ask, client: Client, tmp_path: Path) -> None:
    call_id = uuid4().hex
    compat.run(lambda unit: keep(unit, tmp_path, call_id, b"sound", "acme"))
    answer = ask("QueryRecordFileDownloadUrl", PoolKey=POOL, CallId=call_id, CallTime="2026-01-01 08:00:00")
    assert answer["Code"] == "OK"
    url = urlsplit(answer["DownloadUrl"])
    assert (url.scheme, url.netloc, url.path) == ("https", "api.example", f"/recordings/{call_id}.wav")
    asked = dict(parse_qsl(url.query))
    link = RecordingLink(call_id, "mono", int(asked["expires"]), asked["key"])
    assert is_signed(compat.backend.sealer, link, asked["sig"])
    assert 7_100 < link.expires_s - time.time() <= 7_200


def test_a_recording_of_another_business_user_is_not_found(compat: Compat, client: Client, tmp_path: Path) -> None:
    compat.run(lambda unit: keep(unit, tmp_path, CALL, b"sound", "rival"))

    def code(**given: str) -> object:
        return client.ask("QueryRecordFileDownloadUrl", call_id=CALL, **given)["Code"]

    assert code(pool_key=POOL) == code() == "isv.ILLEGAL_ARGUMENT"
    assert code(pool_key="none") == "isv.POOLKEY_NOT_EXISTS"
