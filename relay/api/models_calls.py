"""Call records as shown, and what is looked for among them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from relay.api.models import Asked, Masked, Moment, Name, Number700, Party, Shown, Text64, Text128, Time
from relay.reports.record_form import CallState


class CallSearch(Asked):
    """What calls are looked for. Parties stand here, since an address would show them to proxies and logs."""

    number: Number700 | None = None
    party: Party | None = None
    order_id: Text128 | None = None
    business: Name | None = Field(None, description="for operator keys")
    outcome: Text64 | None = None
    since: Time | None = Field(None, description="received at or after")
    until: Time | None = Field(None, description="received before")


class Call(Shown):
    """A call record: one attempt to call, or to send a text message. null where it did not happen."""

    call_id: str
    binding_id: str | None
    mode: str | None
    business: str | None
    order_id: str | None
    number_dialled: Masked = Field(description="masked where it is no 700 number")
    number_shown: Masked | None
    caller: Masked
    callee: Masked | None
    peer_in: str
    peer_out: str | None
    received_at: Moment
    routed_at: Moment | None
    ringing_at: Moment | None
    answered_at: Moment | None
    ended_at: Moment | None
    duration_ms: int | None = Field(description="from answer to end")
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None = Field(description="null while the call is up")
    ended_by: Literal["caller", "callee", "relay"] | None
    end_reason: str | None
    caller_leg_call_id: str | None = Field(description="null unless revealed: a phone may name its number there")
    callee_leg_call_id: str | None
    direction: Literal["a_to_b", "b_to_a"] | None
    legacy: bool
    caller_packets: int | None = Field(description="RTP from the caller, where media go through rtpengine")
    caller_lost: int | None = Field(description="packets of these, as the callee's side has reported; null: it has not")
    caller_jitter_ms: int | None = Field(description="the mean of the same reports")
    callee_packets: int | None = Field(description="RTP from the callee")
    callee_lost: int | None
    callee_jitter_ms: int | None
    kind: Literal["call", "message"]
    text_bytes: int | None = Field(description="of a message: how long its text was; the text is kept nowhere")
    recording: str | None = Field(description="of a call that was recorded: its id")
    qualification: int | None = Field(
        description="version of the business user's approval in force; its history has it"
    )
    industrial_id: str | None = Field(description="of its binding")
    source: str | None = Field(
        description='for operator keys: where it came from, as "udp:192.0.2.7:5060"; unless revealed only a stranger\'s'
    )


class OneCall(Call):
    """A call record, with what was recorded of it."""

    state: CallState
    recording_ms: int | None = Field(description="from the first packet to the last; null until it is taken over")
    recording_sha256: str | None = Field(description="of what GET …/recording answers")


class Recording(Shown):
    """What was recorded of a call."""

    call_id: str
    business: str
    taken_at: Moment = Field(description="when it was taken over from rtpengine, and sealed")
    length_ms: int = Field(description="from the first packet to the last")
    size: int = Field(description="bytes of what GET /v1/calls/{call_id}/recording answers")
    sha256: str = Field(description="of the same")
    purged_at: Moment | None = Field(description="when it was deleted; null: it is kept")


class HungUp(Shown):
    """A call that is being hung up."""

    call_id: str
    status: Literal["hanging_up"] = "hanging_up"


class LiveCalls(Shown):
    """Calls that are up."""

    items: list[Call]
    total: int = Field(description="how many there are, also beyond the limit")
