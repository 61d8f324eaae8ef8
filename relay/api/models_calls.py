"""Request and response models of call records and recordings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from relay.api.models import Asked, Masked, Moment, Name, Number700, Party, Shown, Text64, Text128, Time
from relay.reports.record_form import CallState


class CallSearch(Asked):
    """Search criteria. They are a body, because a URL would expose parties to proxies and logs."""

    number: Number700 | None = None
    party: Party | None = None
    order_id: Text128 | None = None
    business: Name | None = Field(None, description="for operator keys")
    outcome: Text64 | None = None
    since: Time | None = Field(None, description="received at or after")
    until: Time | None = Field(None, description="received before")


class Call(Shown):
    """A call record: one attempt to call or to send a text message. Steps that were not reached are null."""

    call_id: str
    binding_id: str | None
    mode: str | None
    business: str | None
    order_id: str | None
    number_dialled: Masked = Field(description="masked unless it is a 700 number")
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
    duration_ms: int | None = Field(description="milliseconds from answer to end")
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None = Field(description="null while the call is up")
    ended_by: Literal["caller", "callee", "relay"] | None
    end_reason: str | None
    caller_leg_call_id: str | None = Field(description="null unless revealed: it may contain the caller's number")
    callee_leg_call_id: str | None
    direction: Literal["a_to_b", "b_to_a"] | None
    legacy: bool
    caller_packets: int | None = Field(description="RTP packets from the caller; null unless rtpengine relays media")
    caller_lost: int | None = Field(description="of these, reported lost by the callee's side; null: no report")
    caller_jitter_ms: int | None = Field(description="mean jitter in the same reports")
    callee_packets: int | None = Field(description="RTP packets from the callee")
    callee_lost: int | None
    callee_jitter_ms: int | None
    kind: Literal["call", "message"]
    text_bytes: int | None = Field(description="length of a message's text; the text itself is not stored")
    recording: str | None = Field(description="id of the recording; null if the call was not recorded")
    qualification: int | None = Field(
        description="version of the business user's approval in force at the call; see its history"
    )
    industrial_id: str | None = Field(description="identifier of the binding")
    source: str | None = Field(
        description='for operator keys: transport address of origin, such as "udp:192.0.2.7:5060"; '
        "unless revealed only for unknown sources"
    )


class OneCall(Call):
    """A call record with its recording."""

    state: CallState
    recording_ms: int | None = Field(description="from the first packet to the last; null until it is stored")
    recording_sha256: str | None = Field(description="hash of the body of GET …/recording")


class Recording(Shown):
    """The recording of a call."""

    call_id: str
    business: str
    taken_at: Moment = Field(description="when it was fetched from rtpengine and sealed")
    length_ms: int = Field(description="from the first packet to the last")
    size: int = Field(description="bytes of the body of GET /v1/calls/{call_id}/recording")
    sha256: str = Field(description="hash of the same body")
    purged_at: Moment | None = Field(description="when it was deleted; null while it is kept")


class HungUp(Shown):
    """A call that is being hung up."""

    call_id: str
    status: Literal["hanging_up"] = "hanging_up"


class LiveCalls(Shown):
    """Live calls."""

    items: list[Call]
    total: int = Field(description="number of live calls, regardless of the limit")
