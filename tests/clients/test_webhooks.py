"""Events as the relay signs them, read by the client."""

from __future__ import annotations

import json

import pytest
from relay700_client import BadSignature, read_events
from relay700_client.models import AlteredEvent, NumberCoolingEvent, OtherEvent

from relay.net.hook_client import signature_header

SECRET, NOW_S = "whsec_abc", 1_800_000_000
EVENT = {"id": "e1", "at": "2026-01-31T08:00:00.000Z", "business_id": "acme"}
COOLING = EVENT | {
    "kind": "number.cooling",
    "number": "700100000010001",
    "binding_id": "b1",
    "cools_until": "2026-02-01T08:00:00.000Z",
    "of_a_newer_relay": 1,
}


def sent(*events: dict[str, object]) -> bytes:
    return json.dumps({"events": events}).encode()


def test_events_are_typed_also_unknown_and_altered_ones() -> None:
    body = sent(COOLING, EVENT | {"kind": "number.sold"}, EVENT | {"kind": "call.ended", "altered": True})
    cooling, other, altered = read_events(body, signature_header(SECRET, NOW_S, body), SECRET, now_s=NOW_S + 299)
    assert isinstance(cooling, NumberCoolingEvent)
    assert (cooling.number, cooling.cools_until.day) == ("700100000010001", 1)
    assert isinstance(other, OtherEvent) and other.kind == "number.sold"
    assert isinstance(altered, AlteredEvent) and altered.kind == "call.ended"


@pytest.mark.parametrize("late_s", [-301, 301])
def test_old_request_is_refused(late_s: int) -> None:
    body = sent(COOLING)
    with pytest.raises(BadSignature, match="clock"):
        read_events(body, signature_header(SECRET, NOW_S, body), SECRET, now_s=NOW_S + late_s)


@pytest.mark.parametrize(
    "header", ["", "t=1800000000", "v1=", "t=x,v1=é", signature_header("whsec_other", NOW_S, sent(COOLING))]
)
def test_other_signature_is_refused(header: str) -> None:
    with pytest.raises(BadSignature):
        read_events(sent(COOLING), header, SECRET, now_s=NOW_S)


def test_altered_body_is_refused() -> None:
    header = signature_header(SECRET, NOW_S, sent(COOLING))
    with pytest.raises(BadSignature):
        read_events(sent(COOLING | {"number": "700100000010002"}), header, SECRET, now_s=NOW_S)
