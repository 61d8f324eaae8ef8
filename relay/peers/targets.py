"""Health of the targets of peers, and the order in which a call tries them.

A target that is down or set aside is tried last, but never left out: our view may be wrong. It neither sends nor reads
a clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from relay.model.actions import Outbox
from relay.model.settings import Peer, Target
from relay.sip.message import Flow, Response, transport_address

REST_S: Final = 30.0  # pause of a target that fails and is not pinged
LONGEST_REST_S: Final = 3600.0  # cap of Retry-After


class TargetState:
    """One target of a peer, the flow towards it, and its health."""

    __slots__ = ("_answers", "aside_until", "configured", "failures", "flow", "is_down", "peer", "pinging")

    def __init__(self, peer: Peer, configured: Target, flow: Flow) -> None:
        self.peer = peer
        self.configured = configured
        self.flow = flow
        self.failures = 0  # consecutive
        self.is_down = False
        self.aside_until = 0.0  # monotonic seconds
        self.pinging = False  # an OPTIONS is unanswered
        self._answers = 0  # consecutive, while it is down

    @property
    def name(self) -> str:
        """Transport, address and port, as in logs and metrics."""
        return transport_address(self.flow.transport, self.flow.host, self.flow.port)

    def is_usable(self, now: float) -> bool:
        return not self.is_down and now >= self.aside_until

    def state(self, now: float) -> str:
        """up, down or aside."""
        return "down" if self.is_down else "up" if now >= self.aside_until else "aside"

    def failed(self, now: float) -> bool:
        """Count a failure: no response, or unreachable. True if the target changes to down or aside."""
        health = self.peer.health
        self.failures += 1
        self._answers = 0
        if self.failures < health.down_after or not self.is_usable(now):
            return False
        if health.ping_s:
            self.is_down = True
        else:
            self.aside_until = now + REST_S
        return True

    def answered(self) -> bool:
        """Count a response of any status. True if the target is no longer down."""
        self.failures = 0
        if not self.is_down:
            return False
        self._answers += 1
        self.is_down = self._answers < self.peer.health.up_after
        return not self.is_down

    def put_aside(self, seconds: float, now: float) -> None:
        """Set the target aside for the time of its Retry-After (RFC 3261 21.5.4)."""
        self.aside_until = max(self.aside_until, now + min(seconds, LONGEST_REST_S))

    def take_over(self, other: TargetState) -> None:
        """Take the health of the same target under the former configuration."""
        self.failures, self.is_down, self.aside_until = other.failures, other.is_down, other.aside_until
        self._answers = other._answers


class TargetChoice(NamedTuple):
    """A target that a call could try, for the operator."""

    peer: str
    target: str  # transport:address:port
    state: str  # up, down, aside; "" where it is not known
    is_full: bool = False  # its peer has no more calls left
    priority: int = 0
    weight: int = 1

    @classmethod
    def of(cls, target: TargetState, state: str, *, is_full: bool = False) -> TargetChoice:
        return cls(target.peer.name, target.name, state, is_full, target.configured.priority, target.configured.weight)


def select_secure(targets: Sequence[TargetState]) -> list[TargetState]:
    """The targets that a request to a sips: URI may use (RFC 3261 26.2.2)."""
    return [target for target in targets if target.flow.transport == "tls"]


def who_ended(reason: str) -> str:
    """`ended_by` of a failed attempt: the callee if it responded with a status, else the relay."""
    return "callee" if reason.startswith("sip_") else "relay"


def is_tried_elsewhere(status: int | None) -> bool:
    """Whether to fail over to the next target after this status; None: no response (RFC 3263 4.3)."""
    return status is None or status == 408 or 500 <= status < 600


def order_targets(targets: Sequence[TargetState], draw: Callable[[], str]) -> list[TargetState]:
    """The targets of one peer by priority, drawn by weight within one (RFC 2782). `draw`: random hexadecimal digits."""
    if len(targets) < 2:
        return list(targets)
    ordered: list[TargetState] = []
    for _, group in groupby(targets, key=_priority):
        ordered += _drawn(list(group), draw)
    return ordered


def by_priority(targets: Sequence[TargetState]) -> list[TargetState]:
    return sorted(targets, key=_priority)


def _priority(target: TargetState) -> tuple[int, int]:
    return target.configured.priority, target.configured.srv_priority


def _weight(target: TargetState) -> int:
    return target.configured.weight


def _drawn(targets: list[TargetState], draw: Callable[[], str]) -> list[TargetState]:
    """Draw each next target with a probability proportional to its weight, rarely one of weight 0 (RFC 2782)."""
    drawn: list[TargetState] = []
    targets.sort(key=_weight)
    while len(targets) > 1:
        lowest = min(_weight(targets[0]), 1)  # 0 is drawn for the first of weight 0
        total = sum([target.configured.weight for target in targets])
        mark = int(draw()[-8:], 16) % (total - lowest + 1) + lowest
        chosen = 0
        while mark > targets[chosen].configured.weight:
            mark -= targets[chosen].configured.weight
            chosen += 1
        drawn.append(targets.pop(chosen))
    return drawn + targets


_match_seconds: Final = re.compile(r"\s*([0-9]{1,9})").match


def retry_after_s(value: str | None) -> int:
    """The seconds of a Retry-After (RFC 3261 20.33); 0 if there is none."""
    found = _match_seconds(value) if value else None
    return int(found[1]) if found else 0


# -- Health by the outcome of requests; changes are logged


def mark_unreachable(outbox: Outbox, target: TargetState, now: float) -> None:
    """The target did not respond, or the transport failed."""
    if not target.failed(now):
        return
    if target.is_down:
        outbox.note("target.down", peer=target.peer.name, target=target.name)
    else:
        _note_aside(outbox, target, "no_answer", REST_S)


def mark_responded(outbox: Outbox, target: TargetState, response: Response, now: float) -> None:
    """The target responded to a call or a text message, with any status."""
    mark_reachable(outbox, target)
    honour_retry_after(outbox, target, response, now)


def mark_reachable(outbox: Outbox, target: TargetState) -> None:
    """The target responded."""
    if target.answered():
        outbox.note("target.up", peer=target.peer.name, target=target.name)


def honour_retry_after(outbox: Outbox, target: TargetState, response: Response, now: float) -> None:
    """Honour Retry-After in a 503 (RFC 3261 21.5.4)."""
    seconds = retry_after_s(response.get("retry-after")) if response.status == 503 else 0
    if seconds:
        target.put_aside(seconds, now)
        _note_aside(outbox, target, "retry_after", min(seconds, LONGEST_REST_S))


def _note_aside(outbox: Outbox, target: TargetState, reason: str, for_s: float) -> None:
    outbox.note("target.aside", peer=target.peer.name, target=target.name, reason=reason, for_s=for_s)
