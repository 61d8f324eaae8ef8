"""The result of a look-up, a route or a refusal; and the record of a call or text message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, NamedTuple, get_args

Language = Literal["zh", "en"]  # of announcements
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)
DecidedBy = Literal["", "hook", "verify"]  # "": the binding alone; else the hook of the business user, or `[verify]`


class Refusal(NamedTuple):
    """A refused call. `outcome` is one of `relay.model.outcomes.OUTCOMES`; the three codes go to the caller."""

    outcome: str
    status: int  # SIP
    q850_cause: int | None  # sent as `Reason: Q.850;cause=N`
    retry_after_s: int | None = None
    binding_id: str | None = None
    mode: str | None = None
    business: str | None = None
    order_id: str | None = None
    language: str = ""  # as in Route
    end_reason: str = ""  # for the record; "": same as the outcome
    qualification: int | None = None  # of the business, as in the record
    industrial_id: str | None = None
    announce: str = ""  # the announcement, if not that of the outcome
    decided_by: DecidedBy = ""
    may_bind: bool = False  # an unknown caller, for whom the hook of the number's business user may make a binding


ConcurrencyCap = tuple[str, int, Refusal]  # key, maximum of concurrent calls, refusal beyond it


class Route(NamedTuple):
    """The route in force for (number dialled, caller)."""

    binding_id: str
    mode: str  # AXB, AXYB, GXB, GXYB, AXN
    business: str
    order_id: str | None
    callee: str  # the real party to call, E.164 without "+"
    shown: str  # the 700 number that the callee sees
    max_call_s: float | None = None  # None: the engine's setting
    ring_timeout_s: float | None = None
    direction: str | None = None  # a_to_b or b_to_a
    legacy: bool = False  # the number is an old middle number
    caps: tuple[ConcurrencyCap, ...] = ()
    live_events: bool = False  # the business receives call events (`CallEvent`)
    verify: bool = False  # ask the verification hook before the call goes out
    record: bool = False  # the call is to be recorded
    language: str = ""  # a `Language`, or "" for the configured one
    qualification: int | None = None  # of the business, as in the record
    industrial_id: str | None = None  # of the binding: 工业互联网标识
    hook: bool = False  # ask the hook of the business user, before `verify`
    decided_by: DecidedBy = ""


def refusal_on_route(refusal: Refusal, route: Route) -> Refusal:
    """The refusal with the route's binding, for the call record."""
    return refusal._replace(
        binding_id=route.binding_id,
        mode=route.mode,
        business=route.business,
        order_id=route.order_id,
        language=route.language,
        qualification=route.qualification,
        industrial_id=route.industrial_id,
        decided_by=route.decided_by,
    )


# -- The call detail record. Fields are in output order

Kind = Literal["call", "message"]
PROBE_BUSINESS: Final = "relay700-probe"  # reserved: its calls are the probe's own (`relay.events.probe`)


# A new field goes last, and is None by default. It is also named in `relay.call.open_record`, which collects it,
# `relay.privacy.records` (who may see it), `relay.api.calls` and docs/API.md. It needs no SQL: the store seals the
# record as a whole. Relays of the previous version read it only while it is None, so it is written one version later.
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
    decided_by: str | None = None  # whose answer decided: hook, verify; None: the binding alone

    @property
    def is_granted(self) -> bool:
        """Whether it counts towards the caps on frequency. A text with a number in it does: each is a try."""
        return self.routed_at is not None or self.outcome == "number_in_text"


def record_id(received_at: int, token: Callable[[], str]) -> str:
    """32 hexadecimal digits, time first, so that records written together are stored together. `token` returns 16
    random ones."""
    return f"{received_at.to_bytes(6).hex()}{token()}{token()[-4:]}"
