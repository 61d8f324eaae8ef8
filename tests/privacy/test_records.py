"""What of a call record leaves the relay: each field has a row, and one without goes nowhere."""

from __future__ import annotations

import json

import pytest

from relay.model.call import CallRecord
from relay.privacy.records import FIELDS, ended_call, mask_text, mask_texts, report_fields
from tests.support.stored import A, B, ended_record


def test_each_field_of_a_record_has_a_row() -> None:
    assert FIELDS.keys() == set(CallRecord._fields)


def test_a_report_has_each_field_in_order() -> None:
    assert tuple(report_fields(ended_record(), reveal=False)) == CallRecord._fields


@pytest.mark.parametrize("reveal", [False, True])
def test_a_field_without_a_row_is_not_reported(monkeypatch: pytest.MonkeyPatch, reveal: bool) -> None:
    assert report_fields(ended_record(), reveal=reveal)["end_reason"] == "bye"
    monkeypatch.delitem(FIELDS, "end_reason")
    assert report_fields(ended_record(), reveal=reveal)["end_reason"] is None


def test_a_report_masks_real_numbers_and_leaves_out_what_may_hold_one() -> None:
    record = ended_record(number_dialled=B, number_shown=A, caller_leg_call_id=A, source=f"udp:{A}", peer_in="ours")
    shown = report_fields(record, reveal=False)
    assert [shown[name] for name in ("number_dialled", "number_shown", "caller", "callee")] == [
        *("139****0002", "138****0001", "138****0001", "139****0002"),
    ]
    assert shown["caller_leg_call_id"] is None and shown["source"] is None
    assert A[2:] not in json.dumps(shown) and B[2:] not in json.dumps(shown)


TEXTS = {"order_id": "parcel for 138-0000-0001", "industrial_id": "88.101.1/13800000001"}
MASKED_TEXTS = {"order_id": "parcel for 138****0001", "industrial_id": "88.101.1/138****0001"}


def test_numbers_in_texts_of_a_business_user_are_masked_for_operators() -> None:
    record = ended_record(**TEXTS)
    for shown in (
        report_fields(record, reveal=False),
        mask_texts(report_fields(record, reveal=False, as_written=True)),
    ):
        assert shown == shown | MASKED_TEXTS


@pytest.mark.parametrize("how", [{"for_operator": False}, {"as_written": True}])
def test_a_business_users_texts_return_to_it_as_written(how: dict[str, bool]) -> None:
    shown = report_fields(ended_record(**TEXTS), reveal=False, **how)
    assert shown == shown | TEXTS


@pytest.mark.parametrize("order_id", ["SF1234567890", "20260131000017", "订单2026-01-31/17", None])
def test_orders_without_a_phone_number_stay_whole(order_id: str | None) -> None:
    assert report_fields(ended_record(order_id=order_id), reveal=False)["order_id"] == order_id


def test_a_revealed_report_is_the_record() -> None:
    record = ended_record(source="udp:192.0.2.7:5060")
    assert report_fields(record, reveal=True) == record._asdict()


@pytest.mark.parametrize("reveal", [False, True])
@pytest.mark.parametrize("peer_in", ["ours", ""])
def test_a_business_user_never_sees_an_address_of_a_phone(reveal: bool, peer_in: str) -> None:
    record = ended_record(source="udp:192.0.2.7:5060", caller_leg_call_id="a84b4c@192.0.2.7", peer_in=peer_in)
    shown = report_fields(record, reveal=reveal, for_operator=False)
    assert (shown["source"], shown["caller_leg_call_id"]) == (None, None)


def test_an_operator_sees_the_source_of_an_unknown_caller() -> None:
    assert report_fields(ended_record(source="udp:192.0.2.7:5060", peer_in=""), reveal=False)["source"] is not None


def test_the_log_of_an_ended_call_masks_numbers_and_omits_the_legs() -> None:
    forwarded = {"number_dialled": B, "number_shown": A}
    logged = ended_call(ended_record(**forwarded, caller_leg_call_id=A, callee_leg_call_id=B, source=f"udp:{A}"))
    assert [logged[name] for name in ("number_dialled", "number_shown", "caller", "callee")] == [
        *("139****0002", "138****0001", "138****0001", "139****0002"),
    ]
    assert A[2:] not in json.dumps(logged) and B[2:] not in json.dumps(logged)
    assert (logged["kind"], logged["outcome"]) == ("call", "answered")


def test_the_log_of_a_call_without_a_callee_has_none() -> None:
    assert ended_call(ended_record(callee=None))["callee"] is None


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Li Lei, 138-0000 0001", "Li Lei, 138****0001"),
        ("+86 (138) 0000-0001 or 139 0000 0002.", "138****0001 or 139****0002."),
        ("１３８００００００００１", "138****0001"),
        ("0086 138\u00a00000\u20110001", "138****0001"),
        ("Li Lei, 138/0000/0001", "Li Lei, 138****0001"),
        ("Li Lei, 138·0000·0001", "Li Lei, 138****0001"),
        ("Li Lei, 138_0000_0001", "Li Lei, 138****0001"),
        ("李雷 一三八〇〇〇〇〇〇〇一", "李雷 138****0001"),
        ("Li Lei, 6234 5678", "Li Lei, 62****78"),
        ("Room 12, floor 3", "Room 12, floor 3"),
    ],
)
def test_numbers_with_separators_or_other_digits_are_masked(text: str, masked: str) -> None:
    assert mask_text(text) == masked
