"""The record of an open call, column by column."""

from __future__ import annotations

from relay.call.call import Call
from relay.model.call import Refusal, Route
from tests.call.support import FLOW, Parts, peer

A, B, X = "8613800000001", "8613900000002", "700100000010001"


def call(shared: Parts | None = None, *, tag: str = "a") -> Call:
    shared = shared or Parts()
    return Call(shared.calls, peer(), FLOW, caller=A, dialled=X, invite_key=("c", tag, 1), received_at=5)


def test_call_id_is_unique_and_32_hexadecimal_digits() -> None:
    shared = Parts()
    first, second = call(shared).call_id, call(shared).call_id
    assert first != second
    assert len(first) == 32
    assert int(first, 16)


def test_record_of_a_refusal_has_its_binding() -> None:
    made = call()
    made.refused(Refusal("expired", 403, 21, None, "b7", "AXB", "firm", "order", industrial_id="88.1/7"))
    record = made.record()
    assert (record.binding_id, record.business, record.industrial_id) == ("b7", "firm", "88.1/7")
    made.refused(Refusal("no_binding", 403, 21))
    assert made.record().binding_id == "b7"


def test_record_of_a_refusal_has_the_business_user_whose_hook_refused() -> None:
    made = call()
    made.refused(Refusal("verification_refused", 403, 21, business="firm", decided_by="hook"))
    record = made.record()
    assert (record.binding_id, record.business, record.decided_by) == (None, "firm", "hook")


def test_forwarded_call_has_no_binding() -> None:
    made = call()
    made.routed(Route("", "", "", None, B, A), 1.0)
    record = made.record()
    assert (record.binding_id, record.mode, record.business) == (None, None, None)


def test_each_value_is_in_its_own_field_of_the_record() -> None:
    """The record is made of a plain tuple, whose order is not type-checked."""
    made = call()
    strings = ("binding_id", "mode", "business", "order_id", "peer_out", "outcome", "ended_by", "end_reason")
    for name in (*strings, "callee_leg_call_id", "direction", "recording", "industrial_id", "decided_by"):
        setattr(made, name, name)
    times = ("received_at", "routed_at", "ringing_at", "answered_at", "ended_at")
    for value, name in enumerate((*times, "sip_status", "q850_cause")):
        setattr(made, name, value + 1)
    made.legacy = True
    made.qualification = 99
    fields = made.record()._asdict()
    for name in (*strings, "callee_leg_call_id", "direction", "recording", "industrial_id", "decided_by"):
        assert fields.pop(name) == name
    for value, name in enumerate((*times, "sip_status", "q850_cause")):
        assert fields.pop(name) == value + 1
    assert fields == {
        "call_id": made.call_id,
        "number_dialled": made.dialled,
        "number_shown": None,
        "caller": made.caller_number,
        "callee": None,
        "peer_in": made.caller_peer.name,
        "duration_ms": 1,
        "caller_leg_call_id": made.caller_leg_call_id,
        "legacy": True,
        **dict.fromkeys(
            f"{side}_{count}" for side in ("caller", "callee") for count in ("packets", "lost", "jitter_ms")
        ),
        "kind": "call",
        "text_bytes": None,
        "qualification": 99,
        "source": "udp:192.0.2.11:5060",
    }


def test_duration_is_never_negative() -> None:
    """The wall clock may be set back during a call."""
    made = call()
    made.answered_at, made.ended_at = 9000, 4000
    assert made.record().duration_ms == 0
    made.ended_at = 9500
    assert made.record().duration_ms == 500


def test_numbers_of_a_binding_are_hidden_and_those_of_a_forwarded_call_are_not() -> None:
    made = call()
    made.routed(Route("b1", "AXB", "firm", "order", B, X), 1.0)
    assert (made.hidden_caller, made.hidden_callee) == (A, B)
    made.routed(Route("", "", "", None, B, A), 1.0)
    assert (made.hidden_caller, made.hidden_callee) == ("", "")


def test_times_of_a_resumed_call_are_not_before_its_recorded_ones() -> None:
    made = call()
    made.answered_at = 9_000_000
    made.follow_clock(1.0)
    assert made.wall_ms(1.0) == 9_000_000
    assert made.wall_ms(2.5) == 9_001_500


def test_record_is_continued_after_a_restart() -> None:
    made, again = call(), call(tag="b")
    made.routed(Route("b1", "AXB", "firm", "order", B, X), 1.0)
    made.recording = "r"
    again.take_over(made.record())
    assert again.record() == made.record()
