"""What other providers hand out, read."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from relay.compat.providers import Provider, ProviderCall, read_bindings, read_calls
from relay.errors import ParseError, Refused
from tests.support.stored import X

A_DETAIL = {
    "SubsId": "100012771029395901", "PhoneNoA": "13800000001", "PhoneNoB": "13900000002", "PhoneNoX": "17012345678",
    "ExpireDate": "2026-03-01 10:00:00", "Status": 1, "NeedRecord": False, "CallRestrict": "CONTROL_BX_DISABLE",
}  # fmt: skip
HUAWEI = {
    "subscriptionId": "efw89efwf7fea", "relationNum": "+8617012345678", "callerNum": "+8613800000001",
    "calleeNum": "+8613900000002", "callDirection": 2, "duration": "3600", "subscribeTime": "2026-01-01 00:00:00",
    "maxDuration": 10, "recordFlag": "true", "userData": "cart 9",
}  # fmt: skip


def bindings(provider: Provider, text: str) -> list[Any]:
    return [one.written for one in read_bindings(provider, io.StringIO(text), "acme", "city")]


def test_a_binding_of_alibabas_query() -> None:
    answer = json.dumps({"Code": "OK", "SecretBindDetailDTO": A_DETAIL}, indent=1)
    [written] = bindings("alibaba", answer)
    assert written == {
        "mode": "AXB", "a": "13800000001", "b": "13900000002", "x": "", "y": "", "direction": "a_to_b",
        "expires_in": "2026-03-01T10:00:00+08:00", "industrial_id": "", "order_id": "alibaba:100012771029395901",
        "user_data": "", "record": False, "business": "acme", "pool": "city",
    }  # fmt: skip


def test_a_line_of_csv_keeps_its_700_number_order_and_texts() -> None:
    text = f"\ufeffSubs Id,TelA,TelB,TelX,out_id,OutOrderId,Expiration\n7,13800000001,,{X},cart 9,order-1,\n"
    [written] = bindings("alibaba", text)
    assert (written["mode"], written["x"], written["order_id"], written["user_data"]) == ("AXN", X, "order-1", "cart 9")
    assert written["expires_in"] == ""


def test_a_binding_of_huaweis_query_ends_as_long_after_it_was_made() -> None:
    [written] = bindings("huawei", json.dumps({"resultcode": "0", "relationNumList": [HUAWEI]}))
    assert written == {
        "mode": "AXB", "a": "+8613800000001", "b": "+8613900000002", "x": "", "y": "", "direction": "b_to_a",
        "expires_in": "2026-01-01T01:00:00+00:00", "max_call_s": 600, "order_id": "huawei:efw89efwf7fea",
        "user_data": "cart 9", "record": True, "business": "acme", "pool": "city",
    }  # fmt: skip
    xy = {"bindId": "1", "numA": "8001", "numX": X, "numY": "17012345678", "numB": "8002", "duration": "0"}
    [written] = bindings("huawei", json.dumps({"xyRelationNumList": [xy]}))
    assert (written["mode"], written["x"], written["expires_in"]) == ("AXYB", X, "")


@pytest.mark.parametrize(
    ("provider", "change", "field"),
    [
        ("alibaba", {"SubsId": None}, "id"),
        ("alibaba", {"Extension": "8011"}, "extension"),
        ("alibaba", {"Status": 0}, "status"),
        ("alibaba", {"GroupId": 17}, "GroupId"),
        ("alibaba", {"CallRestrict": "SMS"}, "CallRestrict"),
        ("alibaba", {"NeedRecord": "perhaps"}, "record"),
        ("alibaba", {"ExpireDate": "soon"}, "time"),
        ("huawei", {"callDirection": 3}, "callDirection"),
        ("huawei", {"duration": "-1"}, "duration"),
        ("huawei", {"duration": "999999999", "subscribeTime": "9999-12-31 00:00:00"}, "duration"),
        ("huawei", {"subscribeTime": ""}, "subscribeTime"),
        ("huawei", {"extendNum": "12"}, "extension"),
    ],
)
def test_what_cannot_be_is_refused_by_its_field(provider: Provider, change: dict[str, Any], field: str) -> None:
    form = (A_DETAIL if provider == "alibaba" else HUAWEI) | change
    [refused] = bindings(provider, json.dumps([form]))
    assert isinstance(refused, Refused) and refused.field == field
    assert "138" not in str(refused)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{'8' * 200_000},SubsId\n", 1),
        (f"SubsId\n1\n{'8' * 200_000}\n", 3),
        ("[" * 100_000, 1),
        ('{"SubsId": "1"}\n' + "[" * 100_000, 2),
    ],
    ids=["heading", "row", "nested", "nested line"],
)
def test_what_cannot_be_decoded_is_an_error_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ParseError, match=f"^line {line}: not (CSV|JSON): "):
        assert bindings("alibaba", text)


@pytest.mark.parametrize("heading", ["SubsId,PhoneNoA,phone_no_a", "绑定关系ID,A号码,a号码"])
def test_a_repeated_column_is_an_error(heading: str) -> None:
    with pytest.raises(ParseError, match=r"^line 1: the column '(phonenoa|a号码)' is there twice$"):
        assert bindings("alibaba", f"{heading}\n1,13800000001,13800000002\n")


def test_a_binding_is_found_at_any_depth() -> None:
    """Also at those that the decoder reads and a recursive search would not."""
    text = '{"a": [' * 400 + json.dumps(A_DETAIL) + "]}" * 400
    [written] = bindings("alibaba", text)
    assert written["a"] == "13800000001"


@pytest.mark.parametrize(
    "text",
    ["", "name,number\na,1\n", "{not json", f"SubsId\n{'8' * 200_000}\n", '{"SubsId": "1"}\n{broken\n'],
    ids=["empty", "other", "no JSON", "no CSV", "broken"],
)
def test_a_file_of_something_else_is_an_error(text: str) -> None:
    with pytest.raises(ParseError):
        assert bindings("alibaba", text)


# -- call records

REPORT = {
    "call_id": "43612633712c", "phone_no": "13800000001", "peer_no": "13900000002", "call_type": 1, "release_cause": 16,
    "call_time": "2026-01-01 08:00:00", "start_time": "2026-01-01 08:00:03", "release_time": "2026-01-01 08:00:13",
    "unconnected_cause": 0,
}  # fmt: skip
FEE = {
    "icid": "ba17", "sessionId": "s1", "callerNum": "+8613800000001", "calleeNum": "+8617012345678",
    "fwdDstNum": "+8613900000002", "callInTime": "2026-01-01 00:00:00", "fwdStartTime": "2026-01-01 00:00:00",
    "fwdAnswerTime": "2026-01-01 00:00:03", "callEndTime": "2026-01-01 00:00:13", "fwdUnaswRsn": 0,
}  # fmt: skip
NOW_MS = 1_767_225_600_000


def calls(provider: Provider, *lines: object) -> list[ProviderCall | Refused | None]:
    return list(read_calls(provider, io.StringIO("\n".join(json.dumps(line) for line in lines))))


def test_records_of_both_providers_are_the_same_call() -> None:
    [ours] = calls("alibaba", [REPORT])
    assert ours == ProviderCall(
        1, "43612633712c", "8613900000002", "8613800000001", NOW_MS, "answered", 10.0, "16"
    )  # fmt: skip
    [fee] = calls("huawei", {"eventType": "fee", "feeLst": [FEE]})
    assert fee == ProviderCall(1, "s1", "8613800000001", "8613900000002", NOW_MS, "answered", 10.0, "0")


@pytest.mark.parametrize(
    ("provider", "change", "outcome"),
    [
        ("alibaba", {"start_time": "2026-01-01 08:00:13"}, "unanswered"),
        ("alibaba", {"call_type": 4, "unconnected_cause": 2}, "refused"),
        ("huawei", {"fwdAnswerTime": "", "fwdUnaswRsn": 19}, "unanswered"),
        ("huawei", {"fwdAnswerTime": "", "fwdStartTime": "", "ulFailReason": 7004}, "refused"),
    ],
)
def test_outcomes(provider: Provider, change: dict[str, Any], outcome: str) -> None:
    [call] = calls(provider, (REPORT if provider == "alibaba" else FEE) | change)
    assert isinstance(call, ProviderCall) and call.outcome == outcome


def test_text_messages_and_masked_numbers_are_no_calls() -> None:
    message, masked, good = calls("alibaba", REPORT | {"call_type": 2}, REPORT | {"peer_no": "139****0002"}, [REPORT])
    assert message is None
    assert isinstance(masked, Refused) and masked.field == "line 2: peer_no"
    assert isinstance(good, ProviderCall) and good.line == 3


@pytest.mark.parametrize("change", [{"call_id": None}, {"call_id": {"id": "7"}}, {"call_id": ""}])
def test_a_record_without_an_id_is_refused_and_the_next_one_is_read(change: dict[str, Any]) -> None:
    refused, good = calls("alibaba", REPORT | change, REPORT)
    assert isinstance(refused, Refused) and refused.field == "line 1: call_id"
    assert isinstance(good, ProviderCall)


def test_a_short_row_is_refused_and_the_next_one_is_read() -> None:
    *names, _ = heading = [*(name for name in REPORT if name != "call_id"), "call_id"]
    rows: list[list[Any]] = [heading, [REPORT[name] for name in names], [REPORT[name] for name in heading]]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    refused, good = read_calls("alibaba", io.StringIO(text))
    assert isinstance(refused, Refused) and refused.field == "line 2: call_id"
    assert isinstance(good, ProviderCall)


def test_a_time_before_the_first_year_in_utc_is_refused() -> None:
    [refused] = calls("alibaba", REPORT | {"call_time": "0001-01-01 00:00:00"})
    assert isinstance(refused, Refused) and refused.field == "line 1: time"
