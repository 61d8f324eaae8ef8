"""What the API answers and is sent: made by generate.py from /openapi.json."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal, NotRequired, TypedDict

import msgspec


class Model(msgspec.Struct):
    """Base of all. Times are aware datetimes."""


class Binding(Model):
    """A binding."""

    id: str
    mode: str
    business_id: str
    pool_id: str
    x: str
    y: str | None
    a: str | None
    b: str | None
    group_id: str | None
    order_id: str | None
    consent: str | None
    user_data: str | None
    direction: str
    max_call_s: int | None
    ring_timeout_s: int | None
    white_only: bool
    hours: str | None
    state: str
    created_at: datetime
    created_by: str
    changed_at: datetime | None
    changed_by: str | None
    expires_at: datetime | None
    ended_at: datetime | None
    ended_by: str | None
    record: bool
    industrial_id: str | None
    idle_ttl_s: int | None
    max_expires_at: datetime | None
    version: int
    warning: str | None = None


class BindingPage(Model):
    """BindingPage"""

    items: list[Binding]
    next: str | None = None


class BindingHistory(Model):
    """The life of a binding, oldest event first."""

    items: list[BindingStep]


class Batch(Model):
    """The results of a batch, in the order of the request."""

    items: list[BatchItem]


class HandOver(Model):
    """The results of a hand-over."""

    items: list[HandOverItem]
    more: bool = False
    next: str | None = None


class Group(Model):
    """A group of parties: the G of GXB and GXYB."""

    id: str
    business_id: str
    name: str
    size: int
    version: int
    created_at: datetime


class GroupPage(Model):
    """GroupPage"""

    items: list[Group]
    next: str | None = None


class MemberPage(Model):
    """MemberPage"""

    items: list[Member]
    next: str | None = None


class Membership(Model):
    """A group after a change of members."""

    group: Group
    changed: int


class Filing(Model):
    """The filing of an A number by a business user."""

    business_id: str
    number: str
    state: str
    reference: str
    holder: str | None
    document_type: str | None
    document: str | None
    photo: str | None
    code: str | None
    reason: str | None
    filed_at: datetime
    filed_by: str
    answered_at: datetime | None
    answered_by: str | None
    expires_at: datetime | None
    withdrawn_at: datetime | None
    withdrawn_by: str | None


class FilingPage(Model):
    """FilingPage"""

    items: list[Filing]
    next: str | None = None


class FilingVersionPage(Model):
    """FilingVersionPage"""

    items: list[FilingVersion]
    next: str | None = None


class FilingAnswerResults(Model):
    """The results, in the order of the request."""

    items: list[FilingAnswerResult]


class Arm(Model):
    """Something that is armed."""

    id: str
    kind: str
    value: str
    armed_at: datetime
    armed_by: str
    expires_at: datetime


class ArmPage(Model):
    """ArmPage"""

    items: list[Arm]
    next: str | None = None


class EntryPage(Model):
    """EntryPage"""

    items: list[Entry]
    next: str | None = None


class Entry(Model):
    """A caller on a list."""

    number: str
    kind: str
    added_at: datetime
    added_by: str


class EntryRemoved(Model):
    """A caller removed from a list."""

    number: str


class PrefixLoaded(Model):
    """A prefix after loading."""

    prefix: str
    operator: str
    platform: str
    peer: str
    state: str
    cool_down_s: int | None
    created_at: datetime
    loaded: int


class PrefixPage(Model):
    """PrefixPage"""

    items: list[Prefix]
    next: str | None = None


class Prefix(Model):
    """A prefix."""

    prefix: str
    operator: str
    platform: str
    peer: str
    state: str
    cool_down_s: int | None
    created_at: datetime


class NumberPage(Model):
    """NumberPage"""

    items: list[Number]
    next: str | None = None


class Number(Model):
    """A 700 number."""

    number: str
    prefix: str
    pool_id: str
    state: str
    locked_by: list[str]
    bindings: int | None
    exclusive: bool
    cools_until: datetime | None
    legacy: bool


class Moved(Model):
    """The count of moved numbers."""

    moved: int


class RestEnded(Model):
    """The count of numbers whose rest was ended."""

    ended: int


class Pool(Model):
    """A pool of numbers."""

    id: str
    business_id: str | None
    area: str
    max_bindings: int
    warn_percent: int
    created_at: datetime


class PoolPage(Model):
    """PoolPage"""

    items: list[Pool]
    next: str | None = None


class Usage(Model):
    """The usage of a pool, in numbers."""

    pool_id: str
    total: int
    free: int
    bound: int
    cooling: int
    locked: int
    bindings: int
    percent: int
    warning: bool


class CallPage(Model):
    """CallPage"""

    items: list[Call]
    next: str | None = None


class LiveCalls(Model):
    """Live calls."""

    items: list[Call]
    total: int


class HangUp(Model):
    """A call that is being hung up."""

    call_id: str
    status: str = 'hanging_up'


class CallDetail(Model):
    """A call record with its recording."""

    call_id: str
    binding_id: str | None
    mode: str | None
    business_id: str | None
    order_id: str | None
    number_dialled: str
    number_shown: str | None
    caller: str
    callee: str | None
    peer_in: str
    peer_out: str | None
    received_at: datetime
    routed_at: datetime | None
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None
    ended_by: str | None
    end_reason: str | None
    caller_leg_call_id: str | None
    callee_leg_call_id: str | None
    direction: str | None
    legacy: bool
    caller_packets: int | None
    caller_lost: int | None
    caller_jitter_ms: int | None
    callee_packets: int | None
    callee_lost: int | None
    callee_jitter_ms: int | None
    kind: str
    text_bytes: int | None
    recording: str | None
    qualification: int | None
    industrial_id: str | None
    source: str | None
    decided_by: str | None
    state: str
    recording_ms: int | None
    recording_sha256: str | None
    recording_purged_at: datetime | None


class RecordingPage(Model):
    """RecordingPage"""

    items: list[Recording]
    next: str | None = None


class Recording(Model):
    """The recording of a call."""

    call_id: str
    business_id: str
    taken_at: datetime
    length_ms: int
    size: int
    sha256: str
    purged_at: datetime | None


class Link(Model):
    """A link to a recording's WAV file. Whoever has it needs no key until it ends."""

    url: str
    expires_at: datetime


class Explain(Model):
    """All checks of a call in their order; the first that fails decides the outcome."""

    number_dialled: str
    caller: str
    peer: str | None
    at: datetime
    source: str
    checks: list[Check]
    outcome: str
    sip_status: int | None
    q850_cause: int | None
    retry_after_s: int | None
    binding_id: str | None
    mode: str | None
    business_id: str | None
    callee: str | None
    callee_sees: str | None
    caller_sees: str | None
    notes: list[str]
    targets: list[TargetChoice]


class Ladder(Model):
    """The SIP messages of a call on both sides, and what did not cross."""

    call_id: str
    masked: bool
    side: str | None
    started_at: datetime | None
    lost: int
    lanes: list[Lane]
    messages: list[LadderMessage]
    marks: list[Mark]


class Business(Model):
    """A business user."""

    id: str
    state: str
    name: str
    licence: str
    application: str
    scenario: str
    contact: str
    scheme: str
    modes: list[str]
    max_bindings: int | str | None
    max_calls: int | str | None
    max_cps: int | str | None
    max_binds_per_s: int | str | None
    max_binds_per_day: int | str | None
    live_bindings: int
    white_only: bool
    hours: str | None
    live_events: bool
    language: str | None
    version: int
    created_at: datetime
    updated_at: datetime
    qualification: int


class BusinessPage(Model):
    """BusinessPage"""

    items: list[Business]
    next: str | None = None


class BusinessHistory(Model):
    """All changes of state, qualification and contact, oldest first."""

    items: list[BusinessEvent]


class KeyCreated(Model):
    """A new key, with its secret. The secret is shown only once."""

    id: str
    business_id: str | None
    scopes: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    secret: str | None
    access_key_secret: str | None


class KeyPage(Model):
    """KeyPage"""

    items: list[Key]
    next: str | None = None


class Key(Model):
    """A key, without its secret."""

    id: str
    business_id: str | None
    scopes: list[str]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None


class WebhookCreated(Model):
    """A new webhook, with its secret. The secret is shown only once."""

    id: str
    business_id: str
    url: str
    kinds: list[str]
    parties: str
    format: str
    enabled: bool
    failures: int
    next_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    created_at: datetime
    secret: str | None


class WebhookPage(Model):
    """WebhookPage"""

    items: list[Webhook]
    next: str | None = None


class Webhook(Model):
    """A receiver of the events of a business user."""

    id: str
    business_id: str
    url: str
    kinds: list[str]
    parties: str
    format: str
    enabled: bool
    failures: int
    next_at: datetime | None
    last_error: str | None
    last_error_at: datetime | None
    created_at: datetime


class DeadEventPage(Model):
    """DeadEventPage"""

    items: list[DeadEvent]
    next: str | None = None


class Resent(Model):
    """The count of events queued again."""

    resent: int


class Tested(Model):
    """The queued test event."""

    event_id: str


class Hook(Model):
    """The endpoint that decides about the calls of a business user."""

    business_id: str
    url: str
    parties: str
    unknown_callers: bool
    enabled: bool
    created_at: datetime
    changed_at: datetime


class HookSet(Model):
    """The hook, with its secret if it is new. The secret is shown only once."""

    business_id: str
    url: str
    parties: str
    unknown_callers: bool
    enabled: bool
    created_at: datetime
    changed_at: datetime
    secret: str | None


class Trace(Model):
    """The bindings in force and the calls up in that time, with real numbers in clear."""

    number: str
    at: datetime
    until: datetime
    bindings: list[Binding]
    members: dict[str, list[str]]
    calls: list[Call]


class Daily(Model):
    """The report of one day."""

    items: list[DailyLine]


class ComplaintsRequest(Model):
    """The number of complaints about a business user on one prefix and day."""

    day: date
    business_id: str
    prefix: str
    count: int


class ComplaintRates(Model):
    """The rates of business users with complaints, of each over all prefixes first."""

    items: list[ComplaintRate]


class AuditLinePage(Model):
    """AuditLinePage"""

    items: list[AuditLine]
    next: str | None = None


class AuditVerdict(Model):
    """The result of verifying the audit log."""

    intact: int
    broken: str | None


class Peers(Model):
    """All peers, in the order of the configuration."""

    items: list[Peer]


class Bans(Model):
    """All bans in force, the first to expire first."""

    items: list[Ban]


class Ban(Model):
    """A banned address."""

    address: str
    reason: str
    since: datetime
    until: datetime


class BanLifted(Model):
    """The addresses whose bans were lifted."""

    lifted: list[str]


class Alive(Model):
    """The process answers."""

    status: str = 'ok'


class AlteredEvent(Model):
    """An event whose row was altered in the database: nothing of it but its kind can be trusted."""

    id: str
    at: datetime
    business_id: str
    kind: str
    altered: bool


class CallReceivedEvent(Model):
    """An INVITE was admitted. This and the next two: for business users with `live_events`."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    mode: str | None
    direction: str | None
    order_id: str | None
    industrial_id: str | None
    number_dialled: str
    number_shown: str | None
    received_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    user_data: str | None
    pool_id: str | None
    caller: str | None = None
    callee: str | None = None


class CallRingingEvent(Model):
    """The callee's phone rings."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    mode: str | None
    direction: str | None
    order_id: str | None
    industrial_id: str | None
    number_dialled: str
    number_shown: str | None
    received_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    user_data: str | None
    pool_id: str | None
    caller: str | None = None
    callee: str | None = None


class CallAnsweredEvent(Model):
    """The call was answered."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    mode: str | None
    direction: str | None
    order_id: str | None
    industrial_id: str | None
    number_dialled: str
    number_shown: str | None
    received_at: datetime
    ringing_at: datetime | None
    answered_at: datetime | None
    user_data: str | None
    pool_id: str | None
    caller: str | None = None
    callee: str | None = None


class CallEndedEvent(Model):
    """A call that was routed has ended, answered or not. With the fields of its record."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    mode: str | None
    order_id: str | None
    number_dialled: str
    number_shown: str | None
    received_at: datetime
    routed_at: datetime | None
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None
    ended_by: str | None
    end_reason: str | None
    direction: str | None
    legacy: bool
    caller_packets: int | None
    caller_lost: int | None
    caller_jitter_ms: int | None
    callee_packets: int | None
    callee_lost: int | None
    callee_jitter_ms: int | None
    text_bytes: int | None
    recording: str | None
    qualification: int | None
    industrial_id: str | None
    decided_by: str | None
    user_data: str | None
    pool_id: str | None
    caller: str | None = None
    callee: str | None = None


class CallRefusedEvent(Model):
    """The relay has refused a call. With the fields of its record."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    mode: str | None
    order_id: str | None
    number_dialled: str
    number_shown: str | None
    received_at: datetime
    routed_at: datetime | None
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None
    ended_by: str | None
    end_reason: str | None
    direction: str | None
    legacy: bool
    caller_packets: int | None
    caller_lost: int | None
    caller_jitter_ms: int | None
    callee_packets: int | None
    callee_lost: int | None
    callee_jitter_ms: int | None
    text_bytes: int | None
    recording: str | None
    qualification: int | None
    industrial_id: str | None
    decided_by: str | None
    user_data: str | None
    pool_id: str | None
    caller: str | None = None
    callee: str | None = None


class MessageDeliveredEvent(Model):
    """A text message was accepted by the receiver. With the fields of its record."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    mode: str | None
    order_id: str | None
    number_dialled: str
    number_shown: str | None
    received_at: datetime
    routed_at: datetime | None
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None
    ended_by: str | None
    end_reason: str | None
    direction: str | None
    legacy: bool
    caller_packets: int | None
    caller_lost: int | None
    caller_jitter_ms: int | None
    callee_packets: int | None
    callee_lost: int | None
    callee_jitter_ms: int | None
    text_bytes: int | None
    recording: str | None
    qualification: int | None
    industrial_id: str | None
    decided_by: str | None
    user_data: str | None
    pool_id: str | None
    caller: str | None = None
    callee: str | None = None


class MessageRefusedEvent(Model):
    """The relay has refused a text message. With the fields of its record."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    mode: str | None
    order_id: str | None
    number_dialled: str
    number_shown: str | None
    received_at: datetime
    routed_at: datetime | None
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None
    ended_by: str | None
    end_reason: str | None
    direction: str | None
    legacy: bool
    caller_packets: int | None
    caller_lost: int | None
    caller_jitter_ms: int | None
    callee_packets: int | None
    callee_lost: int | None
    callee_jitter_ms: int | None
    text_bytes: int | None
    recording: str | None
    qualification: int | None
    industrial_id: str | None
    decided_by: str | None
    user_data: str | None
    pool_id: str | None
    caller: str | None = None
    callee: str | None = None


class MessageFailedEvent(Model):
    """A text message was let through, but not accepted. With the fields of its record."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    mode: str | None
    order_id: str | None
    number_dialled: str
    number_shown: str | None
    received_at: datetime
    routed_at: datetime | None
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None
    ended_by: str | None
    end_reason: str | None
    direction: str | None
    legacy: bool
    caller_packets: int | None
    caller_lost: int | None
    caller_jitter_ms: int | None
    callee_packets: int | None
    callee_lost: int | None
    callee_jitter_ms: int | None
    text_bytes: int | None
    recording: str | None
    qualification: int | None
    industrial_id: str | None
    decided_by: str | None
    user_data: str | None
    pool_id: str | None
    caller: str | None = None
    callee: str | None = None


class BindingMadeEvent(Model):
    """A hook has had a binding made for an unknown caller."""

    id: str
    at: datetime
    business_id: str
    kind: str
    binding_id: str
    mode: str
    order_id: str | None
    industrial_id: str | None
    user_data: str | None
    number: str


class BindingExpiredEvent(Model):
    """A binding has reached its expiry."""

    id: str
    at: datetime
    business_id: str
    kind: str
    binding_id: str
    mode: str
    order_id: str | None
    industrial_id: str | None
    user_data: str | None
    expired_at: datetime


class NumberCoolingEvent(Model):
    """The last binding of a number has ended; it rests before it is bound for another party."""

    id: str
    at: datetime
    business_id: str
    kind: str
    number: str
    binding_id: str
    cools_until: datetime


class FilingAnsweredEvent(Model):
    """A carrier's answer to a filing was entered."""

    id: str
    at: datetime
    business_id: str
    kind: str
    reference: str
    state: str
    code: str | None
    expires_at: datetime | None
    party: str | None = None


class FilingExpiringEvent(Model):
    """Filings in force have come within 30 days of their end."""

    id: str
    at: datetime
    business_id: str
    kind: str
    count: int
    expires_at: datetime


class ComplaintsHighEvent(Model):
    """Of the business user `default` alone: complaints about a business user have reached the limit."""

    id: str
    at: datetime
    business_id: str
    kind: str
    about: str
    prefix: str | None
    count: int
    answered: int
    percent: float | None


class RecordingReadyEvent(Model):
    """The recording of a call can be read: GET /v1/calls/{call_id}/recording."""

    id: str
    at: datetime
    business_id: str
    kind: str
    call_id: str
    binding_id: str | None
    order_id: str | None
    user_data: str | None
    pool_id: str | None
    received_at: datetime
    recording_ms: int
    recording_sha256: str


class ProbeLeakEvent(Model):
    """Of the business user `relay700-probe` alone: a marked call of [probe] showed one side something of the other."""

    id: str
    at: datetime
    business_id: str
    kind: str
    peer: str
    leaks: list[str]


class WebhookTestEvent(Model):
    """Sent on request: POST /v1/webhooks/{webhook_id}/test."""

    id: str
    at: datetime
    business_id: str
    kind: str


class BindingStep(Model):
    """One event in the life of a binding."""

    action: str
    at: datetime
    by: str | None
    changed: list[str]


class BatchItem(Model):
    """The result of one item of a batch."""

    status: int
    index: int = 0
    binding: Binding | None = None
    problem: Problem | None = None
    replayed: bool = False


class HandOverItem(Model):
    """The result for one binding, or for an order that has none to hand over."""

    order_id: str | None
    binding_id: str | None
    status: int
    problem: Problem | None = None


class Member(Model):
    """A member of a group."""

    number: str


class FilingVersion(Model):
    """A filing as it is, or as it was before a change."""

    business_id: str
    number: str
    state: str
    reference: str
    holder: str | None
    document_type: str | None
    document: str | None
    photo: str | None
    code: str | None
    reason: str | None
    filed_at: datetime
    filed_by: str
    answered_at: datetime | None
    answered_by: str | None
    expires_at: datetime | None
    withdrawn_at: datetime | None
    withdrawn_by: str | None
    until: datetime | None


class FilingAnswerResult(Model):
    """The result of one answer."""

    index: int
    status: int
    filings: list[Filing]
    problem: Problem | None = None


class Call(Model):
    """A call record: one attempt to call or to send a text message. Steps that were not reached are null."""

    call_id: str
    binding_id: str | None
    mode: str | None
    business_id: str | None
    order_id: str | None
    number_dialled: str
    number_shown: str | None
    caller: str
    callee: str | None
    peer_in: str
    peer_out: str | None
    received_at: datetime
    routed_at: datetime | None
    ringing_at: datetime | None
    answered_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    sip_status: int | None
    q850_cause: int | None
    outcome: str | None
    ended_by: str | None
    end_reason: str | None
    caller_leg_call_id: str | None
    callee_leg_call_id: str | None
    direction: str | None
    legacy: bool
    caller_packets: int | None
    caller_lost: int | None
    caller_jitter_ms: int | None
    callee_packets: int | None
    callee_lost: int | None
    callee_jitter_ms: int | None
    kind: str
    text_bytes: int | None
    recording: str | None
    qualification: int | None
    industrial_id: str | None
    source: str | None
    decided_by: str | None


class Check(Model):
    """A check of the call."""

    name: str
    verdict: str
    figures: str


class TargetChoice(Model):
    """A target that the call could try."""

    peer: str
    target: str
    state: str
    is_full: bool
    priority: int
    weight: int


class Lane(Model):
    """The caller, or an attempt at one target."""

    number: int
    side: str
    peer: str
    address: str
    early_dialogs: int


class LadderMessage(Model):
    """A message, with its retransmissions."""

    lane: int
    sent: bool
    what: str
    status: int
    early_dialog: str
    after_ms: float
    again_after_ms: list[float]
    transport: str
    local: str
    remote: str
    text: str
    made_from: int | None
    crossings: list[Crossing]
    received_lines: list[ReceivedLine]


class Mark(Model):
    """A step between the messages."""

    after_ms: float
    step: str


class BusinessEvent(Model):
    """One change of state, qualification or contact."""

    state: str
    reason: str
    by: str
    at: datetime
    version: int
    changed: list[BusinessChanged]


class DeadEvent(Model):
    """A dead letter: an event whose delivery was given up."""

    event_id: str
    kind: str
    at: datetime
    dead_at: datetime
    tries: int
    last_error: str | None


class DailyLine(Model):
    """The totals of one business user on one prefix and day, China time."""

    day: date
    business_id: str
    prefix: str
    attempts: int
    answered: int
    unanswered: int
    refused: dict[str, int]
    minutes: float
    parties: int
    complaints: int
    messages: int
    messages_delivered: int


class ComplaintRate(Model):
    """Complaints of thirty days, today included, about a business user."""

    business_id: str
    prefix: str | None
    complaints: int
    answered: int
    percent: float | None
    few: bool
    high: bool
    suspend_reason: str | None


class AuditLine(Model):
    """One line of the audit log: a change, or an access to real numbers."""

    seq: int
    at: datetime
    actor: str
    action: str
    object: str
    business_id: str | None
    reason: str
    details: dict[str, Any]


class Peer(Model):
    """A SIP peer. Without targets it gets no calls: its name does not resolve, or it is not registered."""

    name: str
    calls_in: int
    calls_out: int
    registered: bool | None
    targets: list[Target]


class Problem(Model):
    """A problem document (RFC 9457), the body of every error response."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[FieldProblem] = []


class Crossing(Model):
    """What became of the lines of one name."""

    name: str
    verdict: str
    lines: int


class ReceivedLine(Model):
    """A line of the message that a sent one was made from."""

    text: str
    verdict: str | None


class BusinessChanged(Model):
    """A change of the contact or of one field of the qualification. Numbers in a contact are masked."""

    field: str
    before: str
    after: str


class Target(Model):
    """A transport address of a peer."""

    target: str
    state: str
    failures: int
    aside_until: datetime | None


class FieldProblem(Model):
    """The problem of one field of the request."""

    field: str
    problem: str


class OtherEvent(Model):
    """An event of a kind that this version does not know."""

    id: str
    at: datetime
    business_id: str
    kind: str



class BatchItemRequest(TypedDict):
    """A binding to make."""

    expires_in: NotRequired[int | None]
    expires_at: NotRequired[datetime | None]
    mode: Literal["AXB", "AXYB", "GXB", "GXYB", "AXN"]
    a: NotRequired[str | None]
    late: NotRequired[bool]
    b: NotRequired[str | None]
    group_id: NotRequired[str | None]
    x: NotRequired[str | None]
    y: NotRequired[str | None]
    pool_id: NotRequired[str | None]
    area: NotRequired[str | None]
    area_match: NotRequired[Literal["strict", "loose"]]
    business_id: NotRequired[str | None]
    order_id: NotRequired[str | None]
    consent: NotRequired[str | None]
    user_data: NotRequired[str | None]
    direction: NotRequired[Literal["both", "a_to_b", "b_to_a"]]
    max_call_s: NotRequired[int | None]
    ring_timeout_s: NotRequired[int | None]
    white_only: NotRequired[bool]
    hours: NotRequired[str | None]
    record: NotRequired[bool]
    industrial_id: NotRequired[str | None]
    idle_ttl_s: NotRequired[int | None]
    idempotency_key: NotRequired[str | None]


class FilingAnswer(TypedDict):
    """A carrier's answer about a number, or about all filings with a reference."""

    number: NotRequired[str]
    reference: NotRequired[str]
    state: str
    reason: NotRequired[str]
    expires_at: NotRequired[str]
    code: NotRequired[str]
    business_id: NotRequired[str | None]

Event = OtherEvent | AlteredEvent | CallReceivedEvent | CallRingingEvent | CallAnsweredEvent | CallEndedEvent | CallRefusedEvent | MessageDeliveredEvent | MessageRefusedEvent | MessageFailedEvent | BindingMadeEvent | BindingExpiredEvent | NumberCoolingEvent | FilingAnsweredEvent | FilingExpiringEvent | ComplaintsHighEvent | RecordingReadyEvent | ProbeLeakEvent | WebhookTestEvent
EVENTS: dict[str, type[Event]] = {
    "call.received": CallReceivedEvent,
    "call.ringing": CallRingingEvent,
    "call.answered": CallAnsweredEvent,
    "call.ended": CallEndedEvent,
    "call.refused": CallRefusedEvent,
    "message.delivered": MessageDeliveredEvent,
    "message.refused": MessageRefusedEvent,
    "message.failed": MessageFailedEvent,
    "binding.made": BindingMadeEvent,
    "binding.expired": BindingExpiredEvent,
    "number.cooling": NumberCoolingEvent,
    "filing.answered": FilingAnsweredEvent,
    "filing.expiring": FilingExpiringEvent,
    "complaints.high": ComplaintsHighEvent,
    "recording.ready": RecordingReadyEvent,
    "probe.leak": ProbeLeakEvent,
    "webhook.test": WebhookTestEvent,
}
