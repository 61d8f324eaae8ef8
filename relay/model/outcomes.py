"""The outcomes of calls and text messages: name in the record, SIP status and Q.850 cause shown to the caller.

Q.850: 1 unallocated number, 3 no route, 16 normal clearing, 17 busy, 18 no user responding, 19 no answer, 20 subscriber
absent, 21 call rejected, 22 number changed, 25 exchange routing error, 28 invalid number, 31 normal, 34 no circuit, 38
network out of order, 41 temporary failure, 42 congestion, 47 resource unavailable, 88 incompatible destination, 102
recovery on timer expiry, 111 protocol error.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from relay.model.call import Refusal

ANSWERED: Final = "answered"


class Outcome(NamedTuple):
    """An outcome and the caller's final response. `q850_cause` 0: no Reason header."""

    name: str
    status: int
    q850_cause: int


# -- Calls refused by the relay itself

_refusals: Final[list[Refusal]] = []


def _refusal(
    outcome: str, status: int, q850_cause: int, retry_after_s: int | None = None, end_reason: str = ""
) -> Refusal:
    refusal = Refusal(outcome, status, q850_cause, retry_after_s, end_reason=end_reason)
    _refusals.append(refusal)
    return refusal


# by `relay.call.admission`
NUMBER_UNKNOWN: Final = _refusal("number_unknown", 404, 1)
TOO_SHORT: Final = _refusal("number_unknown", 484, 28)
OVER_LIMIT: Final = _refusal("over_limit", 503, 42, retry_after_s=5)
DRAINING: Final = _refusal("draining", 503, 41, retry_after_s=30)
MEDIA_FAILED: Final = _refusal("media_failed", 503, 47, retry_after_s=5)
LOOP: Final = _refusal("failed", 482, 25)
TOO_MANY_HOPS: Final = _refusal("failed", 483, 25)
BAD_EXTENSION: Final = _refusal("failed", 420, 111)
NUMBER_IN_TEXT: Final = _refusal("number_in_text", 403, 21)
NOT_SECURE: Final = _refusal("not_secure", 480, 21)  # sips: without TLS; status of RFC 5630 5.1.1
TOO_LONG: Final = _refusal("failed", 513, 111)
BAD_CONTACT: Final = _refusal("failed", 400, 111)
STRANGER: Final = _refusal("caller_not_allowed", 403, 21)
REFUSED_TOO_OFTEN: Final = _refusal("over_limit", 503, 42, end_reason="refused_too_often")
CALLER_NOT_OF_PEER: Final = _refusal("caller_not_allowed", 403, 21, end_reason="caller_not_of_peer")

_of_admission: Final = len(_refusals)

# by `relay.policy`
NUMBER_LOCKED: Final = _refusal("number_locked", 480, 31)
LEGACY_ENDED: Final = _refusal("legacy_ended", 410, 22)
CALLER_ANONYMOUS: Final = _refusal("caller_anonymous", 433, 21)  # RFC 5079
CALLER_INTERNATIONAL: Final = _refusal("caller_international", 403, 21)
NO_BINDING: Final = _refusal("no_binding", 403, 21)
EXPIRED: Final = _refusal("expired", 403, 21)
PHASE_OVER: Final = _refusal("phase_over", 410, 22)
BUSINESS_SUSPENDED: Final = _refusal("business_suspended", 403, 21)
BUSINESS_REVOKED: Final = _refusal("business_revoked", 403, 21)
DIRECTION_BARRED: Final = _refusal("direction_barred", 403, 21)
CALLER_BLACKLISTED: Final = _refusal("caller_blacklisted", 403, 21)
CALLER_NOT_LISTED: Final = _refusal("caller_not_listed", 403, 21)
OUTSIDE_HOURS: Final = _refusal("outside_hours", 480, 31)
PARTY_NOT_ALLOWED: Final = _refusal("party_not_allowed", 403, 21)
NOT_FILED: Final = _refusal("not_filed", 403, 21)
NO_CALLEE: Final = _refusal("no_callee", 480, 20)
OWN_NUMBER: Final = _refusal("own_number", 403, 21)
FREQUENCY_CALLER: Final = _refusal("frequency_caller", 403, 21)
FREQUENCY_NUMBER: Final = _refusal("frequency_number", 403, 21)
BUSINESS_RATE: Final = _refusal("business_rate", 503, 42, retry_after_s=1)
BUSINESS_BUSY: Final = _refusal("business_busy", 503, 42, retry_after_s=5)
NUMBER_BUSY: Final = _refusal("number_busy", 503, 42, retry_after_s=5)
VERIFICATION_REFUSED: Final = _refusal("verification_refused", 403, 21)
VERIFICATION_FAILED: Final = _refusal("verification_failed", 503, 41, retry_after_s=5)
STORE_FAILED: Final = _refusal("store_failed", 503, 41, retry_after_s=5)

OF_POLICY: Final = tuple(_refusals[_of_admission:])

# -- Calls that were offered to a peer

# A callee's final status -> the caller's. 3xx carries a real target, 401/407/503 reveal the callee's network: none of
# them is shown. A status that is not listed is treated as its class (x00).
OF_FINAL_STATUS: Final = {
    300: Outcome("unreachable", 480, 20),
    400: Outcome("failed", 480, 41),
    401: Outcome("failed", 480, 21),
    403: Outcome("rejected", 480, 21),
    404: Outcome("unreachable", 404, 1),
    407: Outcome("failed", 480, 21),
    408: Outcome("unreachable", 480, 18),
    410: Outcome("unreachable", 404, 22),
    415: Outcome("failed", 488, 88),
    420: Outcome("failed", 480, 111),
    422: Outcome("failed", 422, 31),
    480: Outcome("unreachable", 480, 18),
    484: Outcome("unreachable", 404, 28),
    486: Outcome("busy", 486, 17),
    488: Outcome("failed", 488, 88),
    500: Outcome("failed", 480, 41),
    503: Outcome("unreachable", 480, 34),
    504: Outcome("unreachable", 480, 102),
    600: Outcome("busy", 486, 17),
    603: Outcome("rejected", 603, 21),
    604: Outcome("unreachable", 404, 1),
    606: Outcome("failed", 488, 88),
}
NO_ANSWER: Final = Outcome("no_answer", 480, 19)
LEAK: Final = Outcome("failed", 480, 41)
NO_PEER: Final = Outcome("unreachable", 480, 3)
NO_PROGRESS: Final = Outcome("unreachable", 480, 102)
NO_CONNECTION: Final = Outcome("unreachable", 480, 38)
CANCELLED: Final = Outcome("cancelled", 487, 16)
STOPPED: Final = Outcome("failed", 480, 31)  # by an operator, or the shutdown
LOST: Final = Outcome("failed", 503, 41)  # cut short by a crash
NOT_STORED: Final = Outcome("store_failed", 503, 41)  # answered, but the store does not take that
CALLEE_BAD_EXTENSION: Final = Outcome("failed", 420, 111)  # the caller is told which
_OF_PEERS: Final = (NO_ANSWER, LEAK, NO_PEER, NO_PROGRESS, NO_CONNECTION, CANCELLED, STOPPED, LOST, NOT_STORED)
DELIVERED: Final = Outcome("delivered", 200, 0)  # a text message

# -- All names in call records

REFUSALS: Final = frozenset(refusal.outcome for refusal in _refusals)
OFFERED: Final = frozenset({ANSWERED, *(outcome.name for outcome in (*OF_FINAL_STATUS.values(), *_OF_PEERS))})
OUTCOMES: Final = tuple(sorted(OFFERED | REFUSALS | {DELIVERED.name}))

# All `end_reason`s of call records but those that quote the called side: "sip_" and its status.
_ENDS: Final = (
    "ack_timeout bye cancel hung_up invite_expired leak_check lost_at_restart max_duration media_failed media_timeout"
    " no_peer no_response not_restorable peer_gone recording_failed ring_timeout session_expired shutdown"
).split()
END_REASONS: Final = tuple(sorted({*_ENDS, *(refusal.end_reason or refusal.outcome for refusal in _refusals)}))
