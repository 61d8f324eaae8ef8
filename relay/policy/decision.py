"""Reads and checks a hook's decision about a call, and applies it to the route that the store has proven.

Pure. A decision can shorten a call, send it to another party of the same business user, or refuse it; it grants
nothing beyond the operator's configuration. Any fault in it refuses the call, and the faulty field is named.
`relay.call_hooks` checks the parts that need the store (`needs_store`).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from relay.call.announcement import OF_REFUSAL
from relay.errors import ParseError
from relay.model.binding import MAX_CALL_S, RING_TIMEOUT_S
from relay.model.call import DecidedBy, Refusal, Route, refusal_on_route
from relay.model.numbers import Parties, normalise_700, parse_party
from relay.model.outcomes import VERIFICATION_FAILED, VERIFICATION_REFUSED

ANNOUNCEMENTS: Final = frozenset(OF_REFUSAL.values())
UNKNOWN: Final = "no field of an answer"
_FIELD: Final = re.compile(r"field `([a-z_]{1,32})`|`\$\.([a-z_.]{1,64})`")  # in msgspec's errors


class NewBinding(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The binding to make for a caller without one: its fields are those of `POST /v1/bindings`, as text."""

    order_id: str | None = None
    expires_in: str | None = None
    industrial_id: str | None = None
    consent: str | None = None
    user_data: str | None = None


class Decision(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The answer of a hook. A field that is absent or null changes nothing."""

    allow: bool
    target: str | None = None  # the party to call; E.164 without "+" once checked
    show: str | None = None  # the 700 number that it sees
    record: bool | None = None
    max_duration_s: int | None = None
    ring_timeout_s: int | None = None
    announce: str | None = None  # played to a refused caller
    bind: NewBinding | None = None

    @property
    def needs_store(self) -> bool:
        """Whether it names numbers that must be of the business user."""
        return self.target is not None or self.show is not None


class DecisionFault(NamedTuple):
    """A fault of an answer. `field`: a name of ours, or "answer"; it holds no number."""

    field: str
    reason: str


class Bounds(NamedTuple):
    """Limits of the relay's configuration on a decision."""

    parties: Parties
    recording: bool  # calls can be recorded
    max_call_s: float
    ring_timeout_s: float


_AS_IT_IS: Final = Decision(True)
_decode: Final = msgspec.json.Decoder(Decision).decode


def read_decision(body: bytes, bounds: Bounds) -> Decision | DecisionFault:
    """The answer in the body of a response, with its numbers in normal form; or its fault."""
    try:
        decision = _decode(body)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError as well
        return _unreadable(str(error))
    if not decision.allow:
        return _wrong_refusal(decision) or decision
    if (wrong := _wrong_limits(decision, bounds)) is not None:
        return wrong
    target, show = decision.target, decision.show
    try:
        target = None if target is None else parse_party(target, bounds.parties)
    except ParseError:
        return DecisionFault("target", "may not be a party")
    try:
        show = None if show is None else normalise_700(show)
    except ParseError:
        return DecisionFault("show", "must be a 700 number")
    return msgspec.structs.replace(decision, target=target, show=show)


def _unreadable(error: str) -> DecisionFault:
    found = _FIELD.search(error)
    if found is None:
        return DecisionFault("answer", 'must be JSON as {"allow": true}')
    reason = UNKNOWN if "unknown field" in error else "missing" if "missing" in error else "of a wrong type"
    return DecisionFault(found[1] or found[2], reason)


def _wrong_refusal(decision: Decision) -> DecisionFault | None:
    for field in decision.__struct_fields__:
        if field not in ("allow", "announce") and getattr(decision, field) is not None:
            return DecisionFault(field, "not used with allow false")
    if decision.announce is not None and decision.announce not in ANNOUNCEMENTS:
        return DecisionFault("announce", f"must be one of: {', '.join(sorted(ANNOUNCEMENTS))}")
    return None


def _wrong_limits(decision: Decision, bounds: Bounds) -> DecisionFault | None:
    if decision.announce is not None:
        return DecisionFault("announce", "not used with allow true")
    if decision.record and not bounds.recording:
        return DecisionFault("record", "call recording is not configured on this relay")
    for field, allowed in (("max_duration_s", MAX_CALL_S), ("ring_timeout_s", RING_TIMEOUT_S)):
        value: int | None = getattr(decision, field)
        if value is not None and value not in allowed:
            return DecisionFault(field, f"must be {allowed[0]} to {allowed[-1]} seconds")
    return None


# -- the call by it


def apply_decision(decision: Decision, route: Route, bounds: Bounds, by: DecidedBy) -> Route | Refusal:
    """The call as a hook decides it. Limits only become shorter; the target must be a party of the business user."""
    if not decision.allow:
        return refusal_on_route(VERIFICATION_REFUSED, route)._replace(announce=decision.announce or "", decided_by=by)
    limits = (
        _shorter(route.max_call_s, decision.max_duration_s, bounds.max_call_s),
        _shorter(route.ring_timeout_s, decision.ring_timeout_s, bounds.ring_timeout_s),
    )
    return route._replace(
        callee=decision.target or route.callee,
        shown=decision.show or route.shown,
        max_call_s=limits[0],
        ring_timeout_s=limits[1],
        record=route.record if decision.record is None else decision.record,
        decided_by=route.decided_by if decision == _AS_IT_IS and route.decided_by else by,
    )


def _shorter(bound: float | None, wanted: int | None, configured: float) -> float | None:
    if wanted is None:
        return bound
    return min(float(wanted), configured if bound is None else bound)


def refuse_undecided(route: Route, by: DecidedBy) -> Refusal:
    """The refusal of a call whose hook gave no valid answer."""
    return refusal_on_route(VERIFICATION_FAILED, route)._replace(decided_by=by)


# -- Circuit breaker: a hook that fails is not asked for a while, so that its callers do not wait for a time-out each

FAILURES: Final = 5  # in a row that open it
OPEN_S: Final = 5.0  # from then, and from a failed trial, to the next trial
LATELY_S: Final = 600.0  # from that trial's time, for `Breaker.fails`


class Breaker:
    """The circuit breaker of one hook. Times are monotonic seconds."""

    __slots__ = ("_failures", "_trial_at", "_tries")

    def __init__(self) -> None:
        self._failures = 0  # in a row
        self._trial_at = 0.0
        self._tries = False  # one request, the trial, is under way

    @property
    def is_open(self) -> bool:
        return self._failures >= FAILURES

    def fails(self, now: float) -> bool:
        """Whether it is open and was asked lately: a hook that was removed is not, nor one that no call needs."""
        return self.is_open and now < self._trial_at + LATELY_S

    def admits(self, now: float) -> bool:
        """Whether to ask the hook. While open, one request at a time is the trial."""
        if not self.is_open:
            return True
        if self._tries or now < self._trial_at:
            return False
        self._tries = True
        return True

    def answered(self) -> bool:
        """The hook answered. Returns whether that closes the breaker."""
        was_open, self._failures, self._tries = self.is_open, 0, False
        return was_open

    def failed(self, now: float) -> bool:
        """No answer. Returns whether that opens the breaker."""
        self._failures += 1
        self._tries, self._trial_at = False, now + OPEN_S
        return self._failures == FAILURES
