"""The engine's hands: it does what the engine asks, and brings it messages, answers, commits and time.

It holds the one timer of the loop and the one broad `except`: a bug in the engine is logged and counted, and never
stops the relay. Nothing here knows SIP. Per datagram there is no task, no closure and no new loop timer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from structlog.typing import FilteringBoundLogger

from relay.call.actions import (
    Action,
    Commit,
    DropAttempt,
    KeepAttempt,
    LookUp,
    Mediate,
    Mediated,
    Note,
    Send,
    SendAll,
    Tell,
)
from relay.call.bans import Bans
from relay.call.numbers import mask_number
from relay.call.record import CallRecord
from relay.call.routing import Refusal, Route
from relay.call.settings import Peer
from relay.call.shedding import Rank
from relay.net.backlog import Backlog, Waiting
from relay.net.pace import BEHIND_S, Pace
from relay.net.transports import Transports
from relay.policy.rules import STORE_FAILED, VERIFICATION_FAILED
from relay.sip.flow import Flow

# Timers run up to this late, so that a loop timer serves many of them (RFC 3261's are 0.5 s and longer).
GRAIN_S: Final = 0.05
BUGS_LOGGED_PER_S: Final = 5
SLICE_S: Final = 0.01  # of serving what waits while the process is behind; then the sockets are read, and timers run
ANSWERS_FIRST_S: Final = 0.02  # timers that are late wait so long at most for answers to what they send again
# With a record that has waited for so long to be durable, new calls are shed: what is begun could not be answered. The
# journal takes too little, or nothing (what a file does not take it spills; this is where it cannot).
STALLED_S: Final = 2.0
DROP_S: Final = 0.05  # what was noted of an attempt goes so much later: its last messages are out then

_LEVELS: Final = {
    "tripwire": "error",
    "restore.failed": "error",
    "recording.failed": "error",
    "message.malformed": "debug",
    "attempt.not_readable": "error",
    **dict.fromkeys(("peer.within_share", "target.up", "login.registered", "login.ended", "registration.up"), "info"),
}


Routed = Callable[[int, Route | Refusal], None]  # LookUp.token, and its answer
Found = Callable[[LookUp, Route | Refusal], None]
Answered = Callable[[int, Mediated | None], None]  # Mediate.token, and its answer


class Engine(Protocol):
    """`relay.call.engine.Engine`, and the small engines of the driver's tests."""

    clock_offset_s: float

    @property
    def bans(self) -> Bans: ...
    def receive(self, data: bytes, flow: Flow, now: float) -> None: ...
    def name_at(self, flow: Flow) -> str: ...
    def exceed_work(self, name: str, now: float) -> None: ...
    def sort(self, data: bytes, flow: Flow, wait_s: float, now: float, *, lasts: bool) -> Rank | None: ...
    def receive_new(self, data: bytes, flow: Flow, waited_s: float, now: float, *, lasts: bool) -> bool: ...
    def routed(self, token: int, answer: Route | Refusal, now: float) -> None: ...
    def mediated(self, token: int, answer: Mediated | None, now: float) -> None: ...
    def committed(self, token: int, now: float) -> None: ...
    def transport_failed(self, flow: Flow, now: float) -> None: ...
    def expire(self, now: float) -> None: ...
    def next_timeout(self) -> float | None: ...
    def take_actions(self) -> list[Action]: ...


class Attempts(Protocol):
    """Keeps what a crash is to leave of attempts under way."""

    def is_ready(self) -> bool:
        """Whether a new one can be kept; while it is not, new calls are refused."""

    def keep(self, record: CallRecord, state: bytes) -> None: ...
    def drop(self, call_ids: Iterable[str]) -> None: ...


class Driver:
    """The transports and `append` may fail later by `transport_failed`, or answer by the callback, never within."""

    def __init__(
        self,
        engine: Engine,
        transports: Transports,
        look_up: Callable[[str, str, float, Peer | None], Route | Refusal],
        append: Callable[[Commit, Callable[[int], None]], None],
        tell: Callable[[str, CallRecord], None],
        attempts: Attempts,
        log: FilteringBoundLogger,
        log_ended: Callable[[dict[str, object]], None],
        verify: Callable[[LookUp, Route, Routed], None] | None = None,
        mediate: Callable[[Mediate, Answered], None] | None = None,
        look_up_later: Callable[[LookUp, float, Found], None] | None = None,
    ) -> None:
        """`look_up` takes (700 number, caller, Unix seconds, the peer that says who calls); `append` a commit and whom
        to tell that it is durable.

        `tell` takes what a business hears of a call that goes on, `log_ended` what the log says of each call that has
        ended, numbers masked. `verify` is asked of each route that wants it, and `mediate` takes commands for
        rtpengine; both answer later. `look_up_later` is asked instead of `look_up` where it is given.
        """
        self.bugs = 0
        self.pace = Pace()
        self._engine = engine
        self._bans = engine.bans
        self._transports = transports
        self._look_up = look_up
        self._append = append
        self._tell = tell
        self._verify = verify
        self._mediate = mediate
        self._look_up_later = look_up_later
        self._attempts = attempts
        self._dropped: list[str] = []  # attempts that are to be forgotten
        self._log = log
        self._log_ended = log_ended
        self._performing = True  # until start()
        self._wake_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._uncommitted: deque[float] = deque()  # since when each record waits that somebody waits for
        self._bugs_logged: list[float] = []
        self._backlog = Backlog()  # empty unless the process is behind
        self._is_working = False  # on it

    def start(self) -> None:
        """Do what the engine has asked for so far, and from now on at once. The transports must be open."""
        self._performing = False
        self.perform(time.monotonic())

    # What happens to the relay

    def receive(self, data: bytes, flow: Flow) -> None:
        """One datagram, or one message of a stream."""
        if self._bans.silenced and self._bans.drops(flow.host):
            return
        now = time.monotonic()
        late_s = now - self._wake_at
        if late_s > BEHIND_S:  # a stream has brought much at once: the loop does not come round
            self.pace.report(late_s, now)
        elif late_s < -GRAIN_S:
            self._arm(now, now)  # so that it is seen when it does not
        if self.pace.is_behind or self._is_stalled(now):
            self._keep(data, flow, now)
        else:
            self._serve(data, flow, now)

    def _serve(self, data: bytes, flow: Flow, now: float) -> None:
        try:
            self._engine.receive(data, flow, now)
        except Exception:
            self._report_bug("receive", now)
        self.perform(now)

    def transport_failed(self, flow: Flow) -> None:
        """Nothing gets through to `flow`."""
        now = time.monotonic()
        try:
            self._engine.transport_failed(flow, now)
        except Exception:
            self._report_bug("transport_failed", now)
        self.perform(now)

    def committed(self, token: int) -> None:
        """A record is durable, and was told in its turn; token 0 is nobody's."""
        if not token:
            return
        now = time.monotonic()
        self._uncommitted.popleft()
        if not self.pace.is_behind:  # then the loop comes round late
            self._transports.hold()  # records become durable together, so many are answered in this turn of it
        try:
            self._engine.committed(token, now)
        except Exception:
            self._report_bug("committed", now)
        self.perform(now)

    def found(self, action: LookUp, answer: Route | Refusal) -> None:
        """The answer to a look-up in a store that answers later."""
        now = time.monotonic()
        try:
            self._take(action, answer, now)
        except Exception:
            self._report_bug("found", now)
        self.perform(now)

    def routed(self, token: int, answer: Route | Refusal) -> None:
        """The answer to a look-up that had to wait for `verify`."""
        now = time.monotonic()
        try:
            self._engine.routed(token, answer, now)
        except Exception:
            self._report_bug("routed", now)
        self.perform(now)

    def mediated(self, token: int, answer: Mediated | None) -> None:
        """What rtpengine answered."""
        now = time.monotonic()
        try:
            self._engine.mediated(token, answer, now)
        except Exception:
            self._report_bug("mediated", now)
        self.perform(now)

    def set_clock(self) -> float:
        """Follow the wall clock; about once a second. Gives by how many seconds it was set, negative: back."""
        offset_s = time.time() - time.monotonic()
        step_s, self._engine.clock_offset_s = offset_s - self._engine.clock_offset_s, offset_s
        return step_s

    def close(self) -> None:
        """What still waits is dropped: SIP sends it again."""
        self._backlog = Backlog()
        self._drop_due()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # What waits while the process is behind

    def _is_stalled(self, now: float) -> bool:
        return bool(self._uncommitted) and now - self._uncommitted[0] > STALLED_S

    def _keep(self, data: bytes, flow: Flow, now: float) -> None:
        backlog = self._backlog
        name = self._engine.name_at(flow)
        if not backlog.has_room(name, data):
            self._engine.exceed_work(name, now)
            if not flow.reliable:  # SIP sends it again
                return
            while not backlog.has_room(name, data) and self._serve_next(now):  # its stream is not read meanwhile
                pass
        lasts = backlog.lasts(now)
        wait_s = math.inf if self._is_stalled(now) else backlog.wait_s(name, lasts=lasts)
        try:
            rank = self._engine.sort(data, flow, wait_s, now, lasts=lasts)
        except Exception:
            self._report_bug("sort", now)
            return
        if rank is not None:
            backlog.keep(data, flow, rank, name, now)
        if not self._is_working:
            self._is_working = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        now = time.monotonic()
        self._transports.hold()
        self.pace.report(self._backlog.waited_s(now), now)
        self.perform(now)  # answers to what was not kept
        until = now + SLICE_S
        while now < until and self._serve_next(now):
            now = time.monotonic()
        self._transports.release()
        if len(self._backlog):
            asyncio.get_running_loop().call_soon(self._work)
        else:
            self._is_working = False
            self.pace.rest(now)

    def _serve_next(self, now: float) -> bool:
        """False: nothing waits."""
        if waiting := self._backlog.take_inside():
            self._serve(waiting[0], waiting[1], now)
            return True
        lasts = self._backlog.lasts(now)
        if waiting := self._backlog.take_new():
            self._serve_new(waiting, now, lasts=lasts)
            return True
        return False

    def _serve_new(self, waiting: Waiting, now: float, *, lasts: bool) -> None:
        try:
            if self._engine.receive_new(waiting[0], waiting[1], now - waiting[2], now, lasts=lasts):
                self._backlog.served(now)
        except Exception:
            self._report_bug("receive_new", now)
        self.perform(now)

    # What the relay does about it

    def perform(self, now: float) -> None:
        """Do all that the engine asks for, in its order, until it asks no more; then see to the timer."""
        if self._performing:  # a send failed at once: the loop below takes what the engine makes of it
            return
        self._performing = True
        take, send = self._engine.take_actions, self._transports.send
        while actions := take():
            for action in actions:
                try:
                    if isinstance(action, Send):
                        send(action.data, action.flow)
                    else:
                        self._do(action, now)
                except Exception:
                    self._report_bug(type(action).__name__, now)
        self._performing = False
        when = self._engine.next_timeout()
        if when is not None and when < self._wake_at:
            self._arm(when, now)

    def _do(
        self,
        action: SendAll | LookUp | Mediate | Commit | KeepAttempt | DropAttempt | Tell | Note,
        now: float,
    ) -> None:
        if isinstance(action, KeepAttempt):
            self._attempts.keep(action.record, action.state)
        elif isinstance(action, LookUp):
            self._answer(action, now)
        elif isinstance(action, Commit):
            self._commit(action, now)
        elif isinstance(action, DropAttempt):
            self._drop_attempt(action)
        elif isinstance(action, SendAll):
            self._transports.send_all(action.messages, action.flow)
        else:
            self._do_rarer(action, now)

    def _do_rarer(self, action: Mediate | Tell | Note, now: float) -> None:
        if isinstance(action, Tell):
            self._tell(action.kind, action.record)
        elif isinstance(action, Mediate):
            if self._mediate is not None:
                self._mediate(action, self.mediated)
            else:  # a call from before a restart, and rtpengine is no longer configured
                self._engine.mediated(action.token, None, now)
        else:
            getattr(self._log, _LEVELS.get(action.event, "warning"))(action.event, **action.fields)

    def _commit(self, action: Commit, now: float) -> None:
        if action.token:
            self._uncommitted.append(now)
        self._append(action, self.committed)
        if action.record.ended_at is not None:
            self._log_ended(ended_call(action.record))

    def _drop_attempt(self, action: DropAttempt) -> None:
        if action.at_once:
            self._attempts.drop([action.call_id])
            return
        if not self._dropped:
            asyncio.get_running_loop().call_later(DROP_S, self._drop_due)
        self._dropped.append(action.call_id)

    def _drop_due(self) -> None:
        dropped, self._dropped = self._dropped, []
        if dropped:
            self._attempts.drop(dropped)

    def _answer(self, action: LookUp, now: float) -> None:
        # Stalled: a call that was begun before, or nothing is to be shed.
        if self._is_stalled(now) or not self._attempts.is_ready():
            self._engine.routed(action.token, STORE_FAILED, now)
            return
        try:
            if self._look_up_later is not None:
                self._look_up_later(action, now + self._engine.clock_offset_s, self.found)
                return
            answer = self._look_up(action.number, action.caller, now + self._engine.clock_offset_s, action.peer)
        except Exception:
            self._report_bug("look_up", now)
            answer = STORE_FAILED  # DESIGN 1: fail closed
        self._take(action, answer, now)

    def _take(self, action: LookUp, answer: Route | Refusal, now: float) -> None:
        """What the store says; a route that wants it is verified first."""
        if not isinstance(answer, Route) or not answer.verify:
            self._engine.routed(action.token, answer, now)
        elif self._verify is not None:
            self._verify(action, answer, self.routed)
        else:
            self._engine.routed(action.token, VERIFICATION_FAILED, now)

    def _arm(self, when: float, now: float) -> None:
        """Move the wake-up earlier. It is never moved later: waking for nothing costs less than cancelling."""
        wake_at = max(when, now + GRAIN_S)
        if wake_at >= self._wake_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._wake_at = wake_at
        self._timer = asyncio.get_running_loop().call_later(wake_at - now, self._wake)

    def _wake(self) -> None:
        now = time.monotonic()
        self.pace.report(now - self._wake_at, now)
        if self.pace.is_behind:  # uvloop runs timers before it looks at sockets: these have their turn first
            self._timer = asyncio.get_running_loop().call_later(0.001, self._wake_late)
        else:
            self._expire(now)

    def _wake_late(self) -> None:
        now = time.monotonic()
        until = now + ANSWERS_FIRST_S
        while now < until and self._backlog.has_inside:
            self._serve_next(now)
            now = time.monotonic()
        self._expire(now)

    def _expire(self, now: float) -> None:
        self._wake_at, self._timer = math.inf, None
        try:
            self._engine.expire(now)
        except Exception:
            self._report_bug("expire", now)
        self.perform(now)

    def _report_bug(self, where: str, now: float) -> None:
        """Log the exception at hand, up to a rate: what one datagram sets off, many may."""
        self.bugs += 1
        self._bugs_logged = [when for when in self._bugs_logged if now - when < 1.0]
        if len(self._bugs_logged) < BUGS_LOGGED_PER_S:
            self._bugs_logged.append(now)
            self._log.exception("relay.bug", where=where, bugs=self.bugs)


def ended_call(record: CallRecord) -> dict[str, object]:
    """What the log says of a call or a message. Leg Call-IDs are peers' text and stay out; short numbers are masked."""
    return {
        "kind": record.kind,
        "call_id": record.call_id,
        "outcome": record.outcome,
        "sip_status": record.sip_status,
        "q850_cause": record.q850_cause,
        "ended_by": record.ended_by,
        "end_reason": record.end_reason,
        "duration_ms": record.duration_ms,
        "number_dialled": mask_number(record.number_dialled),
        "number_shown": record.number_shown,
        "caller": mask_number(record.caller),
        "callee": mask_number(record.callee or "") or None,
        "peer_in": record.peer_in,
        "peer_out": record.peer_out,
        "business": record.business,
        "order_id": record.order_id,
        "binding_id": record.binding_id,
    }
