"""The call detail record of one call or text message (DESIGN 5). Fields are in output order."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["call", "message"]


class CallRecord(NamedTuple):
    """One attempt. Times are Unix milliseconds, None if it did not happen; numbers are E.164 without "+"."""

    call_id: str  # our own, 32 hexadecimal digits
    binding_id: str | None
    mode: str | None
    business: str | None
    order_id: str | None
    number_dialled: str
    number_shown: str | None
    caller: str
    callee: str | None
    peer_in: str
    peer_out: str | None
    received_at: int
    routed_at: int | None
    ringing_at: int | None
    answered_at: int | None
    ended_at: int | None
    duration_ms: int | None  # from answer to end
    sip_status: int | None  # final response to the caller
    q850_cause: int | None
    outcome: str | None  # None during the call
    ended_by: str | None  # caller, callee, relay
    end_reason: str | None
    caller_leg_call_id: str
    callee_leg_call_id: str | None
    direction: str | None = None  # a_to_b or b_to_a, by the binding's parties
    legacy: bool = False  # the number dialled is an old middle number
    # RTP packets received from each side by rtpengine, and their loss and jitter as reported by RTCP.
    caller_packets: int | None = None
    caller_lost: int | None = None  # packets
    caller_jitter_ms: int | None = None
    callee_packets: int | None = None
    callee_lost: int | None = None
    callee_jitter_ms: int | None = None
    kind: Kind = "call"
    text_bytes: int | None = None  # length of a message's text, which is not stored
    recording: str | None = None  # reference of the recording: the call id; None if not recorded
    qualification: int | None = None  # version of the business user's approval in force at the look-up
    industrial_id: str | None = None  # of the binding: 工业互联网标识
    source: str | None = None  # source of the INVITE or MESSAGE, as "udp:192.0.2.7:5060"; visible to operators only
