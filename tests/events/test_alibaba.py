"""Pushes in Alibaba's form: their records, and their delivery to a real receiver that answers as one of theirs."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.compat.providers import ProviderCall, read_calls
from relay.errors import Refused
from relay.events import delivery as module
from relay.events import webhooks as service
from relay.events.alibaba import UNCONNECTED, is_accepted
from relay.events.webhooks import Kind, call_data, make, write_events
from relay.model.outcomes import REFUSALS
from relay.store.webhooks import OutboxEvent, Webhook, queue_event
from relay.store.writer import GroupWriter
from tests.events.conftest import Shop, delivering
from tests.events.test_follower import follow
from tests.support.alibaba import Receiver, receiving
from tests.support.stored import NOW_MS, A, B, X, binding, ended_record, live_record, put

HOOK = Webhook("w1", "shop", "https://s.example", "s", ("call.ended",), "clear", None, 0, 0, NOW_MS, format="alibaba")
BINDING = {"user_data": "parcel-1", "pool_id": "hangzhou"}


def pushed(kind: str, data: dict[str, Any], parties: str = "clear") -> dict[str, Any]:
    event = OutboxEvent(7, "c1.x", kind, NOW_MS, 0, None, None, data)
    [record] = json.loads(write_events(HOOK._replace(parties=parties), [event]))
    assert isinstance(record, dict)
    return record


def test_a_call_record_is_a_secret_report() -> None:
    assert pushed("call.ended", call_data("ended", ended_record(direction="a_to_b")) | BINDING) == {
        "id": 457101671356823, "call_id": "c1", "pool_key": "hangzhou", "partner_key": "hangzhou", "sub_id": 0xB1,
        "out_id": "parcel-1", "phone_no": "13800000001", "secret_no": X, "peer_no": "13900000002",
        "called_display_no": X, "call_type": 0, "call_time": "2026-01-01 08:00:00",
        "call_out_time": "2026-01-01 08:00:00", "ring_time": "2026-01-01 08:00:00",
        "free_ring_time": "2026-01-01 08:00:00", "start_time": "2026-01-01 08:00:03",
        "release_time": "2026-01-01 08:00:13", "release_dir": 1, "release_cause": 16, "unconnected_cause": 0,
        "control_msg": "OK", "control_type": "CONTINUE",
    }  # fmt: skip


def test_the_id_of_a_record_is_that_of_its_event_and_not_a_place_in_the_queue() -> None:
    def ids(*places: int) -> list[int]:
        data = call_data("ended", ended_record())
        events = [
            OutboxEvent(seq, f"c{place}.x", "call.ended", NOW_MS, 0, None, None, data)
            for place, seq in enumerate(places)
        ]
        return [record["id"] for record in json.loads(write_events(HOOK, events))]

    assert ids(1, 2) == ids(1, 9)
    assert len(set(ids(*range(100)))) == 100
    assert max(ids(*range(100))) < 1 << 53


def test_a_call_from_b_has_a_as_phone_no() -> None:
    record = pushed("call.ended", call_data("ended", ended_record(direction="b_to_a", ended_by="callee")))
    assert (record["phone_no"], record["peer_no"]) == ("13900000002", "13800000001")
    assert (record["call_type"], record["release_dir"]) == (1, 2)


def test_a_member_of_a_group_is_peer_no() -> None:
    record = pushed("call.ended", call_data("ended", ended_record(mode="GXB", direction="a_to_b")))
    assert (record["phone_no"], record["peer_no"], record["call_type"]) == ("13900000002", "13800000001", 1)


def test_an_unanswered_call_starts_when_it_is_released() -> None:
    ended = ended_record(answered_at=None, ringing_at=None, outcome="no_answer", q850_cause=19, ended_by="relay")
    record = pushed("call.ended", call_data("ended", ended))
    assert record["start_time"] == record["release_time"] == "2026-01-01 08:00:13"
    assert record["ring_time"] == record["call_out_time"]
    assert (record["release_cause"], record["release_dir"], record["unconnected_cause"]) == (19, 0, 0)


def test_an_answered_call_lasts_a_second_at_the_least() -> None:
    ended = ended_record(ended_at=NOW_MS + 3_400, duration_ms=400)
    record = pushed("call.ended", call_data("ended", ended))
    assert (record["start_time"], record["release_time"]) == ("2026-01-01 08:00:03", "2026-01-01 08:00:04")


@pytest.mark.parametrize(
    ("outcome", "cause", "message"),
    [
        ("caller_blacklisted", 1, None),
        ("no_binding", 2, "NO_SUBS_EXIST"),
        ("expired", 2, "NO_SUBS_EXIST"),
        ("outside_hours", 3, None),
        ("store_failed", 4, None),
    ],
)
def test_a_refused_call_is_an_intercepted_one(outcome: str, cause: int, message: str | None) -> None:
    refused = ended_record(outcome=outcome, routed_at=None, callee=None, number_shown=None, answered_at=None)
    record = pushed("call.refused", call_data("refused", refused))
    assert (record["call_type"], record["unconnected_cause"], record.get("control_msg")) == (4, cause, message)
    assert "peer_no" not in record and "control_type" not in record


@pytest.mark.parametrize(("mode", "direction"), [("GXB", None), ("GXYB", None), ("AXB", "b_to_a"), ("GXB", "b_to_a")])
def test_phone_no_of_a_refused_call_is_its_caller(mode: str, direction: str | None) -> None:
    """As a comparison of call records reads it."""
    refused = {"outcome": "expired", "routed_at": None, "callee": None, "number_shown": None, "answered_at": None}
    record = pushed("call.refused", call_data("refused", ended_record(mode=mode, direction=direction, **refused)))
    assert (record["phone_no"], record.get("peer_no"), record["call_type"]) == ("13800000001", None, 4)
    [call] = read_calls("alibaba", io.StringIO(json.dumps([record])))
    assert isinstance(call, ProviderCall)
    assert (call.caller, call.outcome) == (A, "refused")


def test_causes_are_of_outcomes_that_exist() -> None:
    assert set(UNCONNECTED) <= REFUSALS


@pytest.mark.parametrize(("direction", "call_type"), [("a_to_b", 2), ("b_to_a", 3)])
def test_a_text_message_has_the_time_of_its_receipt(direction: str, call_type: int) -> None:
    record = pushed("message.delivered", call_data("delivered", ended_record(kind="message", direction=direction)))
    assert (record["call_type"], record["release_cause"]) == (call_type, 9999)
    assert {record[name] for name in record if name.endswith("_time")} == {"2026-01-01 08:00:00"}


def test_a_refused_text_message_is_one_with_a_cause() -> None:
    text = ended_record(kind="message", routed_at=None, callee=None, outcome="number_in_text", q850_cause=21)
    record = pushed("message.refused", call_data("refused", text))
    assert (record["call_type"], record["release_cause"], record["unconnected_cause"]) == (5, 9999, 3)
    assert {record[name] for name in record if name.endswith("_time")} == {"2026-01-01 08:00:00"}


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("received", {"call_time": "2026-01-01 08:00:00"}),
        ("ringing", {"call_time": "2026-01-01 08:00:00", "ring_time": "2026-01-01 08:00:00"}),
        (
            "answered",
            {
                "call_time": "2026-01-01 08:00:00",
                "ring_time": "2026-01-01 08:00:00",
                "start_time": "2026-01-01 08:00:03",
            },
        ),
    ],
)
def test_events_during_a_call_are_its_status_messages(kind: str, times: dict[str, str]) -> None:
    record = pushed(f"call.{kind}", call_data(kind, live_record()))
    assert {name: value for name, value in record.items() if name.endswith("_time")} == times
    assert "release_dir" not in record


def test_a_recording_that_is_ready_is_told_with_the_time_of_its_call() -> None:
    data = {"call_id": "c1", "binding_id": "b1", "order_id": "o", "received_at": NOW_MS, "recording_ms": 7} | BINDING
    assert pushed("recording.ready", data) == {
        "call_id": "c1", "pool_key": "hangzhou", "sub_id": 0xB1, "out_id": "parcel-1", "call_time": NOW_MS,
    }  # fmt: skip


@pytest.mark.parametrize("parties", ["none", "masked"])
def test_real_numbers_are_for_a_webhook_in_clear_alone(parties: str) -> None:
    ended = ended_record(number_dialled=B)
    written = json.dumps(pushed("call.ended", call_data("ended", ended), parties))
    assert A[2:] not in written and B[2:] not in written
    assert ("138****0001" in written) is (parties == "masked")


# -- making such a webhook


def test_a_webhook_of_this_form_sends_one_message(shop: Shop) -> None:
    def kinds(*of: Kind) -> tuple[str, ...]:
        return shop.run(lambda unit: make(unit, "shop", "https://s.example/r", of or None, form="alibaba"))[0].kinds

    assert kinds()[:2] == ("call.ended", "call.refused")
    assert kinds("call.ringing") == ("call.ringing",)
    for mixed in (("call.ringing", "call.ended"), ("binding.expired",)):
        with pytest.raises(Refused, match="of one message"):
            kinds(*mixed)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="relay700, alibaba"):
        shop.run(lambda unit: make(unit, "shop", "https://s.example/r", form="huawei"))


# -- delivery


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    async with receiving() as made:
        yield made


def hook(shop: Shop, url: str, parties: str = "clear") -> Webhook:
    return shop.run(lambda unit: make(unit, "shop", url, None, parties, "alibaba"))[0]


async def test_records_arrive_as_an_array_until_the_receiver_has_accepted_them(
    shop: Shop, writer: GroupWriter, receiver: Receiver
) -> None:
    made = hook(shop, receiver.url)
    for call_id in ("c1", "c2", "c3"):
        data = call_data("ended", ended_record(call_id, business="shop"))
        shop.run(lambda unit, data=data: queue_event(unit, "shop", "call.ended", f"{data['call_id']}.ended", data))  # type: ignore[misc]
    receiver.answers[:0] = [(404, ""), (410, ""), (200, "ok"), (200, '{"msg": "成功"}'), (204, "")]
    async with delivering(shop, writer, batch=2) as deliverer:
        await receiver.until(lambda: len(receiver.arrays) == 7)
    assert [[one["call_id"] for one in array] for array in receiver.arrays] == [["c1", "c2"]] * 6 + [["c3"]]
    assert deliverer.statistics()["deliveries_failed"] == 5
    assert shop.waiting(made) == []


async def test_records_of_calls_come_through_the_follower_with_pool_and_user_data(
    shop: Shop, writer: GroupWriter, receiver: Receiver
) -> None:
    hook(shop, receiver.url, "masked")
    put(shop.path, shop.sealer, binding(business="shop", user_data="parcel-1"))
    await shop.record(ended_record("c9", business="shop"))
    await follow(shop, writer)
    async with delivering(shop, writer):
        await receiver.until(lambda: len(receiver.arrays) == 1)
    [[record]] = receiver.arrays
    assert (record["call_id"], record["phone_no"]) == ("c9", "138****0001")
    assert (record["pool_key"], record["out_id"]) == ("default", "parcel-1")


async def test_a_test_event_is_an_empty_array(shop: Shop, writer: GroupWriter, receiver: Receiver) -> None:
    made = hook(shop, receiver.url)
    shop.run(lambda unit: service.test(unit, made.id))
    async with delivering(shop, writer):
        await receiver.until(lambda: receiver.arrays == [[]])


async def test_an_altered_record_is_a_dead_letter(shop: Shop, writer: GroupWriter, receiver: Receiver) -> None:
    made = hook(shop, receiver.url)
    shop.run(lambda unit: queue_event(unit, "shop", "call.ended", "c1.ended", {}))
    shop.run(lambda unit: unit.connection.execute("UPDATE outbox SET sealed = x'00'"))
    shop.run(lambda unit: queue_event(unit, "shop", "call.ended", "c2.ended", call_data("ended", ended_record("c2"))))
    async with delivering(shop, writer):
        await receiver.until(lambda: len(receiver.arrays) == 1)
    assert [one["call_id"] for one in receiver.arrays[0]] == ["c2"]
    [dead] = shop.dead(made)
    assert dead.last_error is not None and "altered" in dead.last_error


@pytest.mark.parametrize(
    ("status", "body", "good"),
    [
        (200, b'{"code": 0, "msg": "\xe6\x88\x90\xe5\x8a\x9f"}', True),
        (200, b'{"code": 500}', True),
        (200, b'{"code": "0"}', False),
        (200, b'{"code": true}', False),
        (200, b"[]", False),
        (200, b'{"code": "\xff"}', False),
        (200, b"[" * 4096, False),
        (200, b"", False),
        (202, b'{"code": 0}', False),
    ],
)
def test_a_code_that_is_a_number_accepts(status: int, body: bytes, good: bool) -> None:
    assert is_accepted(status, body) is good
