"""Payload of events, and parties in it as each webhook may see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.events.payload import call_data, write_events
from relay.privacy.records import FIELDS
from relay.store.webhooks import Event, Webhook
from tests.support.stored import NOW_MS, A, B, X, ended_record, live_record

HOOK = Webhook("w1", "shop", "https://shop.example", "secret", ("call.ended",), "masked", None, 0, 0, NOW_MS)


def shown(data: dict[str, Any] | None, parties: str = "masked", kind: str = "call.ended") -> dict[str, Any]:
    event = Event(1, "c1.ended", kind, NOW_MS, 0, None, None, data)
    [written] = json.loads(write_events(HOOK._replace(parties=parties), [event]))["events"]
    assert isinstance(written, dict)
    return written


def test_a_record_is_written_with_its_times_in_utc() -> None:
    event = shown(call_data("ended", ended_record()))
    assert event == {
        "id": "c1.ended", "kind": "call.ended", "at": "2026-01-01T00:00:13.000Z", "business": "shop",
        "call_id": "c1", "binding_id": "b1", "mode": "AXB", "direction": None, "legacy": False, "order_id": "order-1",
        "number_dialled": X, "number_shown": X, "caller": "138****0001", "callee": "139****0002",
        "received_at": "2026-01-01T00:00:00.000Z", "routed_at": "2026-01-01T00:00:00.001Z",
        "ringing_at": "2026-01-01T00:00:00.200Z", "answered_at": "2026-01-01T00:00:03.000Z",
        "ended_at": "2026-01-01T00:00:13.000Z", "duration_ms": 10_000, "sip_status": 200, "q850_cause": 16,
        "outcome": "answered", "ended_by": "caller", "end_reason": "bye",
        "caller_packets": None, "caller_lost": None, "caller_jitter_ms": None,
        "callee_packets": None, "callee_lost": None, "callee_jitter_ms": None,
        "text_bytes": None, "recording": None, "qualification": None, "industrial_id": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("received", "2026-01-01T00:00:00.000Z"),
        ("ringing", "2026-01-01T00:00:00.200Z"),
        ("answered", "2026-01-01T00:00:03.000Z"),
    ],
)
def test_an_event_during_a_call_has_parties_and_time(kind: str, at: str) -> None:
    event = shown(call_data(kind, live_record()), kind=f"call.{kind}")
    fields = ["call_id", "binding_id", "mode", "direction", "order_id", "industrial_id", "number_dialled"]
    assert list(event) == ["id", "kind", "at", "business", *fields, "number_shown", "caller", "callee"]
    assert event["at"] == at


def test_an_event_without_data_is_not_altered() -> None:
    assert "altered" not in shown({}, kind="webhook.test")
    assert shown(None)["altered"] is True


@pytest.mark.parametrize(("parties", "caller"), [("none", None), ("masked", "138****0001"), ("clear", "8613800000001")])
def test_parties_are_shown_as_the_webhook_says(parties: str, caller: str | None) -> None:
    event = shown(call_data("ended", ended_record()), parties)
    assert event.get("caller") == caller
    assert ("caller" in event) is (caller is not None)
    assert event["number_dialled"] == X
    if parties != "clear":
        assert A[2:] not in json.dumps(event) and B[2:] not in json.dumps(event)


@pytest.mark.parametrize("parties", ["none", "masked"])
def test_a_dialled_real_number_is_masked(parties: str) -> None:
    assert shown(call_data("ended", ended_record(number_dialled=B)), parties)["number_dialled"] == "139****0002"


def test_an_unknown_party_stays_null() -> None:
    assert shown(call_data("refused", ended_record(callee=None)))["callee"] is None


def test_data_of_other_events_is_unchanged() -> None:
    event = shown({"number": X, "cools_until": "2026-01-02T00:00:00.000Z"}, kind="number.cooling")
    assert event == {
        "id": "c1.ended", "kind": "number.cooling", "at": "2026-01-01T00:00:00.000Z", "business": "shop",
        "number": X, "cools_until": "2026-01-02T00:00:00.000Z",
    }  # fmt: skip


def test_an_altered_event_has_altered_as_its_only_data() -> None:
    assert shown(None) == {
        "id": "c1.ended", "kind": "call.ended", "at": "2026-01-01T00:00:00.000Z", "business": "shop", "altered": True,
    }  # fmt: skip


def test_a_field_that_nothing_allows_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "device" not in shown({"device": A}, "clear")
    data = call_data("ended", ended_record())
    monkeypatch.delitem(FIELDS, "end_reason")
    assert "end_reason" in data and "end_reason" not in shown(data, "clear")
    assert "end_reason" not in call_data("ended", ended_record())
