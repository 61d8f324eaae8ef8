"""Events in the form of Alibaba Cloud's pushes (dyplsapi, receipts by HTTP): kinds and records of messages.

Each message has an address of its own there, so a webhook of this form sends one message. docs/ALIBABA.md maps the
fields and says which of its facts are documented.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from relay.model.binding import number_of
from relay.model.numbers import format_number
from relay.service.fields import CHINA

MESSAGES: Final[dict[str, tuple[str, ...]]] = {
    "SecretReport": ("call.ended", "call.refused", "message.delivered", "message.refused", "message.failed"),
    "SecretStartReport": ("call.received",),
    "SecretRingReport": ("call.ringing",),
    "SecretPickUpReport": ("call.answered",),
    "SecretRecording": ("recording.ready",),
}
_ENDED_BY: Final = {"caller": 1, "callee": 2}  # release_dir; the rest is 0, the platform
_SMS_RELEASED: Final = 9999  # release_cause of text messages

# unconnected_cause of a refused call; one that is not here has 4, other.
_UNBOUND: Final = 2
_CAUSES: Final = {
    1: ("caller_blacklisted",),
    _UNBOUND: ("no_binding", "expired"),
    3: (
        *("business_busy", "business_rate", "business_revoked", "business_suspended", "caller_anonymous"),
        *("caller_international", "caller_not_listed", "direction_barred", "frequency_caller", "frequency_number"),
        *("legacy_ended", "not_filed", "number_busy", "number_in_text", "number_locked", "outside_hours"),
        *("own_number", "party_not_allowed", "phase_over", "verification_refused"),
    ),
}
UNCONNECTED: Final = {outcome: cause for cause, outcomes in _CAUSES.items() for outcome in outcomes}
_OTHER: Final = 4


def message_of(kinds: Collection[str]) -> str | None:
    """The message that these kinds of event belong to; None if there is none, or several."""
    return next((message for message, its in MESSAGES.items() if set(kinds) <= set(its)), None)


def report(event_id: str, kind: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """A record of the message that has this kind, from the data of an event as its webhook may see them.

    Fields without a value are left out, as a receiver there expects of optional ones.
    """
    if kind == "recording.ready":
        return _recording(data)
    # The number of a member of a group is peer_no there: A is the party that the group calls. phone_no of a refused
    # call is its caller.
    a_called = (data.get("direction") != "b_to_a") is not str(data.get("mode")).startswith("G")
    a_called = a_called or kind.endswith(".refused")
    a, b = ("caller", "callee") if a_called else ("callee", "caller")
    received_at = data["received_at"]
    pool, binding_id = data.get("pool_id"), data.get("binding_id")
    values = {
        "id": _number_of(event_id),
        "call_id": data["call_id"],
        "pool_key": pool,
        "partner_key": pool,
        "sub_id": None if binding_id is None else number_of(binding_id),
        "out_id": data.get("user_data"),
        "phone_no": _national(data.get(a)),
        "secret_no": data["number_dialled"],
        "peer_no": _national(data.get(b)),
        "called_display_no": data.get("number_shown"),
        "call_type": _call_type(kind, a_called=a_called),
        "call_time": _moment(received_at),
        **_PARTS[kind](data, received_at),
    }
    return {name: value for name, value in values.items() if value is not None}


def _number_of(event_id: str) -> int:
    """A number of 53 bits, which JavaScript reads exactly. The event's place in the queue would show how many events
    other business users have."""
    return int.from_bytes(hashlib.sha256(event_id.encode()).digest()[:8], "big") >> 11


def _recording(data: Mapping[str, Any]) -> dict[str, Any]:
    """A record of SecretRecording: its time is Unix milliseconds."""
    values = {
        "call_id": data["call_id"],
        "pool_key": data.get("pool_id"),
        "sub_id": data.get("binding_id") and number_of(data["binding_id"]),
        "out_id": data.get("user_data"),
        "call_time": data["received_at"],
    }
    return {name: value for name, value in values.items() if value is not None}


def _call_type(kind: str, *, a_called: bool) -> int:
    if kind.endswith(".refused"):
        return 4 if kind.startswith("call") else 5
    return (0 if kind.startswith("call") else 2) + (0 if a_called else 1)


def _ringing(data: Mapping[str, Any], received_at: int) -> dict[str, Any]:
    return {"ring_time": _moment(data.get("ringing_at"))}


def _answered(data: Mapping[str, Any], received_at: int) -> dict[str, Any]:
    return _ringing(data, received_at) | {"start_time": _moment(data.get("answered_at"))}


def _ended(data: Mapping[str, Any], received_at: int) -> dict[str, Any]:
    """The times of a call. An unanswered call starts at its release; a missing time equals the one before."""
    ended_at, answered_at = data.get("ended_at") or received_at, data.get("answered_at")
    if answered_at is not None:  # times are in seconds, and zero seconds are an unanswered call
        ended_at = max(ended_at, answered_at + 1_000)
    called_at = data.get("routed_at") or received_at
    rang_at = data.get("ringing_at") or called_at
    return {
        "call_out_time": _moment(called_at),
        "ring_time": _moment(rang_at),
        "free_ring_time": _moment(rang_at),
        "start_time": _moment(answered_at or ended_at),
        "release_time": _moment(ended_at),
        "release_dir": _ENDED_BY.get(data.get("ended_by") or "", 0),
        "release_cause": data.get("q850_cause"),
        "unconnected_cause": 0,
        "control_msg": "OK",
        "control_type": "CONTINUE",
    }


def _refused(data: Mapping[str, Any]) -> dict[str, Any]:
    cause = UNCONNECTED.get(data.get("outcome") or "", _OTHER)
    message = "NO_SUBS_EXIST" if cause == _UNBOUND else None
    return {"unconnected_cause": cause, "control_msg": message, "control_type": None}


def _sent(data: Mapping[str, Any], received_at: int) -> dict[str, Any]:
    """A text message: all its times are that of its receipt."""
    at = _moment(received_at)
    times = dict.fromkeys(("call_out_time", "ring_time", "free_ring_time", "start_time", "release_time"), at)
    return _ended(data, received_at) | times | {"release_cause": _SMS_RELEASED}


_PARTS: Final = {
    "call.received": lambda data, received_at: {},
    "call.ringing": _ringing,
    "call.answered": _answered,
    "call.ended": _ended,
    "call.refused": lambda data, received_at: _ended(data, received_at) | _refused(data),
    "message.delivered": _sent,
    "message.refused": lambda data, received_at: _sent(data, received_at) | _refused(data),
    "message.failed": _sent,
}


def _national(number: str | None) -> str | None:
    """A number as it is written there: 13800000001. A masked one stays as it is."""
    return number if number is None or "*" in number else format_number(number, "national")


def _moment(at_ms: int | None) -> str | None:
    """A moment as "2026-01-01 08:00:00" of China."""
    return None if at_ms is None else datetime.fromtimestamp(at_ms // 1000, CHINA).strftime("%Y-%m-%d %H:%M:%S")


# -- What the receiver answers

MOST_ANSWER = 4_096  # bytes of it that are read


def is_accepted(status: int, body: bytes) -> bool:
    """Whether the receiver has taken the records: status 200, and a `code` that is a number, whatever its value."""
    try:
        answer = msgspec.json.decode(body)
    except (ValueError, RecursionError):  # UnicodeDecodeError as well
        return False
    code = answer.get("code") if isinstance(answer, dict) else None
    return status == 200 and isinstance(code, int) and not isinstance(code, bool)
